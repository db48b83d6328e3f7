"""Atomic writes: a file is replaced as a whole or not at all."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends.

    If the block raises, the temporary file is removed and `path` stays as it was.

    Args:
      path: file to create or replace; its folder must exist.

    Yields:
      The temporary file, in the same folder.

    Raises:
      OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    # A name of its own for every writer, on other machines too.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        # Atomic within one folder: readers see the old file or the new one.
        temporary.replace(path)
    except OSError as error:
        full = disk_full_error(error, path)
        if full is None:
            raise
        raise full from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, atomically; one that has this text is left alone."""
    content, path = text.encode(errors="replace"), pathlib.Path(path)
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_write(path) as file:
        file.write(content)


def append(path: str | os.PathLike[str], content: bytes) -> None:
    """Append to a file, creating it if need be, all of the content or nothing.

    Raises:
      OSError: if it cannot be written.
    """
    with open(path, "ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            num_written = file.write(content)
            if num_written != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            file.truncate(size)
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int = 2) -> None:
    """Write a JSON file, atomically."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


_FULL = errno.ENOSPC, errno.EDQUOT


def check_room(
    folder: str | os.PathLike[str], num_bytes: int, *, num_files: int
) -> None:
    """Check that a disk, and the quota on it, have room, by taking it for a moment.

    Args:
      folder: what is made, filled and removed again.
      num_bytes: size of a file, where the system can reserve one without writing it.
      num_files: number of empty files besides.

    Raises:
      OSError: if there is no room.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir()
        for i in range(num_files):
            (folder / str(i)).touch()
        with (folder / "content").open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                try:
                    os.posix_fallocate(file.fileno(), 0, num_bytes)
                except OSError as error:
                    if error.errno in _FULL:
                        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def disk_full_error(
    error: BaseException, path: str | os.PathLike[str] | None = None
) -> OSError | None:
    """The error that a write has failed with, if a disk, or a quota, is full.

    Args:
      error: what was raised; libraries wrap the error of the system, or only cite it.
      path: what was being written; the file that the error names if `None`.

    Returns:
      An `OSError` with `ENOSPC` or `EDQUOT` and a file name, or `None`.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for code in _FULL:
        text = os.strerror(code)
        for cause in causes:
            if getattr(cause, "errno", None) == code or text in str(cause):
                name = getattr(cause, "filename", None) if path is None else path
                return OSError(code, text, name and os.fspath(name))
    return None
