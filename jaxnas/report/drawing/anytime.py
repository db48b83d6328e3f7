"""Drawings of networks with exits: a block below the other, as graphs."""

import pygraphviz

from jaxnas import genotypes
from jaxnas.report.drawing import _graph, dag


@_graph.graph.register(genotypes.AnytimeGenotype)
def anytime_graph(genotype: genotypes.AnytimeGenotype) -> pygraphviz.AGraph:
    """Describe every block: `/2` and `/4` are scales, a thick border is an exit."""
    genotype = genotypes.check_anytime(genotype)
    graph = _graph.new_graph(nodesep="0.2", ranksep="0.7")
    outputs = []
    # Graphviz stacks clusters from bottom to top.
    blocks = list(enumerate(zip(*genotype, strict=True)))
    for block, (ops, inputs, scales, exits) in reversed(blocks):
        labels = [
            _graph.short(op) + (f" /{2**scale}" if scale else "")
            for op, scale in zip(ops, scales, strict=True)
        ]
        heading = f"Block {block}, exits at {', '.join(map(str, exits))}"
        cluster = _graph.add_cluster(graph, heading)
        block_genotype = genotypes.DagGenotype(ops, inputs)
        outputs.append(
            dag.add_block(cluster, f"{block}.", block_genotype, labels, exits)
        )
    _graph.shade_dead(graph, outputs)
    return graph
