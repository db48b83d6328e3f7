"""Image inpainting: restoring pixels that are missing."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.train.tasks import mean_over_batch
from jaxnas.types import Batch, Key, Metrics, Outputs, Task

MaskName = Literal["center", "pixel", "half"]

MAX_PSNR = 100.0
"""The most decibels of an image; a perfect one has an error of 0."""

_MISSING = 0.8  # of the pixels, by the mask `"pixel"`
_RADIUS = 5  # of the window of `ssim`: 3.5 standard deviations
_DEVIATION = 1.5


def _center(key: Key, height: int, width: int) -> jax.Array:
    del key

    def middle(length: int) -> jax.Array:
        place = jnp.arange(length)
        return (place >= length // 4) & (place < 3 * length // 4)

    return ~(middle(height)[:, None] & middle(width)[None])


def _pixel(key: Key, height: int, width: int) -> jax.Array:
    return jax.random.uniform(key, (height, width), jnp.float32) >= _MISSING


def _scaled_pixel(key: Key, height: int, width: int) -> jax.Array:
    draws = jax.random.uniform(key, (height, width), jnp.float32)
    return jnp.where(draws >= _MISSING, draws, 0)


def _half(key: Key, height: int, width: int) -> jax.Array:
    left = jnp.broadcast_to(jnp.arange(width)[None] < width // 2, (height, width))
    top = jnp.broadcast_to(jnp.arange(height)[:, None] < height // 2, (height, width))
    kept = jnp.stack([left, ~left, top, ~top])
    return kept[jax.random.randint(key, (), 0, 4)]


_MASKS: dict[str, Callable[[Key, int, int], jax.Array]] = {
    "center": _center,
    "pixel": _pixel,
    "half": _half,
}


def inpainting(mask: MaskName, *, scale_kept: bool = False) -> Task:
    """Restore images of which pixels have been set to 0.

    The loss is the mean squared error over all pixels, missing or not. Every image of
    every batch has a mask of its own, the same for all architectures that see the
    batch, and in evaluation always the same.

    Args:
      mask: what is missing. `"center"`: the square between 1/4 and 3/4 of both sides;
        `"pixel"`: each pixel with probability 0.8, in all channels; `"half"`: the left,
        the right, the upper or the lower half.
      scale_kept: whether pixels that the mask `"pixel"` keeps are multiplied by numbers
        drawn from [0.8, 1), as the code of Suganuma et al. does, against their paper.

    Returns:
      A `Task` for networks that return images of the shape of their inputs. Images must
      have values in [0, 1] after preprocessing: mean 0 and standard deviation 1 in
      `data.normalize`. It takes batches like `classification`, without use for their
      labels, and adds `target`, the original images. Its metrics are means over images:
      `loss`, the mean squared error; `psnr` in decibels; `ssim`. The last two are of
      restored images clipped to [0, 1]; see `psnr` and `ssim`.

    Raises:
      ValueError: if there is no such mask, or it does not scale; when computing the
        loss, if the outputs are not of the shape of the images, or as `ssim` does.

    Source: Suganuma et al. (2018), "Exploiting the potential of standard convolutional
    autoencoders for image restoration by evolutionary search", section 4.1; their code,
    `Inpainting/cnn_train.py`.
    """
    if mask not in _MASKS:
        raise ValueError(
            f"mask is {mask!r}; expected one of {', '.join(get_args(MaskName))}"
        )
    if scale_kept and mask != "pixel":
        raise ValueError(f"scale_kept is True; expected False with the mask {mask!r}")
    draw = _scaled_pixel if scale_kept else _MASKS[mask]

    def prepare(keys: jax.Array, batch: Batch) -> Batch:
        images = batch["image"]
        _, height, width, _ = images.shape
        masks = jax.vmap(lambda key: draw(key, height, width))(keys)
        masked = images * masks[..., None].astype(images.dtype)
        return {**batch, "image": masked, "target": images}

    def loss(outputs: Outputs, batch: Batch) -> tuple[jax.Array, Metrics]:
        originals = batch["target"]
        if getattr(outputs, "shape", None) != originals.shape:
            raise ValueError(
                f"outputs have shape {jax.tree.map(jnp.shape, outputs)}; expected that "
                f"of the images, {originals.shape}"
            )
        restored = outputs.astype(originals.dtype)
        errors = jnp.square(restored - originals).mean((1, 2, 3))
        mean = mean_over_batch(errors, batch)
        clipped = lax.stop_gradient(jnp.clip(restored, 0, 1))
        metrics = {
            "loss": mean,
            "psnr": mean_over_batch(psnr(clipped, originals), batch),
            "ssim": mean_over_batch(ssim(clipped, originals), batch),
        }
        return mean, metrics

    return Task(loss, prepare)


def psnr(images: jax.Array, originals: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio of each image, at most `MAX_PSNR`.

    The limit is that of a squared error of 1e-10, as if no image were closer to the
    original; so perfect images have a finite ratio, and means of many images too.

    Args:
      images: `[B, H, W, C]` in [0, 1].
      originals: images of the same shape.

    Returns:
      `[B]`, in decibels.

    Example:
      >>> import jax.numpy as jnp
      >>> black = jnp.zeros((1, 4, 4, 3))
      >>> print(psnr(black + 0.1, black).round(2), psnr(black, black))
      [20.] [100.]
    """
    errors = jnp.square(images - originals).mean((1, 2, 3))
    return -10 * jnp.log10(jnp.maximum(errors, 10 ** (-MAX_PSNR / 10)))


def ssim(images: jax.Array, originals: jax.Array) -> jax.Array:
    """Structural similarity of each image.

    The window is Gaussian, of 11x11 pixels with a standard deviation of 1.5, and lies
    within the image; variances are those of the pixels, not of a sample. This is
    scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1`.

    Args:
      images: `[B, H, W, C]` in [0, 1].
      originals: images of the same shape.

    Returns:
      `[B]`, at most 1; the mean over pixels and channels.

    Raises:
      ValueError: if the images are smaller than the window.

    Source: Wang et al. (2004), "Image quality assessment", section III.B.
    """
    height, width = images.shape[1:3]
    size = 2 * _RADIUS + 1
    if min(height, width) < size:
        raise ValueError(
            f"images are {width}x{height} pixels; expected at least {size}x{size}, the "
            "window of SSIM"
        )
    rows, columns = (_window(length, images.dtype) for length in (height, width))

    def local_mean(values: jax.Array) -> jax.Array:
        return jnp.einsum(
            "ih,bhwc,jw->bijc", rows, values, columns, precision=lax.Precision.HIGHEST
        )

    # Variances do not depend on where zero is; rounding errors do.
    zero = originals.mean((1, 2), keepdims=True)
    x, y = images - zero, originals - zero
    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x = local_mean(x * x) - mean_x**2
    var_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + zero, mean_y + zero
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean((1, 2, 3))


def _window(length: int, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Weights `[length - 10, length]` of the pixels in each window along a side."""
    weights = np.exp(-0.5 * np.square(np.arange(-_RADIUS, _RADIUS + 1) / _DEVIATION))
    weights /= weights.sum()
    num = length - 2 * _RADIUS
    rows = [np.pad(weights, (first, num - 1 - first)) for first in range(num)]
    return jnp.asarray(np.stack(rows), dtype)
