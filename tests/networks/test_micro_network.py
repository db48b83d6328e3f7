"""The network trained from scratch: sizes, normalization, paths and heads."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import GOLDENS_DIR
from network_calls import (
    evaluate,
    halve,
    images,
    init,
    initial_norm,
    relu_conv_norm,
    shapes,
    size,
    train,
)

from jaxnas import genotypes, networks, spaces
from jaxnas.genotypes import Genotype
from jaxnas.networks import layers, micro_network

# Counts of the official PyTorch codes' networks with 20 cells: published genotypes
# with 36 channels (DARTS's network) and their variants, for 10, 100 and 200 classes,
# without auxiliary head and with one; and vectors of ASNG-NAS's space.
COUNTS = json.loads((GOLDENS_DIR / "param_counts.json").read_text())

SMALL = Genotype(
    normal=(
        *(("sep_conv_3x3", 0), ("skip_connect", 1)),
        *(("max_pool_3x3", 2), ("sep_conv_3x3", 1)),
    ),
    normal_concat=(2, 3),
    reduce=(("skip_connect", 0), ("avg_pool_3x3", 1)),
    reduce_concat=(2,),
)
TWICE = Genotype(
    normal=(("sep_conv_3x3", 1), ("sep_conv_3x3", 1)),
    normal_concat=(2,),
    reduce=(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    reduce_concat=(2,),
)
IDENTITIES = Genotype(
    normal=(("skip_connect", 0), ("skip_connect", 1)),
    normal_concat=(2,),
    reduce=(("skip_connect", 0), ("skip_connect", 1)),
    reduce_concat=(2,),
)


NETWORK = networks.micro(SMALL, 4, 3, 10)


def count_params(genotype, *sizes, image_channels=3, **options):
    network = networks.micro(genotype, *sizes, **options)
    return networks.count_params(network, (32, 32, image_channels))


def channels_for_budget(genotype, params_limit, *, image_channels=3, **options):
    return networks.channels_for_budget(
        functools.partial(networks.micro, genotype, **options),
        params_limit,
        (32, 32, image_channels),
    )


@pytest.mark.parametrize(
    ("name", "num_classes", "auxiliary", "expected"),
    [(name, *counts[0]) for name, counts in COUNTS["named"].items()]
    + [("DARTS_V2", *count) for count in COUNTS["named"]["DARTS_V2"][1:]],
)
def test_count_of_published_genotypes(name, num_classes, auxiliary, expected):
    genotype = genotypes.named(name)
    count = count_params(genotype, num_classes=num_classes, auxiliary=auxiliary)
    assert count == expected


@pytest.mark.parametrize(
    ("number", "base", "kind", "seed", "counts"),
    [(i, *variant) for i, variant in enumerate(COUNTS["variants"])],
    ids=[f"{base}-{kind}{seed}" for base, kind, seed, _ in COUNTS["variants"]],
)
def test_count_of_official_variants(number, base, kind, seed, counts):
    """Each with one of the six settings, in turn."""
    genotype = genotypes.named(base)
    variant = {
        "CONN": lambda: genotypes.random_connections(genotype, seed),
        "OPS": lambda: genotypes.random_operations(genotype, seed),
        "ADAPT": lambda: genotypes.widest_shallowest(genotype, keep_concat=True),
    }[kind]()
    num_classes, auxiliary = (10, 100, 200)[number % 3], bool(number % 2)
    expected = counts[2 * (number % 3) + auxiliary]
    found = count_params(variant, num_classes=num_classes, auxiliary=auxiliary)
    assert found == expected


@pytest.mark.parametrize("name", COUNTS["asng"])
def test_count_and_channels_of_asng(name):
    expected = COUNTS["asng"][name]
    genotype = spaces.enas_micro().decode(expected["arch"])
    count = functools.partial(count_params, genotype, cell_output="projection")
    channels = channels_for_budget(genotype, 4_000_000, cell_output="projection")
    assert channels == expected["largest_channels"]
    assert count(channels) == expected["num_params"]
    assert count(36) == expected["num_params_at_36_channels"]


def test_count_of_asng_with_auxiliary_head():
    expected = COUNTS["asng"]["zeros"]
    count = count_params(
        spaces.enas_micro().decode(expected["arch"]),
        expected["largest_channels"],
        auxiliary=True,
        cell_output="projection",
    )
    assert count == expected["num_params_with_auxiliary"]


@pytest.mark.parametrize(
    ("cell_output", "skeleton"),
    [("concat", "nasnet"), ("projection", "nasnet"), ("concat", "enas")],
)
def test_channels_for_budget_is_the_boundary(cell_output, skeleton):
    options = {
        **{"num_cells": 3, "num_classes": 7, "image_channels": 1},
        **{"skeleton": skeleton, "cell_output": cell_output},
    }
    for channels in (1, 2, 5):
        count = count_params(SMALL, channels, **options)
        largest = functools.partial(channels_for_budget, SMALL, **options)
        assert largest(count) == channels
        if channels > 1:
            assert largest(count - 1) == channels - 1
        assert largest(count + 1) == channels
        # The auxiliary head is not counted.
        assert largest(count, auxiliary=True) == channels


def test_channels_for_budget_needs_room_for_one():
    count = count_params(SMALL, 1, 3)
    with pytest.raises(ValueError, match=f"single channel .* already has {count}"):
        channels_for_budget(SMALL, count - 1, num_cells=3)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_cost_counts_what_is_initialized(auxiliary):
    network = networks.micro(SMALL, 2, 7, 10, auxiliary=auxiliary)
    num_params, flops = networks.cost(network, (32, 32, 1))
    assert num_params == size(shapes(network, 32)["params"])
    assert num_params == count_params(
        SMALL, 2, 7, auxiliary=auxiliary, image_channels=1
    )
    # The head is not evaluated.
    plain = networks.micro(SMALL, 2, 7, 10)
    assert flops == networks.cost(plain, (32, 32, 1)).flops


def test_flops_grow_by_equal_cells():
    # One scan, whose count must not be that of a single round.
    flops = [
        networks.cost(networks.micro(SMALL, 4, cells, 10), (8, 8, 3)).flops
        for cells in (9, 12, 15)
    ]
    assert flops[1] - flops[0] > 0
    assert flops[2] - flops[1] == pytest.approx(flops[1] - flops[0], rel=1e-3)


@pytest.mark.parametrize(
    ("cell_output", "skeleton"), [("projection", "nasnet"), ("concat", "enas")]
)
def test_scan_equals_its_unrolled_form(cell_output, skeleton):
    pool = (("max_pool_3x3", 0), ("skip_connect", 1))
    network = networks.micro(
        IDENTITIES._replace(normal=pool),
        *(4, 10),
        cell_output=cell_output,
        skeleton=skeleton,
    )
    unrolled = network.clone(unroll=True)
    assert "cells_8_to_9" in shapes(network)["params"]
    chex.assert_trees_all_equal(shapes(network), shapes(unrolled))
    variables = init(network)
    # The cells of a scan drop with probabilities and keys of their own.
    drop_path = jnp.float32(0.9), jax.random.key(2)
    chex.assert_trees_all_close(
        train(network, variables, images(), *drop_path),
        train(unrolled, variables, images(), *drop_path),
        rtol=1e-4,
        atol=1e-4,
    )


def test_auxiliary_head_works_in_training_only():
    network = networks.micro(TWICE, 2, 3, 7, auxiliary=True)
    variables = init(network, 32)
    (logits, auxiliary_logits), _ = train(network, variables, images(3, 32))
    chex.assert_shape([logits, auxiliary_logits], (3, 7))
    assert not np.allclose(logits, auxiliary_logits)
    chex.assert_shape(evaluate(network, variables, images(3, 32)), (3, 7))


@pytest.mark.parametrize("side", [8, 16, 28])
def test_auxiliary_head_needs_room(side):
    network = networks.micro(SMALL, 2, 3, 10, auxiliary=True)
    left = side // 4
    with pytest.raises(ValueError, match=f"8x8 or larger .* not {left}x{left}"):
        shapes(network, side)


def test_projection_shares_equal_edges_of_a_node():
    network = networks.micro(TWICE, 4, 3, 10, cell_output="projection")
    projection = shapes(network)["params"]
    concat = shapes(networks.micro(TWICE, 4, 3, 10))["params"]

    def edges(cell) -> int:
        return len([name for name in cell if name.startswith("node")])

    assert (edges(projection["cell_0"]), edges(concat["cell_0"])) == (1, 2)
    # The edges of the reduction cell read two sources.
    assert (edges(projection["cell_1"]), edges(concat["cell_1"])) == (2, 2)
    sep_conv = 2 * (9 * 4 + 4 * 4 + 2 * 4)
    conv_and_norm = 4 * 4 + 2 * 4
    difference = size(concat["cell_0"]) - size(projection["cell_0"])
    assert difference == sep_conv - conv_and_norm


@pytest.mark.parametrize(
    ("cell_output", "first", "last"), [("concat", 2 * 3, 24), ("projection", 3, 12)]
)
def test_channels_of_a_cells_output(cell_output, first, last):
    # Both cells of two nodes; the second cell reduces, and so does the third.
    genotype = SMALL._replace(reduce=SMALL.normal, reduce_concat=(2, 3))
    params = shapes(networks.micro(genotype, 3, 3, 10, cell_output=cell_output))[
        "params"
    ]
    assert params["cell_1"]["preprocess_1"]["kernel"].shape == (first, 6)
    assert params["classifier"]["kernel"].shape == (last, 10)


def test_evaluation_does_not_depend_on_the_batch():
    variables = init(NETWORK)
    # Statistics other than the initial ones, which are those of any normal image.
    _, updated = train(NETWORK, variables, images())
    variables = {**variables, **updated}
    together = evaluate(NETWORK, variables, images())
    for i in range(4):
        others = 7 * images().at[i].divide(7)
        alone = evaluate(NETWORK, variables, others)[i]
        np.testing.assert_allclose(alone, together[i], rtol=1e-4, atol=1e-5)
        # In training the batch counts.
        trained, _ = train(NETWORK, variables, images())
        differently, _ = train(NETWORK, variables, others)
        assert not np.allclose(trained[i], differently[i], atol=1e-3)


def test_running_statistics_are_a_moving_average():
    variables = init(NETWORK)
    _, updated = train(NETWORK, variables, images())
    stem = jax.lax.conv_general_dilated(
        images(),
        variables["params"]["stem"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    (before,), (after,) = (
        tree["batch_stats"]["stem"].values() for tree in (variables, updated)
    )
    for name, batch in (
        ("mean", stem.mean((0, 1, 2))),
        ("var", stem.var((0, 1, 2))),
    ):
        expected = 0.9 * before[name] + 0.1 * batch
        np.testing.assert_allclose(after[name], expected, atol=1e-5)


def test_drop_path_depends_on_key_and_probability():
    variables = init(NETWORK)
    without, _ = train(NETWORK, variables, images())

    def logits(seed, prob):
        key = jax.random.key(seed)
        return train(NETWORK, variables, images(), jnp.float32(prob), key)[0]

    np.testing.assert_allclose(logits(0, 0.0), without, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(logits(0, 0.0), logits(1, 0.0))
    np.testing.assert_array_equal(logits(0, 0.5), logits(0, 0.5))
    assert not np.allclose(logits(0, 0.5), logits(1, 0.5), atol=1e-3)
    assert not np.allclose(logits(0, 0.5), without, atol=1e-3)


def test_evaluation_drops_nothing():
    variables = init(NETWORK)
    # Without a PRNG stream a dropped path would be an error.
    logits = NETWORK.apply(
        variables, images(), train=False, drop_path_prob=jnp.float32(0.5)
    )
    expected = evaluate(NETWORK, variables, images())
    chex.assert_trees_all_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_drop_path_preserves_the_mean():
    x = jnp.broadcast_to(jnp.arange(1.0, 4.0), (4000, 2, 1, 3))
    dropped = layers.drop_path(jax.random.key(0), x, jnp.float32(0.3))
    # Whole examples are dropped, all others scaled alike.
    kept = np.asarray(dropped[:, :1, :1, :1] != 0)
    np.testing.assert_allclose(dropped, np.where(kept, x / 0.7, 0), rtol=1e-6)
    # Five standard deviations of a binomial share.
    assert abs(kept.mean() - 0.7) < 5 * (0.3 * 0.7 / 4000) ** 0.5


# ENAS's skeleton ---------------------------------------------------------------------


def enas(genotype=SMALL, channels=4, num_cells=3, **options):
    return networks.micro(genotype, channels, num_cells, skeleton="enas", **options)


# Counts of the official code's network, 17 cells of 36 channels.
@pytest.mark.parametrize(
    ("name", "expected"), [("ENAS_MICRO", 3_894_372), ("ENAS", 3_435_660)]
)
def test_count_of_enas(name, expected):
    genotype = genotypes.named(name)
    count = count_params(genotype, num_cells=17, skeleton="enas")
    assert count == expected


def test_count_of_enas_by_cell():
    network = enas(genotypes.named("ENAS_MICRO"), 36, 17, auxiliary=True)
    params = shapes(network, 32, image_channels=3)["params"]
    assert size(params) == 4_389_220
    assert {name: size(module) for name, module in params.items()} == {
        "stem": 3_132,
        "cell_0": 34_200,
        "cell_1": 36_792,
        "cells_2_to_4": 3 * 39_384,
        "cell_5": 115_488,
        "cell_6": 120_240,
        "cell_7": 133_200,
        "cells_8_to_10": 3 * 138_384,
        "cell_11": 427_968,
        "cell_12": 442_656,
        "cell_13": 494_496,
        "cells_14_to_16": 3 * 515_232,
        "classifier": 7_200,
        "auxiliary": 494_848,
    }


def test_enas_preprocesses_only_what_differs():
    # The output of a single node has the channels of its stage.
    params = shapes(enas(IDENTITIES, 2, 9))["params"]
    preprocessed = {
        name: [int(n[-1]) for n in sorted(cell) if n.startswith("preprocess")]
        for name, cell in params.items()
        if name.startswith("cell")
    }
    assert preprocessed == {
        **{"cell_0": [0, 1], "cell_1": [0], "cells_2_to_2": []},
        **{"cell_3": [0, 1], "cell_4": [0], "cells_5_to_5": []},
        **{"cell_6": [0, 1], "cell_7": [0], "cells_8_to_8": []},
    }
    assert params["cell_3"]["preprocess_0"]["kernel"].shape == (2, 4)
    # Half of the size: a factorized reduction.
    assert params["cell_4"]["preprocess_0"]["kernel"].shape == (2, 2, 2)
    assert all("base" in params[name] for name in preprocessed)


def test_enas_halves_the_unused_inputs_of_a_reduction():
    genotype = TWICE._replace(reduce=TWICE.normal)
    params = shapes(enas(genotype))["params"]
    assert params["cell_1"]["unused_0"]["kernel"].shape == (2, 8, 4)
    # The output joins the input and one node, each with the third cell's 16 channels.
    assert params["classifier"]["kernel"].shape == (2 * 16, 10)


@jax.jit
def definition(params, x):
    """ENAS's network of three cells of identities, with the initial statistics."""

    def second_input(x, cell):
        return relu_conv_norm(relu_conv_norm(x, cell["preprocess_1"]), cell["base"])

    def reduction(x, y, cell):
        x = halve(x, cell["node_2_edge_0_skip_connect"])
        return x + halve(second_input(y, cell), cell["node_2_edge_1_skip_connect"])

    stem = jax.lax.conv_general_dilated(
        x,
        params["stem"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    stem = initial_norm(stem)
    cells = [params[f"cell_{i}"] for i in range(3)]
    first = relu_conv_norm(stem, cells[0]["preprocess_0"])
    first = first + second_input(stem, cells[0])
    second = relu_conv_norm(stem, cells[1]["preprocess_0"])
    second = reduction(second, first, cells[1])
    third = halve(jax.nn.relu(first), cells[2]["preprocess_0"])
    third = reduction(third, second, cells[2])
    return jax.nn.relu(third).mean((1, 2)) @ params["classifier"]["kernel"]


def test_enas_equals_its_definition():
    network = enas(IDENTITIES)
    variables = init(network)
    logits = evaluate(network, variables, images())
    expected = definition(variables["params"], images())
    assert float(jnp.abs(logits).max()) > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_enas_drops_no_identity():
    network = enas(IDENTITIES)
    variables = init(network)
    dropped = train(network, variables, images(), jnp.float32(0.9), jax.random.key(0))
    expected, _ = train(network, variables, images())
    np.testing.assert_allclose(dropped[0], expected, rtol=1e-4, atol=1e-4)


def test_enas_drops_more_in_later_cells():
    probs = functools.partial(micro_network._drop_path_probs, jnp.float32(0.4), 4)
    np.testing.assert_allclose(probs(growing=True), [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(probs(growing=False), [0.4, 0.4, 0.4, 0.4])


def test_enas_auxiliary_head_follows_the_next_cell():
    params = shapes(enas(TWICE, 2, 4, auxiliary=True), 32)["params"]
    # Cell 2 reduces; the head reads the first input of cell 3, and its node.
    assert params["auxiliary"]["conv_1"]["kernel"].shape == (1, 1, 16, 128)
    assert "bias" not in params["auxiliary"]["classifier"]
    assert "bias" not in params["classifier"]


def test_kernels_of_enas_are_normal():
    kernel = init(enas(IDENTITIES))["params"]["cell_0"]["preprocess_0"]["kernel"]
    # He et al.; the uniform default has a sixth of it.
    assert np.var(kernel) == pytest.approx(2 / 12, rel=0.5)


def test_dropout_depends_on_its_key_and_preserves_the_mean():
    x = jnp.ones((2000, 1, 1, 3))
    classifier = layers.Classifier(2, False, 0.25, layers.init_he_normal)
    variables = {"params": {"kernel": jnp.eye(3)[:, :2]}}

    def features(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(classifier.apply(variables, x, train=True, rngs=rngs))

    assert set(np.unique(features(0))) == {0, np.float32(1 / 0.75)}
    # Five standard deviations of a binomial share.
    assert abs((features(0) > 0).mean() - 0.75) < 5 * (0.25 * 0.75 / 4000) ** 0.5
    assert (features(0) != features(1)).any()
    np.testing.assert_array_equal(
        classifier.apply(variables, x, train=False), x[:, 0, 0, :2]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_cells": 2}, "num_cells is 2; two reductions need at least 3"),
        ({"channels": 0}, "channels is 0; expected at least 1"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"cell_output": "sum"}, "cell_output is 'sum'; expected 'concat' or"),
        ({"skeleton": "darts"}, "skeleton is 'darts'; expected 'nasnet' or 'enas'"),
        (
            {"skeleton": "enas", "cell_output": "projection"},
            "cell_output is 'projection'; expected 'concat' with skeleton 'enas'",
        ),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 or more, below 1"),
        ({"dropout": -0.1}, "dropout is -0.1; expected 0 or more, below 1"),
        (
            {"genotype": SMALL._replace(reduce=(("conv", 0), ("none", 1)))},
            "reduction cell, node 2, first edge: 'conv' is not an operation",
        ),
        ({"genotype": ()}, r"\(\) is not a genotype"),
    ],
)
def test_wrong_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        networks.micro(**{"genotype": SMALL, **changes})
