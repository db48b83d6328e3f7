"""Drawings of recurrent genotypes: a tree of nodes with activations."""

import pygraphviz

from jaxnas import genotypes
from jaxnas.report.drawing import _graph

_COLORS = {
    "tanh": "#0b63a5",
    "relu": "#c2410c",
    "identity": "#1a7f37",
    "sigmoid": "#7a3fb0",
}


@_graph.graph.register(genotypes.RecurrentGenotype)
def recurrent_graph(genotype: genotypes.RecurrentGenotype) -> pygraphviz.AGraph:
    """Describe a recurrent cell, whose output is the mean of some of its nodes."""
    activations, sources, _ = genotype = genotypes.check_recurrent(genotype)
    graph = _graph.new_graph()
    _graph.add_inputs(_graph.add_cluster(graph), ("x", "x", "t"), ("h", "h", "t-1"))
    for node, activation in enumerate(activations):
        color = _COLORS[activation]
        label = f"<<B>{node}</B>  {activation}>"
        graph.add_node(node, label=label, color=color, fontcolor=color)
    _graph.add_port(graph, "output", "mean h", "t")
    graph.add_edge("x", 0)
    graph.add_edge("h", 0)
    for node, source in enumerate(sources, start=1):
        graph.add_edge(source, node)
    for node in genotypes.averaged_nodes(genotype):
        graph.add_edge(node, "output", color=_graph.FAINT)
    return graph
