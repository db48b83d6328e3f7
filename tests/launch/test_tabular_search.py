"""The comparison of searchers on a table: command, results and report."""

import itertools
import json

import numpy as np
import presets.tabular_search
import pytest
import session
import tabular_search
from commands import assert_refused, exit_status
from helpers import visible
from pages import check_report

from jaxnas import report, studies

ARCHS = np.array(list(itertools.product(range(3), repeat=3)), np.uint8)
ACCURACY = np.linspace(10, 90, 27, dtype=np.float32)
SMALL = ("--evaluations", 8, "--seeds", 3)
BOTH = ("--searcher", "asng", "random")


@pytest.fixture
def npz(tmp_path):
    """A table like that of NAS-Bench-201, with 3 decisions of 3 categories."""
    path = tmp_path / "small.npz"
    names = np.array(["cifar10", "cifar100"])
    values = np.stack([ACCURACY, ACCURACY[::-1]], 1)
    np.savez(path, archs=ARCHS, val12=values, test200=values + 1, datasets=names)
    return path


@pytest.fixture
def csv(tmp_path):
    """A table of fractions, whose best architecture is not the best by signal."""
    path = tmp_path / "small.csv"
    rows = [
        f"{'abc'[x]},{y},{z},{i / 27},{(i + 1) % 27 / 26}"
        for i, (x, y, z) in enumerate(ARCHS)
    ]
    path.write_text("\n".join(["x,y,z,valid,test", *rows, ""]), encoding="utf-8")
    return path


def run(monkeypatch, capsys, *flags):
    """Exit status, output and errors of the command."""
    status = exit_status(monkeypatch, tabular_search.main, *flags)
    return status, *capsys.readouterr()


def test_a_run_leaves_results_and_a_report(monkeypatch, capsys, tmp_path, npz):
    workdir = tmp_path / "run"
    (tmp_path / "elsewhere").mkdir()
    flags = (
        *("--table", npz, *SMALL, "--hidden-size", 4, "--workdir", workdir),
        *("--searcher", "asng", "sng", "adam_sng", "reinforce", "random"),
    )
    status, output, errors = run(monkeypatch, capsys, *flags)
    assert (status, errors) == (0, "")
    assert "\n3 decisions:\n  0: 0 to 2\n  1: 0 to 2\n  2: 0 to 2\n" in output
    names = {"config.json", "results.json", "report.html"}
    assert visible(workdir) == names
    text = (workdir / "results.json").read_text()
    results = json.loads(text)
    assert (results["unit"], results["evaluations"], results["seeds"]) == (
        *("percent", 8, 3),
    )
    assert (results["best"], results["best_architecture"]) == (91.0, [2, 2, 2])
    assert list(results["searchers"]) == [
        *("asng", "sng", "adam_sng", "reinforce", "random"),
    ]
    for final in results["searchers"].values():
        incumbent = final["incumbent"]
        values = np.array(incumbent["values"])
        assert np.isin(values.astype(np.float32), ACCURACY + 1).all()
        assert incumbent["mean"] == pytest.approx(values.mean())
        assert incumbent["std"] == pytest.approx(values.std(ddof=1))
        assert incumbent["mean_regret"] == pytest.approx(91 - values.mean(), abs=1e-4)
        assert f"{incumbent['mean']:.2f} ± {incumbent['std']:.2f}" in output
    random = results["searchers"]["random"]
    assert random["mode"] == random["incumbent"]
    assert f"report: {workdir / 'report.html'}" in output
    page = check_report(workdir / "report.html")
    assert page.texts["h1"] == ["Searchers on small.npz"]
    assert len(page.texts["svg"]) == 2

    # The same again, also where the table has moved; but not with other contents.
    moved = npz.rename(tmp_path / "elsewhere" / npz.name)
    assert run(monkeypatch, capsys, *flags, "--table", moved)[0] == 0
    assert (workdir / "results.json").read_text() == text
    np.savez(moved, archs=ARCHS, val12=ACCURACY, test200=ACCURACY, notes=ACCURACY)
    status, _, errors = run(monkeypatch, capsys, *flags, "--table", moved)
    assert status == 2 and "source (there 'small.npz (27 architectures" in errors


