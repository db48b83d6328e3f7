"""The recurrent search space of ENAS: a tree of nodes with activations.

Pham et al. (2018), section 2.1, with the decisions in the order of the official code.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnas import genotypes
from jaxnas._checks import check_integer
from jaxnas.spaces import _base
from jaxnas.types import Arch


@dataclasses.dataclass(frozen=True)
class RecurrentSpace(_base.Space):
    """A recurrent cell of `num_nodes` nodes.

    Node 0 takes one decision, its activation. Every later node j takes two: which of
    the nodes 0 to j-1 it reads, then its activation. A vector lists the nodes in
    order. The new state is the mean of the loose ends.

    Attributes:
      num_nodes: nodes of the cell.
      activations: activations to choose from, names of `genotypes.ACTIVATIONS`; their
        order gives each its number.
    """

    num_nodes: int
    activations: tuple[str, ...]

    def __post_init__(self) -> None:
        check_integer("num_nodes", self.num_nodes)
        _base.check_choices(
            "activations", self.activations, genotypes.ACTIVATIONS, "activations"
        )

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision, `2 * num_nodes - 1` of them."""
        size = len(self.activations)
        later = [(j, size) for j in range(1, self.num_nodes)]
        return (size, *(size for node in later for size in node))

    def decode(self, arch: Any) -> genotypes.RecurrentGenotype:
        """Turn an architecture vector into a genotype.

        Args:
          arch: `2 * num_nodes - 1` integers: a list, a NumPy or a JAX array.

        Returns:
          The genotype.

        Raises:
          ValueError: naming the decision that is out of range or no integer.
        """
        decisions = self.check(arch).tolist()
        return genotypes.RecurrentGenotype(
            activations=tuple(self.activations[i] for i in decisions[::2]),
            sources=tuple(decisions[1::2]),
        )

    def encode(self, genotype: genotypes.RecurrentGenotype) -> Arch:
        """Turn a genotype of this space into its architecture vector.

        Args:
          genotype: `num_nodes` nodes over `activations`.

        Returns:
          int32 `[2 * num_nodes - 1]`, which `decode` turns back into the genotype.

        Raises:
          ValueError: if the genotype is not in the space, naming the place.
        """
        activations, sources = genotypes.check_recurrent(genotype)
        if len(activations) != self.num_nodes:
            raise ValueError(
                f"found {len(activations)} nodes; expected {self.num_nodes}"
            )
        for node, activation in enumerate(activations):
            if activation not in self.activations:
                raise ValueError(
                    f"node {node}: {activation} is not in the space; expected one of "
                    f"{', '.join(self.activations)}"
                )
        arch = np.zeros(2 * self.num_nodes - 1, np.int32)
        arch[::2] = [self.activations.index(name) for name in activations]
        arch[1::2] = sources
        return jnp.asarray(arch)

    @property
    def _whole(self) -> str:
        return f"{self.num_nodes} nodes"

    def _place(self, decision: int) -> str:
        node, choice = divmod(decision + 1, 2)
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
