"""Drawings of blocks: directed acyclic graphs of operations.

A block is laid out in columns, left to right by the longest path from its inputs. All
edges that leave a node share one line, which has a lane of its own in every column
that it passes and branches off in front of the nodes it feeds; so lines, lanes and
nodes keep apart by construction. The method is that of Sugiyama et al. (1981), the
order within columns found by sifting (Matuszewski et al. 1999).
"""

import itertools
import statistics
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from jaxnas import genotypes
from jaxnas.report.drawing import _layers, _svg
from jaxnas.report.drawing._layers import Item

# Sizes in px.
_NODE_HEIGHT = 26  # at least
_PORT_STEP = 8  # between the edges into a node
_LANE_HEIGHT = 14
_NODE_GAP = 16  # between nodes of a column
_NUMBER = 20  # what the number of a node takes up

_ROUNDS = 24


class _Edge(NamedTuple):
    source: int
    target: int
    passed: list[Item]  # the source and the lanes on the way to the target


class _Ties(NamedTuple):
    lefts: dict[Item, list[Item]]  # what joins each item from the column before
    rights: dict[Item, list[Item]]  # and from the column after


def draw_dag(genotype: genotypes.DagGenotype) -> _svg.Drawing:
    """Draw a block; an input that nobody reads is grey."""
    genotype = genotypes.check_dag(genotype)
    labels = [_svg.short(op) for op in genotype.ops]
    return draw_graph(genotype, labels)


def draw_graph(
    genotype: genotypes.DagGenotype,
    labels: Sequence[str],
    marked: Collection[int] = (),
) -> _svg.Drawing:
    """Draw a block whose operations may be of any space.

    Args:
      genotype: the block.
      labels: what stands in each node from node 2 on.
      marked: nodes with a thick border.
    """
    output = 2 + len(genotype.ops)
    # The leaves are the inputs of the output.
    inputs = [*genotype.inputs, genotypes.dag_leaves(genotype)]
    levels = _levels(inputs)
    edges = [
        _Edge(source, target, _passed(source, levels[source], levels[target]))
        for target, sources in enumerate(inputs, start=2)
        for source in sources
    ]
    segments = _segments(edges)
    columns = _order(_columns(levels, segments), segments)
    extents = _extents(edges, columns)
    heights = _layers.heights(columns, segments, extents)
    ports = _ports(edges, heights, output)
    op_width = max(_svg.GLYPH * len(label) for label in labels)
    lefts, rights = _abscissae(columns, edges, heights, ports, _NUMBER + op_width + 16)

    elements = []
    for source in range(output):
        net = [edge for edge in edges if edge.source == source]
        colour = _svg.op_colour(genotype.ops[source - 2]) if source > 1 else _svg.INK
        paths = [
            _path(edge, levels[source], lefts, rights, heights, ports[edge[:2]])
            for edge in net
        ]
        if paths:
            # A white border lets lines pass visibly over others, not over their own.
            border = " ".join(paths)
            elements.append(
                f'<path d="{border}" fill="none" stroke="#ffffff" stroke-width="4"/>'
            )
        for edge, path in zip(net, paths, strict=True):
            leads_out = edge.target == output
            x, y = lefts[levels[edge.target]], ports[edge[:2]]
            head = f"M{x:.1f} {y:.1f}l{-_svg.ARROW} -3.5v7z"
            line = _svg.arrow(path, head, _svg.FAINT if leads_out else colour)
            title = "output" if leads_out else genotype.ops[edge.target - 2]
            elements.append(_svg.titled(f"{title}: {source} to {edge.target}", line))
    read = {edge.source for edge in edges}
    for node in (0, 1, output):
        index = {0: "k-1", 1: "k-2", output: "k"}[node]
        colour = _svg.INK if node in read or node == output else _svg.DEAD
        x, y = lefts[levels[node]], heights[(node,)]
        half = extents[(node,)] - _NODE_GAP / 2
        elements.append(_svg.box(x, y, half, "c", index, colour))
    for node, op in enumerate(genotype.ops, start=2):
        x, right, y = lefts[levels[node]], rights[levels[node]], heights[(node,)]
        half = extents[(node,)] - _NODE_GAP / 2
        border = 3 if node in marked else 1
        colour = _svg.op_colour(op)
        elements.append(
            _draw_node(node, labels[node - 2], x, right, y, half, colour, border)
        )
    top = min(height - extents[item] for item, height in heights.items())
    bottom = max(height + extents[item] for item, height in heights.items())
    return _svg.Drawing(rights[-1], bottom - top, _svg.moved(elements, 0, -top))


