"""The supernet of networks that predict at any time (Graph HyperNetworks)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import genotypes, ops
from jaxnas._checks import check_sizes
from jaxnas.ops import Norm, WeightSpec
from jaxnas.spaces.anytime_space import AnytimeSpace
from jaxnas.supernets import _images
from jaxnas.supernets.edges import EdgeOp, Edges, evaluate, select
from jaxnas.types import Arch, Graph, GraphSpec, Key, NodeAssignment, Supernet, Weights

_BLOCKS = genotypes.ANYTIME_BLOCKS


def anytime(
    space: AnytimeSpace,
    channels: int = 16,
    num_classes: int = 10,
    *,
    image_channels: int = 3,
) -> Supernet:
    """Make the supernet of a space of three blocks with exits.

    A stem (3x3 convolution, normalization, ReLU) and three blocks, each with twice the
    channels of the one before. A node resamples its inputs to its own scale (averages
    of 2x2 or 4x4 pixels down, repeated pixels up), concatenates them, and applies a
    bottleneck (1x1 convolution) and its operation, each followed by normalization and
    ReLU. The bottleneck is computed as a sum of 1x1 convolutions, one for every edge.
    Nodes 0 and 1 of a block are bottlenecks of the leaves of the two blocks before it,
    at the finest scale of the block; of the stem where there is no such block. An exit
    averages its node over all pixels and applies a linear classifier. Normalization
    uses the statistics of the batch, in training and in evaluation, without a learned
    scale; answers therefore depend on the batch. `networks.anytime` is the network that
    answers for one image, `networks.params_from_supernet` gives it these weights.

    Every (node, operation) and every edge has weights of its own, and so has the k-th
    exit of a block, whichever node it is at: with a hypernetwork, classifiers are
    learned and not generated.

    Args:
      space: from `jaxnas.spaces.anytime`.
      channels: channels of the first block, even.
      num_classes: size of the output.
      image_channels: channels of the input images.

    Returns:
      A `Supernet` with a graph spec; `apply` takes float images
      `[B, H, W, image_channels]`, `H` and `W` divisible by 4, and returns the logits
      `[num_exits, B, num_classes]` of all exits, in the order of the nodes they are at
      and hence of what it costs to get there.

    Raises:
      ValueError: if a number is out of range.

    Source: Zhang et al. 2019, section on anytime prediction and appendix. The paper
    leaves open the channels, the order of normalization and ReLU (here as in MSDNet,
    Huang et al. 2018), how scales are matched, and the classifiers.
    """
    _images.check_channels(channels)
    check_sizes(num_classes=num_classes, image_channels=image_channels)
    specs = {
        "stem": _images.stem_specs(image_channels, channels),
        "blocks": [
            _block_specs(space, channels, block, num_classes)
            for block in range(_BLOCKS)
        ],
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
        del train, key
        _images.check_inputs(space, arch, images)
        norm = functools.partial(ops.batch_norm, batch_axis=batch_axis)
        stem = jax.nn.relu(_images.stem(weights["stem"], images, norm))[None]
        # Leaves of the two blocks before, the newest first, at the scale of the block.
        before = [stem, stem]
        logits = []
        for block, own in enumerate(weights["blocks"]):
            inputs = [
                _bottleneck(leaves, own[f"input_{node}"], norm)
                for node, leaves in enumerate(before)
            ]
            nodes, sizes = _run_block(space, block, own, arch, inputs, norm)
            logits.append(_predict(space, block, own["exits"], arch, nodes, sizes))
            if block + 1 < _BLOCKS:
                leaves = _leaves(space, block, arch, nodes, sizes)
                before = [leaves, jax.vmap(ops.downsample)(before[0])]
        return jnp.concatenate(logits)

    graph_spec = GraphSpec(
        (1 + len(space.ops), _BLOCKS, 2),
        specs,
        functools.partial(_graph, space),
        functools.partial(_assignments, space, specs),
        {
            "supernet": "anytime",
            "ops": list(space.ops),
            "channels": channels,
            "num_classes": num_classes,
            "image_channels": image_channels,
        },
    )
    return Supernet(space, init, apply, graph_spec)


# Weights, and where they belong in the graph ------------------------------------------


def _block_specs(
    space: AnytimeSpace, channels: int, block: int, num_classes: int
) -> dict[str, Any]:
    """Specs of the weights of one block.

    Row v - 2 of what is stacked over nodes is node v's; the stem is a single leaf.
    """
    num, width = space.num_nodes[block], channels * 2**block
    pointwise = WeightSpec((width, width), width)
    specs: dict[str, Any] = {
        "edges": pointwise.stack(len(_edge_ends(num)[0])),
        "nodes": {
            name: {
                weight: spec.stack(num)
                for weight, spec in _op_specs(name, width).items()
            }
            for name in space.ops
        },
        "exits": {
            name: spec.stack(space.num_exits[block])
            for name, spec in _images.classifier_specs(
                width, num_classes, bias=True
            ).items()
        },
    }
    for node in range(2):
        source = block - 1 - node
        width_in = channels * 2 ** max(source, 0)
        rows = space.num_nodes[source] if source >= 0 else 1
        specs[f"input_{node}"] = WeightSpec((width_in, width), width_in).stack(rows)
    return specs


def _op_specs(name: str, width: int) -> dict[str, WeightSpec]:
    if name == "conv_1x1":
        return {"kernel": WeightSpec((width, width), width)}
    if name in ("conv_3x3", "conv_5x5"):
        size = int(name[-1])
        shape = size, size, width, width
        return {"kernel": WeightSpec(shape, size * size * width, spatial=(-4, -3))}
    return {}


def _edge_ends(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources and targets of all edges a block may have, by target."""
    targets, sources = np.tril_indices(2 + num_nodes, -1)
    into_nodes = targets >= 2
    return sources[into_nodes].astype(np.int32), targets[into_nodes].astype(np.int32)


