"""Charts of what was measured on a plane through trained weights.

They show what the figures of Shu et al. (2020, section 4.2) show, in the style of
`jaxnas.report.curves`, whose `svg` turns them into markup. Colored facets become an
embedded picture, since a fine grid has thousands; lines and text stay what they are.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colors, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import art3d

from jaxnas import analysis
from jaxnas.report import curves

LEVELS = tuple(np.arange(0.1, 10, 0.5).round(1).tolist())
"""Heights of the paper's contours (nats): those of the code of Li et al. (2018)."""

# From low to high, all to be seen against white and against the dark page.
_LINES = (curves.GREEN, curves.BLUE, curves.PURPLE, curves.PINK, curves.ORANGE)
_NUMBER = "{x:.3g}"  # wide labels would be cut
_GRAY = "#8a939c"  # likewise, for what stands behind
_DPI = 160  # of the embedded pictures, enough for screens with two dots per pixel


@curves.style()
def contour_chart(
    surface: analysis.Surface,
    value: str = "loss",
    *,
    title: str,
    levels: Sequence[float] = LEVELS,
) -> Figure:
    """Draw lines of equal value, each with its value on it, and a cross at (0, 0).

    Args:
      surface: what was measured.
      value: which of its values.
      title: what is shown.
      levels: values to draw lines for, ascending; those that the surface does not
        reach have no line.

    Returns:
      The figure, 208 by 200 points. Values that are not finite are a hatched hole.

    Raises:
      ValueError: if the surface does not have the value, or not 2 points or more along
        both directions, or the levels do not ascend.
    """
    if not len(levels) or np.any(np.diff(levels) <= 0):
        raise ValueError(f"levels are {list(levels)}; expected ascending numbers")
    values = _masked(surface, value)
    figure, axes = _plane(surface, values, title)
    palette = colors.LinearSegmentedColormap.from_list("lines", _LINES)
    low, high = _range(values)
    # A level that is met nowhere would be a warning.
    met = [level for level in levels if low < level < high]
    if met:
        lines = axes.contour(
            surface.alphas,
            surface.betas,
            values,
            levels=met,
            cmap=palette,
            vmin=levels[0],
            vmax=levels[-1],
            linewidths=1.0,
        )
        # Every second one has its value, so that these do not cover the lines.
        axes.clabel(lines, met[::2], fontsize=6.5, fmt="%g", inline_spacing=2)
    axes.plot(0, 0, marker="+", markersize=7, color=curves.INK)
    return figure


@curves.style()
def heat_map(
    surface: analysis.Surface,
    value: str,
    *,
    title: str,
    label: str,
    vmin: float | None = None,
    vmax: float | None = None,
    square_root: bool = False,
) -> Figure:
    """Draw values as colors, lighter where they are larger.

    Args:
      surface: what was measured.
      value: which of its values.
      title: what is shown.
      label: what the colors mean, with its unit.
      vmin: the value that gets the darkest color; the smallest by default.
      vmax: the value that gets the lightest one, as do all beyond, which the color
        bar shows by a tip; the largest by default.
      square_root: draw the square roots of the values: standard deviations of
        variances. `vmin` and `vmax` then are square roots, too.

    Returns:
      The figure, 208 by 168 points. Values that are not finite are a hatched hole.

    Raises:
      ValueError: if the surface does not have the value, or not 2 points or more along
        both directions, or a square root is asked for of a negative value.
    """
    values = _masked(surface, value, square_root)
    figure, axes = _plane(surface, values, title, height=168)
    low, high = _range(values)
    facets = axes.pcolormesh(
        surface.alphas,
        surface.betas,
        values,
        shading="nearest",
        cmap="viridis",
        vmin=low if vmin is None else vmin,
        vmax=high if vmax is None else vmax,
        rasterized=True,
    )
    axes.grid(False)
    _color_bar(figure, axes, facets, label, values)
    return figure


@curves.style()
def surface_plot(
    surface: analysis.Surface,
    value: str,
    *,
    title: str,
    label: str,
    z_limits: tuple[float, float] | None = None,
    square_root: bool = False,
) -> Figure:
    """Draw values as heights.

    Args:
      surface: what was measured.
      value: which of its values.
      title: what is shown.
      label: what the heights mean, with its unit.
      z_limits: lowest and highest height, and ends of the colors; what is higher or
        lower is cut. Panels that shall be compared should have the same. By default
        the range of the values.
      square_root: draw the square roots of the values: standard deviations of
        variances. `z_limits` then are square roots, too.

    Returns:
      The figure, 220 by 175 points. Facets with a value that is not finite are missing.

    Raises:
      ValueError: if the surface does not have the value, or not 2 points or more along
        both directions, or a square root is asked for of a negative value, or the
        limits do not ascend.
    """
    if z_limits is not None and not z_limits[0] < z_limits[1]:
        raise ValueError(f"z_limits are {z_limits}; expected a lower and a higher end")
    values = _masked(surface, value, square_root)
    low, high = _range(values) if z_limits is None else z_limits
    size = 220 / 72, 175 / 72  # matplotlib counts in inches
    figure = Figure(figsize=size, dpi=_DPI)
    # Lines of the grid have no transparency here.
    with matplotlib.rc_context({"grid.color": _GRAY, "grid.linewidth": 0.4}):
        axes: Any = figure.add_axes((0.0, 0.0, 0.82, 0.95), projection="3d")
    corners = _facets(surface, values, low, high)
    facets = art3d.Poly3DCollection(
        corners, cmap="coolwarm", linewidth=0, antialiased=False, rasterized=True
    )
    facets.set_array(corners[..., 2].mean(1))
    facets.set_clim(low, high)
    if len(corners):
        axes.add_collection3d(facets)
    axes.set(xlim=_ends(surface.alphas), ylim=_ends(surface.betas), zlim=(low, high))
    axes.tick_params(labelsize=7, pad=-3)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0, 0, 0, 0))
        # Those at the ends would meet where two axes do.
        axis.set_major_locator(_few_ticks(prune="both"))
    axes.zaxis.set_major_formatter(ticker.StrMethodFormatter(_NUMBER))
    figure.suptitle(title, x=0.03, y=0.97, ha="left", fontsize=11, weight="bold")
    _color_bar(figure, axes, facets, label, values, pad=0.12)
    return figure


