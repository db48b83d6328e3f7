"""Drawings of cells as self-contained SVG.

A cell is laid out in columns, left to right by the longest path from its inputs. An
operation sits as a label in front of the node it feeds, and an edge that skips
columns gets a lane of its own in each, so labels, nodes and edges keep apart by
construction. Order and heights follow Sugiyama et al. (1981): barycentre sweeps
against crossings, then least-squares heights under minimum distances.
"""

import html
from collections.abc import Sequence
from typing import NamedTuple

from jaxnas import genotypes

_Item = tuple[int, ...]
"""A node `(node,)`, or the lane `(edge, column)` an edge takes through a column."""

_FONT = 12  # px; every other size below is in px as well
_GLYPH = 6.6  # mean width of a character at that font size
_MARGIN = 20
_TITLE = 30  # height of a line with a title
_LABEL_HEIGHT = 20
_LABEL_STEP = 26  # between the two labels in front of a node
_LINK = 30  # from a label to its node
_RADIUS = 15
_BOX_WIDTH = 46
_LANE = 16
_SWEEPS = 24

_COLOURS = {
    "sep": "#0b63a5",
    "dil": "#6d3fa8",
    "conv": "#00738a",
    "max": "#c2410c",
    "avg": "#9a6700",
    "skip": "#1a7f37",
    "none": "#8c8c8c",
}
_INK = "#24292f"
_OUTPUT = "#8a939c"
_DEAD = "#c4c9ce"


class _Edge(NamedTuple):
    source: int
    target: int
    op: str  # empty for an edge to the output


class _Cell(NamedTuple):
    edges: tuple[_Edge, ...]
    output: int  # number of the output node, one more than the last
    live: frozenset[int]  # nodes with a path to the output


class _Layout(NamedTuple):
    chains: list[list[_Item]]  # the items each edge passes, source to target
    columns: list[list[_Item]]  # top to bottom
    height: dict[_Item, float]  # of the middle of an item


def cell_svg(
    pairs: Sequence[genotypes.Edge], concat: Sequence[int], *, title: str
) -> str:
    """Draw one cell.

    Args:
      pairs: `(op, source)` pairs, two for every node.
      concat: nodes that form the output.
      title: text above the drawing.

    Returns:
      An SVG document that needs no other file and defines no ids, so several can
      stand in one page. Nodes without a path to the output are grey.

    Raises:
      ValueError: if the cell is invalid, naming the node and edge at fault.
    """
    return _document(title, [_draw(pairs, concat)])


def genotype_svg(genotype: genotypes.Genotype, *, title: str) -> str:
    """Draw the normal and below it the reduction cell of a genotype.

    Args:
      genotype: the genotype.
      title: text above the drawing.

    Returns:
      An SVG document like that of `cell_svg`.

    Raises:
      ValueError: if the genotype is invalid, naming the cell, node and edge.
    """
    genotype = genotypes.check(genotype)
    cells = [
        _draw(genotype.normal, genotype.normal_concat, "Normal cell"),
        _draw(genotype.reduce, genotype.reduce_concat, "Reduction cell"),
    ]
    return _document(title, cells)


class _Drawing(NamedTuple):
    width: float
    height: float
    elements: list[str]


def _document(title: str, drawings: list[_Drawing]) -> str:
    text_width = 1.3 * _GLYPH * len(title)
    width = max(text_width, *(drawing.width for drawing in drawings)) + 2 * _MARGIN
    elements = [_text(_MARGIN, _MARGIN + 8, title, size=16, weight=600)]
    top = _MARGIN + _TITLE
    for drawing in drawings:
        elements += [f'<g transform="translate({_MARGIN} {top:g})">']
        elements += [*drawing.elements, "</g>"]
        top += drawing.height + _MARGIN
    name = html.escape(title)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" '
            f'height="{top:g}" viewBox="0 0 {width:g} {top:g}" role="img" '
            f'aria-label="{name}" font-family="Helvetica, Arial, sans-serif" '
            f'font-size="{_FONT}" style="max-width:100%;height:auto">',
            f"<title>{name}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *elements,
            "</svg>\n",
        ]
    )


def _cell(pairs: Sequence[genotypes.Edge], concat: Sequence[int]) -> _Cell:
    pairs, concat = genotypes.check_cell(pairs, concat)
    output = 2 + len(pairs) // 2
    edges = [_Edge(source, 2 + i // 2, op) for i, (op, source) in enumerate(pairs)]
    live = {output, *concat}
    for edge in reversed(edges):
        if edge.target in live:
            live.add(edge.source)
    edges += [_Edge(node, output, "") for node in concat]
    return _Cell(tuple(edges), output, frozenset(live))


def _levels(cell: _Cell) -> list[int]:
    """Longest path from an input to each node; the output stands last, alone."""
    levels = [0] * (cell.output + 1)
    for edge in cell.edges:
        levels[edge.target] = max(levels[edge.target], levels[edge.source] + 1)
    levels[-1] = max(levels[:-1]) + 1
    return levels


def _layout(cell: _Cell) -> _Layout:
    levels = _levels(cell)
    columns: list[list[_Item]] = [[] for _ in range(levels[-1] + 1)]
    for node, level in enumerate(levels):
        columns[level].append((node,))
    chains: list[list[_Item]] = []
    for i, edge in enumerate(cell.edges):
        between = range(levels[edge.source] + 1, levels[edge.target])
        lanes: list[_Item] = [(i, column) for column in between]
        for lane in lanes:
            columns[lane[1]].append(lane)
        chains.append([(edge.source,), *lanes, (edge.target,)])
    segments = [
        segment for chain in chains for segment in zip(chain, chain[1:], strict=False)
    ]
    columns = _order(columns, segments)
    return _Layout(chains, columns, _heights(columns, segments, cell))


def _order(
    columns: list[list[_Item]], segments: list[tuple[_Item, _Item]]
) -> list[list[_Item]]:
    """Order each column so that few segments cross; the inputs keep their order."""
    columns = [list(column) for column in columns]
    best, fewest = [list(column) for column in columns], _crossings(columns, segments)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        indices = range(1, len(columns))
        for i in indices if forward else reversed(indices[:-1]):
            rank = {
                item: place
                for place, item in enumerate(columns[i - 1 if forward else i + 1])
            }
            columns[i].sort(key=lambda item: _mean_rank(item, rank, segments))
        _swap(columns, segments)
        crossings = _crossings(columns, segments)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best
