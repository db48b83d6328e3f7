"""The supernet of whole convolutional networks (ENAS macro)."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnas import ops
from jaxnas._checks import check_dropout, check_sizes
from jaxnas.ops import Norm, Op, WeightSpec
from jaxnas.spaces.macro import MacroSpace
from jaxnas.supernets import _images, _macro_graph
from jaxnas.supernets.edges import EdgeOp, evaluate
from jaxnas.types import Arch, Graph, GraphSpec, Key, Supernet, Weights

Skips = Literal["concat", "add"]


def macro(
    space: MacroSpace,
    channels: int = 36,
    num_classes: int = 10,
    *,
    skips: Skips = "concat",
    dropout: float = 0.0,
    image_channels: int = 3,
) -> Supernet:
    """Make the supernet of a space of chains of layers with skip connections.

    A stem (3x3 convolution), `num_layers` layers in three stages of equal channels,
    global average pooling and a linear classifier without bias. A layer applies its
    operation to the output of the layer before and joins it with the sources its
    skips select. After the first and the second third of the layers, the stem's and
    all layers' outputs so far are halved, each by a factorized reduction of its own.
    Every (layer, operation) has its own weights. Normalization uses the statistics of
    the batch, in training and in evaluation.

    Args:
      space: from `jaxnas.spaces.enas_macro`, of 3 layers or more.
      channels: channels of all layers, even.
      num_classes: size of the output.
      skips: `"concat"`: ReLU and a 1x1 convolution of the concatenation of a layer's
        own output and its skips (the paper; computed as a masked sum of 1x1
        convolutions); `"add"`: their sum (the official search).
      dropout: probability of dropping a feature before the classifier, in training.
      image_channels: channels of the input images.

    Returns:
      A `Supernet` with a graph spec; `apply` takes float images
      `[B, H, W, image_channels]`, `H` and `W` divisible by 4, and returns logits
      `[B, num_classes]`. Training with dropout needs its `key`. In the graph spec the
      network is one block, whose node 0 is the stem; operations, joins and reductions
      are nodes. The number of layers is none of its settings: one hypernetwork serves
      all depths.

    Raises:
      ValueError: if the space has fewer than 3 layers or a number is out of range.

    Source: Pham et al. 2018, section 2.3, and the official `general_child.py`. Unlike
    there, the choice of the operation acts, and statistics are always the batch's.
    """
    if space.num_layers < 3:
        raise ValueError(
            f"the space has {space.num_layers} layers; two reductions need at least 3"
        )
    if skips not in ("concat", "add"):
        raise ValueError(f"skips is {skips!r}; expected 'concat' or 'add'")
    _images.check_channels(channels)
    check_sizes(num_classes=num_classes, image_channels=image_channels)
    check_dropout(dropout)
    stages = _macro_graph.stages_of(space.num_layers)

    specs = {
        "stem": _images.stem_specs(image_channels, channels),
        "stages": [_stage_specs(space, channels, s, skips) for s in stages],
        "classifier": _images.classifier_specs(channels, num_classes, bias=False),
    }

    def init(key: Key) -> Weights:
        return ops.init(key, specs, "he_normal")

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
        # Sources of the layers: the stem, then the outputs so far.
        sources = _images.stem(weights["stem"], images, norm)[None]
        for layers, stage in zip(stages, weights["stages"], strict=True):
            if "reductions" in stage:
                sources = _reduce(stage["reductions"], sources, norm)
            sources = _apply_stage(stage, space, layers, arch, sources, norm)
        return _images.classify(
            weights["classifier"],
            sources[-1],
            dropout=dropout if train else 0.0,
            key=key,
            batch_axis=batch_axis,
        )

    def graph(arch: Arch) -> Graph:
        return _macro_graph.graph_of(space, arch)

    def assignments(arch: Arch) -> dict[str, Any]:
        return {
            "stem": dict.fromkeys(specs["stem"]),
            "stages": _macro_graph.assignments_of(space, specs["stages"], arch),
            "classifier": dict.fromkeys(specs["classifier"]),
        }

    settings = {
        "supernet": "macro",
        "ops": list(space.ops),
        "channels": channels,
        "num_classes": num_classes,
        "image_channels": image_channels,
        "skips": skips,
    }
    sizes = _macro_graph.feature_sizes(space)
    graph_spec = GraphSpec(sizes, specs, graph, assignments, settings)
    return Supernet(space, init, apply, graph_spec)


def _stage_specs(
    space: MacroSpace, channels: int, layers: range, skips: Skips
) -> dict[str, Any]:
    """Specs of the weights of one stage, each stacked over layers or sources."""
    joining = [k for k in layers if k > 0]  # the first layer has nothing to join
    stage: dict[str, Any] = {
        "layers": {
            name: {
                weight: spec.stack(len(layers))
                for weight, spec in op.specs(channels, 1).items()
            }
            for name, op in _operations().items()
            if name in space.ops
        },
    }
    if joining:
        stage["joints"] = ops.affine_specs(len(joining), channels)
    if joining and skips == "concat":
        kernel = WeightSpec((channels, channels), channels)
        stage["joints"]["kernel"] = kernel.stack(sum(k + 1 for k in joining))
    if layers.start > 0:
        num_sources = layers.start + 1
        stage["reductions"] = {
            "kernel": ops.factorized_reduce_spec(channels, channels).stack(num_sources),
            **ops.affine_specs(num_sources, channels),
        }
    return stage


def _conv_specs(size: int, channels: int, stride: int) -> dict[str, WeightSpec]:
    del stride
    shape = size, size, channels, channels
    return {
        "entry": WeightSpec((channels, channels), channels),
        "kernel": WeightSpec(shape, size * size * channels),
    }


def _separable_specs(size: int, channels: int, stride: int) -> dict[str, WeightSpec]:
    del stride
    pointwise = WeightSpec((channels, channels), channels)
    return {
        "entry": pointwise,
        "depthwise": WeightSpec((size, size, channels), size * size),
        "pointwise": pointwise,
    }


def _pool_specs(channels: int, stride: int) -> dict[str, WeightSpec]:
    del stride
    return {"entry": WeightSpec((channels, channels), channels)}


def _enter(x: jax.Array, weights: Weights, norm: Norm) -> jax.Array:
    return jax.nn.relu(norm(ops.pointwise_conv(x, weights["entry"])))


def _conv(x: jax.Array, weights: Weights, stride: int, norm: Norm) -> jax.Array:
    x = _enter(x, weights, norm)
    return jax.nn.relu(norm(ops.conv(x, weights["kernel"], (stride, stride))))


def _separable(x: jax.Array, weights: Weights, stride: int, norm: Norm) -> jax.Array:
    x = ops.depthwise_conv(
        _enter(x, weights, norm), weights["depthwise"], stride=stride
    )
    return jax.nn.relu(norm(ops.pointwise_conv(x, weights["pointwise"])))


def _avg_pool(x: jax.Array, weights: Weights, stride: int, norm: Norm) -> jax.Array:
    return ops.avg_pool_3x3(_enter(x, weights, norm), stride=stride)


def _max_pool(x: jax.Array, weights: Weights, stride: int, norm: Norm) -> jax.Array:
    return ops.max_pool_3x3(_enter(x, weights, norm), stride=stride)


def _operations() -> dict[str, Op]:
    """A 1x1 convolution, then the operation; separable ones are applied once."""
    operations = {
        "conv_3x3": Op(functools.partial(_conv_specs, 3), _conv, 2),
        "sep_conv_3x3": Op(functools.partial(_separable_specs, 3), _separable, 2),
        "conv_5x5": Op(functools.partial(_conv_specs, 5), _conv, 2),
        "sep_conv_5x5": Op(functools.partial(_separable_specs, 5), _separable, 2),
        "avg_pool_3x3": Op(_pool_specs, _avg_pool, 1),
        "max_pool_3x3": Op(_pool_specs, _max_pool, 1),
    }
    return {name: ops.with_affine_norms(op) for name, op in operations.items()}


def _reduce(weights: Weights, sources: jax.Array, norm: Norm) -> jax.Array:
    """Halve height and width of all sources."""

    def reduce_one(x, weights):
        y = norm(ops.factorized_reduce(x, weights["kernel"]))
        return ops.scale_and_offset(y, weights["scale"], weights["offset"])

    return jax.vmap(reduce_one)(sources, weights)


def _edge_ops(space: MacroSpace, norm: Norm, *, joins: bool) -> list[EdgeOp]:
    """The operations of the space, then joining and normalizing if a layer does."""
    operations = _operations()

    def join(x, row):
        joints = row["joints"]
        if "kernel" not in joints:
            return x
        return ops.pointwise_conv(jax.nn.relu(x), joints["kernel"])

    def normalize(x, row):
        joints = row["joints"]
        return ops.scale_and_offset(norm(x), joints["scale"], joints["offset"])

    chosen = [
        lambda x, row, op=operations[name], name=name: op.apply(
            x, row["layers"][name], 1, norm
        )
        for name in space.ops
    ]
    return [*chosen, join, normalize] if joins else chosen


def _apply_stage(
    stage: Weights,
    space: MacroSpace,
    layers: range,
    arch: Arch,
    sources: jax.Array,
    norm: Norm,
) -> jax.Array:
    """Run the layers of one stage and return all sources, old and new."""
    num_joining = len([k for k in layers if k > 0])
    num_new = len(layers) + 2 * num_joining
    empty = jnp.zeros((num_new, *sources.shape[1:]), sources.dtype)
    weights = {name: stage[name] for name in ("layers", "joints") if name in stage}
    states = evaluate(
        _edge_ops(space, norm, joins=num_joining > 0),
        jnp.concatenate([sources, empty]),
        weights,
        _macro_graph.edges_of(space, layers, arch),
    )
    return states[: layers.stop + 1]
