"""Drawings of cells.

A cell is laid out in columns, left to right by the longest path from its inputs. The
label of an edge stands right in front of the node it feeds, and an edge that skips
columns gets a lane of its own in each, so labels, nodes and edges keep apart by
construction. Within columns the method is that of Sugiyama et al. (1981): an order
with few crossings first, then heights that keep edges short and straight.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxnas import genotypes
from jaxnas.report.drawing import _layers, _svg
from jaxnas.report.drawing._layers import Item

# Sizes in px.
_LABEL_STEP = 26  # between the two labels in front of a node
_LINK = 34  # from a label to its node
_LANE_HEIGHT = 18


class _Edge(NamedTuple):
    source: int
    target: int
    op: str  # empty on the way to the output


class _Layout(NamedTuple):
    columns: list[list[Item]]  # from top to bottom; lanes are (edge, column)
    chains: list[list[Item]]  # what each edge passes, from source to target
    heights: dict[Item, float]  # of the middle of each item, downwards
    extents: dict[Item, float]  # half of what each item takes up


class _Grid(NamedTuple):
    lefts: list[float]  # of each column
    rights: list[float]
    labels: list[float]  # width of the labels on its left


def draw_cell(pairs: Sequence[genotypes.Edge], concat: Sequence[int]) -> _svg.Drawing:
    """Draw one cell; what has no path to the output is grey."""
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
    columns: list[list[Item]] = [[] for _ in range(levels[output] + 1)]
    for node, level in enumerate(levels):
        columns[level].append((node,))
    chains: list[list[Item]] = []
    for i, edge in enumerate(edges):
        passed = range(levels[edge.source] + 1, levels[edge.target])
        for column in passed:
            columns[column].append((i, column))
        lanes = [(i, column) for column in passed]
        chains.append([(edge.source,), *lanes, (edge.target,)])
    segments = [segment for chain in chains for segment in itertools.pairwise(chain)]
    arriving = sum(edge.target == output for edge in edges)
    extents = {item: _LANE_HEIGHT / 2 for column in columns for item in column}
    extents |= {(node,): _LABEL_STEP / 2 + _svg.LABEL_HEIGHT for node in range(output)}
    extents[(output,)] = max(_svg.RADIUS, arriving * _LANE_HEIGHT / 2)
    columns = _order(columns, chains, segments)
    heights = _layers.heights(columns, segments, extents)
    return _Layout(columns, chains, heights, extents)


def _order(
    columns: list[list[Item]],
    chains: list[list[Item]],
    segments: list[tuple[Item, Item]],
) -> list[list[Item]]:
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
    place: int, end: int, group: list[Item], column: list[Item]
) -> list[Item]:
    """Move the members of a group to a place counted from the top or the bottom."""
    staying = [item for item in column if item not in group][::end]
    going = [item for item in column if item in group]
    return [*staying[:place], *going, *staying[place:]][::end]


def _tangle(
    columns: list[list[Item]], segments: list[tuple[Item, Item]]
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


def _render(edges: list[_Edge], output: int, layout: _Layout) -> _svg.Drawing:
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
        colour = _svg.op_colour(edge.op) if edge.target in live else _svg.DEAD
        place = level[(edge.source,)], heights[(edge.target,)]
        elements.append(_draw_edge(edge, track, *place, grid, colour))
    for node in range(output + 1):
        column, y = level[(node,)], heights[(node,)]
        colour = _svg.INK if node in live else _svg.DEAD
        if node in (0, 1, output):
            index = "k" if node == output else ("k-2", "k-1")[node]
            half = extents[(node,)] if node == output else _svg.RADIUS
            elements.append(_svg.box(grid.lefts[column], y, half, "c", index, colour))
        else:
            x = grid.rights[column] - _svg.RADIUS
            elements.append(_svg.disc(x, y, node, colour))
    top = min(height - extents[item] for item, height in heights.items())
    bottom = max(height + extents[item] for item, height in heights.items())
    if len(live) <= output:
        bottom += _svg.LABEL_HEIGHT
        note = "grey: no path to the output"
        elements.append(
            _svg.text(0, bottom, note, f'font-size="11" fill="{_svg.FAINT}"')
        )
    return _svg.Drawing(grid.rights[-1], bottom - top, _svg.moved(elements, 0, -top))


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
    edges: list[_Edge], tracks: list[list[float]], level: dict[Item, int]
) -> _Grid:
    """Give every column its abscissae; gaps widen where edges rise steeply."""
    last = max(level.values())
    rises, labels = [0.0] * last, [0.0] * last
    for edge, track in zip(edges, tracks, strict=True):
        first, column = level[(edge.source,)], level[(edge.target,)]
        for i, (y, next_y) in enumerate(itertools.pairwise(track)):
            rises[first + i] = max(rises[first + i], abs(next_y - y))
        if edge.op:
            width = _svg.GLYPH * len(_svg.short(edge.op)) + 16
            labels[column] = max(labels[column], width)
    lefts, rights = [0.0], [float(_svg.BOX_WIDTH)]
    for column in range(1, last + 1):
        lefts.append(rights[-1] + min(max(44, 0.45 * rises[column - 1]), 110))
        width = (
            _svg.BOX_WIDTH
            if column == last
            else labels[column] + _LINK + 2 * _svg.RADIUS
        )
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
    path = f"M{x - _svg.RADIUS:.1f} {y:.1f}H{x:.1f}"
    last = first + len(track) - 1
    for column in range(first + 1, last):
        path += _svg.curve(x, y, grid.lefts[column], track[column - first])
        x, y = grid.rights[column], track[column - first]
        path += f"H{x:.1f}"
    label = ""
    tip_x, tip_y = grid.lefts[last], track[-1]
    if edge.op:
        width = grid.labels[last]
        label = _svg.label(tip_x, tip_y, width, _svg.short(edge.op), colour)
        path += _svg.curve(x, y, tip_x, tip_y)
        x, y = tip_x + width, tip_y
        path += f"H{x:.1f}"
        rise = math.copysign(5, tip_y - target_y)
        tip_x = grid.rights[last] - _svg.RADIUS - math.sqrt(_svg.RADIUS**2 - rise**2)
        tip_y = target_y + rise
    path += _svg.curve(x, y, tip_x - _svg.ARROW, tip_y)
    head = f"M{tip_x:.1f} {tip_y:.1f}l{-_svg.ARROW} -3.5v7z"
    title = f"{edge.op or 'output'}: {edge.source} to {edge.target}"
    # A white border lets one edge pass visibly over another.
    border = f'<path d="{path}" fill="none" stroke="#ffffff" stroke-width="4"/>'
    line = _svg.arrow(path, head, colour, dashed=edge.op == "none")
    return _svg.titled(title, border, line, label)
