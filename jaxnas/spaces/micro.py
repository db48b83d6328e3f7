"""The micro search space of ENAS: two cells, each choosing inputs and operations.

Pham et al. (2018), section 2.4, with the decisions in the order of the official
code of ASNG-NAS (Akimoto et al. 2019).
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxnas import genotypes
from jaxnas._checks import check_integer
from jaxnas.spaces import _base
from jaxnas.types import Arch

_CELLS = ("normal cell", "reduction cell")
_CHOICES = ("input_1", "input_2", "op_1", "op_2")


@dataclasses.dataclass(frozen=True)
class MicroSpace(_base.Space):
    """A normal and a reduction cell of `num_nodes` nodes with two edges each.

    Every node takes four decisions: input_1, input_2, op_1 and op_2. Node n (from
    0) has n + 2 inputs to choose from: the outputs of the cells k-2 and k-1, then
    the earlier nodes. A vector lists the nodes of the normal cell, then those of the
    reduction cell. The output of a cell joins its loose ends.

    Attributes:
      num_nodes: intermediate nodes of a cell.
      ops: operations to choose from, names of `genotypes.OPS`; their order gives
        each its number.
    """

    num_nodes: int
    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        check_integer("num_nodes", self.num_nodes)
        _base.check_choices("ops", self.ops, genotypes.OPS, "operations")

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision, `8 * num_nodes` of them."""
        ops = len(self.ops)
        cell = [(n + 2, n + 2, ops, ops) for n in range(self.num_nodes)]
        return tuple(size for node in cell * len(_CELLS) for size in node)

    def decode(self, arch: Any) -> genotypes.Genotype:
        """Turn an architecture vector into a genotype.

        Args:
          arch: `8 * num_nodes` integers: a list, a NumPy or a JAX array.

        Returns:
          The genotype; its concats are the loose ends.

        Raises:
          ValueError: naming the decision that is out of range or no integer.
        """
        cells = self.check(arch).reshape(len(_CELLS), self.num_nodes, 4).tolist()
        normal, reduce = (
            tuple(
                (self.ops[op], source)
                for input_1, input_2, op_1, op_2 in cell
                for op, source in ((op_1, input_1), (op_2, input_2))
            )
            for cell in cells
        )
        return genotypes.Genotype(
            normal=normal,
            normal_concat=genotypes.loose_ends(normal),
            reduce=reduce,
            reduce_concat=genotypes.loose_ends(reduce),
        )

    def encode(self, genotype: genotypes.Genotype) -> Arch:
        """Turn a genotype of this space into its architecture vector.

        Args:
          genotype: cells of `num_nodes` nodes over `ops`, whose concats are the
            loose ends in ascending order.

        Returns:
          int32 `[8 * num_nodes]`, which `decode` turns back into the genotype.

        Raises:
          ValueError: if the genotype is not in the space, naming the place.
        """
        normal, normal_concat, reduce, reduce_concat = genotypes.check_cells(genotype)
        cells = ((normal, normal_concat), (reduce, reduce_concat))
        arch: list[int] = []
        for place, (pairs, concat) in zip(_CELLS, cells, strict=True):
            arch += self._encode_cell(pairs, concat, place)
        return jnp.asarray(arch, jnp.int32)

    def _encode_cell(
        self, pairs: tuple[genotypes.Edge, ...], concat: tuple[int, ...], place: str
    ) -> list[int]:
        if len(pairs) != 2 * self.num_nodes:
            raise ValueError(
                f"{place}: found {len(pairs) // 2} nodes; expected {self.num_nodes}"
            )
        for i, (op, _) in enumerate(pairs):
            if op not in self.ops:
                raise ValueError(
                    f"{place}, {genotypes.edge_name(i)}: {op} is not in the space; "
                    f"expected one of {', '.join(self.ops)}"
                )
        if concat != genotypes.loose_ends(pairs):
            raise ValueError(
                f"{place}, concat: found {list(concat)}; expected the loose ends "
                f"{list(genotypes.loose_ends(pairs))}"
            )
        arch: list[int] = []
        for first, second in zip(pairs[::2], pairs[1::2], strict=True):
            (op_1, input_1), (op_2, input_2) = first, second
            arch += [input_1, input_2, self.ops.index(op_1), self.ops.index(op_2)]
        return arch

    @property
    def _whole(self) -> str:
        return f"cells of {self.num_nodes} nodes"

    def _place(self, decision: int) -> str:
        cell, rest = divmod(decision, 4 * self.num_nodes)
        node, choice = divmod(rest, 4)
        return f"{_CELLS[cell]}, node {node}, {_CHOICES[choice]}"


def enas_micro(num_nodes: int = 5) -> MicroSpace:
    """Make the micro search space of ENAS.

    With five nodes it has 40 decisions, whose cardinalities add up to 180.

    Args:
      num_nodes: intermediate nodes of a cell.

    Returns:
      The space over identity, average and maximum pooling 3x3 and separable
      convolutions 3x3 and 5x5, numbered in this order as in ASNG-NAS.

    Raises:
      ValueError: if `num_nodes` is less than 1.
    """
    ops = (
        "skip_connect",
        "avg_pool_3x3",
        "max_pool_3x3",
        "sep_conv_3x3",
        "sep_conv_5x5",
    )
    return MicroSpace(num_nodes, ops)
