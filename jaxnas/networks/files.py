"""Trained networks as files (safetensors), with what one must know to use them."""

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxnas
from jaxnas import _files, data, genotypes
from jaxnas._checks import reason, short_messages, shorten

FILE_NAME = "network.safetensors"
"""What trainings call the file in their folder."""

_VERSION = 1
_KEY = "jaxnas"  # in the header; safetensors writes several in no fixed order
_KEYS = (
    *("version", "jaxnas", "family", "genotype", "settings", "class_names"),
    *("image_format", "dataset", "source", "test", "sha256"),
)
# How a network is run, and Flax's own.
_NOT_SETTINGS = ("genotype", "batch_axis", "parent", "name")


class TrainedNetwork(NamedTuple):
    """A trained network of images, and what one must know to use it.

    Attributes:
      network: the Flax module.
      variables: its `params`, and its `batch_stats` if it has any.
      image_format: what images are brought to, and normalized by.
      class_names: in the order of the outputs; empty for a network without classes.
      dataset: the name of the data set that it was trained on.
      source: one line saying where that was read.
      test: metrics of the test images, such as `accuracy`, as far as they are known.
    """

    network: nn.Module
    variables: Mapping[str, Any]
    image_format: data.ImageFormat
    class_names: tuple[str, ...] = ()
    dataset: str = ""
    source: str = ""
    test: Mapping[str, float] = {}


class _Family(NamedTuple):
    tag: str
    make: Callable[..., nn.Module]


_families: dict[type[nn.Module], _Family] = {}


def register(tag: str, kind: type[nn.Module], make: Callable[..., nn.Module]) -> None:
    """Make a class of networks known to `save` and `load`.

    Args:
      tag: what files call it.
      kind: a module that may have a field `genotype`; its other fields are settings
        that JSON can hold. A field `batch_axis` is not saved.
      make: `(genotype, **settings) -> network`, or `(**settings) -> network` where
        there is no genotype; raises `ValueError` for wrong ones.

    Raises:
      ValueError: if another class has the tag.
    """
    for other, family in _families.items():
        same = (other.__module__, other.__qualname__) == (
            kind.__module__,
            kind.__qualname__,
        )
        if family.tag == tag and not same:
            raise ValueError(
                f"the tag {tag!r} is that of {other.__name__}; expected another for "
                f"{kind.__name__}"
            )
    _families[kind] = _Family(tag, make)


def save(path: str | os.PathLike[str], trained: TrainedNetwork) -> None:
    """Write a trained network as a safetensors file, whole or not at all.

    The arrays are named by their paths, such as `params/stem/kernel`. The header holds
    a JSON object under the key `jaxnas`: the genotype, the settings of the network, and
    the other attributes of `TrainedNetwork`.

    Args:
      path: the file, usually `.safetensors`; its folder must exist.
      trained: the network.

    Raises:
      ValueError: if the network's class is not registered, its variables are not those
        of such a network, or the image format or the class names do not fit.
      OSError: if the file cannot be written.
    """
    from safetensors import numpy as safetensors

    network = trained.network
    genotype = getattr(network, "genotype", None)
    trained = trained._replace(image_format=trained.image_format.check())
    if type(network) not in _families:
        known = ", ".join(kind.__name__ for kind in _families)
        raise ValueError(
            f"{type(network).__name__} cannot be saved; expected one of {known}, or a "
            "class that was passed to networks.register"
        )
    tensors = {
        name: np.ascontiguousarray(leaf) for name, leaf in _named(trained.variables)
    }
    _check(trained, tensors)
    description = {
        "version": _VERSION,
        "jaxnas": jaxnas.__version__,
        "family": _families[type(network)].tag,
        "genotype": genotypes.to_dict(genotype) if genotype is not None else None,
        "settings": {name: getattr(network, name) for name in _settings(type(network))},
        "class_names": trained.class_names,
        "image_format": trained.image_format._asdict(),
        "dataset": trained.dataset,
        "source": trained.source,
        # JSON has no other numbers.
        "test": {k: v for k, v in trained.test.items() if math.isfinite(v)},
    }
    description["sha256"] = _digest(description, tensors)
    contents = safetensors.save(tensors, {_KEY: json.dumps(description)})
    _files.write_bytes(path, contents)


