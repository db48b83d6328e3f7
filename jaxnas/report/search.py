"""Reports on a search for an architecture and on the training of one."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxnas import analysis, genotypes
from jaxnas.analysis import convergence
from jaxnas.report import _history, _render, curves
from jaxnas.report._words import not_compared, number_of, spread_text, verdict
from jaxnas.report.classifier import classifier_parts
from jaxnas.studies import Candidate, ClassifierResults, ScratchComparison


def search_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: convergence.History,
    drawing: str,
    found: Candidate,
    top: Sequence[Candidate],
    random: Sequence[Candidate],
    uniform_level: float,
    scratch: ScratchComparison | None = None,
    sampled_accuracies: Sequence[float] = (),
    ranked_by: str = "loss",
    loss_unit: str = "nats",
) -> None:
    """Write the report of an architecture search.

    The history may hold, for each `epoch`, the `loss` and `accuracy` of `train/`,
    `validation/` and `test/`, `theta_max_mean`, the mean over the decisions of the
    largest probability, and `reward`, `baseline` and `entropy` (nats) of a controller.
    What no entry has is left out.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data set and its source, device, seed,
        versions, command.
      config: the resolved configuration; may be nested.
      history: lines of the metrics log, one per epoch.
      drawing: the found architecture as an `<svg>` element.
      found: the architecture the search returns.
      top: the best architectures, best first.
      random: random architectures evaluated with the same weights as `found`.
      uniform_level: `theta_max_mean` of the uniform distribution, a fraction.
      scratch: the found and random architectures after training from scratch.
      sampled_accuracies: of architectures that the searcher samples in the end, on
        the images that `found` and `random` were evaluated on.
      ranked_by: what `top` is sorted by.
      loss_unit: unit of the losses.

    Raises:
      ValueError: if the history or the drawing is malformed.
    """
    figures = [
        *_loss_and_accuracy(history, loss_unit),
        *_history.convergence_curves(history, uniform_level),
        *_history.controller_curves(history),
    ]
    _render.write(
        path,
        "search.html",
        title=title,
        lead=f"{scratch_text(scratch)} It has {found.num_params / 1e6:,.3f} M "
        f"parameters and {found.flops / 1e6:,.1f} M FLOPs.",
        summary=summary,
        config=config,
        scratch=scratch and _scratch(found, scratch),
        drawing=_render.figure(drawing),
        text=genotypes.to_text(found.genotype),
        figures=figures,
        ranked_by=ranked_by,
        ranking=_candidate_table(top, loss_unit, ranks=True) if top else None,
        comparison=(
            _comparison(found, random, sampled_accuracies, loss_unit)
            if random
            else None
        ),
    )


def train_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: convergence.History,
    drawing: str,
    loss_unit: str = "nats",
    classifier: ClassifierResults | None = None,
) -> None:
    """Write the report of one architecture trained from scratch.

    The history may hold, for each `epoch`, the `loss` and `accuracy` of `train/`,
    `validation/` and `test/`, and `learning_rate`. What no entry has is left out.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data set and its source, device, seed,
        versions, command.
      config: the resolved configuration; may be nested.
      history: lines of the metrics log, one per epoch.
      drawing: the architecture as an `<svg>` element.
      loss_unit: unit of the losses.
      classifier: what it does with the test images: classes, confusions and the most
        wrong images are then shown.

    Raises:
      ValueError: if the history or the drawing is malformed.
    """
    columns = {
        "split": "",
        f"loss ({loss_unit})": ".4f",
        "accuracy": ".2%",
        "best accuracy": ".2%",
        "in epoch": ".0f",
    }
    results = _results(history)
    _render.write(
        path,
        "train.html",
        title=title,
        lead="",
        summary=summary,
        config=config,
        results=_render.Table(columns, results) if results else None,
        classifier=classifier and classifier_parts(classifier),
        figures=[
            *_loss_and_accuracy(history, loss_unit),
            *_history.metric_curves(
                history,
                {"learning_rate": ("learning rate", curves.BLUE)},
                title="Learning rate",
                y_label="learning rate",
            ),
        ],
        drawing=_render.figure(drawing),
    )


def scratch_text(scratch: ScratchComparison | None) -> str:
    """The result of a search in one sentence."""
    if scratch is None:
        return not_compared("architecture")
    means = [statistics.fmean(accuracies) for accuracies in scratch.random]
    value, low, high = (100 * x for x in scratch.difference)
    return (
        f"Trained from scratch for {scratch.num_epochs} epochs "
        f"({number_of(len(scratch.found), 'seed')}), test accuracy: found "
        f"{spread_text(scratch.found, '.2%')}, {len(means)} random architectures "
        f"{spread_text(means, '.2%')}; difference {value:+.2f} points [{low:+.2f}, "
        f"{high:+.2f}] (95 %): {verdict(low, high)}."
    )


def _scratch(found: Candidate, scratch: ScratchComparison) -> dict[str, Any]:
    """Show the found architecture among random ones, all trained from scratch."""
    means = [statistics.fmean(accuracies) for accuracies in scratch.random]
    chart = curves.strip_chart(
        means,
        statistics.fmean(scratch.found),
        title="Test accuracy after training from scratch",
        x_label="accuracy (%), mean over seeds",
        label="random",
        marked_label=found.name,
        percent=True,
    )
    named = {f"random {i}": values for i, values in enumerate(scratch.random, start=1)}
    rows = [
        (name, statistics.fmean(values), *values)
        for name, values in {found.name: scratch.found, **named}.items()
    ]
    rows.sort(key=lambda row: -row[1])
    seeds = {f"seed {seed}": ".2%" for seed in range(len(scratch.found))}
    return {
        "text": scratch_text(scratch),
        "figure": _render.chart(chart, "accuracies after training from scratch"),
        "table": _render.Table(
            {"architecture": "", "mean": ".2%", **seeds},
            rows,
            marked_row=[row[0] for row in rows].index(found.name),
        ),
    }


def _loss_and_accuracy(
    history: convergence.History, loss_unit: str
) -> list[_render.Figure]:
    """Draw loss and accuracy of every split."""
    unit = f"loss ({loss_unit})"
    accuracy = {"title": "Accuracy", "y_label": "accuracy (%)", "percent": True}
    return [
        *_history.split_curves(history, "loss", title="Loss", y_label=unit),
        *_history.split_curves(history, "accuracy", **accuracy),
    ]


def _candidate_table(
    candidates: Sequence[Candidate],
    loss_unit: str,
    *,
    ranks: bool = False,
    marked_row: int | None = None,
) -> _render.Table:
    """Show one candidate per row; cells with width and depth of the normal one."""
    has_cells = any(isinstance(c.genotype, genotypes.Genotype) for c in candidates)
    were_trained = any(c.trained_accuracy is not None for c in candidates)
    columns = {
        **({"rank": "d"} if ranks else {}),
        "architecture": "",
        f"loss ({loss_unit})": ".4f",
        "accuracy": ".2%",
        **({"accuracy, trained": ".2%"} if were_trained else {}),
        "parameters (M)": ",.3f",
        "FLOPs (M)": ",.1f",
        **({"width (c)": ".1f", "depth": "d"} if has_cells else {}),
        "genotype": "",
    }
    rows = [
        (
            *((rank,) if ranks else ()),
            candidate.name,
            candidate.loss,
            candidate.accuracy,
            *((candidate.trained_accuracy,) if were_trained else ()),
            candidate.num_params / 1e6,
            candidate.flops / 1e6,
            *(_topology(candidate.genotype) if has_cells else ()),
            _render.hidden(genotypes.to_text(candidate.genotype)),
        )
        for rank, candidate in enumerate(candidates, start=1)
    ]
    return _render.Table(columns, rows, marked_row=marked_row)


def _topology(genotype: genotypes.AnyGenotype) -> tuple[float | None, int | None]:
    """Return width and depth of the normal cell."""
    if not isinstance(genotype, genotypes.Genotype):
        return None, None
    width = analysis.cell_width(genotype, "normal")
    return width, analysis.cell_depth(genotype, "normal")


def _comparison(
    found: Candidate,
    random: Sequence[Candidate],
    sampled_accuracies: Sequence[float],
    loss_unit: str,
) -> dict[str, Any]:
    """Show the found architecture among random ones with the search's weights."""

    def is_finite(candidate: Candidate) -> bool:
        return math.isfinite(candidate.loss) and math.isfinite(candidate.accuracy)

    finite = list(filter(is_finite, random))
    sentences = []
    if finite:
        losses = [candidate.loss for candidate in finite]
        accuracies = [candidate.accuracy for candidate in finite]
        measure = " (mean ± standard deviation)" if len(finite) > 1 else ""
        sentences.append(
            f"The random ones have loss {spread_text(losses, '.4f')} {loss_unit} and "
            f"accuracy {spread_text(accuracies, '.2%')}{measure}; it has loss "
            f"{found.loss:.4f} {loss_unit} and accuracy {found.accuracy:.2%}."
        )
    if sampled_accuracies:
        sentences.append(
            f"{len(sampled_accuracies)} architectures that the searcher samples have "
            f"accuracy {spread_text(sampled_accuracies, '.2%')}."
        )
    if len(finite) < len(random):
        sentences.append(f"Left out, not finite: {len(random) - len(finite)}.")
    figures = []
    if finite and is_finite(found):
        for name, unit in (("loss", loss_unit), ("accuracy", "%")):
            chart = curves.strip_chart(
                [getattr(candidate, name) for candidate in finite],
                getattr(found, name),
                title=f"Test {name}",
                x_label=f"{name} ({unit})",
                label="random",
                marked_label=found.name,
                percent=unit == "%",
            )
            description = f"{name} of {found.name} among random architectures"
            figures.append(_render.chart(chart, description))
    # A diverged candidate goes last, wherever sorting would leave its NaN.
    ordered = sorted(
        (found, *random),
        key=lambda candidate: (not math.isfinite(candidate.loss), candidate.loss),
    )
    return {
        "text": " ".join(sentences),
        "figures": figures,
        "table": _candidate_table(ordered, loss_unit, marked_row=ordered.index(found)),
    }


def _results(history: convergence.History) -> list[tuple[object, ...]]:
    """Return one row per split: last loss and accuracy, best accuracy and epoch."""
    rows = []
    for split, color in _history.SPLITS.items():
        loss, accuracy = (
            _history.last_value(history, f"{split}/{metric}")
            for metric in ("loss", "accuracy")
        )
        if loss is None and accuracy is None:
            continue
        curve = curves.series(history, f"{split}/accuracy", label=split, color=color)
        best = max(curve.y, default=None)
        epoch = None if best is None else curve.x[curve.y.index(best)]
        rows.append((split, loss, accuracy, best, epoch))
    return rows
