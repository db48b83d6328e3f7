"""Charts of a study of cells: where they stand among all, and how they learn."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import patches
from matplotlib.figure import Figure

from jaxnas import analysis
from jaxnas.analysis import convergence
from jaxnas.report import _render, curves, studied_cells
from jaxnas.studies import StudiedCell

_VARIANT_COLORS = (curves.ORANGE, curves.GREEN, curves.PINK)  # one panel's, at most


@curves.style()
def space_chart(study: studied_cells.Study, num_nodes: int) -> Figure:
    """Draw the widths and depths of all cells of as many nodes, each as a tile.

    Args:
      study: the cells to mark, by their letters.
      num_nodes: intermediate nodes of a cell; cells with others are not marked.

    Returns:
      The figure; tiles are darker, and have a higher share, where more cells are.
    """
    counts = analysis.count_topologies(num_nodes)
    total, most = sum(counts.values()), max(counts.values())
    size = (60 + 62 * num_nodes) / 72, (60 + 34 * num_nodes) / 72
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for (width, depth), count in counts.items():
        tile = patches.Rectangle(
            (width - 0.24, depth - 0.47),
            0.48,
            0.94,
            color=curves.BLUE,
            alpha=0.08 + 0.6 * count / most,
            linewidth=0,
        )
        axes.add_patch(tile)
        share = f"{count / total:.2%}"
        axes.text(width, depth - 0.2, share, ha="center", va="center", fontsize=7)
    letters: dict[tuple[float, int], list[str]] = {}
    for i, letter in enumerate(study.letters):
        if len(study.cells[i].genotype.normal) == 2 * num_nodes:
            place = study.widths[i], study.depths[i]
            letters.setdefault(place, []).append(letter)
    for (width, depth), found in letters.items():
        text = " ".join(found)
        axes.text(width, depth + 0.18, text, ha="center", va="center", weight="bold")
    axes.set(
        title="Connections of a cell",
        xlabel="width (c)",
        ylabel="depth",
        xlim=(0.7, num_nodes + 0.3),
        ylim=(1.5, num_nodes + 1.5),
        yticks=range(2, num_nodes + 2),
    )
    axes.grid(False)
    return figure


def learning_curves(
    study: studied_cells.Study, trained: Sequence[int], rate: float, metric: str
) -> list[_render.Figure]:
    """Draw a metric by epoch in panels with the original and up to three variants.

    Args:
      study: the cells.
      trained: places of those that have trainings at the learning rate.
      rate: the learning rate.
      metric: `"test/loss"` or `"test/accuracy"`.

    Returns:
      The panels, all with the same scale; none if there is nothing finite to draw.
    """
    variants = [i for i in trained if i != study.original]
    num_panels = max(1, math.ceil(len(variants) / len(_VARIANT_COLORS)))
    panels = []
    for members in np.array_split(variants, num_panels):
        shown = [*(i for i in trained if i == study.original), *members.tolist()]
        bands = []
        for i in shown:
            others = [j for j in shown if j != study.original]
            is_original = i == study.original
            color = curves.BLUE if is_original else _VARIANT_COLORS[others.index(i)]
            bands += _bands(study.cells[i], rate, metric, color)
        panels.append(bands)
    is_loss = metric == "test/loss"
    name = f"Test {metric.removeprefix('test/')}"
    limits = _y_limits([band for bands in panels for band in bands], is_loss)
    figures = []
    for bands in filter(None, panels):
        chart = curves.line_chart(
            bands,
            title=f"{name}, learning rate {rate:g}",
            x_label="epoch",
            y_label="loss (nats)" if is_loss else "accuracy (%)",
            height=240,
            y_limits=limits,
            percent=not is_loss,
            legend_below=True,
        )
        labels = ", ".join(band.label for band in bands if band.label)
        description = f"{name} by epoch at learning rate {rate:g}: {labels}"
        figures.append(_render.chart(chart, description))
    return figures


def _bands(
    cell: StudiedCell, rate: float, metric: str, color: str
) -> list[curves.Series]:
    """Make a band of the trainings that did not diverge, and a line of each other."""
    trainings = [t for t in cell.trainings if t.learning_rate == rate]
    done = [t.history for t in trainings if not t.diverged]
    bands = []
    if done:
        found = convergence.band(done, metric)
        bands.append(_band(cell.name, color, found))
    for training in trainings:
        if training.diverged and any(metric in entry for entry in training.history):
            found = convergence.band([training.history], metric)
            is_first = not any(band.dashed for band in bands)
            label = f"{cell.name}: diverged" if is_first else ""
            bands.append(_band(label, color, found, dashed=True))
    return [band for band in bands if len(band.x)]


def _band(
    label: str, color: str, found: convergence.Band, *, dashed: bool = False
) -> curves.Series:
    x, y, low, high = (array.tolist() for array in found)
    return curves.Series(label, color, x, y, low=low, high=high, dashed=dashed)


def _y_limits(
    bands: Sequence[curves.Series], is_loss: bool
) -> tuple[float, float] | None:
    """Choose the common range of panels; losses may begin, and diverge, above it."""
    steady = [band for band in bands if not band.dashed] or bands
    if not steady:
        return None
    start = max(band.x[-1] for band in steady) / 10 if is_loss else 0
    low = min(min(band.low or band.y) for band in steady)
    high = max(
        high
        for band in steady
        for epoch, high in zip(band.x, band.high or band.y, strict=True)
        if epoch >= start
    )
    margin = 0.04 * (high - low) or 0.01
    return max(0.0, low - margin), high + margin
