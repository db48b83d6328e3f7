"""The network of blocks trained from scratch: sizes, definition, paths, heads."""

import functools
import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_calls import evaluate, images, init, shapes, size, train

from jaxnas import genotypes, networks, ops, spaces, supernets
from jaxnas.genotypes import DagGenotype
from jaxnas.networks import dag_network

# Nodes of several inputs, with and without weights; leaves 4 and 5.
BLOCK = DagGenotype(
    ops=("conv_1x1", "skip_connect", "max_pool_3x3", "sep_conv_3x3"),
    inputs=((0, 1), (0, 2), (1, 2), (3,)),
)
# What compiles quickly; one leaf.
SMALL = DagGenotype(("conv_1x1", "skip_connect"), ((0, 1), (0, 2)))
# Nobody reads node 1.
POOLS = DagGenotype(("avg_pool_3x3", "skip_connect"), ((0,), (0, 2)))
IDENTITIES = DagGenotype(("skip_connect",), ((0,),))


def count_of_ghn(channels: int) -> int:
    """Parameters of 18 blocks of figure 6: 7 sep 3x3, 1 sep 5x5, 4 leaves."""
    total = 27 * channels + 2 * channels  # the stem
    widths = [channels, channels]
    for block in range(18):
        c = channels * (1 if block < 6 else 2 if block < 12 else 4)
        total += sum(2 * (k * k * c + c * c + 2 * c) for k in 7 * [3] + [5])
        total += sum(width * c + 2 * c for width in widths)
        widths = [4 * c, widths[0]]
    return total + 4 * 4 * channels * 10 + 10


@pytest.mark.parametrize("channels", [4, 32])
def test_count_of_the_published_block(channels):
    genotype = genotypes.named("GHN")
    network = networks.dag(genotype, channels, 18)
    assert networks.count_params(network, (32, 32, 3)) == count_of_ghn(channels)
    if channels == 32:
        assert count_of_ghn(channels) == 3_255_466
        network = networks.dag(genotype, 32, 18, auxiliary=True)
        assert networks.count_params(network, (32, 32, 3)) == 3_723_700


def test_channels_for_budget_is_the_boundary():
    network = functools.partial(networks.dag, BLOCK, num_blocks=4)
    count = networks.count_params(network(5), (32, 32, 3))
    largest = functools.partial(
        networks.channels_for_budget, network, image_shape=(32, 32, 3)
    )
    assert (largest(count - 1), largest(count), largest(count + 1)) == (4, 5, 5)


def test_channels_for_flops_is_the_boundary():
    def network(channels):
        return networks.dag(BLOCK, channels, 4, 10, skeleton="imagenet")

    largest = functools.partial(
        networks.channels_for_flops, network, image_shape=(32, 32, 3)
    )
    flops = [networks.cost(network(c), (32, 32, 3)).flops for c in (1, 5)]
    assert (largest(flops[1] - 9), largest(flops[1] + 9)) == (4, 5)
    with pytest.raises(ValueError, match=r"flops_limit is 9; with a single channel .*"):
        largest(9)


def test_flops_are_those_of_every_input_and_block():
    def flops(op, num_blocks=3, channels=8):
        block = DagGenotype((op,), ((0, 1),))
        network = networks.dag(block, channels, num_blocks, 10)
        return networks.cost(network, (16, 16, 1)).flops

    # A kernel's products: 8, 16 and 32 channels on 16x16, 8x8 and 4x4 pixels take as
    # many.
    products = 2 * 3 * 16**2 * 8**2
    more = flops("conv_1x1") - flops("skip_connect")
    assert 2 * products < more < 3 * products
    # An operation that goes through a large batch in a loop is counted whole.
    dense = flops("conv_7x1_1x7", channels=64) - flops("skip_connect", channels=64)
    assert dense == pytest.approx(2 * 14 * products * 64, rel=0.15)
    growth = [flops("skip_connect", num) for num in (9, 12, 15)]
    assert growth[2] - growth[1] == pytest.approx(growth[1] - growth[0], rel=1e-3)


