"""What holds for a genotype of any kind."""

from jaxnas.genotypes.anytime import AnytimeGenotype, check_anytime
from jaxnas.genotypes.cells import Genotype, check
from jaxnas.genotypes.dag import DagGenotype, check_dag
from jaxnas.genotypes.macro import MacroGenotype, check_macro
from jaxnas.genotypes.recurrent import RecurrentGenotype, check_recurrent

AnyGenotype = (
    Genotype | MacroGenotype | RecurrentGenotype | DagGenotype | AnytimeGenotype
)
"""The human form of an architecture of any search space."""


def check_any(genotype: AnyGenotype) -> AnyGenotype:
    """Check a genotype of any kind and normalise its lists to tuples.

    Args:
      genotype: the genotype.

    Returns:
      The same genotype, made of tuples, strings and Python integers only.

    Raises:
      ValueError: naming the place at fault.
    """
    if isinstance(genotype, MacroGenotype):
        return check_macro(genotype)
    if isinstance(genotype, RecurrentGenotype):
        return check_recurrent(genotype)
    if isinstance(genotype, DagGenotype):
        return check_dag(genotype)
    if isinstance(genotype, AnytimeGenotype):
        return check_anytime(genotype)
    return check(genotype)
