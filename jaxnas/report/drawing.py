"""Drawings of cells as self-contained SVG.

A cell is laid out in columns, left to right by the longest path from its inputs. The
label of an edge stands right in front of the node it feeds, and an edge that skips
columns gets a lane of its own in each, so labels, nodes and edges keep apart by
construction. Within columns the method is that of Sugiyama et al. (1981): an order
with few crossings first, then heights that keep edges short and straight.
"""

import html
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxnas import genotypes

# Sizes in px.
_FONT_SIZE = 12
_GLYPH = 6.2  # mean width of a character
_MARGIN = 24
_TITLE_HEIGHT = 36
_HEADING = 20
_LABEL_HEIGHT = 20
_LABEL_STEP = 26  # between the two labels in front of a node
_LINK = 34  # from a label to its node
_RADIUS = 15
_BOX_WIDTH = 50
_LANE_HEIGHT = 18
_ARROW = 8

_SWEEPS = 500

_INK = "#24292f"
_FAINT = "#8a939c"  # edges to the output
_DEAD = "#c2c7cc"
_COLOURS = {
    "sep": "#0b63a5",
    "dil": "#7a3fb0",
    "conv": "#00758a",
    "max": "#c2410c",
    "avg": "#a16207",
    "skip": "#1a7f37",
    "none": "#7d858d",
}

_Item = tuple[int, ...]
"""What takes up height in a column: a node `(node,)` or a lane `(edge, column)`."""


class _Edge(NamedTuple):
    source: int
    target: int
    op: str  # empty on the way to the output


class _Layout(NamedTuple):
    columns: list[list[_Item]]  # from top to bottom
    chains: list[list[_Item]]  # what each edge passes, from source to target
    heights: dict[_Item, float]  # of the middle of each item, downwards
    extents: dict[_Item, float]  # half of what each item takes up


class _Grid(NamedTuple):
    lefts: list[float]  # of each column
    rights: list[float]
    labels: list[float]  # width of the labels on its left


class _Drawing(NamedTuple):
    width: float
    height: float
    elements: list[str]


def cell_svg(
    pairs: Sequence[genotypes.Edge], concat: Sequence[int], *, title: str
) -> str:
    """Draw one cell.

    Args:
      pairs: `(op, source)` pairs, two for every node.
      concat: nodes that form the output.
      title: text above the drawing.

    Returns:
      An SVG document that needs no other file and defines no ids, so that several
      can stand in one page. What has no path to the output is grey.

    Raises:
      ValueError: if the cell is invalid, naming the node and edge at fault.
    """
    return _document(title, [_draw_cell(pairs, concat)])


def genotype_svg(genotype: genotypes.Genotype, *, title: str) -> str:
    """Draw the normal cell of a genotype and, below it, the reduction cell.

    Args:
      genotype: the genotype.
      title: text above the drawing.

    Returns:
      An SVG document like that of `cell_svg`.

    Raises:
      ValueError: if the genotype is invalid, naming the cell, node and edge at fault.
    """
    genotype = genotypes.check(genotype)
    normal = _draw_cell(genotype.normal, genotype.normal_concat)
    reduce = _draw_cell(genotype.reduce, genotype.reduce_concat)
    return _document(
        title, [_headed("Normal cell", normal), _headed("Reduction cell", reduce)]
    )


def _document(title: str, drawings: list[_Drawing]) -> str:
    # The title is set a third larger than the labels, and bold.
    widths = [1.5 * _GLYPH * len(title), *(drawing.width for drawing in drawings)]
    width = max(widths) + 2 * _MARGIN
    top = _MARGIN + _TITLE_HEIGHT
    elements = [_text(_MARGIN, _MARGIN + 4, title, 'font-size="16" font-weight="600"')]
    for drawing in drawings:
        elements += _moved(drawing.elements, _MARGIN, top)
        top += drawing.height + _MARGIN
    name = html.escape(title)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {top:.0f}" '
        f'width="{width:.0f}" height="{top:.0f}" role="img" aria-label="{name}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="{_FONT_SIZE}" '
        f'fill="{_INK}">'
    )
    # Its own paper, so that it reads the same on a dark page.
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{name}</title>", paper, *elements, "</svg>\n"])


def _headed(heading: str, drawing: _Drawing) -> _Drawing:
    elements = [_text(0, 4, heading, 'font-size="13" font-weight="600"')]
    elements += _moved(drawing.elements, 0, _HEADING)
    return _Drawing(drawing.width, drawing.height + _HEADING, elements)


