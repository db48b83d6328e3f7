"""Drawings of macro genotypes: a chain of layers, with its skips as arcs.

Where Graphviz would lay out a dense chain on its own, skips wind around both sides of
it. So nodes and arcs get their places here, and Graphviz (its `nop2`) draws them. Every
skip is an arc on the right that reaches out the farther the longer it is, so that arcs
nest. The sources of each layer also stand in words on its left.
"""

import itertools

import pygraphviz

from jaxnas import genotypes
from jaxnas.report.drawing import _graph

# Sizes in points.
_BOX_WIDTH = 104
_BOX_HEIGHT = 24  # at least
_PORT_STEP = 4.5  # between the arcs of a box
_GAP = 16  # from box to box
_REDUCTION = 22  # added to the gap that has a reduction
_CHARACTER = 6.6  # of the words on the left
_HEAD = 5


@_graph.graph.register(genotypes.MacroGenotype)
def macro_graph(genotype: genotypes.MacroGenotype) -> pygraphviz.AGraph:
    """Describe a chain from `"stem"` over the layers by number to `"classifier"`."""
    ops, skips = genotypes.check_macro(genotype)
    graph = _graph.new_graph(layout="nop2")
    names = ["stem", *map(str, range(len(ops))), "classifier"]
    words = [_graph.short(op) for op in ops]
    labels = [f"<<B>{layer}</B>  {word}>" for layer, word in enumerate(words)]
    colors = [_graph.INK, *map(_graph.op_color, ops), _graph.INK]
    arcs = sorted(
        ((source, row) for row, joined in enumerate(skips, 1) for source in joined),
        key=lambda arc: arc[1] - arc[0],
    )
    # After the first and the second third of the layers, row 0 being the stem.
    third = len(ops) // 3
    reductions = {third, 2 * third} - {0}
    heights, middles, ends = _rows(arcs, len(names), reductions)
    for row, label in enumerate(["stem", *labels, "classifier"]):
        graph.add_node(
            names[row],
            label=label,
            pos=f"0,{middles[row]:g}",
            width=_BOX_WIDTH / 72,
            height=heights[row] / 72,
            color=colors[row],
            fontcolor=colors[row],
            fillcolor="white" if 0 < row <= len(ops) else "#f2f4f7",
        )
    for row, joined in enumerate(skips, 1):
        if joined:
            _add_words(graph, [names[source] for source in joined], row, middles[row])
    for row, (name, other) in enumerate(itertools.pairwise(names)):
        top = middles[row] - heights[row] / 2
        bottom = middles[row + 1] + heights[row + 1] / 2
        reduction = {
            "label": "reduction",
            "lp": f"36,{(top + bottom) / 2:g}",
            "fontsize": "11",
            "fontcolor": _graph.FAINT,
            "style": "dashed",
        }
        graph.add_edge(
            name,
            other,
            pos=_spline((0, top), (0, top), (0, bottom + _HEAD), (0, bottom)),
            color=_graph.FAINT,
            **(reduction if row in reductions else {}),
        )
    right = _BOX_WIDTH / 2
    for arc in reversed(arcs):  # long arcs below short ones
        start, end = ends[arc, arc[0]], ends[arc, arc[1]]
        # Grows faster than the arc is long, which keeps arcs nested.
        out = right + 12 + 0.36 * (start - end)
        graph.add_edge(
            names[arc[0]],
            names[arc[1]],
            pos=_spline((right, start), (out, start), (out, end), (right, end)),
            color=colors[arc[0]] + "c0",
            penwidth="1",
            arrowsize="0.5",
        )
    return graph


def _rows(
    arcs: list[tuple[int, int]], num_rows: int, reductions: set[int]
) -> tuple[list[float], list[float], dict[tuple[tuple[int, int], int], float]]:
    """Choose the heights and middles of the boxes, and where arcs end at them.

    At a box arcs arrive above those that leave, the short ones outside: so an arc
    encloses the shorter ones and crosses none of them.
    """
    heights, middles, ends = [], [], {}
    y = 0.0
    for row in range(num_rows):
        ports = [arc for arc in arcs if arc[1] == row]
        ports += [arc for arc in reversed(arcs) if arc[0] == row]
        heights.append(max(_BOX_HEIGHT, _PORT_STEP * (len(ports) + 1)))
        middles.append(y - heights[row] / 2)
        for i, arc in enumerate(ports):
            ends[arc, row] = middles[row] + _PORT_STEP * ((len(ports) - 1) / 2 - i)
        y -= heights[row] + _GAP + _REDUCTION * (row in reductions)
    return heights, middles, ends


def _add_words(
    graph: pygraphviz.AGraph, sources: list[str], row: int, y: float
) -> None:
    text = f"joins {', '.join(sources)}"
    width = _CHARACTER * len(text)
    graph.add_node(
        f"{text} at {row - 1}",
        label=rf"{text}\r",  # aligned on the right
        shape="plaintext",
        style="",
        pos=f"{-(_BOX_WIDTH + width) / 2 - 8:g},{y:g}",
        width=width / 72,
        fontcolor=_graph.FAINT,
        fontsize="11",
        margin="0",
    )


def _spline(*points: tuple[float, float]) -> str:
    """Write a cubic curve whose arrow ends at its last point."""
    *controls, (x, y) = points
    before_x, before_y = controls[-1]
    reach = max(abs(before_x - x), abs(before_y - y), _HEAD)
    tip = (x + _HEAD * (before_x - x) / reach, y + _HEAD * (before_y - y) / reach)
    return f"e,{x:g},{y:g} " + " ".join(f"{a:g},{b:g}" for a, b in [*controls, tip])
