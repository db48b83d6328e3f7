"""Layers of the networks of this package.

All modules take two functions: `new_norm` makes a normalization layer, and
`initializer` draws initial weights from their specs.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas import ops
from jaxnas.types import Key

NewNorm = Callable[..., Callable[[jax.Array], jax.Array]]
"""`(name=None) -> layer`."""

Initializer = Callable[[Key, Any], jax.Array]

init_he_normal: Initializer = functools.partial(ops.init, distribution="he_normal")
"""ENAS's initial weights, He et al. 2015."""


MOMENTUM = 0.9
"""Share of the old running statistics that is kept in a step of training."""


def batch_norm(*, train: bool, batch_axis: str | None) -> NewNorm:
    """Make layers of batch normalization with running statistics.

    Args:
      train: whether they use the statistics of the batch, and update the running ones.
      batch_axis: mapped axis over which a training batch is sharded, if any.

    Returns:
      A function that makes one more layer each time it is called, with the `name` it
      is given, if any.
    """
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=MOMENTUM,
        axis_name=batch_axis if train else None,
    )


class OpModule(nn.Module):
    """An operation of `jaxnas.ops` with weights of its own."""

    op: ops.Op
    stride: int
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(
        self, x: jax.Array, stride: int | None = None, *, norms_of: str | None = None
    ) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, C]`.

        Another `stride` than the module's own may be asked for, by which only the
        identity has fewer weights. Calls share the weights; those with different names
        `norms_of` have normalizations of their own.
        """
        specs = self.op.specs(x.shape[-1], self.stride)
        weights = {
            name: self.param(name, self.initializer, spec)
            for name, spec in specs.items()
        }
        stride = self.stride if stride is None else stride
        number = itertools.count()

        def norm(y: jax.Array) -> jax.Array:
            name = None if norms_of is None else f"{norms_of}_norm_{next(number)}"
            return self.new_norm(name=name)(y)

        return self.op.apply(x, weights, stride, norm)


class ConvNorm(nn.Module):
    """Dense convolution of odd size, normalization."""

    channels: int
    size: int
    new_norm: NewNorm
    initializer: Initializer
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, channels]`."""
        shape = (self.size, self.size, x.shape[-1], self.channels)
        spec = ops.WeightSpec(shape, self.size**2 * x.shape[-1])
        kernel = self.param("kernel", self.initializer, spec)
        return self.new_norm()(ops.conv(x, kernel, (self.stride, self.stride)))


class PointwiseNorm(nn.Module):
    """1x1 convolution, normalization."""

    channels: int
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H, W, channels]`."""
        spec = ops.WeightSpec((x.shape[-1], self.channels), x.shape[-1])
        kernel = self.param("kernel", self.initializer, spec)
        return self.new_norm()(ops.pointwise_conv(x, kernel))


class FactorizedReduceNorm(nn.Module):
    """Factorized reduction, normalization."""

    channels: int
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / 2, W / 2, channels]`."""
        spec = ops.factorized_reduce_spec(x.shape[-1], self.channels)
        kernel = self.param("kernel", self.initializer, spec)
        return self.new_norm()(ops.factorized_reduce(x, kernel))


class Classifier(nn.Module):
    """Global average pooling, dropout and a linear layer."""

    num_classes: int
    bias: bool
    dropout: float
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to logits `[B, num_classes]`."""
        x = x.mean((1, 2))
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        fan_in = x.shape[-1]
        bias_spec = ops.WeightSpec((self.num_classes,), fan_in)
        kernel = self.param("kernel", self.initializer, bias_spec.stack(fan_in))
        logits = x @ kernel
        if self.bias:
            logits = logits + self.param("bias", self.initializer, bias_spec)[None]
        return logits


_WINDOW = 5  # of the pool of an auxiliary head


def check_auxiliary(height: int, width: int, stride: int) -> None:
    """Raise `ValueError` if a feature map is too small for an auxiliary head."""
    least = _WINDOW + stride  # so that 2x2 pixels are left after the pool
    if min(height, width) < least:
        raise ValueError(
            f"the auxiliary head needs a feature map of {least}x{least} or larger "
            f"after the last reduction, not {height}x{width}; train "
            "larger images, such as 32x32 of CIFAR and 224x224 of ImageNet, or "
            "without the auxiliary head"
        )


class AuxiliaryHead(nn.Module):
    """The classifier at two thirds of the depth, used in training only."""

    num_classes: int
    stride: int
    padding: Literal["VALID", "SAME"]
    bias: bool
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to logits `[B, num_classes]`."""
        check_auxiliary(x.shape[1], x.shape[2], self.stride)

        def draw_kernel(key: Key, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            spec = ops.WeightSpec(shape, math.prod(shape[:-1]))
            return self.initializer(key, spec).astype(dtype)

        conv = functools.partial(
            nn.Conv, use_bias=False, kernel_init=draw_kernel, padding=self.padding
        )
        windows = (_WINDOW, _WINDOW), (self.stride, self.stride)
        # Not `nn.avg_pool`, which divides by an integer array.
        x = nn.pool(jax.nn.relu(x), 0.0, jax.lax.add, *windows, "VALID") / _WINDOW**2
        x = jax.nn.relu(self.new_norm()(conv(128, (1, 1), name="conv_1")(x)))
        x = jax.nn.relu(self.new_norm()(conv(768, (2, 2), name="conv_2")(x)))
        classifier = Classifier(
            self.num_classes, self.bias, 0.0, self.initializer, name="classifier"
        )
        return classifier(x, train=True)


def drop_path(key: Key, x: jax.Array, prob: jax.Array) -> jax.Array:
    """Zero whole examples with probability `prob` and scale up the others."""
    keep = 1 - prob
    mask = jax.random.bernoulli(key, keep, (x.shape[0], 1, 1, 1))
    return jnp.where(mask, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))
