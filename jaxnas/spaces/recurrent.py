"""The recurrent search spaces of ENAS and DARTS: a tree of nodes with activations.

Pham et al. (2018), section 2.1, and Liu et al. (2019), section 2.1, with the decisions
in the order of the official codes.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxnas import genotypes
from jaxnas._checks import check_integer
from jaxnas.spaces import _base
from jaxnas.types import Arch


@dataclasses.dataclass(frozen=True)
class RecurrentSpace(_base.Space):
    """A recurrent cell of `num_nodes` nodes.

    Node 0 takes one decision, its activation, unless the space fixes it. Every later
    node j takes two: which of the nodes 0 to j-1 it reads, then its activation. A
    vector lists the nodes in order.

    Attributes:
      num_nodes: nodes of the cell, at least two if node 0 takes no decision.
      activations: activations to choose from, names of `genotypes.ACTIVATIONS`; their
        order gives each its number.
      first_activation: activation of node 0, any name of `genotypes.ACTIVATIONS`;
        `None` makes it a decision.
      averaged: nodes whose mean is the new state; see `genotypes.RecurrentGenotype`.
    """

    num_nodes: int
    activations: tuple[str, ...]
    first_activation: str | None = None
    averaged: genotypes.Averaged = "loose_ends"

    def __post_init__(self) -> None:
        least = 1 if self.chooses_first else 2
        check_integer("num_nodes", self.num_nodes, least=least)
        _base.check_choices(
            "activations", self.activations, genotypes.ACTIVATIONS, "activations"
        )
        if self.first_activation not in (None, *genotypes.ACTIVATIONS):
            raise ValueError(
                f"first_activation is {self.first_activation!r}; expected None or one "
                f"of {', '.join(genotypes.ACTIVATIONS)}"
            )
        # Any cell tells whether its nodes can be averaged so.
        genotypes.check_recurrent(self.decode([0] * len(self.cardinalities)))

    @property
    def chooses_first(self) -> bool:
        """Whether the activation of node 0 is a decision."""
        return self.first_activation is None

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision, `2 * num_nodes - 1` of them.

        Without that of node 0 they are `2 * num_nodes - 2`.
        """
        size = len(self.activations)
        later = [n for j in range(1, self.num_nodes) for n in (j, size)]
        return (size, *later) if self.chooses_first else tuple(later)

    def decode(self, arch: Any) -> genotypes.RecurrentGenotype:
        """Turn an architecture vector into a genotype.

        Args:
          arch: one integer for each decision: a list, a NumPy or a JAX array.

        Returns:
          The genotype.

        Raises:
          ValueError: naming the decision that is out of range or no integer.
        """
        later = self.check(arch).tolist()
        first = self.first_activation or self.activations[later.pop(0)]
        return genotypes.RecurrentGenotype(
            activations=(first, *(self.activations[i] for i in later[1::2])),
            sources=tuple(later[::2]),
            averaged=self.averaged,
        )

    def encode(self, genotype: genotypes.RecurrentGenotype) -> Arch:
        """Turn a genotype of this space into its architecture vector.

        Args:
          genotype: `num_nodes` nodes over `activations`, with the first activation and
            the averaged nodes of the space.

        Returns:
          int32 `[num_decisions]`, which `decode` turns back into the genotype.

        Raises:
          ValueError: if the genotype is not in the space, naming the place.
        """
        activations, sources, averaged = genotypes.check_recurrent(genotype)
        if len(activations) != self.num_nodes:
            raise ValueError(
                f"found {len(activations)} nodes; expected {self.num_nodes}"
            )
        if averaged != self.averaged:
            raise ValueError(f"averaged is {averaged!r}; expected {self.averaged!r}")
        first = self.first_activation
        for node, activation in enumerate(activations):
            known = (first,) if first and node == 0 else self.activations
            if activation not in known:
                raise ValueError(
                    f"node {node}: {activation} is not in the space; expected one of "
                    f"{', '.join(known)}"
                )
        numbers = map(self.activations.index, activations[1:])
        pairs = zip(sources, numbers, strict=True)
        later = [choice for pair in pairs for choice in pair]
        arch = later if first else [self.activations.index(activations[0]), *later]
        return jnp.asarray(arch, jnp.int32)

    @property
    def _whole(self) -> str:
        return f"{self.num_nodes} nodes"

    def _place(self, decision: int) -> str:
        node, choice = divmod(decision + (1 if self.chooses_first else 2), 2)
        return f"node {node}, {('source', 'activation')[choice]}"


def enas_recurrent(num_nodes: int = 12) -> RecurrentSpace:
    """Make the recurrent search space of ENAS.

    With twelve nodes it has 23 decisions and about 6.7e14 architectures.

    Args:
      num_nodes: nodes of the cell.

    Returns:
      The space over tanh, ReLU, identity and sigmoid, numbered in this order as in
      the official PTB scripts.

    Raises:
      ValueError: if `num_nodes` is less than 1.
    """
    return RecurrentSpace(num_nodes, genotypes.ACTIVATIONS)


def darts_recurrent(num_later_nodes: int = 8) -> RecurrentSpace:
    """Make the recurrent search space of DARTS and of the corrected code of ENAS.

    With eight later nodes it has 16 decisions and 2,642,411,520 architectures.

    Args:
      num_later_nodes: nodes of the cell without node 0, which has tanh. DARTS and the
        published cell of ENAS have 8, the search of `enas_lm` by default 9.

    Returns:
      The space over tanh, ReLU, sigmoid and identity, whose cells average all nodes but
      node 0. Its vectors are the integers of `genotypes.to_enas_lm`.

    Raises:
      ValueError: if `num_later_nodes` is less than 1.

    Source: Liu et al. 2019, section 3.1.2; `enas_lm` of google-research.
    """
    check_integer("num_later_nodes", num_later_nodes)
    return RecurrentSpace(
        1 + num_later_nodes, genotypes.ENAS_LM_ACTIVATIONS, "tanh", "later_nodes"
    )
