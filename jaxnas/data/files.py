"""Splits of image files: decoded once, and kept for the next time."""

import collections
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data import cache, decoding, images


class ListedFiles(NamedTuple):
    """The images of one split, before they are decoded.

    Attributes:
      items: what each is made from, such as its path.
      labels: int32 `[num]`.
    """

    items: Sequence[Any]
    labels: np.ndarray


def unlabeled(items: Sequence[Any]) -> ListedFiles:
    """List images of a data set without classes."""
    return ListedFiles(items, np.zeros(len(items), np.int32))


class DecodedFiles(NamedTuple):
    """The images of both splits.

    Attributes:
      train: the training images.
      test: the held-out images.
      mean: per-channel mean of the training pixels scaled to `[0, 1]`.
      std: per-channel standard deviation of the same pixels.
      skipped: how many were left out, as `ImageDataset.skipped` has it.
    """

    train: images.Split
    test: images.Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: collections.Counter[str]


def decode(
    cache_dir: pathlib.Path,
    key: str,
    train: ListedFiles,
    test: ListedFiles,
    decode_one: Callable[[Any], np.ndarray],
    *,
    skip_corrupt: bool,
) -> DecodedFiles:
    """Decode the images of both splits, or take them from the cache.

    Args:
      cache_dir: where they are kept.
      key: what they are kept under.
      train: the training images.
      test: the held-out images.
      decode_one: `item -> uint8 [height, width, channels]`; is called in many threads.
      skip_corrupt: whether to leave out those that raise `decoding.CorruptImage`.

    Returns:
      The images, in the order of the lists.

    Raises:
      DatasetError: if sizes differ, or no image of a class can be decoded; as
        `decode_one` does.
    """

    def compute() -> dict[str, np.ndarray]:
        pixels, is_read = decoding.decode_all(
            [*train.items, *test.items], decode_one, skip_corrupt=skip_corrupt
        )
        in_train, in_test = np.split(is_read, [len(train.items)])
        _check_classes(train, in_train)
        _check_classes(test, in_test)
        num_train = int(in_train.sum())
        mean, std = images.channel_statistics(pixels[:num_train])
        return {
            "train": pixels[:num_train],
            "test": pixels[num_train:],
            "is_read": is_read,
            "mean": np.array(mean),
            "std": np.array(std),
        }

    key += "-skipping" * skip_corrupt
    arrays = cache.load_or_compute(cache_dir, key, compute)
    in_train, in_test = np.split(arrays["is_read"], [len(train.items)])
    num_corrupt = int((~arrays["is_read"]).sum())
    return DecodedFiles(
        images.Split(arrays["train"], train.labels[in_train]),
        images.Split(arrays["test"], test.labels[in_test]),
        tuple(arrays["mean"].tolist()),
        tuple(arrays["std"].tolist()),
        collections.Counter({"corrupt": num_corrupt} if num_corrupt else {}),
    )


def _check_classes(files: ListedFiles, is_read: np.ndarray) -> None:
    """Raise `DatasetError` if all images of a class have been left out."""
    lost = np.setdiff1d(files.labels, files.labels[is_read])
    if lost.size:
        first = int(np.argmax(files.labels == lost[0]))
        raise images.DatasetError(
            f"{files.items[first]} and all other images of its class are corrupt; "
            "expected one or more that can be decoded"
        )
