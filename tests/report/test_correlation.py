"""The report on how well scores rank architectures."""

import numpy as np
import pytest
from pages import Page, check_report

from jaxnas import analysis, report, studies
from jaxnas.report import curves

NAMES = "Pearson", "Spearman", "Kendall"
ACCURACIES = np.linspace(0.5, 0.9, 8)


def both(function, *arrays) -> dict:
    return {
        place: function(*arrays, only_top_half=only_top_half, num_resamples=20)
        for place, only_top_half in (("overall", False), ("top", True))
    }


def predictor(name, scores, **changes) -> studies.PredictorScores:
    fields = {
        **both(analysis.correlations, scores, ACCURACIES),
        "preparation_seconds": None,
        "weights_seconds": 0.25,
        "evaluation_seconds": 1.5,
    }
    return studies.PredictorScores(name, np.atleast_2d(scores), **fields | changes)


def write(path, predictors, standalone=ACCURACIES[None], **options) -> Page:
    report.correlation_report(
        path,
        title="A & B",
        summary={"data": "digits", "device": "CPU"},
        config={"seed": 0},
        settings={"num_steps": 5, "propagation": "forward_backward"},
        standalone=standalone,
        predictors=predictors,
        **options,
    )
    return check_report(path)


def test_the_report_holds_coefficients_costs_and_charts(tmp_path):
    page = write(
        tmp_path / "report.html",
        [
            predictor("GHN", ACCURACIES / 2, preparation_seconds=3600),
            predictor("Constant", np.full(8, 0.1), weights_seconds=None),
        ],
    )
    assert page.texts["h1"] == ["A & B"]
    words = page.words()
    assert words[0].startswith(
        "8 architectures, each trained stand-alone. Test accuracy"
    )
    assert any(text.startswith("Constant gives equal scores") for text in words)
    assert any(text.startswith("There is no noise ceiling") for text in words)
    for place in range(2):
        ghn, constant = page.table("Pearson", place)
        assert ghn == {"predictor": "GHN"} | dict.fromkeys(NAMES, "1.00 [1.00, 1.00]")
        assert constant == {"predictor": "Constant"} | dict.fromkeys(NAMES, "-")
    assert [caption for caption in page.captions if caption] == [
        "All 8 architectures",
        "The 4 with the best accuracy after training",
    ]
    assert [list(row.values()) for row in page.table("mean score")] == [
        ["GHN", "35.00%", "3,600.0", "0.250", "1.500"],
        ["Constant", "10.00%", "-", "-", "1.500"],
    ]
    assert len(page.texts["svg"]) == 2 and "Differences" not in page.texts["h2"]
    assert page.pairs()["propagation"] == "forward_backward"


def test_the_report_holds_ceiling_differences_and_several_seeds(tmp_path):
    path = tmp_path / "report.html"
    standalone = ACCURACIES + 0.1 * np.array([[-1, 1] * 4, [1, -1] * 4])
    runs = np.stack([ACCURACIES, ACCURACIES**2 * [1, 1, 1, 1, 1, 1, 1, 0.5]])
    ghn, sgd = (
        predictor("GHN", runs),
        predictor("SGD", ACCURACIES[[1, 0, 3, 2, 5, 4, 7, 6]]),
    )
    ceiling = studies.Coefficients(
        "Ceiling", **both(analysis.noise_ceiling, standalone)
    )
    arrays = runs, sgd.scores, ACCURACIES
    difference = studies.Coefficients(
        "GHN minus SGD", **both(analysis.correlation_differences, *arrays)
    )
    page = write(
        path,
        [sgd, ghn],
        standalone,
        ceiling=ceiling,
        differences=[difference],
        num_diverged=3,
    )
    words = " ".join(page.words())
    assert "with 2 seeds. Test accuracy, mean of the seeds: 70.0%" in words
    for row, first in ((ceiling, 0), (difference, 2)):
        for place, found in enumerate((row.overall, row.top), first):
            (cells,) = (
                cells
                for cells in page.table("Pearson", place)
                if cells["predictor"] == row.name
            )
            assert cells["Pearson"] == report.coefficient_text(found["pearson"])
    kendall = ghn.overall["kendall"]
    start = f"{kendall.value:.2f} ± {kendall.std:.2f} ["
    assert page.table("Pearson")[1]["Kendall"].startswith(start)
    assert "mean ± standard deviation of their coefficients" in words
    assert "the mean over all pairs of 2 seeds" in words
    assert "3 of 16 trainings diverged" in words


def test_notes_name_what_is_not_defined_or_not_finite():
    half = np.where(ACCURACIES > 0.7, 1, ACCURACIES)
    notes = " ".join(
        report.correlation_notes(
            ACCURACIES[None],
            [
                predictor("Half", half),
                predictor("Diverged", ACCURACIES, num_diverged=2),
            ],
        )
    )
    assert "Half gives equal scores, so that its coefficients are not def" in notes
    assert "(upper half)" in notes
    assert "Diverged: the validation loss of 2 of 8 scores is not finite" in notes
    assert "counts as 0" in notes and "trainings diverged" not in notes
    equal = np.ones((1, 8))
    assert "no coefficient is defined" in " ".join(report.correlation_notes(equal, []))


def test_a_report_refuses_what_does_not_fit(tmp_path):
    path = tmp_path / "report.html"
    with pytest.raises(ValueError, match="there are 0 predictors; expected at least 1"):
        write(path, [])
    short = predictor("GHN", ACCURACIES)._replace(scores=ACCURACIES[None, :7])
    with pytest.raises(ValueError, match="GHN has 7 scores; expected 8, one for each"):
        write(path, [short])
    assert not path.exists()


def test_coefficients_as_text():
    single = analysis.Correlation(0.678, -0.1, 0.9)
    assert report.coefficient_text(single) == "0.68 [-0.10, 0.90]"
    several = single._replace(std=0.051)
    assert report.coefficient_text(several) == "0.68 ± 0.05 [-0.10, 0.90]"
    undefined = analysis.Correlation(*[float("nan")] * 3)
    assert report.coefficient_text(undefined) == "-"


def test_a_scatter_chart_marks_points():
    chart = curves.scatter_chart(
        [0.1, 0.2, 0.3],
        [0.5, 0.7, 0.6],
        [False, True, True],
        title="GHN",
        x_label="score (%)",
        y_label="accuracy (%)",
        label="lower",
        marked_label="upper",
        percent=True,
    )
    (axes,) = chart.axes
    plain, marked = (np.asarray(c.get_offsets()).tolist() for c in axes.collections)
    assert plain == [[0.1, 0.5]]
    assert marked == [[0.2, 0.7], [0.3, 0.6]]
    (legend,) = chart.legends
    assert [text.get_text() for text in legend.get_texts()] == ["lower", "upper"]
    assert "score (%)" in curves.svg(chart, "scores")
