"""Dense and 1x1 convolutions of images `[B, H, W, C]`.

On CPU they are matrix products over pieces that stay in the cache: XLA's gradient of a
kernel takes ten times longer.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# What stays in the cache of a processor while it is worked on.
_BYTES_OF_COLUMNS = 2**21
_BYTES_OF_PIXELS = 2**20


def conv(x: jax.Array, kernel: jax.Array, stride: tuple[int, int]) -> jax.Array:
    """Convolve with a dense kernel `[h, w, C_in, C_out]`, padded by half of it."""
    if jax.default_backend() == "cpu":
        # XLA's kernel gradient takes ten times longer than a matrix product.
        if stride == (1, 1):
            return _conv_by_rows(x, kernel)
        return _multiply_patches(x, kernel, stride)
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, stride, padding, dimension_numbers=_DIMENSIONS
    )


def _multiply_patches(x, kernel, stride):
    height, width, _, channels = kernel.shape
    padding = [(height // 2, height // 2), (width // 2, width // 2)]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = (-(-x.shape[1 + i] // stride[i]) for i in range(2))
    patches = [
        padded[
            :,
            i : i + (rows - 1) * stride[0] + 1 : stride[0],
            j : j + (columns - 1) * stride[1] + 1 : stride[1],
        ]
        for i in range(height)
        for j in range(width)
    ]
    matrix = kernel.reshape(-1, channels)
    return pointwise_conv(jnp.concatenate(patches, axis=-1), matrix)


def _chunks(images: jax.Array, num: int) -> jax.Array:
    return images.reshape(num, -1, *images.shape[1:])


def _pixels(images: jax.Array, num: int) -> jax.Array:
    """Pixels in a number of groups, `[num, pixels, C]`: one axis to sum over."""
    return images.reshape(num, -1, images.shape[-1])


def _num_chunks(x: jax.Array, copies: int, limit: int) -> int:
    """Chunks of a batch of which so many copies have at most `limit` bytes.

    The number divides the batch; a chunk has at least one image.
    """
    wanted = -(-x.size * x.dtype.itemsize * copies // limit)
    batch = x.shape[0]
    return next(n for n in range(min(wanted, batch), batch + 1) if batch % n == 0)


def _kernel_rows(x: jax.Array, size: tuple[int, int]) -> list[jax.Array]:
    """What each row of a kernel of this size sees, `[B, H * W, width * C]` each."""
    (height, width), rows, columns = size, *x.shape[1:3]
    padding = [(height // 2, height // 2), (width // 2, width // 2)]
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = [padded[:, :, j : j + columns] for j in range(width)]
    seen = jnp.concatenate(taps, axis=-1)
    return [_pixels(seen[:, i : i + rows], x.shape[0]) for i in range(height)]


def _multiply_rows(rows: list[jax.Array], kernel: jax.Array) -> jax.Array:
    products = [
        jnp.einsum("npc,cd->npd", row, weights.reshape(-1, kernel.shape[-1]))
        for row, weights in zip(rows, kernel, strict=True)
    ]
    return functools.reduce(jnp.add, products)


@jax.jit
def _correlate_chunks(x, kernel):
    size, channels = kernel.shape[:2], kernel.shape[-1]
    num = _num_chunks(x, size[1], _BYTES_OF_COLUMNS)
    y = lax.map(
        lambda chunk: _multiply_rows(_kernel_rows(chunk, size), kernel),
        _chunks(x, num),
    )
    return y.reshape(*x.shape[:3], channels)


@jax.custom_vjp
def _conv_by_rows(x, kernel):
    """Stride 1: a matrix product for each row of the kernel, a few images at a time."""
    return _correlate_chunks(x, kernel)


def _conv_by_rows_fwd(x, kernel):
    return _correlate_chunks(x, kernel), (x, kernel)


@jax.jit
def _conv_by_rows_bwd(residuals, g):
    """Both gradients from the same rows of `g`, whose taps run backwards."""
    x, kernel = residuals
    height, width, channels_in, channels_out = kernel.shape
    num = _num_chunks(g, width, _BYTES_OF_COLUMNS)
    backwards = kernel[::-1, ::-1].swapaxes(2, 3)

    def add_chunk(total, chunk):
        x, g = chunk
        rows = _kernel_rows(g, (height, width))
        # In this order, and image by image, the products are fastest.
        pixels = _pixels(x, x.shape[0])
        products = [jnp.einsum("npc,npd->ncd", pixels, row).sum(0) for row in rows]
        return total + jnp.stack(products), _multiply_rows(rows, backwards)

    zeros = jnp.zeros((height, channels_in, width * channels_out), g.dtype)
    total, x_gradient = lax.scan(add_chunk, zeros, (_chunks(x, num), _chunks(g, num)))
    total = total.reshape(height, channels_in, width, channels_out)
    kernel_gradient = total[::-1, :, ::-1].swapaxes(1, 2)
    return x_gradient.reshape(x.shape), kernel_gradient


_conv_by_rows.defvjp(_conv_by_rows_fwd, _conv_by_rows_bwd)


def pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with a 1x1 kernel `[C_in, C_out]`."""
    if jax.default_backend() == "cpu":
        return _pointwise_conv(x, kernel)
    return jnp.einsum("bhwc,cd->bhwd", x, kernel)


@jax.custom_vjp
def _pointwise_conv(x, kernel):
    return jnp.einsum("bhwc,cd->bhwd", x, kernel)


def _pointwise_conv_fwd(x, kernel):
    return _pointwise_conv(x, kernel), (x, kernel)


def _pointwise_conv_bwd(residuals, g):
    x, kernel = residuals
    num = _num_chunks(x, 1, _BYTES_OF_PIXELS)
    # One product over all pixels would first transpose the whole batch in memory.
    products = jnp.einsum("npc,npd->ncd", _pixels(x, num), _pixels(g, num))
    return jnp.einsum("bhwd,cd->bhwc", g, kernel), products.sum(0)


_pointwise_conv.defvjp(_pointwise_conv_fwd, _pointwise_conv_bwd)


def factorized_reduce(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Halve height and width without losing pixels to the stride.

    Two 1x1 convolutions of stride 2, one of them over the image shifted by one pixel,
    each yielding half of the channels (Zoph et al. 2018, DARTS `FactorizedReduce`).

    Args:
      x: `[B, H, W, C_in]` with even `H` and `W`.
      kernel: `[2, C_in, C_out / 2]`.

    Returns:
      `[B, H / 2, W / 2, C_out]`.

    Raises:
      ValueError: if `H` or `W` is odd.
    """
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(
            f"a feature map of {x.shape[1]}x{x.shape[2]} cannot be halved; image "
            "height and width must be divisible by 4"
        )
    halves = [x[:, ::2, ::2], x[:, 1::2, 1::2]]
    return jnp.concatenate(
        [pointwise_conv(half, kernel[i]) for i, half in enumerate(halves)], axis=-1
    )
