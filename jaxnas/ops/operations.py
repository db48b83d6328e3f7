"""The operations that architectures choose from."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.ops import layers
from jaxnas.ops.convolutions import conv, factorized_reduce, pointwise_conv
from jaxnas.ops.layers import Chain
from jaxnas.ops.shifted import avg_pool_3x3, depthwise_conv, max_pool_3x3
from jaxnas.ops.weights import WeightSpec, affine_specs
from jaxnas.types import Weights

Norm = Callable[[jax.Array], jax.Array]


class Op(NamedTuple):
    """An operation that keeps the number of channels.

    Attributes:
      specs: `(channels, stride) -> specs` of its weights by name, possibly none.
      apply: `(x, weights, stride, norm) -> y`, with `y` of shape
        `[B, H / stride, W / stride, C]`.
      num_norms: how often `apply` calls `norm` where the operation has weights; it
        does not where there are none.
      chains: `stride -> chains` of layers, the sum of which the operation is; `None` if
        it is no such sum.
    """

    specs: Callable[[int, int], dict[str, WeightSpec]]
    apply: Callable[[jax.Array, Weights, int, Norm], jax.Array]
    num_norms: int
    chains: Callable[[int], tuple[Chain, ...]] | None = None


def scale_and_offset(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """`x * scale + offset` for channels `[C]` of images `[B, H, W, C]`."""
    return x * scale[None, None, None] + offset[None, None, None]


def with_affine_norms(op: Op) -> Op:
    """The operation with a learned scale and offset after each of its normalizations.

    They are weights `scale` and `offset` of shape `[num_norms, C]`.
    """

    def specs(channels: int, stride: int) -> dict[str, WeightSpec]:
        weights = op.specs(channels, stride)
        return weights and weights | affine_specs(op.num_norms, channels)

    def apply(x: jax.Array, weights: Weights, stride: int, norm: Norm) -> jax.Array:
        if "scale" not in weights:
            return op.apply(x, weights, stride, norm)
        affine = iter(zip(weights["scale"], weights["offset"], strict=True))
        return op.apply(
            x, weights, stride, lambda y: scale_and_offset(norm(y), *next(affine))
        )

    chains_of = op.chains
    if chains_of is None:
        return op._replace(specs=specs, apply=apply)
    return Op(
        specs,
        apply,
        op.num_norms,
        lambda stride: tuple(map(layers.with_affine, chains_of(stride))),
    )


def batch_norm(
    x: jax.Array, *, batch_axis: str | None = None, epsilon: float = 1e-5
) -> jax.Array:
    """Normalize every channel by the mean and variance of this batch.

    Args:
      x: `[B, H, W, C]`.
      batch_axis: name of the mapped axis over which the batch is sharded, if it is.
      epsilon: added to the variance.

    Returns:
      Array of `x`'s shape and dtype; the statistics are computed in float32 or wider.
    """
    wide = x.astype(np.promote_types(x.dtype, jnp.float32))
    mean = wide.mean((0, 1, 2), keepdims=True)
    mean_of_squares = jnp.square(wide).mean((0, 1, 2), keepdims=True)
    if batch_axis is not None:
        mean, mean_of_squares = lax.pmean((mean, mean_of_squares), batch_axis)
    # Rounding can make the difference of a constant channel slightly negative.
    variance = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
    return ((wide - mean) * lax.rsqrt(variance + epsilon)).astype(x.dtype)


class BatchNorm(NamedTuple):
    """`batch_norm` with its settings.

    Attributes:
      batch_axis: name of the mapped axis over which the batch is sharded, if it is.
      epsilon: added to the variance.
    """

    batch_axis: str | None = None
    epsilon: float = 1e-5

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize `[B, H, W, C]`."""
        return batch_norm(x, batch_axis=self.batch_axis, epsilon=self.epsilon)


