"""Rank correlation of scores with accuracies."""

import math

import numpy as np
import pytest

from jaxnas import analysis

NAMES = ["pearson", "spearman", "kendall"]


def by_definition(x, y) -> dict[str, float]:
    """The coefficients, by sums over architectures and over pairs of them."""

    def pearson(x, y):
        x, y = x - x.mean(), y - y.mean()
        return (x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum())

    def ranks(x):
        below, equal = x[None] < x[:, None], x[None] == x[:, None]
        return below.sum(1) + (equal.sum(1) - 1) / 2

    signs = [np.sign(v[:, None] - v[None]) for v in (x, y)]
    tau = (signs[0] * signs[1]).sum() / math.sqrt(
        (signs[0] ** 2).sum() * (signs[1] ** 2).sum()
    )
    values = pearson(x, y), pearson(ranks(x), ranks(y)), tau
    return dict(zip(NAMES, values, strict=True))


@pytest.mark.parametrize("num_values", [3, 1000])
def test_coefficients_are_those_of_their_definitions(num_values):
    rng = np.random.default_rng(0)
    x = rng.integers(num_values, size=20).astype(float)  # with ties, or without
    y = x + rng.integers(num_values, size=20)
    found = analysis.correlations(x, y, num_resamples=1)
    assert list(found) == NAMES
    for name, value in by_definition(x, y).items():
        assert found[name].value == pytest.approx(value, abs=1e-12)


def test_signs_and_monotone_scores():
    truth = np.linspace(0.1, 0.9, 9)
    same = analysis.correlations(truth**9, truth, num_resamples=50)
    assert same["spearman"] == same["kendall"] == pytest.approx((1, 1, 1))
    assert 0.5 < same["pearson"].value < 1
    for correlation in analysis.correlations(-truth, truth, num_resamples=50).values():
        assert correlation == pytest.approx((-1, -1, -1))


def test_the_interval_covers_the_truth_and_shrinks():
    rng = np.random.default_rng(1)
    covered, widths = 0, {}
    for num in (20, 80):
        widths[num] = 0.0
        for seed in range(20):
            x = rng.normal(size=num)
            y = 0.6 * x + 0.8 * rng.normal(size=num)
            found = analysis.correlations(x, y, num_resamples=100, seed=seed)
            value, low, high = found["pearson"]
            assert low <= value <= high
            covered += low <= 0.6 <= high
            widths[num] += high - low
    assert 33 <= covered <= 40  # 38 of 40 expected
    assert widths[80] < 0.7 * widths[20]


def test_equal_seeds_give_equal_intervals():
    x, y = np.arange(8), np.array([1, 0, 3, 2, 5, 4, 7, 9])
    first = analysis.correlations(x, y, num_resamples=30, seed=3)
    assert analysis.correlations(x, y, num_resamples=30, seed=3) == first
    assert analysis.correlations(x, y, num_resamples=30, seed=4) != first


def test_resamples_of_equal_values_are_left_out():
    # Two of three resamples or so hold one value of the scores only.
    found = analysis.correlations([0, 0, 0, 1], [1, 2, 3, 4], num_resamples=200)
    for value, low, high in found.values():
        assert 0 < value < 1 and -1 <= low < high <= 1


@pytest.mark.parametrize("scores", [[0.5] * 5, np.full(5, 0.1)])
def test_equal_scores_have_no_correlation(scores):
    truth = [0.1, 0.2, 0.3, 0.4, 0.5]
    for x, y in ((scores, truth), (truth, scores)):
        for correlation in analysis.correlations(x, y, num_resamples=5).values():
            assert np.isnan(correlation).all()


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ([0.5, 0.9, 0.7, 0.6], [1, 2]),
        ([0.5, 0.9, 0.7, 0.6, 0.1], [1, 2, 3]),
        ([0.5, 0.5, 0.5, 0.5], [0, 1]),
    ],
)
def test_top_half(truth, expected):
    assert np.flatnonzero(analysis.top_half(truth)).tolist() == expected


@pytest.mark.parametrize(
    ("scores", "truth", "options", "message"),
    [
        ([1, 2, 3], [1, 2, 3], {}, r"scores has shape \(3,\); expected one number for"),
        ([[1, 2, 3, 4]], [1, 2, 3, 4], {}, r"scores has shape \(1, 4\)"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], {}, "5 scores for 4 architectures"),
        ([1, 2, math.nan, 4], [1, 2, 3, 4], {}, "scores of architecture 2 is nan"),
        ([1, 2, 3, 4], [1, 2, 3, math.inf], {}, "truth of architecture 3 is inf"),
        ([1, 2, 3, 4], [1, 2, 3, 4], {"num_resamples": 0}, "num_resamples is 0"),
    ],
)
def test_wrong_values(scores, truth, options, message):
    with pytest.raises(ValueError, match=message):
        analysis.correlations(scores, truth, **options)


def test_top_half_of_wrong_values():
    with pytest.raises(ValueError, match=r"truth has shape \(3,\)"):
        analysis.top_half([1, 2, 3])
