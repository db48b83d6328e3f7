"""Rank correlation of scores with accuracies (Zhang et al. 2019, section 4.3).

Scores of a method are compared with the accuracies of the same architectures after
each has been trained stand-alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnas._checks import check_sizes

CONFIDENCE = 0.95
COEFFICIENTS = ("pearson", "spearman", "kendall")

# `[num]` or `[runs, num]`
Scores = Sequence[float] | Sequence[Sequence[float]] | Sequence[np.ndarray] | np.ndarray


class Correlation(NamedTuple):
    """A coefficient, or a difference of two, and its confidence interval.

    Attributes:
      value: the mean over runs; a coefficient is between -1 and 1. NaN where it is not
        defined.
      low: lower end of the interval.
      high: upper end.
      std: standard deviation over runs; NaN for a single run and for differences.
    """

    value: float
    low: float
    high: float
    std: float = np.nan


def correlations(
    scores: Scores,
    accuracies: Scores,
    *,
    only_top_half: bool = False,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Correlation]:
    """Correlate the scores of architectures with their accuracies after training.

    The intervals hold 95 % of the coefficients of resamples (percentile bootstrap):
    as many architectures drawn with replacement, each with its scores and accuracies.
    The top half is selected again in each resample, since another sample of
    architectures would have another one: intervals that keep the half of the data are
    too narrow. The intervals do not hold what another run of the method would change;
    `std` shows that.

    A coefficient is not defined where all scores or all accuracies are equal. Resamples
    of that kind are left out; if the data itself is of that kind, everything is NaN.

    Args:
      scores: `[num]`, the score of each architecture; higher is better. Or
        `[runs, num]`, from several runs of the method, such as trainings of a
        hypernetwork: the result is the mean of their coefficients.
      accuracies: `[num]`, for example test accuracies after training; or `[runs, num]`,
        one for each run.
      only_top_half: only over the architectures of `top_half(accuracies)`, as Zhang et
        al. (2019) report besides.
      num_resamples: resamples of the bootstrap.
      seed: of the resamples; equal seeds and numbers give equal resamples.

    Returns:
      `pearson`, `spearman` (of the ranks) and `kendall` (tau-b, which counts ties in
      neither direction).

    Raises:
      ValueError: if there are fewer than 4 architectures (in the top half), not as
        many scores as accuracies, numbers that are not finite, or no resamples.

    Example:
      >>> from jaxnas import analysis
      >>> found = analysis.correlations([1, 2, 3, 4, 6], [1, 2, 3, 5, 4])
      >>> {name: round(c.value, 2) for name, c in found.items()}
      {'pearson': 0.82, 'spearman': 0.9, 'kendall': 0.8}
    """
    scores, accuracies = _runs("scores", scores), _runs("accuracies", accuracies)
    counts = _resamples(accuracies.shape[-1], only_top_half, num_resamples, seed)
    found = _coefficients(counts, scores, accuracies, only_top_half)
    return {
        name: _interval(values.mean(0))._replace(std=_std(values[:, 0]))
        for name, values in found.items()
    }


def correlation_differences(
    scores: Scores,
    others: Scores,
    accuracies: Sequence[float] | np.ndarray,
    *,
    only_top_half: bool = False,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Correlation]:
    """Compare how two methods correlate with the same accuracies.

    Both methods score the same architectures, so that most of what one sample of them
    changes is common to both. The intervals are paired: they hold 95 % of the
    differences within resamples. They are narrower than two separate intervals suggest;
    one that does not contain 0 is evidence that the methods differ.

    Args:
      scores: `[num]` or `[runs, num]`; see `correlations`.
      others: `[num]` or `[runs, num]`, the scores of the other method, with any number
        of runs.
      accuracies: `[num]`.
      only_top_half: only over the architectures of `top_half(accuracies)`.
      num_resamples: resamples of the bootstrap.
      seed: of the resamples.

    Returns:
      By coefficient: that of `scores` less that of `others`.

    Raises:
      ValueError: as `correlations`.

    Example:
      >>> from jaxnas import analysis
      >>> scores, others, accuracies = [1, 2, 3, 4, 5], [1, 2, 3, 5, 4], [1, 2, 3, 4, 5]
      >>> found = analysis.correlation_differences(scores, others, accuracies)
      >>> round(found["kendall"].value, 2)
      0.2
    """
    scores, others = _runs("scores", scores), _runs("others", others)
    accuracies = _runs("accuracies", accuracies)
    counts = _resamples(accuracies.shape[-1], only_top_half, num_resamples, seed)
    ours = _coefficients(counts, scores, accuracies, only_top_half)
    theirs = _coefficients(counts, others, accuracies, only_top_half)
    return {
        name: _interval(ours[name].mean(0) - theirs[name].mean(0))
        for name in COEFFICIENTS
    }


def noise_ceiling(
    accuracies: Scores,
    *,
    only_top_half: bool = False,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Correlation]:
    """Correlate the accuracies of trainings with those of other seeds.

    A score that agrees better with one training than another training does is not to
    be expected; so coefficients should be judged against this scale rather than
    against 1.

    Args:
      accuracies: `[seeds, num]`, accuracies after training, for each seed.
      only_top_half: only over `top_half` of the training compared with.
      num_resamples: resamples of the bootstrap, over architectures.
      seed: of the resamples.

    Returns:
      As `correlations`: means over all ordered pairs of different seeds.

    Raises:
      ValueError: if there are fewer than 2 seeds; otherwise as `correlations`.
    """
    accuracies = _runs("accuracies", accuracies)
    num_seeds = accuracies.shape[0]
    if num_seeds < 2:
        raise ValueError(
            f"there are accuracies of {num_seeds} seed; expected at least 2"
        )
    first, second = np.nonzero(~np.eye(num_seeds, dtype=bool))
    found = correlations(
        accuracies[first],
        accuracies[second],
        only_top_half=only_top_half,
        num_resamples=num_resamples,
        seed=seed,
    )
    # Pairs share trainings, so that their spread says little.
    return {name: c._replace(std=np.nan) for name, c in found.items()}


def top_half(accuracies: Sequence[float] | np.ndarray) -> np.ndarray:
    """Mark the better half of the architectures.

    To rank good architectures is harder than to tell them from bad ones: within the
    half the accuracies differ less (Zhang et al. 2019 report both). Of equal accuracies
    the first ones are taken.

    Args:
      accuracies: `[num]`, higher is better.

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
    (values,) = _runs("accuracies", accuracies, max_dims=1)
    return _select_top(np.ones((1, values.size)), values)[0] > 0


