"""Reports on autoencoders: what they say, and the pictures in them."""

import re

import numpy as np
import pytest
from pages import check_report

from jaxnas import analysis, genotypes, report, studies

DRAWING = '<svg viewBox="0 0 9 9"><title>chain</title></svg>'
GENOTYPE = genotypes.AutoencoderGenotype((3,), (8,), (1,), (True,))
CONFIG = {"mask": "half"}
HISTORY = [
    {"epoch": 1, "test/loss": 0.2, "test/psnr": 9.0, "theta_max_mean": 0.25},
    {"epoch": 2, "test/loss": 0.1, "test/psnr": 12.0, "theta_max_mean": 0.5},
]


def autoencoder(name, *ratios):
    trained = [{"psnr": r, "ssim": r / 100, "loss": 0.01} for r in ratios]
    return studies.Autoencoder(name, GENOTYPE, 1_234_567, 8_900_000.0, trained)


def restorations(channels=3, num=4):
    shape = (num, 12, 12, channels)
    levels = np.linspace(0, 1, np.prod(shape), dtype=np.float32).reshape(shape)
    return studies.Restorations(
        levels / 2, levels, levels, np.arange(num, dtype=np.float32) + 20.25
    )


def study(found, random, **changes):
    random = [autoencoder(f"random {i}", *r) for i, r in enumerate(random, start=1)]
    found = autoencoder("found", *found)
    differences = {
        metric: analysis.difference_from_random(
            found.values(metric), [other.values(metric) for other in random]
        )
        for metric in (studies.RESTORATION_METRICS if random else ())
    }
    return studies.InpaintingStudy(
        found=found,
        searched={"psnr": 12.3456, "ssim": 0.5, "loss": 0.06},
        random=random,
        num_epochs=6 if random else 0,
        differences=differences,
        restorations={kind: restorations() for kind in ("first", "best", "worst")},
        params={},
    )._replace(**changes)


def search_page(tmp_path, result, **changes):
    arguments = {
        "title": "Search",
        "summary": {"data": "digits"},
        "config": CONFIG,
        "history": HISTORY,
        "drawing": DRAWING,
        "study": result,
        "uniform_level": 0.2,
    }
    path = tmp_path / "report.html"
    report.inpainting_report(path, **arguments | changes)
    return check_report(path)


BETTER = study((24.0, 25.0), [(20.0, 20.5), (20.5, 21.5), (20.25, 21.25)])


def test_the_report_of_a_search(tmp_path):
    page = search_page(tmp_path, BETTER)
    assert page.texts["h2"] == [
        *("Trained from scratch", "Restored images", "Found autoencoder"),
        *("Course of the search", "Configuration"),
    ]
    assert (
        "PSNR: found 24.50 ± 0.71 dB, 3 random autoencoders 20.67 ± "
        in (page.words()[0])
    )
    assert "the found one is better" in page.words()[0]
    rows = page.table("PSNR, seed 1")
    names = [row["autoencoder"] for row in rows]
    assert names == ["found", "random 2", "random 3", "random 1"]
    assert rows[0]["PSNR, seed 1"] == "25.00" and rows[0]["nodes"] == "1"
    assert page.marked[page.tables.index(rows)][0]["autoencoder"] == "found"
    assert page.table("PSNR (dB)", 1)[0]["PSNR (dB)"] == "12.35"
    labels = [value for tag, name, value in page.attributes if name == "aria-label"]
    for title in ("The first test images", "Restored best", "Restored worst"):
        assert any(label and label.startswith(title) for label in labels)
    assert any(label and label.startswith("PSNR by epoch") for label in labels)
    assert any(label and label.startswith("Convergence") for label in labels)


def test_no_comparison_is_said_to_be_none(tmp_path):
    result = study((), [], restorations={})
    text = report.restoration_text(result)
    assert "nothing is known of its worth (--scratch-random N" in text
    page = search_page(tmp_path, result)
    assert "Trained from scratch" not in page.texts["h2"]
    assert "Restored images" not in page.texts["h2"]


@pytest.mark.parametrize(
    ("random", "words"),
    [
        ([(20.0,), (30.0,)], "no difference shows"),
        ([(40.0,), (40.5,), (41.0,), (40.2,), (40.9,)], "the found one is worse"),
        ([(10.0,), (10.5,), (11.0,), (10.2,), (10.9,)], "the found one is better"),
    ],
)
def test_words_follow_the_interval(random, words):
    text = report.restoration_text(study((25.0,), random))
    assert text.count(words) == 2 and "(1 seed)" in text


@pytest.mark.parametrize("channels", [1, 3])
def test_the_report_of_a_training(tmp_path, channels):
    path = tmp_path / "report.html"
    report.restoration_report(
        path,
        title="Training",
        summary={},
        config=CONFIG,
        history=HISTORY,
        drawing=DRAWING,
        test={"psnr": 21.0, "ssim": 0.75, "loss": 0.008},
        restorations={"first": restorations(channels)},
    )
    page = check_report(path)
    (row,) = page.table("SSIM")
    assert (row["PSNR (dB)"], row["SSIM"]) == ("21.00", "0.7500")
    text = path.read_text()
    assert len(re.findall("data:image/png", text)) == 1
    assert {"20.2", "masked", "restored", "original"} <= set(page.texts["text"])
