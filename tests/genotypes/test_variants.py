"""Variants of genotypes: the official ones reproduced, and those made by rule."""

import json
from typing import Any

import numpy as np
import pytest
from helpers import GOLDENS_DIR

from jaxnas import analysis, genotypes, networks

# What the official code draws with NumPy 2.4.6, for the seeds from 1 on, in the normal
# and the reduction cell; operations are indices of `RANDOM_OPS`.
GOLDENS = json.loads((GOLDENS_DIR / "topology.json").read_text())
RANDOM_OPS = (
    *("max_pool_3x3", "avg_pool_3x3", "skip_connect"),
    *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
)
CELLS = ("normal", "reduce")
every_published_cell = pytest.mark.parametrize("name", genotypes.NAMES)


def nodes_text(pairs) -> str:
    sources = [str(source) for _, source in pairs]
    return " ".join(map("".join, zip(sources[::2], sources[1::2], strict=True)))


def ops(pairs) -> list[str]:
    return [op for op, _ in pairs]


def concats(genotype):
    return genotype.normal_concat, genotype.reduce_concat


@every_published_cell
def test_random_connections_are_the_official_ones(name):
    genotype = genotypes.named(name)
    expected = GOLDENS["connections"][str(len(genotype.normal) // 2)]
    assert len(expected) == 10
    for seed, sources in enumerate(expected, start=1):
        variant = genotypes.random_connections(genotype, seed)
        assert [nodes_text(variant.normal), nodes_text(variant.reduce)] == sources
        assert ops(variant.normal) == ops(genotype.normal)
        assert ops(variant.reduce) == ops(genotype.reduce)
        assert concats(variant) == concats(genotype)
        assert genotypes.check(variant) == variant


@pytest.mark.parametrize(
    ("name", "cell", "sources", "concat"),
    [row[:4] for row in GOLDENS["cells"] if "_CONN" in row[0]],
    ids=[f"{row[0]}-{row[1]}" for row in GOLDENS["cells"] if "_CONN" in row[0]],
)
def test_named_random_connections(name, cell, sources, concat):
    base, seed = name.replace("SNAS", "SNAS_MILD").split("_CONN")
    variant = genotypes.random_connections(genotypes.named(base), int(seed))
    assert nodes_text(getattr(variant, cell)) == sources
    assert getattr(variant, f"{cell}_concat") == tuple(concat)


@every_published_cell
def test_random_operations_are_the_official_ones(name):
    genotype = genotypes.named(name)
    expected = GOLDENS["operations"][str(len(genotype.normal) // 2)]
    assert len(expected) == 10
    for seed, choices in enumerate(expected, start=1):
        variant = genotypes.random_operations(genotype, seed)
        for cell, indices in zip(CELLS, choices, strict=True):
            pairs = getattr(variant, cell)
            assert ops(pairs) == [RANDOM_OPS[int(i)] for i in indices]
            assert nodes_text(pairs) == nodes_text(getattr(genotype, cell))
        assert concats(variant) == concats(genotype)
        assert genotypes.check(variant) == variant


def test_cells_of_different_sizes_take_turns_as_long_as_both_last():
    darts, nasnet = genotypes.named("DARTS"), genotypes.named("NASNet")
    mixed = darts._replace(reduce=nasnet.reduce, reduce_concat=nasnet.reduce_concat)
    variant = genotypes.random_connections(mixed, 1)
    expected = genotypes.random_connections(nasnet, 1)
    assert nodes_text(variant.normal) == GOLDENS["connections"]["4"][0][0]
    assert variant.reduce[:8] == expected.reduce[:8]
    assert genotypes.check(variant) == variant


def test_random_variants_leave_the_global_generator_alone():
    before: Any = np.random.get_state()
    seed: Any = np.int64(3)
    for draw in (genotypes.random_connections, genotypes.random_operations):
        draw(genotypes.named("DARTS"), seed)
    after: Any = np.random.get_state()
    assert after[1].tolist() == before[1].tolist()


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, None])
@pytest.mark.parametrize(
    "draw", [genotypes.random_connections, genotypes.random_operations]
)
def test_random_variants_refuse_a_wrong_seed(draw, seed):
    with pytest.raises(ValueError, match=f"seed is {seed}; expected an integer from 0"):
        draw(genotypes.named("DARTS"), seed)


@pytest.mark.parametrize(
    "make",
    [
        lambda genotype: genotypes.random_connections(genotype, 1),
        lambda genotype: genotypes.random_operations(genotype, 1),
        genotypes.widest_shallowest,
        genotypes.narrowest_deepest,
        genotypes.connection_variants,
    ],
)
def test_variants_refuse_what_is_no_genotype_of_cells(make):
    with pytest.raises(ValueError, match="found a RecurrentGenotype; expected a Geno"):
        make(genotypes.named("ENAS_RECURRENT"))
    with pytest.raises(ValueError, match=r"normal cell: found 0 \(op, source\) pairs"):
        make(genotypes.named("DARTS")._replace(normal=()))


@pytest.mark.parametrize("keep_concat", [False, True])
@every_published_cell
def test_widest_shallowest(name, keep_concat):
    genotype = genotypes.named(name)
    variant = genotypes.widest_shallowest(genotype, keep_concat=keep_concat)
    assert genotypes.check(variant) == variant
    assert genotypes.widest_shallowest(variant, keep_concat=keep_concat) == variant
    for cell in CELLS:
        num_nodes = len(getattr(variant, cell)) // 2
        assert analysis.cell_width(variant, cell) == num_nodes
        assert analysis.cell_depth(variant, cell) == 2
        if not keep_concat:
            assert analysis.dead_nodes(variant, cell) == ()
    if keep_concat:
        assert concats(variant) == concats(genotype)


def test_widest_shallowest_keeps_what_reads_an_input():
    genotype = genotypes.Genotype(
        normal=tuple(("none", source) for source in (1, 1, 0, 2, 2, 0, 2, 3, 5, 1)),
        normal_concat=(4, 6),
        reduce=tuple(("none", source) for source in (0, 0, 1, 2)),
        reduce_concat=(3,),
    )
    variant = genotypes.widest_shallowest(genotype)
    assert nodes_text(variant.normal) == "11 01 10 01 01"
    assert nodes_text(variant.reduce) == "00 10"
    assert concats(variant) == ((2, 3, 4, 5, 6), (2, 3))


@pytest.mark.parametrize(
    ("name", "cell", "live", "dead"),
    [
        (row[0], row[1], row[7], tuple(row[8]))
        for row in GOLDENS["cells"]
        if row[0].endswith("_ADAPT")
    ],
)
def test_kept_concats_leave_the_dead_nodes_of_the_adapted_genotypes(
    name, cell, live, dead
):
    base = genotypes.named(name.removesuffix("_ADAPT").replace("SNAS", "SNAS_MILD"))
    variant = genotypes.widest_shallowest(base, keep_concat=True)
    assert analysis.dead_nodes(variant, cell) == dead
    assert analysis.cell_width(variant, cell, live_only=True) == live


# Parameters of the adapted networks with 36 channels and 20 cells.
@pytest.mark.parametrize(
    ("name", "num_params"),
    [("DARTS", 3_428_398), ("SNAS_MILD", 2_714_086), ("NASNet", 3_857_302)],
)
def test_adapted_networks_have_the_official_number_of_parameters(name, num_params):
    variant = genotypes.widest_shallowest(genotypes.named(name), keep_concat=True)
    network = networks.micro(variant)
    assert networks.count_params(network, (32, 32, 3)) == num_params


@every_published_cell
def test_narrowest_deepest(name):
    genotype = genotypes.named(name)
    variant = genotypes.narrowest_deepest(genotype)
    chain = "01 22 33 44 55"[: 3 * len(genotype.normal) // 2 - 1]
    for cell in CELLS:
        pairs = getattr(variant, cell)
        assert nodes_text(pairs) == chain
        assert ops(pairs) == ops(getattr(genotype, cell))
        assert analysis.cell_width(variant, cell) == 1.0
        assert analysis.cell_depth(variant, cell) == 1 + len(pairs) // 2
        assert analysis.dead_nodes(variant, cell) == ()
    kept = genotypes.narrowest_deepest(genotype, keep_concat=True)
    assert concats(kept) == concats(genotype) and kept.normal == variant.normal


@every_published_cell
def test_connection_variants_have_every_width_and_depth_once(name, tmp_path):
    genotype = genotypes.named(name)
    num_nodes = len(genotype.normal) // 2
    variants = genotypes.connection_variants(genotype)
    assert list(variants) == list(analysis.count_topologies(num_nodes))
    for topology, variant in variants.items():
        for cell in CELLS:
            width = analysis.cell_width(variant, cell)
            assert (width, analysis.cell_depth(variant, cell)) == topology
            assert analysis.dead_nodes(variant, cell) == ()
            assert ops(getattr(variant, cell)) == ops(getattr(genotype, cell))
        genotypes.save(tmp_path / "variant.json", variant)
        assert genotypes.load(tmp_path / "variant.json") == variant
    assert variants[1.0, num_nodes + 1] == genotypes.narrowest_deepest(genotype)
    assert len(set(variants.values())) == len(variants)


def test_connections_of_the_variants_of_darts():
    variants = genotypes.connection_variants(genotypes.named("DARTS"))
    assert [
        (key, nodes_text(variants[key].normal)) for key in list(variants)[5:10]
    ] == [
        ((1.5, 5), "01 02 33 44"),
        ((2.0, 3), "01 02 02 22"),
        ((2.0, 4), "01 02 03 22"),
        ((2.0, 5), "01 02 03 44"),
        ((2.5, 3), "01 02 02 02"),
    ]
    assert nodes_text(variants[3.5, 3].normal) == "01 02 01 01"
    assert nodes_text(variants[4.0, 2].reduce) == "01 01 01 01"


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 7])
def test_connection_variants_of_any_size(num_nodes):
    cell = (("none", 0),) * (2 * num_nodes)
    genotype = genotypes.Genotype(cell, (2,), cell, (2,))
    variants = genotypes.connection_variants(genotype)
    assert list(variants) == list(analysis.count_topologies(num_nodes))
    for (width, depth), variant in variants.items():
        assert analysis.cell_width(variant, "normal") == width
        assert analysis.cell_depth(variant, "normal") == depth


def test_the_reduction_cell_can_stay():
    darts, nasnet = genotypes.named("DARTS"), genotypes.named("NASNet")
    mixed = darts._replace(reduce=nasnet.reduce, reduce_concat=nasnet.reduce_concat)
    variants = genotypes.connection_variants(mixed, keep_reduce=True)
    assert len(variants) == 16
    assert {variant[2:] for variant in variants.values()} == {nasnet[2:]}
    with pytest.raises(ValueError, match="reduction cell has 5 nodes; expected 4 as"):
        genotypes.connection_variants(mixed)
