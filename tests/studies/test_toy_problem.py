"""The toy problem: seeds, settings that are kept, the command and its report."""

import functools
import json

import asng_toy
import jax
import jax.numpy as jnp
import numpy as np
import presets.asng_toy
import pytest
import session
from commands import assert_refused, exit_status
from helpers import visible
from pages import check_report

from jaxnas import report, search, studies
from jaxnas.studies import ToyPoint, ToyProblem

SMALL = ToyProblem(num_decisions=4, num_categories=3, max_iterations=2000)
KEY = jax.random.key(0)


@functools.cache
def solver():
    return studies.make_toy_solver(search.asng(SMALL.cardinalities), SMALL)


def test_a_seed_does_not_depend_on_the_others():
    keys = studies.toy_keys(KEY, 6)
    together = np.asarray(solver()(keys, 0.05))
    assert (together > 0).all() and len(set(together.tolist())) > 1
    alone = [int(solver()(keys[i : i + 1], 0.05)[0]) for i in (0, 3)]
    assert alone == together[[0, 3]].tolist()
    fewer = studies.toy_keys(KEY, 2)
    assert (jax.random.key_data(fewer) == jax.random.key_data(keys)[:2]).all()


def test_it_is_solved_by_what_the_searcher_knows():
    """A searcher that only samples the best needs what SGD needs; others never end."""

    def fixed(category):
        random = search.random_search(SMALL.cardinalities)
        ask = lambda state, key, num: jnp.full((num, 4), category, jnp.int32)  # noqa: E731
        return random._replace(ask=ask)

    problem = SMALL._replace(max_iterations=50)
    keys = studies.toy_keys(KEY, 3)
    solved, missed, still = (
        np.asarray(studies.make_toy_solver(fixed(category), problem)(keys, rate))
        for category, rate in ((0, 0.05), (1, 0.05), (0, 0.0))
    )
    assert (solved > 0).all() and (missed == 0).all()
    # Where x does not move, only the first draw counts.
    assert set(still.tolist()) <= {0, 1}


def test_losses_of_the_first_iteration():
    """The searcher is told the losses of the definition, with common noise."""
    told = []

    def tell(state, archs, losses):
        jax.debug.callback(lambda *values: told.append(values), archs, losses)
        return state, {}

    problem = SMALL._replace(max_iterations=1, num_archs=64)
    searcher = search.random_search(SMALL.cardinalities)._replace(tell=tell)
    studies.make_toy_solver(searcher, problem)(studies.toy_keys(KEY, 1), 0.0)
    jax.effects_barrier()
    # A linear function of the one-hot categories, whatever x and z are.
    archs, losses = map(np.asarray, told[0])
    hot = np.eye(3)[archs].reshape(64, 12)
    fit, *_ = np.linalg.lstsq(hot, losses, rcond=None)
    np.testing.assert_allclose(hot @ fit, losses, rtol=1e-4)


def points_of(workdir=None, exponents=(0.0,), **options):
    return studies.toy_problem(
        **{"algorithms": ["asng"], "num_seeds": 3, "problem": SMALL, "key": KEY}
        | options,
        exponents=exponents,
        workdir=workdir,
    )