def _assignments(space: AnytimeSpace, specs: dict[str, Any], arch: Arch) -> Any:
    return {
        "stem": dict.fromkeys(specs["stem"]),
        "blocks": [
            _block_assignments(space, arch, block, block_specs)
            for block, block_specs in enumerate(specs["blocks"])
        ],
    }


def _block_assignments(
    space: AnytimeSpace, arch: Arch, block: int, specs: dict[str, Any]
) -> dict[str, Any]:
    """Assignments of the weights of one block, in the structure of their specs."""

    def places(block: int, nodes: Any) -> jax.Array:
        nodes = jnp.asarray(nodes, jnp.int32)
        return jnp.stack([jnp.full_like(nodes, block), nodes], axis=-1)

    nodes = places(block, range(2, 2 + space.num_nodes[block]))
    present = space.node_mask(arch, block)[2:]
    node_ops = space.node_ops(arch, block)
    adjacency = space.adjacency(arch, block)
    sources, targets = _edge_ends(space.num_nodes[block])
    assignments: dict[str, Any] = {
        "edges": NodeAssignment(
            places(block, targets), places(block, sources), adjacency[sources, targets]
        ),
        "nodes": {
            name: dict.fromkeys(
                specs["nodes"][name],
                NodeAssignment(nodes, None, present & (node_ops == op)),
            )
            for op, name in enumerate(space.ops)
        },
        "exits": dict.fromkeys(specs["exits"]),
    }
    for node in range(2):
        is_read, source = adjacency[node].any(), block - 1 - node
        if source < 0:  # the stem is no node of the graph
            assignment = NodeAssignment(places(block, [node]), None, is_read[None])
        else:
            leaves = range(2, 2 + space.num_nodes[source])
            assignment = NodeAssignment(
                places(block, [node] * len(leaves)),
                places(source, leaves),
                space.is_leaf(arch, source)[2:] & is_read,
            )
        assignments[f"input_{node}"] = assignment
    return assignments


def _graph(space: AnytimeSpace, arch: Arch) -> Graph:
    """The blocks, as large as the largest; their input nodes have operation 0."""
    largest = max(space.num_nodes)

    def block_graph(block: int) -> Graph:
        room = largest - space.num_nodes[block]
        decisions = (
            1 + space.node_ops(arch, block),
            space.node_scales(arch, block),
            space.has_exit(arch, block).astype(jnp.int32),
        )
        inputs = jnp.array([[0, block, 0]] * 2, jnp.int32)
        node_features = jnp.concatenate([inputs, jnp.stack(decisions, axis=1)])
        adjacency = space.adjacency(arch, block)
        present = space.node_mask(arch, block).at[:2].set(adjacency[:2].any(axis=1))
        return Graph(
            jnp.pad(node_features, ((0, room), (0, 0))),
            jnp.pad(adjacency, ((0, room), (0, room))),
            jnp.pad(present, (0, room)),
        )

    blocks = [block_graph(block) for block in range(_BLOCKS)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)


