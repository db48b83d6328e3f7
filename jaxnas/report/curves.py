"""Curves, strips and clouds of dots, drawn to stand in a page in light or dark.

Every function makes a matplotlib `Figure` of its own, so nothing depends on the
state of pyplot or on a display; `svg` turns a figure into markup.
"""

import contextlib
import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Three to one or better against white and against the dark page.
BLUE, ORANGE, GREEN = "#3b82f6", "#dd6b20", "#17a06c"
PURPLE, PINK = "#a855f7", "#db4d8c"

# Stands for "the color of the page's text"; no other element has this color.
INK = "#010203"

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so layout is the same
    "font.size": 9.5,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "text.color": INK,
    "text.parse_math": False,  # names may have a $
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


class Series(NamedTuple):
    """Points of one curve, with what lies around it, for example over seeds.

    Attributes:
      label: its name in the legend; not there if empty.
      color: a matplotlib color.
      x: where it was measured.
      y: what was measured; finite.
      num_skipped: points left out because they are not finite.
      low: lower edge of a band at every `x`; no band by default.
      high: upper edge.
      dashed: whether the curve is, to tell it from others of its color.
    """

    label: str
    color: str
    x: Sequence[float]
    y: Sequence[float]
    num_skipped: int = 0
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False


def series(
    history: Sequence[Mapping[str, float | str]],
    key: str,
    *,
    label: str,
    color: str,
    x: str = "epoch",
) -> Series:
    """Collect one metric out of the lines of a metrics log.

    Args:
      history: lines of the log; those without `key` are passed over.
      key: name of the metric.
      label: its name in the legend.
      color: a matplotlib color.
      x: name of the metric to draw it over.

    Returns:
      The finite points; the others (also the strings `"nan"`, `"inf"` and `"-inf"`,
      which a log holds) are counted only.

    Raises:
      ValueError: if a line has `key` but not `x`, or a value is not a number.
    """
    xs, ys = [], []
    num_skipped = 0
    for i, entry in enumerate(history):
        if key not in entry:
            continue
        if x not in entry:
            raise ValueError(f"entry {i} of the history has {key!r} but no {x!r}")
        try:
            point = float(entry[x]), float(entry[key])
        except ValueError as error:
            raise ValueError(
                f"entry {i} of the history has {x!r} {entry[x]!r} and {key!r} "
                f"{entry[key]!r}; two numbers were expected"
            ) from error
        if all(map(math.isfinite, point)):
            xs.append(point[0])
            ys.append(point[1])
        else:
            num_skipped += 1
    return Series(label, color, xs, ys, num_skipped)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the reports; afterwards the caller's own is back."""
    with matplotlib.rc_context(_STYLE):
        yield


@style()
def line_chart(
    curves: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    height: float = 215,
    levels: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    whole_x: bool = True,
    y_limits: tuple[float, float] | None = None,
    percent: bool = False,
    legend_below: bool = False,
) -> Figure:
    """Draw curves, some within bands, over a common axis.

    Args:
      curves: what to draw.
      title: what is shown.
      x_label: horizontal axis, with its unit.
      y_label: vertical axis, with its unit.
      height: of the figure, in points.
      levels: named values to mark with a dashed horizontal line.
      log_x: whether equal steps to the right are equal factors; needs positive `x`.
      log_y: the same upwards; needs positive `y`.
      whole_x: whether only whole numbers are marked on a horizontal axis that is not
        logarithmic.
      y_limits: ends of the vertical axis, which cut what is beyond; by default it
        holds everything.
      percent: whether the values are fractions, to be labeled in percent.
      legend_below: whether the legend stands below the axes, not within.

    Returns:
      The figure, 350 points wide.
    """
    figure, axes = _axes(width=350, height=height)
    for curve in curves:
        if curve.low is not None and curve.high is not None:
            axes.fill_between(
                curve.x,
                curve.low,
                curve.high,
                color=curve.color,
                alpha=0.2,
                linewidth=0,
            )
        axes.plot(
            curve.x,
            curve.y,
            color=curve.color,
            label=_label(curve.label),
            linestyle="--" if curve.dashed else "-",
            linewidth=1.8,
            # A single point has no line.
            marker="o" if len(curve.x) < (30 if curve.low is None else 2) else "",
            markersize=3.5,
        )
    for label, level in (levels or {}).items():
        axes.axhline(level, color=INK, alpha=0.6, linestyle="--", label=_label(label))
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.ticklabel_format(axis="y", useOffset=False)
    if y_limits is not None:
        axes.set_ylim(y_limits)
    if percent:
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(xmax=1.0, symbol=""))
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
        axes.yaxis.set_minor_formatter(
            ticker.LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5))
        )
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    elif whole_x:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if legend_below:
        figure.legend(loc="outside lower left", ncols=3)
    elif len(axes.lines) > 1:
        axes.legend()
    return figure


