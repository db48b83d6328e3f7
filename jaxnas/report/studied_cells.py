"""Measures of the cells of a study, from their trainings and surfaces."""

import math
import statistics
import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnas import analysis
from jaxnas.report import _words
from jaxnas.studies import StudiedCell, cell_numbers

Quantities = Mapping[str, tuple[str, str]]
"""Titles of measures in a report, with unit and format, by name."""

OF_TRAININGS: Quantities = {
    "mean_test_loss": ("mean test loss over epochs (nats)", ".4f"),
    "final_test_loss": ("final test loss (nats)", ".4f"),
    "final_test_accuracy": ("final test accuracy", ".2%"),
}
OF_LOSS_SURFACES: Quantities = {
    "basin_share": ("plane within 1 nat of the center", ".1%"),
    "loss_at_center": ("loss at the center (nats)", ".4f"),
    "median_loss": ("median loss of the plane (nats)", ".4g"),
}
OF_VARIANCE_SURFACES: Quantities = {
    "gradient_deviation_at_center": (
        "deviation of the gradient at the center",
        ".4g",
    ),
    "median_gradient_deviation": (
        "median deviation over the plane",
        ".4g",
    ),
}


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
    return _words.spread_text(numbers[name], spec)