# The network --------------------------------------------------------------------------
#
# Scales are data, shapes are not. A state therefore has room for an image at all scales
# of its block, one after the other, and what runs computes at one of them: its branch
# is chosen by (operation, scale). Edges are many, so that a node is resampled to all
# scales once, when it is written. An activation stands between the operations, as an
# edge of its own, for compilation takes long enough as it is.


def _sizes(image: jax.Array, num_scales: int) -> list[tuple[int, int]]:
    """Height and width at every scale, of an image at the finest."""
    return [(image.shape[1] >> s, image.shape[2] >> s) for s in range(num_scales)]


def _span(sizes: list[tuple[int, int]], scale: int) -> tuple[int, int]:
    """The pixels of a state that are those of a scale: first, and one past the last."""
    areas = [height * width for height, width in sizes]
    return sum(areas[:scale]), sum(areas[: scale + 1])


def _level(state: jax.Array, sizes: list[tuple[int, int]], scale: int) -> jax.Array:
    """A state `[B, pixels, C]` at one scale, `[B, H, W, C]`."""
    first, stop = _span(sizes, scale)
    batch, _, channels = state.shape
    return state[:, first:stop].reshape(batch, *sizes[scale], channels)


def _all_levels(
    image: jax.Array, sizes: list[tuple[int, int]], scale: int
) -> jax.Array:
    """Resample an image of one scale to all, and join them to a state."""
    levels = {scale: image}
    for other in range(scale + 1, len(sizes)):
        levels[other] = ops.downsample(levels[other - 1])
    for other in range(scale - 1, -1, -1):
        levels[other] = ops.upsample(levels[other + 1])
    batch, *_, channels = image.shape
    flat = [levels[s].reshape(batch, -1, channels) for s in range(len(sizes))]
    return jnp.concatenate(flat, axis=1)


def _bottleneck(leaves: jax.Array, kernels: jax.Array, norm: Norm) -> jax.Array:
    """A 1x1 convolution of concatenated leaves, those that are none being zero.

    Args:
      leaves: `[num_leaves, B, H, W, C_in]`.
      kernels: `[num_leaves, C_in, C]`.
      norm: normalization.

    Returns:
      `[B, H, W, C]`.
    """
    x = jnp.moveaxis(leaves, 0, -2)
    x = x.reshape(*x.shape[:3], -1)
    return jax.nn.relu(norm(ops.pointwise_conv(x, kernels.reshape(x.shape[-1], -1))))


def _apply_op(name: str, x: jax.Array, weights: Weights) -> jax.Array:
    if name == "max_pool_3x3":
        return ops.max_pool_3x3(x, stride=1)
    if name == "avg_pool_3x3":
        return ops.avg_pool_3x3(x, stride=1)
    if name == "conv_1x1":
        return ops.pointwise_conv(x, weights["kernel"])
    return ops.conv(x, weights["kernel"], (1, 1))


def _edge_ops(
    space: AnytimeSpace, sizes: list[tuple[int, int]], norm: Norm
) -> list[EdgeOp]:
    """Operations at each scale: a 1x1 convolution, an activation, each operation."""
    _, num_pixels = _span(sizes, len(sizes) - 1)

    def place(image, scale):
        first, stop = _span(sizes, scale)
        pixels = image.reshape(image.shape[0], -1, image.shape[-1])
        return jnp.pad(pixels, ((0, 0), (first, num_pixels - stop), (0, 0)))

    def mix(state, row, scale):
        x = _level(state, sizes, scale)
        return place(ops.pointwise_conv(x, row["edges"]), scale)

    def activate(state, row, scale):
        del row
        x = jax.nn.relu(norm(_level(state, sizes, scale)))
        return _all_levels(x, sizes, scale)

    def operate(state, row, scale, name):
        x = _level(state, sizes, scale)
        return place(_apply_op(name, x, row["nodes"][name]), scale)

    operations = [functools.partial(operate, name=name) for name in space.ops]
    return [
        functools.partial(run, scale=scale)
        for run in (mix, activate, *operations)
        for scale in range(len(sizes))
    ]


