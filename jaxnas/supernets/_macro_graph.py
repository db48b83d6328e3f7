"""Layers of the macro supernet: their edges, and the graph these make.

The whole network is one block. Its node 0 is the stem, and there is no node 1; then
come, stage by stage, the reductions of all sources so far and for each layer its
operation and what joins it with its skips (the first layer has nothing to join). A
reduction is present if some layer reads it, maybe through the next reduction. Which
weights are used, and by which nodes, is read off the edges that run.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.spaces.macro import MacroSpace
from jaxnas.supernets.edges import Edges, select, used_rows
from jaxnas.types import Arch, Graph, NodeAssignment


def stages_of(num_layers: int) -> list[range]:
    """Numbers of the layers of the three stages."""
    third = num_layers // 3
    return [range(third), range(third, 2 * third), range(2 * third, num_layers)]


def edges_of(space: MacroSpace, layers: range, arch: Arch) -> Edges:
    """The edges of one stage.

    States are the sources up to the stage's last output, then for every layer what
    its operation yields and the sum of what it joins. The first layer of the network
    has nothing to join: its operation yields its output.
    """
    join, normalize = len(space.ops), len(space.ops) + 1
    first_decision = np.cumsum([0, *range(1, space.num_layers)])
    always, free = -1, layers.stop + 1  # the first state that is no source
    edges: list[tuple[int, ...]] = []

    def add(source, target, row, op=0, *, op_decision=always, exists=always):
        edges.append((source, target, op, row, op_decision, exists))

    join_row = 0
    for position, k in enumerate(layers):
        decision = int(first_decision[k])
        if k == 0:
            add(0, 1, position, op_decision=decision)
            continue
        result, total = free, free + 1
        add(k, result, position, op_decision=decision)
        for i in range(k):
            add(i, total, join_row + i, join, exists=decision + 1 + i)
        add(result, total, join_row + k, join)
        add(total, k + 1, position - (layers.start == 0), normalize)
        join_row, free = join_row + k + 1, free + 2

    source, target, op, row, op_decision, exists = np.array(edges, np.int32).T
    op = jnp.where(op_decision == always, op, arch[op_decision])
    chosen = (exists == always) | (arch[exists] == 1)
    source, target, row = (jnp.asarray(leaf) for leaf in (source, target, row))
    return select(Edges(source, target, op, row, jnp.int32(0)), chosen)


class _Stage(NamedTuple):
    """A stage of one architecture.

    Attributes:
      nodes: nodes of the graph for all states of `edges_of`, int32.
      edges: its edges.
      is_read: bool `[num_sources]`, whether this stage or a later one reads each source
        from before this stage.
    """

    nodes: np.ndarray
    edges: Edges
    is_read: jax.Array


def _nodes_of(num_layers: int) -> list[np.ndarray]:
    """Nodes of the graph for the states of all stages."""
    nodes, sources, free = [], [0], 2
    for layers in stages_of(num_layers):
        if layers.start > 0:
            sources = [*range(free, free + len(sources))]
            free += len(sources)
        results: list[int] = []
        for k in layers:
            # The node that joins stands for the layer's output as well.
            own = [free, free + 1] if k > 0 else [free]
            sources.append(own[-1])
            results += own if k > 0 else []
            free += len(own)
        nodes.append(np.array(sources + results, np.int32))
    return nodes


def _make_stages(space: MacroSpace, arch: Arch) -> list[_Stage]:
    layers, nodes = stages_of(space.num_layers), _nodes_of(space.num_layers)
    later, stages = jnp.zeros(0, bool), []
    for own_layers, own_nodes in zip(layers[::-1], nodes[::-1], strict=True):
        edges = edges_of(space, own_layers, arch)
        is_read = jnp.zeros(own_nodes.size, bool).at[edges.source].max(edges.exists)
        later = is_read.at[: later.size].max(later)[: own_layers.start + 1]
        stages.append(_Stage(own_nodes, edges, later))
    return stages[::-1]


def feature_sizes(space: MacroSpace) -> tuple[int, ...]:
    """Kinds of nodes: an input, every operation, a join, a reduction."""
    return (len(space.ops) + 3,)


def graph_of(space: MacroSpace, arch: Arch) -> Graph:
    """The graph of an architecture; like `assignments_of`, works inside `jax.jit`."""
    stages = _make_stages(space, arch)
    num_nodes = int(stages[-1].nodes.max()) + 1
    adjacency = jnp.zeros((num_nodes, num_nodes), bool)
    kinds = jnp.zeros(num_nodes, jnp.int32)
    for nodes, edges, _ in stages:
        source, target = (jnp.asarray(nodes)[ends] for ends in edges[:2])
        # To normalize a sum is part of its node, and no edge of the graph.
        is_edge = edges.exists & (source != target)
        adjacency = adjacency.at[source, target].max(is_edge)
        kinds = kinds.at[target].max(jnp.where(is_edge, 1 + edges.op, 0))
    for before, stage in itertools.pairwise(stages):
        num_sources = stage.is_read.size
        reductions = stage.nodes[:num_sources]
        adjacency = adjacency.at[before.nodes[:num_sources], reductions].set(
            stage.is_read
        )
        kinds = kinds.at[reductions].set(len(space.ops) + 2)
    node_mask = adjacency.any(axis=0).at[0].set(True)
    return Graph(kinds[None, :, None], adjacency[None], node_mask[None])


def assignments_of(
    space: MacroSpace, specs: list[dict[str, Any]], arch: Arch
) -> list[dict[str, Any]]:
    """Assignments of the weights of all stages, in the structure of their specs."""
    stages = zip(
        stages_of(space.num_layers), specs, _make_stages(space, arch), strict=True
    )
    return [_stage_assignments(space, *parts) for parts in stages]


def _stage_assignments(
    space: MacroSpace, layers: range, specs: dict[str, Any], stage: _Stage
) -> dict[str, Any]:
    nodes, edges, is_read = stage
    join, normalize = len(space.ops), len(space.ops) + 1
    is_used, edge = used_rows(edges, len(space.ops) + 2, edges.op.size)

    def places(states: jax.Array | np.ndarray) -> jax.Array:
        node = jnp.asarray(nodes)[states]
        return jnp.stack([jnp.zeros_like(node), node], axis=-1)

    # One array for all operations, so that they share the products of the decoder.
    ops = places(edges.target[edge[: len(space.ops), : len(layers)].max(0)])
    assignments: dict[str, Any] = {
        "layers": {
            name: dict.fromkeys(
                specs["layers"][name],
                NodeAssignment(ops, None, is_used[op, : len(layers)]),
            )
            for op, name in enumerate(space.ops)
        }
    }
    for name, spec in specs.get("joints", {}).items():
        op, rows = (join if name == "kernel" else normalize), slice(spec.shape[0])
        first = edge[op, rows]
        source = places(edges.source[first]) if name == "kernel" else None
        assignment = NodeAssignment(
            places(edges.target[first]), source, is_used[op, rows]
        )
        assignments.setdefault("joints", {})[name] = assignment
    if "reductions" in specs:
        assignment = NodeAssignment(places(np.arange(is_read.size)), None, is_read)
        assignments["reductions"] = dict.fromkeys(specs["reductions"], assignment)
    return assignments
