"""The folder of a run: what was asked for, and on what it ran."""

import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxnas import _files, _locks
from jaxnas._checks import shorten
from jaxnas.types import Device

FolderInUse = _locks.FolderInUse
CONFIG_NAME = "config.json"


def environment(devices: Sequence[Device]) -> dict[str, str]:
    """Versions, compiler flags, device and command of this process, for the record.

    `xla_flags` and `jaxnas_gpu_kernels` are there if the environment sets them.
    """
    versions = {
        name: importlib.metadata.version(name)
        for name in ("jaxnas", "jax", "jaxlib", "flax", "optax", "numpy")
    }
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"CPU, {os.cpu_count()} cores, {platform.machine()}"
    flags = {
        name.lower(): os.environ[name]
        for name in ("XLA_FLAGS", "JAXNAS_GPU_KERNELS")
        if os.environ.get(name)
    }
    return {
        "device": kind if len(devices) == 1 else f"{len(devices)} x {kind}",
        "python": platform.python_version(),
        **versions,
        **flags,
        "command": " ".join(["python", *sys.argv]),
    }


def prepare(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    ignored_keys: Collection[str] = (),
    shared: bool = False,
) -> pathlib.Path:
    """Make the folder of a run, or reopen the folder of the same run.

    The folder then is this process' own until it ends: see `FolderInUse`.

    Args:
      path: the folder.
      config: everything that determines the result, as JSON can hold it.
      environment: what is recorded besides; see `environment`.
      ignored_keys: keys of `config` that may change from one process to the next.
      shared: whether several runs use the folder at a time, whose writers, such as
        `metrics.measure_missing`, wait for each other.

    Returns:
      The folder, with a `config.json`.

    Raises:
      ValueError: if the folder holds a run with another configuration (the message
        names the keys), or something that is not a run.
      FolderInUse: if another process uses it; nothing has been changed.
    """
    folder = pathlib.Path(path)
    config = json.loads(json.dumps(config))
    _check(folder, config, ignored_keys)
    folder.mkdir(parents=True, exist_ok=True)
    is_taken = _locks.acquire(folder, wait=shared)
    is_kept = False
    try:
        if not _check(folder, config, ignored_keys):
            for leftover in filter(_is_leftover, folder.iterdir()):
                leftover.unlink()
            content = {"config": config, "environment": dict(environment)}
            _files.write_json(folder / CONFIG_NAME, content)
        is_kept = not shared
    finally:
        if is_taken and not is_kept:
            _locks.release(folder)
    return folder


def _check(
    folder: pathlib.Path, config: Mapping[str, Any], ignored_keys: Collection[str]
) -> bool:
    """Whether a folder holds the run of a configuration; `False` if it is empty."""
    file = folder / CONFIG_NAME
    if file.exists():
        earlier = _read(file)
        differing = [
            f"{shorten(key, 60)} (there {shorten(repr(earlier.get(key)), 100)}, now "
            f"{shorten(repr(config.get(key)), 100)})"
            for key in sorted({*earlier, *config} - set(ignored_keys))
            if earlier.get(key) != config.get(key)
        ]
        if differing:
            raise ValueError(
                f"{folder} holds a run with another configuration: "
                f"{shorten(', '.join(differing))}; choose another folder, or the same "
                "values"
            )
        return True
    if folder.exists():
        own = _locks.LOCK_NAME, _locks.HOLDER_NAME
        if not folder.is_dir() or any(
            entry.name not in own and not _is_leftover(entry)
            for entry in folder.iterdir()
        ):
            raise ValueError(f"{folder} is neither empty nor the folder of a run")
    return False


def _is_leftover(entry: pathlib.Path) -> bool:
    """True of what a process leaves when it is killed while it writes this file."""
    return entry.name.startswith(f".{CONFIG_NAME}.") and entry.suffix == ".tmp"


def _read(file: pathlib.Path) -> dict[str, Any]:
    try:
        return dict(_files.parse_json(_files.read_text(file))["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not the configuration of a run: {shorten(str(error))}"
        ) from error