def test_finished_settings_are_not_computed_again(tmp_path, capsys):
    (first,) = points_of(tmp_path)
    assert first[:3] == ("asng", 0.0, 0.05)
    assert first.iterations == tuple(
        np.asarray(solver()(studies.toy_keys(KEY, 3), 0.05)).tolist()
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("asng, initial step n^-0, learning rate 0.05: 3 of 3 ")
    # What the folder has is believed; what it lacks is added.
    content = json.loads((tmp_path / "points.json").read_text())
    content[0]["iterations"] = [1, None, 3]
    (tmp_path / "points.json").write_text(json.dumps(content))
    kept, added = points_of(tmp_path, (0.0, 1.0))
    assert kept.iterations == (1, None, 3)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert points_of(tmp_path, (1.0, 0.0)) == [added, kept]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[1]", '[{"algorithm": "asng"}]'),
        '[{"algorithm": "asng", "exponent": 0.0, "learning_rate": 0.05, '
        '"iterations": [1, 2]}]',
        '[{"algorithm": "asng", "exponent": 0.0, "learning_rate": 0.05, '
        '"iterations": [1, 2, 0.5]}]',
    ],
)
def test_damaged_points_are_refused(tmp_path, text):
    (tmp_path / "points.json").write_text(text)
    with pytest.raises(ValueError, match=r"points\.json is no list of measured"):
        points_of(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithms": []}, "algorithms is ''; expected one or more"),
        ({"algorithms": ["asng"] * 2}, "algorithms is 'asng asng'; expected"),
        ({"algorithms": ["grid"]}, "algorithm is 'grid'; expected one of asng, sng"),
        ({"exponents": (-9.0,)}, "init_delta is .*; expected a number between 0"),
        ({"learning_rates": (0.0,)}, "learning rate is 0.0; expected a positive"),
        ({"num_seeds": 0}, "num_seeds is 0; expected at least 1"),
        (
            {"problem": SMALL._replace(num_categories=1)},
            "num_categories is 1; expected",
        ),
        ({"problem": SMALL._replace(num_archs=1)}, "num_archs is 1; expected"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        points_of(**options)


def test_medians_with_failures():
    point = ToyPoint("asng", 0.0, 0.05, (10, None, 20, 40))
    assert (point.num_solved, point.median) == (3, 30.0)
    assert point._replace(iterations=(10, None)).median == np.inf
    assert point._replace(iterations=(None, None)).median == np.inf
    assert point._replace(iterations=(None, 7, 9)).median == 9.0


# The report and the command -----------------------------------------------------------


def write(path, points):
    report.toy_problem_report(
        path, title="Toy", summary={}, config={}, problem=SMALL, points=points
    )
    return check_report(path)


def test_the_report_has_medians_and_failures(tmp_path):
    points = [
        ToyPoint("asng", 0.0, 0.05, (100, 200, 300)),
        ToyPoint("asng", 1.0, 0.05, (100, 210, 1300)),
        ToyPoint("sng", 0.0, 0.05, (None, 50, None)),
        ToyPoint("sng", 1.0, 0.05, (None, 60, 70)),
        ToyPoint("asng", 0.0, 0.1, (7, 8, 9)),
    ]
    page = write(tmp_path / "report.html", points)
    assert page.words()[0].startswith("4 decisions among 3 categories; 3 seeds with")
    rows = page.table("algorithm")
    assert [row["median"] for row in rows] == ["200", "210", "-", "70", "8"]
    assert [row["failed"] for row in rows] == ["0", "0", "2", "1", "0"]
    assert rows[1] == {
        **{"algorithm": "asng", "initial step": "0.125", "learning rate": "0.05"},
        **{"solved": "3", "failed": "0", "fewest": "100", "median": "210"},
        "most": "1,300",
    }
    captions = page.texts["figcaption"]
    # Two learning rates, then two initial steps.
    assert captions == [
        "Not solved: sng at 1: 2 of 3 seeds; sng at 0.125: 1 of 3 seeds.",
        "Solved by all seeds.",
        "Not solved: sng at 0.05: 2 of 3 seeds.",
        "Not solved: sng at 0.05: 1 of 3 seeds.",
    ]
    assert len(write(tmp_path / "report.html", points[:4]).texts["svg"]) == 1


def test_a_report_refuses_no_points(tmp_path):
    with pytest.raises(ValueError, match="there are 0 algorithms; expected 1 to 5"):
        write(tmp_path / "report.html", [])


SMALL_FLAGS = (
    *("--decisions", 4, "--categories", 3, "--max-iterations", 2000, "--seeds", 3),
    *("--searcher", "asng", "--exponents", 0),
)


def test_the_command(monkeypatch, capsys, tmp_path):
    workdir = tmp_path / "run"
    flags = (*SMALL_FLAGS, "--workdir", workdir)
    assert exit_status(monkeypatch, asng_toy.main, *flags) == 0
    output, errors = capsys.readouterr()
    assert errors == "" and f"report: {workdir / 'report.html'}" in output
    assert visible(workdir) == {
        *("config.json", "points.json", "results.json", "report.html"),
    }
    (result,) = json.loads((workdir / "results.json").read_text())
    (point,) = points_of()
    assert tuple(result["iterations"]) == point.iterations
    assert (result["solved"], result["median"]) == (3, point.median)
    (row,) = check_report(workdir / "report.html").table("algorithm")
    assert row["median"] == f"{point.median:,.0f}"

    # A larger grid goes on in the folder; another problem does not.
    capsys.readouterr()
    more = ("--learning-rates", 0.05, 0.1)
    assert exit_status(monkeypatch, asng_toy.main, *flags, *more) == 0
    output, _ = capsys.readouterr()
    assert "learning rate 0.1:" in output and "learning rate 0.05:" not in output
    assert exit_status(monkeypatch, asng_toy.main, *flags, "--seeds", 4) == 2
    assert "seeds (there 3, now 4)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--searcher"], "algorithms is ''; expected one or more"),
        (["--searcher", "grid"], "invalid choice 'grid'"),
        (["--decisions", 2], "--decisions is 2; expected at least 3"),
        (["--learning-rates", 0], "learning rate is 0.0; expected a positive"),
    ],
)
def test_wrong_input(monkeypatch, capsys, tmp_path, flags, words):
    workdir = tmp_path / "run"
    status = exit_status(monkeypatch, asng_toy.main, *flags, "--workdir", workdir)
    assert_refused((status, *capsys.readouterr()), words)
    assert not workdir.exists()


def test_presets():
    name, config = session.parse(presets.asng_toy.PRESETS, None, [])
    assert (name, config.decisions, config.seeds) == ("quick", 20, 10)
    _, config = session.parse(presets.asng_toy.PRESETS, None, ["--preset", "asng-toy"])
    # toy/main_toy.py
    assert (config.decisions, config.categories, config.archs_per_step) == (30, 5, 2)
    assert (config.max_iterations, config.momentum) == (100_000, 0.9)
    assert 0.05 in config.learning_rates
