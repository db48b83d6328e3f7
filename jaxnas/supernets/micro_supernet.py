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
        if images.ndim != 4 or images.shape[1] % 4 or images.shape[2] % 4:
            raise ValueError(
                f"images have shape {images.shape}; expected [B, H, W, C], image "
                "height and width must be divisible by 4"
            )
        if arch.shape != (len(space.cardinalities),):
            raise ValueError(
                f"arch has shape {arch.shape}; expected ({len(space.cardinalities)},)"
            )
        norm = functools.partial(ops.batch_norm, batch_axis=batch_axis)
        cells = arch.reshape(2, space.num_nodes, 4)
        stem = weights["stem"]
        x = norm(ops.conv(images, stem["kernel"], (1, 1)))
        x = x * _row(stem["scale"], x) + _row(stem["bias"], x)
        outputs = (x, x)
        for stage in weights["stages"]:
            outputs = _apply_stage(stage, tuple(space.ops), cells, outputs, norm)
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
    """Source, node and operation of a cell's edges, `[2 * num_nodes]` each."""
    node = jnp.repeat(jnp.arange(cell.shape[0], dtype=jnp.int32), 2)
    return cell[:, :2].reshape(-1), node, cell[:, 2:].reshape(-1)


def _select(edges: Edges, chosen: jax.Array) -> Edges:
    """Keep the chosen edges, in their order."""
    order = jnp.argsort(~chosen, stable=True)
    source, target, op, row = (leaf[order] for leaf in edges[:-1])
    return Edges(source, target, op, row, chosen.sum(dtype=jnp.int32))


def _normal_edges(cell: jax.Array) -> Edges:
    source, node, op = _edges(cell)
    row = node * (node + 3) // 2 + source  # node n has n + 2 inputs
    return Edges(source, node + NUM_CELL_INPUTS, op, row, jnp.int32(source.size))


def _edges_from_inputs(cell: jax.Array) -> Edges:
    source, node, op = _edges(cell)
    row = node * NUM_CELL_INPUTS + source
    edges = Edges(source, node, op, row, jnp.int32(0))
    return _select(edges, source < NUM_CELL_INPUTS)


def _edges_from_nodes(cell: jax.Array) -> Edges:
    source, node, op = _edges(cell)
    row = node * (node - 1) // 2 + source - NUM_CELL_INPUTS
    edges = Edges(source - NUM_CELL_INPUTS, node, op, row, jnp.int32(0))
    return _select(edges, source >= NUM_CELL_INPUTS)


def _loose_edges(cell: jax.Array) -> Edges:
    """One edge from every node that no other node reads, to a single state."""
    num_nodes = cell.shape[0]
    read = jnp.zeros(num_nodes + NUM_CELL_INPUTS, bool)
    read = read.at[cell[:, :2].reshape(-1)].set(True)[NUM_CELL_INPUTS:]
    node = jnp.arange(num_nodes, dtype=jnp.int32)
    return _select(Edges(node, 0 * node, 0 * node, node, jnp.int32(0)), ~read)


def _project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return ops.pointwise_conv(jax.nn.relu(x), kernel)


def _preprocess(x: jax.Array, kernel: jax.Array, norm: ops.Norm) -> jax.Array:
    if kernel.ndim == 3:
        return norm(ops.factorized_reduce(jax.nn.relu(x), kernel))
    return norm(_project(x, kernel))


def _cell_output(
    states: jax.Array,
    first_node: int,
    cell: jax.Array,
    kernels: Weights,
    norm: ops.Norm,
) -> jax.Array:
    """Join the nodes that no other node reads by a 1x1 convolution.

    A convolution of a concatenation is a sum of convolutions: one edge for each node.
    """
    edges = _loose_edges(cell)
    edges = edges._replace(source=edges.source + first_node)
    total = jnp.zeros((1, *states.shape[1:]), states.dtype)
    return norm(evaluate([_project], total, kernels, edges, sources=states)[0])


