"""Blocks of the DAG supernet: their weights, and where these belong in the graph.

Blocks are counted from the first of the network; nodes 0 and 1 of a block are the
bottlenecks of the block before it and of the one before that. Row v - 2 of weights that
are stacked over nodes is node v's.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import ops
from jaxnas.ops import WeightSpec
from jaxnas.spaces.dag import DagSpace
from jaxnas.types import Arch, Graph, NodeAssignment


class Block(NamedTuple):
    """The decoded block of an architecture.

    Attributes:
      ops: int32 `[num_nodes - 2]`, operation of each node from node 2 on.
      adjacency: bool `[num_nodes, num_nodes]`, at `[u, v]` whether v reads u.
      node_mask: bool `[num_nodes]`.
      is_leaf: bool `[num_nodes]`.
      is_live: bool `[num_blocks]`, whether the logits depend on a block: where nobody
        reads node 0, only every other block matters.
      reads: bool `[num_blocks + 1, 2]`, whether a live block reads the block before it
        and the one before that. The head counts as one more block, and reads the last.
    """

    ops: jax.Array
    adjacency: jax.Array
    node_mask: jax.Array
    is_leaf: jax.Array
    is_live: jax.Array
    reads: jax.Array


def make_block(space: DagSpace, arch: Arch, num_blocks: int) -> Block:
    """Read an architecture; works inside `jax.jit`, as all below."""
    adjacency = space.adjacency(arch)
    is_read = adjacency.any(axis=1)
    # At least one of nodes 0 and 1 is read, for node 2 reads no other.
    is_live = is_read[0] | (np.arange(num_blocks)[::-1] % 2 == 0)
    reads = is_live[:, None] & is_read[None, :2]
    return Block(
        ops=space.node_ops(arch),
        adjacency=adjacency,
        node_mask=space.node_mask(arch).at[:2].set(is_read[:2]),
        is_leaf=space.is_leaf(arch),
        is_live=is_live,
        reads=jnp.concatenate([reads, jnp.array([[True, False]])]),
    )


def stages_of(num_blocks: int) -> list[range]:
    """Numbers of the blocks of the three stages."""
    first, second = num_blocks // 3, 2 * num_blocks // 3
    return [range(first), range(first, second), range(second, num_blocks)]


def kernel_spec(channels_in: int, channels: int) -> WeightSpec:
    """Spec of a tile of a 1x1 convolution."""
    return WeightSpec((channels_in, channels), channels_in)


def entries_of(blocks: range) -> dict[str, tuple[int, int]]:
    """The (block, input node)s of a stage that read what comes before the stage."""
    first = blocks.start
    entries = {"first_0": (first, 0), "first_1": (first, 1)}
    return entries | ({"second_1": (first + 1, 1)} if len(blocks) > 1 else {})


def stage_specs(
    space: DagSpace, channels: int, number: int, stages: list[range]
) -> dict[str, Any]:
    """Specs of the weights of one stage.

    Bottlenecks of what comes before the stage are its `entry`; `input_0` and `input_1`
    are stacked over the blocks that read one or two blocks back within the stage. The
    stem is a single leaf.
    """
    blocks, num_rows = stages[number], space.max_nodes - 2
    width = channels * 2**number
    primitives = ops.primitives()

    def entry(block: int, node: int) -> WeightSpec:
        source = block - 1 - node
        if source < 0:
            return kernel_spec(channels, width).stack(1)
        stage = next(s for s, others in enumerate(stages) if source in others)
        return kernel_spec(channels * 2**stage, width).stack(num_rows)

    stage: dict[str, Any] = {
        "nodes": {
            name: {
                weight: spec.stack(len(blocks), num_rows)
                for weight, spec in primitives[name].specs(width, 1).items()
            }
            for name in space.ops
        },
        "entry": {name: entry(*place) for name, place in entries_of(blocks).items()},
    }
    for node in range(2):
        num_inside = len(blocks) - 1 - node
        if num_inside > 0:
            kernel = kernel_spec(width, width)
            stage[f"input_{node}"] = kernel.stack(num_inside, num_rows)
    return stage


def _places(blocks: Sequence[int], nodes: Sequence[int]) -> jax.Array:
    """All (block, node) of these, int32 `[num_blocks, num_nodes, 2]`."""
    grid = np.meshgrid(blocks, nodes, indexing="ij")
    return jnp.asarray(np.stack(grid, axis=-1), jnp.int32)


def _bottleneck_assignment(block: Block, readers: range, node: int) -> NodeAssignment:
    """Of the bottlenecks `node` of some blocks that read blocks, not the stem."""
    num_nodes = block.is_leaf.size
    sources = [reader - 1 - node for reader in readers]
    is_read = block.reads[np.asarray(readers), node]
    return NodeAssignment(
        node=_places(readers, [node] * (num_nodes - 2)),
        source=_places(sources, range(2, num_nodes)),
        is_used=is_read[:, None] & block.is_leaf[None, 2:],
    )


def entry_assignment(block: Block, reader: int, node: int) -> NodeAssignment:
    """NodeAssignment of a bottleneck that is not stacked over blocks."""
    if reader - 1 - node < 0:
        place = _places([reader], [node])[0]
        return NodeAssignment(place, None, block.reads[reader, node][None])
    assignment = _bottleneck_assignment(block, range(reader, reader + 1), node)
    return jax.tree.map(lambda leaf: leaf[0], assignment)


def stage_assignments(
    space: DagSpace, block: Block, blocks: range, specs: dict[str, Any]
) -> dict[str, Any]:
    """Assignments of the weights of one stage, in the structure of their specs."""
    node = _places(blocks, range(2, space.max_nodes))
    is_live = block.is_live[np.asarray(blocks)]

    def node_assignment(op: int) -> NodeAssignment:
        is_used = block.node_mask[2:] & (block.ops == op)
        return NodeAssignment(node, None, is_live[:, None] & is_used[None])

    assignments: dict[str, Any] = {
        "nodes": {
            name: dict.fromkeys(specs["nodes"][name], node_assignment(op))
            for op, name in enumerate(space.ops)
        },
        "entry": {
            name: entry_assignment(block, *place)
            for name, place in entries_of(blocks).items()
        },
    }
    for side in range(2):
        if f"input_{side}" in specs:
            readers = range(blocks.start + 1 + side, blocks.stop)
            assignments[f"input_{side}"] = _bottleneck_assignment(block, readers, side)
    return assignments


def graph_of(space: DagSpace, arch: Arch, num_blocks: int) -> Graph:
    """All blocks alike, then the head: an input node alone."""
    block = make_block(space, arch, num_blocks)

    def stack(leaf, head):
        leaf = jnp.broadcast_to(leaf, (num_blocks, *leaf.shape))
        return jnp.concatenate([leaf, head[None]])

    node_features = jnp.concatenate([jnp.zeros(2, jnp.int32), 1 + block.ops])[:, None]
    only_node_0 = jnp.arange(space.max_nodes) == 0
    return Graph(
        node_features=stack(node_features, jnp.zeros_like(node_features)),
        adjacency=stack(block.adjacency, jnp.zeros_like(block.adjacency)),
        node_mask=stack(block.node_mask, only_node_0),
    )
