"""How well cheap scores rank architectures (Zhang et al. 2019, section 4.3).

Scores of a method are compared with the accuracies of the same architectures after
each has been trained by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Correlation(NamedTuple):
    """A coefficient and its confidence interval.

    Attributes:
      value: between -1 and 1; NaN where it is not defined.
      low: lower end of the interval.
      high: upper end.
    """

    value: float
    low: float
    high: float


def correlations(
    scores: Sequence[float] | np.ndarray,
    truth: Sequence[float] | np.ndarray,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Correlation]:
    """Correlate the scores of architectures with what they are worth.

    The intervals hold 95 % of the coefficients of resamples (percentile bootstrap):
    as many architectures drawn with replacement, each with its score and its truth.
    A coefficient is not defined where all scores or all truths are equal. Resamples of
    that kind are left out; if the data itself is of that kind, value and interval are
    NaN.

    Args:
      scores: `[num]`, what a method gives each architecture; higher is better.
      truth: `[num]`, for example test accuracies after training.
      num_resamples: resamples of the bootstrap.
      seed: of the resamples; equal seeds and numbers give equal resamples, so that
        methods are compared on the same ones.

    Returns:
      `pearson`, `spearman` (of the ranks) and `kendall` (tau-b, which counts ties in
      neither direction).

    Raises:
      ValueError: if there are fewer than 4 architectures, not as many scores as
        truths, numbers that are not finite, or no resamples.

    Example:
      >>> from jaxnas import analysis
      >>> found = analysis.correlations([1, 2, 3, 4, 6], [1, 2, 3, 5, 4])
      >>> {name: round(c.value, 2) for name, c in found.items()}
      {'pearson': 0.82, 'spearman': 0.9, 'kendall': 0.8}
    """
    scores, truth = _values("scores", scores), _values("truth", truth)
    if scores.size != truth.size:
        raise ValueError(
            f"there are {scores.size} scores for {truth.size} architectures"
        )
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}; expected at least 1")
    drawn = np.random.default_rng(seed).integers(
        scores.size, size=(num_resamples, scores.size)
    )
    pairs = [
        (scores[index], truth[index])
        for index in drawn
        if np.ptp(scores[index]) > 0 and np.ptp(truth[index]) > 0
    ]
    is_defined = np.ptp(scores) > 0 and np.ptp(truth) > 0 and len(pairs) > 0
    if not is_defined:
        undefined = Correlation(np.nan, np.nan, np.nan)
        return dict.fromkeys(_coefficients(), undefined)
    tail = (1 - CONFIDENCE) / 2
    found = {}
    for name, coefficient in _coefficients().items():
        resampled = [coefficient(*pair).statistic for pair in pairs]
        low, high = np.quantile(resampled, [tail, 1 - tail])
        value = coefficient(scores, truth).statistic
        found[name] = Correlation(float(value), float(low), float(high))
    return found


def top_half(truth: Sequence[float] | np.ndarray) -> np.ndarray:
    """Mark the better half of the architectures.

    To rank good architectures is harder than to tell them from bad ones: within the
    half the truths differ less (Zhang et al. 2019 report both). Of equal truths the
    first ones are taken.

    Args:
      truth: `[num]`, higher is better.

    Returns:
      bool `[num]`, true for half of them; for the larger part of an odd number.

    Raises:
      ValueError: if there are fewer than 4 architectures, or numbers that are not
        finite.

    Example:
      >>> from jaxnas import analysis
      >>> analysis.top_half([0.5, 0.9, 0.7, 0.6]).tolist()
      [False, True, True, False]
    """
    truth = _values("truth", truth)
    mask = np.zeros(truth.size, bool)
    mask[np.argsort(-truth, kind="stable")[: (truth.size + 1) // 2]] = True
    return mask


def _values(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size < 4:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one number for each of 4 or "
            "more architectures"
        )
    if not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} of architecture {first} is {array[first]}; expected a finite "
            "number"
        )
    return array


def _coefficients() -> dict[str, Callable[..., Any]]:
    from scipy import stats

    return {
        "pearson": stats.pearsonr,
        "spearman": stats.spearmanr,
        "kendall": stats.kendalltau,
    }
