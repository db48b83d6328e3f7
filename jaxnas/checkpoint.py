"""Checkpoints of a whole run, written by Orbax, verified when they are read."""

import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import _files

_UNFINISHED = ".orbax-checkpoint-tmp"


class CheckpointError(ValueError):
    """There are checkpoints, but they cannot be used."""


class Checkpoints:
    """The newest few states of a run in one folder; a context manager.

    A checkpoint holds the leaves of the state as host arrays, so that a run may go on
    with another number of devices, and a digest of them, so that damage is noticed.
    Orbax renames a finished folder into place: a killed process leaves no half-written
    checkpoint.
    """

    def __init__(self, folder: str | os.PathLike[str], *, max_to_keep: int = 3):
        """Open the folder, creating it if need be.

        Args:
          folder: where the checkpoints are.
          max_to_keep: older checkpoints are deleted.
        """
        # Orbax takes seconds to import.
        import orbax.checkpoint as ocp

        _hide_what_is_raised()
        self._ocp = ocp
        self._folder = pathlib.Path(folder).absolute()
        self._max_to_keep = max_to_keep
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()
        self._resources = contextlib.ExitStack()
        self._path = self._resources.enter_context(_plain_path(self._folder))
        self._checkpointer = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler("state", "digest")
        )
        # Orbax runs in one thread of ours: an event loop, as notebooks have, must not
        # be running in it, and its own background threads wait minutes on a full disk.
        self._thread = futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: futures.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._thread.shutdown(wait=False)  # who interrupts does not want to wait
            return
        with self._resources:
            try:
                self.wait()
            finally:
                self._thread.shutdown()
                self._checkpointer.close()

    def save(self, step: int, state: Any) -> None:
        """Write a checkpoint in the background; a step that exists is left alone.

        Args:
          step: number of steps the state has seen.
          state: pytree of arrays, typed PRNG keys included.

        Raises:
          OSError: if the checkpoint before could not be written, as on a full disk.
        """
        self.wait()
        if step not in self._steps():
            self._writing = self._thread.submit(self._write, step, _to_host(state))

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
          OSError: if it could not be written, as on a full disk.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, host: dict[str, np.ndarray]) -> None:
        args = self._ocp.args
        digest = {"sha256": _digest(host), "leaves": _describe(host)}
        try:
            # Orbax may hang on a full disk, with hundreds of lines of traceback.
            num_bytes = 2**18 + sum(leaf.nbytes + 2**11 for leaf in host.values())
            _files.check_room(
                self._folder / f"room{_UNFINISHED}", num_bytes, num_files=40
            )
            self._checkpointer.save(
                self._path / str(step),
                args=args.Composite(
                    state=args.StandardSave(host), digest=args.JsonSave(digest)
                ),
            )
        except Exception as error:
            self._remove_unfinished()
            full = _files.disk_full_error(error, self._folder / str(step))
            if full is None:
                raise
            raise full from error
        for old in self._steps()[: -self._max_to_keep]:
            shutil.rmtree(self._folder / str(old))

    def _steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        names = (entry.name for entry in self._folder.iterdir() if entry.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

    def _remove_unfinished(self) -> None:
        """Free the space of checkpoints that nobody finished."""
        for entry in self._folder.iterdir():
            if _UNFINISHED in entry.name:
                shutil.rmtree(entry, ignore_errors=True)

    def restore(self, like: Any) -> Any | None:
        """Read the newest checkpoint that is whole.

        Args:
          like: arrays of the structure, shapes and dtypes that were saved; the result
            lies where they lie.

        Returns:
          The state, or `None` if there is no checkpoint. A damaged checkpoint is
          skipped with a warning that names it, and deleted, so that its step can be
          saved again.

        Raises:
          CheckpointError: if there are checkpoints and all are damaged, or if the
            newest that is whole was saved from a state with other leaves.
        """
        self.wait()
        steps = self._steps()[::-1]
        expected = _describe(_to_host(like))
        for step in steps:
            try:
                host = self._thread.submit(self._read, step).result()
            except _DamagedError as error:
                warnings.warn(
                    f"checkpoint {self._folder / str(step)} is damaged and is skipped: "
                    f"{error}",
                    stacklevel=2,
                )
                continue
            saved = _describe(host)
            for name in sorted({*expected, *saved}):
                if expected.get(name) != saved.get(name):
                    raise CheckpointError(
                        f"checkpoint {self._folder / str(step)} was saved from another "
                        f"state: {name} is {saved.get(name, 'not there')}, expected "
                        f"{expected.get(name, 'nothing')}"
                    )
            for damaged in steps[: steps.index(step)]:
                shutil.rmtree(self._folder / str(damaged))
            paths, treedef = jax.tree_util.tree_flatten_with_path(like)
            leaves = [
                _from_host(host.get(jax.tree_util.keystr(path)), leaf)
                for path, leaf in paths
            ]
            return jax.tree_util.tree_unflatten(treedef, leaves)
        if steps:
            raise CheckpointError(
                f"none of the checkpoints in {self._folder} can be read; remove the "
                "folder to start anew"
            )
        return None

    def _read(self, step: int) -> dict[str, np.ndarray]:
        """The leaves of a checkpoint as they were saved, whatever they were."""
        args = self._ocp.args
        try:
            content = self._checkpointer.restore(
                self._path / str(step),
                args=args.Composite(
                    state=args.StandardRestore(), digest=args.JsonRestore()
                ),
            )
            digest, state = content["digest"], content["state"]
            host = {str(name): np.asarray(leaf) for name, leaf in state.items()}
        # What Orbax raises depends on which part of which of its files is damaged.
        except Exception as error:
            text = str(error).replace(str(self._path), str(self._folder))
            text = " ".join(text.split())
            raise _DamagedError(text[:200] or type(error).__name__) from error
        if not isinstance(digest, dict) or digest.get("sha256") != _digest(host):
            raise _DamagedError("its content does not match its digest")
        return host


class _DamagedError(ValueError):
    """A checkpoint cannot be read, or is not what was saved."""


@functools.cache
def _hide_what_is_raised() -> None:
    """Keep from the user the tracebacks that Orbax writes besides raising an error.

    It logs errors of its threads, and the threads that it gives up report to an event
    loop that is closed.
    """
    hook = sys.unraisablehook

    def filtered(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    def is_not_raised(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or "orbax" not in record.pathname

    sys.unraisablehook = filtered
    logging.getLogger("absl").addFilter(is_not_raised)


@contextlib.contextmanager
def _plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The path of a folder, by a link if Orbax would read patterns or URLs in it."""
    if re.fullmatch(r"[\w/.+=@,~% -]*", str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxnas-") as temporary:
        link = pathlib.Path(temporary, "checkpoints")
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _to_host(tree: Any) -> dict[str, np.ndarray]:
    """Copies of the leaves by their paths.

    Copies, because the next step may reuse the memory of the state while Orbax writes.
    Empty leaves are left out, because Orbax does not store them.
    """
    return {
        jax.tree_util.keystr(path): np.array(
            jax.random.key_data(leaf) if _is_key(leaf) else leaf
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if leaf.size
    }


def _from_host(array: np.ndarray | None, like: Any) -> jax.Array:
    if array is None:
        leaf = jnp.zeros(like.shape, like.dtype)
    elif _is_key(like):
        leaf = jax.random.wrap_key_data(
            jnp.asarray(array), impl=jax.random.key_impl(like)
        )
    else:
        leaf = jnp.asarray(array)
    return jax.device_put(leaf, like.sharding)


def _describe(host: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in host.items()}


def _digest(host: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, leaf in sorted(host.items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
