import html.parser
import math
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from jaxnas import analysis, genotypes, report, studies
from jaxnas.report import curves
from jaxnas.report import html as html_report

DRAWING = '<?xml version="1.0"?>\n<svg viewBox="0 0 9 9"><title>cell</title></svg>'
GENOTYPE = genotypes.Genotype(
    normal=(("sep_conv_3x3", 0), ("skip_connect", 1)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
    reduce_concat=(2,),
)
MACRO = genotypes.MacroGenotype(("conv_3x3",), ((),))
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(html.parser.HTMLParser):
    """Checks that elements nest, and collects headings, cells and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data


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
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_search_report_has_every_part(tmp_path):
    text, page = search_page(tmp_path)
    assert page.texts["h1"] == ["Search"]
    assert page.texts["h2"] == [
        "Found architecture",
        "Course of the search",
        "Best architectures",
        "With the search's weights",
        "Configuration",
    ]
    assert "<title>cell</title>" in text and "<?xml" not in text
    assert "nothing is known of its worth" in page.texts["p"][0]
    assert "1.235 M parameters and 8.9 M FLOPs" in page.texts["p"][0]
    assert "1.235" in page.texts["td"] and "40.00%" not in page.texts["td"]
    assert genotypes.to_darts(GENOTYPE) in page.texts["code"]
    assert "search.alpha" in page.texts["th"] and "1.5" in page.texts["td"]
    assert "Convergence of the search distribution" in text
    assert "uniform distribution" in text
    assert "Accuracy</text>" not in text  # no entry has an accuracy


def test_candidates_of_cells_have_width_and_depth(tmp_path):
    deep = candidate("deep", 0.7)._replace(
        genotype=genotypes.narrowest_deepest(genotypes.named("DARTS"))
    )
    macro = candidate("macro", 0.8)._replace(genotype=MACRO)
    _, page = search_page(tmp_path, top=[deep, macro], random=[])
    start = page.texts["td"].index("deep") - 1
    headings = page.texts["th"][page.texts["th"].index("rank") :][:9]
    row = dict(zip(headings, page.texts["td"][start:], strict=False))
    assert row["rank"] == "1" and row["FLOPs (M)"] == "8.9"
    assert row["width (c)"] == "1.0" and row["depth"] == "5"
    assert row["genotype"].startswith("show")
    start = page.texts["td"].index("macro") - 1
    assert page.texts["td"][start + 5 : start + 8] == ["8.9", "-", "-"]


def test_candidates_may_have_been_trained(tmp_path):
    trained = candidate("trained", 0.5)._replace(trained_accuracy=0.75)
    _, page = search_page(tmp_path, top=[trained, candidate("not trained", 0.6)])
    start = page.texts["th"].index("rank")
    assert page.texts["th"][start + 3 : start + 5] == ["accuracy", "accuracy, trained"]
    values = [
        page.texts["td"][page.texts["td"].index(name) + 3]
        for name in ("trained", "not trained")
    ]
    assert values == ["75.00%", "-"]
    _, page = search_page(tmp_path)
    assert "accuracy, trained" not in page.texts["th"]


def test_candidates_of_other_kinds_have_neither(tmp_path):
    macro = candidate("macro", 0.5)._replace(genotype=MACRO)
    _, page = search_page(tmp_path, found=macro, top=[macro], random=[macro])
    assert "FLOPs (M)" in page.texts["th"]
    assert not {"width (c)", "depth"} & set(page.texts["th"])


def test_a_report_needs_no_other_file_and_no_script(tmp_path):
    _, page = search_page(tmp_path)
    tags = {tag for tag, _, _ in page.attributes} | set(page.texts)
    assert not tags & {"script", "img", "link", "iframe", "object", "embed"}
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action"):
            assert value is not None and value.startswith("#"), (tag, name, value)


def test_the_same_data_give_the_same_file(tmp_path):
    assert search_page(tmp_path)[0] == search_page(tmp_path)[0]


def test_what_shared_weights_do_not_tell_is_said_where_they_stand(tmp_path):
    _, page = search_page(tmp_path)
    paragraph = page.texts["p"][3]
    assert paragraph.startswith("This does not tell whether the found architecture is")
    assert not any("better than that of" in text for text in page.texts["p"])
    assert "loss 0.6000 ± 0.1291 nats" in paragraph  # of 0.45, 0.55, 0.65 and 0.75
    marked = [tag for tag, _, value in page.attributes if value == "marked"]
    assert marked == ["tr"]
    order = [row for row in page.texts["tr"] if "random " in row or "mode" in row]
    assert [row[:8] for row in order][:2] == ["random 0", "mode0.50"]


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
    for paragraph in (page.texts["p"][0], page.texts["p"][1]):
        assert "Trained from scratch for 7 epochs (2 seeds)" in paragraph
        assert "3 random architectures 91.83% ± 0.76%" in paragraph
        assert f"(95 %): {verdict}." in paragraph
    assert page.texts["h2"][0] == "Trained from scratch"
    marked = [tag for tag, _, value in page.attributes if value == "marked"]
    assert marked == ["tr", "tr"]


def test_diverged_architectures_are_left_out_and_counted(tmp_path):
    random = [candidate("good", 0.7), candidate("bad", math.nan)]
    _, page = search_page(tmp_path, random=random)
    assert "Left out, not finite: 1." in page.texts["p"][3]
    assert "±" not in page.texts["p"][3]
    assert page.texts["tr"][-3].startswith("bad")  # last, above the configuration's 2


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
    page = Page(path.read_text(encoding="utf-8"))
    assert page.texts["h2"][0] == "Results"
    cells = page.texts["td"]
    start = cells.index("test")
    # A diverged last epoch is not hidden behind the last finite one.
    assert cells[start : start + 5] == ["test", "nan", "25.00%", "75.00%", "2"]
    assert "loss (bits)" in page.texts["th"]
    assert page.texts["figcaption"] == ["Points left out, not finite: 1."]
    assert sum("Learning rate" in text for text in page.texts["svg"]) == 1


def test_table_formats_aligns_and_checks():
    columns = {"name": "", "loss": ".2f"}
    table = html_report.table(columns, [("a<b", 0.125), ("c", None)], marked_row=1)
    assert "<td>a&lt;b</td>" in table
    assert '<td class="number">0.12</td>' in table
    assert '<tr class="marked"><td>c</td><td class="number">-</td></tr>' in table
    with pytest.raises(ValueError, match="row 1 has 1 cells; 2 columns"):
        html_report.table(columns, [("a", 1.0), ("b",)])


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


def test_svg_is_wellformed_takes_the_text_colour_and_leaves_no_style_behind():
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
