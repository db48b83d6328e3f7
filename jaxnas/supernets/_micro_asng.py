"""Stages of the micro supernet as laid out by ASNG-NAS.

Every cell preprocesses both inputs by ReLU, a 1x1 convolution and normalization; the
edges of a reduction cell that read its inputs have stride 2; a (node, input, operation)
has one set of weights, shared by both edges of the node; normalization has no learned
scale. Akimoto et al. 2019, section 3.2, official `cnn_model_micro.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas import ops
from jaxnas.ops import BatchNorm, Op, WeightSpec
from jaxnas.spaces.micro import MicroSpace
from jaxnas.supernets import _micro_cells, _micro_graph
from jaxnas.supernets._micro_cells import NUM_CELL_INPUTS
from jaxnas.supernets.edges import EdgeGroup, Edges, evaluate
from jaxnas.types import NodeAssignment, Weights


def _operations(space: MicroSpace) -> dict[str, Op]:
    primitives = ops.primitives(count_include_pad=True)
    return {name: primitives[name] for name in space.ops}


def specs(
    space: MicroSpace, channels: int, cells_per_stage: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Specs of the weights of all stages."""
    stages = []
    # Channels of the last two outputs, and whether the last one is smaller.
    before, last, shrank = 3 * channels, 3 * channels, False
    for index, num_cells in enumerate(cells_per_stage):
        width, reduces = channels * 2**index, index > 0
        stages.append(
            _stage_specs(space, width, num_cells, (before, last), reduces, shrank)
        )
        before, last = (width if num_cells > 1 else last), width
        shrank = reduces and num_cells == 1
    return stages


def apply(
    stages: list[Weights],
    space: MicroSpace,
    cells: jax.Array,
    stem: jax.Array,
    norm: BatchNorm,
) -> jax.Array:
    """Run all stages and return the last cell's output."""
    outputs = (stem, stem)
    for stage in stages:
        outputs = _apply_stage(stage, space, cells, outputs, norm)
    return outputs[1]