def definition(genotype, num_blocks, params, statistics, images):
    """Evaluation of a network of unrolled blocks, node by node."""
    primitives = ops.primitives()

    def norm(x, module, number=0):
        scale, mean = (tree[f"BatchNorm_{number}"] for tree in module)
        x = (x - mean["mean"]) / jnp.sqrt(mean["var"] + 1e-5)
        return x * scale["scale"] + scale["bias"]

    def module(*names):
        found = params, statistics
        for name in names:
            found = tuple(tree.get(name, {}) for tree in found)
        return found

    def block(index):
        for name in params:
            prefix, _, rest = name.partition("_")
            first, *last = rest.split("_to_")
            if prefix == "block" and int(first) == index:
                return module(name)
            if prefix == "blocks" and int(first) <= index <= int(last[0]):
                position = index - int(first)
                return jax.tree.map(operator.itemgetter(position), module(name))
        raise AssertionError(index)

    stem = module("stem")
    x = norm(ops.conv(images, stem[0]["kernel"], (1, 1)), stem)
    outputs = [x, x]
    for index in range(num_blocks):
        trees = block(index)
        reductions = sum(index >= third * num_blocks // 3 for third in (1, 2))
        side = images.shape[1] // 2**reductions
        states = {}
        for node in (0, 1):
            if f"input_{node}" in trees[0]:
                found = tuple(tree[f"input_{node}"] for tree in trees)
                x = outputs[-1 - node]
                stride = x.shape[1] // side
                x = jax.nn.relu(x)[:, ::stride, ::stride] @ found[0]["kernel"]
                states[node] = norm(x, found)
        for node, (name, inputs) in enumerate(zip(*genotype, strict=True), start=2):
            found = tuple(tree.get(f"node_{node}_{name}", {}) for tree in trees)
            total = 0.0
            for source in inputs:
                numbers = iter(range(9))
                total += primitives[name].apply(
                    states[source],
                    found[0],
                    1,
                    lambda y, f=found, n=numbers: norm(y, f, next(n)),
                )
            states[node] = total
        leaves = genotypes.dag_leaves(genotype)
        outputs.append(jnp.concatenate([states[v] for v in leaves], axis=-1))
    features = jax.nn.relu(outputs[-1]).mean((1, 2))
    return features @ params["classifier"]["kernel"] + params["classifier"]["bias"]


@pytest.mark.parametrize(("genotype", "num_blocks"), [(BLOCK, 3), (SMALL, 10)])
def test_evaluation_is_as_defined(genotype, num_blocks):
    network = networks.dag(genotype, 4, num_blocks, 7)
    variables = init(network)
    # Other statistics than the initial ones, which are those of any normal image.
    variables["batch_stats"] = jax.tree.map(lambda x: x + 0.5, variables["batch_stats"])
    with jax.numpy_rank_promotion("allow"):
        expected = jax.jit(functools.partial(definition, genotype, num_blocks))(
            variables["params"], variables["batch_stats"], images()
        )
    logits = evaluate(network, variables, images())
    chex.assert_shape(logits, (4, 7))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert ("blocks_8_to_9" in variables["params"]) == (num_blocks == 10)
    separately = evaluate(network.clone(unroll=True), variables, images())
    np.testing.assert_allclose(separately, expected, rtol=1e-4, atol=1e-4)


def test_scan_equals_its_unrolled_form_in_training():
    network = networks.dag(SMALL, 2, 10)
    unrolled = network.clone(unroll=True)
    params = shapes(network)["params"]
    chex.assert_trees_all_equal(params, shapes(unrolled)["params"])
    # The blocks of a scan drop with keys of their own.
    variables = init(network)

    def run(network, seed, prob=0.5):
        return train(
            network, variables, images(), jnp.float32(prob), jax.random.key(seed)
        )

    close = {"rtol": 1e-4, "atol": 1e-4}
    chex.assert_trees_all_close(run(network, 2), run(unrolled, 2), **close)
    assert not np.allclose(run(network, 2)[0], run(network, 3)[0], atol=1e-3)
    np.testing.assert_array_equal(run(network, 2, 0)[0], run(network, 3, 0)[0])


def test_running_statistics_are_those_over_all_inputs():
    network = networks.dag(DagGenotype(("conv_1x1",), ((0, 1),)), 2, 3)
    variables = init(network)
    _, updated = train(network, variables, images())
    params = variables["params"]
    block = params["block_0"]
    stem = ops.batch_norm(ops.conv(images(), params["stem"]["kernel"], (1, 1)))
    inputs = [
        ops.batch_norm(jax.nn.relu(stem) @ block[f"input_{i}"]["kernel"])
        for i in (0, 1)
    ]
    node = "node_2_conv_1x1"
    seen = jax.nn.relu(jnp.concatenate(inputs)) @ block[node]["kernel"]
    (after,) = updated["batch_stats"]["block_0"][node].values()
    np.testing.assert_allclose(after["mean"], 0.1 * seen.mean((0, 1, 2)), atol=1e-5)
    expected = 0.9 + 0.1 * seen.var((0, 1, 2))
    np.testing.assert_allclose(after["var"], expected, atol=1e-5)


# Several inputs of operations with one, two and no normalizations; leaves 3, 4 and 5.
LEAVES = DagGenotype(
    ops=("conv_1x1", "sep_conv_3x3", "max_pool_3x3", "skip_connect"),
    inputs=((0, 1), (0, 2), (1, 2), (0, 2)),
)


@pytest.mark.parametrize(
    ("genotype", "num_blocks", "node_input"),
    [(LEAVES, 3, "each"), (SMALL, 10, "each"), (LEAVES, 3, "sum")],
)
def test_with_batch_statistics_it_is_the_supernet(genotype, num_blocks, node_input):
    # There may be room for more nodes.
    space = spaces.ghn_dag(2 + len(genotype.ops), max_nodes=6, ops=LEAVES.ops)
    net = supernets.dag(
        space, 2, num_blocks, 7, node_input=node_input, image_channels=1
    )
    weights = jax.jit(net.init)(jax.random.key(0))
    weights["stem"]["scale"] += 0.5
    expected = jax.jit(net.apply)(weights, space.encode(genotype), images())
    network = networks.dag(
        genotype, 2, num_blocks, 7, node_input=node_input, last_bottleneck=True
    )
    variables = init(network)
    params = networks.params_from_supernet(network, weights)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, variables["params"])
    logits, updated = train(network, variables | {"params": params}, images())
    error = 1e-5 if num_blocks == 3 else 1e-4  # rounding grows with the depth
    np.testing.assert_allclose(logits, expected, rtol=error, atol=error)
    # Statistics of one batch that is all there is.
    statistics = jax.tree.map(
        lambda new, old: (new - 0.9 * old) / 0.1,
        updated["batch_stats"],
        variables["batch_stats"],
    )
    variables = {"params": params, "batch_stats": statistics}
    alone = [evaluate(network, variables, image[None]) for image in images()]
    np.testing.assert_allclose(jnp.concatenate(alone), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"last_bottleneck": False},
        {"auxiliary": True},
        {"skeleton": "imagenet", "num_blocks": 4},
    ],
)
def test_networks_that_are_not_the_supernets(settings):
    network = networks.dag(
        SMALL, **{"channels": 2, "num_blocks": 3, "last_bottleneck": True} | settings
    )
    with pytest.raises(ValueError, match="expected 'cifar', False and True"):
        networks.params_from_supernet(network, {})