def _edges(space: AnytimeSpace, block: int, arch: Arch) -> Edges:
    """The edges of one block, and three more within each node from node 2 on.

    States are the nodes, then for each node from node 2 on its bottleneck, before and
    after the activation, and what its operation yields.
    """
    num, num_scales = space.num_nodes[block], _BLOCKS - block
    scales = space.node_scales(arch, block) - block
    present = space.node_mask(arch, block)[2:]
    sources, targets = _edge_ends(num)
    nodes = np.arange(2, 2 + num, dtype=np.int32)
    bottlenecks, activations, results = (nodes + i * num for i in (1, 2, 3))
    activate, first_op = jnp.ones_like(scales), 2

    def within(source, target, op):
        return source, target, op * num_scales + scales, nodes - 2, present

    kinds = [
        (
            sources,
            bottlenecks[targets - 2],
            scales[targets - 2],  # to mix is number 0
            np.arange(sources.size, dtype=np.int32),
            space.adjacency(arch, block)[sources, targets],
        ),
        within(bottlenecks, activations, activate),
        within(activations, results, first_op + space.node_ops(arch, block)),
        within(results, nodes, activate),
    ]
    # By node, and for each node in the order of the kinds.
    order = np.argsort(np.concatenate([targets, nodes, nodes, nodes]), stable=True)
    source, target, op, row, exists = (
        jnp.concatenate(parts)[order] for parts in zip(*kinds, strict=True)
    )
    return select(Edges(source, target, op, row, jnp.int32(0)), exists)


def _run_block(
    space: AnytimeSpace,
    block: int,
    weights: Weights,
    arch: Arch,
    inputs: list[jax.Array],
    norm: Norm,
) -> tuple[jax.Array, list[tuple[int, int]]]:
    """Run the nodes of one block.

    Args:
      space: the search space.
      block: number of the block.
      weights: of the block.
      arch: the architecture.
      inputs: nodes 0 and 1, `[B, H, W, C]`.
      norm: normalization.

    Returns:
      The nodes from node 2 on, `[num_nodes, B, pixels, C]`, and the sizes of their
      scales.
    """
    num = space.num_nodes[block]
    sizes = _sizes(inputs[0], _BLOCKS - block)
    states = jnp.stack([_all_levels(x, sizes, 0) for x in inputs])
    empty = jnp.zeros((4 * num, *states.shape[1:]), states.dtype)
    states = evaluate(
        _edge_ops(space, sizes, norm),
        jnp.concatenate([states, empty]),
        {name: weights[name] for name in ("edges", "nodes")},
        _edges(space, block, arch),
    )
    return states[2 : 2 + num], sizes


def _leaves(
    space: AnytimeSpace,
    block: int,
    arch: Arch,
    nodes: jax.Array,
    sizes: list[tuple[int, int]],
) -> jax.Array:
    """The leaves of a block at half its finest scale; the other nodes as zeros."""
    images = jax.vmap(lambda node: _level(node, sizes, 1))(nodes)
    is_leaf = space.is_leaf(arch, block)[2:, None, None, None, None]
    return jnp.where(is_leaf, images, jnp.zeros((), images.dtype))


def _predict(
    space: AnytimeSpace,
    block: int,
    weights: Weights,
    arch: Arch,
    nodes: jax.Array,
    sizes: list[tuple[int, int]],
) -> jax.Array:
    """Logits `[num_exits, B, num_classes]` of the exits of one block."""
    # The first of them in the order of the nodes.
    exits = jnp.argsort(~space.has_exit(arch, block), stable=True)
    first, stop = _span(sizes, len(sizes) - 1)
    features = nodes[exits[: space.num_exits[block]], :, first:stop].mean(2)
    logits = jnp.einsum("ebc,ecd->ebd", features, weights["kernel"])
    return logits + weights["bias"][:, None]
