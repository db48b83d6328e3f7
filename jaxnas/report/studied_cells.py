"""What a study of cells compares: trainings and surfaces, and numbers of them."""

import math
import statistics
import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnas import analysis, genotypes
from jaxnas.analysis import convergence
from jaxnas.report import comparison, html

Quantities = Mapping[str, tuple[str, str]]
"""What numbers are called in a report, with their unit, and their format, by name."""

OF_TRAININGS: Quantities = {
    "mean_test_loss": ("mean test loss over epochs (nats)", ".4f"),
    "final_test_loss": ("final test loss (nats)", ".4f"),
    "final_test_accuracy": ("final test accuracy", ".2%"),
}
OF_LOSS_SURFACES: Quantities = {
    "basin_share": ("plane within 1 nat of the centre", ".1%"),
    "loss_at_center": ("loss at the centre (nats)", ".4f"),
    "median_loss": ("median loss of the plane (nats)", ".4g"),
}
OF_VARIANCE_SURFACES: Quantities = {
    "gradient_deviation_at_center": (
        "deviation of the gradient at the centre",
        ".4g",
    ),
    "median_gradient_deviation": (
        "median deviation over the plane",
        ".4g",
    ),
}


class Training(NamedTuple):
    """One training of a cell from scratch.

    Attributes:
      learning_rate: the one it begins with.
      seed: of weights and order of images.
      history: lines of its metrics log, with `epoch`, `test/loss` and `test/accuracy`.
      diverged: whether it ended early, since its loss was not finite.
    """

    learning_rate: float
    seed: int
    history: html.History
    diverged: bool = False


class StudiedCell(NamedTuple):
    """A cell, and what was measured of networks made of it.

    Attributes:
      name: how the report calls it.
      genotype: its connections and operations.
      num_params: number of trainable parameters.
      trainings: at any learning rates, with any seeds.
      loss_surfaces: with values `loss`, one for each seed that was measured.
      variance_surfaces: with values `gradient_variance`, likewise.
    """

    name: str
    genotype: genotypes.Genotype
    num_params: int
    trainings: Sequence[Training] = ()
    loss_surfaces: Sequence[analysis.Surface] = ()
    variance_surfaces: Sequence[analysis.Surface] = ()


def cell_numbers(cell: StudiedCell) -> dict[str, list[float]]:
    """Measure what a study compares, one value for each seed.

    Args:
      cell: the cell, with what was measured of it.

    Returns:
      For every learning rate R of its trainings `learning_rate_R/mean_test_loss`,
      `.../final_test_loss` and `.../final_test_accuracy`, of the trainings that did
      not diverge, and `.../diverged`, 0 or 1 for every one. For its surfaces
      `basin_share` (within 1 nat, NaN if the centre's loss is not finite),
      `loss_at_center` and `median_loss`; `gradient_deviation_at_center` and
      `median_gradient_deviation`, square roots of variances. In medians, values that
      are not finite count as highest.

    Raises:
      ValueError: if a training that did not diverge lacks a metric, or a surface its
        values or a point at (0, 0), or has negative values.
    """
    numbers: dict[str, list[float]] = {}
    for rate in rates([cell]):
        trainings = [t for t in cell.trainings if t.learning_rate == rate]
        done = [t.history for t in trainings if not t.diverged]
        found = {
            "mean_test_loss": [convergence.mean_over_epochs(lines) for lines in done],
            "final_test_loss": [_final(lines, "test/loss") for lines in done],
            "final_test_accuracy": [_final(lines, "test/accuracy") for lines in done],
            "diverged": [float(training.diverged) for training in trainings],
        }
        numbers |= {of_rate(rate, name): values for name, values in found.items()}
    for surface in cell.loss_surfaces:
        _check_surface(cell, surface, "loss")
        center = surface.at_center("loss")
        share = analysis.basin_share(surface) if math.isfinite(center) else math.nan
        numbers.setdefault("basin_share", []).append(share)
        numbers.setdefault("loss_at_center", []).append(center)
        numbers.setdefault("median_loss", []).append(_median(surface.values["loss"]))
    for surface in cell.variance_surfaces:
        _check_surface(cell, surface, "gradient_variance")
        center = math.sqrt(surface.at_center("gradient_variance"))
        median = _median(surface.values["gradient_variance"])
        numbers.setdefault("gradient_deviation_at_center", []).append(center)
        numbers.setdefault("median_gradient_deviation", []).append(math.sqrt(median))
    return numbers