@short_messages()
def load(path: str | os.PathLike[str]) -> TrainedNetwork:
    """Read a trained network.

    Args:
      path: a file that `save` has written.

    Returns:
      The network as it was saved, bit for bit, but for a `batch_axis`; its variables
      are NumPy arrays.

    Raises:
      ValueError: if the file cannot be read, is damaged, was not written by `save` or
        by a version with another format; the message names it.
    """
    try:
        description, tensors = _read(path)
        return _trained(description, tensors)
    except OSError as error:
        raise ValueError(
            f"the network file {path} cannot be read: {error.strerror or reason(error)}"
        ) from error
    except ValueError as error:
        raise ValueError(f"the network file {path} cannot be used: {error}") from error


def _read(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a file that is as it was written."""
    import safetensors

    if not os.path.isfile(path):
        os.stat(path)  # says so if there is none
        raise ValueError("it is not a regular file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise ValueError(
                    f"its header has no key {_KEY!r}; expected a file that "
                    "networks.save has written"
                )
            description = _description(text)
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            for name, kind in kinds.items():
                if kind != "F32":
                    raise ValueError(f"{name} is {kind}; expected F32")
            tensors = {name: file.get_tensor(name) for name in kinds}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"it is damaged, or not safetensors: {reason(error)}"
        ) from error
    if description["sha256"] != _digest(description, tensors):
        raise ValueError("its content does not match its digest")
    return description, tensors


def _description(text: str) -> dict[str, Any]:
    description = _files.parse_json(text)
    version = description.get("version") if isinstance(description, dict) else None
    if version != _VERSION:
        raise ValueError(
            f"it was written in version {shorten(repr(version), 60)} of its format; "
            f"jaxnas {jaxnas.__version__} reads version {_VERSION}"
        )
    if description.keys() != set(_KEYS):
        differing = sorted(description.keys() ^ set(_KEYS))
        raise ValueError(f"its header has other keys: {', '.join(differing)}")
    return description


def _trained(
    description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> TrainedNetwork:
    """What a file describes."""
    tags = {family.tag: kind for kind, family in _families.items()}
    tag = description["family"]
    if not isinstance(tag, str) or tag not in tags:
        raise ValueError(
            f"its family is {tag!r}; expected one of {', '.join(tags)}, or one that "
            "was passed to networks.register"
        )
    kind = tags[tag]
    genotype = description["genotype"]
    architecture = []
    if genotype is not None:
        architecture = [genotypes.from_json(json.dumps(genotype))]
    # The digest says that it was written so, but not by whom.
    try:
        trained = TrainedNetwork(
            _families[kind].make(*architecture, **description["settings"]),
            {},
            data.ImageFormat(**description["image_format"]).check(),
            tuple(description["class_names"]),
            str(description["dataset"]),
            str(description["source"]),
            {name: float(value) for name, value in description["test"].items()},
        )
        shapes = _check(trained, tensors)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"its header describes no network: {reason(error)}") from error
    leaves = [tensors[name] for name, _ in _named(shapes)]
    variables = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return trained._replace(variables=variables)


def _settings(kind: type[nn.Module]) -> list[str]:
    names = (field.name for field in dataclasses.fields(kind))
    return [name for name in names if name not in _NOT_SETTINGS]


def _check(trained: TrainedNetwork, found: Mapping[str, np.ndarray]) -> Any:
    """Raise `ValueError` if arrays are not those of a network; return their shapes."""
    network, image_shape = trained.network, trained.image_format.image_shape
    num_classes = getattr(network, "num_classes", 0)
    if len(trained.class_names) != num_classes:
        raise ValueError(
            f"there are {len(trained.class_names)} class_names; expected {num_classes}"
        )
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(network.init, train=True)
    shapes = jax.eval_shape(init, jax.random.key(0), image)
    expected = dict(_named(shapes))
    for name in sorted(expected.keys() | found.keys()):
        there, wanted = (
            f"{arrays[name].dtype} {arrays[name].shape}"
            if name in arrays
            else "missing"
            for arrays in (found, expected)
        )
        if there != wanted:
            wanted = wanted if name in expected else "no such array"
            raise ValueError(f"{shorten(name, 60)} is {there}; expected {wanted}")
    return shapes


def _named(variables: Any) -> list[tuple[str, Any]]:
    """The arrays with their paths, such as `params/stem/kernel`."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    ]


def _digest(description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of all that a file holds, in hexadecimal."""
    described = {k: v for k, v in description.items() if k != "sha256"}
    digest = hashlib.sha256(json.dumps(described).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"\n{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
