"""Reports on what the connections of a cell do to its training (Shu et al. 2020)."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxnas import analysis, genotypes
from jaxnas.analysis import topology
from jaxnas.report import cell_charts, correlation, curves, drawing, html, surfaces
from jaxnas.report.studied_cells import (
    OF_LOSS_SURFACES,
    OF_TRAININGS,
    OF_VARIANCE_SURFACES,
    Quantities,
    Study,
    finite_mean,
    in_paper_order,
    spread_text,
)
from jaxnas.studies import StudiedCell, learning_rates, name_at_rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Narrower than those of other grids: three side by side.
_PANELS = "grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr))"
_SEEDS = "Of several seeds the panels show the first, the table all."
_MIN_CELLS = 4  # that `analysis.correlations` asks for


def cell_study_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    cells: Sequence[StudiedCell],
    num_resamples: int = 1000,
) -> None:
    """Write how cells that differ in their connections train, and what explains it.

    Cells stand in the order of the paper: by the width of the normal cell, ascending,
    then by its depth, descending. What was not measured has no section.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data, device, seeds, versions, command.
      config: the resolved configuration; may be nested.
      cells: the original first, then its variants; their names differ.
      num_resamples: resamples for the intervals of the correlations.

    Raises:
      ValueError: if there is no cell, two have the same name, or one cannot be
        measured by `cell_numbers`.

    Source: Shu et al. (2020), figures 1 to 7 and those of appendix B.
    """
    study = in_paper_order(cells)
    parts = [
        html.paragraph(_headline(study), css_class="lead"),
        html.pairs(summary),
        _topology(study),
    ]
    if any(cell.trainings for cell in cells):
        parts.append(_convergence(study))
    if any(cell.loss_surfaces for cell in cells):
        parts.append(_landscape(study))
    if any(cell.variance_surfaces for cell in cells):
        parts.append(_variance(study))
    if any(study.numbers):
        parts.append(_correlations(study, num_resamples))
    parts.append(html.section("Configuration", html.pairs(config)))
    html.write(path, html.page(title, *parts))


def _headline(study: Study) -> str:
    original = study.original
    num_others = len(study.cells) - 1
    text = (
        f"{study.cells[original].name}, whose normal cell has width "
        f"{study.widths[original]:g}c and depth {study.depths[original]}, and "
        f"{num_others} {'variant' if num_others == 1 else 'variants'} of it."
    )
    for rate in learning_rates(study.cells):
        means = [
            finite_mean(found, name_at_rate(rate, "mean_test_loss"))
            for found in study.numbers
        ]
        own = means[original]
        others = [
            mean for i, mean in enumerate(means) if i != original and mean is not None
        ]
        if own is not None and others:
            num_better = sum(mean < own for mean in others)
            text += (
                f" With learning rate {rate:g}, the mean test loss over the epochs is "
                f"lower than that of {study.cells[original].name} for {num_better} of "
                f"{len(others)}."
            )
    return text


def _topology(study: Study) -> html.Html:
    drawings = []
    rows = []
    for i, (cell, title) in enumerate(zip(study.cells, study.titles, strict=True)):
        width, depth = study.widths[i], study.depths[i]
        caption = html.escape(f"{title}, {width:g}c, {depth}")
        if i == study.original:
            caption = html.Html(f"<strong>{caption}, the original</strong>")
        svg = drawing.genotype_svg(cell.genotype, title=cell.name)
        drawings.append(html.figure(svg, caption=caption))
        rows.append((title, *_both_cells(cell.genotype), cell.num_params / 1e6))
    # A specification makes a column one of numbers, although these cells are text.
    columns = {
        "cell": "",
        "width (c)": ".1f",
        "live width (c)": ".1f",
        "depth": "d",
        "dead nodes": "d",
        "parameters (M)": ",.3f",
    }
    num_nodes = len(study.cells[study.original].genotype.normal) // 2
    total = sum(analysis.count_topologies(num_nodes).values())
    chart = curves.svg(
        cell_charts.space_chart(study, num_nodes),
        "shares of the widths and depths of all cells",
    )
    return html.section(
        "Topology",
        html.paragraph(
            "Below the drawings: width of the normal cell, the total of the nodes that "
            "read an input, in units of one node's channels c; and depth, the number "
            "of connections on the longest path. In the table: the same, the live "
            "width without dead nodes, and the dead nodes, which have no path to the "
            "output."
        ),
        _panels(drawings),
        html.table(
            columns,
            rows,
            caption="Normal cell / reduction cell",
            marked_row=study.original,
        ),
        html.figure(
            chart,
            caption=f"Shares of the {total:,} ways to connect {num_nodes} nodes, if "
            "each edge may read any earlier node and all lead to the output. Letters: "
            "the cells of this study.",
        ),
    )


def _both_cells(genotype: genotypes.Genotype) -> list[str]:
    """Return width, live width, depth and dead nodes of the normal and other cell."""

    def measures(cell: topology.Cell) -> tuple[str, ...]:
        live_width = analysis.cell_width(genotype, cell, live_only=True)
        return (
            f"{analysis.cell_width(genotype, cell):.1f}",
            f"{live_width:.1f}",
            str(analysis.cell_depth(genotype, cell)),
            ", ".join(map(str, analysis.dead_nodes(genotype, cell))) or "-",
        )

    return [
        " / ".join(pair)
        for pair in zip(measures("normal"), measures("reduce"), strict=True)
    ]


def _convergence(study: Study) -> html.Html:
    parts: list[html.Html] = []
    for rate in learning_rates(study.cells):
        names = {name: name_at_rate(rate, name) for name in (*OF_TRAININGS, "diverged")}
        trained = [
            i for i, found in enumerate(study.numbers) if names["diverged"] in found
        ]
        for metric in ("test/loss", "test/accuracy"):
            parts.append(
                html.grid(cell_charts.learning_curves(study, trained, rate, metric))
            )
        rows = []
        for i in trained:
            found = study.numbers[i]
            diverged = found[names["diverged"]]
            rows.append(
                (
                    study.titles[i],
                    *(
                        spread_text(found, names[name], spec)
                        for name, (_, spec) in OF_TRAININGS.items()
                    ),
                    f"{sum(diverged):.0f} of {len(diverged)}",
                )
            )
        is_original = [i == study.original for i in trained]
        parts.append(
            html.table(
                {"cell": "", **dict(OF_TRAININGS.values()), "diverged": "d"},
                rows,
                caption=f"Learning rate {rate:g}: mean ± standard deviation over the "
                "seeds that did not diverge",
                marked_row=is_original.index(True) if any(is_original) else None,
            )
        )
    return html.section(
        "Convergence",
        html.paragraph(
            "Lines are means over the seeds that did not diverge, bands reach one "
            "standard deviation to either side. Trainings that diverged are dashed "
            "lines of their own, as far as they go. Every panel shows the original. "
            "Panels of the same metric have the same scale, which cuts losses that are "
            "higher only in the first tenth of the epochs or on the way to divergence."
        ),
        *parts,
    )


def _landscape(study: Study) -> html.Html:
    shown = {
        i: c.loss_surfaces[0] for i, c in enumerate(study.cells) if c.loss_surfaces
    }
    high = _typically_high([s.values["loss"] for s in shown.values()])
    maps, reliefs = _maps_and_reliefs(
        study,
        shown,
        "loss",
        label="loss (nats)",
        limit=min(high, surfaces.LEVELS[-1]),
    )
    contours = []
    for i, surface in shown.items():
        chart = surfaces.contour_chart(surface, "loss", title=study.titles[i])
        contours.append(_panel(study, i, chart, "contours", surface, "loss"))
    return html.section(
        "Loss landscape",
        html.paragraph(
            "The loss on a plane through the trained weights, which are in its centre. "
            f"Contours are drawn from {surfaces.LEVELS[0]} to {surfaces.LEVELS[-1]} "
            f"nats in steps of {surfaces.LEVELS[1] - surfaces.LEVELS[0]:g}; heat maps "
            "and surfaces have one range for all cells, and what is above is cut. "
            f"{_SEEDS}"
        ),
        _panels(contours),
        html.details("As heat maps", _panels(maps)),
        html.details("As surfaces", _panels(reliefs)),
        _surface_table(study, shown, OF_LOSS_SURFACES),
    )


def _variance(study: Study) -> html.Html:
    shown = {
        i: c.variance_surfaces[0]
        for i, c in enumerate(study.cells)
        if c.variance_surfaces
    }
    value = "gradient_variance"
    maps, reliefs = _maps_and_reliefs(
        study,
        shown,
        value,
        label="standard deviation",
        limit=math.sqrt(_typically_high([s.values[value] for s in shown.values()])),
        square_root=True,
    )
    return html.section(
        "Gradient variance",
        html.paragraph(
            "The standard deviation of the gradient, all parameters taken as one "
            "vector, on a plane through the trained weights. All panels have the same "
            "range, up to the median over the cells of their upper quartiles; what is "
            f"above is cut. {_SEEDS}"
        ),
        _panels(maps),
        _panels(reliefs),
        _surface_table(study, shown, OF_VARIANCE_SURFACES),
    )


def _maps_and_reliefs(
    study: Study,
    shown: Mapping[int, analysis.Surface],
    value: str,
    *,
    label: str,
    limit: float,
    square_root: bool = False,
) -> tuple[list[html.Html], list[html.Html]]:
    """Draw heat maps and reliefs of a value, all from 0 to the same limit."""
    maps, reliefs = [], []
    for i, surface in shown.items():
        title = study.titles[i]
        chart = surfaces.heat_map(
            surface,
            value,
            title=title,
            label=label,
            vmin=0,
            vmax=limit,
            square_root=square_root,
        )
        maps.append(_panel(study, i, chart, "heat map", surface, value))
        chart = surfaces.relief_chart(
            surface,
            value,
            title=title,
            label=label,
            z_limits=(0, limit),
            square_root=square_root,
        )
        reliefs.append(_panel(study, i, chart, "relief", surface, value))
    return maps, reliefs


def _typically_high(values: Sequence[np.ndarray]) -> float:
    """The median over surfaces of the upper quartile, 1 if nothing is finite.

    Corners of a plane may be higher by orders of magnitude.
    """
    finite = [array[np.isfinite(array)] for array in values]
    quartiles = [float(np.quantile(array, 0.75)) for array in finite if array.size]
    return (statistics.median(quartiles) if quartiles else 0.0) or 1.0


def _panel(
    study: Study,
    i: int,
    chart: Figure,
    kind: str,
    surface: analysis.Surface,
    value: str,
) -> html.Html:
    name = value.replace("_", " ")
    caption = f"{study.widths[i]:g}c, {study.depths[i]}"
    if i == study.original:
        caption += ", the original"
    if num := surfaces.num_not_finite(surface, value):
        caption += f". Not finite: {num} of {surface.values[value].size} points"
    description = f"{kind} of the {name}: {study.titles[i]}"
    return html.figure(curves.svg(chart, description), caption=caption)


def _panels(figures: Sequence[str]) -> html.Html:
    """Set small figures side by side, three where the page is wide enough."""
    body = "".join(map(html.escape, figures))
    return html.Html(f'<div class="grid" style="{_PANELS}">{body}</div>')


def _surface_table(
    study: Study,
    shown: Mapping[int, analysis.Surface],
    quantities: Quantities,
) -> html.Html:
    rows = [
        (
            study.titles[i],
            *(
                spread_text(study.numbers[i], name, spec)
                for name, (_, spec) in quantities.items()
            ),
        )
        for i in shown
    ]
    marked = list(shown).index(study.original) if study.original in shown else None
    columns = {"cell": "", **dict(quantities.values())}
    caption = "Mean ± standard deviation over the seeds"
    return html.table(columns, rows, caption=caption, marked_row=marked)


def _correlations(study: Study, num_resamples: int) -> html.Html:
    labels = {
        name_at_rate(rate, name): f"{label}, learning rate {rate:g}"
        for rate in learning_rates(study.cells)
        for name, (label, _) in OF_TRAININGS.items()
    }
    labels |= {
        name: label
        for name, (label, _) in {**OF_LOSS_SURFACES, **OF_VARIANCE_SURFACES}.items()
    }
    del labels["loss_at_center"]
    rows = []
    for name, label in labels.items():
        means = {i: finite_mean(found, name) for i, found in enumerate(study.numbers)}
        means = {i: mean for i, mean in means.items() if mean is not None}
        if len(means) < _MIN_CELLS:
            continue
        coefficients = []
        for measure in (study.widths, study.depths):
            found = analysis.correlations(
                [measure[i] for i in means],
                list(means.values()),
                num_resamples=num_resamples,
            )
            coefficients += [
                correlation.coefficient_text(found[kind])
                for kind in ("spearman", "kendall")
            ]
        rows.append((label, len(means), *coefficients))
    if not rows:
        note = (
            f"Rank correlations need numbers of {_MIN_CELLS} cells or more; this study "
            "has fewer."
        )
        return html.section("What goes with width", html.paragraph(note))
    columns = {
        "quantity": "",
        "cells": "d",
        "width: Spearman": ".2f",
        "width: Kendall": ".2f",
        "depth: Spearman": ".2f",
        "depth: Kendall": ".2f",
    }
    return html.section(
        "What goes with width",
        html.paragraph(
            "Rank correlations over the cells, of means over seeds, with width and "
            "depth of the normal cell. -1 for width and a loss: the wider the cell, "
            "the lower its loss. In brackets: 95 % intervals of a bootstrap over the "
            "cells. With few cells they are wide, and one that holds 0 leaves the "
            "direction open. Width and depth go together, so neither stands alone. "
            "Cells whose trainings all diverged have no part in those of trainings."
        ),
        html.table(columns, rows),
    )
