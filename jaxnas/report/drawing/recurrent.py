"""Drawings of recurrent genotypes: a tree of nodes with activations.

The tree runs from left to right by depth. Its leaves are the loose ends; each has a
line of its own across the drawing to the output, and every other node stands at the
mean height of its readers, so nothing crosses.
"""

import statistics
from collections.abc import Sequence

from jaxnas import genotypes
from jaxnas.report.drawing import _svg

# Sizes in px.
_LINE_HEIGHT = 44
_LABEL_WIDTH = 66
_LINK = 26  # from a label to its node
_GAP = 40  # from a node to the labels of its readers
_SPREAD = 24  # of each input from the middle between them
_COLUMN = _GAP + _LABEL_WIDTH + _LINK + 2 * _svg.RADIUS

_COLOURS = {
    "tanh": "#0b63a5",
    "relu": "#c2410c",
    "identity": "#1a7f37",
    "sigmoid": "#7a3fb0",
}


def draw_recurrent(genotype: genotypes.RecurrentGenotype) -> _svg.Drawing:
    """Draw a recurrent cell."""
    genotype = genotypes.check_recurrent(genotype)
    activations, sources = genotype
    loose_ends = genotypes.recurrent_loose_ends(genotype)
    depths = [0]
    for source in sources:
        depths.append(depths[source] + 1)
    lefts = [_svg.BOX_WIDTH + _GAP + _COLUMN * depth for depth in depths]
    rights = [left + _COLUMN - _GAP for left in lefts]
    heights = _heights(sources, loose_ends)
    inputs = (("x", "t", heights[0] - _SPREAD), ("h", "t-1", heights[0] + _SPREAD))

    elements = []
    for symbol, index, y in inputs:
        elements.append(_svg.box(0, y, _svg.RADIUS, symbol, index, _svg.INK))
        ends = (_svg.BOX_WIDTH, y, lefts[0], heights[0])
        elements.append(_draw_edge(f"{activations[0]}: {symbol} {index} to 0", *ends))
    for node, source in enumerate(sources, start=1):
        ends = (rights[source], heights[source], lefts[node], heights[node])
        title = f"{activations[node]}: {source} to {node}"
        elements.append(_draw_edge(title, *ends))
    for node, activation in enumerate(activations):
        x, y, colour = lefts[node], heights[node], _COLOURS[activation]
        elements.append(_svg.label(x, y, _LABEL_WIDTH, activation, colour))
        elements.append(_svg.disc(rights[node] - _svg.RADIUS, y, node, _svg.INK))

    x = max(rights) + _GAP
    for node in loose_ends:
        y = heights[node]
        path = f"M{rights[node]:.1f} {y:.1f}H{x - _svg.ARROW:.1f}"
        head = f"M{x:.1f} {y:.1f}l{-_svg.ARROW} -3.5v7z"
        line = _svg.arrow(path, head, _svg.FAINT)
        elements.append(_svg.titled(f"output: {node}", line))
    top = min(heights) - _svg.RADIUS
    bottom = max(heights) + _svg.RADIUS
    half = (bottom - top) / 2
    elements.append(_svg.box(x, top + half, half, "h", "t", _svg.INK))
    style = f'fill="{_svg.FAINT}" font-size="11" text-anchor="middle"'
    elements.append(_svg.text(x + _svg.BOX_WIDTH / 2, top - 6, "mean", style))
    # The two inputs may reach beyond the tree.
    top = min(top - _svg.LABEL_HEIGHT, inputs[0][-1] - _svg.RADIUS)
    bottom = max(bottom, inputs[-1][-1] + _svg.RADIUS)
    elements = _svg.moved(elements, 0, -top)
    return _svg.Drawing(x + _svg.BOX_WIDTH, bottom - top, elements)


def _heights(sources: Sequence[int], loose_ends: Sequence[int]) -> list[float]:
    """Choose the heights of the nodes, with a line for each loose end."""
    readers: list[list[int]] = [[] for _ in range(len(sources) + 1)]
    for node, source in enumerate(sources, start=1):
        readers[source].append(node)
    heights = [0.0] * len(readers)
    line, left = 0.0, [0]
    # Depth first, so that the lines of a subtree lie together.
    while left:
        node = left.pop()
        if node in loose_ends:
            heights[node] = line
            line += _LINE_HEIGHT
        left += reversed(readers[node])
    # Every reader of a node has a greater number.
    for node in range(len(readers) - 1, -1, -1):
        if readers[node]:
            heights[node] = statistics.fmean(heights[i] for i in readers[node])
    return heights


def _draw_edge(title: str, x: float, y: float, left: float, to_y: float) -> str:
    # Runs under the label in front of the node that it feeds.
    tip = left + _LABEL_WIDTH + _LINK
    path = f"M{x:.1f} {y:.1f}{_svg.curve(x, y, left, to_y)}H{tip - _svg.ARROW:.1f}"
    head = f"M{tip:.1f} {to_y:.1f}l{-_svg.ARROW} -3.5v7z"
    return _svg.titled(title, _svg.arrow(path, head, _svg.INK))
