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
