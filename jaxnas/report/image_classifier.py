"""Report on networks that classify images: what they do, cost, and how they compare."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from jaxnas import genotypes
from jaxnas.analysis import convergence
from jaxnas.report import _history, _render, curves
from jaxnas.report._words import number_of
from jaxnas.report.classifier import classifier_parts
from jaxnas.report.drawing import genotype_svg
from jaxnas.studies import ImageClassifierStudy, TrainedClassifier

_NAMES = {
    "found": "network of the found cells",
    "random": "network of random cells",
    "residual": "plain residual network",
}
_COLORS = {"found": curves.BLUE, "random": curves.ORANGE, "residual": curves.GREEN}


def image_classifier_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    data_text: Sequence[str],
    study: ImageClassifierStudy,
    search_history: convergence.History,
    histories: Mapping[str, convergence.History],
    uniform_level: float,
) -> None:
    """Write the report of a study of `studies.image_classifier`.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data, device, seed, versions, command.
      config: the resolved configuration; may be nested.
      data_text: lines about the images, and why settings were chosen.
      study: the result.
      search_history: lines of the search's metrics log.
      histories: those of the first training of each network, by its name.
      uniform_level: `theta_max_mean` of the uniform distribution, a fraction.

    Raises:
      ValueError: if a history is malformed.
    """
    by_name = {trained.name: trained for trained in study.trained}
    _render.write(
        path,
        "image_classifier.html",
        title=title,
        lead=image_classifier_text(study),
        summary=summary,
        config=config,
        data_text=data_text,
        networks=_network_table(study.trained),
        differences=_difference_table(study),
        num_seeds=number_of(len(study.trained[0].results), "seed"),
        plans=[
            f"Search: {_plan_text(study.search_plan)}.",
            f"Trainings: {_plan_text(study.training_plan)}.",
        ],
        classifier=classifier_parts(by_name["found"].results[0]),
        training_figures=[
            figure
            for metric, unit in (("loss", "nats"), ("accuracy", "%"))
            for figure in _training_curves(histories, metric, unit)
        ],
        drawing=_render.figure(
            genotype_svg(study.search.found.genotype, title="Found cells")
        ),
        text=genotypes.to_text(study.search.found.genotype),
        search_figures=[
            *_history.split_curves(
                search_history, "loss", title="Loss", y_label="loss (nats)"
            ),
            *_history.convergence_curves(search_history, uniform_level),
        ],
    )


def image_classifier_text(study: ImageClassifierStudy) -> str:
    """The accuracies, and whether the search was worth it."""
    sentences = [
        f"{_NAMES[trained.name].capitalize()}: {_accuracy_text(trained)}."
        for trained in study.trained
    ]
    verdicts = {}
    for name, (value, low, high) in study.differences.items():
        verdicts[name] = (low > 0) - (high < 0)
        sentences.append(
            f"Found minus {name}: {100 * value:+.1f} points [{100 * low:+.1f}, "
            f"{100 * high:+.1f}] (95 %, other test images of the same kind)."
        )
    return " ".join([*sentences, _worth(verdicts)])


def _worth(verdicts: Mapping[str, int]) -> str:
    """What the comparisons say of the search, by whether intervals exclude 0."""
    if all(verdict > 0 for verdict in verdicts.values()):
        return "On these images the search was worth it."
    if verdicts["residual"] < 0:
        return (
            "On these images the plain residual network is better: the search was not "
            "worth it."
        )
    if verdicts["random"] < 0:
        return "On these images random cells are better: the search was not worth it."
    return (
        "That the search was worth it does not show on these test images: use the "
        "network that is cheapest for you."
    )


def _accuracy_text(trained: TrainedClassifier) -> str:
    of_seeds = [result.metrics.accuracy for result in trained.results]
    first = f"[{of_seeds[0].low:.2%}, {of_seeds[0].high:.2%}]"
    if len(of_seeds) == 1:
        return f"test accuracy {of_seeds[0].value:.2%} {first}"
    each = ", ".join(f"{accuracy.value:.2%}" for accuracy in of_seeds)
    return f"test accuracies {each} (the first one {first})"


def _plan_text(plan: Any) -> str:
    text = (
        f"{plan.size.channels} channels, {plan.size.num_cells} cells, "
        f"{number_of(plan.num_epochs, 'epoch')}"
    )
    if plan.seconds is None:
        return text
    return f"{text}; {plan.seconds / 60:.1f} minutes were expected of it"


def _network_table(trained: Sequence[TrainedClassifier]) -> _render.Table:
    sizes = [speed.batch_size for speed in trained[0].speeds]
    columns = {
        "network": "",
        "test accuracy": ".2%",
        "from": ".2%",
        "to (95 %)": ".2%",
        "channels": "d",
        "parameters (M)": ",.3f",
        "FLOPs of an image (M)": ",.1f",
        **{f"ms, batch of {size}": ",.2f" for size in sizes},
        "peak memory (MB)": ",.1f",
        "training (minutes)": ",.1f",
    }
    rows = []
    for one in trained:
        peaks = [s.peak_bytes for s in one.speeds if s.peak_bytes is not None]
        rows.append(
            (
                _NAMES[one.name],
                *one.results[0].metrics.accuracy,
                vars(one.network)["channels"],
                one.num_params / 1e6,
                one.flops / 1e6,
                *(speed.milliseconds for speed in one.speeds),
                max(peaks) / 1e6 if peaks else None,
                None if one.seconds is None else one.seconds / 60,
            )
        )
    return _render.Table(columns, rows, marked_row=0)


def _difference_table(study: ImageClassifierStudy) -> _render.Table:
    columns = {"found minus": "", "points": "+.2f", "from": "+.2f", "to (95 %)": "+.2f"}
    rows = [
        (_NAMES[name], *(100 * number for number in difference))
        for name, difference in study.differences.items()
    ]
    return _render.Table(columns, rows)


def _training_curves(
    histories: Mapping[str, convergence.History], metric: str, unit: str
) -> list[_render.Figure]:
    """A metric of the test images by epoch, a curve for each network."""
    series = [
        curves.series(
            history, f"test/{metric}", label=_NAMES[name], color=_COLORS[name]
        )
        for name, history in histories.items()
    ]
    title = f"Test {metric}"
    chart = curves.line_chart(
        series,
        title=title,
        x_label="epoch",
        y_label=f"{metric} ({unit})",
        percent=unit == "%",
    )
    return [_render.chart(chart, f"{title} of each network by epoch")]
