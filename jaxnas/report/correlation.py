"""Reports on how well cheap scores rank architectures."""

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnas import analysis
from jaxnas.report import _render, curves
from jaxnas.studies import Coefficients, Method


def correlation_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    settings: Mapping[str, object],
    truths: np.ndarray,
    methods: Sequence[Method],
    ceiling: Coefficients | None = None,
    differences: Sequence[Coefficients] = (),
    num_diverged: int = 0,
) -> None:
    """Write how the scores of methods agree with the accuracies of trained networks.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data, device, seed, versions, command.
      config: the resolved configuration; may be nested.
      settings: those of the hypernetwork, shown apart, since studies differ in them.
      truths: `[seeds, num]`, test accuracies of the architectures, each trained by
        itself; scores are compared with the means over seeds.
      methods: the methods to compare.
      ceiling: the coefficients of `analysis.noise_ceiling`; `None` with one seed.
      differences: those of `analysis.correlation_differences`, by name.
      num_diverged: trainings whose test loss is not finite.

    Raises:
      ValueError: if there is no method, or one has not a score for each architecture.
    """
    if not methods:
        raise ValueError("there are 0 methods; expected at least 1")
    truth = truths.mean(0)
    for method in methods:
        if method.scores.shape[-1] != truth.size:
            raise ValueError(
                f"{method.name} has {method.scores.shape[-1]} scores; expected "
                f"{truth.size}, one for each architecture"
            )
    top = analysis.top_half(truth)
    rows = [Coefficients(m.name, m.overall, m.top) for m in methods]
    rows += [] if ceiling is None else [ceiling]
    of_all = f"All {truth.size} architectures"
    of_top = f"The {int(top.sum())} with the best accuracy after training"

    def tables(rows: Sequence[Coefficients]) -> list[_render.Table]:
        return [
            _coefficients(of_all, {row.name: row.overall for row in rows}),
            _coefficients(of_top, {row.name: row.top for row in rows}),
        ]

    _render.write(
        path,
        "correlation.html",
        title=title,
        lead=truth_text(truths),
        summary=summary,
        config=config,
        coefficients=tables(rows),
        notes=correlation_notes(truths, methods, num_diverged),
        differences=tables(differences) if differences else [],
        differences_note=DIFFERENCES_NOTE,
        costs=_costs(methods),
        figures=[_scatter(method, truth, top) for method in methods],
        settings=settings,
    )


DIFFERENCES_NOTE = (
    "Differences are of coefficients, their intervals paired: both methods are "
    "correlated within the same resamples of architectures."
)


def truth_text(truths: np.ndarray) -> str:
    """Return how many architectures were trained, and to what test accuracies.

    Args:
      truths: `[seeds, num]`, fractions.
    """
    num_seeds, num = truths.shape
    truth = truths.mean(0)
    seeds, mean = "", ""
    if num_seeds > 1:
        seeds, mean = f" with {num_seeds} seeds", ", mean of the seeds"
    return (
        f"{num} architectures, each trained by itself{seeds}. Test accuracy{mean}: "
        f"{truth.mean():.1%} ± {truth.std(ddof=1):.1%} (mean ± standard deviation over "
        f"architectures), from {truth.min():.1%} to {truth.max():.1%}."
    )


def correlation_notes(
    truths: np.ndarray, methods: Sequence[Method], num_diverged: int = 0
) -> list[str]:
    """Return what must be known to read the coefficients.

    Args:
      truths: `[seeds, num]`, accuracies after training.
      methods: those of the table.
      num_diverged: trainings whose test loss is not finite.
    """
    num_seeds = truths.shape[0]
    intervals = (
        "In brackets: 95 % intervals of a bootstrap over the architectures, which "
        "selects the upper half again in each resample. They do not hold what another "
        "training of the method would change."
    )
    if any(method.scores.shape[0] > 1 for method in methods):
        intervals += (
            " Several trainings of a method: mean ± standard deviation of their "
            "coefficients."
        )
    notes = [intervals]
    if num_seeds == 1:
        notes.append(
            "There is no noise ceiling: the architectures were trained with one seed. "
            "How well another training would agree with this one is unknown; expect "
            "less than 1."
        )
    else:
        notes.append(
            "Noise ceiling: the test accuracies of one training against those of "
            f"another seed, the mean over all pairs of {num_seeds} seeds. Scores are "
            f"compared with the mean of the {num_seeds}, which has less noise than "
            "one, so that a very good score can be above it."
        )
    if np.ptp(truths.mean(0)) == 0:
        notes.append(
            "All architectures have the same accuracy after training: no coefficient "
            "is defined."
        )
    else:
        for method in methods:
            places = {"all": method.overall, "upper half": method.top}
            undefined = [
                place
                for place, found in places.items()
                if any(math.isnan(correlation.value) for correlation in found.values())
            ]
            if undefined:
                notes.append(
                    f"{method.name} gives equal scores, so that its coefficients are "
                    f"not defined ({', '.join(undefined)})."
                )
    if num_diverged:
        notes.append(
            f"{num_diverged} of {truths.size} trainings diverged: their test loss is "
            "not finite."
        )
    notes += [
        f"{method.name}: the validation loss of {method.num_diverged} of "
        f"{method.scores.size} scores is not finite."
        for method in methods
        if method.num_diverged
    ]
    if num_diverged or any(method.num_diverged for method in methods):
        notes.append("An accuracy that is not finite itself counts as 0.")
    return notes


def coefficient_text(correlation: analysis.Correlation) -> str:
    """Return a coefficient and its interval as text, a dash if it is not defined.

    The standard deviation over runs stands between, if there are several.
    """
    value, low, high, std = correlation
    if math.isnan(value):
        return "-"
    spread = "" if math.isnan(std) else f" ± {std:.2f}"
    return f"{value:.2f}{spread} [{low:.2f}, {high:.2f}]"


def _coefficients(
    caption: str, rows: Mapping[str, Mapping[str, analysis.Correlation]]
) -> _render.Table:
    # A specification makes a column one of numbers, although these cells are text.
    columns = {"method": ""}
    columns |= {name.capitalize(): ".2f" for name in analysis.COEFFICIENTS}
    cells = [
        (method, *(coefficient_text(found[name]) for name in analysis.COEFFICIENTS))
        for method, found in rows.items()
    ]
    return _render.Table(columns, cells, caption)


def _costs(methods: Sequence[Method]) -> _render.Table:
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
            float(method.scores.mean()),
            method.preparation_seconds,
            method.weights_seconds,
            method.evaluation_seconds,
        )
        for method in methods
    ]
    return _render.Table(columns, rows)


def _scatter(method: Method, truth: np.ndarray, top: np.ndarray) -> _render.Figure:
    num_runs = method.scores.shape[0]
    runs = "" if num_runs == 1 else f", mean of {num_runs}"
    chart = curves.scatter_chart(
        method.scores.mean(0).tolist(),
        truth.tolist(),
        top.tolist(),
        title=method.name,
        x_label=f"score: validation accuracy (%){runs}",
        y_label="test accuracy, trained (%)",
        label="lower half",
        marked_label="upper half by trained accuracy",
        percent=True,
    )
    description = f"accuracy after training by score: {method.name}"
    return _render.chart(chart, description)
