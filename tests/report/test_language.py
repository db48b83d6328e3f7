"""Reports on recurrent cells and language models: what they say."""

import numpy as np
import pytest
from pages import check_report

from jaxnas import analysis, genotypes, report, spaces, studies, train

DRAWING = '<svg viewBox="0 0 9 9"><title>cell</title></svg>'
SPACE = spaces.enas_recurrent(2)
CELLS = [(0, 0, 1), (2, 0, 3)]
HISTORY = [
    {"epoch": 0},
    {
        **{"epoch": 1, "train/perplexity": 300.5, "validation/perplexity": 200.0},
        **{"train/num_skipped": 0.0, "reward": 0.5, "baseline": 0.4, "entropy": 9.0},
    },
    {
        **{"epoch": 2, "train/perplexity": 99.0, "validation/perplexity": "inf"},
        **{"train/num_skipped": 0.0, "reward": 0.6, "baseline": 0.5, "entropy": 8.0},
    },
]


def model(name, *test):
    genotype = SPACE.decode(CELLS[0])
    validation = [value + 1 for value in test]
    return studies.StudiedLanguageModel(name, genotype, 1_234_567, validation, test)


def study(found, random, **changes):
    random = [model(f"random {i}", *test) for i, test in enumerate(random, start=1)]
    difference = None
    if random:
        tests = [other.test for other in random]
        difference = analysis.difference_from_random(found, tests)
    return studies.LanguageStudy(
        found=model("found", *found),
        searched={"loss": 5.0, "perplexity": 148.4},
        candidates=[
            train.Ranked(np.array(arch), i, {"loss": 5.0 + i, "perplexity": 148.4 + i})
            for i, arch in enumerate(CELLS)
        ],
        random=random,
        num_epochs=6 if random else 0,
        difference=difference,
        sample="every <unk> sings\nmany pigs" if random else "",
        params={},
    )._replace(**changes)


def search_page(tmp_path, result, history=HISTORY):
    path = tmp_path / "report.html"
    report.language_report(
        path,
        title="Search",
        summary={"data": "grammar"},
        config={"num_nodes": 2},
        history=history,
        drawing=DRAWING,
        study=result,
        space=SPACE,
    )
    return check_report(path)


def labels(page):
    return [value or "" for _, name, value in page.attributes if name == "aria-label"]


BETTER = study((60.0, 61.0), [(70.0, 70.5), (71.0, 71.5), (70.25, 71.25)])


def test_the_report_of_a_search(tmp_path):
    page = search_page(tmp_path, BETTER)
    assert page.texts["h2"] == [
        "Trained from scratch",
        "What the found cell's language model writes",
        *("Found cell", "Course of the search", "Best candidates", "Configuration"),
    ]
    assert (
        "test perplexity: found 60.50 ± 0.71, 3 random cells 70.75 ±"
        in (page.words()[0])
    )
    rows = page.table("test perplexity")
    names = [row["cell"] for row in rows]
    assert names == ["found", "random 1", "random 3", "random 2"]
    assert (rows[0]["seed 1"], rows[0]["validation perplexity"]) == ("61.00", "61.50")
    assert rows[0]["parameters (M)"] == "1.235"
    assert page.marked[page.tables.index(rows)][0]["cell"] == "found"
    ranking = page.table("rank")
    assert [row["validation perplexity"] for row in ranking] == ["148.40", "149.40"]
    assert genotypes.to_text(SPACE.decode(CELLS[1])) in ranking[1]["genotype"]
    assert page.texts["pre"] == ["every <unk> sings\nmany pigs"]
    drawn = [label.partition(" by epoch")[0] for label in labels(page)]
    assert drawn[1:] == [
        *("Perplexity", "Reward of the controller", "Entropy of the controller"),
    ]
    assert "Points left out, not finite: 1." in page.words("figcaption")


def test_steps_that_were_skipped_are_drawn(tmp_path):
    history = [*HISTORY, {"epoch": 3, "train/num_skipped": 2.0}]
    page = search_page(tmp_path, BETTER, history)
    assert "Not finite by epoch: skipped steps" in labels(page)


def test_no_comparison_is_said_to_be_none(tmp_path):
    result = study((), [])
    text = report.language_text(result)
    assert "nothing is known of its worth (--scratch-random N" in text
    page = search_page(tmp_path, result)
    assert "Trained from scratch" not in page.texts["h2"]
    assert "pre" not in page.texts


@pytest.mark.parametrize(
    ("found", "random", "words"),
    [
        (65.0, [60.0, 70.0], "[-110.04, +110.04] (95 %; below 0 is better): no diff"),
        (65.0, [90.0, 90.5, 91.0, 90.2, 90.9], "the found one is better."),
        (65.0, [40.0, 40.5, 41.0, 40.2, 40.9], "the found one is worse."),
    ],
)
def test_lower_perplexities_are_better(found, random, words):
    text = report.language_text(study((found,), [(value,) for value in random]))
    assert words in text and "(1 seed)" in text


def test_the_report_of_a_training(tmp_path):
    path = tmp_path / "report.html"
    report.language_model_report(
        path,
        title="Training",
        summary={},
        config={"hidden_size": 4},
        history=HISTORY,
        drawing=DRAWING,
        perplexities={"validation": 61.234, "test": 58.567},
        epoch=2,
        sample="many pigs",
    )
    page = check_report(path)
    rows = page.table("perplexity")
    assert [row["perplexity"] for row in rows] == ["61.23", "58.57"]
    assert "with the parameters after epoch 2, which" in page.words()[0]
    assert page.texts["pre"] == ["many pigs"]
    assert labels(page) == ["Perplexity by epoch: train, validation"]