def _runs(name: str, values: Scores, *, max_dims: int = 2) -> np.ndarray:
    """Check values of architectures; returns float64 `[runs, num]`."""
    array = np.asarray(values, np.float64)
    if not 1 <= array.ndim <= max_dims or 0 in array.shape or array.shape[-1] < 4:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one number for each of 4 or "
            "more architectures"
        )
    if not np.isfinite(array).all():
        *_, i = first = tuple(np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} of architecture {i} is {array[first]}; expected a finite number"
        )
    return np.atleast_2d(array)


def _resamples(
    num: int, only_top_half: bool, num_resamples: int, seed: int
) -> np.ndarray:
    """Counts of each architecture in the data (row 0) and in each resample."""
    if only_top_half and num < 7:
        raise ValueError(
            f"there are {num} architectures; expected 7 or more, so that 4 are in the "
            "top half"
        )
    check_sizes(num_resamples=num_resamples)
    drawn = np.random.default_rng(seed).integers(num, size=(num_resamples, num))
    counts = np.zeros((1 + num_resamples, num))
    counts[0] = 1
    np.add.at(counts, (np.arange(1, 1 + num_resamples)[:, None], drawn), 1)
    return counts


def _select_top(counts: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Counts of each architecture in the better half of each resample."""
    order = np.argsort(-accuracies, kind="stable")
    ordered = counts[:, order]
    better = np.cumsum(ordered, axis=1) - ordered
    half = (counts.sum(1, keepdims=True) + 1) // 2
    kept = np.empty_like(ordered)
    kept[:, order] = np.clip(half - better, 0, ordered)
    return kept


def _coefficients(
    counts: np.ndarray, scores: np.ndarray, accuracies: np.ndarray, only_top_half: bool
) -> dict[str, np.ndarray]:
    """Coefficients `[runs, 1 + num_resamples]`, NaN where they are not defined."""
    if scores.shape[1] != accuracies.shape[1]:
        raise ValueError(
            f"there are {scores.shape[1]} scores for {accuracies.shape[1]} "
            "architectures"
        )
    if accuracies.shape[0] not in (1, scores.shape[0]):
        raise ValueError(
            f"there are accuracies of {accuracies.shape[0]} runs for scores of "
            f"{scores.shape[0]}; expected those of one run, or of each run"
        )
    accuracies = np.broadcast_to(accuracies, scores.shape)
    runs = [
        _weighted(_select_top(counts, y) if only_top_half else counts, x, y)
        for x, y in zip(scores, accuracies, strict=True)
    ]
    return {name: np.stack([run[name] for run in runs]) for name in COEFFICIENTS}


def _weighted(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> dict:
    """Coefficients of `x` and `y` `[num]`, for each row of `counts` `[rows, num]`.

    All resamples are made of the same pairs, so that comparing each two architectures
    once is enough for ranks and for tau-b.
    """
    x_signs, y_signs = (np.sign(v[:, None] - v) for v in (x, y))

    def num_pairs(weights: np.ndarray) -> np.ndarray:
        return np.einsum("ri,ri->r", counts @ weights, counts)

    def centered(values: np.ndarray) -> np.ndarray:
        total = (counts * values).sum(1, keepdims=True)
        return values - total / counts.sum(1, keepdims=True)

    def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = centered(x), centered(y)
        variances = (counts * x**2).sum(1) * (counts * y**2).sum(1)
        return (counts * x * y).sum(1) / np.sqrt(variances)

    x_pairs, y_pairs = num_pairs(np.abs(x_signs)), num_pairs(np.abs(y_signs))
    is_defined = (x_pairs > 0) & (y_pairs > 0)
    # `signs @ counts`: those below less those above, twice the rank but for a constant.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "pearson": pearson(x, y),
            "spearman": pearson(counts @ x_signs.T, counts @ y_signs.T),
            "kendall": num_pairs(x_signs * y_signs) / np.sqrt(x_pairs * y_pairs),
        }
    # Rounding can leave a little more than 1, or a variance where all are equal.
    return {
        name: np.where(is_defined, np.clip(values, -1, 1), np.nan)
        for name, values in found.items()
    }


def _interval(values: np.ndarray) -> Correlation:
    """A value, the first, and the interval of its resamples."""
    value, resampled = values[0], values[1:]
    resampled = resampled[np.isfinite(resampled)]
    if np.isnan(value) or resampled.size == 0:
        return Correlation(np.nan, np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Correlation(float(value), float(low), float(high))


def _std(values: np.ndarray) -> float:
    """The standard deviation over runs, NaN for a single one."""
    return float(values.std(ddof=1)) if values.size > 1 else np.nan
