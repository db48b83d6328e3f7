"""Reports on the toy problem of ASNG: robustness to steps and learning rates."""

import math
import os
from collections.abc import Callable, Mapping, Sequence

from jaxnas.report import _render, curves
from jaxnas.studies import ToyPoint, ToyProblem

_COLORS = (curves.BLUE, curves.ORANGE, curves.GREEN, curves.PURPLE, curves.PINK)


def toy_problem_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    problem: ToyProblem,
    points: Sequence[ToyPoint],
) -> None:
    """Write how fast algorithms solve the toy problem with each setting.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: device, seed, versions, command.
      config: the resolved configuration; may be nested.
      problem: the problem.
      points: the measured settings, of at most 5 algorithms.

    Raises:
      ValueError: if there is no point, or one algorithm too many.
    """
    names = list(dict.fromkeys(point.algorithm for point in points))
    if not 1 <= len(names) <= len(_COLORS):
        raise ValueError(
            f"there are {len(names)} algorithms; expected 1 to {len(_COLORS)}"
        )
    rates = sorted({point.learning_rate for point in points})
    exponents = sorted({point.exponent for point in points})

    def step(point: ToyPoint) -> float:
        return problem.n_theta**-point.exponent

    figures = [
        _chart(
            [point for point in points if point.learning_rate == rate],
            step,
            names,
            problem,
            title=f"Learning rate {rate:g}",
            x_label="initial step",
        )
        for rate in rates
    ]
    if len(rates) > 1:
        figures += [
            _chart(
                [point for point in points if point.exponent == exponent],
                lambda point: point.learning_rate,
                names,
                problem,
                title=f"Initial step {problem.n_theta**-exponent:.3g}",
                x_label="learning rate",
            )
            for exponent in exponents
        ]
    _render.write(
        path,
        "toy_problem.html",
        title=title,
        lead=f"{problem.num_decisions} decisions among {problem.num_categories} "
        f"categories; {len(points[0].iterations)} seeds with each setting, at most "
        f"{problem.max_iterations:,} iterations.",
        summary=summary,
        config=config,
        figures=figures,
        results=_results(points, step),
        note="Iterations of the seeds that solved the problem; the median is over all "
        "seeds, a dash if half of them did not solve it.",
    )


def _results(
    points: Sequence[ToyPoint], step: Callable[[ToyPoint], float]
) -> _render.Table:
    columns = {
        "algorithm": "",
        "initial step": ".3g",
        "learning rate": "g",
        "solved": "d",
        "failed": "d",
        "fewest": ",d",
        "median": ",.0f",
        "most": ",d",
    }
    rows = []
    for point in points:
        numbers = [number for number in point.iterations if number is not None]
        rows.append(
            (
                point.algorithm,
                step(point),
                point.learning_rate,
                len(numbers),
                len(point.iterations) - len(numbers),
                min(numbers, default=None),
                point.median if math.isfinite(point.median) else None,
                max(numbers, default=None),
            )
        )
    return _render.Table(columns, rows)


def _chart(
    points: Sequence[ToyPoint],
    x: Callable[[ToyPoint], float],
    names: Sequence[str],
    problem: ToyProblem,
    *,
    title: str,
    x_label: str,
) -> _render.Figure:
    limit = problem.max_iterations
    drawn = []
    for name, color in zip(names, _COLORS[: len(names)], strict=True):
        own = sorted((point for point in points if point.algorithm == name), key=x)
        drawn.append(
            curves.Series(
                name,
                color,
                [x(point) for point in own],
                [min(point.median, limit) for point in own],
            )
        )
    failed = [
        f"{point.algorithm} at {x(point):.3g}: "
        f"{len(point.iterations) - point.num_solved} of {len(point.iterations)} seeds"
        for point in points
        if point.num_solved < len(point.iterations)
    ]
    chart = curves.line_chart(
        drawn,
        title=title,
        x_label=x_label,
        y_label="median iterations",
        height=240,
        levels={"limit": limit},
        log_x=True,
        legend_below=True,
    )
    description = f"median iterations by {x_label}, {title}: {', '.join(names)}"
    caption = f"Not solved: {'; '.join(failed)}." if failed else "Solved by all seeds."
    return _render.chart(chart, description, caption)
