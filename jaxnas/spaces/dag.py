"""The search space of Graph HyperNetworks: blocks that are random directed graphs.

Zhang et al. (2019), appendix. A network repeats one block; nodes 0 and 1 of a block are
the outputs of the two blocks before it.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import genotypes
from jaxnas._checks import check_integer
from jaxnas.spaces import _base
from jaxnas.types import Arch, Key


@dataclasses.dataclass(frozen=True)
class DagSpace(_base.Space):
    """A block of `num_nodes` nodes, each with an operation and any earlier inputs.

    Node n, from 2 on, takes 1 + n decisions: its operation, then for each of the nodes
    0 to n-1 whether it is read. At least one is. A vector lists the nodes in order and
    has room for `max_nodes` of them: those from `num_nodes` on are absent, and all
    their decisions are 0. Spaces of one `max_nodes` thus have vectors of one length,
    and a smaller block is the beginning of a larger vector.

    Attributes:
      num_nodes: nodes of a block, the two inputs included.
      max_nodes: nodes that a vector has room for, at least `num_nodes`.
      density: probability with which `sample` joins a node to each earlier one.
      ops: operations to choose from, names of `genotypes.DAG_OPS`; their order gives
        each its number.
    """

    num_nodes: int
    max_nodes: int
    density: float
    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        check_integer("num_nodes", self.num_nodes, least=3)
        check_integer("max_nodes", self.max_nodes, least=self.num_nodes)
        _base.check_density(self.density)
        _base.check_choices("ops", self.ops, genotypes.DAG_OPS, "operations")

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision, `1 + n` of them for node n.

        Those of an absent node have one category.
        """
        nodes = [
            (len(self.ops), *[2] * node) if node < self.num_nodes else [1] * (1 + node)
            for node in range(2, self.max_nodes)
        ]
        return tuple(size for node in nodes for size in node)

    @property
    def num_architectures(self) -> int:
        """Number of distinct blocks, isomorphic ones counted apart.

        It is less than the product of the cardinalities, for that includes vectors in
        which a node reads nothing.
        """
        nodes = range(2, self.num_nodes)
        return math.prod(len(self.ops) * (2**node - 1) for node in nodes)

    def sample(self, key: Key) -> Arch:
        """Draw one block at random; works inside `jax.jit`.

        Operations are uniform. A node reads each earlier one with probability
        `density`, or one of them drawn uniformly where that leaves it without any. The
        paper does not give its distribution; a density of 0.3 is that of the best
        block it shows.

        Args:
          key: random key, consumed.

        Returns:
          int32 `[num_decisions]`, which begins with the block that the space of
          `max_nodes = num_nodes` draws from the same key.
        """
        choice_key, edge_key = jax.random.split(key)
        nodes = jnp.arange(2, self.num_nodes, dtype=jnp.int32)
        sources = jnp.arange(self.num_nodes - 1, dtype=jnp.int32)
        # The operation of each node, and what it reads if it would read nothing.
        sizes = jnp.stack([jnp.full_like(nodes, len(self.ops)), nodes])
        ops, spares = jax.random.randint(choice_key, sizes.shape, 0, sizes, jnp.int32)
        shape = (nodes.size, sources.size)
        drawn = jax.random.uniform(edge_key, shape, jnp.float32)
        joined = drawn < float(self.density)
        joined &= sources[None] < nodes[:, None]
        spare = sources[None] == spares[:, None]
        joined |= spare & ~joined.any(axis=1, keepdims=True)
        table = jnp.concatenate([ops[:, None], joined.astype(jnp.int32)], axis=1)
        arch = table[_rows_and_columns(self.num_nodes)]
        return jnp.pad(arch, (0, _start(self.max_nodes) - arch.size))

    def check(self, arch: Any) -> np.ndarray:
        """Check an architecture vector.

        Args:
          arch: `num_decisions` integers: a list, a NumPy or a JAX array.

        Returns:
          The same integers, a NumPy int32 array.

        Raises:
          ValueError: naming the decision that is out of range or no integer, or the
            decisions that leave a node without inputs.
        """
        values = super().check(arch)
        for node in range(2, self.num_nodes):
            first, last = _start(node) + 1, _start(node + 1) - 1
            if not values[first : last + 1].any():
                raise ValueError(
                    f"decisions {first} to {last} (node {node}, edges) are all 0; "
                    "expected an edge from at least one earlier node"
                )
        return values

    def decode(self, arch: Any) -> genotypes.DagGenotype:
        """Turn an architecture vector into a genotype.

        Args:
          arch: `num_decisions` integers: a list, a NumPy or a JAX array.

        Returns:
          The genotype, without the absent nodes.

        Raises:
          ValueError: as `check` does.
        """
        starts = [_start(node) for node in range(3, self.num_nodes + 1)]
        parts = [part.tolist() for part in np.split(self.check(arch), starts)]
        nodes = parts[: self.num_nodes - 2]
        return genotypes.DagGenotype(
            ops=tuple(self.ops[op] for op, *_ in nodes),
            inputs=tuple(
                tuple(source for source, joined in enumerate(bits) if joined)
                for _, *bits in nodes
            ),
        )

    def encode(self, genotype: genotypes.DagGenotype) -> Arch:
        """Turn a genotype of this space into its architecture vector.

        Args:
          genotype: a block of exactly `num_nodes` nodes over `ops`.

        Returns:
          int32 `[num_decisions]`, which `decode` turns back into the genotype.

        Raises:
          ValueError: if the genotype is not in the space, naming the place.
        """
        ops, inputs = genotypes.check_dag(genotype)
        if 2 + len(ops) != self.num_nodes:
            raise ValueError(
                f"found {2 + len(ops)} nodes, the two inputs included; expected "
                f"{self.num_nodes}"
            )
        arch: list[int] = []
        for node, (op, read) in enumerate(zip(ops, inputs, strict=True), start=2):
            if op not in self.ops:
                raise ValueError(
                    f"node {node}: {op} is not in the space; expected one of "
                    f"{', '.join(self.ops)}"
                )
            arch += [self.ops.index(op), *(int(i in read) for i in range(node))]
        arch += [0] * (_start(self.max_nodes) - len(arch))
        return jnp.asarray(arch, jnp.int32)

    def adjacency(self, arch: Arch) -> jax.Array:
        """Find the edges of a block; works inside `jax.jit`, as all below.

        Args:
          arch: int32 `[num_decisions]`, of this space or a smaller one of the same
            `max_nodes`.

        Returns:
          bool `[max_nodes, max_nodes]`, at `[u, v]` whether node v reads node u. It is
          strictly upper triangular: the nodes are in topological order.
        """
        rows, columns = _rows_and_columns(self.max_nodes)
        at = np.flatnonzero(columns)
        matrix = jnp.zeros((self.max_nodes, self.max_nodes), bool)
        return matrix.at[columns[at] - 1, rows[at] + 2].set(arch[at] != 0)

    def node_ops(self, arch: Arch) -> jax.Array:
        """Find the operation of each node.

        Args:
          arch: int32 `[num_decisions]`, as for `adjacency`.

        Returns:
          int32 `[max_nodes - 2]`, for the nodes from node 2 on its number in `ops`; 0
          for absent nodes.
        """
        _, columns = _rows_and_columns(self.max_nodes)
        return arch[np.flatnonzero(columns == 0)]

    def node_mask(self, arch: Arch) -> jax.Array:
        """Tell the nodes of a block from the room that it leaves.

        What counts is the vector and not `num_nodes`, so that what is written for a
        large space serves the blocks of a smaller one too.

        Args:
          arch: int32 `[num_decisions]`, as for `adjacency`.

        Returns:
          bool `[max_nodes]`, true for nodes 0 and 1 and all that read a node.
        """
        return self.adjacency(arch).any(axis=0).at[:2].set(True)

    def is_leaf(self, arch: Arch) -> jax.Array:
        """Find the leaves of a block, which its output joins.

        Args:
          arch: int32 `[num_decisions]`, as for `adjacency`.

        Returns:
          bool `[max_nodes]`, true for the present nodes from node 2 on that no node
          reads. Nodes 0 and 1 are never leaves, not even when nobody reads them.
        """
        adjacency = self.adjacency(arch)
        return adjacency.any(axis=0) & ~adjacency.any(axis=1)

    @property
    def _whole(self) -> str:
        return f"a block of at most {self.max_nodes} nodes"

    def _place(self, decision: int) -> str:
        starts = [_start(node) for node in range(2, self.max_nodes)]
        row = int(np.searchsorted(starts, decision, side="right")) - 1
        node, edge = row + 2, decision - starts[row] - 1
        name = f"node {node}" if node < self.num_nodes else f"absent node {node}"
        return f"{name}, op" if edge < 0 else f"{name}, edge from node {edge}"


