"""The supernet of stacked blocks that are random graphs (Graph HyperNetworks)."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas import ops
from jaxnas._checks import check_dropout, check_sizes
from jaxnas.ops import Norm
from jaxnas.spaces.dag import DagSpace
from jaxnas.supernets import _dag_graph, _images
from jaxnas.supernets._dag_graph import Block
from jaxnas.supernets.edges import EdgeOp, Edges, evaluate, select
from jaxnas.types import Arch, Graph, GraphSpec, Key, Supernet, Weights

NodeInput = Literal["each", "sum"]


def dag(
    space: DagSpace,
    channels: int = 32,
    num_blocks: int = 18,
    num_classes: int = 10,
    *,
    node_input: NodeInput = "each",
    dropout: float = 0.0,
    image_channels: int = 3,
) -> Supernet:
    """Make the supernet of a space of blocks that are directed acyclic graphs.

    A stem (3x3 convolution), `num_blocks` blocks of the same architecture in three
    stages, the second and third of which halve height and width and double the
    channels, global average pooling and a linear classifier. Nodes 0 and 1 of a block
    are bottlenecks of the two blocks before it (for the first block, both of the
    stem): ReLU, 1x1 convolution of the concatenated leaves, normalization. The
    convolution is computed as a sum over the leaves, and has stride 2 where the
    resolution changes. A last bottleneck and a ReLU precede the pooling. Every block
    has weights of its own for every (node, operation) and for every leaf that a
    bottleneck may read. Normalization uses the statistics of the batch, in training
    and in evaluation, without a learned scale; answers therefore depend on the batch.
    `networks.dag` is the network with running statistics, which answers for one image;
    `networks.params_from_supernet` gives it these weights.

    Args:
      space: from `jaxnas.spaces.ghn_dag`.
      channels: channels of the first stage, even.
      num_blocks: at least 3; blocks `num_blocks // 3` and `2 * num_blocks // 3` reduce.
      num_classes: size of the output.
      node_input: `"each"`: a node applies its operation, with the same weights, to each
        of its inputs and adds up (the paper); `"sum"`: it applies it once, to the sum
        of its inputs (cheaper in time, but one more image is kept for each node).
      dropout: probability of dropping a feature before the classifier, in training.
      image_channels: channels of the input images.

    Returns:
      A `Supernet` with a graph spec; `apply` takes float images
      `[B, H, W, image_channels]`, `H` and `W` divisible by 4, and returns logits
      `[B, num_classes]`. Training with dropout needs its `key`. Weights are those of
      `space.max_nodes` nodes; smaller blocks use the first of them. In the graph spec
      the stem is no node, and the last bottleneck is node 0 of one more block.

    Raises:
      ValueError: if `num_blocks` is below 3 or another argument is out of range.

    Source: Zhang et al. 2019, equation 7 and the appendix, without the auxiliary head.
    The paper leaves open the order within a bottleneck, the stem, what precedes the
    classifier, how its operations normalize (here as in DARTS) and whether statistics
    are those of the batch.
    """
    if num_blocks < 3:
        raise ValueError(f"num_blocks is {num_blocks}; two reductions need at least 3")
    if node_input not in ("each", "sum"):
        raise ValueError(f"node_input is {node_input!r}; expected 'each' or 'sum'")
    _images.check_channels(channels)
    check_sizes(num_classes=num_classes, image_channels=image_channels)
    check_dropout(dropout)
    stages = _dag_graph.stages_of(num_blocks)
    last_channels = 4 * channels
    specs = {
        "stem": _images.stem_specs(image_channels, channels),
        "stages": [
            _dag_graph.stage_specs(space, channels, s, stages) for s in range(3)
        ],
        "head": _dag_graph.kernel_spec(last_channels, last_channels).stack(
            space.max_nodes - 2
        ),
        "classifier": _images.classifier_specs(last_channels, num_classes, bias=True),
    }

    def init(key: Key) -> Weights:
        return ops.init(key, specs, "uniform")

    def apply(
        weights: Weights,
        arch: Arch,
        images: jax.Array,
        *,
        train: bool = False,
        key: Key | None = None,
        batch_axis: str | None = None,
    ) -> jax.Array:
        _images.check_inputs(space, arch, images)
        norm = functools.partial(ops.batch_norm, batch_axis=batch_axis)
        block = _dag_graph.make_block(space, arch, num_blocks)
        stem = _images.stem(weights["stem"], images, norm)[None]
        x, outputs = stem[0], (stem, stem)
        for blocks, stage in zip(stages, weights["stages"], strict=True):
            head = weights["head"] if blocks.stop == num_blocks else None
            x, outputs = _apply_stage(
                stage, head, space, block, blocks, outputs, node_input, norm
            )
        return _images.classify(
            weights["classifier"],
            jax.nn.relu(x),
            dropout=dropout if train else 0.0,
            key=key,
            batch_axis=batch_axis,
        )

    def graph(arch: Arch) -> Graph:
        return _dag_graph.graph_of(space, arch, num_blocks)

    def assignments(arch: Arch) -> Any:
        block = _dag_graph.make_block(space, arch, num_blocks)
        return {
            "stem": dict.fromkeys(specs["stem"]),
            "stages": [
                _dag_graph.stage_assignments(space, block, blocks, stage)
                for blocks, stage in zip(stages, specs["stages"], strict=True)
            ],
            "head": _dag_graph.entry_assignment(block, num_blocks, 0),
            "classifier": dict.fromkeys(specs["classifier"]),
        }

    settings = {
        "supernet": "dag",
        "ops": list(space.ops),
        "channels": channels,
        "num_blocks": num_blocks,
        "num_classes": num_classes,
        "image_channels": image_channels,
        "node_input": node_input,
    }
    graph_spec = GraphSpec((1 + len(space.ops),), specs, graph, assignments, settings)
    return Supernet(space, init, apply, graph_spec)


def _project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """ReLU and a 1x1 convolution."""
    return ops.pointwise_conv(jax.nn.relu(x), kernel)


def _halve(states: jax.Array) -> jax.Array:
    """Pixels that a 1x1 convolution of stride 2 reads of `[num_states, B, H, W, C]`."""
    return states[:, :, ::2, ::2]


def _enter(
    states: jax.Array, kernels: jax.Array, is_used: jax.Array, norm: Norm
) -> jax.Array:
    """A bottleneck of what comes before a stage.

    Args:
      states: `[num_states, B, H, W, C_in]`.
      kernels: `[num_states, C_in, C]`.
      is_used: bool `[num_states]`, which of them it reads.
      norm: normalization.

    Returns:
      `[B, H, W, C]`.
    """
    state = jnp.arange(kernels.shape[0], dtype=jnp.int32)
    edges = Edges(state, 0 * state, 0 * state, state, jnp.int32(0))
    total = jnp.zeros((1, *states.shape[1:-1], kernels.shape[-1]), states.dtype)
    joined = evaluate(
        [_project], total, kernels, select(edges, is_used), sources=states
    )
    return norm(joined[0])


def _kernels_ahead(
    stage: Weights, head: jax.Array | None, num_blocks: int, num_rows: int
) -> jax.Array:
    """Kernels of what every block of a stage hands on.

    The first half of the rows makes node 0 of the next block, the second half node 1
    of the block after it; zeros stand where the stage has no such block.

    Args:
      stage: weights of the stage.
      head: kernels of the last bottleneck, of which the last block of all makes part.
      num_blocks: of the stage.
      num_rows: of each half.

    Returns:
      `[num_blocks, 2 * num_rows, C, C]`.
    """
    entry = stage["entry"]["first_0"]
    shape = (num_blocks, num_rows, entry.shape[-1], entry.shape[-1])
    halves = []
    for node in range(2):
        kernels = jnp.zeros(shape, entry.dtype)
        if f"input_{node}" in stage:
            kernels = kernels.at[: -1 - node].set(stage[f"input_{node}"])
        halves.append(kernels)
    if head is not None:
        halves[0] = halves[0].at[-1].set(head)
    return jnp.concatenate(halves, axis=1)


def _reads_ahead(block: Block, blocks: range) -> jax.Array:
    """Whether the bottlenecks of every block of a stage are read, `[num_blocks, 2]`."""
    head = block.is_live.size
    reader = np.asarray(blocks)[:, None] + np.array([[1, 2]])
    # The head belongs to the last stage; nothing is beyond it.
    is_inside = (reader < blocks.stop) | ((reader == head) & (blocks.stop == head))
    return is_inside & block.reads[np.minimum(reader, head), np.array([[0, 1]])]


_FROM_NODE = -1  # the operation of an edge is that of the node it leads to


def _edge_table(num_nodes: int, num_ops: int, node_input: NodeInput) -> np.ndarray:
    """All edges a block may have, each after those its source depends on.

    States are the nodes, the two bottlenecks that the block hands on (counted as two
    more nodes) and, for `"sum"`, for each node from 2 on the sum of its inputs.

    Returns:
      int32 `[6, num_edges]`: source, target, operation and row of each; at last the
      two nodes whose edge it belongs to, twice the same for a node's own operation.
    """
    project, identity = num_ops, num_ops + 1
    edges: list[tuple[int, ...]] = []
    for v in range(2, num_nodes):
        row, total = v - 2, num_nodes + v
        if node_input == "each":
            edges += [(u, v, _FROM_NODE, row, u, v) for u in range(v)]
        else:
            edges += [(u, total, identity, row, u, v) for u in range(v)]
            edges.append((total, v, _FROM_NODE, row, v, v))
    for leaf in range(2, num_nodes):
        for output in (num_nodes, num_nodes + 1):
            row = (output - num_nodes) * (num_nodes - 2) + leaf - 2
            edges.append((leaf, output, project, row, leaf, output))
    return np.array(edges, np.int32).T


def _edges(
    table: np.ndarray, block: Block, is_live: jax.Array, reads_ahead: jax.Array
) -> Edges:
    """The edges of one block.

    Args:
      table: from `_edge_table`.
      block: the architecture.
      is_live: bool scalar; other blocks have no edges.
      reads_ahead: bool `[2]`, which of the bottlenecks it hands on are read.
    """
    source, target, op, row, first, second = table
    num_nodes = block.is_leaf.size
    own = block.ops[np.clip(second - 2, 0, num_nodes - 3)]
    # At [v, v] whether node v exists, in two more columns what is handed on.
    exists = jnp.concatenate(
        [
            block.adjacency | jnp.diag(block.node_mask),
            block.is_leaf[:, None] & reads_ahead[None],
        ],
        axis=1,
    )
    edges = Edges(
        jnp.asarray(source),
        jnp.asarray(target),
        jnp.where(op == _FROM_NODE, own, op),
        jnp.asarray(row),
        jnp.int32(0),
    )
    return select(edges, exists[first, second] & is_live)


def _edge_ops(space: DagSpace, norm: Norm) -> list[EdgeOp]:
    """The operations of the space, a leaf's part of a bottleneck, the identity."""
    primitives = ops.primitives()
    chosen = [
        lambda x, row, name=name: primitives[name].apply(x, row["nodes"][name], 1, norm)
        for name in space.ops
    ]
    return [*chosen, lambda x, row: _project(x, row["ahead"]), lambda x, row: x]