def factorized_reduce_spec(channels_in: int, channels_out: int) -> WeightSpec:
    """Spec of the kernel of `factorized_reduce`; `ValueError` for an odd `C_out`."""
    if channels_out % 2:
        raise ValueError(
            f"a factorized reduction to {channels_out} channels: expected an even "
            "number"
        )
    return WeightSpec((2, channels_in, channels_out // 2), channels_in)


def _no_weights(channels: int, stride: int) -> dict[str, WeightSpec]:
    del channels, stride
    return {}


def _zero(x, weights, stride, norm):
    del weights, norm
    return jnp.zeros_like(x[:, ::stride, ::stride])


def _avg_pool(count_include_pad, x, weights, stride, norm):
    del weights, norm
    return avg_pool_3x3(x, stride=stride, count_include_pad=count_include_pad)


def _max_pool_op(x, weights, stride, norm):
    del weights, norm
    return max_pool_3x3(x, stride=stride)


def _skip_specs(channels, stride):
    if stride == 1:
        return {}
    return {"kernel": factorized_reduce_spec(channels, channels)}


def _skip(x, weights, stride, norm):
    if stride == 1:
        return x
    return norm(factorized_reduce(jax.nn.relu(x), weights["kernel"]))


def _skip_chains(stride):
    return ((),) if stride == 1 else layers.factorized_reduce_chains()


def _separable_specs(size, num_layers, channels, stride):
    del stride
    depthwise = WeightSpec((size, size, channels), size * size, spatial=(-3, -2))
    pointwise = WeightSpec((channels, channels), channels)
    return {
        "depthwise": depthwise.stack(num_layers),
        "pointwise": pointwise.stack(num_layers),
    }


def _separable(dilation, x, weights, stride, norm):
    """ReLU, depthwise, pointwise, normalization; once for each layer of weights."""
    for layer in range(weights["depthwise"].shape[0]):
        x = depthwise_conv(
            jax.nn.relu(x),
            weights["depthwise"][layer],
            stride=stride if layer == 0 else 1,
            dilation=dilation,
        )
        x = norm(pointwise_conv(x, weights["pointwise"][layer]))
    return x


def _sep_conv(size: int) -> Op:
    specs = functools.partial(_separable_specs, size, 2)
    chain = layers.separable_chain(size, 2, 1)
    return Op(specs, functools.partial(_separable, 1), 2, lambda stride: (chain,))


def _dil_conv(size: int) -> Op:
    specs = functools.partial(_separable_specs, size, 1)
    chain = layers.separable_chain(size, 1, 2)
    return Op(specs, functools.partial(_separable, 2), 1, lambda stride: (chain,))


def _conv_7x1_1x7_specs(channels, stride):
    del stride

    def spec(height, width):
        shape = height, width, channels, channels
        return WeightSpec(shape, height * width * channels, spatial=(-4, -3))

    return {"kernel_1x7": spec(1, 7), "kernel_7x1": spec(7, 1)}


def _conv_7x1_1x7(x, weights, stride, norm):
    x = conv(jax.nn.relu(x), weights["kernel_1x7"], (1, stride))
    return norm(conv(x, weights["kernel_7x1"], (stride, 1)))


def _pointwise_specs(channels, stride):
    del stride
    return {"kernel": WeightSpec((channels, channels), channels)}


def _pointwise(x, weights, stride, norm):
    x = jax.nn.relu(x[:, ::stride, ::stride])
    return norm(pointwise_conv(x, weights["kernel"]))


def primitives(*, count_include_pad: bool = False) -> dict[str, Op]:
    """All operations by their DARTS names.

    Args:
      count_include_pad: whether average pools count the zero padding, as ASNG-NAS
        does and DARTS does not.

    Returns:
      `name -> Op`. Separable convolutions are applied twice, as in NASNet; dilated
      ones once, with dilation 2; a `skip_connect` of stride 2 is a factorized
      reduction; `conv_7x1_1x7` applies the 1x7 kernel first, as DARTS does.
    """
    avg_pool = functools.partial(_avg_pool, count_include_pad)
    mean: layers.Taps = "mean" if count_include_pad else "mean_inside"

    def pool(taps: layers.Taps) -> Callable[[int], tuple[Chain, ...]]:
        return lambda stride: (layers.pool_chain(taps),)

    return {
        "none": Op(_no_weights, _zero, 0, lambda stride: ()),
        "avg_pool_3x3": Op(_no_weights, avg_pool, 0, pool(mean)),
        "max_pool_3x3": Op(_no_weights, _max_pool_op, 0, pool("max")),
        "skip_connect": Op(_skip_specs, _skip, 1, _skip_chains),
        "sep_conv_3x3": _sep_conv(3),
        "sep_conv_5x5": _sep_conv(5),
        "sep_conv_7x7": _sep_conv(7),
        "dil_conv_3x3": _dil_conv(3),
        "dil_conv_5x5": _dil_conv(5),
        "conv_1x1": Op(
            _pointwise_specs, _pointwise, 1, lambda stride: (layers.pointwise_chain(),)
        ),
        "conv_7x1_1x7": Op(_conv_7x1_1x7_specs, _conv_7x1_1x7, 1),
    }
