"""The supernet of convolutional cells (ENAS micro, as laid out by ASNG-NAS)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas import ops
from jaxnas.ops import WeightSpec
from jaxnas.spaces.micro import MicroSpace
from jaxnas.supernets.edges import Edges, evaluate
from jaxnas.types import Arch, Key, Supernet, Weights

NUM_CELL_INPUTS = 2


def micro(
    space: MicroSpace,
    channels: int = 16,
    num_cells: int = 8,
    num_classes: int = 10,
    *,
    image_channels: int = 3,
) -> Supernet:
    """Make the supernet of a space of normal and reduction cells.

    A stem (3x3 convolution to `3 * channels`), `num_cells` cells in three stages, the
    second and third of which begin with a reduction cell and double the channels,
    global average pooling and a linear classifier. Every (node, input, operation) of a
    cell has its own weights, shared by both edges of the node; the nodes that no other
    node reads are joined by a 1x1 convolution. Normalisation uses the statistics of
    the batch, in training and in evaluation.

    Args:
      space: from `jaxnas.spaces.enas_micro`.
      channels: channels of the first stage, even.
      num_cells: at least 3; cells `num_cells // 3` and `2 * num_cells // 3` reduce.
      num_classes: size of the output.
      image_channels: channels of the input images.

    Returns:
      A `Supernet`; `apply` takes float images `[B, H, W, image_channels]`, `H` and `W`
      divisible by 4, and returns logits `[B, num_classes]`.

    Raises:
      ValueError: if `num_cells` is below 3 or `channels` is odd or not positive.

    Source: Akimoto et al. 2019, section 3.2 and the official `cnn_model_micro.py`,
    without the auxiliary head, which the search does not train.
    """
    if num_cells < 3:
        raise ValueError(f"num_cells is {num_cells}; two reductions need at least 3")
    if channels < 2 or channels % 2:
        raise ValueError(f"channels is {channels}; expected a positive even number")
    for name, value in (
        ("num_classes", num_classes),
        ("image_channels", image_channels),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")

    def init(key: Key) -> Weights:
        stem_channels = 3 * channels
        stages = []
        # Channels of the last two outputs, and whether the last one is smaller.
        before, last, shrank = stem_channels, stem_channels, False
        for index, cells in enumerate(_cells_per_stage(num_cells)):
            width, reduces = channels * 2**index, index > 0
            stages.append(
                _stage_specs(space, width, cells, (before, last), reduces, shrank)
            )
            before, last = (width if cells > 1 else last), width
            shrank = reduces and cells == 1
        bias = WeightSpec((num_classes,), last)
        weights = ops.draw(
            key,
            {
                "stem": {
                    "kernel": WeightSpec(
                        (3, 3, image_channels, stem_channels), 9 * image_channels
                    )
                },
                "stages": stages,
                "classifier": {"kernel": bias.stack(last), "bias": bias},
            },
        )
        weights["stem"]["scale"] = jnp.ones(stem_channels)
        weights["stem"]["bias"] = jnp.zeros(stem_channels)
        return weights

    def apply(
        weights: Weights,
        arch: Arch,
        images: jax.Array,
        *,
        train: bool = False,
        key: Key | None = None,
        batch_axis: str | None = None,
    ) -> jax.Array:
        del train, key  # this network behaves alike in training and evaluation
        norm = functools.partial(ops.batch_norm, batch_axis=batch_axis)
        cells = arch.reshape(2, space.num_nodes, 4)
        stem = weights["stem"]
        x = norm(ops.conv(images, stem["kernel"], (1, 1)))
        x = x * _row(stem["scale"], x) + _row(stem["bias"], x)
        outputs = (x, x)
        for stage in weights["stages"]:
            outputs = _apply_stage(stage, space, cells, outputs, norm)
        classifier = weights["classifier"]
        logits = outputs[1].mean((1, 2)) @ classifier["kernel"]
        return logits + _row(classifier["bias"], logits)

    return Supernet(space, init, apply)


def _row(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _cells_per_stage(num_cells: int) -> tuple[int, int, int]:
    first, second = num_cells // 3, 2 * num_cells // 3
    return first, second - first, num_cells - second


def _stage_specs(
    space: MicroSpace,
    channels: int,
    num_cells: int,
    previous: tuple[int, int],
    reduces: bool,
    first_input_shrinks: bool,
) -> dict[str, Any]:
    """Specs of the weights of the cells of one stage.

    `first` and `second` are the preprocessing of the first two cells, whose inputs
    come from the stage before; the others are stacked over cells.
    """

    def pointwise(channels_in: int) -> WeightSpec:
        return WeightSpec((channels_in, channels), channels_in)

    def preprocess(channels_in: int, shrink: bool) -> WeightSpec:
        if shrink:
            return ops.factorized_reduce_spec(channels_in, channels)
        return pointwise(channels_in)

    vocabulary = ops.vocabulary()

    def table(sizes: tuple[int, ...], stride: int) -> dict[str, Any]:
        return {
            name: {
                weight: spec.stack(*sizes)
                for weight, spec in vocabulary[name].specs(channels, stride).items()
            }
            for name in space.ops
        }

    num_nodes = space.num_nodes
    num_from_inputs = num_nodes * NUM_CELL_INPUTS
    num_from_nodes = num_nodes * (num_nodes - 1) // 2
    output = WeightSpec((channels, channels), num_nodes * channels)
    stage: dict[str, Any] = {
        "first": {
            "preprocess_0": preprocess(previous[0], first_input_shrinks),
            "preprocess_1": pointwise(previous[1]),
        },
        "normal": table((num_cells - reduces, num_from_inputs + num_from_nodes), 1),
        "output": output.stack(num_cells, num_nodes),
    }
    if reduces:
        stage["reduction"] = {
            "from_inputs": table((num_from_inputs,), 2),
            "from_nodes": table((num_from_nodes,), 1),
        }
    if num_cells > 1:
        stage["second"] = {"preprocess_0": preprocess(previous[1], reduces)}
        stage["preprocess_1"] = pointwise(channels).stack(num_cells - 1)
    if num_cells > 2:
        stage["preprocess_0"] = pointwise(channels).stack(num_cells - 2)
    return stage


def _edge_ops(names: tuple[str, ...], stride: int, norm: ops.Norm) -> tuple:
    vocabulary = ops.vocabulary(count_include_pad=True)
    return tuple(
        lambda x, row, name=name: vocabulary[name].apply(x, row[name], stride, norm)
        for name in names
    )


def _edges(cell: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Source, target and operation of a cell's edges, `[2 * num_nodes]` each."""
    num_nodes = cell.shape[0]
    target = jnp.repeat(jnp.arange(num_nodes, dtype=jnp.int32), 2) + NUM_CELL_INPUTS
    return cell[:, :2].reshape(-1), target, cell[:, 2:].reshape(-1)