class Study(NamedTuple):
    """Cells in the order of the paper, and what is known of each.

    Attributes:
      cells: by the width of the normal cell, ascending, then by depth, descending.
      original: place of the original.
      letters: what the cells are called for short.
      titles: their letters and names.
      widths: of the normal cells, in units of c.
      depths: likewise.
      numbers: what `cell_numbers` says of each.
    """

    cells: list[StudiedCell]
    original: int
    letters: list[str]
    titles: list[str]
    widths: list[float]
    depths: list[int]
    numbers: list[dict[str, list[float]]]


def in_paper_order(cells: Sequence[StudiedCell]) -> Study:
    """Sort and measure cells, of which the first is the original.

    Raises:
      ValueError: if there is no cell, two have the same name, or one cannot be
        measured by `cell_numbers`.
    """
    if not cells:
        raise ValueError("there are 0 cells; expected the original at least")
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{names.count(name)} cells are called {name!r}; expected a name of "
                "its own for each"
            )

    def place(cell: StudiedCell) -> tuple[float, int]:
        width = analysis.cell_width(cell.genotype, "normal")
        return width, -analysis.cell_depth(cell.genotype, "normal")

    ordered = sorted(cells, key=place)
    letters = [
        string.ascii_lowercase[i % 26] * (1 + i // 26) for i in range(len(ordered))
    ]
    return Study(
        ordered,
        [cell.name for cell in ordered].index(names[0]),
        letters,
        [f"({a}) {cell.name}" for a, cell in zip(letters, ordered, strict=True)],
        [place(cell)[0] for cell in ordered],
        [-place(cell)[1] for cell in ordered],
        [cell_numbers(cell) for cell in ordered],
    )


def rates(cells: Sequence[StudiedCell]) -> list[float]:
    """The learning rates of all trainings, ascending."""
    return sorted({t.learning_rate for cell in cells for t in cell.trainings})


def of_rate(rate: float, name: str) -> str:
    """Name a number of the trainings at a learning rate as `cell_numbers` does."""
    return f"learning_rate_{rate:g}/{name}"


def _check_surface(cell: StudiedCell, surface: analysis.Surface, name: str) -> None:
    if name not in surface.values:
        raise ValueError(
            f"a surface of {cell.name} has {', '.join(surface.values) or 'no values'}; "
            f"expected {name!r}"
        )
    if np.any(surface.values[name] < 0):
        raise ValueError(
            f"a surface of {cell.name} has {name!r} down to "
            f"{np.nanmin(surface.values[name]):g}; expected 0 or more"
        )


def _median(values: np.ndarray) -> float:
    return float(np.median(np.where(np.isfinite(values), values, np.inf)))


def _final(history: html.History, metric: str) -> float:
    """Return the value of the last line that has a metric."""
    found = [float(entry[metric]) for entry in history if metric in entry]
    if not found:
        raise ValueError(
            f"the history has {len(history)} entries, none with {metric!r}; expected "
            "at least one"
        )
    return found[-1]


def finite_mean(numbers: Mapping[str, list[float]], name: str) -> float | None:
    """The mean over seeds; `None` without a value, or if one is not finite."""
    values = numbers.get(name, [])
    if not values or not all(map(math.isfinite, values)):
        return None
    return statistics.fmean(values)


def spread_text(numbers: Mapping[str, list[float]], name: str, spec: str) -> str | None:
    """Mean and standard deviation over seeds as text, `None` without a value."""
    if not numbers.get(name):
        return None
    if finite_mean(numbers, name) is None:
        return "not finite"
    mean, deviation = comparison.spread(numbers[name])
    text = format(mean, spec)
    return text if deviation is None else f"{text} ± {format(deviation, spec)}"
