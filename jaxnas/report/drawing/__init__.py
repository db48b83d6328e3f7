"""Drawings of architectures by Graphviz: as self-contained SVG and as DOT.

Each family of genotypes has one function that describes a genotype as a graph. A family
of another package adds its own:

    @drawing.graph.register(MyGenotype)
    def my_graph(genotype: MyGenotype) -> pygraphviz.AGraph:
        graph = drawing.new_graph()
        ...
        return graph
"""

from jaxnas.report.drawing import anytime, autoencoder, cells, dag, macro, recurrent
from jaxnas.report.drawing._graph import genotype_dot, genotype_svg, graph, new_graph
from jaxnas.report.drawing.cells import cell_svg

__all__ = ["cell_svg", "genotype_dot", "genotype_svg", "graph", "new_graph"]

_FAMILIES = (
    anytime,
    autoencoder,
    cells,
    dag,
    macro,
    recurrent,
)  # imported to be registered