def _normal_edges(cell: jax.Array) -> Edges:
    source, target, op = _edges(cell)
    node = target - NUM_CELL_INPUTS
    row = node * (node + 3) // 2 + source  # node n has n + 2 inputs
    return Edges(source, target, op, row, jnp.int32(source.size))


def _reduction_edges(cell: jax.Array) -> tuple[Edges, Edges]:
    """The edges from the cell's inputs (stride 2), and those between its nodes."""
    source, target, op = _edges(cell)
    node = target - NUM_CELL_INPUTS
    from_input = source < NUM_CELL_INPUTS
    input_row = node * NUM_CELL_INPUTS + source
    node_row = node * (node - 1) // 2 + source - NUM_CELL_INPUTS

    def select(chosen, target, row):
        order = jnp.argsort(~chosen, stable=True)
        count = chosen.sum(dtype=jnp.int32)
        return Edges(source[order], target[order], op[order], row[order], count)

    return (
        select(from_input, node, input_row),
        select(~from_input, target, node_row),
    )


def _preprocess(x: jax.Array, kernel: jax.Array, norm: ops.Norm) -> jax.Array:
    halves = kernel.ndim == 3
    convolve = ops.factorized_reduce if halves else ops.pointwise_conv
    return norm(convolve(jax.nn.relu(x), kernel))


def _cell_output(nodes, sources, kernel, norm: ops.Norm) -> jax.Array:
    """Join the nodes that no other node reads by a 1x1 convolution.

    A convolution of the concatenation is the sum of one convolution for each node, so
    masking the others keeps the shape independent of the architecture.
    """
    num_nodes = nodes.shape[0]
    read = jnp.zeros(num_nodes + NUM_CELL_INPUTS, bool).at[sources].set(True)
    loose = (~read[NUM_CELL_INPUTS:]).astype(nodes.dtype)
    return norm(
        sum(
            ops.pointwise_conv(jax.nn.relu(nodes[n]), kernel[n] * loose[n])
            for n in range(num_nodes)
        )
    )


