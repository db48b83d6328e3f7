"""The search command on ENAS's presets, cut down to seconds."""

import dataclasses
import json
import pathlib

import cifar_search
import presets.cifar_train
import pytest
from presets.cifar_search import PRESETS
from test_commands import assert_refused, check_report, run
from test_commands import variables as variables  # a fixture

from jaxnas import genotypes, metrics

TINY = (
    *("--channels", "2", "--epochs", "2", "--max-images", "160", "--batch-size", "32"),
    *("--validation-images", "64", "--num-archs", "3", "--searcher-steps", "2"),
    *("--num-candidates", "3", "--num-random", "2"),
)
SPACES = {
    "quick-enas": ("--num-cells", "3", "--num-nodes", "1"),
    "quick-enas-macro": ("--num-layers", "3"),
}


@pytest.fixture(scope="module", params=list(SPACES))
def finished(request, tmp_path_factory, variables):
    """A preset, the folder of its run, and what was printed."""
    preset = request.param
    workdir = tmp_path_factory.mktemp(preset) / "run"
    flags = ("--preset", preset, *TINY, *SPACES[preset], "--workdir", workdir)
    return preset, workdir, run(variables, "cifar_search", *flags)


def test_a_search_with_a_controller(finished):
    preset, workdir, (status, output, errors) = finished
    assert status == 0, errors
    genotype = genotypes.load(workdir / "genotype.json")
    if preset == "quick-enas":
        assert len(genotypes.check(genotype).normal) == 2
    else:
        assert len(genotypes.check_macro(genotype).ops) == 3
    assert genotypes.to_text(genotype) in output
    assert f"cifar_train.py --preset {preset} --genotype" in output
    assert "architectures that the searcher samples: " in output
    log = metrics.read(workdir / "metrics.jsonl")
    # 96 images for the weights: three steps, then two of the controller.
    assert [entry["step"] for entry in log] == [0, 5, 10]
    assert {"reward", "baseline", "entropy"} <= set(log[-1])
    assert ("skip_penalty" in log[-1]) == (preset == "quick-enas-macro")


def test_the_ranking_can_be_read_back(finished):
    _, workdir, _ = finished
    candidates = json.loads((workdir / "candidates.json").read_text())
    accuracies = [entry["accuracy"] for entry in candidates]
    assert accuracies == sorted(accuracies, reverse=True)
    best = genotypes.from_json(json.dumps(candidates[0]["genotype"]))
    assert candidates[0]["name"] == "found"
    assert best == genotypes.load(workdir / "genotype.json")


def test_the_report_of_a_search_with_a_controller(finished):
    _, workdir, _ = finished
    check_report(workdir / "report.html")
    text = (workdir / "report.html").read_text(encoding="utf-8")
    for words in (
        "Reward of the controller",
        "Entropy of the controller",
        "Ranked by their error",
        "2 architectures that the searcher samples",
    ):
        assert words in text


def test_settings_of_the_scripts(tmp_path, variables):
    flags = ("--preset", "quick-enas-macro", *TINY, "--num-layers", "3")
    changed = ("--controller", "script", "--entropy-weight", "0.1", "--skips", "add")
    status, _, errors = run(
        variables, "cifar_search", *flags, *changed, "--workdir", tmp_path / "run"
    )
    assert status == 0, errors
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["controller"], config["entropy_weight"]) == ("script", 0.1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--preset", "quick-enas-macro", "--num-layers", "2"), ("2 layers",)),
        (("--preset", "quick-enas", "--validation-images", "1500"), ("1500",)),
        (("--preset", "quick-enas", "--searcher-steps", "0"), ("--searcher-steps",)),
        (("--preset", "quick-enas", "--dropout", "1"), ("dropout is 1.0",)),
        (("--preset", "quick-enas", "--searcher", "asng", "--num-archs", "1"), ("1;",)),
        (
            ("--preset", "quick-enas", "--controller-learning-rate", "0"),
            ("learning_rate is 0.0",),
        ),
    ],
)
def test_wrong_settings(tmp_path, variables, flags, words):
    result = run(variables, "cifar_search", *flags, "--workdir", tmp_path / "run")
    assert_refused(result, *words)


@pytest.mark.parametrize(
    ("preset", "changes", "expected"),
    [
        ("quick", {}, "--preset quick --genotype g.json"),
        ("quick-enas-macro", {}, "--preset quick-enas-macro --genotype g.json"),
        (
            "asng-cifar10",
            {"data_dir": "my data"},
            "--preset asng-cifar10 --genotype g.json --data-dir 'my data'",
        ),
        (
            "enas-micro-cifar10",
            {"dataset": "cifar100"},
            "--preset enas-micro-cifar10 --genotype g.json --dataset cifar100",
        ),
        (
            "enas-macro-cifar10",
            {},
            "--preset enas-macro-cifar10 --genotype g.json",
        ),
    ],
)
def test_the_command_that_trains_what_was_found(preset, changes, expected):
    config = dataclasses.replace(PRESETS[preset](), **changes)
    command = cifar_search.training_command(config, pathlib.Path("g.json"))
    assert command == f"python launch/cifar_train.py {expected}"
    train_preset = command.split()[3]
    assert train_preset in presets.cifar_train.PRESETS
