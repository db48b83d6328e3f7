import importlib
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from pages import Page, check_report

from jaxnas import analysis, genotypes, report, studies
from jaxnas.report import curves

DRAWING = '<?xml version="1.0"?>\n<svg viewBox="0 0 9 9"><title>cell</title></svg>'
GENOTYPE = genotypes.Genotype(
    normal=(("sep_conv_3x3", 0), ("skip_connect", 1)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
    reduce_concat=(2,),
)
MACRO = genotypes.MacroGenotype(("conv_3x3",), ((),))


def candidate(name: str, loss: float, accuracy: float = 0.5) -> studies.Candidate:
    return studies.Candidate(name, GENOTYPE, loss, accuracy, 1_234_567, 8_900_000.0)


def search_page(tmp_path, **changes) -> tuple[str, Page]:
    arguments = {
        "title": "Search",
        "summary": {"data set": "digits", "command": "python search.py"},
        "config": {"epochs": 2, "search": {"alpha": 1.5}},
        "history": [
            {"epoch": 1, "train/loss": 2.0, "theta_max_mean": 0.25},
            {"epoch": 2, "train/loss": 1.0, "theta_max_mean": 0.5},
        ],
        "drawing": DRAWING,
        "found": candidate("mode", 0.5, 0.9),
        "top": [candidate("first", 0.4), candidate("second", 0.6)],
        "random": [candidate(f"random {i}", 0.45 + 0.1 * i) for i in range(4)],
        "uniform_level": 0.2,
    } | changes
    path = tmp_path / "report.html"
    report.search_report(path, **arguments)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left
    return path.read_text(encoding="utf-8"), check_report(path)


def test_search_report_has_every_part(tmp_path):
    _, page = search_page(tmp_path)
    assert page.texts["h1"] == ["Search"]
    assert page.texts["h2"] == [
        "Found architecture",
        "Course of the search",
        "Best architectures",
        "With the search's weights",
        "Configuration",
    ]
    lead = page.words()[0]
    assert "nothing is known of its worth" in lead
    assert "1.235 M parameters and 8.9 M FLOPs" in lead
    assert page.pairs() == {
        **{"data set": "digits", "command": "python search.py"},
        **{"epochs": "2", "search.alpha": "1.5"},
    }
    assert {"python search.py", genotypes.to_darts(GENOTYPE)} <= set(page.texts["code"])
    # One loss and one distribution; no entry has an accuracy.
    charts = [label for _, name, label in page.attributes if name == "aria-label"]
    assert [label for label in charts if label and "by epoch" in label] == [
        "Loss by epoch: train",
        "Convergence of the search distribution by epoch: search distribution",
    ]
    assert page.texts["title"] == ["Search", "cell"]


def test_candidates_of_cells_have_width_and_depth(tmp_path):
    deep = candidate("deep", 0.7)._replace(
        genotype=genotypes.narrowest_deepest(genotypes.named("DARTS"))
    )
    macro = candidate("macro", 0.8)._replace(genotype=MACRO)
    _, page = search_page(tmp_path, top=[deep, macro], random=[])
    first, second = page.table("rank")
    assert first | {"genotype": ""} == {
        **{"rank": "1", "architecture": "deep", "loss (nats)": "0.7000"},
        **{"accuracy": "50.00%", "parameters (M)": "1.235", "FLOPs (M)": "8.9"},
        **{"width (c)": "1.0", "depth": "5", "genotype": ""},
    }
    assert first["genotype"] == "show" + genotypes.to_text(deep.genotype)
    assert (second["width (c)"], second["depth"]) == ("-", "-")


def test_candidates_may_have_been_trained(tmp_path):
    trained = candidate("trained", 0.5)._replace(trained_accuracy=0.75)
    _, page = search_page(tmp_path, top=[trained, candidate("not trained", 0.6)])
    rows = page.table("rank")
    assert [row["accuracy, trained"] for row in rows] == ["75.00%", "-"]
    _, page = search_page(tmp_path)
    assert "accuracy, trained" not in page.texts["th"]


def test_candidates_of_other_kinds_have_neither(tmp_path):
    macro = candidate("macro", 0.5)._replace(genotype=MACRO)
    _, page = search_page(tmp_path, found=macro, top=[macro], random=[macro])
    assert "FLOPs (M)" in page.texts["th"]
    assert not {"width (c)", "depth"} & set(page.texts["th"])


def test_the_same_data_give_the_same_file(tmp_path):
    assert search_page(tmp_path)[0] == search_page(tmp_path)[0]


def test_what_shared_weights_do_not_tell_is_said_where_they_stand(tmp_path):
    _, page = search_page(tmp_path)
    paragraph = page.words()[3]
    assert paragraph.startswith("This does not tell whether the found architecture is")
    assert not any("better than that of" in text for text in page.words())
    assert "loss 0.6000 ± 0.1291 nats" in paragraph  # of 0.45, 0.55, 0.65 and 0.75
    order = [row["architecture"] for row in page.table("architecture", 1)]
    assert order == ["random 0", "mode", "random 1", "random 2", "random 3"]
    assert [row["architecture"] for rows in page.marked for row in rows] == ["mode"]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ((0.98, 0.99), "the found one is better"),
        ((0.93, 0.91), "no difference shows"),
        ((0.75, 0.74), "the found one is worse"),
    ],
)
def test_the_headline_is_the_comparison_from_scratch(tmp_path, found, verdict):
    random = [(0.91, 0.93), (0.92, 0.90), (0.93, 0.92)]
    scratch = studies.ScratchComparison(
        7, found, random, analysis.difference_from_random(found, random)
    )
    _, page = search_page(tmp_path, scratch=scratch)
    for paragraph in page.words()[:2]:
        assert "Trained from scratch for 7 epochs (2 seeds)" in paragraph
        assert "3 random architectures 91.83% ± 0.76%" in paragraph
        assert f"(95 %): {verdict}." in paragraph
    assert page.texts["h2"][0] == "Trained from scratch"
    rows = page.table("seed 1")
    means = [float(row["mean"].removesuffix("%")) for row in rows]
    assert means == sorted(means, reverse=True) and len(rows) == 4
    (marked,) = page.marked[1]
    assert marked["architecture"] == "mode" and marked["seed 0"] == f"{found[0]:.2%}"


