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
    better = analysis.top_half(y)
    found = analysis.correlations(x, y, only_top_half=True, num_resamples=1)
    for name, value in by_definition(x[better], y[better]).items():
        assert found[name].value == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("only_top_half", [False, True])
def test_intervals_are_those_of_explicit_resamples(only_top_half):
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    resampled = []
    for index in np.random.default_rng(5).integers(20, size=(50, 20)):
        if only_top_half:  # of the resample, not of the data
            index = index[np.argsort(-y[index])[:10]]
        resampled.append(by_definition(x[index], y[index]))
    found = analysis.correlations(
        x, y, only_top_half=only_top_half, num_resamples=50, seed=5
    )
    for name, correlation in found.items():
        low, high = np.quantile([r[name] for r in resampled], [0.025, 0.975])
        assert correlation[1:3] == pytest.approx((low, high), abs=1e-12)


def test_signs_and_monotone_scores():
    accuracies = np.linspace(0.1, 0.9, 9)
    same = analysis.correlations(accuracies**9, accuracies, num_resamples=50)
    for name in ("spearman", "kendall"):
        assert same[name][:3] == pytest.approx((1, 1, 1))
    assert 0.5 < same["pearson"].value < 1
    for correlation in analysis.correlations(
        -accuracies, accuracies, num_resamples=50
    ).values():
        assert correlation[:3] == pytest.approx((-1, -1, -1))


def test_the_interval_covers_the_truth_and_shrinks():
    rng = np.random.default_rng(1)
    covered, widths = 0, {}
    for num in (20, 80):
        widths[num] = 0.0
        for seed in range(20):
            x = rng.normal(size=num)
            y = 0.6 * x + 0.8 * rng.normal(size=num)
            found = analysis.correlations(x, y, num_resamples=100, seed=seed)
            value, low, high, _ = found["pearson"]
            assert low <= value <= high
            covered += low <= 0.6 <= high
            widths[num] += high - low
    assert 33 <= covered <= 40  # 38 of 40 expected
    assert widths[80] < 0.7 * widths[20]


def two_groups(rng, num):
    """Scores and accuracies that agree on which architectures are bad, and on no more.

    Bad ones are 48 %, so that a sample may have some in its better half or not; the
    better half of very many has none, and hence a correlation of 0.
    """
    is_bad = rng.random(num) < 0.48
    accuracies = np.where(is_bad, 0.3, 0.8) + 0.03 * rng.normal(size=num)
    scores = np.where(is_bad, 0.2, 0.7) + 0.05 * rng.normal(size=num)
    return scores, accuracies


def test_intervals_of_the_top_half_cover_the_truth():
    rng = np.random.default_rng(0)
    covered, covered_if_kept = 0, 0
    for seed in range(200):
        scores, accuracies = two_groups(rng, 40)
        found = analysis.correlations(
            scores, accuracies, only_top_half=True, num_resamples=200, seed=seed
        )["pearson"]
        better = analysis.top_half(accuracies)
        kept = analysis.correlations(
            scores[better], accuracies[better], num_resamples=200, seed=seed
        )["pearson"]
        assert kept.value == pytest.approx(found.value, abs=1e-12)
        covered += found.low <= 0 <= found.high
        covered_if_kept += kept.low <= 0 <= kept.high
    # Nominal are 95 %; over 2,000 samples it was 90 %, and 77 % with the half kept.
    assert 174 <= covered <= 198
    assert covered_if_kept < covered - 15


def paired_samples(rng, num, others_noise):
    """Scores that share most of their error, and the accuracies."""
    accuracies = rng.normal(size=num)
    shared = accuracies + rng.normal(size=num)
    scores = shared + 0.3 * rng.normal(size=num)
    return scores, shared + others_noise * rng.normal(size=num), accuracies


def test_paired_intervals_cover_the_difference_and_are_narrow():
    rng = np.random.default_rng(2)
    covered, ratios = 0, []
    for seed in range(100):
        scores, others, accuracies = paired_samples(rng, 50, 0.3)
        found = analysis.correlation_differences(
            scores, others, accuracies, num_resamples=200, seed=seed
        )
        separate = [
            analysis.correlations(x, accuracies, num_resamples=200, seed=seed)[
                "pearson"
            ]
            for x in (scores, others)
        ]
        value, low, high, _ = found["pearson"]
        assert value == pytest.approx(separate[0].value - separate[1].value)
        covered += low <= 0 <= high  # equally good methods
        widths = [c.high - c.low for c in separate]
        ratios.append((high - low) / math.hypot(*widths))
    assert 87 <= covered <= 99  # over 1,000 samples 91 %
    assert np.mean(ratios) < 0.6  # of what independent samples would give
    # Unequal methods are told apart, although their own intervals overlap.
    scores, others, accuracies = paired_samples(rng, 50, 1.5)
    found = analysis.correlation_differences(scores, others, accuracies)["pearson"]
    ours, theirs = (
        analysis.correlations(x, accuracies)["pearson"] for x in (scores, others)
    )
    assert found.low > 0 and ours.low < theirs.high


@pytest.mark.parametrize("only_top_half", [False, True])
def test_differences_use_the_same_resamples(only_top_half):
    rng = np.random.default_rng(0)
    accuracies = rng.normal(size=20)
    scores = accuracies + rng.normal(size=20)
    # A method is as good as itself in every resample, on whatever scale.
    for others in (scores, [scores, 2 * scores + 1]):
        found = analysis.correlation_differences(
            scores, others, accuracies, only_top_half=only_top_half, num_resamples=50
        )
        assert list(found) == NAMES
        for correlation in found.values():
            assert correlation[:3] == pytest.approx((0, 0, 0), abs=1e-12)
            assert math.isnan(correlation.std)
    found = analysis.correlation_differences(
        scores, np.ones(20), accuracies, only_top_half=only_top_half, num_resamples=50
    )
    assert all(np.isnan(correlation).all() for correlation in found.values())


