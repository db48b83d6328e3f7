"""Depthwise convolutions and pools of images `[B, H, W, C]`.

They are written as sums of shifted images: on CPU, XLA's grouped convolution takes 30
to 100 times longer; programs for other platforms hold it instead. Derivatives are
written by hand, because the derivative of a slice is a padded image, which costs
several times the slice.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.ops.convolutions import transpose_product

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_IMAGES_PER_CHUNK = 16


def _taps(size: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(size) for j in range(size)]


def _per_tap(kernel: jax.Array) -> tuple[jax.Array, ...]:
    """The weights of each tap, `[1, 1, 1, C]`."""
    return jnp.unstack(kernel.reshape(-1, 1, 1, 1, kernel.shape[-1]))


def _pad(x: jax.Array, padding: int, value: float = 0.0) -> jax.Array:
    widths = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jnp.pad(x, widths, constant_values=value)


def _shift(
    padded: jax.Array, tap: tuple[int, int], height: int, width: int, stride: int
) -> jax.Array:
    """The pixels of a padded image that one kernel tap meets, `[B, h, w, C]`."""
    i, j = tap
    *batch, _, _, channels = padded.shape
    # Traced hundreds of times, for which indexing takes too long.
    return lax.slice(
        padded,
        (*(0 for _ in batch), i, j, 0),
        (*batch, i + (height - 1) * stride + 1, j + (width - 1) * stride + 1, channels),
        (*(1 for _ in batch), stride, stride, 1),
    )


def _upsample(
    g: jax.Array, height: int, width: int, reach: int, stride: int, value: float = 0.0
) -> jax.Array:
    """Lay strided outputs back on the grid of their inputs, padded by `reach`."""

    def pad(outputs: int, inputs: int) -> tuple[int, int, int]:
        return reach, inputs + reach - (outputs - 1) * stride - 1, stride - 1

    rows, columns = pad(g.shape[1], height), pad(g.shape[2], width)
    fill = jnp.asarray(value, g.dtype)
    return lax.pad(g, fill, ((0, 0, 0), rows, columns, (0, 0, 0)))


def _output_size(size: int, stride: int) -> int:
    return -(-size // stride)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _correlate(x, kernel, stride: int, dilation: int):
    size = kernel.shape[0]
    padded = _pad(x, dilation * (size // 2))
    height, width = (_output_size(n, stride) for n in x.shape[1:3])
    return sum(
        _shift(padded, (i * dilation, j * dilation), height, width, stride) * weight
        for (i, j), weight in zip(_taps(size), _per_tap(kernel), strict=True)
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _correlate_transposed(g, kernel, stride: int, dilation: int, height, width):
    size = kernel.shape[0]
    padded = _upsample(g, height, width, dilation * (size // 2), stride)
    return sum(
        _shift(padded, (i * dilation, j * dilation), height, width, 1) * weight
        for (i, j), weight in zip(_taps(size), _per_tap(kernel)[::-1], strict=True)
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _kernel_gradient(x, g, size: int, stride: int, dilation: int):
    """Gradient of the kernel of `_correlate`, `[size, size, C]`.

    A scan over chunks of images keeps one accumulator a tap: the sum over a chunk is
    one fused loop, where a reduction over all images would read memory anew each tap.
    """
    batch = x.shape[0]
    num_chunks = -(-batch // _IMAGES_PER_CHUNK)
    per_chunk = -(-batch // num_chunks)
    missing = num_chunks * per_chunk - batch

    def chunks(images):
        images = jnp.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        return images.reshape(num_chunks, per_chunk, *images.shape[1:])

    height, width, channels = g.shape[1:]
    taps = [(i * dilation, j * dilation) for i, j in _taps(size)]

    def add_chunk(totals, chunk):
        pairs = list(zip(*map(jnp.unstack, chunk), strict=True))
        return [
            total
            + sum(
                _shift(image, tap, height, width, stride) * gradient
                for image, gradient in pairs
            )
            for total, tap in zip(totals, taps, strict=True)
        ], None

    zeros = [jnp.zeros((height, width, channels), g.dtype)] * len(taps)
    padded = _pad(x, dilation * (size // 2))
    totals, _ = lax.scan(add_chunk, zeros, (chunks(padded), chunks(g)))
    return jnp.stack([total.sum((0, 1)) for total in totals]).reshape(
        size, size, channels
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, stride, dilation):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _correlate(x, kernel, stride, dilation),
        default=lambda x, kernel: _grouped_conv(x, kernel, stride, dilation),
    )


def _depthwise_fwd(x, kernel, stride, dilation):
    return _depthwise(x, kernel, stride, dilation), (x, kernel)


def _depthwise_bwd(stride, dilation, residuals, g):
    def shifted(x, kernel, g):
        height, width = x.shape[1:3]
        return (
            _correlate_transposed(g, kernel, stride, dilation, height, width),
            _kernel_gradient(x, g, kernel.shape[0], stride, dilation),
        )

    def grouped(x, kernel, g):
        return transpose_product(
            lambda x, kernel: _grouped_conv(x, kernel, stride, dilation), x, kernel, g
        )

    return lax.platform_dependent(*residuals, g, cpu=shifted, default=grouped)


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


def _grouped_conv(x, kernel, stride, dilation):
    padding = dilation * (kernel.shape[0] // 2)
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_DIMENSIONS,
        feature_group_count=x.shape[-1],
    )


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1
) -> jax.Array:
    """Convolve every channel with its own kernel, padded to keep the size.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[k, k, C]`, `k` odd.
      stride: step between output pixels.
      dilation: step between kernel taps.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), C]`.
    """
    return jnp.asarray(_depthwise(x, kernel, stride, dilation))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum_pool(x, stride):
    return _correlate(x, jnp.ones((3, 3, 1), x.dtype), stride, 1)


def _sum_pool_fwd(x, stride):
    # The residual is an empty image: only its height, width and dtype are needed.
    return _sum_pool(x, stride), x[:0]


def _sum_pool_bwd(stride, empty, g):
    ones = jnp.ones((3, 3, 1), empty.dtype)
    return (_correlate_transposed(g, ones, stride, 1, *empty.shape[1:3]),)


_sum_pool.defvjp(_sum_pool_fwd, _sum_pool_bwd)


def avg_pool_3x3(
    x: jax.Array, *, stride: int = 1, count_include_pad: bool = False
) -> jax.Array:
    """Average over 3x3 pixels; zero padding counts if `count_include_pad`."""
    total = jnp.asarray(_sum_pool(x, stride))
    if count_include_pad:
        return total * (1 / 9)
    counts = jnp.asarray(_sum_pool(jnp.ones((1, *x.shape[1:3], 1), x.dtype), stride))
    return total / counts


@functools.partial(jax.jit, static_argnums=1)
def _max_and_tap(x, stride):
    """The largest of 3x3 pixels and the number of the first tap that holds it."""
    padded = _pad(x, 1, -jnp.inf)
    height, width = (_output_size(n, stride) for n in x.shape[1:3])
    best = _shift(padded, (0, 0), height, width, stride)
    winner = jnp.zeros(best.shape, jnp.int8)
    for number, tap in enumerate(_taps(3)[1:], start=1):
        value = _shift(padded, tap, height, width, stride)
        better = value > best
        best = jnp.where(better, value, best)
        winner = jnp.where(better, jnp.int8(number), winner)
    return best, winner


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x, stride):
    return _max_and_tap(x, stride)[0]


def _max_pool_fwd(x, stride):
    best, winner = _max_and_tap(x, stride)
    return best, (winner, x[:0])


def _max_pool_bwd(stride, residuals, g):
    winner, empty = residuals
    height, width = empty.shape[1:3]
    padded = _upsample(g, height, width, 1, stride)
    winners = _upsample(winner, height, width, 1, stride, -1)
    shape = (g.shape[0], height, width, g.shape[-1])

    def add_tap(number, total):
        # Output (y - i + 1, x - j + 1) looks at input (y, x) through tap (i, j).
        start = (0, 2 - number // 3, 2 - number % 3, 0)
        chosen = lax.dynamic_slice(winners, start, shape) == number.astype(jnp.int8)
        value = lax.dynamic_slice(padded, start, shape)
        return total + jnp.where(chosen, value, jnp.zeros((), g.dtype))

    # A loop, so that all taps read the same winners: unrolled, XLA recomputes them
    # for every tap, and rounding lets nearly equal pixels win several times or never.
    return (lax.fori_loop(0, 9, add_tap, jnp.zeros(shape, g.dtype)),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def max_pool_3x3(x: jax.Array, *, stride: int = 1) -> jax.Array:
    """Maximum over 3x3 pixels; the first of equal ones has the gradient."""
    return _max_pool(x, stride)