def _start(node: int) -> int:
    """Position of a node's first decision: node n before it takes 1 + n."""
    return (node - 2) * (node + 3) // 2


def _rows_and_columns(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay a vector out as a table with a row for each node from node 2 on.

    Column 0 is the operation and column 1 + u the edge from node u.
    """
    rows, columns = np.tril_indices(num_nodes - 2, 2, num_nodes)
    return rows, columns


def ghn_dag(
    num_nodes: int = 17,
    *,
    max_nodes: int | None = None,
    density: float = 0.3,
    ops: Sequence[str] = genotypes.DAG_OPS,
) -> DagSpace:
    """Make the search space of Graph HyperNetworks for image classification.

    The paper trains the hypernetwork on blocks of 7 nodes and searches among blocks of
    17, which take 150 decisions; both counts include the two inputs.

    Args:
      num_nodes: nodes of a block, the two inputs included.
      max_nodes: nodes that a vector has room for; `num_nodes` unless given.
      density: probability with which `sample` joins a node to each earlier one.
      ops: operations to choose from, some of `genotypes.DAG_OPS`.

    Returns:
      The space.

    Raises:
      ValueError: if `num_nodes` is less than 3 or more than `max_nodes`, `density` is
        not above 0 and at most 1, or an operation is unknown or named twice.
    """
    if max_nodes is None:
        max_nodes = num_nodes
    return DagSpace(num_nodes, max_nodes, density, tuple(ops))