def assignments(
    stages: list[dict[str, Any]], space: MicroSpace, cells: jax.Array
) -> list[dict[str, Any]]:
    """Assignments of the weights of all stages.

    Args:
      stages: from `specs`.
      space: the search space.
      cells: int32 `[2, num_nodes, 4]`, normal and reduction cell.
    """
    result, first = [], 0
    for stage in stages:
        num_cells = stage["output"].shape[0]
        result.append(
            _stage_assignments(stage, space, cells, first + np.arange(num_cells))
        )
        first += num_cells
    return result


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

    operations = _operations(space)

    def table(sizes: tuple[int, ...], stride: int) -> dict[str, Any]:
        return _micro_cells.table_specs(operations, channels, sizes, stride)

    num_nodes = space.num_nodes
    num_from_inputs = num_nodes * NUM_CELL_INPUTS
    num_from_nodes = num_nodes * (num_nodes - 1) // 2
    output = WeightSpec((channels, channels), num_nodes * channels)
    stage: dict[str, Any] = {
        "first": {
            "preprocess_0": preprocess(previous[0], first_input_shrinks),
            "preprocess_1": pointwise(previous[1]),
        },
        "normal": table((num_cells - reduces, _micro_cells.num_rows(num_nodes)), 1),
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


def _stage_assignments(
    stage: dict[str, Any], space: MicroSpace, cells: jax.Array, blocks: np.ndarray
) -> dict[str, Any]:
    """Assignments of the weights of the cells with these numbers."""
    reduces, num_nodes = "reduction" in stage, space.num_nodes
    kinds = cells[np.where(np.arange(blocks.size) < reduces, 1, 0)]
    is_read = jax.vmap(_micro_cells.is_read, out_axes=1)(kinds)

    def preprocessing(source: int, chosen: Any) -> NodeAssignment:
        node = _micro_graph.node_of_state(source)
        return _micro_graph.assignment(blocks[chosen], node, is_read[source][chosen])

    states = np.arange(NUM_CELL_INPUTS, NUM_CELL_INPUTS + num_nodes)
    rows = _micro_graph.op_assignments(space, blocks, kinds, row_per_side=False)

    def table(specs: dict[str, Any], *index: Any) -> dict[str, Any]:
        chosen = jax.tree.map(lambda leaf: leaf[index], rows)
        return {name: dict.fromkeys(specs[name], chosen[name]) for name in specs}

    assignments: dict[str, Any] = {
        "first": {f"preprocess_{i}": preprocessing(i, 0) for i in (0, 1)},
        "normal": table(stage["normal"], slice(int(reduces), None)),
        "output": _micro_graph.assignment(
            blocks[:, None],
            _micro_graph.node_of_state(states)[None],
            ~is_read[NUM_CELL_INPUTS:].T,
        ),
    }
    if reduces:
        assignments["reduction"] = {
            name: table(stage["reduction"][name], 0, part)
            for name, part in _reduction_parts(num_nodes).items()
        }
    if "second" in stage:
        assignments["second"] = {"preprocess_0": preprocessing(0, 1)}
        assignments["preprocess_1"] = preprocessing(1, slice(1, None))
    if "preprocess_0" in stage:
        assignments["preprocess_0"] = preprocessing(0, slice(2, None))
    return assignments


def _reduction_parts(num_nodes: int) -> dict[str, np.ndarray]:
    """Which of a cell's rows are in the two tables of a reduction cell."""
    is_input = _micro_cells.row_sources(num_nodes) < NUM_CELL_INPUTS
    return {"from_inputs": is_input, "from_nodes": ~is_input}


def _reduction_edges(cell: jax.Array, name: str) -> tuple[Edges, jax.Array]:
    """Edges of a reduction cell, among its nodes, and which have rows of that table."""
    edges = _micro_cells.all_edges(cell, row_per_side=False)
    part = jnp.asarray(_reduction_parts(cell.shape[0])[name])
    first_source = 0 if name == "from_inputs" else NUM_CELL_INPUTS
    chosen = part[edges.row]
    edges = edges._replace(
        source=edges.source - first_source,
        target=edges.target - NUM_CELL_INPUTS,
        row=(jnp.cumsum(part, dtype=jnp.int32) - 1)[edges.row],
    )
    return edges, chosen


def _preprocess(x: jax.Array, kernel: jax.Array, norm: BatchNorm) -> jax.Array:
    if kernel.ndim == 3:
        return norm(ops.factorized_reduce(jax.nn.relu(x), kernel))
    return norm(_micro_cells.project(x, kernel))


def _cell_output(
    states: jax.Array, cell: jax.Array, kernels: jax.Array, norm: BatchNorm
) -> jax.Array:
    return norm(_micro_cells.join_loose_ends(states, NUM_CELL_INPUTS, cell, kernels))


def _reduction_cell(
    weights: Weights,
    kernels: jax.Array,
    operations: dict[str, Op],
    cell: jax.Array,
    inputs: jax.Array,
    norm: BatchNorm,
) -> jax.Array:
    """Edges from the inputs have stride 2; the nodes have half of the inputs' size."""
    _, batch, height, width, channels = inputs.shape
    num_nodes = cell.shape[0]
    edges, chosen = _reduction_edges(cell, "from_inputs")
    groups = [EdgeGroup(2 * num_nodes, 0, num_nodes)]
    nodes = evaluate(
        _micro_cells.edge_ops(operations, 2, norm),
        jnp.zeros((num_nodes, batch, height // 2, width // 2, channels), inputs.dtype),
        weights["from_inputs"],
        edges,
        inputs,
        chosen=chosen,
        layered=_micro_cells.layered_ops(operations, 2, norm, groups),
    )
    if num_nodes > 1:
        # The first node reads inputs only.
        edges, chosen = _reduction_edges(cell, "from_nodes")
        groups = [EdgeGroup(2, node) for node in range(1, num_nodes)]
        nodes = evaluate(
            _micro_cells.edge_ops(operations, 1, norm),
            nodes,
            weights["from_nodes"],
            edges.after(2),
            chosen=chosen[2:],
            layered=_micro_cells.layered_ops(operations, 1, norm, groups),
        )
    return _cell_output(nodes, cell, kernels, norm)


def _apply_stage(
    stage: Weights,
    space: MicroSpace,
    cells: jax.Array,
    outputs: tuple[jax.Array, jax.Array],
    norm: BatchNorm,
) -> tuple[jax.Array, jax.Array]:
    """Run the cells of one stage, its normal cells as one scan.

    Only the first two cells have inputs from the stage before. Each cell therefore
    preprocesses its output for the two cells that follow, so that what is carried from
    cell to cell has one shape throughout.

    Args:
      stage: weights, as specified by `_stage_specs`.
      space: the search space.
      cells: int32 `[2, num_nodes, 4]`, normal and reduction cell.
      outputs: outputs of the two cells before.
      norm: normalization.

    Returns:
      Outputs of the last two cells.
    """
    operations, num_cells = _operations(space), stage["output"].shape[0]
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
        states = _micro_cells.run_cell(
            operations,
            cell["edges"],
            normal,
            jnp.stack([input_0, input_1]),
            norm,
            row_per_side=False,
        )
        output = _cell_output(states, normal, cell["output"], norm)
        next_input_1 = ahead(cell["index"], 1, output)
        return (next_input_0, next_input_1, ahead(cell["index"], 2, output)), output

    carry, first_normal = (*inputs, next_input_0), 0
    if "reduction" in stage:
        output = _reduction_cell(
            stage["reduction"],
            stage["output"][0],
            operations,
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
        "index": np.arange(first_normal, num_cells),
    }
    _, results = _micro_cells.scan_cells(run_cell, carry, steps)
    before = results[-2] if results.shape[0] > 1 else outputs[1]
    return before, results[-1]
