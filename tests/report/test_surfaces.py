"""Charts of surfaces: what they draw, what they leave out, and how large they are."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jaxnas import analysis
from jaxnas.report import curves, surfaces

CHARTS = {
    "contours": lambda surface, value, **options: surfaces.contour_chart(
        surface, value, title="A & B", **options
    ),
    "heat map": lambda surface, value, **options: surfaces.heat_map(
        surface, value, title="A & B", label="loss (nats)", **options
    ),
    "relief": lambda surface, value, **options: surfaces.surface_plot(
        surface, value, title="A & B", label="loss (nats)", **options
    ),
}
every_chart = pytest.mark.parametrize("chart", CHARTS.values(), ids=list(CHARTS))


def bowl(num=5, **values) -> analysis.Surface:
    """The loss rises from 0 in the center to 8 in the corners."""
    places = np.linspace(-1, 1, num)
    loss = 4 * (places**2 + places[:, None] ** 2)
    return analysis.Surface(places, places, {"loss": loss} | values)


def artists(figure, kind):
    """The artists of a kind in the first axes of a figure."""
    return [a for a in figure.axes[0].get_children() if type(a).__name__ == kind]


def artist(figure, kind):
    (found,) = artists(figure, kind)
    return found


@every_chart
def test_charts_are_wellformed_and_small(chart):
    surface = bowl(51)
    markup = curves.svg(chart(surface, "loss"), "a surface")
    texts = {
        element.text
        for element in ElementTree.fromstring(markup).iter()
        if element.tag.endswith("text")
    }
    assert "A & B" in texts
    assert "currentColor" in markup and len(markup) < 150_000
    assert markup == curves.svg(chart(surface, "loss"), "a surface")


@every_chart
def test_points_that_are_not_finite_are_holes(chart):
    surface = bowl()
    surface.values["loss"][0, :3] = math.nan, math.inf, -math.inf
    assert surfaces.num_not_finite(surface, "loss") == 3
    whole = curves.svg(chart(bowl(), "loss"), "a surface")
    assert curves.svg(chart(surface, "loss"), "a surface") != whole
    surface.values["loss"][:] = math.nan
    assert surfaces.num_not_finite(surface, "loss") == 25
    assert "A &amp; B" in curves.svg(chart(surface, "loss"), "a surface")


@every_chart
def test_flat_surfaces_can_be_drawn(chart):
    surface = bowl()
    surface.values["loss"][:] = 2.0
    assert "A &amp; B" in curves.svg(chart(surface, "loss"), "a surface")


def test_contours_are_drawn_where_the_levels_are_met():
    figure = surfaces.contour_chart(bowl(21), "loss", title="Loss")
    contours = artist(figure, "QuadContourSet")
    # The paper's levels are 0.5 apart; the surface ends at 8.
    assert contours.levels.tolist() == pytest.approx(np.arange(0.1, 8, 0.5))
    labels = [label.get_text() for label in contours.labelTexts]
    assert "0.1" in labels and "1.1" in labels and "0.6" not in labels
    figure = surfaces.contour_chart(bowl(), "loss", title="Loss", levels=[1, 3, 100])
    assert artist(figure, "QuadContourSet").levels.tolist() == [1, 3]
    (center,) = figure.axes[0].lines
    assert np.asarray(center.get_xydata()).tolist() == [[0.0, 0.0]]
    figure = surfaces.contour_chart(bowl(), "loss", title="Loss", levels=[50])
    assert not artists(figure, "QuadContourSet")


def test_contours_follow_the_two_directions():
    # Along alpha the loss is 0 at -1 and 4 at 1; beta has other places and more.
    loss = np.tile([0.0, 2.0, 4.0], (4, 1))
    surface = analysis.Surface(np.array([-1, 0, 1]), np.arange(4.0), {"loss": loss})
    figure = surfaces.contour_chart(surface, "loss", title="Loss", levels=[1.0])
    vertices = artist(figure, "QuadContourSet").get_paths()[0].vertices
    assert np.unique(vertices[:, 0]).tolist() == [-0.5]
    assert [vertices[:, 1].min(), vertices[:, 1].max()] == [0, 3]


@pytest.mark.parametrize(
    ("options", "expected", "extend"),
    [
        ({}, (0.0, 8.0), "neither"),
        ({"vmax": 5.0}, (0.0, 5.0), "max"),
        ({"vmin": 1.0}, (1.0, 8.0), "min"),
        ({"vmin": 1.0, "vmax": 5.0}, (1.0, 5.0), "both"),
        ({"square_root": True}, (0.0, math.sqrt(8)), "neither"),
        ({"square_root": True, "vmax": 2.0}, (0.0, 2.0), "max"),
    ],
)
def test_heat_maps_have_the_colors_asked_for(options, expected, extend):
    figure = surfaces.heat_map(bowl(), "loss", title="A", label="loss", **options)
    mesh = artist(figure, "QuadMesh")
    loss = bowl().values["loss"]
    drawn = np.sqrt(loss) if options.get("square_root") else loss
    np.testing.assert_allclose(mesh.get_array(), drawn)
    assert mesh.get_clim() == pytest.approx(expected)
    assert mesh.colorbar.extend == extend
    assert mesh.colorbar.ax.get_ylabel() == "loss"
    assert mesh.get_cmap().name == "viridis" and mesh.get_rasterized()


def heights(surface, **options):
    """The mean heights of the facets of a relief, ascending."""
    figure = surfaces.surface_plot(surface, "loss", title="A", label="loss", **options)
    facets = artist(figure, "Poly3DCollection")
    assert facets.get_clim() == pytest.approx(facets.axes.get_zlim())
    assert facets.get_cmap().name == "coolwarm" and facets.get_rasterized()
    return np.sort(facets.get_array()).tolist()


def test_reliefs_are_cut_at_the_limits():
    # Heights of the corners of a facet: 0, 1, 1, 2 or 1, 2, 4, 5 or 2, 5, 5, 8.
    assert heights(bowl()) == [1.0] * 4 + [3.0] * 8 + [5.0] * 4
    cut = heights(bowl(), z_limits=(0.0, 4.0))
    assert cut == [1.0] * 4 + [(1 + 2 + 4 + 4) / 4] * 8 + [(2 + 3 * 4) / 4] * 4
    # Facets that lie above the limit are left out; below it likewise.
    assert len(heights(bowl(), z_limits=(0.0, 1.5))) == 12
    assert len(heights(bowl(), z_limits=(3.0, 9.0))) == 12
    roots = heights(bowl(), z_limits=(0.0, 9.0), square_root=True)
    assert roots[0] == pytest.approx((0 + 1 + 1 + math.sqrt(2)) / 4)


def test_facets_at_a_hole_are_missing():
    surface = bowl()
    surface.values["loss"][2, 2] = math.inf
    assert len(heights(surface)) == 12
    surface.values["loss"][0, 0] = math.nan
    assert len(heights(surface)) == 11


@every_chart
def test_charts_refuse_what_is_no_surface(chart):
    with pytest.raises(ValueError, match="has no 'gradient_variance'; it has loss"):
        chart(bowl(), "gradient_variance")
    message = r"'loss' of the surface has shape \(5, 4\) for 5 betas and 5 alphas"
    short = bowl()
    short.values["loss"] = short.values["loss"][:, :4]
    with pytest.raises(ValueError, match=message):
        chart(short, "loss")
    line = analysis.Surface(np.zeros(1), np.zeros(3), {"loss": np.zeros((3, 1))})
    with pytest.raises(ValueError, match="3 betas and 1 alphas; expected one value"):
        chart(line, "loss")


@pytest.mark.parametrize("chart", [CHARTS["heat map"], CHARTS["relief"]])
def test_negative_values_have_no_root(chart):
    surface = bowl(gradient_variance=np.full((5, 5), -0.5))
    with pytest.raises(ValueError, match="lowest 'gradient_variance' of the surf"):
        chart(surface, "gradient_variance", square_root=True)


@pytest.mark.parametrize("levels", [[], [1.0, 1.0], [2.0, 1.0]])
def test_levels_ascend(levels):
    with pytest.raises(ValueError, match=r"levels are .*; expected ascending numbers"):
        surfaces.contour_chart(bowl(), "loss", title="A", levels=levels)


def test_limits_ascend():
    with pytest.raises(ValueError, match=r"z_limits are \(1, 1\); expected a lower"):
        surfaces.surface_plot(bowl(), "loss", title="A", label="", z_limits=(1, 1))
