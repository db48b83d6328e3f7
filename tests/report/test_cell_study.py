"""The report of the cell study, and the numbers in it."""

import math

import numpy as np
import pytest
from pages import Page, check_report

from jaxnas import analysis, genotypes, report, studies
from jaxnas.report import cell_charts, curves, studied_cells

ORIGINAL = genotypes.named("DARTS_V2")
VARIANTS = genotypes.connection_variants(ORIGINAL)
RATE = "learning_rate_0.025"


def training(*losses, rate=0.025, seed=0, diverged=False) -> studies.Training:
    history = [{"epoch": 0, "test/loss": 50.0, "test/accuracy": 0.1}]
    history += [
        {"epoch": epoch, "test/loss": loss, "test/accuracy": 0.25 * epoch}
        for epoch, loss in enumerate(losses, 1)
    ]
    return studies.Training(rate, seed, history, diverged)


def surface(height, num=3) -> analysis.Surface:
    places = np.linspace(-1, 1, num)
    rise = height * (places**2 + places[:, None] ** 2)
    values = {"loss": 0.25 + rise, "gradient_variance": (1 + rise) ** 2}
    return analysis.Surface(places, places, values)


def cell(name, genotype=ORIGINAL, **changes) -> studies.StudiedCell:
    return studies.StudiedCell(name, genotype, 1_234_567, **changes)


def variants(*places, **changes) -> list[studies.StudiedCell]:
    return [
        cell(f"C{i}", VARIANTS[place], **changes) for i, place in enumerate(places, 1)
    ]


def write(folder, cells) -> Page:
    path = folder / "report.html"
    report.cell_study_report(
        path,
        title="Cells & cells",
        summary={"data": "digits"},
        config={"seed": 0},
        cells=cells,
        num_resamples=20,
    )
    return check_report(path)


def test_numbers_are_by_seed_and_learning_rate():
    numbers = studies.cell_numbers(
        cell(
            "A",
            trainings=[
                training(3.0, 1.0, rate=0.25),
                training(2.0, 1.0),
                training(9.0, "nan", diverged=True, seed=1),
                training(4.0, 3.0, seed=2),
            ],
            loss_surfaces=[surface(1.0), surface(2.0)],
            variance_surfaces=[surface(1.0)],
        )
    )
    assert numbers == {
        f"{RATE}/mean_test_loss": [1.5, 3.5],
        f"{RATE}/final_test_loss": [1.0, 3.0],
        f"{RATE}/final_test_accuracy": [0.5, 0.5],
        f"{RATE}/diverged": [0.0, 1.0, 0.0],
        "learning_rate_0.25/mean_test_loss": [2.0],
        "learning_rate_0.25/final_test_loss": [1.0],
        "learning_rate_0.25/final_test_accuracy": [0.5],
        "learning_rate_0.25/diverged": [0.0],
        # Within 1 nat are the center and the middles of the edges, then the center.
        "basin_share": [pytest.approx(5 / 9), pytest.approx(1 / 9)],
        "loss_at_center": [0.25, 0.25],
        "median_loss": [1.25, 2.25],
        "gradient_deviation_at_center": [1.0],
        "median_gradient_deviation": [2.0],
    }
    assert studies.cell_numbers(cell("A")) == {}


def test_numbers_of_surfaces_that_are_not_finite():
    broken, high = surface(1.0), surface(1.0)
    broken.values["loss"][1, 1] = math.nan
    high.values["gradient_variance"][:, 1:] = math.inf, math.nan
    high.values["gradient_variance"][1, 1] = 4.0
    numbers = studies.cell_numbers(
        cell("A", loss_surfaces=[broken], variance_surfaces=[high])
    )
    assert math.isnan(numbers["basin_share"][0])
    assert math.isnan(numbers["loss_at_center"][0])
    assert numbers["gradient_deviation_at_center"] == [2.0]
    assert numbers["median_gradient_deviation"] == [math.inf]


def test_the_report_has_every_section(tmp_path):
    measured = {"loss_surfaces": [surface(1.0)], "variance_surfaces": [surface(2.0)]}
    original = cell(
        "DARTS_V2",
        trainings=[training(1.0, 0.5), training(1.0, 0.3, seed=1)],
        **measured,
    )
    narrow = variants((1.0, 5), (1.0, 3), (2.5, 4), (4.0, 2), **measured)
    narrow = [
        variant._replace(trainings=[training(2.0 - i / 10, 1.0), training(2.0, 1.0)])
        for i, variant in enumerate(narrow)
    ]
    page = write(tmp_path, [original, *narrow])
    assert page.texts["h1"] == ["Cells & cells"]
    assert page.texts["h2"] == [
        "Topology",
        "Convergence",
        "Loss landscape",
        "Gradient variance",
        "What goes with width",
        "Configuration",
    ]
    assert "lower than that of DARTS_V2 for 0 of 4" in page.words()[0]
    # Drawings, histogram, two panels each of loss and accuracy, five charts a cell.
    assert page.words("figcaption")[:5] == [
        "(a) C1, 1c, 5",
        "(b) C2, 1c, 3",
        "(c) C3, 2.5c, 4",
        "(d) DARTS_V2, 3.5c, 3, the original",
        "(e) C4, 4c, 2",
    ]
    assert page.texts["strong"] == ["(d) DARTS_V2, 3.5c, 3, the original"]
    assert len(page.texts["svg"]) == 5 + 1 + 4 + 5 * 5
    (row,) = page.marked[1]
    assert list(row.values()) == [
        *("(d) DARTS_V2", "3.5 / 2.5", "3.5 / 2.5", "3 / 3", "- / -", "1.235")
    ]
    (row,) = page.marked[2]
    assert list(row.values()) == [
        *("(d) DARTS_V2", "0.7000 ± 0.0707", "0.4000 ± 0.1414"),
        *("50.00% ± 0.00%", "0 of 2"),
    ]
    (row,) = page.marked[3]
    assert row["plane within 1 nat of the center"] == "55.6%"
    assert row["loss at the center (nats)"] == "0.2500"
    rows = {row["quantity"]: row for row in page.table("quantity")}
    row = rows["mean test loss over epochs (nats), learning rate 0.025"]
    assert row["cells"] == "5"
    assert row["width: Spearman"].startswith("-0.87 [-1.00, ")
    # All final accuracies are the same.
    row = rows["final test accuracy, learning rate 0.025"]
    assert list(row.values())[1:] == ["5", "-", "-", "-", "-"]


