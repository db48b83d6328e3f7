"""Drawings of cells, left to right, each operation in front of the node it feeds."""

from collections.abc import Sequence

import pygraphviz

from jaxnas import genotypes
from jaxnas.report.drawing import _graph


def cell_svg(
    pairs: Sequence[genotypes.Edge], concat: Sequence[int], *, title: str
) -> str:
    """Draw one cell.

    Args:
      pairs: `(op, source)` pairs, two for every node.
      concat: nodes that form the output.
      title: text above the drawing.

    Returns:
      An SVG element that needs no other file and defines no ids, so that several can
      stand in one page. What has no path to the output is gray.

    Raises:
      ValueError: if the cell is invalid, naming the node and edge at fault.
    """
    graph = _graph.new_graph(ranksep="0.5")
    pairs, concat = genotypes.check_cell(pairs, concat)
    output = _add_cell(_graph.add_cluster(graph), "", pairs, concat)
    _graph.shade_dead(graph, [output])
    return _graph.to_svg(graph, title=title)


@_graph.graph.register(genotypes.Genotype)
def cells_graph(genotype: genotypes.Genotype) -> pygraphviz.AGraph:
    """Describe both cells, whose nodes are named `"normal 2"` or `"reduce 2"`."""
    normal, normal_concat, reduce, reduce_concat = genotypes.check(genotype)
    graph = _graph.new_graph(ranksep="0.5")
    # Graphviz stacks clusters from bottom to top.
    outputs = [
        _add_cell(_graph.add_cluster(graph, heading), prefix, pairs, concat)
        for heading, prefix, pairs, concat in (
            ("Reduction cell", "reduce ", reduce, reduce_concat),
            ("Normal cell", "normal ", normal, normal_concat),
        )
    ]
    _graph.shade_dead(graph, outputs)
    return graph


def _add_cell(
    graph: pygraphviz.AGraph,
    prefix: str,
    pairs: Sequence[genotypes.Edge],
    concat: Sequence[int],
) -> str:
    """Add a cell and return the name of its output."""
    output = 2 + len(pairs) // 2
    _graph.add_port(graph, f"{prefix}{output}", "c", "k")
    _graph.add_inputs(graph, (f"{prefix}0", "c", "k-2"), (f"{prefix}1", "c", "k-1"))
    for node in reversed(range(2, output)):
        read = list(enumerate(pairs[2 * node - 4 : 2 * node - 2]))
        read.sort(key=lambda edge: edge[1][1])  # the earlier source above
        graph.add_node(
            f"{prefix}{node}",
            label=_label(node, [(i, op) for i, (op, _) in read]),
            shape="plain",
            style="",
        )
        for i, (op, source) in read[::-1]:
            graph.add_edge(
                f"{prefix}{source}",
                f"{prefix}{node}",
                key=f"{op}: {source} to {node}, {i}",
                color=_graph.op_color(op),
                headport=f"{i}:w",
                style="dashed" if op == "none" else "",
            )
    for node in reversed(concat):
        graph.add_edge(f"{prefix}{node}", f"{prefix}{output}", color=_graph.FAINT)
    return f"{prefix}{output}"


def _label(node: int, ops: Sequence[tuple[int, str]]) -> str:
    """Write the operations of a node, each with a port, and its number."""
    rows = [
        f'<TD PORT="{i}" BORDER="1" COLOR="{color}" STYLE="ROUNDED" CELLPADDING="3">'
        f'<FONT COLOR="{color}">{_graph.short(op)}</FONT></TD>'
        for i, op in ops
        for color in [_graph.op_color(op)]
    ]
    number = (
        f'<TD ROWSPAN="2" BGCOLOR="{_graph.INK}" STYLE="ROUNDED" WIDTH="26">'
        f'<FONT COLOR="white">{node}</FONT></TD>'
    )
    return (
        '<<TABLE BORDER="0" CELLSPACING="3">'
        f"<TR>{rows[0]}{number}</TR><TR>{rows[1]}</TR></TABLE>>"
    )
