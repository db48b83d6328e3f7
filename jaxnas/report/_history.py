"""Curves of a metrics log, epoch by epoch."""

from collections.abc import Mapping
from typing import Any

from jaxnas.analysis import convergence
from jaxnas.report import _render, curves

SPLITS = {
    "train": curves.BLUE,
    "validation": curves.ORANGE,
    "test": curves.GREEN,
}
"""Colors of the splits."""


def split_curves(
    history: convergence.History, metric: str, **options: Any
) -> list[_render.Figure]:
    """Draw a metric of every split: one figure, or none where no line has it.

    Args:
      history: lines of the log, with `train/loss` and so on.
      metric: such as `loss`.
      **options: of `metric_curves`.
    """
    named = {f"{split}/{metric}": (split, color) for split, color in SPLITS.items()}
    return metric_curves(history, named, **options)


def metric_curves(
    history: convergence.History,
    metrics: Mapping[str, tuple[str, str]],
    *,
    title: str,
    **options: Any,
) -> list[_render.Figure]:
    """Draw metrics over the epochs: one figure, or none where no line has them.

    Args:
      history: lines of the log.
      metrics: label and color, by name.
      title: of the figure.
      **options: of `curves.line_chart`.
    """
    series = [
        curves.series(history, key, label=label, color=color)
        for key, (label, color) in metrics.items()
    ]
    measured = [curve for curve in series if curve.y or curve.num_skipped]
    if not measured:
        return []
    chart = curves.line_chart(measured, title=title, x_label="epoch", **options)
    num_skipped = sum(curve.num_skipped for curve in measured)
    caption = f"Points left out, not finite: {num_skipped}." if num_skipped else ""
    names = ", ".join(curve.label for curve in measured)
    return [_render.chart(chart, f"{title} by epoch: {names}", caption)]


def convergence_curves(
    history: convergence.History, uniform_level: float
) -> list[_render.Figure]:
    """Draw how a search distribution leaves the uniform one, if it is logged.

    Args:
      history: lines of the log, with `theta_max_mean`.
      uniform_level: its value for the uniform distribution, a fraction.
    """
    return metric_curves(
        history,
        {"theta_max_mean": ("search distribution", curves.BLUE)},
        title="Convergence of the search distribution",
        y_label="mean of largest probability (%)",
        levels={"uniform distribution": uniform_level},
        percent=True,
    )


def controller_curves(history: convergence.History) -> list[_render.Figure]:
    """Draw reward, baseline and entropy of a controller, if they are logged.

    Args:
      history: lines of the log, with `reward`, `baseline` and `entropy` (nats).
    """
    return [
        *metric_curves(
            history,
            {
                "reward": ("last samples", curves.BLUE),
                "baseline": ("moving average", curves.ORANGE),
            },
            title="Reward of the controller",
            y_label="reward",
        ),
        *metric_curves(
            history,
            {"entropy": ("controller", curves.BLUE)},
            title="Entropy of the controller",
            y_label="entropy (nats)",
        ),
    ]


def last_value(history: convergence.History, key: str) -> float | None:
    """The latest value of a metric, finite or not; `None` if no line has it."""
    lines = (line for line in reversed(history) if key in line)
    return next((float(line[key]) for line in lines), None)
