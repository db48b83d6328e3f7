"""The supernet of convolutional cells (ENAS micro)."""

from typing import Any, Literal

import jax
import numpy as np

from jaxnas import ops
from jaxnas._checks import check_dropout, check_sizes
from jaxnas.spaces.micro import MicroSpace
from jaxnas.supernets import _images, _micro_asng, _micro_enas, _micro_graph
from jaxnas.types import Arch, Graph, GraphSpec, Key, Supernet, Weights

Skeleton = Literal["asng", "enas"]


def micro(
    space: MicroSpace,
    channels: int = 16,
    num_cells: int = 8,
    num_classes: int = 10,
    *,
    skeleton: Skeleton = "asng",
    dropout: float = 0.0,
    image_channels: int = 3,
) -> Supernet:
    """Make the supernet of a space of normal and reduction cells.

    A stem (3x3 convolution to `3 * channels`), `num_cells` cells in three stages, the
    second and third of which begin with a reduction cell and double the channels,
    global average pooling and a linear classifier. The nodes of a cell that no other
    node reads are joined by a 1x1 convolution. Normalization uses the statistics of the
    batch, in training and in evaluation.

    Args:
      space: from `jaxnas.spaces.enas_micro`.
      channels: channels of the first stage, even.
      num_cells: at least 3; cells `num_cells // 3` and `2 * num_cells // 3` reduce.
      num_classes: size of the output.
      skeleton: `"asng"`: both edges of a node share the weights of their (input,
        operation), every cell preprocesses its inputs, reduction cells have stride 2;
        `"enas"`: every edge has its own weights, inputs are calibrated where their
        shapes differ, reduction cells read reduced inputs, normalizations have a
        learned scale and offset, unread cell inputs are joined too.
      dropout: probability of dropping a feature before the classifier, in training.
      image_channels: channels of the input images.

    Returns:
      A `Supernet`; `apply` takes float images `[B, H, W, image_channels]`, `H` and `W`
      divisible by 4, and returns logits `[B, num_classes]`. Training with dropout
      needs its `key`. Its graph spec has two nodes for the operations of a cell's node
      and one for their sum.

    Raises:
      ValueError: if `num_cells` is below 3 or another number is out of range.

    Source: Pham et al. 2018, section 2.4, official `micro_child.py` (20 channels, 8
    cells); Akimoto et al. 2019, section 3.2, official `cnn_model_micro.py`. Both
    without the auxiliary head, which neither search trains.
    """
    if num_cells < 3:
        raise ValueError(f"num_cells is {num_cells}; two reductions need at least 3")
    if skeleton not in ("asng", "enas"):
        raise ValueError(f"skeleton is {skeleton!r}; expected 'asng' or 'enas'")
    _images.check_channels(channels)
    check_sizes(num_classes=num_classes, image_channels=image_channels)
    check_dropout(dropout)
    is_enas = skeleton == "enas"
    stages = _micro_enas if is_enas else _micro_asng

    cells_per_stage = _cells_per_stage(num_cells)
    specs = {
        "stem": _images.stem_specs(image_channels, 3 * channels),
        "stages": stages.specs(space, channels, cells_per_stage),
        "classifier": _images.classifier_specs(
            4 * channels, num_classes, bias=not is_enas
        ),
    }

    def init(key: Key) -> Weights:
        return ops.init(key, specs, "he_normal" if is_enas else "uniform")

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
        norm = ops.BatchNorm(batch_axis)
        cells = arch.reshape(2, space.num_nodes, 4)
        stem = _images.stem(weights["stem"], images, norm)
        output = stages.apply(weights["stages"], space, cells, stem, norm)
        return _images.classify(
            weights["classifier"],
            output,
            dropout=dropout if train else 0.0,
            key=key,
            batch_axis=batch_axis,
        )

    def graph(arch: Arch) -> Graph:
        reduces = np.isin(np.arange(num_cells), np.cumsum(cells_per_stage)[:-1])
        cells = arch.reshape(2, space.num_nodes, 4)[reduces.astype(int)]
        return _micro_graph.graph(space, cells, joins_inputs=is_enas)

    def assignments(arch: Arch) -> dict[str, Any]:
        cells = arch.reshape(2, space.num_nodes, 4)
        common = {
            part: dict.fromkeys(specs[part], None) for part in ("stem", "classifier")
        }
        return common | {"stages": stages.assignments(specs["stages"], space, cells)}

    sizes = _micro_graph.feature_sizes(space)
    settings = {
        "supernet": "micro",
        "ops": list(space.ops),
        "channels": channels,
        "num_cells": num_cells,
        "num_classes": num_classes,
        "image_channels": image_channels,
        "layout": skeleton,
    }
    graph_spec = GraphSpec(sizes, specs, graph, assignments, settings)
    return Supernet(space, init, apply, graph_spec)


def _cells_per_stage(num_cells: int) -> tuple[int, int, int]:
    first, second = num_cells // 3, 2 * num_cells // 3
    return first, second - first, num_cells - second
