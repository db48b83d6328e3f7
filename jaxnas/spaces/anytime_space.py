"""The anytime search space of Graph HyperNetworks: three random blocks with exits.

Zhang et al. (2019), section on anytime prediction and appendix. Nodes 0 and 1 of a
block are the outputs of the two blocks before it.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import genotypes
from jaxnas._checks import check_integer
from jaxnas.spaces import _base
from jaxnas.types import Arch, Key

_BLOCKS = genotypes.ANYTIME_BLOCKS
# Decisions of a node before those on its edges.
_OP, _SCALE, _EXIT, _EDGES = range(4)


@dataclasses.dataclass(frozen=True)
class AnytimeSpace(_base.Space):
    """Three blocks of nodes with an operation, a scale, exits and any earlier inputs.

    Node n of a block, from 2 on, takes 3 + n decisions: its operation; its scale, less
    the block's number, for block b has the scales b to 2; whether it has an exit; then
    for each of the nodes 0 to n-1 whether it is read. At least one is. A vector lists
    the blocks, and in a block the nodes, in order. It has room for `num_nodes`: those
    that a smaller block lacks are the last ones, and all their decisions are 0.

    A block has a fixed number of exits. They are at scale 2, and the last node of a
    block is one of them. The paper fixes their number too, but does not tell which
    nodes may exit; in the best network it shows, all exits are at this scale.

    Attributes:
      num_nodes: most nodes of each block, its two inputs not counted.
      min_nodes: fewest nodes of each block.
      num_exits: exits of each block.
      density: probability with which `sample` joins a node to each earlier one.
      ops: operations to choose from, names of `genotypes.ANYTIME_OPS`; their order
        gives each its number.
    """

    num_nodes: tuple[int, ...]
    min_nodes: tuple[int, ...]
    num_exits: tuple[int, ...]
    density: float
    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("num_nodes", "min_nodes", "num_exits"):
            sizes = getattr(self, name)
            if len(sizes) != _BLOCKS:
                raise ValueError(
                    f"{name} is {sizes}; expected {_BLOCKS} numbers, one for each block"
                )
        sizes = zip(self.num_exits, self.min_nodes, self.num_nodes, strict=True)
        for block, (exits, fewest, most) in enumerate(sizes):
            place = f"of block {block}"
            check_integer(f"num_exits {place}", exits)
            check_integer(f"min_nodes {place}", fewest, least=exits)
            check_integer(f"num_nodes {place}", most, least=fewest)
        _base.check_density(self.density)
        _base.check_choices("ops", self.ops, genotypes.ANYTIME_OPS, "operations")

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision, `3 + n` of them for node n."""
        return tuple(
            size
            for block, num in enumerate(self.num_nodes)
            for node in range(2, 2 + num)
            for size in (len(self.ops), _BLOCKS - block, 2, *[2] * node)
        )

    @property
    def num_architectures(self) -> int:
        """Number of distinct networks, isomorphic ones counted apart.

        It is less than the product of the cardinalities, for that includes vectors
        without inputs or with other exits.
        """

        def count(block: int, num: int) -> int:
            exits = self.num_exits[block]
            choices = len(self.ops) ** num * math.comb(num - 1, exits - 1)
            scales = (_BLOCKS - block) ** (num - exits)
            return choices * scales * math.prod(2**n - 1 for n in range(2, 2 + num))

        sizes = zip(self.min_nodes, self.num_nodes, strict=True)
        return math.prod(
            sum(count(block, num) for num in range(fewest, most + 1))
            for block, (fewest, most) in enumerate(sizes)
        )

    def sample(self, key: Key) -> Arch:
        """Draw one network at random; works inside `jax.jit`.

        The number of nodes of each block is uniform, and so are operations, scales and
        the nodes with an exit. A node reads each earlier one with probability
        `density`, or one of them drawn uniformly where that leaves it without any.

        Args:
          key: random key, consumed.

        Returns:
          int32 `[num_decisions]`.
        """
        choice_key, edge_key = jax.random.split(key)
        choices = [self._sizes(block) for block in range(_BLOCKS)]
        sizes = np.concatenate([size.ravel() for size in choices])
        drawn = jax.random.randint(choice_key, sizes.shape, 0, sizes, jnp.int32)
        ends = np.cumsum([size.size for size in choices])
        integers = jnp.split(drawn, ends[:-1])
        # The order in which nodes get exits, then their edges.
        widths = [num * (num + 2) for num in self.num_nodes]
        drawn = jax.random.uniform(edge_key, (sum(widths),), jnp.float32)
        reals = jnp.split(drawn, np.cumsum(widths)[:-1])
        return jnp.concatenate(
            [
                self._sample_block(block, integers[block], reals[block])
                for block in range(_BLOCKS)
            ]
        )

    def _sizes(self, block: int) -> np.ndarray:
        """Numbers of choices, `[4, num_nodes]`, of which the first row's first counts.

        They are those of the number of nodes, each operation, each scale, and what a
        node reads if it would read nothing.
        """
        num = self.num_nodes[block]
        choices = num - self.min_nodes[block] + 1, len(self.ops), _BLOCKS - block
        sizes = [np.full(num, size) for size in choices]
        return np.stack([*sizes, np.arange(2, 2 + num)]).astype(np.int32)

    def _sample_block(
        self, block: int, integers: jax.Array, reals: jax.Array
    ) -> jax.Array:
        num = self.num_nodes[block]
        (extra, *_), ops, scales, spares = integers.reshape(4, num)
        last = self.min_nodes[block] + extra - 1
        rows = jnp.arange(num, dtype=jnp.int32)
        order, drawn = reals[:num], reals[num:].reshape(num, num + 1)
        # The last node comes first, absent nodes come last.
        order = jnp.where(rows == last, -1.0, jnp.where(rows < last, order, 2.0))
        exits = jnp.argsort(jnp.argsort(order)) < self.num_exits[block]
        scales = jnp.where(exits, _BLOCKS - 1 - block, scales)
        sources = jnp.arange(num + 1, dtype=jnp.int32)
        joined = drawn < float(self.density)
        joined &= sources[None] < rows[:, None] + 2
        spare = sources[None] == spares[:, None]
        joined |= spare & ~joined.any(axis=1, keepdims=True)
        decisions = [ops[:, None], scales[:, None], exits[:, None], joined]
        table = jnp.concatenate([part.astype(jnp.int32) for part in decisions], axis=1)
        present = rows[:, None] <= last
        return jnp.where(present, table, 0)[_rows_and_columns(num)]

    def check(self, arch: Any) -> np.ndarray:
        """Check an architecture vector.

        Args:
          arch: `num_decisions` integers: a list, a NumPy or a JAX array.

        Returns:
          The same integers, a NumPy int32 array.

        Raises:
          ValueError: naming the decision that is out of range or no integer, or the
            block and node at fault.
        """
        values = super().check(arch)
        self._check_limits(self._genotype(values))
        return values

    def decode(self, arch: Any) -> genotypes.AnytimeGenotype:
        """Turn an architecture vector into a genotype.

        Args:
          arch: `num_decisions` integers: a list, a NumPy or a JAX array.

        Returns:
          The genotype, without the absent nodes.

        Raises:
          ValueError: as `check` does.
        """
        return self._genotype(self.check(arch))

    def _genotype(self, values: np.ndarray) -> genotypes.AnytimeGenotype:
        blocks = []
        for block, num in enumerate(self.num_nodes):
            table = np.zeros((num, num + 4), np.int32)
            table[_rows_and_columns(num)] = values[self._decisions(block)]
            present = np.flatnonzero(table[:, _EDGES:].any(axis=1))
            size = int(present[-1]) + 1 if present.size else 0
            if table[size:].any():
                raise ValueError(
                    f"block {block}: node {2 + size} or one after it reads no node; "
                    "expected all its decisions to be 0"
                )
            ops, scales, exits = table[:size, :_EDGES].T
            blocks.append(
                (
                    [self.ops[op] for op in ops],
                    [np.flatnonzero(row).tolist() for row in table[:size, _EDGES:]],
                    (scales + block).tolist(),
                    (np.flatnonzero(exits) + 2).tolist(),
                )
            )
        genotype = genotypes.AnytimeGenotype(*zip(*blocks, strict=True))
        return genotypes.check_anytime(genotype)

    def _check_limits(self, genotype: genotypes.AnytimeGenotype) -> None:
        for block in range(_BLOCKS):
            num, exits = len(genotype.ops[block]), genotype.exits[block]
            fewest, most = self.min_nodes[block], self.num_nodes[block]
            if not fewest <= num <= most:
                raise ValueError(
                    f"block {block}: found {num} nodes, inputs not counted; expected "
                    f"{fewest} to {most}"
                )
            if len(exits) != self.num_exits[block] or exits[-1] != num + 1:
                raise ValueError(
                    f"block {block}: the exits are {list(exits)}; expected "
                    f"{self.num_exits[block]}, the last at node {num + 1}"
                )
            for node in exits:
                if genotype.scales[block][node - 2] != _BLOCKS - 1:
                    raise ValueError(
                        f"block {block}, node {node}: found scale "
                        f"{genotype.scales[block][node - 2]}; expected scale "
                        f"{_BLOCKS - 1} at an exit"
                    )

    def encode(self, genotype: genotypes.AnytimeGenotype) -> Arch:
        """Turn a genotype of this space into its architecture vector.

        Args:
          genotype: blocks with `min_nodes` to `num_nodes` nodes over `ops`.

        Returns:
          int32 `[num_decisions]`, which `decode` turns back into the genotype.

        Raises:
          ValueError: if the genotype is not in the space, naming the place.
        """
        genotype = genotypes.check_anytime(genotype)
        self._check_limits(genotype)
        parts = []
        for block, lists in enumerate(zip(*genotype, strict=True)):
            ops, inputs, scales, exits = lists
            num = self.num_nodes[block]
            table = np.zeros((num, num + 4), np.int32)
            nodes = zip(ops, inputs, scales, strict=True)
            for row, (op, read, scale) in enumerate(nodes):
                if op not in self.ops:
                    raise ValueError(
                        f"block {block}, node {2 + row}: {op} is not in the space; "
                        f"expected one of {', '.join(self.ops)}"
                    )
                table[row, :_EDGES] = (
                    self.ops.index(op),
                    scale - block,
                    row + 2 in exits,
                )
                table[row, [_EDGES + source for source in read]] = 1
            parts.append(table[_rows_and_columns(num)])
        return jnp.asarray(np.concatenate(parts), jnp.int32)

    def adjacency(self, arch: Arch, block: int) -> jax.Array:
        """Find the edges of a block; works inside `jax.jit`, as all below.

        Args:
          arch: int32 `[num_decisions]`.
          block: number of the block.

        Returns:
          bool `[2 + num_nodes, 2 + num_nodes]`, at `[u, v]` whether node v reads node
          u. It is strictly upper triangular: the nodes are in topological order.
        """
        joined = self._table(arch, block)[:, _EDGES:] != 0
        return jnp.pad(joined.T, ((0, 1), (2, 0)))

    def node_ops(self, arch: Arch, block: int) -> jax.Array:
        """Number in `ops` of each node from node 2 on, int32 `[num_nodes]`."""
        return self._table(arch, block)[:, _OP]

    def node_scales(self, arch: Arch, block: int) -> jax.Array:
        """Scale of each node from node 2 on, int32 `[num_nodes]` in block..2."""
        return self._table(arch, block)[:, _SCALE] + block

    def has_exit(self, arch: Arch, block: int) -> jax.Array:
        """Whether each node from node 2 on has an exit, bool `[num_nodes]`."""
        return self._table(arch, block)[:, _EXIT] != 0

    def node_mask(self, arch: Arch, block: int) -> jax.Array:
        """Tell the nodes of a block from the room that it leaves.

        Args:
          arch: int32 `[num_decisions]`.
          block: number of the block.

        Returns:
          bool `[2 + num_nodes]`, true for nodes 0 and 1 and all that read a node.
        """
        return self.adjacency(arch, block).any(axis=0).at[:2].set(True)

    def is_leaf(self, arch: Arch, block: int) -> jax.Array:
        """Find the leaves of a block, which its output joins.

        Args:
          arch: int32 `[num_decisions]`.
          block: number of the block.

        Returns:
          bool `[2 + num_nodes]`, true for the present nodes from node 2 on that no node
          reads.
        """
        adjacency = self.adjacency(arch, block)
        return adjacency.any(axis=0) & ~adjacency.any(axis=1)

    def _table(self, arch: Arch, block: int) -> jax.Array:
        """One row of decisions for each node: op, scale, exit, edges."""
        num = self.num_nodes[block]
        table = jnp.zeros((num, num + 4), jnp.int32)
        return table.at[_rows_and_columns(num)].set(arch[self._decisions(block)])

    def _decisions(self, block: int) -> slice:
        ends = [0, *itertools.accumulate(map(_num_decisions, self.num_nodes))]
        return slice(ends[block], ends[block + 1])

    @property
    def _whole(self) -> str:
        return f"blocks of at most {self.num_nodes} nodes"

    def _place(self, decision: int) -> str:
        block = next(
            block for block in range(_BLOCKS) if decision < self._decisions(block).stop
        )
        at = decision - self._decisions(block).start
        table = np.stack(_rows_and_columns(self.num_nodes[block]), axis=1)
        row, column = table[at].tolist()
        names = {_OP: "op", _SCALE: "scale", _EXIT: "exit"}
        name = names.get(column, f"edge from node {column - _EDGES}")
        return f"block {block}, node {2 + row}, {name}"


