"""The folder of a run: what was asked for, and on what it ran."""

import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxnas import _files
from jaxnas._checks import shorten
from jaxnas.types import Device

CONFIG_NAME = "config.json"


def environment(devices: Sequence[Device]) -> dict[str, str]:
    """Versions, compiler flags, device and command of this process, for the record.

    `xla_flags` is there if the environment sets `XLA_FLAGS`.
    """
    versions = {
        name: importlib.metadata.version(name)
        for name in ("jaxnas", "jax", "jaxlib", "flax", "optax", "numpy")
    }
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"CPU, {os.cpu_count()} cores, {platform.machine()}"
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        "device": kind if len(devices) == 1 else f"{len(devices)} x {kind}",
        "python": platform.python_version(),
        **versions,
        **({"xla_flags": flags} if flags else {}),
        "command": " ".join(["python", *sys.argv]),
    }


def prepare(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    ignored_keys: Collection[str] = (),
) -> pathlib.Path:
    """Make the folder of a run, or reopen the folder of the same run.

    Args:
      path: the folder.
      config: everything that determines the result, as JSON can hold it.
      environment: what is recorded besides; see `environment`.
      ignored_keys: keys of `config` that may change from one process to the next.

    Returns:
      The folder, with a `config.json`.

    Raises:
      ValueError: if the folder holds a run with another configuration (the message
        names the keys), or something that is not a run.
    """
    folder = pathlib.Path(path)
    file = folder / CONFIG_NAME
    config = json.loads(json.dumps(config))
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
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is neither empty nor the folder of a run")
    folder.mkdir(parents=True, exist_ok=True)
    _files.write_json(file, {"config": config, "environment": dict(environment)})
    return folder


def _read(file: pathlib.Path) -> dict[str, Any]:
    try:
        return dict(_files.parse_json(_files.read_text(file))["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not the configuration of a run: {shorten(str(error))}"
        ) from error
