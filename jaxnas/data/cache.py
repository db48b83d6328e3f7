"""Decoded images, kept on disk so that a data set is decoded only once."""

import hashlib
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable

import numpy as np

from jaxnas import _archives, _files
from jaxnas.data import decoding

FOLDER = ".jaxnas-cache"
"""Created inside the data folder; it may be deleted at any time."""


def fingerprint(
    root: pathlib.Path, files: Iterable[pathlib.Path], options: str = ""
) -> str:
    """Identify a set of files without reading them.

    Args:
      root: the folder that paths are taken relative to.
      files: the files, in an order that matters.
      options: anything else the decoded arrays depend on.

    Returns:
      A hexadecimal digest over options, the version of the decoder, relative paths,
      sizes and times of change.
    """
    digest = hashlib.sha256(f"{options}\n{decoding.version()}".encode())
    for file in files:
        status = file.stat()
        name = os.fsencode(file.relative_to(root).as_posix())
        digest.update(b"\n%b\0%d\0%d" % (name, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


def load_or_compute(
    root: pathlib.Path,
    key: str,
    compute: Callable[[], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Return the arrays stored under a key, computing and storing them if absent.

    Where the folder cannot be written, or its file is damaged, a warning says so
    and the arrays are computed.

    Args:
      root: the data folder.
      key: what the arrays are stored under, usable as a file name.
      compute: makes the arrays.

    Returns:
      What `compute` returns.
    """
    path = root / FOLDER / f"{key}.npz"
    if path.is_file():
        try:
            # It is not compressed, so that its arrays are no larger than the file.
            return _archives.read(path, max_bytes=path.stat().st_size)
        except (_archives.ArchiveError, OSError) as error:
            warnings.warn(f"decoding again, {path} is damaged: {error}", stacklevel=2)
    arrays = compute()
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(
            f"the decoded images could not be kept for the next time: {error}",
            stacklevel=2,
        )
    return arrays


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(exist_ok=True)
    with _files.atomic_write(path) as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
