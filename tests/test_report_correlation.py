"""The report on how well scores rank architectures."""

import numpy as np
import pytest
from test_commands import check_report

from jaxnas import analysis, report
from jaxnas.report import curves

TRUTH = np.linspace(0.5, 0.9, 8)


def method(name, scores, **changes) -> report.Method:
    top = analysis.top_half(TRUTH)
    fields = {
        "overall": analysis.correlations(scores, TRUTH, num_resamples=20),
        "top": analysis.correlations(scores[top], TRUTH[top], num_resamples=20),
        "preparation_seconds": None,
        "weights_seconds": 0.25,
        "evaluation_seconds": 1.5,
    }
    return report.Method(name, scores, **fields | changes)


def write(path, methods) -> str:
    report.correlation_report(
        path,
        title="A & B",
        summary={"data": "digits", "device": "CPU"},
        config={"seed": 0},
        settings={"num_steps": 5, "propagation": "forward_backward"},
        truth=TRUTH,
        methods=methods,
    )
    return path.read_text(encoding="utf-8")


def test_the_report_holds_coefficients_costs_and_charts(tmp_path):
    path = tmp_path / "report.html"
    page = write(
        path,
        [
            method("GHN", TRUTH / 2, preparation_seconds=3600),
            method("Constant", np.full(8, 0.1), weights_seconds=None),
        ],
    )
    check_report(path)
    assert "<h1>A &amp; B</h1>" in page and "<script" not in page
    assert "8 architectures, each trained by itself: test accuracy 70.00%" in page
    number = '<td class="number">{}</td>'.format
    assert "<td>GHN</td>" + number("1.00 [1.00, 1.00]") * 3 in page
    assert "<td>Constant</td>" + number("-") * 3 in page
    costs = number("35.00%") + number("3,600.0") + number("0.250") + number("1.500")
    assert f"<td>GHN</td>{costs}" in page
    costs = number("10.00%") + number("-") * 2 + number("1.500")
    assert f"<td>Constant</td>{costs}" in page
    assert "The 4 with the best accuracy after training" in page
    assert page.count("<svg") == 2 and "forward_backward" in page


def test_a_report_refuses_what_does_not_fit(tmp_path):
    path = tmp_path / "report.html"
    with pytest.raises(ValueError, match="there are 0 methods; expected at least 1"):
        write(path, [])
    short = method("GHN", TRUTH)._replace(scores=TRUTH[:7])
    with pytest.raises(ValueError, match="GHN has 7 scores; expected 8, one for each"):
        write(path, [short])
    assert not path.exists()


def test_coefficients_as_text():
    assert report.coefficient_text(analysis.Correlation(0.678, -0.1, 0.9)) == (
        "0.68 [-0.10, 0.90]"
    )
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
