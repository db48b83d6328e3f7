"""Drawings of architectures as self-contained SVG."""

from collections.abc import Sequence

from jaxnas import genotypes
from jaxnas.report.drawing import _svg
from jaxnas.report.drawing.anytime import draw_anytime
from jaxnas.report.drawing.cells import draw_cell
from jaxnas.report.drawing.dag import draw_dag
from jaxnas.report.drawing.macro import draw_macro
from jaxnas.report.drawing.recurrent import draw_recurrent

__all__ = ["cell_svg", "genotype_svg"]


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
    return _svg.document(title, [draw_cell(pairs, concat)])


def genotype_svg(genotype: genotypes.AnyGenotype, *, title: str) -> str:
    """Draw a genotype of any kind.

    Two cells stand one above the other. A macro genotype is a chain of layers from
    top to bottom with its skips as arcs, a recurrent genotype a tree and a block a
    graph from left to right; blocks with exits stand one above the other.

    Args:
      genotype: the genotype.
      title: text above the drawing.

    Returns:
      An SVG document like that of `cell_svg`.

    Raises:
      ValueError: if the genotype is invalid, naming the place at fault.
    """
    genotype = genotypes.check_any(genotype)
    if isinstance(genotype, genotypes.MacroGenotype):
        return _svg.document(title, [draw_macro(genotype)])
    if isinstance(genotype, genotypes.RecurrentGenotype):
        return _svg.document(title, [draw_recurrent(genotype)])
    if isinstance(genotype, genotypes.DagGenotype):
        return _svg.document(title, [draw_dag(genotype)])
    if isinstance(genotype, genotypes.AnytimeGenotype):
        return _svg.document(title, draw_anytime(genotype))
    normal = draw_cell(genotype.normal, genotype.normal_concat)
    reduce = draw_cell(genotype.reduce, genotype.reduce_concat)
    drawings = [
        _svg.headed("Normal cell", normal),
        _svg.headed("Reduction cell", reduce),
    ]
    return _svg.document(title, drawings)
