"""The primitive operations, once, for supernets and for trained networks.

Images are `[B, H, W, C]`. An operation is a pair of pure functions: `specs` tells
which weights it has, `apply` uses them. Normalization is handed in, because the
supernets use the statistics of the batch and nothing else, while a network that is
trained from scratch has scale, offset and running statistics.
"""

from jaxnas.ops.convolutions import (
    conv,
    factorized_reduce,
    pointwise_conv,
    transposed_conv,
)
from jaxnas.ops.language import (
    LanguageOutputs,
    RecurrentDropout,
    cross_entropy,
    language_model,
    language_specs,
)
from jaxnas.ops.layers import Layer, LayerWeights
from jaxnas.ops.operations import (
    BatchNorm,
    Norm,
    Op,
    batch_norm,
    factorized_reduce_spec,
    primitives,
    scale_and_offset,
    with_affine_norms,
)
from jaxnas.ops.recurrence import (
    ACTIVATIONS,
    Activation,
    RecurrentCell,
    run_recurrent_cell,
)
from jaxnas.ops.resampling import downsample, upsample
from jaxnas.ops.shifted import avg_pool_3x3, depthwise_conv, max_pool_3x3
from jaxnas.ops.weights import Distribution, WeightSpec, affine_specs, init

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "BatchNorm",
    "Distribution",
    "LanguageOutputs",
    "Layer",
    "LayerWeights",
    "Norm",
    "Op",
    "RecurrentCell",
    "RecurrentDropout",
    "WeightSpec",
    "affine_specs",
    "avg_pool_3x3",
    "batch_norm",
    "conv",
    "cross_entropy",
    "depthwise_conv",
    "downsample",
    "factorized_reduce",
    "factorized_reduce_spec",
    "init",
    "language_model",
    "language_specs",
    "max_pool_3x3",
    "pointwise_conv",
    "primitives",
    "run_recurrent_cell",
    "scale_and_offset",
    "transposed_conv",
    "upsample",
    "with_affine_norms",
]
