"""The primitive operations, once, for supernets and for trained networks.

Images are `[B, H, W, C]`. An operation is a pair of pure functions: `specs` tells
which weights it has, `apply` uses them. Normalisation is handed in, because the
supernets use the statistics of the batch and nothing else, while a network that is
trained from scratch has scale, offset and running statistics.

Depthwise convolutions and pools are written as sums of shifted images: on CPU,
XLA's grouped convolution takes 30 to 100 times longer. Their derivatives are written
by hand, because the derivative of a slice is a padded image, which costs several
times the slice.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.types import Key, Weights

Norm = Callable[[jax.Array], jax.Array]

Distribution = Literal["uniform", "he_normal"]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_IMAGES_PER_CHUNK = 16
# What stays in the cache of a processor while it is worked on.
_BYTES_OF_COLUMNS = 2**21
_BYTES_OF_PIXELS = 2**20


class WeightSpec(NamedTuple):
    """Shape and initial scale of an array of weights.

    Attributes:
      shape: of the array.
      fan_in: inputs of one output, which set the scale of random initial values.
      constant: the initial value of all elements, if they are not random.
    """

    shape: tuple[int, ...]
    fan_in: int
    constant: float | None = None

    def stack(self, *sizes: int) -> "WeightSpec":
        """The spec of independent copies along new leading axes."""
        return self._replace(shape=(*sizes, *self.shape))


class Op(NamedTuple):
    """An operation that keeps the number of channels.

    Attributes:
      specs: `(channels, stride) -> specs` of its weights by name, possibly none.
      apply: `(x, weights, stride, norm) -> y`, with `y` of shape
        `[B, H / stride, W / stride, C]`.
    """

    specs: Callable[[int, int], dict[str, WeightSpec]]
    apply: Callable[[jax.Array, Weights, int, Norm], jax.Array]


def affine_specs(*shape: int) -> dict[str, WeightSpec]:
    """Specs of the learnt `scale` and `offset` after a normalisation."""
    return {"scale": WeightSpec(shape, 1, 1.0), "offset": WeightSpec(shape, 1, 0.0)}


def draw(key: Key, specs: Any, distribution: Distribution = "uniform") -> Weights:
    """Draw initial weights for a pytree of specs.

    All values come from one call of the generator, because each call takes a fraction
    of a second to compile.

    Args:
      key: random key, consumed.
      specs: pytree of `WeightSpec`.
      distribution: `"uniform"`: in `±1 / sqrt(fan_in)`, PyTorch's default for
        convolutions and linear layers; `"he_normal"`: Gaussian with variance
        `2 / fan_in` (He et al. 2015), which ENAS uses.

    Returns:
      Pytree of float arrays.
    """
    leaves, treedef = jax.tree.flatten(
        specs, is_leaf=lambda leaf: isinstance(leaf, WeightSpec)
    )
    sizes = [
        0 if spec.constant is not None else math.prod(spec.shape) for spec in leaves
    ]
    if distribution == "uniform":
        values = jax.random.uniform(key, (sum(sizes),), minval=-1, maxval=1)
    else:
        values = jax.random.normal(key, (sum(sizes),)) * math.sqrt(2)
    parts = jnp.split(values, list(itertools.accumulate(sizes)))[:-1]
    weights = [
        part.reshape(spec.shape) / math.sqrt(spec.fan_in)
        if spec.constant is None
        else jnp.full(spec.shape, spec.constant, values.dtype)
        for part, spec in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, weights)


def scale_and_offset(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """`x * scale + offset` for channels `[C]` of images `[B, H, W, C]`."""
    return x * scale[None, None, None] + offset[None, None, None]


def with_affine_norms(op: Op) -> Op:
    """The operation with a learnt scale and offset after each of its normalisations.

    They are weights `scale` and `offset` of shape `[num_norms, C]`.
    """

    def specs(channels: int, stride: int) -> dict[str, WeightSpec]:
        weights = op.specs(channels, stride)
        num_norms = 0

        def count(y):
            nonlocal num_norms
            num_norms += 1
            return y

        shapes = {
            name: jax.ShapeDtypeStruct(spec.shape, jnp.float32)
            for name, spec in weights.items()
        }
        image = jax.ShapeDtypeStruct((1, 4, 4, channels), jnp.float32)
        jax.eval_shape(lambda x, w: op.apply(x, w, stride, count), image, shapes)
        return weights | affine_specs(num_norms, channels) if num_norms else weights

    def apply(x: jax.Array, weights: Weights, stride: int, norm: Norm) -> jax.Array:
        if "scale" not in weights:
            return op.apply(x, weights, stride, norm)
        affine = iter(zip(weights["scale"], weights["offset"], strict=True))
        return op.apply(
            x, weights, stride, lambda y: scale_and_offset(norm(y), *next(affine))
        )

    return Op(specs, apply)


# Normalisation and convolutions --------------------------------------------------


def batch_norm(
    x: jax.Array, *, batch_axis: str | None = None, epsilon: float = 1e-5
) -> jax.Array:
    """Normalise every channel by the mean and variance of this batch.

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
    rows, columns = map(_output_size, x.shape[1:3], stride)
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


