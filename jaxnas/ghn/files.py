"""Trained hypernetworks as files."""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxnas import _archives, _files
from jaxnas._checks import short_messages, shorten
from jaxnas.types import Params, WeightProvider

_SETTINGS = "settings.json"  # a member of the archive, beside the parameters


def save(
    path: str | os.PathLike[str], params: Params, provider: WeightProvider
) -> None:
    """Write the parameters of a hypernetwork and its settings, a NumPy archive.

    Args:
      path: the file, usually `.npz`; what it held before is replaced at once.
      params: the parameters.
      provider: the hypernetwork, whose settings are written as JSON. They include the
        operations of its supernet in their order, and the supernet's sizes.

    Raises:
      ValueError: if the parameters are not the provider's, or it is no hypernetwork.
      OSError: if the file cannot be written.
    """
    settings = np.array(json.dumps(_settings(provider)))
    arrays = {name: np.asarray(leaf) for name, leaf in _named(params).items()}
    _check_shapes("params", arrays, provider)
    with _files.atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **{_SETTINGS: settings}, **arrays)


@short_messages(1_000)
def load(path: str | os.PathLike[str], provider: WeightProvider) -> Params:
    """Read the parameters of a hypernetwork.

    Args:
      path: a file that `save` has written.
      provider: a hypernetwork with the same settings, for a supernet of the same
        operations, channels, blocks and classes; its blocks may have another number of
        nodes. `load_settings` tells the settings of a file.

    Returns:
      The parameters, as `provider.apply` takes them.

    Raises:
      ValueError: if this is no such file, its settings are missing or not the
        provider's, or its parameters are not or not finite, naming what differs.
      OSError: if it cannot be read.
    """
    arrays, found = _read(path)
    expected = _settings(provider)
    differing = [
        f"{name} is {_show(found, part, name)}; expected {_show(expected, part, name)}"
        for part in ("hypernetwork", "supernet")
        for name in sorted(found[part].keys() | expected[part].keys())
        if _show(found, part, name) != _show(expected, part, name)
    ]
    if differing:
        raise ValueError(f"{path} was made with other settings: {', '.join(differing)}")
    _check_shapes(path, arrays, provider)
    shapes = jax.eval_shape(provider.init, jax.random.key(0))
    leaves = [
        _parameter(path, name, arrays[name], leaf.dtype)
        for name, leaf in _named(shapes).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


@short_messages(1_000)
def load_settings(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Read the settings of a hypernetwork.

    Args:
      path: a file that `save` has written.

    Returns:
      `hypernetwork`: the arguments of `hypernetwork` besides the supernet, so that
      `hypernetwork(net, **load_settings(path)["hypernetwork"])` makes it again;
      `supernet`: the settings of the supernet's graph spec.

    Raises:
      ValueError: if this is no such file, or it has no settings.
      OSError: if it cannot be read.
    """
    return _read(path)[1]


def _read(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    """The parameters and the settings of a file."""
    try:
        arrays = _archives.read(path)
    except _archives.ArchiveError as error:
        raise ValueError(f"{path} is not a file of a hypernetwork: {error}") from error
    if _SETTINGS not in arrays:
        raise ValueError(
            f"{path} has no settings, so what its parameters mean is unknown; expected "
            "a file that this version of ghn.save has written"
        )
    text = arrays.pop(_SETTINGS)
    try:
        settings = _files.parse_json(str(text))
    except ValueError as error:
        raise ValueError(f"{path} has damaged settings: {error}") from error
    parts = settings.values() if isinstance(settings, dict) else ()
    if [*map(type, parts)] != [dict, dict] or {*settings} != {
        "hypernetwork",
        "supernet",
    }:
        raise ValueError(
            f"{path} has damaged settings: expected those of a hypernetwork and a "
            "supernet"
        )
    return arrays, settings


def _parameter(source: Any, name: str, array: np.ndarray, dtype: Any) -> jax.Array:
    """A parameter in the precision of the hypernetwork, finite numbers."""
    if array.dtype.kind != "f":
        raise ValueError(
            f"{source} has other parameters: {name} is {array.dtype}; expected {dtype}"
        )
    with np.errstate(over="ignore"):
        values = array.astype(dtype)
    if not np.isfinite(values).all():
        raise ValueError(f"{source} has a {name} that is not finite")
    return jax.numpy.asarray(values)


def _settings(provider: WeightProvider) -> dict[str, dict[str, Any]]:
    """The settings of a hypernetwork as a file holds them."""
    if provider.settings is None:
        raise ValueError("the provider has no settings; expected a hypernetwork")
    return json.loads(json.dumps(dict(provider.settings)))


def _show(settings: Mapping[str, Mapping[str, Any]], part: str, name: str) -> str:
    """A setting in words."""
    return json.dumps(settings[part][name]) if name in settings[part] else "missing"


def _check_shapes(
    source: Any, arrays: Mapping[str, np.ndarray], provider: WeightProvider
) -> None:
    """Raise a `ValueError` if these are not the parameters of a hypernetwork."""
    expected = _named(jax.eval_shape(provider.init, jax.random.key(0)))
    for name in sorted(expected.keys() | arrays.keys()):
        found = arrays[name].shape if name in arrays else "missing"
        wanted = expected[name].shape if name in expected else "no such parameter"
        if found != wanted:
            raise ValueError(
                f"{source} has other parameters: {shorten(name, 60)} is {found}; "
                f"expected {wanted}"
            )


def _named(params: Params) -> dict[str, Any]:
    """The arrays by their paths, such as `graph/attributes/0`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
