"""Locks on folders: one process writes, the others are told which.

The system frees the lock of a process that ends, however it ends. Machines that share
a folder see each other's locks where its file system has them, as NFS does.
"""

import atexit
import contextlib
import datetime
import errno
import json
import os
import pathlib
import shlex
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import filelock

from jaxnas import _files

LOCK_NAME = ".lock"
HOLDER_NAME = ".lock.json"

_POLL_SECONDS = 0.5
_UNSUPPORTED = errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS
_held: dict[str, filelock.BaseFileLock] = {}


class FolderInUse(ValueError):  # it names what is the case
    """Another process writes to the folder; the message says which."""


def acquire(folder: str | os.PathLike[str], *, wait: bool = False) -> bool:
    """Take the lock of a folder for this process, until `release` or its end.

    Args:
      folder: an existing folder. Beside its lock it gets a file that says who holds it.
      wait: whether to wait for another process that holds it, and say so, instead of
        raising an error.

    Returns:
      Whether the lock was taken now; `False` if this process holds it already, or the
      file system has no locks, which is a warning.

    Raises:
      FolderInUse: if another process holds it.
      OSError: if the file of the lock cannot be made.
    """
    key = os.path.realpath(folder)
    if key in _held:
        return False
    lock = filelock.FileLock(os.path.join(key, LOCK_NAME), thread_local=False)
    is_told = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            holder = _holder(pathlib.Path(key))
            if not wait:
                raise FolderInUse(
                    f"{os.fspath(folder)} is in use by {holder}; wait for its end, or "
                    "choose another folder"
                ) from None
            if not is_told:
                print(
                    f"waiting for {os.fspath(folder)}, in use by {holder}", flush=True
                )
                is_told = True
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            warnings.warn(
                f"{os.fspath(folder)} cannot be locked ({error.strerror}); let only "
                "one process at a time write there",
                stacklevel=2,
            )
            return False
    _held[key] = lock
    _write_holder(pathlib.Path(key, HOLDER_NAME))
    return True


def release(folder: str | os.PathLike[str]) -> None:
    """Free the lock of a folder that this process holds."""
    key = os.path.realpath(folder)
    with contextlib.suppress(OSError):  # of a folder that is no longer there
        os.unlink(os.path.join(key, HOLDER_NAME))
    _held.pop(key).release()


@contextlib.contextmanager
def hold(folder: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder, as `acquire` does; a block within a block may, too."""
    is_taken = acquire(folder, wait=wait)
    try:
        yield
    finally:
        if is_taken:
            release(folder)


@atexit.register
def _release_all() -> None:
    for folder in list(_held):
        release(folder)


def _write_holder(file: pathlib.Path) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(["python", *sys.argv]),
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    try:
        _files.write_json(file, holder)
    except OSError as error:
        # A finished run needs no room on a full disk. An earlier name would mislead.
        if _files.disk_full_error(error) is None:
            raise
        file.unlink(missing_ok=True)


def _holder(folder: pathlib.Path) -> str:
    """Who holds the lock of a folder, in words."""
    try:
        holder: Any = json.loads((folder / HOLDER_NAME).read_bytes())
        return (
            f"process {holder['pid']} on {holder['host']} since {holder['since']} "
            f"({holder['command'][:200]})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
