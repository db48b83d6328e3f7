"""Labeled images in memory: the types every loader of this package returns."""

import hashlib
import math
import pathlib
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_BLOCK = 2**20  # pixels that are counted at once

NONE_SKIPPED: Mapping[str, int] = types.MappingProxyType({})
"""Default of data sets."""


class DatasetError(ValueError):
    """A data set is missing or not what it should be.

    The message says what was expected where, what was found, and how to get it.
    """


class Split(NamedTuple):
    """Labeled images.

    Attributes:
      images: uint8 `[num, height, width, channels]`.
      labels: int32 `[num]`.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.labels.shape[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        _, height, width, channels = self.images.shape
        return height, width, channels


class ImageDataset(NamedTuple):
    """A data set of images, with or without classes.

    Attributes:
      name: the name it was loaded by.
      train: the training images.
      test: the held-out images.
      class_names: the names of the classes, in label order; empty for images without,
        whose labels are 0.
      mean: per-channel mean of the training pixels scaled to `[0, 1]`.
      std: per-channel standard deviation of the same pixels.
      source: one line saying what was read.
      skipped: how many files were left alone, by kind: those beside the images, and
        corrupt ones if these were to be skipped.
      data_dir: the folder of the classes' folders, of `folder`.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    skipped: Mapping[str, int] = NONE_SKIPPED
    data_dir: pathlib.Path | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes.

        Raises:
          DatasetError: if there are none.
        """
        if not self.class_names:
            raise DatasetError(
                f"data set {self.name!r} has no classes; expected one with classes"
            )
        return len(self.class_names)


def digest(dataset: ImageDataset) -> str:
    """SHA-256 of the images, the labels and the names of the classes."""
    result = hashlib.sha256("\0".join(dataset.class_names).encode())
    for array in (*dataset.train, *dataset.test):
        result.update(f"\n{array.dtype} {array.shape}\n".encode())
        result.update(np.ascontiguousarray(array).data)
    return result.hexdigest()


def split(data: Split, num_first: int) -> tuple[Split, Split]:
    """Cut a split in two, without shuffling or copying.

    Args:
      data: the images to divide.
      num_first: how many images the first part gets.

    Returns:
      The first `num_first` images, and the others.

    Raises:
      ValueError: if either part would be empty.
    """
    if not 0 < num_first < len(data.labels):
        raise ValueError(
            f"num_first must be between 1 and {len(data.labels) - 1} for a split of "
            f"{len(data.labels)} images, got {num_first}"
        )
    first = Split(data.images[:num_first], data.labels[:num_first])
    rest = Split(data.images[num_first:], data.labels[num_first:])
    return first, rest


def check_labels(labels: Any, num_classes: int, where: str) -> np.ndarray:
    """Check that labels are class indices.

    Args:
      labels: integers `[num]`.
      num_classes: the number of classes.
      where: where the labels were read, for the message.

    Returns:
      The labels as int32 `[num]`.

    Raises:
      DatasetError: if a label is out of range.
    """
    labels = np.asarray(labels)  # of objects, where they exceed 64 bits
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise DatasetError(
            f"image {wrong[0]} in {where} has label {labels[wrong[0]]}, expected 0 to "
            f"{num_classes - 1}"
        )
    return labels.astype(np.int32)


def channel_statistics(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute the mean and standard deviation of each channel.

    Args:
      images: uint8 `[num, height, width, channels]`.

    Returns:
      The means and the standard deviations of the pixels scaled to `[0, 1]`, one
      per channel.
    """
    # Exact, and never holds more than a block of images in a wider type.
    histogram = np.zeros((images.shape[-1], 256), np.int64)
    num = max(1, _BLOCK // math.prod(images.shape[1:3]))
    for start in range(0, len(images), num):
        for channel, counts in enumerate(histogram):
            pixels = images[start : start + num, ..., channel]
            counts += np.bincount(pixels.ravel(), minlength=256)
    values = np.arange(256) / 255
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(std.tolist())


def count_note(train: Split, test: Split, expected: tuple[int, int]) -> str:
    """Say by how much a copy of a published data set differs in size.

    Args:
      train: the training images found.
      test: the test images found.
      expected: the published numbers of training and test images.

    Returns:
      A clause to append to `ImageDataset.source`, empty when the sizes agree.
    """
    found = (len(train.labels), len(test.labels))
    if found == expected:
        return ""
    return (
        f", {found[0]} train and {found[1]} test images "
        f"instead of {expected[0]} and {expected[1]}"
    )


def skipped_text(skipped: Mapping[str, int]) -> str:
    """Say which files were skipped.

    Args:
      skipped: how many, by kind.

    Returns:
      A clause to append to a message, empty if there are none.

    Example:
      >>> skipped_text({".txt": 2, "hidden": 1})
      '; skipped: 2 .txt, 1 hidden'
    """
    if not skipped:
        return ""
    kinds = (f"{skipped[kind]} {kind}" for kind in sorted(skipped))
    return f"; skipped: {', '.join(kinds)}"
