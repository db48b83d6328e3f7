"""Dense and 1x1 convolutions of images `[B, H, W, C]`.

On CPU they are matrix products over pieces that stay in the cache: XLA's gradient of a
kernel takes ten times longer. The platform that a program is lowered for decides, not
the machine's default. Both choices, of the value and of the gradient, are made within
hand-written derivatives: the derivative of a choice would keep the residuals of both
forms.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas._checks import is_integer

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# What stays in the cache of a processor while it is worked on.
_BYTES_OF_COLUMNS = 2**21
_BYTES_OF_PIXELS = 2**20


def conv(x: jax.Array, kernel: jax.Array, stride: tuple[int, int]) -> jax.Array:
    """Convolve with a dense kernel `[h, w, C_in, C_out]`, padded by half of it."""
    return jnp.asarray(_conv(x, kernel, stride))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, stride):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_conv_by_products, stride=stride),
        default=functools.partial(_xla_conv, stride=stride),
    )


def _conv_fwd(x, kernel, stride):
    return _conv(x, kernel, stride), (x, kernel)


def _conv_bwd(stride, residuals, g):
    return lax.platform_dependent(
        *residuals,
        g,
        cpu=functools.partial(_conv_by_products_transposed, stride=stride),
        default=functools.partial(_xla_conv_transposed, stride=stride),
    )


_conv.defvjp(_conv_fwd, _conv_bwd)


def transposed_conv(
    y: jax.Array, kernel: jax.Array, stride: tuple[int, int]
) -> jax.Array:
    """Convolve backwards, as the gradient of `conv` with respect to its image does.

    Args:
      y: `[B, H, W, C_in]`, of the shape of a convolution's output.
      kernel: of that convolution, `[h, w, C_out, C_in]`.
      stride: of that convolution.

    Returns:
      `[B, H * stride[0], W * stride[1], C_out]`.
    """
    return jnp.asarray(_transposed_conv(y, kernel, stride))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _transposed_conv(y, kernel, stride):
    return lax.platform_dependent(
        y,
        kernel,
        cpu=functools.partial(_transposed_conv_by_products, stride=stride),
        default=functools.partial(_xla_transposed_conv, stride=stride),
    )


def _transposed_conv_fwd(y, kernel, stride):
    return _transposed_conv(y, kernel, stride), (y, kernel)


def _transposed_conv_bwd(stride, residuals, g):
    y, kernel = residuals
    _, kernel_gradient = _conv_bwd(stride, (g, kernel), y)
    return _conv(g, kernel, stride), kernel_gradient


_transposed_conv.defvjp(_transposed_conv_fwd, _transposed_conv_bwd)


def _backwards(kernel):
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _transposed_conv_by_products(y, kernel, stride):
    if stride == (1, 1):
        return _conv_by_rows(y, _backwards(kernel))
    shape = y.shape[0], y.shape[1] * stride[0], y.shape[2] * stride[1], kernel.shape[2]
    patches = functools.partial(_patches, size=kernel.shape[:2], stride=stride)
    (x,) = jax.linear_transpose(patches, jax.ShapeDtypeStruct(shape, y.dtype))(
        _multiply_pixels(y, kernel.reshape(-1, kernel.shape[-1]).T)
    )
    return x


def _xla_transposed_conv(y, kernel, stride):
    # Of the convolution, half of the kernel; of this one, what is left of it.
    padding = [
        (size - 1 - size // 2, size // 2 + step - 1)
        for size, step in zip(kernel.shape[:2], stride, strict=True)
    ]
    return lax.conv_general_dilated(
        y,
        _backwards(kernel),
        (1, 1),
        padding,
        lhs_dilation=stride,
        dimension_numbers=_DIMENSIONS,
    )


def _xla_conv(x, kernel, stride):
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, stride, padding, dimension_numbers=_DIMENSIONS
    )


def _xla_conv_transposed(x, kernel, g, stride):
    return transpose_product(functools.partial(_xla_conv, stride=stride), x, kernel, g)


def transpose_product(
    product: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Both gradients of a function that is linear in each of its two arguments."""
    (x_gradient,) = jax.linear_transpose(lambda x: product(x, kernel), x)(g)
    (kernel_gradient,) = jax.linear_transpose(lambda k: product(x, k), kernel)(g)
    return x_gradient, kernel_gradient


def _conv_by_products(x, kernel, stride):
    if not is_integer(x.shape[0]):  # an exported program, for batches of any size
        return _xla_conv(x, kernel, stride)
    if stride == (1, 1):
        return _conv_by_rows(x, kernel)
    patches = _patches(x, kernel.shape[:2], stride)
    return _multiply_pixels(patches, kernel.reshape(-1, kernel.shape[-1]))


def _conv_by_products_transposed(x, kernel, g, stride):
    if stride == (1, 1):
        return _conv_by_rows_transposed(x, kernel, g)
    patches, pull_back = jax.vjp(lambda x: _patches(x, kernel.shape[:2], stride), x)
    matrix = kernel.reshape(-1, kernel.shape[-1])
    (x_gradient,) = pull_back(_multiply_pixels(g, matrix.T))
    return x_gradient, _pixel_products(patches, g).reshape(kernel.shape)


def _patches(x, size, stride):
    """Input patch of each output pixel, `[B, h, w, height * width * C]`."""
    height, width = size
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
    return jnp.concatenate(patches, axis=-1)


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
    """Input patches of each row of such a kernel, `[B, H * W, width * C]` each."""
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
def _conv_by_rows(x, kernel):
    """Stride 1: a matrix product for each row of the kernel, a few images at a time."""
    size, channels = kernel.shape[:2], kernel.shape[-1]
    num = _num_chunks(x, size[1], _BYTES_OF_COLUMNS)
    y = lax.map(
        lambda chunk: _multiply_rows(_kernel_rows(chunk, size), kernel),
        _chunks(x, num),
    )
    return y.reshape(*x.shape[:3], channels)


@jax.jit
def _conv_by_rows_transposed(x, kernel, g):
    """Both gradients from the same rows of `g`, whose taps run backwards."""
    height, width, channels_in, channels_out = kernel.shape
    num = _num_chunks(g, width, _BYTES_OF_COLUMNS)
    backwards = _backwards(kernel)

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


def pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with a 1x1 kernel `[C_in, C_out]`."""
    return jnp.asarray(_pointwise_conv(x, kernel))


@jax.custom_vjp
def _pointwise_conv(x, kernel):
    return _multiply_pixels(x, kernel)


def _pointwise_conv_fwd(x, kernel):
    return _multiply_pixels(x, kernel), (x, kernel)


def _pointwise_conv_bwd(residuals, g):
    x, kernel = residuals
    kernel_gradient = lax.platform_dependent(
        x,
        g,
        cpu=_pixel_products,
        default=functools.partial(jnp.einsum, "bhwc,bhwd->cd"),
    )
    return _multiply_pixels(g, kernel.T), kernel_gradient


_pointwise_conv.defvjp(_pointwise_conv_fwd, _pointwise_conv_bwd)


def _multiply_pixels(x, matrix):
    return jnp.einsum("bhwc,cd->bhwd", x, matrix)


def _pixel_products(x, g):
    """Sum over all pixels of their outer products, `[C_in, C_out]`."""
    num = _num_chunks(x, 1, _BYTES_OF_PIXELS)
    # One product over all pixels would first transpose the whole batch in memory.
    return jnp.einsum("npc,npd->ncd", _pixels(x, num), _pixels(g, num)).sum(0)


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
