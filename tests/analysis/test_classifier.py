"""Right and wrong answers, counted by hand and by SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxnas import analysis

# Classes 0, 0, 0, 1, 1, 3; class 2 has no images.
LABELS = np.array([0, 0, 0, 1, 1, 3])
PROBABILITIES = np.array(
    [
        [0.7, 0.1, 0.1, 0.1],
        [0.2, 0.6, 0.1, 0.1],
        [0.05, 0.9, 0.05, 0.0],
        [0.1, 0.8, 0.1, 0.0],
        [0.0, 0.0, 1.0, 0.0],
        [0.25, 0.25, 0.25, 0.25],
    ]
)


def test_counts():
    found = analysis.classifier_metrics(LABELS, PROBABILITIES, num_wrong=3)
    expected = [[1, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    np.testing.assert_array_equal(found.confusion, expected)
    np.testing.assert_array_equal(found.counts, [3, 2, 0, 1])
    assert found.accuracy.value == 2 / 6
    values = [accuracy.value for accuracy in found.class_accuracies]
    np.testing.assert_array_equal(values, [1 / 3, 1 / 2, math.nan, 0])
    assert found.most_wrong == [(4, 1, 2, 1.0), (2, 0, 1, 0.9), (1, 0, 1, 0.6)]
    assert found.worst_classes() == [3, 0, 1]
    assert found.most_confused(2) == [(0, 1, 2), (1, 2, 1)]
    assert len(found.most_confused(99)) == 3
    # Each image has a bin of its own: the mean distance of 1 or 0 to its probability.
    gaps = [0.3, 0.6, 0.9, 0.2, 1.0, 0.25]
    assert found.calibration_error == pytest.approx(np.mean(gaps))


def test_answers_of_similar_probability_are_calibrated_together():
    rows = np.tile([0.75, 0.25], (4, 1))
    found = analysis.classifier_metrics(np.array([0, 0, 0, 1]), rows)
    assert found.calibration_error == pytest.approx(0)
    perfect = analysis.classifier_metrics(np.array([1, 0]), np.eye(2)[[1, 0]])
    assert (perfect.calibration_error, perfect.most_wrong) == (0, [])
    assert perfect.most_confused(5) == []


@pytest.mark.parametrize(
    ("right", "num"), [(0, 1), (1, 1), (0, 7), (7, 7), (3, 7), (872, 1000)]
)
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_intervals_of_wilson(right, num, confidence):
    test = stats.binomtest(right, num)
    expected = test.proportion_ci(confidence, method="wilson")
    found = analysis.wilson_interval(right, num, confidence=confidence)
    assert found.value == right / num
    np.testing.assert_allclose(found[1:], (expected.low, expected.high), rtol=1e-12)


def test_nothing_is_known_of_no_images():
    value, low, high = analysis.wilson_interval(0, 0)
    assert math.isnan(value) and (low, high) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 3), "num_right is -1 and num_images 3; expected 0 or more right ones"),
        ((4, 3), "num_right is 4 and num_images 3"),
    ],
)
def test_wrong_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        analysis.wilson_interval(*arguments)
    with pytest.raises(ValueError, match="confidence is 1; expected between 0 and 1"):
        analysis.wilson_interval(1, 2, confidence=1)


@pytest.mark.parametrize(
    ("labels", "rows", "message"),
    [
        ([0, 1], [[1.0, 0.0]], r"labels have shape \[2\] and probabilities \[1, 2\]"),
        ([0], [1.0], r"shape \[1\] and probabilities \[1\]; expected \[num_images\]"),
        ([], np.zeros((0, 2)), "expected at least one image"),
        ([0.5], [[1.0, 0.0]], "labels are float64; expected integers"),
        ([2], [[1.0, 0.0]], "a label is 2; expected 0 to 1"),
        ([-1], [[1.0, 0.0]], "a label is -1; expected 0 to 1"),
        ([0, 0], [[1, 0], [0.5, 0.4]], r"row 1 of probabilities is no distribution"),
        ([0], [[1.5, -0.5]], "row 0 of probabilities is no distribution"),
        ([0], [[math.nan, 0.5]], r"row 0 .* \(its sum is nan\)"),
    ],
)
def test_wrong_arrays(labels, rows, message):
    with pytest.raises(ValueError, match=message):
        analysis.classifier_metrics(np.array(labels), np.array(rows, float))