def test_sections_without_data_are_left_out(tmp_path):
    page = write(tmp_path, [cell("A")])
    assert page.texts["h2"] == ["Topology", "Configuration"]
    assert "and 0 variants of it." in page.words()[0]
    pair = [cell("A", trainings=[training(1.0)]), *variants((1.0, 3))]
    page = write(tmp_path, pair)
    assert page.texts["h2"][1:3] == ["Convergence", "What goes with width"]
    assert "need numbers of 4 cells or more" in page.words()[-1]
    assert "and 1 variant of it." in page.words()[0]
    assert "learning rate" not in page.words()[0]


def test_diverged_trainings_are_counted_and_not_averaged(tmp_path):
    wild = [training(9.0, 1e30, "inf", diverged=True), training(1.0, 0.5, seed=1)]
    lost = [studies.Training(0.025, seed, [], True) for seed in range(2)]
    (narrow,) = variants((1.0, 5), trainings=lost)
    page = write(tmp_path, [cell("A", trainings=wild), narrow])
    assert [list(row.values()) for row in page.table("diverged")] == [
        ["(a) C1", "-", "-", "-", "2 of 2"],
        ["(b) A", "0.7500", "0.5000", "50.00%", "1 of 2"],
    ]
    legends = [text for text in page.texts["svg"] if "A: diverged" in text]
    assert len(legends) == 2


def test_numbers_that_are_not_finite_are_said_to_be(tmp_path):
    broken = surface(1.0)
    broken.values["loss"][1, 1] = math.inf
    page = write(tmp_path, [cell("A", loss_surfaces=[broken])])
    (row,) = page.table("loss at the center (nats)")
    assert list(row.values()).count("not finite") == 2
    assert page.words("figcaption")[-1] == (
        "3.5c, 3, the original. Not finite: 1 of 9 points"
    )


def test_panels_have_three_variants_each_and_one_scale(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        curves,
        "line_chart",
        lambda bands, **options: drawn.append((bands, options["y_limits"])),
    )
    monkeypatch.setattr(curves, "svg", lambda chart, description: "<svg></svg>")
    places = [(1.0, 5), (1.0, 4), (1.5, 5), (2.0, 4), (4.0, 2)]
    losses = [3.0] * 9 + [2.0] * 11  # the first two epochs of 20 may be cut
    cells = variants(*places, trainings=[training(*losses)])
    losses = [9.0, 1.0, 0.5, *[0.2] * 17]
    study = studied_cells.in_paper_order(
        [cell("A", trainings=[training(*losses)]), *cells]
    )
    trained = list(range(6))
    cell_charts.learning_curves(study, trained, 0.025, "test/loss")
    labels = [[band.label for band in bands] for bands, _ in drawn]
    assert labels == [["A", "C1", "C2", "C3"], ["A", "C4", "C5"]]
    assert drawn[0][0][0].color == curves.BLUE
    assert len({band.color for band in drawn[0][0]}) == 4
    (limits,) = {limits for _, limits in drawn}
    assert limits == pytest.approx((0.2 - 0.04 * 2.8, 3.0 + 0.04 * 2.8))


def test_the_chart_of_all_cells_marks_the_studied_ones():
    cells = [cell("A"), cell("B"), *variants((1.0, 5))]
    # A cell of five nodes has no place among those of four.
    cells.append(cell("five", genotypes.named("ENAS")))
    study = studied_cells.in_paper_order(cells)
    (axes,) = cell_charts.space_chart(study, 4).axes
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    assert texts["1.78%"][0] in (2.5, 4.0) and len(axes.patches) == 16
    assert texts["a"][0] == 1.0 and texts["b c"][0] == 3.5 and "d" not in texts


def test_a_study_refuses_what_does_not_fit(tmp_path):
    surfaces = {"loss_surfaces": [analysis.Surface(np.zeros(1), np.zeros(1), {})]}
    negative = surface(1.0)
    negative.values["gradient_variance"][0, 0] = -4.0
    flawed = [
        ([], "there are 0 cells; expected the original at least"),
        ([cell("A"), cell("A")], "2 cells are called 'A'; expected a name of its own"),
        ([cell("A", trainings=[training()])], "has 'test/loss' of epoch 0 only"),
        ([cell("A", **surfaces)], "a surface of A has no values; expected 'loss'"),
        (
            [cell("A", variance_surfaces=[negative])],
            "surface of A has 'gradient_variance' down to -4; expected 0 or more",
        ),
    ]
    for cells, message in flawed:
        with pytest.raises(ValueError, match=message):
            write(tmp_path, cells)
    assert not list(tmp_path.iterdir())