def _apply_stage(
    stage: Weights,
    head: jax.Array | None,
    space: DagSpace,
    block: Block,
    blocks: range,
    outputs: tuple[jax.Array, jax.Array],
    node_input: NodeInput,
    norm: Norm,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Run the blocks of one stage as one scan.

    Every block makes of its leaves what the two blocks after it read, so that what is
    carried from block to block has one shape throughout, however many leaves there are.

    Args:
      stage: weights, as specified by `_dag_graph.stage_specs`.
      head: kernels of the last bottleneck if this is the last stage.
      space: the search space.
      block: the architecture.
      blocks: numbers of the blocks.
      outputs: states of the block before the last one and of the last one that the
        bottlenecks may read, `[num_states, B, H, W, C_before]`.
      node_input: `"each"` or `"sum"`.
      norm: normalization.

    Returns:
      What the last block hands on to the next, `[B, H, W, C]`, and the outputs of the
      last two blocks at half of the height and width.
    """
    num_nodes, num_rows = space.max_nodes, space.max_nodes - 2
    table = _edge_table(num_nodes, len(space.ops), node_input)
    edge_ops = _edge_ops(space, norm)

    def enter(name):
        reader, node = _dag_graph.entries_of(blocks)[name]
        states = outputs[1] if reader - 1 - node == blocks.start - 1 else outputs[0]
        kernels = stage["entry"][name]
        is_used = _dag_graph.entry_assignment(block, reader, node).is_used
        return _enter(states, kernels, is_used, norm)

    def run_block(carry, step):
        input_0, input_1, next_input_1, _, last = carry
        num_empty = int(table[1].max()) + 1 - 2
        empty = jnp.zeros((num_empty, *input_0.shape), input_0.dtype)
        states = evaluate(
            edge_ops,
            jnp.concatenate([jnp.stack([input_0, input_1]), empty]),
            step["weights"],
            _edges(table, block, step["is_live"], step["reads_ahead"]),
        )
        next_input_0, after_next_input_1 = (norm(states[num_nodes + i]) for i in (0, 1))
        output = _halve(states[2:num_nodes])
        return (next_input_0, next_input_1, after_next_input_1, last, output), None

    inputs = [enter("first_0"), enter("first_1")]
    next_input_1 = enter("second_1") if len(blocks) > 1 else jnp.zeros_like(inputs[0])
    no_output = _halve(jnp.zeros((num_rows, *inputs[0].shape), inputs[0].dtype))
    steps = {
        "weights": {
            "nodes": stage["nodes"],
            "ahead": _kernels_ahead(stage, head, len(blocks), num_rows),
        },
        "is_live": block.is_live[np.asarray(blocks)],
        "reads_ahead": _reads_ahead(block, blocks),
    }
    carry = (*inputs, next_input_1, no_output, no_output)
    (x, _, _, before, last), _ = lax.scan(run_block, carry, steps)
    return x, (_halve(outputs[1]) if len(blocks) == 1 else before, last)
