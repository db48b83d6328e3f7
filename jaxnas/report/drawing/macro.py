"""Drawings of macro genotypes: a chain of layers with its skips as arcs.

The chain runs from top to bottom. Every skip is an arc on its right that reaches out
the farther the longer it is, so that an arc within another stays inside it. At a box
arcs arrive above those that leave, in an order in which they need not cross.
The sources of each layer also stand in words on its left.

Row 0 is the stem, row k+1 layer k and the last row the classifier, so a source is in
the row of its number.
"""

import itertools
from typing import NamedTuple

from jaxnas import genotypes
from jaxnas.report.drawing import _svg

# Sizes in px.
_BOX_WIDTH = 84
_BOX_HEIGHT = 24  # at least
_PORT_STEP = 4.5  # between the arcs of a box
_GAP = 14  # from box to box
_REDUCTION = 26  # of the line that marks a reduction
_REACH = 12  # of the control points of an arc, to which a part of its length is added
_REACH_RATE = 0.36
_HEAD = 6
_NUMBER = 22  # what the number of a layer takes up


class _Skip(NamedTuple):
    source: int  # rows
    target: int


def draw_macro(genotype: genotypes.MacroGenotype) -> _svg.Drawing:
    """Draw a chain of layers."""
    ops, sources = genotypes.check_macro(genotype)
    skips = [
        _Skip(source, layer + 1)
        for layer, joined in enumerate(sources)
        for source in joined
    ]
    joins = [_joins(joined) for joined in sources]
    left = max(_svg.GLYPH * len(words) for words in [*joins, "reduction"]) + _NUMBER
    right = left + _BOX_WIDTH
    ports = _ports(skips, len(ops) + 2)
    tops, bottoms, reductions = _rows(ports)
    arcs = _arcs(skips, ports, tops, bottoms)
    # A cubic curve comes three quarters of the way to its control points.
    width = right + 0.75 * max((_reach(*arc) for arc in arcs.values()), default=0.0)

    elements = [_draw_reduction(left, width, y) for y in reductions]
    # Long arcs below short ones, which have less room to be seen in.
    for skip in sorted(skips, key=_length, reverse=True):
        colour = _svg.op_colour(ops[skip.source - 1]) if skip.source else _svg.INK
        elements.append(_draw_skip(skip, right, *arcs[skip], colour))
    middle = left + _BOX_WIDTH / 2
    rows = list(zip(tops, bottoms, strict=True))
    for (_, bottom), (top, _) in itertools.pairwise(rows):
        path = f"M{middle:.1f} {bottom:.1f}V{top - _svg.ARROW:.1f}"
        head = f"M{middle:.1f} {top:.1f}l-3.5 {-_svg.ARROW}h7z"
        elements.append(_svg.arrow(path, head, _svg.FAINT))
    for layer, (top, bottom) in enumerate(rows[1:-1]):
        elements += _draw_layer(layer, ops[layer], joins[layer], left, top, bottom)
    for name, (top, bottom) in (("stem", rows[0]), ("classifier", rows[-1])):
        elements.append(_svg.frame(left, top, _BOX_WIDTH, bottom - top, _svg.INK))
        y = (top + bottom) / 2 + 4
        elements.append(_svg.text(middle, y, name, 'text-anchor="middle"'))
    return _svg.Drawing(width, bottoms[-1], elements)


def _joins(sources: tuple[int, ...]) -> str:
    names = ["stem" if source == 0 else str(source - 1) for source in sources]
    return f"joins {', '.join(names)}" if names else ""


def _length(skip: _Skip) -> int:
    return skip.target - skip.source


def _reach(y: float, to_y: float) -> float:
    # Its square grows faster than the length of the arc, which keeps arcs nested.
    return _REACH + _REACH_RATE * (to_y - y)


def _ports(skips: list[_Skip], num_rows: int) -> list[list[_Skip]]:
    """List the arcs at each box from top to bottom.

    Those that arrive come first, the shortest on top; then those that leave, the
    longest on top: so an arc encloses the shorter ones and crosses none of them.
    """
    by_length = sorted(skips, key=_length)
    return [
        [skip for skip in by_length if skip.target == row]
        + [skip for skip in by_length[::-1] if skip.source == row]
        for row in range(num_rows)
    ]


def _rows(
    ports: list[list[_Skip]],
) -> tuple[list[float], list[float], list[float]]:
    """Choose the tops and bottoms of the boxes and the heights of the reductions."""
    third = (len(ports) - 2) // 3
    tops, bottoms, reductions = [], [], []
    y = 0.0
    for row, skips in enumerate(ports):
        tops.append(y)
        bottoms.append(y + max(_BOX_HEIGHT, _PORT_STEP * (len(skips) + 1)))
        y = bottoms[-1] + _GAP
        # After the first and the second third of the layers, row 0 being the stem.
        if third and row in (third, 2 * third):
            reductions.append(y + (_REDUCTION - _GAP) / 2)
            y += _REDUCTION
    return tops, bottoms, reductions


def _arcs(
    skips: list[_Skip],
    ports: list[list[_Skip]],
    tops: list[float],
    bottoms: list[float],
) -> dict[_Skip, tuple[float, float]]:
    """Choose the heights between which each arc runs."""
    heights = {}
    for row, (top, bottom) in enumerate(zip(tops, bottoms, strict=True)):
        first = (top + bottom - _PORT_STEP * (len(ports[row]) - 1)) / 2
        for i, skip in enumerate(ports[row]):
            heights[skip, row] = first + _PORT_STEP * i
    return {
        skip: (heights[skip, skip.source], heights[skip, skip.target]) for skip in skips
    }


def _draw_skip(skip: _Skip, x: float, y: float, to_y: float, colour: str) -> str:
    out = x + _reach(y, to_y)
    path = f"M{x:.1f} {y:.1f}C{out:.1f} {y:.1f} {out:.1f} {to_y:.1f} "
    path += f"{x + _HEAD:.1f} {to_y:.1f}"
    head = f"M{x:.1f} {to_y:.1f}l{_HEAD} -2v4z"
    name = f"layer {skip.source - 1}" if skip.source else "stem"
    return _svg.titled(
        f"skip: {name} to layer {skip.target - 1}",
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-opacity="0.75"/>',
        f'<path d="{head}" fill="{colour}"/>',
    )


def _draw_layer(
    layer: int, op: str, joins: str, left: float, top: float, bottom: float
) -> list[str]:
    colour = _svg.op_colour(op)
    y = (top + bottom) / 2 + 4
    faint = f'fill="{_svg.FAINT}" font-size="11" text-anchor="end"'
    middle = f'fill="{colour}" text-anchor="middle"'
    return [
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{_BOX_WIDTH}" '
        f'height="{bottom - top:.1f}" rx="6" fill="#ffffff" stroke="{colour}"/>',
        _svg.text(left + _BOX_WIDTH / 2, y, _svg.short(op), middle),
        _svg.text(left - 6, y, str(layer), 'font-weight="600" text-anchor="end"'),
        _svg.text(left - 6 - _NUMBER, y, joins, faint),
    ]


def _draw_reduction(x: float, to_x: float, y: float) -> str:
    style = f'fill="{_svg.FAINT}" font-size="11" text-anchor="end"'
    return (
        f'<path d="M{x:.1f} {y:.1f}H{to_x:.1f}" fill="none" stroke="{_svg.DEAD}" '
        'stroke-dasharray="4 3"/>' + _svg.text(x - 6, y + 4, "reduction", style)
    )
