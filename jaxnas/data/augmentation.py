"""Normalization and augmentation on the device, inside the compiled step.

Every image gets its own draw. All sizes are static, so one compilation serves a
whole run.
"""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from jaxnas import types


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """Scale pixels to `[0, 1]`, subtract the mean and divide by the deviation.

    Args:
      images: uint8 `[batch, height, width, channels]`.
      mean: per-channel mean of pixels in `[0, 1]`.
      std: per-channel standard deviation of the same pixels.

    Returns:
      float32 of the same shape; 0 in channels without deviation.

    Raises:
      ValueError: if shapes or types do not fit, or a deviation is negative.
    """
    _check_images(images)
    channels = images.shape[-1]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"images have {channels} channels, but mean has {len(mean)} values and std "
            f"has {len(std)}"
        )
    if not all(deviation >= 0 for deviation in std):
        raise ValueError(f"std is {tuple(std)}; expected 0 or more")
    std = [deviation or math.inf for deviation in std]  # constant channels become 0
    shape = (1, 1, 1, channels)
    scaled = images.astype(jnp.float32) / 255
    mean_, std_ = (jnp.asarray(x, jnp.float32).reshape(shape) for x in (mean, std))
    return (scaled - mean_) / std_


def augment(
    key: types.Key,
    images: jax.Array,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop_padding: int = 0,
    crop_fill: Literal["black", "mean"] = "black",
    flip: bool = False,
    cutout: int = 0,
) -> jax.Array:
    """Crop, flip, normalize and cut out.

    The draws of one augmentation do not depend on whether the others are on.

    Args:
      key: a typed PRNG key.
      images: uint8 `[batch, height, width, channels]`.
      mean: per-channel mean of pixels in `[0, 1]`.
      std: per-channel standard deviation of the same pixels.
      crop_padding: pixels added on every side before a random crop back to the
        original size; 0 for none.
      crop_fill: what these pixels are: `"black"`, added before normalization (DARTS,
        ASNG-NAS), or the `"mean"`, added as zeros after it (ENAS).
      flip: whether to mirror each image left to right with probability 1/2.
      cutout: side in pixels of the square set to 0 after normalization; 0 for none.

    Returns:
      float32 of the same shape.

    Raises:
      ValueError: if shapes or types do not fit, or a size is out of range.

    Source: the CIFAR augmentation of He et al. (2016), section 4.2, with Cutout
    (DeVries and Taylor, 2017).
    """
    _check_images(images)
    if crop_fill not in ("black", "mean"):
        raise ValueError(f"crop_fill is {crop_fill!r}; expected 'black' or 'mean'")
    crop_key, flip_key, cutout_key = jax.random.split(key, 3)
    if crop_fill == "mean":
        images = normalize(images, mean, std)
    if crop_padding:
        images = random_crop(crop_key, images, crop_padding)
    if flip:
        images = random_flip(flip_key, images)
    if crop_fill == "black":
        images = normalize(images, mean, std)
    if cutout:
        images = random_cutout(cutout_key, images, cutout)
    return images


def random_crop(key: types.Key, images: jax.Array, padding: int) -> jax.Array:
    """Pad with zeros and crop back to the original size at a random place.

    Args:
      key: a typed PRNG key.
      images: `[batch, height, width, channels]`.
      padding: pixels added on every side, less than the image's smaller side.

    Returns:
      Images of the same shape and type.

    Raises:
      ValueError: if `padding` is out of range.
    """
    smaller = min(images.shape[1:3])
    if not 0 <= padding < smaller:
        raise ValueError(
            f"crop padding must be between 0 and {smaller - 1} for images of "
            f"{images.shape[1]}x{images.shape[2]} pixels, got {padding}"
        )
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)
    return crop(images, corners, padding)


def crop(images: jax.Array, corners: jax.Array, padding: int) -> jax.Array:
    """Pad with zeros and crop back to the original size at given places.

    Args:
      images: `[batch, height, width, channels]`.
      corners: int32 `[batch, 2]`, row and column of each crop in the padded image,
        0 to `2 * padding`.
      padding: pixels added on every side.

    Returns:
      Images of the same shape and type.
    """
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    size = images.shape[1:]

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), size)

    return jax.vmap(cut)(jnp.pad(images, sides), corners)


def random_flip(key: types.Key, images: jax.Array) -> jax.Array:
    """Mirror each image left to right with probability 1/2.

    Args:
      key: a typed PRNG key.
      images: `[batch, height, width, channels]`.

    Returns:
      Images of the same shape and type.
    """
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_cutout(key: types.Key, images: jax.Array, size: int) -> jax.Array:
    """Set a square around a random pixel of each image to zero.

    Args:
      key: a typed PRNG key.
      images: normalized images `[batch, height, width, channels]`.
      size: side of the square in pixels, at most the image's smaller side.

    Returns:
      Images of the same shape and type.

    Raises:
      ValueError: if `size` is out of range.

    Source: `Cutout` of DARTS, cnn/utils.py, after DeVries and Taylor (2017).
    """
    num, height, width, _ = images.shape
    if not 0 <= size <= min(height, width):
        raise ValueError(
            f"cutout must be between 0 and {min(height, width)} for images of "
            f"{height}x{width} pixels, got {size}"
        )
    row_key, column_key = jax.random.split(key)
    rows = jax.random.randint(row_key, (num,), 0, height)
    columns = jax.random.randint(column_key, (num,), 0, width)
    return cut_out(images, jnp.stack([rows, columns], axis=1), size)


def cut_out(images: jax.Array, centers: jax.Array, size: int) -> jax.Array:
    """Set a square around a given pixel of each image to zero.

    Args:
      images: `[batch, height, width, channels]`.
      centers: int32 `[batch, 2]`, row and column; the square reaches from
        `center - size // 2` over `size` pixels and ends at the image's borders.
      size: side of the square in pixels.

    Returns:
      Images of the same shape and type.
    """
    height, width = images.shape[1:3]

    def inside(length: int, center: jax.Array) -> jax.Array:
        first = center[:, None] - size // 2
        position = jnp.arange(length)[None, :]
        return (position >= first) & (position < first + size)

    rows = inside(height, centers[:, 0])
    columns = inside(width, centers[:, 1])
    square = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(square, jnp.zeros((), images.dtype), images)


def _check_images(images: jax.Array) -> None:
    if images.ndim != 4 or images.dtype != jnp.uint8:
        raise ValueError(
            "images must be uint8 [batch, height, width, channels], got "
            f"{images.dtype} {images.shape}"
        )
