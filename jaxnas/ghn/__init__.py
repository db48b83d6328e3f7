"""Graph hypernetworks: weight providers that write the weights of an architecture.

A hypernetwork is trained like shared weights, by `jaxnas.train.search` or step by step;
`python launch/cifar_search.py --preset quick-ghn` trains a small one and leaves it in
`ghn.npz`. It then writes the weights of architectures that it has never seen:

>>> import jax, optax
>>> from jaxnas import data, genotypes, ghn, spaces, supernets, train, weights
>>> digits = data.load("digits")
>>> ops = "sep_conv_3x3", "conv_1x1", "max_pool_3x3"  # fewer, to compile soon
>>> space = spaces.ghn_dag(4, ops=ops)
>>> net = supernets.dag(space, channels=4, num_blocks=3, image_channels=1)
>>> provider = ghn.hypernetwork(net, hidden_size=16)
>>> params = jax.jit(provider.init)(jax.random.key(0))  # untrained
>>> ghn.save("ghn.npz", params, provider)
>>> params = ghn.load("ghn.npz", provider)

The file knows the settings of the hypernetwork, and `load` refuses others. With them
it can be made again:

>>> settings = ghn.load_settings("ghn.npz")
>>> settings["hypernetwork"]["hidden_size"], settings["supernet"]["channels"]
(16, 4)
>>> provider = ghn.hypernetwork(net, **settings["hypernetwork"])

Predict the weights of an architecture, and evaluate it:

>>> block = genotypes.DagGenotype(("sep_conv_3x3", "conv_1x1"), ((0, 1), (0, 2)))
>>> arch = space.encode(block)
>>> predicted = jax.jit(provider.apply)(params, arch)
>>> def normalize(key, images):
...     return data.normalize(images, digits.mean, digits.std)
>>> task = train.classification()
>>> pipeline = train.InputPipeline(50, augment=normalize, normalize=normalize)
>>> evaluate = train.make_eval_fn(net, weights.shared(net), task, pipeline)
>>> before = evaluate(predicted, arch, digits.test)

Fine-tune from them:

>>> optimizer = optax.sgd(0.05, momentum=0.9)
>>> fine_tune = train.make_standalone_train_fn(
...     net, task, optimizer, digits.train, pipeline, snapshot_steps=[40]
... )
>>> start = ghn.add_noise(jax.random.key(1), predicted)
>>> (snapshot,) = fine_tune(arch, jax.random.key(2), start)
>>> after = evaluate(snapshot.weights, arch, digits.test)
>>> after["loss"] < before["loss"]
True
"""

from jaxnas.ghn.blocks import block_differences, block_metrics
from jaxnas.ghn.files import load, load_settings, save
from jaxnas.ghn.finetuning import add_noise
from jaxnas.ghn.hypernetwork import hypernetwork
from jaxnas.ghn.propagation import PassEmbeddings, Propagation

__all__ = [
    "PassEmbeddings",
    "Propagation",
    "add_noise",
    "block_differences",
    "block_metrics",
    "hypernetwork",
    "load",
    "load_settings",
    "save",
]