@pytest.mark.parametrize("only_top_half", [False, True])
def test_runs_are_averaged(only_top_half):
    rng = np.random.default_rng(0)
    accuracies = rng.normal(size=15)
    scores = accuracies + rng.normal(size=(3, 15))
    options = {"only_top_half": only_top_half, "num_resamples": 50}
    found = analysis.correlations(scores, accuracies, **options)
    single = [analysis.correlations(run, accuracies, **options) for run in scores]
    for name, correlation in found.items():
        values = [run[name].value for run in single]
        assert correlation.value == pytest.approx(np.mean(values))
        assert correlation.std == pytest.approx(np.std(values, ddof=1))
        assert math.isnan(single[0][name].std)
        # What the runs do not share is averaged out.
        widths = [run[name].high - run[name].low for run in single]
        assert 0 < correlation.high - correlation.low < max(widths)
    with_constant = analysis.correlations([scores[0], np.ones(15)], accuracies)
    assert all(np.isnan(correlation).all() for correlation in with_constant.values())


def test_noise_ceiling():
    rng = np.random.default_rng(0)
    worth = rng.normal(size=400)
    accuracies = worth + 0.5 * rng.normal(size=(3, 400))
    found = analysis.noise_ceiling(accuracies, num_resamples=200)
    # Of two measurements with a variance of noise of a quarter: 1 / 1.25.
    assert found["pearson"].value == pytest.approx(0.8, abs=0.03)
    assert found["pearson"].low < 0.8 < found["pearson"].high
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    found = analysis.noise_ceiling(accuracies, only_top_half=True, num_resamples=1)
    expected = [
        analysis.correlations(
            accuracies[i], accuracies[j], only_top_half=True, num_resamples=1
        )["kendall"].value
        for i, j in pairs
    ]
    assert found["kendall"].value == pytest.approx(np.mean(expected))
    assert math.isnan(found["kendall"].std)
    for of_one_seed in (accuracies[0], accuracies[:1]):
        with pytest.raises(
            ValueError, match="accuracies of 1 seed; expected at least 2"
        ):
            analysis.noise_ceiling(of_one_seed)


def test_equal_seeds_give_equal_intervals():
    x, y = np.arange(8), np.array([1, 0, 3, 2, 5, 4, 7, 9])
    intervals = [
        {
            name: correlation[:3]
            for name, correlation in analysis.correlations(
                x, y, num_resamples=30, seed=seed
            ).items()
        }
        for seed in (3, 3, 4)
    ]
    assert intervals[0] == intervals[1] != intervals[2]


def test_resamples_of_equal_values_are_left_out():
    # Two of three resamples or so hold one value of the scores only.
    found = analysis.correlations([0, 0, 0, 1], [1, 2, 3, 4], num_resamples=200)
    for value, low, high, _ in found.values():
        assert 0 < value < 1 and -1 <= low < high <= 1


@pytest.mark.parametrize("scores", [[0.5] * 5, np.full(5, 0.1)])
def test_equal_scores_have_no_correlation(scores):
    accuracies = [0.1, 0.2, 0.3, 0.4, 0.5]
    for x, y in ((scores, accuracies), (accuracies, scores)):
        for correlation in analysis.correlations(x, y, num_resamples=5).values():
            assert np.isnan(correlation).all()


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.5, 0.9, 0.7, 0.6], [1, 2]),
        ([0.5, 0.9, 0.7, 0.6, 0.1], [1, 2, 3]),
        ([0.5, 0.5, 0.5, 0.5], [0, 1]),
    ],
)
def test_top_half(accuracies, expected):
    assert np.flatnonzero(analysis.top_half(accuracies)).tolist() == expected


@pytest.mark.parametrize(
    ("scores", "accuracies", "options", "message"),
    [
        ([1, 2, 3], [1, 2, 3], {}, r"scores has shape \(3,\); expected one number for"),
        ([[1, 2, 3]], [1, 2, 3, 4], {}, r"scores has shape \(1, 3\)"),
        ([[[1, 2, 3, 4]]], [1, 2, 3, 4], {}, r"scores has shape \(1, 1, 4\)"),
        (
            [[1, 2, 3, 4]],
            [[1, 2, 3, 4]] * 2,
            {},
            "accuracies of 2 runs for scores of 1;",
        ),
        ([1] * 6, [1] * 6, {"only_top_half": True}, "6 architectures; expected 7 or"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], {}, "5 scores for 4 architectures"),
        ([1, 2, math.nan, 4], [1, 2, 3, 4], {}, "scores of architecture 2 is nan"),
        ([1, 2, 3, 4], [1, 2, 3, math.inf], {}, "accuracies of architecture 3 is inf"),
        ([1, 2, 3, 4], [1, 2, 3, 4], {"num_resamples": 0}, "num_resamples is 0"),
    ],
)
def test_wrong_values(scores, accuracies, options, message):
    with pytest.raises(ValueError, match=message):
        analysis.correlations(scores, accuracies, **options)


def test_top_half_of_wrong_values():
    with pytest.raises(ValueError, match=r"accuracies has shape \(3,\)"):
        analysis.top_half([1, 2, 3])
    with pytest.raises(ValueError, match=r"accuracies has shape \(1, 4\)"):
        analysis.top_half(np.ones((1, 4)))
