"""Reports on searches for autoencoders that restore images, and on their training."""

import os
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxnas import genotypes
from jaxnas.analysis import convergence
from jaxnas.report import _history, _render, curves
from jaxnas.report._words import not_compared, number_of, spread_text, verdict
from jaxnas.studies import (
    RESTORATION_METRICS,
    Autoencoder,
    InpaintingStudy,
    Restorations,
)

# Names, units and formats of the metrics.
_METRICS = {
    "psnr": ("PSNR", "PSNR (dB)", ".2f"),
    "ssim": ("SSIM", "SSIM", ".4f"),
    "loss": ("Mean squared error", "mean squared error", ".5f"),
}
_KINDS = {
    "first": "The first test images",
    "best": "Restored best",
    "worst": "Restored worst",
}
_ROWS = ("masked", "restored", "original")


def inpainting_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: convergence.History,
    drawing: str,
    study: InpaintingStudy,
    uniform_level: float,
) -> None:
    """Write the report of a search for an autoencoder.

    The history may hold, for each `epoch`, the `loss`, `psnr` and `ssim` of `train/`,
    `validation/` and `test/`, and `theta_max_mean`. What no entry has is left out.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data, device, seed, versions, command.
      config: the resolved configuration; may be nested.
      history: lines of the search's metrics log, one per epoch.
      drawing: the found autoencoder as an `<svg>` element.
      study: the result.
      uniform_level: `theta_max_mean` of the uniform distribution, a fraction.

    Raises:
      ValueError: if the history or the drawing is malformed.
    """
    found = study.found
    _render.write(
        path,
        "inpainting.html",
        title=title,
        lead=f"{restoration_text(study)} It has {found.num_params / 1e6:,.3f} M "
        f"parameters and {found.flops / 1e6:,.1f} M FLOPs.",
        summary=summary,
        config=config,
        scratch=_scratch(study) if study.random else None,
        pictures=restoration_figures(study.restorations),
        drawing=_render.figure(drawing),
        text=genotypes.to_text(found.genotype),
        figures=[
            *_metric_figures(history),
            *_history.convergence_curves(history, uniform_level),
        ],
        searched=_metrics_table({"found": study.searched}),
    )


def restoration_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: convergence.History,
    drawing: str,
    test: Mapping[str, float],
    restorations: Mapping[str, Restorations],
) -> None:
    """Write the report of one autoencoder trained from scratch.

    Args:
      path: as for `inpainting_report`, like what follows.
      title: heading of the report.
      summary: the circumstances.
      config: the configuration.
      history: lines of the metrics log.
      drawing: the autoencoder.
      test: `studies.RESTORATION_METRICS` on the test images after the last epoch.
      restorations: test images, as `studies.restore` returns them.

    Raises:
      ValueError: if the history or the drawing is malformed.
    """
    _render.write(
        path,
        "restoration.html",
        title=title,
        lead="",
        summary=summary,
        config=config,
        results=_metrics_table({"test": test}),
        pictures=restoration_figures(restorations),
        figures=_metric_figures(history),
        drawing=_render.figure(drawing),
    )


def restoration_text(study: InpaintingStudy) -> str:
    """The result of a search for an autoencoder in a few sentences."""
    if not study.random:
        return not_compared("autoencoder")
    found, random = study.found, study.random
    clauses = []
    for metric in ("psnr", "ssim"):
        name, _, spec = _METRICS[metric]
        unit = " dB" if metric == "psnr" else ""
        means = [statistics.fmean(other.values(metric)) for other in random]
        value, low, high = study.differences[metric]
        clauses.append(
            f"{name}: found {spread_text(found.values(metric), spec)}{unit}, "
            f"{len(random)} random autoencoders {spread_text(means, spec)}{unit}; "
            f"difference {value:+{spec}} [{low:+{spec}}, {high:+{spec}}] (95 %): "
            f"{verdict(low, high)}."
        )
    return (
        f"Trained from scratch for {study.num_epochs} epochs "
        f"({number_of(len(found.trained), 'seed')}), on the test images: "
        f"{' '.join(clauses)}"
    )