def test_statistics_of_each_input_are_parameters_of_their_own():
    block = DagGenotype(("sep_conv_3x3",), ((0, 1),))
    num_more = {
        node_input: size(
            shapes(networks.dag(block, 4, 3, node_input=node_input))["params"]
        )
        - size(shapes(networks.dag(block, 4, 3))["params"])
        for node_input in ("each", "sum")
    }
    # A scale and an offset after each of two layers, of 4, 8 and 16 channels.
    assert num_more == {"each": 2 * 2 * (4 + 8 + 16), "sum": 0}


def test_inputs_that_nobody_reads_are_not_made():
    params = shapes(networks.dag(POOLS, 2, 3))["params"]
    assert list(params["block_0"]) == ["input_0"]
    # One leaf, of twice and four times the channels after the reductions.
    kernels = [params[f"block_{i}"]["input_0"]["kernel"].shape for i in range(3)]
    assert kernels == [(2, 2), (2, 4), (4, 8)]


@pytest.mark.parametrize(
    ("skeleton", "num_blocks", "reductions"),
    [
        ("cifar", 18, (6, 12)),  # after the blocks 6 and 12
        ("cifar", 3, (1, 2)),
        ("imagenet", 14, (0, 1, 5, 9)),  # in the blocks 1, 2, 6 and 10
        ("imagenet", 4, (0, 1, 2, 3)),
    ],
)
def test_reductions(skeleton, num_blocks, reductions):
    assert dag_network._reductions(skeleton, num_blocks) == reductions


