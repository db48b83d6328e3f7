"""Checkpoints of a whole run, written by Orbax, verified when they are read."""

import hashlib
import os
import pathlib
import warnings
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np


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

        self._ocp = ocp
        self._folder = pathlib.Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=max_to_keep),
            item_names=("state", "digest"),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._manager.close()  # waits for what is being written

    def save(self, step: int, state: Any) -> None:
        """Write a checkpoint in the background; a step that exists is left alone.

        Args:
          step: number of steps the state has seen.
          state: pytree of arrays, typed PRNG keys included.
        """
        if step in self._manager.all_steps():
            return
        host = _to_host(state)
        args = self._ocp.args
        self._manager.save(
            step,
            args=args.Composite(
                state=args.StandardSave(host),
                digest=args.JsonSave(
                    {"sha256": _digest(host), "leaves": _describe(host)}
                ),
            ),
        )

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
          CheckpointError: if there are checkpoints and all are damaged, or if they
            were saved from a state with other leaves.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                state = self._read(step, like)
            except CheckpointError:
                raise
            # What Orbax raises depends on which of its files is damaged.
            except (ValueError, KeyError, TypeError, OSError) as error:
                problem = str(error).strip().split("\n")[0][:200]
                warnings.warn(
                    f"checkpoint {self._folder / str(step)} is damaged and is skipped: "
                    f"{problem}",
                    stacklevel=2,
                )
                continue
            for damaged in steps[: steps.index(step)]:
                self._manager.delete(damaged)
            return state
        if steps:
            raise CheckpointError(
                f"none of the checkpoints in {self._folder} can be read; remove the "
                "folder to start anew"
            )
        return None

    def _read(self, step: int, like: Any) -> Any:
        args = self._ocp.args
        host_like = _to_host(like)
        digest = self._manager.restore(
            step, args=args.Composite(digest=args.JsonRestore())
        )["digest"]
        expected, saved = _describe(host_like), digest["leaves"]
        for name in sorted({*expected, *saved}):
            if expected.get(name) != saved.get(name):
                raise CheckpointError(
                    f"checkpoint {self._folder / str(step)} was saved from another "
                    f"state: {name} is {saved.get(name, 'not there')}, expected "
                    f"{expected.get(name, 'nothing')}"
                )
        restored = self._manager.restore(
            step, args=args.Composite(state=args.StandardRestore(host_like))
        )["state"]
        host = {name: np.asarray(leaf) for name, leaf in restored.items()}
        if digest["sha256"] != _digest(host):
            raise ValueError("its content does not match its digest")
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: _from_host(host.get(jax.tree_util.keystr(path)), leaf),
            like,
        )


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