@style()
def strip_chart(
    values: Sequence[float],
    marked: float,
    *,
    title: str,
    x_label: str,
    label: str,
    marked_label: str,
    percent: bool = False,
) -> Figure:
    """Draw a distribution as a strip of dots, with one value marked.

    Args:
      values: the distribution; finite.
      marked: the value to compare with it.
      title: what is shown.
      x_label: the axis, with its unit.
      label: name of the distribution.
      marked_label: name of the marked value.
      percent: whether the values are fractions, to be labeled in percent.

    Returns:
      The figure, 350 by 130 points.
    """
    figure, axes = _axes(width=350, height=130)
    # Neighbors in value lie on different heights, so equal values stay apart.
    heights = [0.25 * (i % 3 - 1) for i in range(len(values))]
    axes.scatter(
        sorted(values),
        heights,
        s=30,
        color=BLUE,
        alpha=0.75,
        linewidths=0,
        label=_label(label),
    )
    if values:
        mean = sum(values) / len(values)
        axes.axvline(
            mean, color=BLUE, linestyle="--", label=f"mean of {label}", linewidth=1.2
        )
    axes.scatter(
        [marked],
        [0.0],
        s=60,
        marker="D",
        color=ORANGE,
        zorder=3,
        label=_label(marked_label),
    )
    axes.set(title=title, xlabel=x_label, ylim=(-0.6, 0.6), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    if percent:
        axes.xaxis.set_major_formatter(ticker.PercentFormatter(xmax=1.0, symbol=""))
    figure.legend(loc="outside lower left", ncols=3)
    return figure


@style()
def scatter_chart(
    x: Sequence[float],
    y: Sequence[float],
    marked: Sequence[bool],
    *,
    title: str,
    x_label: str,
    y_label: str,
    label: str,
    marked_label: str,
    percent: bool = False,
) -> Figure:
    """Draw points in a plane, some of them marked.

    Args:
      x: where the points are; finite.
      y: the same upwards.
      marked: for each point, whether it is one of the marked ones.
      title: what is shown.
      x_label: horizontal axis, with its unit.
      y_label: vertical axis, with its unit.
      label: name of the points that are not marked.
      marked_label: name of those that are.
      percent: whether both are fractions, to be labeled in percent.

    Returns:
      The figure, 350 by 260 points.
    """
    figure, axes = _axes(width=350, height=260)
    kinds = (False, label, BLUE, "o"), (True, marked_label, ORANGE, "D")
    for kind, name, color, marker in kinds:
        points = [(a, b) for a, b, m in zip(x, y, marked, strict=True) if m == kind]
        axes.scatter(
            [a for a, _ in points],
            [b for _, b in points],
            s=24,
            marker=marker,
            color=color,
            alpha=0.75,
            linewidths=0,
            label=_label(name),
        )
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    if percent:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ticker.PercentFormatter(xmax=1.0, symbol=""))
    figure.legend(loc="outside lower left", ncols=2)
    return figure


@style()
def svg(figure: Figure, description: str) -> str:
    """Turn a figure into an `<svg>` element that takes the page's text color.

    Args:
      figure: a figure made within `style`, whose default text color becomes that
        of the page.
      description: what it shows, for readers who cannot see it.

    Returns:
      Markup whose identifiers are those of no chart with another description, so
      that pages can hold many.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Names of clips and markers depend on it, so that those of two charts differ.
    with matplotlib.rc_context({"svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :].replace(INK, "currentColor")
    markup = re.sub(r'<g id="[^"]*"', "<g", markup)
    label = html.escape(description)
    return markup.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _label(text: str) -> str:
    """A name in a legend, which leaves out those that begin with `_`."""
    return f" {text}" if text.startswith("_") else text


def _axes(*, width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes; sizes in points."""
    size = width / 72, height / 72  # matplotlib counts in inches
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()
