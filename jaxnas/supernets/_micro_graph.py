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
from jaxnas.supernets import _micro_cells
from jaxnas.supernets._micro_cells import NUM_CELL_INPUTS
from jaxnas.supernets.edges import used_rows
from jaxnas.types import Graph, NodeAssignment

Index = jax.Array | np.ndarray | int


def node_of_state(state: Index) -> jax.Array:
    """Node of the graph for a state of the cell: an input, or a sum."""
    return jnp.where(state < NUM_CELL_INPUTS, 1 - state, 3 * state - 2)


def _node_of_edge(edge: Index) -> Index:
    """Node of the graph for the operation of an edge of `_micro_cells.all_edges`."""
    return NUM_CELL_INPUTS + edge + edge // 2


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
    num_nodes = NUM_CELL_INPUTS + 3 * space.num_nodes
    op_nodes = _node_of_edge(np.arange(2 * space.num_nodes))

    def of_cell(cell: jax.Array) -> Graph:
        edges = _micro_cells.all_edges(cell, row_per_side=False)
        sums = node_of_state(edges.target)
        adjacency = jnp.zeros((num_nodes, num_nodes), bool)
        adjacency = adjacency.at[node_of_state(edges.source), op_nodes].set(True)
        adjacency = adjacency.at[op_nodes, sums].set(True)
        kinds = jnp.zeros(num_nodes, jnp.int32).at[op_nodes].set(1 + edges.op)
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


def op_assignments(
    space: MicroSpace, blocks: np.ndarray, cells: jax.Array, *, row_per_side: bool
) -> dict[str, NodeAssignment]:
    """Assignments of the rows of every operation, `[num_cells, num_rows]`.

    Args:
      space: the search space.
      blocks: int32 `[num_cells]`, numbers of the cells.
      cells: int32 `[num_cells, num_nodes, 4]`.
      row_per_side: as for `_micro_cells.all_edges`. If edges share a row, it belongs to
        the first.
    """
    num_rows = _micro_cells.num_rows(space.num_nodes) * (1 + row_per_side)

    def used_of(cell: jax.Array) -> tuple[jax.Array, jax.Array]:
        edges = _micro_cells.all_edges(cell, row_per_side=row_per_side)
        return used_rows(edges, len(space.ops), num_rows)

    is_used, edge = jax.vmap(used_of, out_axes=1)(cells)
    return {
        name: assignment(blocks[:, None], _node_of_edge(edge[op]), is_used[op])
        for op, name in enumerate(space.ops)
    }
