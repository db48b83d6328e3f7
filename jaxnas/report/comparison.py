"""Reports that compare search algorithms over seeds."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnas.report import _render, curves
from jaxnas.report._words import spread, spread_text
from jaxnas.studies import Algorithm

_COLORS = (curves.BLUE, curves.ORANGE, curves.GREEN, curves.PURPLE, curves.PINK)


def comparison_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    evaluations: Sequence[int],
    algorithms: Sequence[Algorithm],
    best: float,
    measure: str = "accuracy",
    percent: bool = False,
) -> None:
    """Write a comparison of search algorithms on one problem with a known optimum.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: table, device, seed, versions, command.
      config: the resolved configuration; may be nested.
      evaluations: architectures evaluated at each point, ascending from 1 or more.
      algorithms: the algorithms, at most 5.
      best: the highest value there is.
      measure: name of the values.
      percent: whether the values are between 0 and 100, instead of 0 and 1.

    Raises:
      ValueError: if there is no algorithm or one too many, or values have another
        shape than expected.
    """
    if not 1 <= len(algorithms) <= len(_COLORS):
        raise ValueError(
            f"there are {len(algorithms)} algorithms; expected 1 to {len(_COLORS)}"
        )
    num_seeds = len(algorithms[0].incumbent)
    for algorithm in algorithms:
        for name in ("incumbent", "mode"):
            shape = getattr(algorithm, name).shape
            if shape != (num_seeds, len(evaluations)):
                raise ValueError(
                    f"{name} of {algorithm.name} has shape {shape}; expected "
                    f"{(num_seeds, len(evaluations))}, seeds and evaluations"
                )
    unit = f"{measure} (%)" if percent else measure
    spec = ".2f" if percent else ".4f"
    figures = [
        _curves(
            name,
            [getattr(algorithm, name) for algorithm in algorithms],
            labels=[algorithm.name for algorithm in algorithms],
            evaluations=evaluations,
            best=best,
            y_label=unit,
        )
        for name in ("incumbent", "mode")
    ]
    _render.write(
        path,
        "comparison.html",
        title=title,
        lead=f"After {evaluations[-1]:,} evaluations, {num_seeds} seeds each. Best of "
        f"the table: {measure} {best:{spec}}{' %' if percent else ''}.",
        summary=summary,
        config=config,
        results=_results(algorithms, best, unit, spec),
        figures=figures,
    )


def _results(
    algorithms: Sequence[Algorithm], best: float, unit: str, spec: str
) -> _render.Table:
    def cells(values: np.ndarray) -> tuple[object, ...]:
        final = values[:, -1]
        return spread_text(final, spec), best - spread(final)[0]

    columns = {
        "searcher": "",
        f"incumbent: {unit}": spec,
        "mean regret": spec,
        f"mode: {unit}": spec,
        "its mean regret": spec,
    }
    rows = [
        (algorithm.name, *cells(algorithm.incumbent), *cells(algorithm.mode))
        for algorithm in algorithms
    ]
    means = [spread(algorithm.incumbent[:, -1])[0] for algorithm in algorithms]
    return _render.Table(columns, rows, marked_row=means.index(max(means)))


def _curves(
    name: str,
    values: Sequence[np.ndarray],
    *,
    labels: Sequence[str],
    evaluations: Sequence[int],
    best: float,
    y_label: str,
) -> _render.Figure:
    """Draw means over the seeds, and the range that holds eight of ten seeds."""
    bands = []
    for label, color, curve in zip(labels, _COLORS[: len(labels)], values, strict=True):
        low, high = np.quantile(curve, [0.1, 0.9], axis=0)
        mean = curve.mean(0, dtype=np.float64)
        bands.append(
            curves.Series(
                label,
                color,
                evaluations,
                mean.tolist(),
                low=low.tolist(),
                high=high.tolist(),
            )
        )
    chart = curves.line_chart(
        bands,
        title=name.capitalize(),
        x_label="evaluations",
        y_label=y_label,
        height=240,
        levels={"best of the table": best},
        log_x=True,
    )
    description = f"{name} by evaluations: {', '.join(labels)}"
    caption = "Line: mean over seeds. Band: 10th to 90th percentile."
    return _render.chart(chart, description, caption)