def _num_decisions(num_nodes: int) -> int:
    return sum(3 + node for node in range(2, 2 + num_nodes))


def _rows_and_columns(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay a block's decisions out as a table with a row for each node from node 2."""
    rows, columns = np.tril_indices(num_nodes, 4, num_nodes + 4)
    return rows, columns


def anytime(
    num_nodes: tuple[int, ...] = (24, 16, 8),
    num_exits: tuple[int, ...] = (2, 4, 4),
    density: float = 0.45,
    *,
    min_nodes: tuple[int, ...] | None = None,
) -> AnytimeSpace:
    """Make the search space of Graph HyperNetworks for anytime prediction.

    The defaults are the sizes of the best network that the paper shows. It trains the
    hypernetwork on blocks of a random number of nodes up to these, which is the same
    space with a smaller `min_nodes`; the vectors of both have the same length.

    Args:
      num_nodes: most nodes of each block, its two inputs not counted.
      num_exits: exits of each block.
      density: probability with which `sample` joins a node to each earlier one.
      min_nodes: fewest nodes of each block; `num_nodes` unless given.

    Returns:
      The space over the operations `genotypes.ANYTIME_OPS`.

    Raises:
      ValueError: if there are not three numbers of each, a block has fewer nodes than
        exits, or `density` is not above 0 and at most 1.
    """
    num_nodes, num_exits = tuple(num_nodes), tuple(num_exits)
    fewest = num_nodes if min_nodes is None else tuple(min_nodes)
    return AnytimeSpace(num_nodes, fewest, num_exits, density, genotypes.ANYTIME_OPS)
