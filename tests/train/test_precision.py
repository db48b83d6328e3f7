"""Training steps in bfloat16: what is computed in it, and what is not."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import genotypes, ghn, networks, optim, spaces, supernets, train, weights
from jaxnas.train import from_scratch

KEY = jax.random.key(0)
CLASSES = 3
TYPES: dict[train.Precision, str] = {"float32": "f32", "bfloat16": "bf16"}

NETS = {
    "micro-asng": lambda: supernets.micro(spaces.enas_micro(1), 4, 3, CLASSES),
    "micro-enas": lambda: supernets.micro(
        spaces.enas_micro(1), 4, 3, CLASSES, skeleton="enas"
    ),
    "macro": lambda: supernets.macro(
        spaces.MacroSpace(3, ("max_pool_3x3", "sep_conv_5x5", "conv_3x3")), 4, CLASSES
    ),
    "dag": lambda: supernets.dag(spaces.ghn_dag(3), 2, 5, CLASSES),
    "anytime": lambda: supernets.anytime(
        spaces.anytime((3, 2, 2), (1, 1, 1)), channels=2, num_classes=CLASSES
    ),
}


def make_batch():
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.standard_normal((8, 8, 8, 3)), jnp.float32),
        "label": jnp.asarray(np.arange(8) % CLASSES, jnp.int32),
    }


def product_types(function, *args):
    """Number of products of matrices and convolutions by the type of their result."""
    text = jax.jit(function).lower(*args).as_text()
    products = r"stablehlo\.(?:dot_general|convolution).*-> tensor<(?:\d+x)*(\w+)>"
    return collections.Counter(re.findall(products, text))


def leaf_types(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def cosine(found, expected):
    found, expected = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (found, expected)
    )
    return found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", NETS)
def test_a_supernet_computes_in_bfloat16(name):
    net = NETS[name]()
    provider = weights.shared(net)
    task = train.classification()
    if name == "anytime":
        task = train.multi_exit_classification()
    params, archs = jax.eval_shape(provider.init, KEY), net.space.sample(KEY)[None]
    args = params, archs, make_batch(), KEY
    gradient = train.weight_gradient(net, provider, task, precision="bfloat16")
    evaluate = train.evaluation_step(net, provider, task, precision="bfloat16")
    assert set(product_types(gradient, *args)) == {"bf16"}
    assert set(product_types(evaluate, *args[:3])) == {"bf16"}
    assert leaf_types(jax.eval_shape(gradient, *args)) == {"float32"}


def test_a_hypernetwork_predicts_in_float32():
    net = NETS["dag"]()
    provider = ghn.hypernetwork(net, hidden_size=4, decoder_size=4)
    params, archs = jax.eval_shape(provider.init, KEY), net.space.sample(KEY)[None]
    args = params, archs, make_batch(), KEY
    gradient = train.weight_gradient(
        net, provider, train.classification(), precision="bfloat16"
    )
    types = product_types(gradient, *args)
    assert min(types["f32"], types["bf16"]) > 20
    assert leaf_types(jax.eval_shape(gradient, *args)) == {"float32"}


def test_a_network_computes_in_bfloat16():
    network = networks.micro(genotypes.named("DARTS_V2"), 4, 3, CLASSES)
    optimizer, batch = optim.sgd(0.1, momentum=0.0), make_batch()
    variables = jax.jit(lambda: network.init(KEY, batch["image"], train=True))()
    params, batch_stats = variables["params"], variables["batch_stats"]
    state = train.TrainState(
        jnp.int32(0), KEY, params, batch_stats, optimizer.init(params), {}
    )
    new = {}
    for precision, name in TYPES.items():
        step = functools.partial(
            from_scratch.train_step(
                network, train.classification(), optimizer, precision=precision
            ),
            drop_path_prob=None,
        )
        with jax.numpy_dtype_promotion("standard"):  # Flax's normalization needs it
            assert set(product_types(step, state, batch, KEY)) == {name}
            new[precision], _ = jax.jit(step)(state, batch, KEY)
    found, expected = new["bfloat16"], new["float32"]
    assert leaf_types(found.params) == leaf_types(found.batch_stats) == {"float32"}
    moved = jax.tree.map(jnp.subtract, found.params, params)
    expected_moves = jax.tree.map(jnp.subtract, expected.params, params)
    assert cosine(moved, expected_moves) > 0.95
    assert cosine(found.batch_stats, expected.batch_stats) > 0.9999
    # Statistics that had been computed in bfloat16 would have only 8 bits.
    statistics = np.concatenate(jax.tree.leaves(found.batch_stats))
    rounded = np.asarray(jnp.asarray(statistics, jnp.bfloat16), np.float32)
    assert (statistics == rounded).mean() < 0.5


def test_unknown_precisions_are_refused():
    net = NETS["dag"]()
    provider, task = weights.shared(net), train.classification()
    message = "precision is 'half'; expected one of float32, bfloat16"
    unknown: train.Precision = "half"  # pyright: ignore[reportAssignmentType]
    with pytest.raises(ValueError, match=message):
        train.weight_gradient(net, provider, task, precision=unknown)
    with pytest.raises(ValueError, match=message):
        train.evaluation_step(net, provider, task, precision=unknown)