def _levels(inputs: list[tuple[int, ...]]) -> list[int]:
    levels = [0, 0]
    for sources in inputs:
        levels.append(1 + max(levels[source] for source in sources))
    # The output stands alone in the last column, for the deepest node is a leaf.
    return levels


def _passed(source: int, first: int, last: int) -> list[Item]:
    return [(source,), *((source, column) for column in range(first + 1, last))]


def _segments(edges: list[_Edge]) -> list[tuple[Item, Item]]:
    """List what joins neighbouring columns, once where several edges share it."""
    segments = (
        segment
        for edge in edges
        for segment in itertools.pairwise([*edge.passed, (edge.target,)])
    )
    return list(dict.fromkeys(segments))


def _columns(levels: list[int], segments: list[tuple[Item, Item]]) -> list[list[Item]]:
    columns: list[list[Item]] = [[] for _ in range(levels[-1] + 1)]
    for node, level in enumerate(levels):
        columns[level].append((node,))
    for item in dict.fromkeys(left for left, _ in segments if len(left) == 2):
        columns[item[1]].append(item)
    return columns


def _order(
    columns: list[list[Item]], segments: list[tuple[Item, Item]]
) -> list[list[Item]]:
    """Order the items of each column so that few segments cross.

    Every round sorts the columns by the mean rank of their neighbours, forth and back
    in turns, and then sifts; the best round counts. The inputs keep their places.
    """
    ties = _Ties({}, {})
    for column in columns:
        for item in column:
            ties.lefts[item], ties.rights[item] = [], []
    for left, right in segments:
        ties.lefts[right].append(left)
        ties.rights[left].append(right)
    best, fewest = columns, _crossings(columns, ties)
    for i in range(_ROUNDS):
        columns = _sift(_sort(columns, ties, forth=i % 2 == 0), ties)
        crossings = _crossings(columns, ties)
        if crossings < fewest:
            best, fewest = columns, crossings
    return best


def _ranks(columns: Iterable[list[Item]]) -> dict[Item, float]:
    # About the middle of the column, so that columns of any height compare.
    return {
        item: place - (len(column) - 1) / 2
        for column in columns
        for place, item in enumerate(column)
    }


def _sort(columns: list[list[Item]], ties: _Ties, *, forth: bool) -> list[list[Item]]:
    ranks = _ranks(columns)
    columns = list(columns)
    places = range(1, len(columns))
    for i in places if forth else reversed(places):
        side = ties.lefts if forth else ties.rights
        means = {
            item: statistics.fmean(ranks[other] for other in side[item] or [item])
            for item in columns[i]
        }
        columns[i] = sorted(columns[i], key=means.__getitem__)
        ranks |= _ranks([columns[i]])
    return columns


def _sift(columns: list[list[Item]], ties: _Ties) -> list[list[Item]]:
    """Move each item to its best place, for as long as fewer segments cross."""
    ranks = _ranks(columns)
    columns = list(columns)
    improved = True
    while improved:
        improved = False
        for i, item in [
            (i, item)
            for i, column in enumerate(columns[1:], start=1)
            for item in column
        ]:
            others = [other for other in columns[i] if other != item]
            # Crossings with the item on top, then below one more of the others each.
            changes = [0]
            for other in others:
                above = _pair_crossings(item, other, ties, ranks)
                below = _pair_crossings(other, item, ties, ranks)
                changes.append(changes[-1] + below - above)
            place = changes.index(min(changes))
            if changes[place] < changes[columns[i].index(item)]:
                columns[i] = [*others[:place], item, *others[place:]]
                ranks |= _ranks([columns[i]])
                improved = True
    return columns


