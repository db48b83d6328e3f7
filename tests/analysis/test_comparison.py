"""The found architecture and random ones, all trained from scratch."""

import numpy as np
import pytest
from scipy import stats

from jaxnas import analysis


def test_the_estimate_and_its_interval_by_hand():
    found, random = np.array([0.9, 0.8]), np.array([[0.7, 0.8], [0.5, 0.4]])
    found_difference = analysis.difference_from_random(found, random)
    assert found_difference.value == pytest.approx(0.85 - 0.6)
    # Means of the random ones: 0.75 and 0.45, variance 0.045. Residuals of the model
    # architecture + seed: +-(0.1 - 1/30) / 2 and so on, with 2 degrees of freedom.
    steps = np.array([-0.1, 0.1, -0.1])
    noise = ((steps - steps.mean()) ** 2).sum() / 2 / 2
    parts = [(0.045 / 2, 1), (noise / 2, 2)]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    margin = stats.t.ppf(0.975, freedom) * variance**0.5
    assert found_difference.high - found_difference.value == pytest.approx(margin)
    assert found_difference.value - found_difference.low == pytest.approx(margin)


@pytest.mark.parametrize("num_seeds", [1, 2, 5])
def test_an_interval_covers_the_truth_as_often_as_it_says(num_seeds):
    """A found architecture that is a random one has no difference to be seen."""
    rng, num = np.random.default_rng(num_seeds), 1500
    spread, noise, seeds = 1.0, 0.7, 2.0
    covered = 0
    for _ in range(num):
        shared = seeds * rng.normal(size=num_seeds)  # luck of a seed, which cancels
        archs = spread * rng.normal(size=4)
        random = archs[:, None] + shared + noise * rng.normal(size=(4, num_seeds))
        found = 0.3 + shared + noise * rng.normal(size=num_seeds)
        _, low, high = analysis.difference_from_random(found, random)
        covered += low <= 0.3 <= high
    assert (
        0.93 < covered / num <= 1.0 if num_seeds == 1 else 0.92 < covered / num < 0.98
    )


def test_a_searcher_that_finds_the_best_of_many_is_seen_to_do_so():
    rng = np.random.default_rng(0)
    archs = 0.9 + 0.02 * rng.normal(size=100)
    random = archs[:8, None] + 0.002 * rng.normal(size=(8, 2))
    best = archs.max() + 0.002 * rng.normal(size=2)
    assert analysis.difference_from_random(best, random).low > 0
    ordinary = archs[8] + 0.002 * rng.normal(size=2)
    low, high = analysis.difference_from_random(ordinary, random)[1:]
    assert low < 0.02 and high > -0.02


def test_equal_values_have_an_interval_without_width():
    assert analysis.difference_from_random([0.5], [[0.5], [0.5]]) == (0, 0, 0)
    assert analysis.mean_difference([0.1, 0.1]) == pytest.approx((0.1, 0.1, 0.1))


def test_a_training_that_diverged_leaves_no_interval():
    assert np.isnan(analysis.difference_from_random([np.nan], [[0.5], [0.6]])).all()


def test_the_mean_of_searches_is_students_interval():
    values = [0.3, -0.1, 0.2, 0.4, 0.1]
    mean, low, high = analysis.mean_difference(values)
    interval = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (low, high) == pytest.approx(interval)
    assert mean == pytest.approx(0.18)


@pytest.mark.parametrize(
    ("found", "random", "message"),
    [
        ([0.5], [[0.5, 0.6]], r"found has shape \[1\] and random \[1, 2\]"),
        ([0.5], [0.5, 0.6], r"random \[2\]; expected \[num_seeds\]"),
        ([0.5], [[0.5]], "expected 2 or more architectures"),
    ],
)
def test_wrong_shapes(found, random, message):
    with pytest.raises(ValueError, match=message):
        analysis.difference_from_random(found, random)


def test_wrong_numbers():
    with pytest.raises(ValueError, match=r"confidence is 1\.5"):
        analysis.difference_from_random([0.5], [[0.5], [0.6]], confidence=1.5)
    with pytest.raises(ValueError, match=r"differences has shape \[1\]; expected"):
        analysis.mean_difference([0.1])