def _reduction_cell(
    weights: Weights,
    kernels: Weights,
    op_names: tuple[str, ...],
    cell: jax.Array,
    inputs: jax.Array,
    norm: ops.Norm,
) -> jax.Array:
    """Edges from the inputs have stride 2; the nodes have half of the inputs' size."""
    _, batch, height, width, channels = inputs.shape
    shape = (cell.shape[0], batch, height // 2, width // 2, channels)
    nodes = evaluate(
        _edge_ops(op_names, 2, norm),
        jnp.zeros(shape, inputs.dtype),
        weights["from_inputs"],
        _edges_from_inputs(cell),
        sources=inputs,
    )
    if cell.shape[0] > 1:
        nodes = evaluate(
            _edge_ops(op_names, 1, norm),
            nodes,
            weights["from_nodes"],
            _edges_from_nodes(cell),
        )
    return _cell_output(nodes, 0, cell, kernels, norm)


def _normal_cell(
    weights: Weights,
    kernels: Weights,
    op_names: tuple[str, ...],
    cell: jax.Array,
    inputs: jax.Array,
    norm: ops.Norm,
) -> jax.Array:
    nodes = jnp.zeros((cell.shape[0], *inputs.shape[1:]), inputs.dtype)
    states = evaluate(
        _edge_ops(op_names, 1, norm),
        jnp.concatenate([inputs, nodes]),
        weights,
        _normal_edges(cell),
    )
    return _cell_output(states, NUM_CELL_INPUTS, cell, kernels, norm)


def _apply_stage(
    stage: Weights,
    op_names: tuple[str, ...],
    cells: jax.Array,
    outputs: tuple[jax.Array, jax.Array],
    norm: ops.Norm,
) -> tuple[jax.Array, jax.Array]:
    """Run the cells of one stage, its normal cells as one scan.

    Only the first two cells have inputs from the stage before. Each cell therefore
    preprocesses its output for the two cells that follow, so that what is carried from
    cell to cell has one shape throughout.

    Args:
      stage: weights, as specified by `_stage_specs`.
      op_names: operations of the search space.
      cells: int32 `[2, num_nodes, 4]`, normal and reduction cell.
      outputs: outputs of the two cells before.
      norm: normalisation.

    Returns:
      Outputs of the last two cells.
    """
    num_cells = stage["output"].shape[0]
    normal, reduction = cells
    inputs = [
        _preprocess(x, stage["first"][f"preprocess_{i}"], norm)
        for i, x in enumerate(outputs)
    ]
    if num_cells > 1:
        next_input_0 = _preprocess(outputs[1], stage["second"]["preprocess_0"], norm)
    else:
        next_input_0 = inputs[0]  # there is no next cell

    def ahead(index, distance, output):
        """Preprocess an output for the cell `distance` further on, if there is one."""
        name = f"preprocess_{2 - distance}"
        if name not in stage:
            return jnp.zeros_like(output)
        kernel = stage[name][jnp.minimum(index, num_cells - distance - 1)]
        return lax.cond(
            index + distance < num_cells,
            lambda: _preprocess(output, kernel, norm),
            lambda: jnp.zeros_like(output),
        )

    def run_cell(carry, cell):
        input_0, input_1, next_input_0 = carry
        output = _normal_cell(
            cell["edges"],
            cell["output"],
            op_names,
            normal,
            jnp.stack([input_0, input_1]),
            norm,
        )
        next_input_1 = ahead(cell["index"], 1, output)
        return (next_input_0, next_input_1, ahead(cell["index"], 2, output)), output

    carry, first_normal = (*inputs, next_input_0), 0
    if "reduction" in stage:
        output = _reduction_cell(
            stage["reduction"],
            stage["output"][0],
            op_names,
            reduction,
            jnp.stack(inputs),
            norm,
        )
        outputs, first_normal = (outputs[1], output), 1
        if num_cells == 1:
            return outputs
        carry = (next_input_0, ahead(0, 1, output), ahead(0, 2, output))
    steps = {
        "edges": stage["normal"],
        "output": stage["output"][first_normal:],
        "index": jnp.arange(first_normal, num_cells),
    }
    _, results = lax.scan(run_cell, carry, steps)
    before = results[-2] if results.shape[0] > 1 else outputs[1]
    return before, results[-1]