def test_a_csv_file_of_fractions_and_a_single_seed(monkeypatch, capsys, tmp_path, csv):
    status, output, errors = run(
        monkeypatch,
        capsys,
        *("--table", csv, "--valid", "valid", "--test", "test", "--no-percent"),
        *("--searcher", "random", "--evaluations", 600, "--archs-per-step", 300),
        *("--seeds", 1, "--workdir", tmp_path / "run"),
    )
    assert (status, errors) == (0, "")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "3 decisions:\n  x: a, b, c\n  y: 0, 1, 2\n  z: 0, 1, 2\n" in output
    assert results["best_architecture"] == ["c", "2", "1"]
    assert (results["best"], results["best_by_valid"]) == (1.0, 0.0)
    # All 27 have been seen, so the incumbent is the best by signal.
    incumbent = results["searchers"]["random"]["incumbent"]
    assert (incumbent["mean"], incumbent["mean_regret"]) == (0.0, 1.0)
    assert incumbent["std"] is None and "0.0000   1.0000" in output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--table", "no/such.npz"], "no/such.npz is no file"),
        ([], "--table is missing: expected a .npz or .csv file"),
        (["--searcher", "asng", "grid"], "invalid choice 'grid'"),
        (["--searcher", "asng", "asng"], "--searcher is 'asng asng'; expected one or"),
        (["--searcher"], "--searcher is ''; expected one or more"),
        (["--evaluations", 9], "--evaluations is 9; expected a multiple of --archs-"),
        (["--evaluations", 0], "--evaluations is 0; expected at least 1"),
        (["--seeds", 0], "--seeds is 0; expected at least 1"),
        (["--archs-per-step", 1], "--archs-per-step is 1; ASNG compares 2 or more"),
        (["--alpha", 0], "alpha is 0.0; expected a positive number"),
        (["--searcher", "sng", "--delta", 0], "delta is 0.0; expected a number betw"),
        (
            ["--searcher", "reinforce", "--learning-rate", 0],
            "learning_rate is 0.0; expected a positive number",
        ),
        (["--valid", "val"], "has no array 'val'; it has archs, datasets, test200"),
        (["--column", "svhn"], "'svhn' does not name one; expected a number from 0"),
        (["--no-percent"], "expected a fraction, 0 to 1"),
    ],
)
def test_wrong_input(monkeypatch, capsys, tmp_path, npz, flags, words):
    workdir = tmp_path / "run"
    given = () if not flags else ("--table", npz, *BOTH)
    result = run(monkeypatch, capsys, *given, *flags, "--workdir", workdir)
    assert_refused(result, words)
    assert not workdir.exists()


def test_presets():
    presets_of = presets.tabular_search.PRESETS
    name, config = session.parse(presets_of, None, [])
    assert (name, config.evaluations, config.searcher) == (
        *("nasbench201", 150, ("asng", "reinforce", "random")),
    )
    _, longer = session.parse(presets_of, None, ["--preset", "nasbench201-1000"])
    assert longer.evaluations == 1000


# The report -----------------------------------------------------------------------


def algorithm(name, final):
    values = np.linspace(0.1, final, 4)[None] + np.array([[0.0], [0.02]])
    return studies.Algorithm(name, values, values / 2)


def compare(path, algorithms, **options) -> None:
    arguments = {
        "title": "A & B",
        "summary": {"seed": "0"},
        "config": {"evaluations": 8},
        "evaluations": [2, 4, 6, 8],
        "best": 0.9,
    } | options
    report.comparison_report(path, algorithms=algorithms, **arguments)


def test_the_report_holds_results_and_curves(tmp_path):
    path = tmp_path / "report.html"
    compare(path, [algorithm("first", 0.5), algorithm("second", 0.7)])
    page = check_report(path)
    assert page.texts["h1"] == ["A & B"]
    best = "After 8 evaluations, 2 seeds each. Best of the table: accuracy 0.9"
    assert page.words()[0].startswith(best)
    first, second = page.table("searcher")
    assert second == {
        **{"searcher": "second", "incumbent: accuracy": "0.7100 ± 0.0141"},
        **{"mean regret": "0.1900", "mode: accuracy": "0.3550 ± 0.0071"},
        "its mean regret": "0.5450",
    }
    assert first["incumbent: accuracy"] == "0.5100 ± 0.0141"
    assert page.marked[1] == [second]
    assert all("10th to 90th percentile" in c for c in page.texts["figcaption"])
    assert sum("best of the table" in chart for chart in page.texts["svg"]) == 2


@pytest.mark.parametrize(
    ("algorithms", "message"),
    [
        ([], "there are 0 algorithms; expected 1 to 5"),
        ([algorithm(str(i), 0.5) for i in range(6)], "there are 6 algorithms"),
        (
            [studies.Algorithm("short", np.zeros((2, 4)), np.zeros((2, 3)))],
            r"mode of short has shape \(2, 3\); expected \(2, 4\), seeds and",
        ),
        (
            [algorithm("a", 0.5), studies.Algorithm("b", *np.zeros((2, 1, 4)))],
            r"incumbent of b has shape \(1, 4\); expected \(2, 4\)",
        ),
    ],
)
def test_a_report_refuses_what_does_not_fit(tmp_path, algorithms, message):
    with pytest.raises(ValueError, match=message):
        compare(tmp_path / "report.html", algorithms)
    assert not (tmp_path / "report.html").exists()


def test_spread():
    assert report.spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert report.spread(np.array([0.5], np.float32)) == (0.5, None)
