"""Drawings of blocks: directed acyclic graphs of operations, left to right."""

from collections.abc import Collection, Sequence

import pygraphviz

from jaxnas import genotypes
from jaxnas.report.drawing import _graph


@_graph.graph.register(genotypes.DagGenotype)
def dag_graph(genotype: genotypes.DagGenotype) -> pygraphviz.AGraph:
    """Describe a block; an input that no node reads is gray."""
    genotype = genotypes.check_dag(genotype)
    graph = _graph.new_graph(nodesep="0.2", ranksep="0.7")
    labels = [_graph.short(op) for op in genotype.ops]
    output = add_block(_graph.add_cluster(graph), "", genotype, labels)
    _graph.shade_dead(graph, [output])
    return graph


def add_block(
    graph: pygraphviz.AGraph,
    prefix: str,
    genotype: genotypes.DagGenotype,
    labels: Sequence[str],
    marked: Collection[int] = (),
) -> str:
    """Add a block whose operations may be of any space.

    Args:
      graph: the cluster to add it to.
      prefix: what the names of its nodes begin with, before their numbers.
      genotype: the block.
      labels: words for each node from node 2 on.
      marked: nodes with a thick border.

    Returns:
      The name of the output.
    """
    output = 2 + len(genotype.ops)
    _graph.add_port(graph, f"{prefix}{output}", "c", "k")
    _graph.add_inputs(graph, (f"{prefix}1", "c", "k-2"), (f"{prefix}0", "c", "k-1"))
    colors = [_graph.INK, _graph.INK, *map(_graph.op_color, genotype.ops)]
    for node, (label, color) in enumerate(zip(labels, colors[2:], strict=True), 2):
        graph.add_node(
            f"{prefix}{node}",
            label=f"<<B>{node}</B>  {label}>",
            color=color,
            fontcolor=color,
            penwidth="3" if node in marked else "1",
        )
    for target, sources in enumerate(genotype.inputs, start=2):
        for source in sources:
            ends = f"{prefix}{source}", f"{prefix}{target}"
            graph.add_edge(*ends, color=colors[source])
    for source in genotypes.dag_leaves(genotype):
        graph.add_edge(f"{prefix}{source}", f"{prefix}{output}", color=_graph.FAINT)
    return f"{prefix}{output}"
