"""Convolutions of a block of channels whose kernel's size is data, and their gradients.

Of a large image `[B, H, W, C]` and a small one `[B, H / s, W / s, D]`, the output of a
convolution of stride s with an odd kernel, padded by half of it: each function makes
one of the two, or the kernel, of the other two. All three add up one matrix product
over pixels for each tap of the kernel, in a loop that runs as often as there are taps.
The strides are 1 and 2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_MARGIN = 2  # half of the largest kernel
MAX_TAPS = (2 * _MARGIN + 1) ** 2
"""The taps of the largest kernel."""

Kernel = Callable[[Any], jax.Array]
"""The matrix `[C, D]` of a tap, by its number, which counts row by row."""


def _padded(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)))


def _window(padded: jax.Array, start: jax.Array, stride: int) -> jax.Array:
    """Every so many pixels of a padded image from a start on, `[pixels, C]`."""
    batch, height, width, channels = padded.shape
    sides = height - 2 * _MARGIN, width - 2 * _MARGIN
    zero = jnp.zeros((), start.dtype)
    starts = zero, start[0], start[1], zero
    window = lax.dynamic_slice(
        padded, starts, (batch, *sides, channels), allow_negative_indices=False
    )
    return window[:, ::stride, ::stride].reshape(-1, channels)


def _places(stride: int) -> np.ndarray:
    """By size of the kernel and tap: where its window starts in a padded image.

    Then the parities of the pixels of the large image that the tap meets, and where the
    window starts in a padded small image that is convolved backwards.
    """
    places = np.zeros((2 * _MARGIN + 2, MAX_TAPS, 3, 2), np.int32)
    for size in range(1, 2 * _MARGIN + 2, 2):
        for tap in range(size**2):
            offset = np.array(divmod(tap, size)) - size // 2
            steps, parities = np.divmod(offset, stride)
            places[size, tap] = _MARGIN + offset, parities, _MARGIN - steps
    return places


def _place(size: jax.Array, tap: jax.Array, stride: int, index: int) -> jax.Array:
    """One of the places of `_places`, int32 `[2]`."""
    zero = jnp.zeros((), jnp.int32)
    places = jnp.asarray(_places(stride)[:, :, index])
    starts = size, tap, zero
    place = lax.dynamic_slice(places, starts, (1, 1, 2), allow_negative_indices=False)
    return place.reshape(2)


def conv(x: jax.Array, kernel: Kernel, size: jax.Array, stride: int) -> jax.Array:
    """Convolve.

    Args:
      x: the large image.
      kernel: its taps.
      size: int32 scalar, height and width of the kernel, 1, 3 or 5.
      stride: 1 or 2.

    Returns:
      The small image.
    """
    batch, height, width, _ = x.shape
    padded = _padded(x)
    pixels = x[:, ::stride, ::stride, 0].size
    zero = jnp.zeros((), jnp.int32)
    depth = jax.eval_shape(kernel, zero).shape[-1]

    def add(tap, total):
        return total + _window(padded, _place(size, tap, stride, 0), stride) @ kernel(
            tap
        )

    y = lax.fori_loop(zero, size**2, add, jnp.zeros((pixels, depth), x.dtype))
    return y.reshape(batch, height // stride, width // stride, depth)


def transposed_conv(
    y: jax.Array, kernel: Kernel, size: jax.Array, stride: int
) -> jax.Array:
    """Convolve backwards.

    Args:
      y: the small image.
      kernel: its taps.
      size: int32 scalar, height and width of the kernel, 1, 3 or 5.
      stride: 1 or 2.

    Returns:
      The large image.
    """
    batch, height, width, _ = y.shape
    padded = _padded(y)
    zero = jnp.zeros((), jnp.int32)
    channels = jax.eval_shape(kernel, zero).shape[0]

    def add(tap, total):
        start = _place(size, tap, stride, 2)
        product = (_window(padded, start, 1) @ kernel(tap).T)[None, None]
        if stride == 1:
            return total + product
        parity = _place(size, tap, stride, 1)
        starts = parity[0], parity[1], zero, zero
        before = lax.dynamic_slice(
            total, starts, product.shape, allow_negative_indices=False
        )
        return lax.dynamic_update_slice(
            total, before + product, starts, allow_negative_indices=False
        )

    # The large image by the parities of rows and columns.
    zeros = jnp.zeros((stride, stride, batch * height * width, channels), y.dtype)
    x = lax.fori_loop(zero, size**2, add, zeros)
    x = x.reshape(stride, stride, batch, height, width, channels)
    x = x.transpose(2, 3, 0, 4, 1, 5)
    return x.reshape(batch, height * stride, width * stride, channels)


def kernel_gradient(
    x: jax.Array, y: jax.Array, size: jax.Array, stride: int
) -> jax.Array:
    """Sum all products of pixels of the large and the small image that a tap joins.

    Args:
      x: the large image.
      y: the small image.
      size: int32 scalar, height and width of the kernel, 1, 3 or 5.
      stride: 1 or 2.

    Returns:
      The kernel `[MAX_TAPS, C, D]`, its taps first, then zeros.
    """
    padded, pixels = _padded(x), y.reshape(-1, y.shape[-1])
    zero = jnp.zeros((), jnp.int32)

    def add(tap, taps):
        product = _window(padded, _place(size, tap, stride, 0), stride).T @ pixels
        starts = tap, zero, zero
        return lax.dynamic_update_slice(
            taps, product[None], starts, allow_negative_indices=False
        )

    zeros = jnp.zeros((MAX_TAPS, x.shape[-1], y.shape[-1]), x.dtype)
    return lax.fori_loop(zero, size**2, add, zeros)