def restoration_figures(
    restorations: Mapping[str, Restorations],
) -> list[_render.Figure]:
    """Show masked images above restored and original ones."""
    return [
        _render.chart(
            _picture(restorations[kind], title),
            f"{title}: masked, restored and original, one above the other",
            "Below each image: PSNR in dB.",
        )
        for kind, title in _KINDS.items()
        if kind in restorations
    ]


@curves.style()
def _picture(restorations: Restorations, title: str) -> Figure:
    num = len(restorations.psnr)
    stripes = [_stripe(getattr(restorations, row)) for row in _ROWS]
    picture = np.concatenate(stripes)
    height, width = picture.shape[0] / len(_ROWS), picture.shape[1] / num
    # 64 points for each image, and room for the words.
    figure = Figure(figsize=((64 * num + 70) / 72, 245 / 72), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.grid(False)
    axes.set_title(title)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks([height * (i + 0.5) - 0.5 for i in range(len(_ROWS))], _ROWS)
    axes.set_xticks(
        [width * (i + 0.5) - 0.5 for i in range(num)],
        [f"{ratio:.1f}" for ratio in restorations.psnr],
    )
    return figure


def _stripe(images: np.ndarray) -> np.ndarray:
    """Images `[num, H, W, C]` side by side, RGBA, with transparent gaps between."""
    gap = -(-images.shape[1] // 32)
    colors = np.broadcast_to(images.clip(0, 1), (*images.shape[:3], 3))
    opaque = np.concatenate([colors, np.ones_like(colors[..., :1])], axis=-1)
    margins = ((0, 0), (0, gap), (0, gap), (0, 0))
    return np.concatenate([*np.pad(opaque, margins)], axis=1)


def _metric_figures(history: convergence.History) -> list[_render.Figure]:
    return [
        figure
        for metric, (title, label, _) in _METRICS.items()
        for figure in _history.split_curves(history, metric, title=title, y_label=label)
    ]


def _metrics_table(metrics: Mapping[str, Mapping[str, float]]) -> _render.Table:
    """Show the metrics of some things by name."""
    columns = {"": ""} | {_METRICS[m][1]: _METRICS[m][2] for m in RESTORATION_METRICS}
    rows = [
        (name, *(values[metric] for metric in RESTORATION_METRICS))
        for name, values in metrics.items()
    ]
    return _render.Table(columns, rows)


def _scratch(study: InpaintingStudy) -> dict[str, Any]:
    """Show the found autoencoder among random ones, all trained from scratch."""
    figures = []
    for metric in ("psnr", "ssim"):
        name, label, _ = _METRICS[metric]
        chart = curves.strip_chart(
            [statistics.fmean(other.values(metric)) for other in study.random],
            statistics.fmean(study.found.values(metric)),
            title=f"{name} after training from scratch",
            x_label=f"{label}, mean over seeds",
            label="random",
            marked_label=study.found.name,
        )
        description = f"{name} of autoencoders after training from scratch"
        figures.append(_render.chart(chart, description))
    rows = [_row(autoencoder) for autoencoder in (study.found, *study.random)]
    rows.sort(key=lambda row: -row[1])
    seeds = len(study.found.trained)
    columns = {
        "autoencoder": "",
        **{_METRICS[m][1]: _METRICS[m][2] for m in RESTORATION_METRICS},
        **({f"PSNR, seed {seed}": ".2f" for seed in range(seeds)} if seeds > 1 else {}),
        "parameters (M)": ",.3f",
        "FLOPs (M)": ",.1f",
        "nodes": "d",
    }
    marked = [row[0] for row in rows].index(study.found.name)
    return {
        "text": restoration_text(study),
        "figures": figures,
        "table": _render.Table(columns, rows, marked_row=marked),
    }


def _row(autoencoder: Autoencoder) -> tuple[Any, ...]:
    ratios = autoencoder.values("psnr")
    return (
        autoencoder.name,
        *(statistics.fmean(autoencoder.values(m)) for m in RESTORATION_METRICS),
        *(ratios if len(ratios) > 1 else ()),
        autoencoder.num_params / 1e6,
        autoencoder.flops / 1e6,
        len(autoencoder.genotype.kernels),
    )
