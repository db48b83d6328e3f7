"""Drawings of networks with exits: a block below the other, as graphs."""

from jaxnas import genotypes
from jaxnas.report.drawing import _svg
from jaxnas.report.drawing.dag import draw_graph


def draw_anytime(genotype: genotypes.AnytimeGenotype) -> list[_svg.Drawing]:
    """Draw every block: `/2` and `/4` are scales, a thick border is an exit."""
    genotype = genotypes.check_anytime(genotype)
    drawings = []
    for block, (ops, inputs, scales, exits) in enumerate(zip(*genotype, strict=True)):
        labels = [
            _svg.short(op) + (f" /{2**scale}" if scale else "")
            for op, scale in zip(ops, scales, strict=True)
        ]
        graph = draw_graph(genotypes.DagGenotype(ops, inputs), labels, exits)
        heading = f"Block {block}, exits at {', '.join(map(str, exits))}"
        drawings.append(_svg.headed(heading, graph))
    return drawings