def _apply_stage(
    stage: Weights,
    space: MicroSpace,
    cells: jax.Array,
    outputs: tuple[jax.Array, jax.Array],
    norm: ops.Norm,
) -> tuple[jax.Array, jax.Array]:
    """Run the cells of one stage as one scan.

    The reduction cell, if there is one, takes part in the scan with its edges between
    nodes, after its edges of stride 2 have been evaluated. Each step preprocesses its
    output for the following cells, so that the carry has one shape throughout.

    Args:
      stage: weights, as specified by `_stage_specs`.
      space: the search space.
      cells: int32 `[2, num_nodes, 4]`, normal and reduction cell.
      outputs: outputs of the two cells before.
      norm: normalisation.

    Returns:
      Outputs of the last two cells.
    """
    num_nodes, op_names = space.num_nodes, tuple(space.ops)
    num_cells = stage["output"].shape[0]
    first, second = stage["first"], stage.get("second")
    inputs = [
        _preprocess(outputs[0], first["preprocess_0"], norm),
        _preprocess(outputs[1], first["preprocess_1"], norm),
    ]
    edges = _normal_edges(cells[0])
    num_normal = num_cells - ("reduction" in stage)
    edges = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_normal, *leaf.shape)), edges
    )
    table = stage["normal"]
    if "reduction" in stage:
        from_inputs, from_nodes = _reduction_edges(cells[1])
        batch, height, width, channels = inputs[0].shape
        nodes = evaluate(
            _edge_ops(op_names, 2, norm),
            jnp.zeros(
                (num_nodes, batch, height // 2, width // 2, channels), inputs[0].dtype
            ),
            stage["reduction"]["from_inputs"],
            from_inputs,
            sources=jnp.stack(inputs),
        )
        inputs = [jnp.zeros_like(nodes[0])] * 2  # only edges of stride 2 read them
        edges = jax.tree.map(
            lambda one, more: jnp.concatenate([one[None], more]), from_nodes, edges
        )
        table = jax.tree.map(_prepend, stage["reduction"]["from_nodes"], table)
    else:
        nodes = jnp.zeros((num_nodes, *inputs[0].shape), inputs[0].dtype)
    if second is None:
        next_input = jnp.zeros_like(inputs[0])
    else:
        next_input = _preprocess(outputs[1], second["preprocess_0"], norm)

    def run_cell(carry, cell):
        input_0, input_1, next_input_0, nodes = carry
        states = jnp.concatenate([jnp.stack([input_0, input_1]), nodes])
        states = evaluate(
            _edge_ops(op_names, 1, norm), states, cell["table"], cell["edges"]
        )
        output = _cell_output(
            states[NUM_CELL_INPUTS:], cell["sources"], cell["output"], norm
        )

        def ahead(distance, kernel):
            return lax.cond(
                cell["index"] + distance < num_cells,
                lambda: _preprocess(output, kernel, norm),
                lambda: jnp.zeros_like(output),
            )

        carry = (
            next_input_0,
            ahead(1, cell["preprocess_1"]),
            ahead(2, cell["preprocess_0"]),
            jnp.zeros_like(nodes),
        )
        return carry, output

    def kernels_ahead(name):
        one_row = stage["output"][:, 0]
        return _extend(stage[name], num_cells) if name in stage else one_row * 0

    is_reduction = jnp.arange(num_cells) < num_cells - num_normal
    sources = cells[is_reduction.astype(jnp.int32), :, :2].reshape(num_cells, -1)
    steps = {
        "table": table,
        "edges": edges,
        "sources": sources,
        "output": stage["output"],
        "index": jnp.arange(num_cells),
        "preprocess_0": kernels_ahead("preprocess_0"),
        "preprocess_1": kernels_ahead("preprocess_1"),
    }
    carry = (*inputs, next_input, nodes)
    _, stage_outputs = lax.scan(run_cell, carry, steps)
    before = stage_outputs[-2] if num_cells > 1 else outputs[1]
    return before, stage_outputs[-1]


def _prepend(one: jax.Array, more: jax.Array) -> jax.Array:
    """Put a shorter table of rows before a stack of tables."""
    return jnp.concatenate([_extend(one, more.shape[1])[None], more])


def _extend(rows: jax.Array, length: int) -> jax.Array:
    """Append rows of zeros, which nothing reads."""
    missing = length - rows.shape[0]
    return jnp.pad(rows, ((0, missing),) + ((0, 0),) * (rows.ndim - 1))
