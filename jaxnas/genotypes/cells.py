"""Genotypes of two cells, in the convention of DARTS (Liu et al. 2019).

A cell is a tuple of `(op, source)` pairs. Nodes 0 and 1 are the outputs of the cells
k-2 and k-1; the pairs 2i and 2i+1 are the two edges into node 2+i, which adds them up.
The cell's output joins the nodes listed as `concat`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnas._checks import is_integer
from jaxnas.genotypes import kinds
from jaxnas.genotypes._values import is_list

Edge = tuple[str, int]
"""An operation and the node it reads."""

OPS = (
    "none",
    "avg_pool_3x3",
    "max_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
)
"""Every operation an edge of a cell may name."""


class Genotype(NamedTuple):
    """A normal and a reduction cell.

    Attributes:
      normal: `(op, source)` pairs of the normal cell, two for every node.
      normal_concat: nodes that form the output of the normal cell.
      reduce: pairs of the reduction cell, whose edges from nodes 0 and 1 have
        stride 2.
      reduce_concat: nodes that form the output of the reduction cell.
    """

    normal: tuple[Edge, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]


def check_cells(genotype: Genotype) -> Genotype:
    """Check two cells and normalize its lists to tuples.

    Args:
      genotype: any 4-tuple in the order of `Genotype`; cells and concats may be
        lists, tuples or ranges.

    Returns:
      The same genotype, made of tuples, strings and Python integers only.

    Raises:
      ValueError: naming the cell, node and edge at fault.
    """
    if hasattr(genotype, "_fields") and not isinstance(genotype, Genotype):
        raise ValueError(
            f"found a {type(genotype).__name__}; expected a Genotype of two cells"
        )
    if not isinstance(genotype, tuple) or len(genotype) != len(Genotype._fields):
        raise ValueError(f"{genotype!r} is not a genotype; expected a Genotype")
    normal, normal_concat, reduce, reduce_concat = genotype
    return Genotype(
        *check_cell(normal, normal_concat, place="normal cell"),
        *check_cell(reduce, reduce_concat, place="reduction cell"),
    )


kinds.register("cells", Genotype, check_cells)


def check_cell(
    pairs: Sequence[Edge], concat: Sequence[int], *, place: str = "cell"
) -> tuple[tuple[Edge, ...], tuple[int, ...]]:
    """Check one cell and normalize its lists to tuples.

    Args:
      pairs: `(op, source)` pairs, two for every node.
      concat: nodes that form the output.
      place: what errors call this cell.

    Returns:
      The pairs and the concat as tuples.

    Raises:
      ValueError: naming the node and edge at fault.
    """
    if not is_list(pairs):
        raise ValueError(f"{place}: {pairs!r} is not a list of (op, source) pairs")
    if not pairs or len(pairs) % 2:
        raise ValueError(
            f"{place}: found {len(pairs)} (op, source) pairs; expected two for "
            "every node"
        )
    edges = tuple(
        _check_edge(pair, 2 + i // 2, f"{place}, {edge_name(i)}")
        for i, pair in enumerate(pairs)
    )
    return edges, _check_concat(concat, 2 + len(edges) // 2, f"{place}, concat")


def edge_name(index: int) -> str:
    """Name the pair at a position of a cell for a reader.

    Args:
      index: position in the list of pairs, from 0.

    Returns:
      Text such as `node 3, second edge`.
    """
    return f"node {2 + index // 2}, {('first', 'second')[index % 2]} edge"


def _check_edge(pair: Any, node: int, place: str) -> Edge:
    if not is_list(pair) or len(pair) != 2:
        raise ValueError(f"{place}: {pair!r} is not an (op, source) pair")
    op, source = pair
    if op not in OPS:
        raise ValueError(
            f"{place}: {op!r} is not an operation; expected one of {', '.join(OPS)}"
        )
    if not is_integer(source):
        raise ValueError(f"{place}: source {source!r} is not an integer")
    if not 0 <= source < node:
        raise ValueError(
            f"{place}: source {source} is not an earlier node; expected 0 to {node - 1}"
        )
    return str(op), int(source)


def _check_concat(concat: Any, end: int, place: str) -> tuple[int, ...]:
    if not is_list(concat):
        raise ValueError(f"{place}: {concat!r} is not a list of nodes")
    if not concat:
        raise ValueError(f"{place}: no node; expected some of 2 to {end - 1}")
    nodes: list[int] = []
    # Stops at the first fault, so that even a huge range is refused at once.
    for node in concat:
        if not is_integer(node):
            raise ValueError(f"{place}: node {node!r} is not an integer")
        if not 2 <= node < end:
            raise ValueError(
                f"{place}: {node} is not an intermediate node; expected 2 to {end - 1}"
            )
        if node in nodes:
            raise ValueError(f"{place}: node {node} is listed twice")
        nodes.append(int(node))
    return tuple(nodes)


def loose_ends(pairs: Sequence[Edge]) -> tuple[int, ...]:
    """Find the intermediate nodes that no other node reads.

    Args:
      pairs: `(op, source)` pairs of one cell.

    Returns:
      Their numbers in ascending order; the last node is always one of them.
    """
    read = {source for _, source in pairs}
    return tuple(node for node in range(2, 2 + len(pairs) // 2) if node not in read)
