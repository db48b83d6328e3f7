import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import data
from jaxnas.data import augmentation
from jaxnas.data.images import channel_statistics

MEAN = (0.49139968, 0.48215827, 0.44653124)
STD = (0.24703233, 0.24348505, 0.26158768)


def make_images(num=16, height=8, width=6, channels=3):
    # No zeros, so that padding can be told from pixels.
    generator = np.random.default_rng(0)
    size = (num, height, width, channels)
    return generator.integers(1, 256, size).astype(np.uint8)


def test_normalize_scales_subtracts_and_divides():
    images = make_images()
    outputs = data.normalize(jnp.asarray(images), MEAN, STD)
    assert outputs.dtype == jnp.float32
    expected = (images.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_channels_without_deviation_become_zero():
    images = make_images()
    images[..., 2] = 77
    mean, std = channel_statistics(images)
    assert std[2] == 0
    outputs = data.normalize(jnp.asarray(images), mean, std)
    expected = (images[..., :2] / 255 - np.array(mean[:2])) / np.array(std[:2])
    np.testing.assert_allclose(outputs[..., :2], expected, atol=1e-5)
    for other in (images, make_images()):
        outputs = data.normalize(jnp.asarray(other), mean, std)
        np.testing.assert_array_equal(outputs[..., 2], 0)


def test_crop_is_a_slice_of_the_padded_image():
    images, padding = make_images(), 3
    generator = np.random.default_rng(1)
    corners = generator.integers(0, 2 * padding + 1, (len(images), 2))
    corners[:2] = [[0, 0], [2 * padding, 2 * padding]]
    outputs = augmentation.crop(jnp.asarray(images), jnp.asarray(corners), padding)
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for image, output, (row, column) in zip(padded, outputs, corners, strict=True):
        np.testing.assert_array_equal(output, image[row : row + 8, column : column + 6])


def test_random_crop_draws_every_offset_for_each_image_on_its_own():
    image = make_images(num=1)
    images = jnp.asarray(np.repeat(image, 600, axis=0))
    outputs = np.asarray(augmentation.random_crop(jax.random.key(0), images, 1))
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    slices = [padded[r : r + 8, c : c + 6] for r in range(3) for c in range(3)]
    counts = [np.all(outputs == s, axis=(1, 2, 3)).sum() for s in slices]
    assert sum(counts) == 600
    # Binomial(600, 1/9): mean 66.7, standard deviation 7.7.
    assert min(counts) > 36 and max(counts) < 98


def test_random_flip_mirrors_half_of_the_images():
    images = make_images(num=1000, height=2, width=3, channels=1)
    outputs = augmentation.random_flip(jax.random.key(0), jnp.asarray(images))
    same = (np.asarray(outputs) == images).all(axis=(1, 2, 3))
    mirrored = (np.asarray(outputs) == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert np.logical_or(same, mirrored).all()
    assert 420 < mirrored.sum() < 580


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cut_out_clears_a_clipped_square(size):
    images = make_images(num=48).astype(np.float32)
    centers = np.stack(np.divmod(np.arange(48), 6), axis=1)
    outputs = augmentation.cut_out(jnp.asarray(images), jnp.asarray(centers), size)
    for image, (row, column) in zip(images, centers, strict=True):
        top, left = row - size // 2, column - size // 2
        image[max(top, 0) : top + size, max(left, 0) : left + size] = 0
    np.testing.assert_array_equal(outputs, images)


def test_random_cutout_centers_anywhere():
    images = jnp.ones((1000, 4, 5, 1))
    outputs = np.asarray(augmentation.random_cutout(jax.random.key(0), images, 1))
    counts = (outputs == 0).sum(axis=0)[..., 0]
    assert counts.sum() == 1000  # One pixel of each image.
    assert counts.min() > 20 and counts.max() < 90  # Mean 50, deviation 6.9.


def test_padding_is_black_before_and_cutout_mean_after_normalization():
    images = jnp.full((64, 8, 8, 3), 255, jnp.uint8)
    black = (0 - np.array(MEAN)) / np.array(STD)
    white = (1 - np.array(MEAN)) / np.array(STD)
    key = jax.random.key(0)
    cropped = data.augment(key, images, MEAN, STD, crop_padding=4)
    values = np.unique(np.asarray(cropped).reshape(-1, 3), axis=0)
    np.testing.assert_allclose(values, [black, white], atol=1e-5)
    erased = data.augment(key, images, MEAN, STD, cutout=4)
    values = np.unique(np.asarray(erased).reshape(-1, 3), axis=0)
    np.testing.assert_allclose(values, [np.zeros(3), white], atol=1e-5)


def test_padding_with_the_mean_is_zero_after_normalization():
    """The same crops and flips, with other pixels around the images."""
    images, key = jnp.asarray(make_images()), jax.random.key(0)
    black, mean = (
        np.asarray(
            data.augment(
                key, images, MEAN, STD, crop_padding=4, crop_fill=fill, flip=True
            )
        )
        for fill in ("black", "mean")
    )
    is_padding = (mean == 0).all(-1)
    assert 0.2 < is_padding.mean() < 0.8
    np.testing.assert_allclose(mean[~is_padding], black[~is_padding], atol=1e-6)
    expected = np.broadcast_to(-np.array(MEAN) / STD, black[is_padding].shape)
    np.testing.assert_allclose(black[is_padding], expected, atol=1e-5)


def test_wrong_fills_are_refused():
    with pytest.raises(ValueError, match="crop_fill is 'white'; expected 'black' or"):
        data.augment(
            jax.random.key(0),
            jnp.asarray(make_images()),
            MEAN,
            STD,
            crop_fill="white",  # pyright: ignore[reportArgumentType]
        )


def test_augment_is_a_function_of_its_key():
    images = jnp.asarray(make_images())
    options = {"crop_padding": 2, "flip": True, "cutout": 3}
    run = jax.jit(
        functools.partial(data.augment, mean=MEAN, std=STD, **options),
    )
    first = run(jax.random.key(0), images)
    assert first.shape == images.shape and first.dtype == jnp.float32
    np.testing.assert_array_equal(first, run(jax.random.key(0), images))
    assert not np.array_equal(first, run(jax.random.key(1), images))
    eager = data.augment(jax.random.key(0), images, MEAN, STD, **options)
    np.testing.assert_allclose(first, eager, atol=1e-6)


def test_augment_without_options_normalizes():
    images = jnp.asarray(make_images())
    np.testing.assert_array_equal(
        data.augment(jax.random.key(0), images, MEAN, STD),
        data.normalize(images, MEAN, STD),
    )


def test_draws_do_not_depend_on_other_options():
    images = jnp.asarray(make_images())
    key = jax.random.key(3)
    flipped = data.augment(key, images, MEAN, STD, flip=True)
    both = data.augment(key, images, MEAN, STD, flip=True, cutout=4)
    kept = np.asarray(both) != 0
    np.testing.assert_array_equal(np.asarray(both)[kept], np.asarray(flipped)[kept])
    assert not kept.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_padding": -1}, "crop padding must be between 0 and 5"),
        ({"crop_padding": 6}, "crop padding must be between 0 and 5"),
        ({"cutout": -2}, "cutout must be between 0 and 6"),
        ({"cutout": 7}, "cutout must be between 0 and 6 for images of 8x6"),
    ],
)
def test_sizes_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.augment(
            jax.random.key(0), jnp.asarray(make_images()), MEAN, STD, **options
        )


@pytest.mark.parametrize(
    ("images", "mean", "std", "message"),
    [
        (jnp.zeros((2, 4, 4, 3)), MEAN, STD, "must be uint8 .* got float32"),
        (jnp.zeros((4, 4, 3), jnp.uint8), MEAN, STD, r"got uint8 \(4, 4, 3\)"),
        (jnp.asarray(make_images()), (0.5,), STD, "3 channels, but mean has 1"),
        (jnp.asarray(make_images()), MEAN, (0.2, 0.2, -0.1), "expected 0 or more"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, mean, std, message):
    with pytest.raises(ValueError, match=message):
        data.normalize(images, mean, std)
