"""Cells of the micro space as graphs, for a hypernetwork to read.

A node of a cell is three nodes of its graph: one for each of its two operations, and
their sum. The graph's nodes 0 and 1 are the cell's inputs 1 and 0, for a cell counts
its inputs from the older one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.spaces.micro import MicroSpace
from jaxnas.supernets._micro_cells import NUM_CELL_INPUTS
from jaxnas.types import Graph, NodeAssignment

Index = jax.Array | np.ndarray | int


def node_of_state(state: Any) -> Any:
    """Node of the graph for a state of the cell: an input, or a sum."""
    return np.where(state < NUM_CELL_INPUTS, 1 - state, 3 * state - 2)


def node_of_op(node: Any, side: Any) -> Any:
    """Node of the graph for one of the two operations of a node of the cell."""
    return NUM_CELL_INPUTS + 3 * node + side


def feature_sizes(space: MicroSpace) -> tuple[int, ...]:
    """Kinds of nodes: an input, every operation, a sum."""
    return (len(space.ops) + 2,)


def graph(space: MicroSpace, cells: jax.Array, *, joins_inputs: bool) -> Graph:
    """The graphs of a stack of cells.

    Args:
      space: the search space.
      cells: int32 `[num_cells, num_nodes, 4]`.
      joins_inputs: whether inputs that no node reads are part of a cell's output.
    """
    node = np.arange(space.num_nodes, dtype=np.int32)
    op_nodes = node_of_op(node[:, None], np.arange(2, dtype=np.int32)[None])
    sums = node_of_state(node + NUM_CELL_INPUTS)
    num_nodes = NUM_CELL_INPUTS + 3 * space.num_nodes

    def of_cell(cell: jax.Array) -> Graph:
        sources = jnp.asarray(node_of_state(np.arange(sums.size + 1)))[cell[:, :2]]
        adjacency = jnp.zeros((num_nodes, num_nodes), bool)
        adjacency = adjacency.at[sources, op_nodes].set(True)
        adjacency = adjacency.at[op_nodes, np.stack([sums, sums], 1)].set(True)
        kinds = jnp.zeros(num_nodes, jnp.int32).at[op_nodes].set(1 + cell[:, 2:])
        kinds = kinds.at[sums].set(len(space.ops) + 1)
        node_mask = jnp.ones(num_nodes, bool)
        if not joins_inputs:
            is_read = adjacency[:NUM_CELL_INPUTS].any(axis=1)
            node_mask = node_mask.at[:NUM_CELL_INPUTS].set(is_read)
        return Graph(kinds[:, None], adjacency, node_mask)

    return jax.vmap(of_cell)(cells)


def assignment(block: Index, node: Index, is_used: Any) -> NodeAssignment:
    """The assignment of weights of nodes, all of the shape of `is_used`."""
    is_used = jnp.asarray(is_used)
    block, node = (
        jnp.broadcast_to(jnp.asarray(index, jnp.int32), is_used.shape)
        for index in (block, node)
    )
    return NodeAssignment(jnp.stack([block, node], axis=-1), None, is_used)


def table_assignments(
    specs: dict[str, dict[str, Any]],
    space: MicroSpace,
    blocks: np.ndarray,
    cells: jax.Array,
    rows: tuple[np.ndarray, np.ndarray],
    *,
    side: np.ndarray | None = None,
) -> dict[str, dict[str, NodeAssignment]]:
    """Assignments of a table of the weights of all operations.

    Args:
      specs: of the table, `[num_cells, num_rows, ...]`.
      space: the search space.
      blocks: int32 `[num_cells]`, numbers of the cells.
      cells: int32 `[num_cells, num_nodes, 4]`.
      rows: node and source of every row, int32 `[num_rows]` each.
      side: which of the node's edges a row is for; if `None`, both edges share it
        where source and operation are the same.
    """
    node, source = rows
    reads = cells[:, node, :2] == source[None, :, None]

    def of_op(op: int) -> NodeAssignment:
        chosen = reads & (cells[:, node, 2:] == op)
        if side is None:
            is_used = chosen.any(axis=-1)
            taken = jnp.argmax(chosen, axis=-1).astype(jnp.int32)
        else:
            is_used, taken = chosen[:, np.arange(side.size), side], side[None]
        return assignment(blocks[:, None], node_of_op(node[None], taken), is_used)

    return {
        name: dict.fromkeys(specs[name], of_op(op)) for op, name in enumerate(space.ops)
    }
