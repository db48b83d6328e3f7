"""Width and depth of cells (Shu et al. 2020, section 3.2).

Both are properties of the connections alone: operations play no part. Widths are in
units of c, the number of channels of one node.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from jaxnas import genotypes

Cell = Literal["normal", "reduce"]
"""Which of the two cells of a genotype."""


def cell_width(
    genotype: genotypes.Genotype, cell: Cell, *, live_only: bool = False
) -> float:
    """Measure the total width of the nodes that read the inputs of a cell.

    A node counts c if both of its edges come from the inputs, c/2 if one does. By the
    paper's definition nodes count even if nothing reads them: a cell whose concat
    was kept while its edges were rewired can be much wider than what its output sees.

    Args:
      genotype: the genotype.
      cell: `"normal"` or `"reduce"`.
      live_only: leave out the nodes of `dead_nodes`, an addition to the paper.

    Returns:
      The width in units of c, a multiple of 0.5 from 1 up to the number of nodes.

    Raises:
      ValueError: if the genotype is invalid or not one of two cells, or the cell has
        another name.

    Example:
      >>> from jaxnas import analysis, genotypes
      >>> analysis.cell_width(genotypes.named("DARTS"), "normal")
      3.5
    """
    pairs, concat = _cell(genotype, cell)
    dead = _dead(pairs, concat) if live_only else ()
    num_edges = sum(
        source < 2 for i, (_, source) in enumerate(pairs) if 2 + i // 2 not in dead
    )
    return num_edges / 2


def cell_depth(
    genotype: genotypes.Genotype, cell: Cell, *, all_nodes_to_output: bool = False
) -> int:
    """Count the connections on the longest path from an input to the output.

    Args:
      genotype: the genotype.
      cell: `"normal"` or `"reduce"`.
      all_nodes_to_output: take every node as connected to the output, not only those
        of the concat. Without dead nodes both rules agree.

    Returns:
      The depth, from 2 up to the number of nodes plus 1.

    Raises:
      ValueError: if the genotype is invalid or not one of two cells, or the cell has
        another name.

    Example:
      >>> from jaxnas import analysis, genotypes
      >>> analysis.cell_depth(genotypes.named("DARTS"), "normal")
      3
    """
    pairs, concat = _cell(genotype, cell)
    levels = [0, 0]
    for (_, first), (_, second) in zip(pairs[::2], pairs[1::2], strict=True):
        levels.append(1 + max(levels[first], levels[second]))
    joined = range(2, len(levels)) if all_nodes_to_output else concat
    return 1 + max(levels[node] for node in joined)


def dead_nodes(genotype: genotypes.Genotype, cell: Cell) -> tuple[int, ...]:
    """Find the nodes of a cell without a path to its output.

    They hold parameters and count in `cell_width`, but change nothing that the
    network computes.

    Args:
      genotype: the genotype.
      cell: `"normal"` or `"reduce"`.

    Returns:
      Their numbers in ascending order; none if the concat has all loose ends.

    Raises:
      ValueError: if the genotype is invalid or not one of two cells, or the cell has
        another name.
    """
    return _dead(*_cell(genotype, cell))


def count_topologies(
    num_nodes: int, *, distinct_inputs: bool = False
) -> dict[tuple[float, int], int]:
    """Count the ways to connect a cell, by width and depth.

    The concat has all nodes. The counts are exact: nodes are added one at a time, and
    cells with as many nodes at each level and as many edges from inputs are counted
    together. The mean width is the sum of 2/k for k from 2 to `num_nodes + 1`.

    Args:
      num_nodes: number of intermediate nodes; 4 in DARTS, 5 in ENAS.
      distinct_inputs: the two sources of a node differ and have no order, as in the
        space of DARTS. Otherwise they are drawn with repetition and ordered, as
        `genotypes.random_connections` does.

    Returns:
      Number of topologies by `(width in c, depth)`, ascending; what no cell has is
      left out.

    Raises:
      ValueError: if `num_nodes` is not a positive integer.

    Example:
      >>> from jaxnas import analysis
      >>> analysis.count_topologies(2, distinct_inputs=True)
      {(1.5, 3): 2, (2.0, 2): 1}
    """
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, int) or num_nodes < 1:
        raise ValueError(f"num_nodes is {num_nodes!r}; expected a positive integer")
    # By the number of nodes at each level, from 1, and of edges from inputs.
    counts = Counter({((), 0): 1})
    for _ in range(num_nodes):
        grown: Counter[tuple[tuple[int, ...], int]] = Counter()
        for (sizes, num_edges), count in counts.items():
            for level, added, ways in _next_node(sizes, distinct_inputs):
                padded = (*sizes, 0)
                larger = (*padded[: level - 1], padded[level - 1] + 1, *sizes[level:])
                grown[larger, num_edges + added] += ways * count
        counts = grown
    histogram: Counter[tuple[float, int]] = Counter()
    for (sizes, num_edges), count in counts.items():
        histogram[num_edges / 2, 1 + len(sizes)] += count
    return dict(sorted(histogram.items()))


def _next_node(sizes: Sequence[int], distinct: bool) -> Iterator[tuple[int, int, int]]:
    """Yield level, edges from inputs and number of ways of one more node."""

    def pairs(num: int) -> int:
        return math.comb(num, 2) if distinct else num**2

    yield 1, 2, pairs(2)
    below = 0
    for level, size in enumerate(sizes, start=1):
        # One of the two inputs and a node of this level, in either order.
        yield level + 1, 1, (2 if distinct else 4) * size
        # Two nodes, the higher of them of this level.
        if ways := pairs(below + size) - pairs(below):
            yield level + 1, 0, ways
        below += size


def _cell(
    genotype: genotypes.Genotype, cell: str
) -> tuple[tuple[genotypes.Edge, ...], tuple[int, ...]]:
    genotype = genotypes.check_cells(genotype)
    if cell == "normal":
        return genotype.normal, genotype.normal_concat
    if cell == "reduce":
        return genotype.reduce, genotype.reduce_concat
    raise ValueError(f"cell is {cell!r}; expected 'normal' or 'reduce'")


def _dead(pairs: Sequence[genotypes.Edge], concat: Sequence[int]) -> tuple[int, ...]:
    nodes = range(2, 2 + len(pairs) // 2)
    live = set(concat)
    # Readers have higher numbers, so every reader of a node comes first here.
    for node in reversed(nodes):
        if node in live:
            live |= {source for _, source in pairs[2 * node - 4 : 2 * node - 2]}
    return tuple(node for node in nodes if node not in live)
