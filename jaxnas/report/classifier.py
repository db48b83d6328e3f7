"""What a trained classifier does right and wrong, as parts of a report."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxnas._checks import shorten
from jaxnas.report import _render, curves
from jaxnas.studies import ClassifierResults

_MAX_CLASSES = 20  # of a picture of all confusions, and of a table without more
_NUM_PAIRS = 20
_IMAGES_PER_ROW = 6


def classifier_text(results: ClassifierResults, *, num_worst: int = 3) -> str:
    """Accuracy and worst classes in a sentence each.

    Args:
      results: of `studies.classifier_results`.
      num_worst: classes to name, at most.
    """
    metrics = results.metrics
    value, low, high = metrics.accuracy
    worst = [
        f"{shorten(results.class_names[label], 40)} "
        f"{metrics.class_accuracies[label].value:.1%} of {metrics.counts[label]:,}"
        for label in metrics.worst_classes()[:num_worst]
    ]
    return (
        f"accuracy {value:.2%} [{low:.2%}, {high:.2%}] (95 %) on "
        f"{metrics.counts.sum():,} images; lowest by class: {', '.join(worst)}"
    )


def classifier_parts(results: ClassifierResults) -> dict[str, Any]:
    """Tables and pictures of a classifier, for `parts.classifier` of the templates.

    Args:
      results: of `studies.classifier_results`.
    """
    metrics = results.metrics
    names, num_classes = results.class_names, len(results.class_names)
    rows = _class_rows(results)
    pairs = metrics.most_confused(_NUM_PAIRS)
    has_picture = num_classes <= _MAX_CLASSES
    return {
        "text": classifier_text(results),
        "calibration": f"{metrics.calibration_error:.2%}",
        "classes": _class_table(rows[:_MAX_CLASSES]),
        "num_classes": num_classes,
        "others": _class_table(rows[_MAX_CLASSES:]) if not has_picture else None,
        "confusion": _render.chart(
            _confusion_picture(metrics.confusion, names),
            "Confusion matrix: how many images of each class were taken for which",
            "Rows: the class. Columns: the answer. Color: share of the row.",
        )
        if has_picture
        else None,
        "pairs": _render.Table(
            {"class": "", "taken for": "", "images": ",d", "of the class": ".1%"},
            [
                (names[i], names[j], count, count / metrics.counts[i])
                for i, j, count in pairs
            ],
        )
        if pairs and not has_picture
        else None,
        "wrong": _render.chart(
            _wrong_picture(results),
            "Wrong test images: class, answer and its probability",
            "Below each image: its class, the answer and the probability of that.",
        )
        if metrics.most_wrong
        else None,
    }


def _class_rows(results: ClassifierResults) -> list[tuple[object, ...]]:
    """Classes, the worst first, those without images last."""
    metrics = results.metrics
    empty = [i for i in range(len(results.class_names)) if not metrics.counts[i]]
    rows: list[tuple[object, ...]] = []
    for i in [*metrics.worst_classes(), *empty]:
        accuracy = metrics.class_accuracies[i] if metrics.counts[i] else (None,) * 3
        counts = int(metrics.counts[i]), int(metrics.confusion[i, i])
        rows.append((results.class_names[i], *counts, *accuracy))
    return rows


def _class_table(rows: list[tuple[object, ...]]) -> _render.Table:
    columns = {"class": "", "test images": ",d", "right": ",d", "accuracy": ".1%"}
    return _render.Table({**columns, "from": ".1%", "to (95 %)": ".1%"}, rows)


@curves.style()
def _confusion_picture(confusion: np.ndarray, names: tuple[str, ...]) -> Figure:
    num = len(names)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = max(24.0, 240 / num)  # points
    figure = Figure(
        figsize=((num * side + 150) / 72, (num * side + 110) / 72), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.set(xlim=(0, num), ylim=(num, 0), aspect="equal")
    for i, j in np.argwhere(confusion):
        color = curves.BLUE if i == j else curves.ORANGE
        # Faint at least, for one image among thousands is an error, too.
        alpha = 0.1 + 0.6 * shares[i, j]
        axes.fill_between([j, j + 1], i, i + 1, color=color, alpha=alpha, linewidth=0)
        count = f"{confusion[i, j]:,}"
        size = min(9.0, 1.5 * side / len(count))
        axes.text(j + 0.5, i + 0.5, count, ha="center", va="center", fontsize=size)
    labels = [shorten(name, 20) for name in names]
    places = np.arange(num) + 0.5
    fits = max(map(len, labels)) * 6 < side  # points
    axes.set_xticks(places, labels, rotation=0 if fits else 90)
    axes.set_yticks(places, labels)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(title="Confusions", xlabel="answer", ylabel="class")
    return figure


@curves.style()
def _wrong_picture(results: ClassifierResults) -> Figure:
    wrong, names = results.metrics.most_wrong, results.class_names
    num_rows = -(-len(wrong) // _IMAGES_PER_ROW)
    height, width = results.wrong_images.shape[1:3]
    image_height = min(2.0, height / width) * 86  # points
    figure = Figure(
        figsize=(100 * _IMAGES_PER_ROW / 72, num_rows * (image_height + 42) / 72),
        layout="constrained",
    )
    axes = figure.subplots(num_rows, _IMAGES_PER_ROW, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, image, answer in zip(axes, results.wrong_images, wrong, strict=False):
        place.set_axis_on()
        colors = np.broadcast_to(image, (height, width, 3))
        place.imshow(colors, interpolation="nearest")
        place.grid(False)
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
        place.set_xlabel(
            f"{shorten(names[answer.label], 18)}\n"
            f"as {shorten(names[answer.predicted], 16)}\n{answer.probability:.1%}",
            fontsize=8,
        )
    return figure