def _moved(elements: list[str], x: float, y: float) -> list[str]:
    return [f'<g transform="translate({x:g} {y:g})">', *elements, "</g>"]


def _draw_cell(pairs: Sequence[genotypes.Edge], concat: Sequence[int]) -> _Drawing:
    pairs, concat = genotypes.check_cell(pairs, concat)
    output = 2 + len(pairs) // 2
    edges = [_Edge(source, 2 + i // 2, op) for i, (op, source) in enumerate(pairs)]
    edges += [_Edge(node, output, "") for node in concat]
    return _render(edges, output, _layout(edges, output))


def _layout(edges: list[_Edge], output: int) -> _Layout:
    levels = [0] * (output + 1)
    for edge in edges:
        levels[edge.target] = max(levels[edge.target], levels[edge.source] + 1)
    # Alone in the last column, even where the deepest node does not lead to it.
    levels[output] = max(levels[:output]) + 1
    columns: list[list[_Item]] = [[] for _ in range(levels[output] + 1)]
    for node, level in enumerate(levels):
        columns[level].append((node,))
    chains: list[list[_Item]] = []
    for i, edge in enumerate(edges):
        passed = range(levels[edge.source] + 1, levels[edge.target])
        for column in passed:
            columns[column].append((i, column))
        lanes = [(i, column) for column in passed]
        chains.append([(edge.source,), *lanes, (edge.target,)])
    segments = [segment for chain in chains for segment in itertools.pairwise(chain)]
    arriving = sum(edge.target == output for edge in edges)
    extents = {item: _LANE_HEIGHT / 2 for column in columns for item in column}
    extents |= {(node,): _LABEL_STEP / 2 + _LABEL_HEIGHT for node in range(output)}
    extents[(output,)] = max(_RADIUS, arriving * _LANE_HEIGHT / 2)
    columns = _order(columns, chains, segments)
    heights = _heights(columns, segments, extents)
    return _Layout(columns, chains, heights, extents)


def _order(
    columns: list[list[_Item]],
    chains: list[list[_Item]],
    segments: list[tuple[_Item, _Item]],
) -> list[list[_Item]]:
    """Move items within their columns for as long as fewer segments cross.

    An item moves alone, or all lanes of an edge together. The inputs keep their
    places, so that cell k-2 is always above cell k-1.
    """
    groups = [[item] for column in columns[1:] for item in column]
    groups += [chain[1:-1] for chain in chains if len(chain) > 3]
    places = range(max(map(len, columns)))
    best = _tangle(columns, segments)
    improved = True
    while improved:
        improved = False
        for group, place, end in itertools.product(groups, places, (1, -1)):
            trial = [_moved_to(place, end, group, column) for column in columns]
            tangle = _tangle(trial, segments)
            if tangle < best:
                columns, best, improved = trial, tangle, True
    return columns


def _moved_to(
    place: int, end: int, group: list[_Item], column: list[_Item]
) -> list[_Item]:
    """Move the members of a group to a place counted from the top or the bottom."""
    staying = [item for item in column if item not in group][::end]
    going = [item for item in column if item in group]
    return [*staying[:place], *going, *staying[place:]][::end]


def _tangle(
    columns: list[list[_Item]], segments: list[tuple[_Item, _Item]]
) -> tuple[int, float]:
    """Count the crossings, then the ranks by which segments rise and fall."""
    rank = {
        item: place - (len(column) - 1) / 2
        for column in columns
        for place, item in enumerate(column)
    }
    gap = {item: i for i, column in enumerate(columns) for item in column}
    ends = [(gap[left], rank[left], rank[right]) for left, right in segments]
    crossings = sum(
        gap_1 == gap_2 and (left_1 - left_2) * (right_1 - right_2) < 0
        for (gap_1, left_1, right_1), (gap_2, left_2, right_2) in (
            itertools.combinations(ends, 2)
        )
    )
    return crossings, sum(abs(left - right) for _, left, right in ends)


def _heights(
    columns: list[list[_Item]],
    segments: list[tuple[_Item, _Item]],
    extents: dict[_Item, float],
) -> dict[_Item, float]:
    """Choose heights that keep segments level and items apart.

    Descends on the weighted sum of squared rises, one column at a time. Segments
    between lanes weigh more, for a long edge should be straight.
    """
    ties: dict[_Item, list[tuple[_Item, float]]] = {}
    for left, right in segments:
        weight = (1.0, 4.0, 64.0)[len(left) + len(right) - 2]
        ties.setdefault(left, []).append((right, weight))
        ties.setdefault(right, []).append((left, weight))
    heights = {item: 0.0 for column in columns for item in column}
    for _ in range(_SWEEPS):
        for column in columns:
            wishes, weights = [], []
            for item in column:
                # An input that nobody reads has no ties and stays where it is.
                pulls = ties.get(item, [(item, 1.0)])
                weights.append(sum(weight for _, weight in pulls))
                total = sum(weight * heights[other] for other, weight in pulls)
                wishes.append(total / weights[-1])
            sizes = [extents[item] for item in column]
            heights |= zip(column, _stack(wishes, weights, sizes), strict=True)
    return heights


def _stack(
    wishes: list[float], weights: list[float], extents: list[float]
) -> list[float]:
    """Place items one below the other as near to their wishes as extents allow.

    Least squares under minimum distances is isotonic regression of the wishes, each
    less its distance from the top of a tight stack: pool adjacent violators.
    """
    offsets = [0.0]
    for upper, lower in itertools.pairwise(extents):
        offsets.append(offsets[-1] + upper + lower)
    pools: list[tuple[float, float, int]] = []  # mean, weight, number of items
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, count = wish - offset, 1
        while pools and pools[-1][0] > mean:
            above_mean, above_weight, above_count = pools.pop()
            mean = mean * weight + above_mean * above_weight
            weight += above_weight
            mean /= weight
            count += above_count
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _render(edges: list[_Edge], output: int, layout: _Layout) -> _Drawing:
    columns, heights, extents = layout.columns, layout.heights, layout.extents
    level = {item: i for i, column in enumerate(columns) for item in column}
    tracks = _tracks(edges, output, layout)
    grid = _grid(edges, tracks, level)
    live = _live(edges, output)
    elements = []
    # Edges to the output lie lowest, then dead ones, then those that matter most.
    for edge, track in sorted(
        zip(edges, tracks, strict=True),
        key=lambda pair: (pair[0].op != "", pair[0].target in live),
    ):
        colour = _colour(edge.op) if edge.target in live else _DEAD
        place = level[(edge.source,)], heights[(edge.target,)]
        elements.append(_draw_edge(edge, track, *place, grid, colour))
    for node in range(output + 1):
        column, y = level[(node,)], heights[(node,)]
        colour = _INK if node in live else _DEAD
        if node in (0, 1, output):
            index = "k" if node == output else ("k-2", "k-1")[node]
            half = extents[(node,)] if node == output else _RADIUS
            elements.append(_draw_box(grid.lefts[column], y, half, index, colour))
        else:
            x = grid.rights[column] - _RADIUS
            elements.append(_draw_disc(x, y, node, colour))
    top = min(height - extents[item] for item, height in heights.items())
    bottom = max(height + extents[item] for item, height in heights.items())
    if len(live) <= output:
        bottom += _LABEL_HEIGHT
        note = "grey: no path to the output"
        elements.append(_text(0, bottom, note, f'font-size="11" fill="{_FAINT}"'))
    return _Drawing(grid.rights[-1], bottom - top, _moved(elements, 0, -top))


def _live(edges: list[_Edge], output: int) -> set[int]:
    live = {output}
    # Nodes are numbered in order, so every reader of a node comes first here.
    for edge in sorted(edges, key=lambda edge: -edge.target):
        if edge.target in live:
            live.add(edge.source)
    return live


def _tracks(edges: list[_Edge], output: int, layout: _Layout) -> list[list[float]]:
    """List the heights of each edge: leaving, in its lanes, and arriving.

    Edges arrive at their labels, or side by side at the output.
    """
    heights = layout.heights
    tracks = [[heights[item] for item in chain] for chain in layout.chains]
    ends = list(zip(edges, tracks, strict=True))
    for node in range(output + 1):
        arriving = [track for edge, track in ends if edge.target == node]
        step = _LANE_HEIGHT if node == output else _LABEL_STEP
        for track, offset in _fan(arriving, -2, step):
            track[-1] += offset
    for node in range(output):
        leaving = [track for edge, track in ends if edge.source == node]
        for track, offset in _fan(leaving, 1, min(6, 22 / max(1, len(leaving)))):
            track[0] += offset
    return tracks


def _fan(
    tracks: list[list[float]], towards: int, step: float
) -> list[tuple[list[float], float]]:
    """Spread tracks about a node, in the order of their heights one stop away."""
    ordered = sorted(tracks, key=lambda track: track[towards])
    middle = (len(tracks) - 1) / 2
    return [(track, step * (i - middle)) for i, track in enumerate(ordered)]


def _grid(
    edges: list[_Edge], tracks: list[list[float]], level: dict[_Item, int]
) -> _Grid:
    """Give every column its abscissae; gaps widen where edges rise steeply."""
    last = max(level.values())
    rises, labels = [0.0] * last, [0.0] * last
    for edge, track in zip(edges, tracks, strict=True):
        first, column = level[(edge.source,)], level[(edge.target,)]
        for i, (y, next_y) in enumerate(itertools.pairwise(track)):
            rises[first + i] = max(rises[first + i], abs(next_y - y))
        if edge.op:
            width = _GLYPH * len(_short(edge.op)) + 16
            labels[column] = max(labels[column], width)
    lefts, rights = [0.0], [float(_BOX_WIDTH)]
    for column in range(1, last + 1):
        lefts.append(rights[-1] + min(max(44, 0.45 * rises[column - 1]), 110))
        width = _BOX_WIDTH if column == last else labels[column] + _LINK + 2 * _RADIUS
        rights.append(lefts[-1] + width)
    return _Grid(lefts, rights, labels)


def _draw_edge(
    edge: _Edge,
    track: list[float],
    first: int,
    target_y: float,
    grid: _Grid,
    colour: str,
) -> str:
    # Starts under its source, whose border is round.
    x, y = grid.rights[first], track[0]
    path = f"M{x - _RADIUS:.1f} {y:.1f}H{x:.1f}"
    last = first + len(track) - 1
    for column in range(first + 1, last):
        path += _curve(x, y, grid.lefts[column], track[column - first])
        x, y = grid.rights[column], track[column - first]
        path += f"H{x:.1f}"
    label = ""
    tip_x, tip_y = grid.lefts[last], track[-1]
    if edge.op:
        label = _draw_label(tip_x, tip_y, grid.labels[last], edge.op, colour)
        path += _curve(x, y, tip_x, tip_y)
        x, y = tip_x + grid.labels[last], tip_y
        path += f"H{x:.1f}"
        rise = math.copysign(5, tip_y - target_y)
        tip_x = grid.rights[last] - _RADIUS - math.sqrt(_RADIUS**2 - rise**2)
        tip_y = target_y + rise
    path += _curve(x, y, tip_x - _ARROW, tip_y)
    head = f"M{tip_x:.1f} {tip_y:.1f}l{-_ARROW} -3.5v7z"
    dash = ' stroke-dasharray="4 3"' if edge.op == "none" else ""
    return (
        f"<g><title>{edge.op or 'output'}: {edge.source} to {edge.target}</title>"
        # A white border lets one edge pass visibly over another.
        f'<path d="{path}" fill="none" stroke="#ffffff" stroke-width="4"/>'
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'
        f'<path d="{head}" fill="{colour}"/>{label}</g>'
    )


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (x + to_x) / 2
    return f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def _draw_label(x: float, y: float, width: float, op: str, colour: str) -> str:
    half = _LABEL_HEIGHT / 2
    text = _text(
        x + width / 2,
        y + 4,
        _short(op),
        f'fill="{colour if colour != _DEAD else _FAINT}" text-anchor="middle"',
    )
    return (
        f'<rect x="{x:.1f}" y="{y - half:.1f}" width="{width:.1f}" '
        f'height="{_LABEL_HEIGHT}" rx="{half:g}" fill="#ffffff" stroke="{colour}"/>'
        f"{text}"
    )


def _draw_disc(x: float, y: float, node: int, colour: str) -> str:
    text = _text(x, y + 4, str(node), 'fill="#ffffff" text-anchor="middle"')
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="{colour}"/>{text}'


def _draw_box(x: float, y: float, half: float, index: str, colour: str) -> str:
    # The letter and its index meet at one point, which every renderer can place.
    joint = x + _BOX_WIDTH / 2 + (6 - _GLYPH * len(index)) / 2
    return (
        f'<rect x="{x:.1f}" y="{y - half:.1f}" width="{_BOX_WIDTH}" '
        f'height="{2 * half:.1f}" rx="6" fill="#f2f4f7" stroke="{colour}"/>'
        + _text(joint, y + 4, "c", f'fill="{colour}" text-anchor="end"')
        + _text(joint + 1, y + 8, index, f'fill="{colour}" font-size="10"')
    )


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{html.escape(text)}</text>'


def _short(op: str) -> str:
    """Shorten `sep_conv_3x3` to `sep 3x3` and `skip_connect` to `skip`."""
    words = op.split("_")
    kept = [word for word in words[1:] if word not in ("conv", "pool", "connect")]
    return " ".join([words[0], *kept])


def _colour(op: str) -> str:
    return _COLOURS[op.split("_")[0]] if op else _FAINT
