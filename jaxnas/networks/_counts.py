"""Numbers of trainable parameters of what networks are made of.

They are those of the modules of `jaxnas.networks.layers`, normalizations included; a
test holds the sums equal to what the networks initialize.
"""

import functools
import math

from jaxnas import ops


def norm(channels: int) -> int:
    """Scale and offset of a normalization."""
    return 2 * channels


def conv_norm(size: int, channels_in: int, channels: int) -> int:
    """A dense convolution `size` x `size`; of size 1, a pointwise one."""
    return size**2 * channels_in * channels + norm(channels)


def pointwise_norm(channels_in: int, channels: int) -> int:
    """A 1x1 convolution, and also a factorized reduction to an even number."""
    return conv_norm(1, channels_in, channels)


@functools.cache
def operation(name: str, channels: int, stride: int, num_norms: int = 1) -> int:
    """An operation of `ops.primitives`, with one or more sets of normalizations."""
    op = ops.primitives()[name]
    specs = op.specs(channels, stride).values()
    if not specs:
        return 0
    weights = sum(math.prod(spec.shape) for spec in specs)
    return weights + num_norms * op.num_norms * norm(channels)


def classifier(channels: int, num_classes: int, *, bias: bool) -> int:
    """A linear layer."""
    return (channels + bias) * num_classes


def auxiliary_head(channels: int, num_classes: int, *, bias: bool) -> int:
    """Convolutions 1x1 and 2x2, and a classifier."""
    convolutions = conv_norm(1, channels, 128) + conv_norm(2, 128, 768)
    return convolutions + classifier(768, num_classes, bias=bias)
