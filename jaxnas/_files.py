"""Atomic writes: a file is replaced as a whole or not at all."""

import contextlib
import json
import os
import pathlib
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
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int = 2) -> None:
    """Write a JSON file, atomically."""
    write_text(path, json.dumps(value, indent=indent) + "\n")
