"""Checks of arguments that several packages share."""

import contextlib
import operator
from collections.abc import Iterator
from typing import Any


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python, NumPy or JAX; Booleans are not."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def check_integer(name: str, value: Any, *, least: int = 1) -> None:
    """Raise `ValueError` unless a value is an integer of at least `least`."""
    if not is_integer(value) or value < least:
        raise ValueError(
            f"{name} is {value!r}; expected an integer of at least {least}"
        )


def check_sizes(**sizes: int) -> None:
    """Raise `ValueError` for a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; expected at least 1")


def check_dropout(dropout: float) -> None:
    """Raise `ValueError` for a probability outside of [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; expected 0 or more, below 1")


def shorten(text: str, max_length: int = 500) -> str:
    """Leave out the middle of a text that is longer than `max_length`."""
    if len(text) <= max_length:
        return text
    end = max_length // 4
    return f"{text[: max_length - end - 5]} ... {text[-end:]}"


def reason(error: Exception) -> str:
    """What an error of a reader says, in one line of at most 200 characters."""
    return shorten(" ".join(str(error).split()) or type(error).__name__, 200)


@contextlib.contextmanager
def short_messages(max_length: int = 500) -> Iterator[None]:
    """Shorten the message of a `ValueError`, which may show much of a file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(shorten(str(error), max_length)) from error
