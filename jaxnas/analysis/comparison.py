"""Is a found architecture better than a random one of its space?

Architectures that were sampled while shared weights were trained look good with those
weights whatever they are worth: even a searcher that ignores all losses finds a
"better" one. The comparison here is of architectures that were trained by themselves.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
    """A mean difference and its confidence interval.

    Attributes:
      value: the estimate.
      low: lower end of the interval.
      high: upper end.
    """

    value: float
    low: float
    high: float


def difference_from_random(
    found: Sequence[float] | np.ndarray,
    random: Sequence[Sequence[float]] | np.ndarray,
    *,
    confidence: float = 0.95,
) -> Difference:
    """Compare a found architecture with random ones of the same space.

    The estimate is the mean of the found one minus the mean over all random ones. Its
    variance has two parts: which random architectures were drawn, estimated from their
    means, and the noise of training, from the residuals of the model `architecture +
    seed` (trainings of one seed share initial weights and batches). The interval is
    Student's, with the degrees of freedom of Satterthwaite. With a single seed, the
    noise of the found one is taken to be as large as the spread of the random ones.

    Args:
      found: `[num_seeds]`, for example test accuracies after training from scratch.
      random: `[num_archs, num_seeds]`, of the random ones with the same seeds.
      confidence: of the interval, between 0 and 1.

    Returns:
      The difference; above 0 if the found one has more.

    Raises:
      ValueError: if shapes do not fit, there are fewer than 2 random architectures, or
        `confidence` is out of range.

    Example:
      >>> from jaxnas import analysis
      >>> d = analysis.difference_from_random([0.94, 0.96], [[0.93, 0.94], [0.9, 0.93]])
      >>> [round(float(x), 3) for x in d]
      [0.025, -0.041, 0.091]
    """
    found, random = np.asarray(found, float), np.asarray(random, float)
    if found.ndim != 1 or random.ndim != 2 or random.shape[1] != found.size:
        raise ValueError(
            f"found has shape {list(found.shape)} and random {list(random.shape)}; "
            "expected [num_seeds] and [num_archs, num_seeds]"
        )
    num_archs, num_seeds = random.shape
    if num_archs < 2 or num_seeds < 1:
        raise ValueError(
            f"random has shape {list(random.shape)}; expected 2 or more architectures "
            "and 1 or more seeds"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected between 0 and 1")
    value = found.mean() - random.mean()
    spread = random.mean(1).var(ddof=1)
    # Each part of the variance, and its degrees of freedom.
    parts = [(spread / num_archs, num_archs - 1)]
    if num_seeds == 1:
        parts = [(spread / num_archs + spread, num_archs - 1)]
    else:
        table = np.concatenate([found[None], random])
        residuals = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
        freedom = num_archs * (num_seeds - 1)
        parts.append(((residuals**2).sum() / freedom / num_seeds, freedom))
    return _interval(value, parts, confidence)


def mean_difference(
    differences: Sequence[float] | np.ndarray, *, confidence: float = 0.95
) -> Difference:
    """The mean of independent differences, such as one from each of several searches.

    Args:
      differences: `[num]`, at least 2.
      confidence: of Student's interval, between 0 and 1.

    Returns:
      The mean and its interval.

    Raises:
      ValueError: if there are fewer than 2 differences.
    """
    values = np.asarray(differences, float)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(
            f"differences has shape {list(values.shape)}; expected [num], 2 or more"
        )
    variance = values.var(ddof=1) / values.size
    return _interval(values.mean(), [(variance, values.size - 1)], confidence)


def _interval(
    value: float, parts: list[tuple[float, int]], confidence: float
) -> Difference:
    """Student's interval of a variance that is a sum of estimates (Satterthwaite)."""
    variance = sum(part for part, _ in parts)
    if not variance > 0:  # NaN too: a training that diverged has no accuracy
        margin = 0.0 if variance == 0 else math.nan
    else:
        freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
        margin = stats.t.ppf(0.5 + confidence / 2, freedom) * math.sqrt(variance)
    return Difference(float(value), float(value - margin), float(value + margin))
