"""Files and arrays of equal content."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from jaxnas.data import decoding, images


def equal_files(paths: Sequence[pathlib.Path]) -> np.ndarray:
    """Find files with the same bytes. Only those of equal sizes are read.

    Args:
      paths: the files.

    Returns:
      int64 `[num]`: a number that equal files share, and others do not.

    Raises:
      DatasetError: if a file cannot be read.
    """
    try:
        statuses = [path.stat() for path in paths]
    except OSError as error:
        raise images.DatasetError(
            f"{error.filename} cannot be read: {error.strerror or error}"
        ) from error
    sizes = [status.st_size for status in statuses]
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)

    def key(index: int) -> Hashable:
        if counts[inverse[index]] == 1:
            return sizes[index]
        return _file_digest(paths[index], sizes[index], statuses[index].st_mtime_ns)

    return _numbered(decoding.in_threads(key, range(len(paths)), 1024))


def equal_images(*pixels: np.ndarray) -> np.ndarray:
    """Find images with the same pixels.

    Args:
      *pixels: uint8 `[num, height, width, channels]`.

    Returns:
      int64 `[num]`, of all in a row: a number that equal images share, and others do
      not.
    """
    every = (image for array in pixels for image in array)
    return _numbered(hashlib.sha256(image.tobytes()).digest() for image in every)


def _numbered(keys: Iterable[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


# A command looks at a folder several times.
@functools.lru_cache(maxsize=2**17)
def _file_digest(path: pathlib.Path, num_bytes: int, changed: int) -> bytes:
    """SHA-256 of a file of this size, changed at this time."""
    del num_bytes, changed
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise images.DatasetError(
            f"{os.fspath(path)} cannot be read: {error.strerror or error}"
        ) from error
