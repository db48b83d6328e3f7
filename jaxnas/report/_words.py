"""Numbers as text."""

import statistics
from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    """Mean and sample standard deviation; of a single value, the latter is None."""
    numbers = [float(value) for value in values]
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return statistics.fmean(numbers), deviation


def spread_text(values: Sequence[float] | np.ndarray, spec: str) -> str:
    """Return mean and, of several values, standard deviation as text."""
    mean, deviation = spread(values)
    text = format(mean, spec)
    return text if deviation is None else f"{text} ± {format(deviation, spec)}"


def number_of(count: int, noun: str) -> str:
    """A number of things in words, such as `1 seed` and `2 seeds`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def not_compared(noun: str) -> str:
    """What is known of a found architecture that was not trained from scratch."""
    return (
        f"The found {noun} was not compared with random ones trained from scratch, so "
        "nothing is known of its worth (--scratch-random N compares)."
    )


def verdict(low: float, high: float) -> str:
    """What an interval says of a found architecture beside random ones."""
    if low > 0:
        return "the found one is better"
    if high < 0:
        return "the found one is worse"
    return "no difference shows"
