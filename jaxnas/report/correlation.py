"""Reports on how well cheap scores rank architectures."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnas import analysis
from jaxnas.report import curves, html


class Method(NamedTuple):
    """A way to score architectures without training each, and how well it does.

    Attributes:
      name: how the report calls it.
      scores: `[num]`, its accuracies on validation images, fractions.
      overall: the coefficients of `analysis.correlations` over all architectures.
      top: the same over the upper half by trained accuracy.
      preparation_seconds: what was done once for all architectures; `None` if nothing.
      weights_seconds: time to get weights for one architecture, a mean; `None` if they
        are there.
      evaluation_seconds: time to get weights for one and run the validation images.
    """

    name: str
    scores: Sequence[float] | np.ndarray
    overall: Mapping[str, analysis.Correlation]
    top: Mapping[str, analysis.Correlation]
    preparation_seconds: float | None
    weights_seconds: float | None
    evaluation_seconds: float


def correlation_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    settings: Mapping[str, object],
    truth: Sequence[float] | np.ndarray,
    methods: Sequence[Method],
) -> None:
    """Write how the scores of methods agree with the accuracies of trained networks.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data, device, seed, versions, command.
      config: the resolved configuration; may be nested.
      settings: those of the hypernetwork, shown apart, since studies differ in them.
      truth: `[num]`, test accuracies of the architectures, each trained by itself.
      methods: the methods to compare.

    Raises:
      ValueError: if there is no method, or one has not a score for each architecture.
    """
    if not methods:
        raise ValueError("there are 0 methods; expected at least 1")
    for method in methods:
        if len(method.scores) != len(truth):
            raise ValueError(
                f"{method.name} has {len(method.scores)} scores; expected "
                f"{len(truth)}, one for each architecture"
            )
    top = analysis.top_half(truth)
    mean, deviation = statistics.fmean(truth), statistics.stdev(map(float, truth))
    parts = [
        html.paragraph(
            f"{len(truth)} architectures, each trained by itself: test accuracy "
            f"{mean:.2%} ± {deviation:.2%} (mean ± standard deviation), from "
            f"{min(truth):.2%} to {max(truth):.2%}.",
            css_class="lead",
        ),
        html.pairs(summary),
        html.section(
            "Correlation with the accuracy after training",
            _coefficients(
                f"All {len(truth)} architectures",
                {method.name: method.overall for method in methods},
            ),
            _coefficients(
                f"The {int(top.sum())} with the best accuracy after training",
                {method.name: method.top for method in methods},
            ),
            html.paragraph(
                "In brackets: 95 % intervals of a bootstrap over the architectures. "
                "They do not hold what another training of the method would change."
            ),
        ),
        html.section("Cost", _costs(methods)),
        html.section(
            "Scores and accuracies",
            html.grid([_scatter(method, truth, top) for method in methods]),
        ),
        html.section("Hypernetwork", html.pairs(settings)),
        html.section("Configuration", html.pairs(config)),
    ]
    html.write(path, html.page(title, *parts))


def coefficient_text(correlation: analysis.Correlation) -> str:
    """Return a coefficient and its interval as text, a dash if it is not defined."""
    value, low, high = correlation
    if math.isnan(value):
        return "-"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _coefficients(
    caption: str, rows: Mapping[str, Mapping[str, analysis.Correlation]]
) -> html.Html:
    names = list(next(iter(rows.values())))
    # A specification makes a column one of numbers, although these cells are text.
    columns = {"method": ""} | {name.capitalize(): ".2f" for name in names}
    cells = [
        (method, *(coefficient_text(found[name]) for name in names))
        for method, found in rows.items()
    ]
    return html.table(columns, cells, caption=caption)


def _costs(methods: Sequence[Method]) -> html.Html:
    columns = {
        "method": "",
        "mean score": ".2%",
        "preparation (s)": ",.1f",
        "weights of one (s)": ",.3f",
        "weights and validation of one (s)": ",.3f",
    }
    rows = [
        (
            method.name,
            statistics.fmean(method.scores),
            method.preparation_seconds,
            method.weights_seconds,
            method.evaluation_seconds,
        )
        for method in methods
    ]
    note = html.paragraph(
        "Measured while this study ran, without compilation. Preparation is done once; "
        "the other times are means over the architectures. Scores are accuracies on "
        "the validation images."
    )
    return html.Html(html.table(columns, rows) + note)


def _scatter(
    method: Method, truth: Sequence[float] | np.ndarray, top: np.ndarray
) -> html.Html:
    chart = curves.scatter_chart(
        [float(score) for score in method.scores],
        [float(accuracy) for accuracy in truth],
        top.tolist(),
        title=method.name,
        x_label="score: validation accuracy (%)",
        y_label="test accuracy, trained (%)",
        label="lower half",
        marked_label="upper half by trained accuracy",
        percent=True,
    )
    description = f"accuracy after training by score: {method.name}"
    return html.figure(curves.svg(chart, description))