def test_diverged_architectures_are_left_out_and_counted(tmp_path):
    random = [candidate("good", 0.7), candidate("bad", math.nan)]
    _, page = search_page(tmp_path, random=random)
    paragraph = page.words()[3]
    assert "Left out, not finite: 1." in paragraph and "±" not in paragraph
    rows = page.table("architecture", 1)
    assert [row["architecture"] for row in rows] == ["mode", "good", "bad"]


def test_parts_without_data_are_left_out(tmp_path):
    _, page = search_page(tmp_path, history=[], top=[], random=[])
    assert page.texts["h2"] == ["Found architecture", "Configuration"]


@pytest.mark.parametrize("where", ["title", "summary", "config", "found", "random"])
def test_everything_is_escaped(tmp_path, where):
    evil = '<script>alert("&")</script>'
    changes = {
        "title": evil,
        "summary": {evil: evil, "command": evil},
        "config": {evil: {evil: [evil]}},
        "found": candidate(evil, 0.5),
        "random": [candidate(evil, 0.5)],
    }
    text, page = search_page(tmp_path, **{where: changes[where]})
    assert "script" not in page.texts
    assert "&lt;script&gt;" in text


def test_reports_refuse_what_is_no_drawing(tmp_path):
    with pytest.raises(ValueError, match="drawing is 'cell'; an <svg> element"):
        search_page(tmp_path, drawing="cell")
    assert not (tmp_path / "report.html").exists()


def test_train_report_tells_last_and_best(tmp_path):
    path = tmp_path / "report.html"
    report.train_report(
        path,
        title="Training",
        summary={"seed": "0"},
        config={"epochs": 3},
        history=[
            {"epoch": 1, "test/accuracy": 0.5, "test/loss": 1.5, "learning_rate": 0.1},
            {"epoch": 2, "test/accuracy": 0.75, "test/loss": 0.5, "learning_rate": 0.0},
            {"epoch": 3, "test/accuracy": 0.25, "test/loss": "nan"},
        ],
        drawing=DRAWING,
        loss_unit="bits",
    )
    page = check_report(path)
    assert page.texts["h2"][0] == "Results"
    # A diverged last epoch is not hidden behind the last finite one.
    assert page.table("split") == [
        {
            **{"split": "test", "loss (bits)": "nan", "accuracy": "25.00%"},
            **{"best accuracy": "75.00%", "in epoch": "2"},
        }
    ]
    assert page.texts["figcaption"] == ["Points left out, not finite: 1."]
    assert sum("Learning rate" in text for text in page.texts["svg"]) == 1


@pytest.mark.parametrize("name", ["jinja2", "matplotlib", "pygraphviz"])
def test_without_the_extra_the_error_names_it(monkeypatch, name):
    loaded = [m for m in sys.modules if m.partition(".report")[0] == "jaxnas"]
    for module in loaded:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    message = rf"jaxnas\.report needs {name}.*pip install 'jaxnas\[report\]'"
    with pytest.raises(ImportError, match=message):
        importlib.import_module("jaxnas.report")


