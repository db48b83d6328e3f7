"""Numbers for the speed of convergence, and bands over seeds."""

import math

import numpy as np
import pytest

from jaxnas.analysis import convergence


def history(*losses, start=1):
    return [
        {"epoch": epoch, "test/loss": loss, "test/accuracy": 0.1 * epoch}
        for epoch, loss in enumerate(losses, start)
    ]


def test_the_mean_is_over_the_epochs_of_training():
    losses = [{"epoch": 0, "test/loss": 100.0}, *history(4.0, 2.0, 0.0)]
    assert convergence.mean_over_epochs(losses) == 2.0
    mean = convergence.mean_over_epochs(losses, "test/accuracy")
    assert mean == pytest.approx(0.2)
    # Lines of other metrics, such as those within an epoch, are passed over.
    assert convergence.mean_over_epochs([{"step": 3}, *losses, {"loss": 1}]) == 2.0


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_mean_does_not_hide_what_is_not_finite(value):
    mean = convergence.mean_over_epochs(history(1.0, value))
    assert str(mean) == value


@pytest.mark.parametrize(
    ("losses", "level", "epoch"),
    [
        ((3.0, 2.0, 1.0), 2.5, 2),
        ((3.0, 2.0, 1.0), 2.0, 2),
        ((3.0, 2.0, 1.0), 0.9, None),
        ((3.0, 1.0, 2.0), 1.5, 2),
        (("nan", "inf", 1.0), 1e9, 3),
        (("nan", "inf"), 1e9, None),
    ],
)
def test_epochs_until_a_level(losses, level, epoch):
    assert convergence.epochs_until(history(*losses), level) == epoch
    reverse = history(*losses)[::-1]
    assert convergence.epochs_until(reverse, level) == epoch


def test_epochs_until_a_level_of_another_metric():
    untrained = history(9.0, 8.0, start=0)
    assert convergence.epochs_until(untrained, 0.05, "test/accuracy") == 0


def test_a_band_has_mean_and_standard_deviation_of_the_common_epochs():
    runs = [history(3.0, 2.0, 1.0), history(5.0, 2.0), history(7.0, 2.0, "nan")]
    found = convergence.band(runs)
    assert found.epochs.tolist() == [1, 2]
    assert found.epochs.dtype == np.int64 and found.mean.dtype == np.float64
    assert found.mean.tolist() == [5.0, 2.0]
    assert found.low.tolist() == [3.0, 2.0] and found.high.tolist() == [7.0, 2.0]


def test_a_band_of_one_run_is_its_curve_as_far_as_it_is_finite():
    found = convergence.band([history(3.0, "inf", 1.0)])
    assert found.epochs.tolist() == [1, 3]
    assert found.mean.tolist() == found.low.tolist() == found.high.tolist() == [3, 1]


def test_a_band_may_be_empty():
    found = convergence.band([history(3.0), history("nan")])
    assert [array.size for array in found] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "measure",
    [
        convergence.mean_over_epochs,
        lambda lines: convergence.epochs_until(lines, 1.0),
        lambda lines: convergence.band([history(1.0), lines]),
    ],
    ids=["mean_over_epochs", "epochs_until", "band"],
)
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has 0 entries, none with 'test/loss'; expected at least one"),
        ([{"epoch": 1}], "has 1 entries, none with 'test/loss'"),
        ([{"epoch": 1}, {"test/loss": 1.0}], "entry 1 of the history has 'test/loss'"),
        ([{"epoch": 1, "test/loss": "low"}], "epoch 1 and 'test/loss' 'low'; expected"),
        (history(1.0) + history(2.0), "has 'test/loss' of epoch 1 twice"),
    ],
)
def test_malformed_histories_are_refused(measure, lines, message):
    with pytest.raises(ValueError, match=message):
        measure(lines)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="'test/loss' of epoch 0 only; expected at le"):
        convergence.mean_over_epochs(history(1.0, start=0))
    with pytest.raises(ValueError, match="level is nan; expected a number"):
        convergence.epochs_until(history(1.0), math.nan)
    with pytest.raises(ValueError, match="there are 0 histories; expected at least 1"):
        convergence.band([])
