"""Kinds of genotypes: a class, its check and its tag in files, registered once.

A kind may be registered from outside the package; everything that takes a genotype of
any kind then takes it too.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class AnyGenotype(Protocol):
    """The human form of an architecture of any search space: a named tuple.

    Its class is one of this package or one that was passed to `register`.
    """

    def _asdict(self) -> dict[str, Any]: ...


_G = TypeVar("_G", bound=AnyGenotype)

TAG = "type"
"""The key of a JSON object that holds the tag of its kind."""

_classes: dict[str, type[Any]] = {}
_tags: dict[type[Any], str] = {}


@functools.singledispatch
def check(genotype: Any) -> Any:
    """Check a genotype of any kind and normalize its lists to tuples.

    Args:
      genotype: of a class of this package, or of one passed to `register`. A plain
        tuple is read as the fields of two cells.

    Returns:
      The same genotype, made of tuples, strings and Python integers only.

    Raises:
      ValueError: naming the place at fault, or if the class is unknown.
    """
    if type(genotype) is tuple:
        return check.dispatch(_classes["cells"])(genotype)
    known = ", ".join(kind.__name__ for kind in _classes.values())
    raise ValueError(
        f"{genotype!r} is not a genotype; expected one of {known}, or of a class that "
        "was passed to genotypes.register"
    )


def register(tag: str, kind: type[_G], check_kind: Callable[[_G], _G]) -> None:
    """Make a class of genotypes known to `check`, `save`, `load` and the like.

    Args:
      tag: what files call the kind, under the key `"type"`.
      kind: a `NamedTuple` whose fields JSON can hold.
      check_kind: `genotype -> genotype`: raises `ValueError` naming the place at fault,
        and turns lists, which JSON has in place of tuples, into tuples.

    Raises:
      ValueError: if the class is no `NamedTuple`, has a field `type`, or another class
        has the tag.

    Example:
      >>> from typing import NamedTuple
      >>> from jaxnas import genotypes
      >>> class Widths(NamedTuple):
      ...     widths: tuple[int, ...]
      >>> genotypes.register("widths", Widths, lambda g: Widths(tuple(g.widths)))
      >>> genotypes.from_json('{"type": "widths", "widths": [8, 16]}')
      Widths(widths=(8, 16))
    """
    fields = getattr(kind, "_fields", None)
    if not issubclass(kind, tuple) or fields is None:
        raise ValueError(f"{kind.__name__} is not a NamedTuple")
    if TAG in fields:
        raise ValueError(
            f"{kind.__name__} has a field {TAG!r}; expected another name, for files "
            "hold the tag under it"
        )
    # A notebook that runs a cell again makes the same class once more.
    known = _classes.get(tag, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise ValueError(
            f"the tag {tag!r} is that of {known.__name__}; expected another for "
            f"{kind.__name__}"
        )
    _classes[tag] = kind
    _tags[kind] = tag
    check.register(kind, check_kind)


def kind_of_tag(tag: Any) -> type[Any]:
    """The class with a tag; `ValueError` listing the known tags if there is none."""
    if not isinstance(tag, str) or tag not in _classes:
        raise ValueError(f"{TAG} is {tag!r}; expected one of {', '.join(_classes)}")
    return _classes[tag]


def tag_of(genotype: AnyGenotype) -> str:
    """The tag of a checked genotype."""
    return _tags[type(genotype)]
