"""Reports on what the connections of a cell do to its training (Shu et al. 2020)."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np
from matplotlib.figure import Figure

from jaxnas import analysis, genotypes
from jaxnas.analysis import topology
from jaxnas.report import _render, cell_charts, correlation, drawing, surfaces
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
    _render.write(
        path,
        "cell_study.html",
        title=title,
        lead=_headline(study),
        summary=summary,
        config=config,
        topology=_topology(study),
        convergence=[_convergence(study, rate) for rate in learning_rates(study.cells)],
        landscape=_landscape(study),
        levels=surfaces.LEVELS,
        variance=_variance(study),
        is_measured=any(study.numbers),
        correlations=_correlations(study, num_resamples),
        min_cells=_MIN_CELLS,
    )


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


def _topology(study: Study) -> dict[str, Any]:
    drawings = []
    rows = []
    for i, (cell, title) in enumerate(zip(study.cells, study.titles, strict=True)):
        width, depth = study.widths[i], study.depths[i]
        caption = f"{title}, {width:g}c, {depth}"
        if i == study.original:
            caption = markupsafe.Markup("<strong>{}, the original</strong>").format(
                caption
            )
        svg = drawing.genotype_svg(cell.genotype, title=cell.name)
        drawings.append(_render.figure(svg, caption))
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
    space = _render.chart(
        cell_charts.space_chart(study, num_nodes),
        "shares of the widths and depths of all cells",
        f"Shares of the {total:,} ways to connect {num_nodes} nodes, if each edge may "
        "read any earlier node and all lead to the output. Letters: the cells of this "
        "study.",
    )
    caption = "Normal cell / reduction cell"
    table = _render.Table(columns, rows, caption, marked_row=study.original)
    return {"drawings": drawings, "table": table, "space": space}


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


def _convergence(study: Study, rate: float) -> dict[str, Any]:
    names = {name: name_at_rate(rate, name) for name in (*OF_TRAININGS, "diverged")}
    trained = [i for i, found in enumerate(study.numbers) if names["diverged"] in found]
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
    table = _render.Table(
        {"cell": "", **dict(OF_TRAININGS.values()), "diverged": "d"},
        rows,
        f"Learning rate {rate:g}: mean ± standard deviation over the seeds that did "
        "not diverge",
        marked_row=_row_of_original(study, trained),
    )
    figures = [
        cell_charts.learning_curves(study, trained, rate, metric)
        for metric in ("test/loss", "test/accuracy")
    ]
    return {"figures": figures, "table": table}


def _landscape(study: Study) -> dict[str, Any] | None:
    shown = {
        i: c.loss_surfaces[0] for i, c in enumerate(study.cells) if c.loss_surfaces
    }
    if not shown:
        return None
    high = _typically_high([s.values["loss"] for s in shown.values()])
    contours = []
    for i, surface in shown.items():
        chart = surfaces.contour_chart(surface, "loss", title=study.titles[i])
        contours.append(_panel(study, i, chart, "contours", surface, "loss"))
    return {
        "contours": contours,
        "table": _surface_table(study, shown, OF_LOSS_SURFACES),
        **_maps_and_reliefs(
            study,
            shown,
            "loss",
            label="loss (nats)",
            limit=min(high, surfaces.LEVELS[-1]),
        ),
    }


def _variance(study: Study) -> dict[str, Any] | None:
    shown = {
        i: c.variance_surfaces[0]
        for i, c in enumerate(study.cells)
        if c.variance_surfaces
    }
    if not shown:
        return None
    value = "gradient_variance"
    return {
        "table": _surface_table(study, shown, OF_VARIANCE_SURFACES),
        **_maps_and_reliefs(
            study,
            shown,
            value,
            label="standard deviation",
            limit=math.sqrt(_typically_high([s.values[value] for s in shown.values()])),
            square_root=True,
        ),
    }


def _maps_and_reliefs(
    study: Study,
    shown: Mapping[int, analysis.Surface],
    value: str,
    *,
    label: str,
    limit: float,
    square_root: bool = False,
) -> dict[str, list[_render.Figure]]:
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
        chart = surfaces.surface_plot(
            surface,
            value,
            title=title,
            label=label,
            z_limits=(0, limit),
            square_root=square_root,
        )
        reliefs.append(_panel(study, i, chart, "relief", surface, value))
    return {"maps": maps, "reliefs": reliefs}


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
) -> _render.Figure:
    name = value.replace("_", " ")
    caption = f"{study.widths[i]:g}c, {study.depths[i]}"
    if i == study.original:
        caption += ", the original"
    if num := surfaces.num_not_finite(surface, value):
        caption += f". Not finite: {num} of {surface.values[value].size} points"
    description = f"{kind} of the {name}: {study.titles[i]}"
    return _render.chart(chart, description, caption)


def _surface_table(
    study: Study,
    shown: Mapping[int, analysis.Surface],
    quantities: Quantities,
) -> _render.Table:
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
    return _render.Table(
        {"cell": "", **dict(quantities.values())},
        rows,
        "Mean ± standard deviation over the seeds",
        marked_row=_row_of_original(study, list(shown)),
    )


def _row_of_original(study: Study, shown: list[int]) -> int | None:
    return shown.index(study.original) if study.original in shown else None


def _correlations(study: Study, num_resamples: int) -> _render.Table:
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
    columns = {
        "quantity": "",
        "cells": "d",
        "width: Spearman": ".2f",
        "width: Kendall": ".2f",
        "depth: Spearman": ".2f",
        "depth: Kendall": ".2f",
    }
    return _render.Table(columns, rows)