def _pair_crossings(
    upper: Item, lower: Item, ties: _Ties, ranks: dict[Item, float]
) -> int:
    return sum(
        ranks[one] > ranks[other]
        for side in ties
        for one in side[upper]
        for other in side[lower]
    )


def _crossings(columns: list[list[Item]], ties: _Ties) -> int:
    ranks = _ranks(columns)
    to_the_right = _Ties({item: [] for item in ranks}, ties.rights)
    return sum(
        _pair_crossings(upper, lower, to_the_right, ranks)
        for column in columns
        for upper, lower in itertools.combinations(column, 2)
    )


def _extents(edges: list[_Edge], columns: list[list[Item]]) -> dict[Item, float]:
    """Choose half of what each item takes up, with the gap around nodes."""
    extents = {item: _LANE_HEIGHT / 2 for column in columns for item in column}
    for item in extents:
        if len(item) == 1:
            arriving = sum(edge.target == item[0] for edge in edges)
            height = max(_NODE_HEIGHT, _PORT_STEP * (arriving + 1))
            extents[item] = (height + _NODE_GAP) / 2
    return extents


def _ports(
    edges: list[_Edge], heights: dict[Item, float], output: int
) -> dict[tuple[int, int], float]:
    """Choose the height at which each edge arrives, in the order of their lanes."""
    ports = {}
    for node in range(2, output + 1):
        arriving = [edge for edge in edges if edge.target == node]
        arriving.sort(key=lambda edge: heights[edge.passed[-1]])
        first = heights[(node,)] - _PORT_STEP * (len(arriving) - 1) / 2
        for i, edge in enumerate(arriving):
            ports[edge.source, node] = first + _PORT_STEP * i
    return ports


def _abscissae(
    columns: list[list[Item]],
    edges: list[_Edge],
    heights: dict[Item, float],
    ports: dict[tuple[int, int], float],
    node_width: float,
) -> tuple[list[float], list[float]]:
    """Choose the left and right of every column; steep edges widen the gaps."""
    column_of = {item: i for i, column in enumerate(columns) for item in column}
    rises = [0.0] * (len(columns) - 1)
    for edge in edges:
        track = [*(heights[item] for item in edge.passed), ports[edge[:2]]]
        first = column_of[(edge.source,)]
        for i, (y, to_y) in enumerate(itertools.pairwise(track), start=first):
            rises[i] = max(rises[i], abs(to_y - y))
    lefts, rights = [0.0], [float(_svg.BOX_WIDTH)]
    for rise in rises:
        lefts.append(rights[-1] + min(max(44, 0.45 * rise), 110))
        rights.append(lefts[-1] + node_width)
    rights[-1] = lefts[-1] + _svg.BOX_WIDTH
    return lefts, rights


def _path(
    edge: _Edge,
    first: int,
    lefts: list[float],
    rights: list[float],
    heights: dict[Item, float],
    port: float,
) -> str:
    x, y = rights[first], heights[(edge.source,)]
    path = f"M{x:.1f} {y:.1f}"
    for column, lane in enumerate(edge.passed[1:], start=first + 1):
        path += _svg.curve(x, y, lefts[column], heights[lane])
        x, y = rights[column], heights[lane]
        path += f"H{x:.1f}"
    tip = lefts[first + len(edge.passed)]
    return path + _svg.curve(x, y, tip - _svg.ARROW, port)


def _draw_node(
    node: int,
    words: str,
    x: float,
    right: float,
    y: float,
    half: float,
    colour: str,
    border: int,
) -> str:
    middle = (x + _NUMBER + right) / 2
    width = f' stroke-width="{border}"' if border > 1 else ""
    return (
        f'<rect x="{x:.1f}" y="{y - half:.1f}" width="{right - x:.1f}" '
        f'height="{2 * half:.1f}" rx="6" fill="#ffffff" stroke="{colour}"{width}/>'
        + _svg.text(x + 8, y + 4, str(node), 'font-weight="600"')
        + _svg.text(middle, y + 4, words, f'fill="{colour}" text-anchor="middle"')
    )