# Shifted images ------------------------------------------------------------------


def _taps(size: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(size) for j in range(size)]


def _pad(x: jax.Array, padding: int, value: float = 0.0) -> jax.Array:
    widths = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jnp.pad(x, widths, constant_values=value)


def _shift(
    padded: jax.Array, tap: tuple[int, int], height: int, width: int, stride: int
) -> jax.Array:
    """The pixels of a padded image that one kernel tap meets, `[B, h, w, C]`."""
    i, j = tap
    rows = slice(i, i + (height - 1) * stride + 1, stride)
    columns = slice(j, j + (width - 1) * stride + 1, stride)
    return padded[..., rows, columns, :]


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
        _shift(padded, (i * dilation, j * dilation), height, width, stride)
        * kernel[i, j, None, None, None]
        for i, j in _taps(size)
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _correlate_transposed(g, kernel, stride: int, dilation: int, height, width):
    size = kernel.shape[0]
    padded = _upsample(g, height, width, dilation * (size // 2), stride)
    return sum(
        _shift(padded, (i * dilation, j * dilation), height, width, 1)
        * kernel[size - 1 - i, size - 1 - j, None, None, None]
        for i, j in _taps(size)
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
        images, gradients = chunk
        return [
            total
            + sum(
                _shift(images[n], tap, height, width, stride) * gradients[n]
                for n in range(per_chunk)
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
def _shifted_depthwise(x, kernel, stride, dilation):
    return _correlate(x, kernel, stride, dilation)


def _shifted_depthwise_fwd(x, kernel, stride, dilation):
    return _correlate(x, kernel, stride, dilation), (x, kernel)


def _shifted_depthwise_bwd(stride, dilation, residuals, g):
    x, kernel = residuals
    height, width = x.shape[1:3]
    return (
        _correlate_transposed(g, kernel, stride, dilation, height, width),
        _kernel_gradient(x, g, kernel.shape[0], stride, dilation),
    )


_shifted_depthwise.defvjp(_shifted_depthwise_fwd, _shifted_depthwise_bwd)


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
    if jax.default_backend() == "cpu":
        return _shifted_depthwise(x, kernel, stride, dilation)
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


# The vocabulary ------------------------------------------------------------------


def factorized_reduce_spec(channels_in: int, channels_out: int) -> WeightSpec:
    """Spec of the kernel of `factorized_reduce`; `ValueError` for an odd `C_out`."""
    if channels_out % 2:
        raise ValueError(
            f"a factorised reduction to {channels_out} channels: expected an even "
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


def _separable_specs(size, num_layers, channels, stride):
    del stride
    depthwise = WeightSpec((size, size, channels), size * size)
    pointwise = WeightSpec((channels, channels), channels)
    return {
        "depthwise": depthwise.stack(num_layers),
        "pointwise": pointwise.stack(num_layers),
    }


def _separable(dilation, x, weights, stride, norm):
    """ReLU, depthwise, pointwise, normalisation; once for each layer of weights."""
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
    return Op(
        functools.partial(_separable_specs, size, 2), functools.partial(_separable, 1)
    )


def _dil_conv(size: int) -> Op:
    return Op(
        functools.partial(_separable_specs, size, 1), functools.partial(_separable, 2)
    )


def _conv_7x1_1x7_specs(channels, stride):
    del stride
    return {
        "kernel_1x7": WeightSpec((1, 7, channels, channels), 7 * channels),
        "kernel_7x1": WeightSpec((7, 1, channels, channels), 7 * channels),
    }


def _conv_7x1_1x7(x, weights, stride, norm):
    x = conv(jax.nn.relu(x), weights["kernel_1x7"], (1, stride))
    return norm(conv(x, weights["kernel_7x1"], (stride, 1)))


def vocabulary(*, count_include_pad: bool = False) -> dict[str, Op]:
    """All operations by their DARTS names.

    Args:
      count_include_pad: whether average pools count the zero padding, as ASNG-NAS
        does and DARTS does not.

    Returns:
      `name -> Op`. Separable convolutions are applied twice, as in NASNet; dilated
      ones once, with dilation 2; a `skip_connect` of stride 2 is a factorised
      reduction.
    """
    avg_pool = functools.partial(_avg_pool, count_include_pad)
    return {
        "none": Op(_no_weights, _zero),
        "avg_pool_3x3": Op(_no_weights, avg_pool),
        "max_pool_3x3": Op(_no_weights, _max_pool_op),
        "skip_connect": Op(_skip_specs, _skip),
        "sep_conv_3x3": _sep_conv(3),
        "sep_conv_5x5": _sep_conv(5),
        "sep_conv_7x7": _sep_conv(7),
        "dil_conv_3x3": _dil_conv(3),
        "dil_conv_5x5": _dil_conv(5),
        "conv_7x1_1x7": Op(_conv_7x1_1x7_specs, _conv_7x1_1x7),
    }