def num_not_finite(surface: analysis.Surface, value: str) -> int:
    """Count the points of a surface whose value is not finite.

    Raises:
      ValueError: if the surface does not have the value, or not 2 points or more along
        both directions.
    """
    return int(np.ma.count_masked(_masked(surface, value)))


def _masked(
    surface: analysis.Surface, value: str, square_root: bool = False
) -> np.ma.MaskedArray:
    """Return the values, or their roots, with those that are not finite masked."""
    if value not in surface.values:
        raise ValueError(
            f"the surface has no {value!r}; it has {', '.join(sorted(surface.values))}"
        )
    values = np.asarray(surface.values[value], np.float64)
    shape = (len(surface.betas), len(surface.alphas))
    if values.shape != shape or min(shape) < 2:
        raise ValueError(
            f"{value!r} of the surface has shape {values.shape} for {shape[0]} betas "
            f"and {shape[1]} alphas; expected one value for each, and 2 or more of both"
        )
    values = np.ma.masked_invalid(values)
    if not square_root:
        return values
    if values.count() and values.min() < 0:
        raise ValueError(
            f"the lowest {value!r} of the surface is {values.min():g}; expected 0 or "
            "more, whose square root is drawn"
        )
    return np.ma.sqrt(values)


def _range(values: np.ma.MaskedArray) -> tuple[float, float]:
    """Lowest and highest value, apart from each other."""
    if not values.count():
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low, low + 1)


def _ends(places: np.ndarray) -> tuple[float, float]:
    return float(places[0]), float(places[-1])


def _plane(
    surface: analysis.Surface,
    values: np.ma.MaskedArray,
    title: str,
    *,
    height: float = 200,
) -> tuple[Figure, Axes]:
    """Make a figure with the plane as its axes, hatched where values are masked."""
    size = 208 / 72, height / 72
    figure = Figure(figsize=size, dpi=_DPI, layout="compressed")
    axes = figure.add_subplot()
    axes.set(
        title=title,
        xlim=_ends(surface.alphas),
        ylim=_ends(surface.betas),
        aspect="equal",
    )
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(_few_ticks())
    axes.yaxis.set_major_locator(_few_ticks())
    if np.ma.is_masked(values):
        holes = axes.contourf(
            surface.alphas,
            surface.betas,
            np.ma.getmaskarray(values).astype(float),
            levels=[0.5, 1.5],
            colors="none",
            hatches=["////"],
        )
        holes.set(edgecolor=_GRAY, linewidth=0)
    return figure, axes


def _few_ticks(**options: Any) -> Any:

    return ticker.MaxNLocator(4, **options)


def _facets(
    surface: analysis.Surface, values: np.ma.MaskedArray, low: float, high: float
) -> np.ndarray:
    """Corners `[num, 4, 3]` of the facets between the limits, cut at these."""
    alphas, betas = np.meshgrid(surface.alphas, surface.betas)
    points = np.stack([alphas, betas, values.filled(np.nan)], axis=-1)
    corners = np.stack(
        [points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]], axis=2
    ).reshape(-1, 4, 3)
    heights = corners[..., 2]
    is_within = (heights >= low).any(1) & (heights <= high).any(1)
    corners = corners[is_within & np.isfinite(heights).all(1)]
    corners[..., 2] = np.clip(corners[..., 2], low, high)
    return corners


def _color_bar(
    figure: Figure,
    axes: Axes,
    facets: Any,
    label: str,
    values: np.ma.MaskedArray,
    pad: float = 0.05,
) -> None:
    """Draw a color bar, with a tip where values go on beyond its end."""
    low, high = facets.get_clim()
    is_below, is_above = bool((values < low).any()), bool((values > high).any())
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    bar = figure.colorbar(
        facets,
        ax=axes,
        extend=ends.get((is_below, is_above), "both"),
        shrink=0.7,
        aspect=14,
        pad=pad,
        ticks=ticker.MaxNLocator(5),
        format=ticker.StrMethodFormatter(_NUMBER),
    )
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
