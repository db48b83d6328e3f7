"""Convergence of trainings (Shu et al. 2020, section 4.1).

The paper shows curves of test loss and accuracy by epoch. The numbers here say in
short what such curves show; they are an addition to the paper. A history is the lines
of a metrics log: dictionaries with `epoch`, 0 before training, and metrics. Lines
without a metric are passed over, and numbers that are not finite may be the strings
`"nan"`, `"inf"` and `"-inf"`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

History = Sequence[Mapping[str, float | str]]
"""Lines of a metrics log."""


class Band(NamedTuple):
    """A metric by epoch over several trainings.

    Attributes:
      epochs: int64 `[num_epochs]`, ascending.
      mean: float64 `[num_epochs]`, over the trainings.
      low: the mean less one sample standard deviation; the mean if there is one
        training.
      high: the mean plus one.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def mean_over_epochs(history: History, metric: str = "test/loss") -> float:
    """Average a metric over all epochs of a training.

    This is the area under the curve divided by the number of epochs: the lower the
    mean of a loss, the faster the training converges. The network before training,
    epoch 0, does not count.

    Args:
      history: lines of a metrics log.
      metric: name of the metric.

    Returns:
      The mean, in the unit of the metric; not finite if one of the values is not.

    Raises:
      ValueError: if no epoch from 1 on has the metric, an epoch has it twice, or a
        line is malformed.

    Example:
      >>> from jaxnas import analysis
      >>> losses = [{"epoch": 1, "test/loss": 2.0}, {"epoch": 2, "test/loss": 1.0}]
      >>> analysis.mean_over_epochs(losses)
      1.5
    """
    points = _points(history, metric)
    values = [value for epoch, value in points.items() if epoch > 0]
    if not values:
        raise ValueError(
            f"the history has {metric!r} of epoch 0 only; expected at least one epoch "
            "of training"
        )
    return sum(values) / len(values)


def epochs_until(
    history: History, level: float, metric: str = "test/loss"
) -> int | None:
    """Find the first epoch in which a metric is at or below a level.

    Args:
      history: lines of a metrics log.
      level: in the unit of the metric.
      metric: name of the metric.

    Returns:
      The epoch, 0 if the network before training is there already; `None` if the
      training never gets there.

    Raises:
      ValueError: if the level is NaN, no line has the metric, an epoch has it twice,
        or a line is malformed.
    """
    if math.isnan(level):
        raise ValueError(f"level is {level}; expected a number")
    points = _points(history, metric)
    return min(
        (epoch for epoch, value in points.items() if value <= level), default=None
    )


def band(histories: Sequence[History], metric: str = "test/loss") -> Band:
    """Average a metric over trainings, epoch by epoch.

    Args:
      histories: lines of the metrics log of each training, with other seeds for
        example.
      metric: name of the metric.

    Returns:
      Mean and standard deviation in every epoch of which all trainings have a finite
      value; there may be none.

    Raises:
      ValueError: if there are no histories, one does not have the metric or has an
        epoch twice, or a line is malformed.
    """
    if not histories:
        raise ValueError("there are 0 histories; expected at least 1")
    curves = [
        {e: v for e, v in _points(history, metric).items() if math.isfinite(v)}
        for history in histories
    ]
    epochs = sorted(set.intersection(*map(set, curves)))
    values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
    mean = values.mean(0)
    deviation = values.std(0, ddof=1) if len(curves) > 1 else np.zeros_like(mean)
    return Band(np.array(epochs, np.int64), mean, mean - deviation, mean + deviation)


def _points(history: History, metric: str) -> dict[int, float]:
    """Read the values of a metric by epoch."""
    points: dict[int, float] = {}
    for i, entry in enumerate(history):
        if metric not in entry:
            continue
        if "epoch" not in entry:
            raise ValueError(f"entry {i} of the history has {metric!r} but no 'epoch'")
        try:
            epoch, value = int(entry["epoch"]), float(entry[metric])
        except ValueError as error:
            raise ValueError(
                f"entry {i} of the history has epoch {entry['epoch']!r} and {metric!r} "
                f"{entry[metric]!r}; expected two numbers"
            ) from error
        if epoch in points:
            raise ValueError(f"the history has {metric!r} of epoch {epoch} twice")
        points[epoch] = value
    if not points:
        raise ValueError(
            f"the history has {len(history)} entries, none with {metric!r}; expected "
            "at least one"
        )
    return points
