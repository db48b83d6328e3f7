"""Width and depth of cells, against the definitions' authors and by brute force."""

import itertools
import json
from collections import Counter
from typing import Any, Literal

import pytest
from helpers import GOLDENS_DIR

from jaxnas import analysis, genotypes

# Per cell of the genotypes in the official code: name, cell, the two sources of each
# node, concat, width, depth, depth with all nodes to the output, width of the live
# nodes, dead nodes. DARTS_ADAPT is SNAS_ADAPT's pattern on DARTS.
GOLDENS = json.loads((GOLDENS_DIR / "topology.json").read_text())
Cell = Literal["normal", "reduce"]


def genotype_of(cell: Cell, sources: str, concat: list[int]) -> genotypes.Genotype:
    """A genotype with one cell of these sources, and another one beside it."""
    pairs = tuple(("none", int(source)) for source in sources.replace(" ", ""))
    other = genotypes.Genotype((("none", 0),) * 2, (2,), (("none", 0),) * 2, (2,))
    fields: dict[str, Any] = {cell: pairs, f"{cell}_concat": tuple(concat)}
    return other._replace(**fields)


@pytest.mark.parametrize(
    ("name", "cell", "sources", "concat", "width", "depth", "full", "live", "dead"),
    GOLDENS["cells"],
    ids=[f"{name}-{cell}" for name, cell, *_ in GOLDENS["cells"]],
)
def test_official_genotypes(
    name, cell, sources, concat, width, depth, full, live, dead
):
    genotype = genotype_of(cell, sources, concat)
    assert analysis.cell_width(genotype, cell) == width
    assert analysis.cell_depth(genotype, cell) == depth
    assert analysis.cell_depth(genotype, cell, all_nodes_to_output=True) == full
    assert analysis.cell_width(genotype, cell, live_only=True) == live
    assert analysis.dead_nodes(genotype, cell) == tuple(dead)


# Figure 1 of the paper.
@pytest.mark.parametrize(
    ("name", "width", "depth"),
    [
        ("NASNet", 5.0, 2),
        ("AmoebaNet", 4.0, 4),
        ("ENAS", 5.0, 2),
        ("DARTS", 3.5, 3),
        ("SNAS_MILD", 4.0, 2),
    ],
)
def test_values_of_the_paper(name, width, depth):
    genotype = genotypes.named(name)
    assert analysis.cell_width(genotype, "normal") == width
    assert analysis.cell_depth(genotype, "normal") == depth


def test_dead_nodes_count_unless_asked():
    # Node 2 feeds only node 3, which nothing reads.
    genotype = genotype_of("normal", "01 02 11 04", [4, 5])
    assert analysis.dead_nodes(genotype, "normal") == (2, 3)
    assert analysis.dead_nodes(genotype, "reduce") == ()
    assert analysis.cell_width(genotype, "normal") == 3.0
    assert analysis.cell_width(genotype, "normal", live_only=True) == 1.5
    assert analysis.cell_depth(genotype, "normal") == 3


@pytest.mark.parametrize(
    ("num_nodes", "distinct", "histogram"),
    GOLDENS["histograms"],
    ids=["4", "4-distinct", "5", "5-distinct"],
)
def test_histograms(num_nodes, distinct, histogram):
    counts = analysis.count_topologies(num_nodes, distinct_inputs=distinct)
    assert list(counts) == sorted(counts)
    assert counts == {(width, depth): count for width, depth, count in histogram}


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("num_nodes", [1, 2, 3])
def test_counts_equal_enumeration(num_nodes, distinct):
    def pairs(node: int):
        if distinct:
            return itertools.combinations(range(node), 2)
        return itertools.product(range(node), repeat=2)

    nodes = range(2, 2 + num_nodes)
    counts = Counter()
    for sources in itertools.product(*map(pairs, nodes)):
        text = "".join(f"{first}{second}" for first, second in sources)
        genotype = genotype_of("reduce", text, list(nodes))
        width = analysis.cell_width(genotype, "reduce")
        counts[width, analysis.cell_depth(genotype, "reduce")] += 1
    assert analysis.count_topologies(num_nodes, distinct_inputs=distinct) == counts


@pytest.mark.parametrize(
    ("num_nodes", "total", "num_distinct"),
    [(4, 14_400, 180), (5, 518_400, 2_700), (9, 13_168_189_440_000, 2_571_912_000)],
)
def test_totals_and_the_mean_width(num_nodes, total, num_distinct):
    counts = analysis.count_topologies(num_nodes)
    assert sum(counts.values()) == total
    mean = sum(width * count for (width, _), count in counts.items()) / total
    assert mean == pytest.approx(sum(2 / k for k in range(2, num_nodes + 2)))
    distinct = analysis.count_topologies(num_nodes, distinct_inputs=True)
    assert sum(distinct.values()) == num_distinct


@pytest.mark.parametrize(
    "measure", [analysis.cell_width, analysis.cell_depth, analysis.dead_nodes]
)
def test_measures_refuse_what_they_cannot_measure(measure):
    genotype = genotypes.named("DARTS")
    with pytest.raises(ValueError, match="cell is 'both'; expected 'normal' or 'redu"):
        measure(genotype, "both")
    with pytest.raises(ValueError, match="found a MacroGenotype; expected a Genotype"):
        measure(genotypes.named("ENAS_MACRO"), "normal")
    with pytest.raises(ValueError, match="normal cell, concat: no node"):
        measure(genotype._replace(normal_concat=()), "normal")


@pytest.mark.parametrize("num_nodes", [0, -1, 4.0, True, "4"])
def test_count_topologies_refuses_a_wrong_number_of_nodes(num_nodes):
    with pytest.raises(ValueError, match=f"num_nodes is {num_nodes!r}; expected a pos"):
        analysis.count_topologies(num_nodes)
