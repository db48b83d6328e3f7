"""Genotypes of recurrent cells: a tree of nodes with activations.

The recurrent space of ENAS (Pham et al. 2018, section 2.1). Node 0 reads the input and
the previous state, every other node one earlier node. The new state is the mean of
the loose ends, or of all nodes but node 0 (DARTS, and the corrected code of ENAS).
"""

from typing import Literal, NamedTuple, get_args

from jaxnas._checks import is_integer
from jaxnas.genotypes import kinds
from jaxnas.genotypes._values import check_names, is_list

ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")
"""Every activation of a node, numbered as in the official PTB scripts of ENAS."""

ENAS_LM_ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
"""The same, numbered as in the corrected language model of ENAS, `enas_lm`."""

Averaged = Literal["loose_ends", "later_nodes"]
"""Nodes whose mean is the new state: those that no node reads, or all but node 0."""


class RecurrentGenotype(NamedTuple):
    """A recurrent cell.

    Attributes:
      activations: activation of each node, names of `ACTIVATIONS`.
      sources: node that each node but the first reads; `sources[j - 1]` is that of
        node j, in 0..j-1.
      averaged: nodes whose mean is the new state: "loose_ends" that no node reads, or
        "later_nodes", all but node 0.
    """

    activations: tuple[str, ...]
    sources: tuple[int, ...]
    averaged: Averaged = "loose_ends"


def check_recurrent(genotype: RecurrentGenotype) -> RecurrentGenotype:
    """Check a recurrent genotype and normalize its lists to tuples.

    Args:
      genotype: a `RecurrentGenotype` whose fields may be lists, tuples or ranges.

    Returns:
      The same genotype, made of tuples, strings and Python integers only.

    Raises:
      ValueError: naming the node or field at fault.
    """
    if not isinstance(genotype, RecurrentGenotype):
        raise ValueError(
            f"found a {type(genotype).__name__}; expected a RecurrentGenotype"
        )
    activations = check_names(
        genotype.activations, ACTIVATIONS, noun="activation", item="node"
    )
    sources = genotype.sources
    if not is_list(sources):
        raise ValueError(f"{sources!r} is not a list of sources")
    if len(sources) != len(activations) - 1:
        raise ValueError(
            f"found {len(sources)} sources for {len(activations)} activations; "
            "expected one for every node but the first"
        )
    for node, source in enumerate(sources, start=1):
        if not is_integer(source):
            raise ValueError(f"node {node}: source {source!r} is not an integer")
        if not 0 <= source < node:
            raise ValueError(
                f"node {node}: source {source} is not an earlier node; expected 0 to "
                f"{node - 1}"
            )
    averaged = genotype.averaged
    if averaged not in get_args(Averaged):
        raise ValueError(
            f"averaged is {averaged!r}; expected 'loose_ends' or 'later_nodes'"
        )
    if averaged == "later_nodes" and not sources:
        raise ValueError(
            "averaged is 'later_nodes'; expected 'loose_ends' for a cell of one node"
        )
    return RecurrentGenotype(activations, tuple(map(int, sources)), averaged)


kinds.register("recurrent", RecurrentGenotype, check_recurrent)


def recurrent_loose_ends(genotype: RecurrentGenotype) -> tuple[int, ...]:
    """Find the nodes of a recurrent cell that no other node reads.

    Args:
      genotype: the recurrent genotype.

    Returns:
      Their numbers in ascending order; the last node is always one of them.
    """
    nodes = range(len(genotype.activations))
    return tuple(node for node in nodes if node not in genotype.sources)


def averaged_nodes(genotype: RecurrentGenotype) -> tuple[int, ...]:
    """Find the nodes of a recurrent cell whose mean is the new state.

    Args:
      genotype: the recurrent genotype.

    Returns:
      Their numbers in ascending order.
    """
    if genotype.averaged == "later_nodes":
        return tuple(range(1, len(genotype.activations)))
    return recurrent_loose_ends(genotype)
