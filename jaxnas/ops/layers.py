"""Operations as sums of short chains of layers, which kernels for GPUs can run.

A layer is, in this order and each where it has it: ReLU, a sum or maximum over the taps
of a window, a 1x1 convolution, normalization by the statistics of the batch, a scale
and an offset. All operations on small images are sums of chains of at most two such
layers, so that one kernel serves every operation: what differs between them is data.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.types import Weights

Taps = Literal["sum", "mean", "mean_inside", "max"]


class LayerWeights(NamedTuple):
    """The weights of one layer; `None` for what it has not.

    Attributes:
      taps: `[size * size, C]`.
      matrix: `[C, C]`.
      scale: `[C]`.
      offset: `[C]`.
    """

    taps: jax.Array | None = None
    matrix: jax.Array | None = None
    scale: jax.Array | None = None
    offset: jax.Array | None = None


class Layer(NamedTuple):
    """One layer.

    Attributes:
      weights: its weights among one row of those of its operation.
      relu: whether it begins with a ReLU.
      size: taps in height and width of its window.
      dilation: pixels between taps.
      shift: pixels to the lower right by which the window is moved.
      taps: what is done over the window: a sum weighted by its weights, a mean that
        counts the zero padding, a mean of what is inside the image, or the maximum.
      product: whether a 1x1 convolution and normalization follow.
      normalizes: whether the product is normalized.
      has_taps: whether the taps are weights.
    """

    weights: Callable[[Weights], LayerWeights] = lambda row: LayerWeights()
    relu: bool = False
    size: int = 1
    dilation: int = 1
    shift: int = 0
    taps: Taps = "sum"
    product: bool = False
    normalizes: bool = True
    has_taps: bool = False

    def of_row(self, name: str) -> "Layer":
        """The layer with weights below a name in a row."""
        return self._replace(weights=lambda row: self.weights(row[name]))


Chain = tuple[Layer, ...]
"""Layers one after the other; none pass their input on."""


def separable_chain(size: int, num_layers: int, dilation: int) -> Chain:
    """ReLU, depthwise, pointwise, normalization; once for each layer of weights."""

    def weights(number: int) -> Callable[[Weights], LayerWeights]:
        def choose(row: Weights) -> LayerWeights:
            taps = row["depthwise"][number]
            taps = taps.reshape(size**2, taps.shape[-1])
            return LayerWeights(taps, row["pointwise"][number])

        return choose

    return tuple(
        Layer(weights(number), True, size, dilation, product=True, has_taps=True)
        for number in range(num_layers)
    )


def pool_chain(taps: Taps) -> Chain:
    """A pool over 3x3 pixels."""
    return (Layer(size=3, taps=taps),)


def pointwise_chain() -> Chain:
    """ReLU, a 1x1 convolution, normalization."""
    return (
        Layer(lambda row: LayerWeights(matrix=row["kernel"]), True, 1, product=True),
    )


def factorized_reduce_chains() -> tuple[Chain, Chain]:
    """ReLU, two 1x1 convolutions side by side, normalization.

    Each has zeros in the place of the other's channels, which remain zero when they are
    normalized: their sum is the whole.
    """

    def half(number: int) -> Layer:
        def weights(row: Weights) -> LayerWeights:
            kernel = row["kernel"][number]
            zeros = jnp.zeros_like(kernel)
            parts = [kernel, zeros] if number == 0 else [zeros, kernel]
            return LayerWeights(matrix=jnp.concatenate(parts, axis=-1))

        return Layer(weights, True, 1, shift=number, product=True)

    return (half(0),), (half(1),)


def with_affine(chain: Chain) -> Chain:
    """The chain with a learned scale and offset after each of its normalizations."""

    def affine(layer: Layer, number: int) -> Layer:
        def weights(row: Weights) -> LayerWeights:
            scale, offset = row["scale"][number], row["offset"][number]
            return layer.weights(row)._replace(scale=scale, offset=offset)

        return layer._replace(weights=weights) if layer.product else layer

    return tuple(affine(layer, number) for number, layer in enumerate(chain))