def test_the_library_does_not_need_the_extra():
    code = (
        "import sys\n"
        "for name in ('jinja2', 'matplotlib', 'pygraphviz'): sys.modules[name] = None\n"
        "import jaxnas, jaxnas.networks, jaxnas.search, jaxnas.studies, jaxnas.train"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_series_skips_and_counts_points_that_are_not_finite():
    history = [
        {"epoch": 1, "loss": 2.0},
        {"epoch": 2},
        {"epoch": 3, "loss": "inf"},
        {"epoch": 4, "loss": 1},
    ]
    series = curves.series(history, "loss", label="train", color=curves.BLUE)
    assert series == curves.Series("train", curves.BLUE, [1.0, 4.0], [2.0, 1.0], 1)


def test_series_names_the_malformed_entry():
    with pytest.raises(ValueError, match="entry 1 of the history has 'loss' but no"):
        curves.series(
            [{"epoch": 1}, {"loss": 1.0}], "loss", label="", color=curves.BLUE
        )
    with pytest.raises(ValueError, match="'loss' 'low'; two numbers"):
        curves.series(
            [{"epoch": 1, "loss": "low"}], "loss", label="", color=curves.BLUE
        )


def test_line_chart_draws_curves_and_levels():
    series = curves.Series("train", curves.BLUE, [1.0, 2.0], [0.5, 0.75])
    chart = curves.line_chart(
        [series],
        title="Accuracy",
        x_label="epoch",
        y_label="accuracy (%)",
        levels={"chance": 0.1},
        percent=True,
    )
    (axes,) = chart.axes
    assert axes.get_xlabel() == "epoch" and axes.get_ylabel() == "accuracy (%)"
    curve, level = axes.lines
    assert np.asarray(curve.get_ydata()).tolist() == [0.5, 0.75]
    assert (
        np.asarray(level.get_ydata()).tolist() == [0.1, 0.1]
        and level.get_linestyle() == "--"
    )
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "chance"]


@pytest.mark.parametrize("log_x", [False, True])
def test_line_chart_draws_bands(log_x):
    band = curves.Series(
        *("asng", curves.BLUE, [1.0, 10.0], [0.2, 0.6]), low=[0.1, 0.4], high=[0.3, 0.8]
    )
    chart = curves.line_chart(
        [band, band._replace(label="A", dashed=True), band._replace(label="")],
        title="Accuracy",
        x_label="epoch",
        y_label="accuracy (%)",
        log_x=log_x,
        y_limits=(0.0, 0.5),
        percent=True,
        legend_below=True,
    )
    (axes,) = chart.axes
    assert axes.get_xscale() == ("log" if log_x else "linear")
    (path,) = axes.collections[0].get_paths()
    corners = {(float(x), float(y)) for x, y in np.asarray(path.vertices)}
    assert {(1.0, 0.1), (10.0, 0.4), (1.0, 0.3), (10.0, 0.8)} <= corners
    assert axes.get_ylim() == (0.0, 0.5) and axes.get_legend() is None
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--", "-"]
    assert [text.get_text() for text in chart.legends[0].get_texts()] == ["asng", "A"]
    chart.canvas.draw()
    assert [label.get_text() for label in axes.get_yticklabels()][::5] == ["0", "50"]
    marks = [label.get_text() for label in axes.get_xticklabels()]
    assert "10" in marks and any("." in mark for mark in marks) == log_x


def test_svg_is_wellformed_takes_the_text_color_and_leaves_no_style_behind():
    before = dict(matplotlib.rcParams)
    chart = curves.strip_chart(
        [0.3, 0.1, 0.2],
        0.05,
        title="Loss",
        x_label="loss (nats)",
        label="random",
        marked_label='"found" & <b>',
    )
    markup = curves.svg(chart, 'a "strip" & more')
    root = ElementTree.fromstring(markup)
    assert root.get("aria-label") == 'a "strip" & more'
    assert "currentColor" in markup
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"Loss", "loss (nats)", "random", '"found" & <b>'} <= set(texts)
    assert dict(matplotlib.rcParams) == before


NAMES = ["$x", "{a}", "_hidden", "a_b^c", "$\\frac{", "100%", "<b>&"]


@pytest.mark.parametrize("name", NAMES)
def test_charts_show_any_name_as_it_is(name):
    series = [
        curves.Series(label, curves.BLUE, [1.0, 2.0], [0.5, 0.7])
        for label in (name, "other")
    ]
    strip = {"title": name, "x_label": name, "label": name, "marked_label": name}
    labels = {"title": name, "x_label": name, "y_label": name}
    charts = [
        curves.line_chart(series, levels={name: 0.6}, **labels),
        curves.strip_chart([0.1, 0.2], 0.3, **strip),
        curves.scatter_chart(
            *([1.0, 2.0], [3.0, 4.0], [True, False]),
            **labels,
            label=name,
            marked_label=name,
        ),
    ]
    for chart in charts:
        (legend,) = [*chart.legends, *(axes.get_legend() for axes in chart.axes)][:1]
        assert name in [text.get_text().strip() for text in legend.get_texts()]
        markup = curves.svg(chart, "a chart")
        texts = "".join(ElementTree.fromstring(markup).itertext())
        assert texts.count(name) >= 3
