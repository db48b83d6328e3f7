"""The one primitive under every supernet: evaluate a traced list of edges.

A cell, a macro network, a block of a hypernetwork and a recurrent cell are the same
thing: states in a buffer of fixed size, and edges that each read one state, apply one
operation with one row of weights, and add the result to another state. Which state,
which operation and which row are data, so that one compiled program serves every
architecture.

Derivatives are written by hand. Differentiating the loop would keep a copy of the
whole buffer for each edge; walking the edges backwards and recomputing each operation
needs the final buffer only.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.ops.layers import Chain
from jaxnas.supernets._platforms import by_platform
from jaxnas.types import Weights

EdgeOp = Callable[[jax.Array, Weights], jax.Array]


class Edges(NamedTuple):
    """A list of edges, int32 `[max_edges]` each, of which the first `num_edges` exist.

    Attributes:
      source: index of the state an edge reads.
      target: index of the state it adds to.
      op: index of its operation.
      row: index of its row of weights.
      num_edges: int32 scalar.
    """

    source: jax.Array
    target: jax.Array
    op: jax.Array
    row: jax.Array
    num_edges: jax.Array

    @property
    def exists(self) -> jax.Array:
        """Whether each edge exists, bool `[max_edges]`."""
        return jnp.arange(self.op.size, dtype=jnp.int32) < self.num_edges

    def after(self, num: int) -> "Edges":
        """The list without its first edges."""
        source, target, op, row = (column[num:] for column in self[:-1])
        return Edges(source, target, op, row, self.num_edges - num)


class EdgeGroup(NamedTuple):
    """Consecutive edges, none of which reads a state that another one adds to.

    Attributes:
      num_edges: how many.
      first_target: the first state that they may add to.
      num_targets: states from there on that they may add to.
    """

    num_edges: int
    first_target: int
    num_targets: int = 1


class LayeredOps(NamedTuple):
    """Operations as chains of layers, and the edges that have them.

    Attributes:
      chains: of each operation; its result is their sum.
      groups: of the edges, in order.
      stride: of all operations.
      batch_axis: mapped axis over which the batch is sharded, if it is.
      epsilon: of the normalizations.
    """

    chains: tuple[tuple[Chain, ...], ...]
    groups: tuple[EdgeGroup, ...]
    stride: int = 1
    batch_axis: str | None = None
    epsilon: float = 1e-5

    @property
    def num_layers(self) -> int:
        """Layers of the longest chain."""
        return max((len(c) for chains in self.chains for c in chains), default=0)

    @property
    def chains_per_edge(self) -> int:
        """Chains of the operation that has the most."""
        return max(1, *(len(chains) for chains in self.chains))


def _read(buffer: jax.Array, index: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(buffer, index, 0, keepdims=False)


def _add(buffer: jax.Array, index: jax.Array, value: jax.Array) -> jax.Array:
    # A read and an in-place write: a scatter costs far more on CPU.
    return lax.dynamic_update_index_in_dim(
        buffer, _read(buffer, index) + value, index, 0
    )


def _rows(weights: Weights, index: jax.Array) -> Weights:
    return jax.tree.map(lambda leaf: _read(leaf, index), weights)


def select(edges: Edges, chosen: jax.Array) -> Edges:
    """Keep the chosen edges of a list, in their order.

    Args:
      edges: the list; its `num_edges` is ignored.
      chosen: bool `[max_edges]`.

    Returns:
      A list of the same length, the chosen edges first.
    """
    order = jnp.argsort(~chosen, stable=True)
    source, target, op, row = (leaf[order] for leaf in edges[:-1])
    return Edges(source, target, op, row, chosen.sum(dtype=jnp.int32))


def used_rows(edges: Edges, num_ops: int, num_rows: int) -> tuple[jax.Array, jax.Array]:
    """Find the rows of weights that edges use, for each operation.

    Args:
      edges: the list.
      num_ops: number of operations.
      num_rows: number of rows, of the operation that has the most.

    Returns:
      bool `[num_ops, num_rows]`, whether an edge that exists has the operation and the
      row; int32 `[num_ops, num_rows]`, number of the first such edge, 0 if there is
      none.
    """
    has_op = jax.nn.one_hot(edges.op, num_ops, dtype=bool) & edges.exists[:, None]
    has_row = jax.nn.one_hot(edges.row, num_rows, dtype=bool)
    uses = has_op[:, :, None] & has_row[:, None]
    return uses.any(0), uses.argmax(0).astype(jnp.int32)


def evaluate(
    ops: Sequence[EdgeOp],
    states: jax.Array,
    weights: Weights,
    edges: Edges,
    sources: jax.Array | None = None,
    *,
    chosen: jax.Array | None = None,
    layered: LayeredOps | None = None,
) -> jax.Array:
    """Run all edges in order.

    Each does `states[target] += ops[op](states[source], weights[row])`.

    Args:
      ops: the operations, `(x, weights of one row) -> y`. An operation ignores the
        leaves that are not its own.
      states: `[num_states, ...]`; the initial values, zeros for a state that only
        edges write. A state must be complete before an edge reads it.
      weights: pytree of arrays with a leading axis over rows. Leaves may have unequal
        numbers of rows, as long as an edge's row exists in the leaves its operation
        uses.
      edges: which edges exist. Indices must be in range: they are not checked, since
        they are traced.
      sources: where edges read from, `[num_sources, ...]`, if not from `states`;
        its elements may have another shape (edges of stride 2).
      chosen: bool `[max_edges]`; only these edges run, and `edges.num_edges` is
        ignored.
      layered: the same operations as chains of layers, of states `[B, H, W, C]`.
        Programs for NVIDIA GPUs then run many edges in one kernel, and under `jax.vmap`
        those of all architectures.

    Returns:
      The final states, of the shape of `states`.
    """
    run = functools.partial(_forward, ops, layered)

    def forward(states, sources, weights, edges, chosen):
        final = run(states, sources, weights, edges, chosen)
        inputs = final if sources is None else sources
        return final, (inputs, weights, edges, chosen)

    def backward(residuals, gradient):
        gradients = _backward(ops, layered, sources is not None, residuals, gradient)
        return *gradients, None, None

    evaluate_edges = jax.custom_vjp(run)
    evaluate_edges.defvjp(forward, backward)
    return evaluate_edges(states, sources, weights, edges, chosen)


def _forward(ops, layered, states, sources, weights, edges, chosen):
    def by_loop(states, sources, weights, edges, chosen):
        if chosen is not None:
            edges = select(edges, chosen)

        def add_edge(e, states):
            x = _read(states if sources is None else sources, edges.source[e])
            y = lax.switch(edges.op[e], ops, x, _rows(weights, edges.row[e]))
            return _add(states, edges.target[e], y)

        return lax.fori_loop(0, edges.num_edges, add_edge, states)

    def by_kernels(states, sources, weights, edges, exists, *, interpret=False):
        from jaxnas.supernets import _layered_edges

        return _layered_edges.forward(
            layered, states, sources, weights, edges, exists, interpret=interpret
        )

    return by_platform(
        layered is not None,
        by_loop,
        by_kernels,
        (states, sources, weights, edges, chosen),
        shares_weights=True,
    )


def _backward(ops, layered, has_sources, residuals, gradient):
    inputs, weights, edges, chosen = residuals

    def by_loop(inputs, gradient, weights, edges, chosen):
        if chosen is not None:
            edges = select(edges, chosen)
        pullbacks = [
            lambda x, row, g, op=op: jax.vjp(op, x, row)[1](g)  # recomputes op
            for op in ops
        ]

        def pull_back_edge(i, carry):
            states_gradient, sources_gradient, weights_gradient = carry
            e = edges.num_edges - 1 - i
            source, row = edges.source[e], edges.row[e]
            x_gradient, row_gradient = lax.switch(
                edges.op[e],
                pullbacks,
                _read(inputs, source),
                _rows(weights, row),
                _read(states_gradient, edges.target[e]),
            )
            if has_sources:
                sources_gradient = _add(sources_gradient, source, x_gradient)
            else:
                states_gradient = _add(states_gradient, source, x_gradient)
            weights_gradient = jax.tree.map(
                lambda total, g: _add(total, row, g), weights_gradient, row_gradient
            )
            return states_gradient, sources_gradient, weights_gradient

        zeros = jax.tree.map(jnp.zeros_like, weights)
        sources_gradient = jnp.zeros_like(inputs) if has_sources else None
        return lax.fori_loop(
            0, edges.num_edges, pull_back_edge, (gradient, sources_gradient, zeros)
        )

    def by_kernels(inputs, gradient, weights, edges, exists, *, interpret=False):
        from jaxnas.supernets import _layered_edges

        return _layered_edges.backward(
            layered,
            inputs,
            weights,
            edges,
            exists,
            gradient,
            has_sources=has_sources,
            interpret=interpret,
        )

    return by_platform(
        layered is not None,
        by_loop,
        by_kernels,
        (inputs, gradient, weights, edges, chosen),
        shares_weights=False,  # each architecture has a gradient of its own
    )
