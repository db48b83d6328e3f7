"""Checks of values for every kind of genotype."""

import sys
from collections.abc import Sequence
from typing import Any


def is_list(value: Any) -> bool:
    """True of lists, tuples and ranges that can be counted, but not of text."""
    if (
        isinstance(value, range)
        and not -sys.maxsize < value.stop - value.start < sys.maxsize
    ):
        return False
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def check_names(
    names: Any, known: Sequence[str], *, noun: str, item: str
) -> tuple[str, ...]:
    """Check a list with one choice per layer or node.

    Args:
      names: the list.
      known: what may be chosen.
      noun: what errors call a choice, such as `operation`.
      item: what has one each, such as `layer`.

    Returns:
      The names as a tuple.

    Raises:
      ValueError: naming the layer or node at fault.
    """
    if not is_list(names):
        raise ValueError(f"{names!r} is not a list of {noun}s")
    if not names:
        raise ValueError(f"no {noun}; expected one for every {item}")
    for i, name in enumerate(names):
        if name not in known:
            raise ValueError(
                f"{item} {i}: {name!r} is not an {noun}; expected one of "
                f"{', '.join(known)}"
            )
    return tuple(map(str, names))
