"""A search that compiles at once: one hidden layer on a few digits."""

import functools
import hashlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers import take
from jax import lax

from jaxnas import data, parallel, search, train, weights
from jaxnas.types import Supernet


class Space:
    cardinalities = (3, 3)
    num_architectures = 9


def perceptron() -> Supernet:
    """One hidden layer; an architecture chooses its nonlinearity and a scale."""

    def init(key):
        first, second = jax.random.split(key)
        return {
            "hidden": 0.1 * jax.random.normal(first, (64, 16)),
            "output": 0.1 * jax.random.normal(second, (16, 10)),
        }

    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        del train, key, batch_axis
        x = inputs.reshape(inputs.shape[0], -1) @ weights["hidden"]
        x = lax.switch(arch[0], [jnp.zeros_like, jax.nn.relu, jnp.tanh], x)
        return x @ weights["output"] * jnp.array([0.1, 1.0, 0.5])[arch[1]]

    return Supernet(Space(), init, apply)


@functools.cache
def load() -> tuple[data.ImageDataset, train.SearchSplits]:
    digits = data.load("digits")
    first, rest = data.split(digits.train, 64)
    return digits, train.SearchSplits(first, data.split(rest, 70)[0])


def run(
    workdir=None,
    *,
    seed=0,
    num_epochs=3,
    splits=None,
    net=None,
    searcher=None,
    **options,
):
    digits, default = load()
    net = perceptron() if net is None else net

    def augment(key, images):
        normal = data.normalize(images, digits.mean, digits.std)
        return normal + 0.1 * jax.random.normal(key, images.shape)

    def normalize(key, images):
        return data.normalize(images, digits.mean, digits.std)

    pipeline = take(
        train.InputPipeline,
        options,
        batch_size=16,
        augment=augment,
        normalize=normalize,
    )
    settings = take(train.SearchSettings, options, num_epochs=num_epochs)
    return train.search(
        net,
        weights.shared(net),
        searcher or search.asng(net.space),
        train.classification(),
        optax.sgd(0.1, momentum=0.9),
        default if splits is None else splits,
        pipeline,
        settings,
        key=jax.random.key(seed),
        **{
            "test": data.split(digits.test, 40)[0],
            "workdir": workdir,
            "save_seconds": 0.0,
            **options,
        },
    )


def digest(state) -> str:
    """Of all bits of a state."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


def assert_equal_on_four_devices(four, one) -> None:
    """The states of two searches are equal, and the first on all its devices."""
    parallel.assert_replicated(four)
    chex.assert_trees_all_close(
        (four.weights, four.searcher, four.epoch_metrics),
        (one.weights, one.searcher, one.epoch_metrics),
        rtol=1e-5,
        atol=1e-5,
    )
