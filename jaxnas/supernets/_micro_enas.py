"""Stages of the micro supernet as laid out by ENAS.

Inputs are calibrated only where their size or channels differ; a reduction cell reads
two factorized reductions of the output before it, and all its edges have stride 1; a
(node, side, input, operation) has its own weights; normalizations have a learned scale
and offset; cell inputs that no node reads are loose ends too. Pham et al. 2018, section
2.4, official `micro_child.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import ops
from jaxnas.ops import BatchNorm, Op, WeightSpec
from jaxnas.spaces.micro import MicroSpace
from jaxnas.supernets import _micro_cells, _micro_graph
from jaxnas.supernets._micro_cells import NUM_CELL_INPUTS
from jaxnas.types import Weights


def _operations(space: MicroSpace) -> dict[str, Op]:
    primitives = ops.primitives()
    return {name: ops.with_affine_norms(primitives[name]) for name in space.ops}


def specs(
    space: MicroSpace, channels: int, cells_per_stage: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Specs of the weights of all stages."""
    return [
        _stage_specs(space, channels * 2**index, num_cells, index > 0)
        for index, num_cells in enumerate(cells_per_stage)
    ]


def apply(
    stages: list[Weights],
    space: MicroSpace,
    cells: jax.Array,
    stem: jax.Array,
    norm: BatchNorm,
) -> jax.Array:
    """Run all stages and return the last cell's output, after a ReLU."""
    output = stem
    for stage in stages:
        output = _apply_stage(stage, space, cells, output, norm)
    return jax.nn.relu(output)


def assignments(
    stages: list[dict[str, Any]], space: MicroSpace, cells: jax.Array
) -> list[dict[str, Any]]:
    """Assignments of the weights of all stages.

    Args:
      stages: from `specs`.
      space: the search space.
      cells: int32 `[2, num_nodes, 4]`, normal and reduction cell.
    """
    states = np.arange(NUM_CELL_INPUTS + space.num_nodes)
    states, last = _micro_graph.node_of_state(states), 3 * space.num_nodes + 1
    result, first = [], 0
    for index, stage in enumerate(stages):
        num_cells = stage["output"]["kernel"].shape[0]
        blocks = first + np.arange(num_cells)
        kinds = cells[np.where((np.arange(num_cells) == 0) & (index > 0), 1, 0)]
        # Of the first cell's inputs 0 and 1, and of the second cell's input 0.
        places = [(first, 1), (first, 0), (first + 1, 1)][: len(stage["inputs"])]
        calibrations = [_micro_graph.assignment(*place, True) for place in places]
        rows = _micro_graph.op_assignments(space, blocks, kinds, row_per_side=True)
        loose = ~jax.vmap(_micro_cells.is_read)(kinds)
        always = np.ones(num_cells, bool)
        result.append(
            {
                "inputs": [
                    dict.fromkeys(specs, assignment)
                    for specs, assignment in zip(
                        stage["inputs"], calibrations, strict=True
                    )
                ],
                "edges": {
                    name: dict.fromkeys(stage["edges"][name], assignment)
                    for name, assignment in rows.items()
                },
                "output": dict.fromkeys(
                    ("scale", "offset"), _micro_graph.assignment(blocks, last, always)
                )
                | {
                    "kernel": _micro_graph.assignment(
                        blocks[:, None], states[None], loose
                    )
                },
            }
        )
        first += num_cells
    return result


def _stage_specs(
    space: MicroSpace, channels: int, num_cells: int, reduces: bool
) -> dict[str, Any]:
    """Specs of the weights of one stage, those of its cells stacked.

    `inputs` are the calibrations: of the first cell's two inputs, and in the first
    stage of the second cell's input 0, which is the stem too.
    """
    affine = ops.affine_specs(channels)
    if reduces:
        kernel = ops.factorized_reduce_spec(channels // 2, channels)
        inputs = [{"kernel": kernel, **affine}] * NUM_CELL_INPUTS
    else:
        kernel = WeightSpec((3 * channels, channels), 3 * channels)
        num_calibrated = NUM_CELL_INPUTS + (num_cells > 1)
        inputs = [{"kernel": kernel, **affine}] * num_calibrated
    num_states = space.num_nodes + NUM_CELL_INPUTS
    rows = 2 * _micro_cells.num_rows(space.num_nodes)
    output = WeightSpec((num_states, channels, channels), num_states * channels)
    return {
        "inputs": inputs,
        "edges": _micro_cells.table_specs(
            _operations(space), channels, (num_cells, rows), 1
        ),
        "output": {
            "kernel": output.stack(num_cells),
            **ops.affine_specs(num_cells, channels),
        },
    }


def _calibrate(x: jax.Array, weights: Weights, norm: BatchNorm) -> jax.Array:
    if weights["kernel"].ndim == 3:
        y = ops.factorized_reduce(x, weights["kernel"])
    else:
        y = ops.pointwise_conv(x, weights["kernel"])
    return ops.scale_and_offset(norm(y), weights["scale"], weights["offset"])


def _apply_stage(
    stage: Weights,
    space: MicroSpace,
    cells: jax.Array,
    x: jax.Array,
    norm: BatchNorm,
) -> jax.Array:
    """Run the cells of one stage as one scan.

    Args:
      stage: weights, as specified by `_stage_specs`.
      space: the search space.
      cells: int32 `[2, num_nodes, 4]`, normal and reduction cell.
      x: the output before this stage.
      norm: normalization.

    Returns:
      Output of the last cell.
    """
    operations, inputs = _operations(space), stage["inputs"]
    activated = jax.nn.relu(x)
    input_0 = _calibrate(activated, inputs[0], norm)
    if inputs[1]["kernel"].ndim == 3:  # a reduction: without a ReLU, and used twice
        input_1 = next_input_0 = _calibrate(x, inputs[1], norm)
        first_cell = cells[1]
    else:
        input_1 = _calibrate(activated, inputs[1], norm)
        next_input_0 = _calibrate(activated, inputs[-1], norm)
        first_cell = cells[0]

    def run_cell(carry, weights):
        input_0, input_1, next_input_0, cell = carry
        states = _micro_cells.run_cell(
            operations,
            weights["edges"],
            cell,
            jnp.stack([input_0, input_1]),
            norm,
            row_per_side=True,
        )
        joint = weights["output"]
        y = norm(_micro_cells.join_loose_ends(states, 0, cell, joint["kernel"]))
        y = ops.scale_and_offset(y, joint["scale"], joint["offset"])
        return (next_input_0, y, y, cells[0]), None

    stacked = {"edges": stage["edges"], "output": stage["output"]}
    carry = (input_0, input_1, next_input_0, first_cell)
    (_, output, _, _), _ = _micro_cells.scan_cells(run_cell, carry, stacked)
    return output
