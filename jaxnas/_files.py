"""Files: replaced as a whole or not at all, and read within limits."""

import contextlib
import errno
import json
import math
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

_MAX_TEXT = 2**24  # bytes
_MAX_DEPTH = 50
_INTEGERS = range(-(2**63), 2**64)  # signed and unsigned, 64 bits


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
    write_bytes(path, text.encode(errors="replace"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, atomically; one that has this content is left alone."""
    path = pathlib.Path(path)
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


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file of at most 16 MiB in UTF-8.

    Args:
      path: the file; it may be a pipe.

    Returns:
      The text without the byte order mark that editors on Windows put in front.

    Raises:
      ValueError: if it is larger, or not UTF-8; the message does not name the file.
      OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(_MAX_TEXT + 1)
    if len(content) > _MAX_TEXT:
        raise ValueError(f"it is larger than {_MAX_TEXT:,} bytes")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text: byte {error.start}") from error


def parse_json(text: str) -> Any:
    """Read JSON that says one thing only.

    Args:
      text: one JSON value.

    Returns:
      The value; its numbers are finite, its integers have at most 64 bits.

    Raises:
      ValueError: if this is no JSON, a key appears twice in an object, a number is not
        finite or too large, or lists and objects are nested more than 50 deep.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{place}: this is not JSON: {error.msg}") from error
    except RecursionError:
        pass
    else:
        if not _is_deep(value):
            return value
    raise ValueError(f"this JSON is nested more than {_MAX_DEPTH} deep")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:40]!r} appears twice in a JSON object")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"this JSON has {name}; expected finite numbers")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"this JSON has the number {text[:40]}; it is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or int(text) not in _INTEGERS:
        raise ValueError(
            f"this JSON has the integer {text[:40]}; expected at most 64 bits"
        )
    return int(text)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        lists = [item for item in level if isinstance(item, list)]
        lists += [list(item.values()) for item in level if isinstance(item, dict)]
        level = [item for items in lists for item in items]
    return bool(level)


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
