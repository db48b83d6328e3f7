"""Reports on the rank correlation of predictors with accuracies."""

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnas import analysis
from jaxnas.report import _render, curves
from jaxnas.studies import Coefficients, PredictorScores


def correlation_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    settings: Mapping[str, object],
    standalone: np.ndarray,
    predictors: Sequence[PredictorScores],
    ceiling: Coefficients | None = None,
    differences: Sequence[Coefficients] = (),
    num_diverged: int = 0,
) -> None:
    """Write how the scores of predictors agree with the accuracies of trained networks.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data, device, seed, versions, command.
      config: the resolved configuration; may be nested.
      settings: those of the hypernetwork, shown apart, since studies differ in them.
      standalone: `[seeds, num]`, test accuracies of the architectures, each trained
        stand-alone; scores are compared with the means over seeds.
      predictors: the predictors to compare.
      ceiling: the coefficients of `analysis.noise_ceiling`; `None` with one seed.
      differences: those of `analysis.correlation_differences`, by name.
      num_diverged: trainings whose test loss is not finite.

    Raises:
      ValueError: if there is no predictor, or one lacks scores.
    """
    if not predictors:
        raise ValueError("there are 0 predictors; expected at least 1")
    accuracies = standalone.mean(0)
    for predictor in predictors:
        if predictor.scores.shape[-1] != accuracies.size:
            raise ValueError(
                f"{predictor.name} has {predictor.scores.shape[-1]} scores; expected "
                f"{accuracies.size}, one for each architecture"
            )
    top = analysis.top_half(accuracies)
    rows = [Coefficients(m.name, m.overall, m.top) for m in predictors]
    rows += [] if ceiling is None else [ceiling]
    of_all = f"All {accuracies.size} architectures"
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
        lead=standalone_text(standalone),
        summary=summary,
        config=config,
        coefficients=tables(rows),
        notes=correlation_notes(standalone, predictors, num_diverged),
        differences=tables(differences) if differences else [],
        differences_note=DIFFERENCES_NOTE,
        costs=_costs(predictors),
        figures=[_scatter(predictor, accuracies, top) for predictor in predictors],
        settings=settings,
    )


DIFFERENCES_NOTE = (
    "Differences are of coefficients, their intervals paired: both predictors are "
    "correlated within the same resamples of architectures."
)


def standalone_text(standalone: np.ndarray) -> str:
    """Return how many architectures were trained, and to what test accuracies.

    Args:
      standalone: `[seeds, num]`, fractions.
    """
    num_seeds, num = standalone.shape
    accuracies = standalone.mean(0)
    seeds, mean = "", ""
    if num_seeds > 1:
        seeds, mean = f" with {num_seeds} seeds", ", mean of the seeds"
    return (
        f"{num} architectures, each trained stand-alone{seeds}. Test accuracy{mean}: "
        f"{accuracies.mean():.1%} ± {accuracies.std(ddof=1):.1%} (mean ± standard "
        f"deviation over architectures), from {accuracies.min():.1%} to "
        f"{accuracies.max():.1%}."
    )


def correlation_notes(
    standalone: np.ndarray, predictors: Sequence[PredictorScores], num_diverged: int = 0
) -> list[str]:
    """Return what must be known to read the coefficients.

    Args:
      standalone: `[seeds, num]`, accuracies after training.
      predictors: those of the table.
      num_diverged: trainings whose test loss is not finite.
    """
    num_seeds = standalone.shape[0]
    intervals = (
        "In brackets: 95 % intervals of a bootstrap over the architectures, which "
        "selects the upper half again in each resample. They do not hold what another "
        "training of the predictor would change."
    )
    if any(predictor.scores.shape[0] > 1 for predictor in predictors):
        intervals += (
            " Several trainings of a predictor: mean ± standard deviation of their "
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
    if np.ptp(standalone.mean(0)) == 0:
        notes.append(
            "All architectures have the same accuracy after training: no coefficient "
            "is defined."
        )
    else:
        for predictor in predictors:
            places = {"all": predictor.overall, "upper half": predictor.top}
            undefined = [
                place
                for place, found in places.items()
                if any(math.isnan(correlation.value) for correlation in found.values())
            ]
            if undefined:
                notes.append(
                    f"{predictor.name} gives equal scores, so that its coefficients "
                    f"are not defined ({', '.join(undefined)})."
                )
    if num_diverged:
        notes.append(
            f"{num_diverged} of {standalone.size} trainings diverged: their test loss "
            "is not finite."
        )
    notes += [
        f"{predictor.name}: the validation loss of {predictor.num_diverged} of "
        f"{predictor.scores.size} scores is not finite."
        for predictor in predictors
        if predictor.num_diverged
    ]
    if num_diverged or any(predictor.num_diverged for predictor in predictors):
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
    columns = {"predictor": ""}
    columns |= {name.capitalize(): ".2f" for name in analysis.COEFFICIENTS}
    cells = [
        (predictor, *(coefficient_text(found[name]) for name in analysis.COEFFICIENTS))
        for predictor, found in rows.items()
    ]
    return _render.Table(columns, cells, caption)


def _costs(predictors: Sequence[PredictorScores]) -> _render.Table:
    columns = {
        "predictor": "",
        "mean score": ".2%",
        "preparation (s)": ",.1f",
        "weights of one (s)": ",.3f",
        "weights and validation of one (s)": ",.3f",
    }
    rows = [
        (
            predictor.name,
            float(predictor.scores.mean()),
            predictor.preparation_seconds,
            predictor.weights_seconds,
            predictor.evaluation_seconds,
        )
        for predictor in predictors
    ]
    return _render.Table(columns, rows)


def _scatter(
    predictor: PredictorScores, accuracies: np.ndarray, top: np.ndarray
) -> _render.Figure:
    num_runs = predictor.scores.shape[0]
    runs = "" if num_runs == 1 else f", mean of {num_runs}"
    chart = curves.scatter_chart(
        predictor.scores.mean(0).tolist(),
        accuracies.tolist(),
        top.tolist(),
        title=predictor.name,
        x_label=f"score: validation accuracy (%){runs}",
        y_label="test accuracy, trained (%)",
        label="lower half",
        marked_label="upper half by trained accuracy",
        percent=True,
    )
    description = f"accuracy after training by score: {predictor.name}"
    return _render.chart(chart, description)
