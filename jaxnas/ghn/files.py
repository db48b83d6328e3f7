"""Trained hypernetworks as files."""

import os
import pathlib
import zipfile
from typing import Any

import jax
import numpy as np

from jaxnas.types import Params, WeightProvider


def save(path: str | os.PathLike[str], params: Params) -> None:
    """Write the parameters of a hypernetwork, a NumPy archive.

    Args:
      path: the file, usually `.npz`; what it held before is replaced at once.
      params: the parameters.
    """
    path = pathlib.Path(path)
    arrays = {name: np.asarray(leaf) for name, leaf in _named(params).items()}
    unfinished = path.with_name(path.name + ".tmp")
    with open(unfinished, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(unfinished, path)


def load(path: str | os.PathLike[str], provider: WeightProvider) -> Params:
    """Read the parameters of a hypernetwork.

    Args:
      path: a file that `save` has written.
      provider: a hypernetwork with the same settings, for a supernet of the same
        channels, blocks and classes; its blocks may have another number of nodes.

    Returns:
      The parameters, as `provider.apply` takes them.

    Raises:
      ValueError: if this is no such file, or its parameters are not the provider's,
        naming the first that is not.
      OSError: if it cannot be read.
    """
    expected = jax.eval_shape(provider.init, jax.random.key(0))
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a file of a hypernetwork: {error}") from error
    shapes = {name: leaf.shape for name, leaf in _named(expected).items()}
    for name in sorted(shapes.keys() | arrays.keys()):
        found = arrays[name].shape if name in arrays else "missing"
        wanted = shapes.get(name, "no such parameter")
        if found != wanted:
            raise ValueError(
                f"{path} was made with other settings: {name} is {found}; expected "
                f"{wanted}"
            )
    leaves = [jax.numpy.asarray(arrays[name]) for name in shapes]
    return jax.tree.unflatten(jax.tree.structure(expected), leaves)


def _named(params: Params) -> dict[str, Any]:
    """The arrays by their paths, such as `graph/attributes/0`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
