"""NumPy archives (`.npz`), read within limits."""

import ast
import io
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from typing import IO, Literal

import numpy as np

from jaxnas._checks import reason, shorten

MAX_BYTES = 2**28
"""The most bytes of all arrays together, unless a caller says otherwise."""

_MAX_HEADER = 4_096  # bytes in front of an array; one of 32 axes takes 700
_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What `zipfile` and `ast.literal_eval` raise for damaged content.
_FAULTS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError),
    *(RuntimeError, OverflowError, SyntaxError, TypeError, MemoryError),
)


class ArchiveError(ValueError):
    """A file is no archive of arrays, damaged or too large; the message says what."""


def read(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
    """Read an archive of numbers, Booleans and text, as `numpy.savez` writes it.

    All sizes are checked before anything is unpacked, and pickles are never read.

    Args:
      path: the file.
      max_bytes: the most bytes of all arrays together.

    Returns:
      The arrays by name, in the byte order of this machine.

    Raises:
      ArchiveError: if the file is anything else; the message does not name the file.
      OSError: if there is no such file, or it cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ArchiveError("it is not a regular file")
    with _ChunkedFile(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_members(archive, max_bytes)
        except ArchiveError:
            raise
        except _FAULTS as error:
            raise ArchiveError(reason(error)) from error


class _ChunkedFile(io.FileIO):
    """A file that no field of its own can make read more than a chunk at once.

    `zipfile` reads the table of contents at once. It reads members in pieces.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _CHUNK:
            raise ArchiveError(f"its table of contents has {size:,} bytes")
        return super().read(size)


def _read_members(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, np.ndarray]:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise ArchiveError(
            f"its arrays take {total:,} bytes; expected at most {max_bytes:,}"
        )
    arrays: dict[str, np.ndarray] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        shown = repr(shorten(name, 60))
        if name == member.filename:
            raise ArchiveError(f"it holds {shown}, which is no array")
        if name in arrays:
            raise ArchiveError(f"it holds {shown} twice")
        if member.flag_bits & 1 or member.compress_type not in _METHODS:
            raise ArchiveError(
                f"{shown} is encrypted or packed in an unusual way; expected what "
                "numpy.savez writes"
            )
        try:
            with archive.open(member) as file:
                arrays[name] = _read_array(file, member.file_size)
        except ArchiveError as error:
            raise ArchiveError(f"{shown} {error}") from error
        except _FAULTS as error:
            raise ArchiveError(f"{shown} is damaged: {reason(error)}") from error
    return arrays


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """The array of a member of `size` bytes."""
    major, minor = np.lib.format.read_magic(file)
    if (major, minor) not in ((1, 0), (2, 0), (3, 0)):
        raise ArchiveError(f"has the format {major}.{minor}; expected 1.0 to 3.0")
    length = 2 if major == 1 else 4
    num_header = int.from_bytes(file.read(length), "little")
    if num_header > _MAX_HEADER:
        raise ArchiveError(f"has a header of {num_header:,} bytes")
    dtype, shape, order = _parse_header(file.read(num_header).decode("latin-1"))
    num_bytes = math.prod(shape) * dtype.itemsize
    num_left = size - 8 - length - num_header
    if num_bytes != num_left:
        raise ArchiveError(
            f"is {shape} of {dtype} by its header, but has {num_left:,} bytes"
        )
    content = np.empty(num_bytes, np.uint8)
    for start in range(0, num_bytes, _CHUNK):
        piece = content[start : start + _CHUNK]
        chunk = file.read(piece.size)
        if len(chunk) != piece.size:
            raise ArchiveError("ends too early")
        piece[:] = np.frombuffer(chunk, np.uint8)
    # The checksum is compared at the end.
    if file.read(1):
        raise ArchiveError("has bytes behind its end")
    flat = content.view(dtype)
    _check_values(flat)
    array = flat.reshape(shape, order=order)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _parse_header(text: str) -> tuple[np.dtype, tuple[int, ...], Literal["C", "F"]]:
    header = ast.literal_eval(text.strip())
    if not isinstance(header, dict) or {*header} != {"descr", "fortran_order", "shape"}:
        raise ArchiveError("has a header without type, order and shape")
    kind, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if not isinstance(kind, str) or not re.fullmatch(
        r"[<>|=]?[biufU][1-9]\d{0,8}", kind
    ):
        raise ArchiveError(
            f"is of type {shorten(repr(kind), 60)}; expected numbers or text"
        )
    if type(fortran) is not bool or not isinstance(shape, tuple):
        raise ArchiveError("has a header without order and shape")
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ArchiveError(f"has the shape {shorten(repr(shape), 60)}")
    return np.dtype(kind), shape, "F" if fortran else "C"


def _check_values(flat: np.ndarray) -> None:
    """Refuse bits that no Boolean and no character has."""
    if flat.dtype.kind == "b" and (flat.view(np.uint8) > 1).any():
        raise ArchiveError("has Booleans that are neither true nor false")
    if flat.dtype.kind == "U":
        codes = flat.view(np.dtype(np.uint32).newbyteorder(flat.dtype.byteorder))
        if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any():
            raise ArchiveError("has characters that do not exist")