def test_skeleton_of_imagenet():
    network = networks.dag(BLOCK, 4, 14, 20, skeleton="imagenet", auxiliary=True)

    def run(image):
        variables = network.init(jax.random.key(0), image, train=True)
        outputs, updated = network.apply(
            variables,
            image,
            train=True,
            mutable=["intermediates", "batch_stats"],
            capture_intermediates=True,
        )
        return outputs, updated["intermediates"]

    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    outputs, captured = jax.eval_shape(run, image)
    assert [x.shape for x in outputs] == [(1, 20), (1, 20)]
    sides = {
        name: captured[name]["__call__"][0].shape[1:]
        for name in ("stem", *(f"block_{i}" for i in (0, 1, 2, 5, 6, 9, 10)))
    }
    # Two leaves each.
    assert sides == {
        "stem": (112, 112, 4),
        "block_0": (56, 56, 8),
        "block_1": (28, 28, 16),
        "block_2": (28, 28, 16),
        "block_5": (14, 14, 32),
        "block_6": (14, 14, 32),
        "block_9": (7, 7, 64),
        "block_10": (7, 7, 64),
    }


def test_auxiliary_head_works_in_training_only():
    network = networks.dag(IDENTITIES, 2, 3, 7, auxiliary=True)
    variables = init(network, 32)
    (logits, auxiliary_logits), _ = train(network, variables, images(3, 32))
    chex.assert_shape([logits, auxiliary_logits], (3, 7))
    assert not np.allclose(logits, auxiliary_logits)
    evaluated = jax.eval_shape(
        functools.partial(network.apply, train=False), variables, images(3, 32)
    )
    assert evaluated.shape == (3, 7)
    with pytest.raises(ValueError, match=r"8x8 or larger after .*, not 4x4"):
        shapes(network, 16)


@pytest.mark.parametrize(
    ("op", "is_dropped"), [("skip_connect", 0), ("max_pool_3x3", 1)]
)
def test_operations_but_identities_are_dropped(op, is_dropped):
    network = networks.dag(DagGenotype((op,), ((0,),)), 2, 3)
    variables = init(network)
    without, _ = train(network, variables, images())
    prob = jnp.float32(1 - 1e-6)
    dropped, _ = train(network, variables, images(), prob, jax.random.key(0))
    bias = jnp.tile(variables["params"]["classifier"]["bias"], (4, 1))
    np.testing.assert_allclose(dropped, bias if is_dropped else without, atol=1e-5)


def test_dropout_before_the_classifier():
    network = networks.dag(IDENTITIES, 2, 3, dropout=0.5)
    variables = init(network.clone(dropout=0.0))
    first, second = (
        train(network, variables, images(), None, jax.random.key(seed))[0]
        for seed in (0, 1)
    )
    assert not np.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize(
    ("genotype", "settings", "message"),
    [
        (POOLS, {"num_blocks": 2}, "num_blocks is 2; 2 reductions need at least 3"),
        (
            POOLS,
            {"num_blocks": 3, "skeleton": "imagenet"},
            "num_blocks is 3; 4 reductions need at least 4",
        ),
        (POOLS, {"node_input": "all"}, "node_input is 'all'; expected 'joint', 'each'"),
        (POOLS, {"skeleton": "svhn"}, "skeleton is 'svhn'; expected 'cifar' or"),
        (POOLS, {"channels": 0}, "channels is 0; expected at least 1"),
        (POOLS, {"num_classes": 0}, "num_classes is 0; expected at least 1"),
        (POOLS, {"dropout": 1.0}, "dropout is 1.0; expected 0 or more, below 1"),
        (DagGenotype(("none",), ((0,),)), {}, "node 2: 'none' is not an operation"),
        (genotypes.named("ENAS"), {}, "found a Genotype; expected a DagGenotype"),
    ],
)
def test_wrong_arguments(genotype, settings, message):
    with pytest.raises(ValueError, match=message):
        networks.dag(genotype, **settings)
