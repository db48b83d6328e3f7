"""The macro search space of ENAS: a chain of layers with operations and skips.

Pham et al. (2018), section 2.3, with the decisions in the order of the official code.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnas import genotypes
from jaxnas._checks import check_integer
from jaxnas.spaces import _base
from jaxnas.types import Arch


@dataclasses.dataclass(frozen=True)
class MacroSpace(_base.Space):
    """A chain of `num_layers` layers, each with an operation and a set of skips.

    Layer k (from 0) takes 1 + k decisions: its operation, then for each of the sources
    0 to k-1 whether it is joined. Source 0 is the stem and source i the output of
    layer i-1; source k is the layer's own input. A vector lists the layers in order.
    No two vectors are the same network.

    Attributes:
      num_layers: layers of the network.
      ops: operations to choose from, names of `genotypes.MACRO_OPS`; their order gives
        each its number.
    """

    num_layers: int
    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        check_integer("num_layers", self.num_layers)
        _base.check_choices("ops", self.ops, genotypes.MACRO_OPS, "operations")

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision, `1 + k` of them for layer k."""
        layers = [(len(self.ops), *[2] * k) for k in range(self.num_layers)]
        return tuple(size for layer in layers for size in layer)

    def decode(self, arch: Any) -> genotypes.MacroGenotype:
        """Turn an architecture vector into a genotype.

        Args:
          arch: `num_decisions` integers: a list, a NumPy or a JAX array.

        Returns:
          The genotype.

        Raises:
          ValueError: naming the decision that is out of range or no integer.
        """
        starts = [_start(k) for k in range(1, self.num_layers)]
        layers = [part.tolist() for part in np.split(self.check(arch), starts)]
        return genotypes.MacroGenotype(
            ops=tuple(self.ops[op] for op, *_ in layers),
            skips=tuple(
                tuple(source for source, joined in enumerate(bits) if joined)
                for _, *bits in layers
            ),
        )

    def encode(self, genotype: genotypes.MacroGenotype) -> Arch:
        """Turn a genotype of this space into its architecture vector.

        Args:
          genotype: `num_layers` layers over `ops`.

        Returns:
          int32 `[num_decisions]`, which `decode` turns back into the genotype.

        Raises:
          ValueError: if the genotype is not in the space, naming the place.
        """
        genotype = genotypes.check_macro(genotype)
        if len(genotype.ops) != self.num_layers:
            raise ValueError(
                f"found {len(genotype.ops)} layers; expected {self.num_layers}"
            )
        arch: list[int] = []
        for k, (op, skips) in enumerate(zip(*genotype, strict=True)):
            if op not in self.ops:
                raise ValueError(
                    f"layer {k}: {op} is not in the space; expected one of "
                    f"{', '.join(self.ops)}"
                )
            arch += [self.ops.index(op), *(int(i in skips) for i in range(k))]
        return jnp.asarray(arch, jnp.int32)

    @property
    def _whole(self) -> str:
        return f"{self.num_layers} layers"

    def _place(self, decision: int) -> str:
        # The layer whose decisions start at the nearest triangular number below.
        layer = (math.isqrt(8 * decision + 1) - 1) // 2
        bit = decision - _start(layer) - 1
        if bit < 0:
            return f"layer {layer}, op"
        return f"layer {layer}, skip from {f'layer {bit - 1}' if bit else 'the stem'}"


def _start(layer: int) -> int:
    return layer * (layer + 1) // 2


def enas_macro(num_layers: int = 12) -> MacroSpace:
    """Make the macro search space of ENAS.

    With twelve layers it has 78 decisions and about 1.6e29 architectures.

    Args:
      num_layers: layers of the network.

    Returns:
      The space over dense and separable convolutions 3x3 and 5x5 and average and
      maximum pooling 3x3, numbered as in the official code.

    Raises:
      ValueError: if `num_layers` is less than 1.
    """
    return MacroSpace(num_layers, genotypes.MACRO_OPS)
