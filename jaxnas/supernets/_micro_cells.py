"""Cells of the micro supernets, as lists of edges over a buffer of states."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas import ops
from jaxnas.ops import BatchNorm, Layer, LayerWeights, Norm, Op
from jaxnas.ops.layers import Chain
from jaxnas.supernets._platforms import uses_kernels
from jaxnas.supernets.edges import (
    EdgeGroup,
    EdgeOp,
    Edges,
    LayeredOps,
    evaluate,
)
from jaxnas.types import Weights

NUM_CELL_INPUTS = 2


def table_specs(
    operations: dict[str, Op], channels: int, sizes: tuple[int, ...], stride: int
) -> dict[str, dict[str, ops.WeightSpec]]:
    """Specs of the weights of all operations, stacked along leading axes."""
    return {
        name: {
            weight: spec.stack(*sizes)
            for weight, spec in op.specs(channels, stride).items()
        }
        for name, op in operations.items()
    }


def edge_ops(operations: dict[str, Op], stride: int, norm: Norm) -> list[EdgeOp]:
    """The operations as functions of an image and one row of the table."""
    return [
        lambda x, row, name=name, op=op: op.apply(x, row[name], stride, norm)
        for name, op in operations.items()
    ]


def layered_ops(
    operations: dict[str, Op],
    stride: int,
    norm: BatchNorm,
    groups: Sequence[EdgeGroup],
) -> LayeredOps | None:
    """The same as `edge_ops` as chains of layers; `None` if one is not such a chain."""

    def chains(name: str, op: Op) -> tuple[Chain, ...]:
        assert op.chains is not None
        return tuple(
            tuple(layer.of_row(name) for layer in chain) for chain in op.chains(stride)
        )

    if any(op.chains is None for op in operations.values()):
        return None
    return LayeredOps(
        tuple(chains(name, op) for name, op in operations.items()),
        tuple(groups),
        stride,
        norm.batch_axis,
        norm.epsilon,
    )


def num_rows(num_nodes: int) -> int:
    """Pairs of a node and one of its inputs."""
    return num_nodes * (num_nodes + 3) // 2


def row_sources(num_nodes: int) -> np.ndarray:
    """The inputs of the rows of `num_rows`, in their order."""
    return np.tril_indices(num_nodes, 1, num_nodes + 1)[1]


def all_edges(cell: jax.Array, *, row_per_side: bool) -> Edges:
    """All edges of a cell, among states that begin with the cell's inputs.

    Args:
      cell: int32 `[num_nodes, 4]`: input_1, input_2, op_1, op_2.
      row_per_side: whether the two edges of a node have weights of their own.
    """
    node = jnp.repeat(jnp.arange(cell.shape[0], dtype=jnp.int32), 2)
    source, op = cell[:, :2].reshape(-1), cell[:, 2:].reshape(-1)
    row = node * (node + 3) // 2 + source  # node n has n + 2 inputs
    if row_per_side:
        side = jnp.arange(source.size, dtype=jnp.int32) % 2
        row = row + side * num_rows(cell.shape[0])
    return Edges(source, node + NUM_CELL_INPUTS, op, row, jnp.int32(source.size))


def is_read(cell: jax.Array) -> jax.Array:
    """Whether some node reads each state of a cell, bool `[2 + num_nodes]`."""
    read = jnp.zeros(cell.shape[0] + NUM_CELL_INPUTS, bool)
    return read.at[cell[:, :2].reshape(-1)].set(True)


def join_loose_ends(
    states: jax.Array,
    first_state: int,
    cell: jax.Array,
    kernels: jax.Array,
) -> jax.Array:
    """Join the states that no node reads by ReLU and a 1x1 convolution.

    A convolution of a concatenation is a sum of convolutions: one edge for each state.

    Args:
      states: `[num_states, B, H, W, C]`.
      first_state: number of the first of them in the cell, 0 if the cell's inputs are
        among them and may be loose ends too.
      cell: int32 `[num_nodes, 4]`.
      kernels: `[num_states, C, C]`.

    Returns:
      `[B, H, W, C]`, not normalized.
    """
    loose, num = ~is_read(cell)[first_state:], kernels.shape[0]
    state = jnp.arange(num, dtype=jnp.int32)
    source = state + states.shape[0] - num
    ends = Edges(source, 0 * state, 0 * state, state, jnp.int32(num))
    return evaluate(
        [project],
        jnp.zeros((1, *states.shape[1:]), states.dtype),
        kernels,
        ends,
        states,
        chosen=loose,
        layered=LayeredOps((((_PROJECTION,),),), (EdgeGroup(num, 0),)),
    )[0]


_PROJECTION = Layer(
    lambda kernel: LayerWeights(matrix=kernel),
    relu=True,
    product=True,
    normalizes=False,
)


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """ReLU and a 1x1 convolution."""
    return ops.pointwise_conv(jax.nn.relu(x), kernel)


def scan_cells(
    run: Callable[[Any, Any], tuple[Any, Any]], carry: Any, steps: Any
) -> tuple[Any, Any]:
    """`lax.scan`, unrolled where cells are few kernels: a loop on a GPU costs more."""
    if not uses_kernels():
        return lax.scan(run, carry, steps)
    outputs = []
    for number in range(len(jax.tree.leaves(steps)[0])):
        step = jax.tree.map(lambda leaf, number=number: leaf[number], steps)
        carry, output = run(carry, step)
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def run_cell(
    operations: dict[str, Op],
    weights: Weights,
    cell: jax.Array,
    inputs: jax.Array,
    norm: BatchNorm,
    *,
    row_per_side: bool,
) -> jax.Array:
    """All states of a cell whose edges have stride 1, its inputs first."""
    nodes = jnp.zeros((cell.shape[0], *inputs.shape[1:]), inputs.dtype)
    groups = [EdgeGroup(2, NUM_CELL_INPUTS + n) for n in range(cell.shape[0])]
    return evaluate(
        edge_ops(operations, 1, norm),
        jnp.concatenate([inputs, nodes]),
        weights,
        all_edges(cell, row_per_side=row_per_side),
        layered=layered_ops(operations, 1, norm, groups),
    )
