"""The chain of layers trained from scratch: sizes, definition, dropout, errors."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from network_calls import halve, initial_norm, relu_conv_norm, size

from jaxnas import genotypes, networks
from jaxnas.genotypes import MACRO_OPS, MacroGenotype

# Every operation once; stages of two layers.
ALL_OPS = MacroGenotype(MACRO_OPS, ((), (), (0,), (1, 2), (0, 3), (2,)))
# For what does not depend on the operations.
POOLS = MacroGenotype(("avg_pool_3x3",) * 3, ((), (0,), (0, 1)))


@functools.partial(jax.jit, static_argnums=0)
def init(network):
    image = jnp.zeros((1, 8, 8, 2))
    return network.init(jax.random.key(0), image, train=True)


@functools.cache
def images(batch_size=3):
    return jax.random.normal(jax.random.key(1), (batch_size, 8, 8, 2))


def shapes(network, side=32, image_channels=3):
    image = jax.ShapeDtypeStruct((1, side, side, image_channels), jnp.float32)
    init = functools.partial(network.init, train=True)
    return jax.eval_shape(init, jax.random.key(0), image)["params"]


# Counts of the official code's network for the genotype of its script.
@pytest.mark.parametrize(
    ("separable", "expected"), [(True, 30_947_424), (False, 42_559_392)]
)
def test_count_of_the_published_network(separable, expected):
    genotype = genotypes.named("ENAS_MACRO")
    params = shapes(networks.macro(genotype, separable=separable))
    assert size(params) == expected
    reductions = [size(m) for name, m in params.items() if name.startswith("reduce")]
    assert len(reductions) == 9 + 17
    assert sum(reductions) == 1_435_776
    assert size(params["stem"]) == 2_784
    assert size(params["classifier"]) == 3_840
    if not separable:
        joins = [module["join"] for module in params.values() if "join" in module]
        assert sum(map(size, joins)) == 11_161_920


def test_cost_and_width():
    network = networks.macro(ALL_OPS, 4, 7)
    count = networks.count_params(network, (8, 8, 3))
    num_params, flops = networks.cost(network, (8, 8, 3))
    assert num_params == count == size(shapes(network))
    wider = networks.macro(ALL_OPS, 8, 7)
    assert networks.cost(wider, (8, 8, 3)).flops > 2 * flops
    # Dense kernels instead of a depthwise and a pointwise one, of 3x3 and of 5x5; the
    # latter have twice the channels.
    difference = (9 * 16 - 9 * 4 - 16) + (25 * 64 - 25 * 8 - 64)
    dense = networks.macro(ALL_OPS, 4, 7, separable=False)
    assert networks.count_params(dense, (8, 8, 3)) - count == difference


@pytest.mark.parametrize("separable", [True, False])
def test_channels_for_budget_is_the_boundary(separable):
    network = functools.partial(networks.macro, ALL_OPS, separable=separable)
    count = networks.count_params(network(5), (32, 32, 3))
    largest = functools.partial(
        networks.channels_for_budget, network, image_shape=(32, 32, 3)
    )
    assert (largest(count - 1), largest(count), largest(count + 1)) == (4, 5, 5)


def convolve(x, kernel, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def pool(x, op):
    if op == "max_pool_3x3":
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1,) * 4, "SAME")
    total, count = (
        lax.reduce_window(y, 0.0, lax.add, (1, 3, 3, 1), (1,) * 4, "SAME")
        for y in (x, jnp.ones_like(x))
    )
    return total / count  # padding does not count


@functools.partial(jax.jit, static_argnums=0)
def definition(genotype, params, x):
    """The network of the official code, evaluated with the initial statistics."""

    sources = [initial_norm(convolve(x, params["stem"]["kernel"]))]
    third = len(genotype.ops) // 3
    for k, (op, skips) in enumerate(zip(*genotype, strict=True)):
        layer = params[f"layer_{k}"]
        y = jax.nn.relu(relu_conv_norm(sources[k], layer["before"]))
        if op.endswith("pool_3x3"):
            y = pool(y, op)
        elif op.startswith("sep_conv"):
            y = convolve(y, layer[op]["depthwise"][:, :, None], y.shape[-1])
            y = initial_norm(y @ layer[op]["pointwise"])
        else:
            y = initial_norm(convolve(y, layer[op]["kernel"]))
        if k > 0:
            joined = jnp.concatenate([*(sources[i] for i in skips), y], axis=-1)
            y = relu_conv_norm(joined, layer["join"])
        sources.append(y)
        if k + 1 in (third, 2 * third):
            sources = [
                halve(y, params[f"reduce_before_layer_{k + 1}_source_{i}"])
                for i, y in enumerate(sources)
            ]
    return sources[-1].mean((1, 2)) @ params["classifier"]["kernel"]


def test_network_equals_its_definition():
    network = networks.macro(ALL_OPS, 4, 5)
    variables = init(network)
    logits = jax.jit(functools.partial(network.apply, train=False))(variables, images())
    expected = definition(ALL_OPS, variables["params"], images())
    assert logits.shape == (3, 5)
    assert float(jnp.abs(logits).max()) > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_separable_convolutions_may_be_dense():
    params = shapes(networks.macro(ALL_OPS, 4, separable=False))
    assert params["layer_1"]["sep_conv_3x3"]["kernel"].shape == (3, 3, 4, 4)
    assert params["layer_3"]["sep_conv_5x5"]["kernel"].shape == (5, 5, 8, 8)
    params = shapes(networks.macro(ALL_OPS, 4))
    assert params["layer_3"]["sep_conv_5x5"]["depthwise"].shape == (5, 5, 8)


def test_training_differs_by_dropout_and_updates_statistics():
    network = networks.macro(POOLS, 2)
    variables = init(network)

    @jax.jit
    def train(seed):
        return network.apply(
            variables,
            images(),
            train=True,
            rngs={"dropout": jax.random.key(seed)},
            mutable=["batch_stats"],
        )

    (logits, updated), (others, same) = train(0), train(1)
    assert not np.allclose(logits, others, atol=1e-3)
    np.testing.assert_array_equal(train(0)[0], logits)
    # Only the classifier's features are dropped.
    chex.assert_trees_all_close(updated, same, rtol=1e-6)
    changed = jax.tree.map(
        lambda new, old: bool((new != old).any()),
        updated["batch_stats"],
        variables["batch_stats"],
    )
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels is 0; expected at least 1"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 or more, below 1"),
        (
            {"genotype": MacroGenotype(POOLS.ops[:2], POOLS.skips[:2])},
            "the genotype has 2 layers; two reductions need at least 3",
        ),
        (
            {"genotype": POOLS._replace(skips=((), (1,), ()))},
            "layer 1, skips: found source 1; expected some of 0 to 0",
        ),
        ({"genotype": genotypes.named("ENAS")}, "found a Genotype; expected a Macro"),
    ],
)
def test_wrong_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        networks.macro(**{"genotype": POOLS, **changes})


def test_wrong_sizes():
    with pytest.raises(ValueError, match="a feature map of 3x3 cannot be halved"):
        shapes(networks.macro(POOLS, 2), side=6)
