"""The search command on presets of ENAS and GHN, cut down to seconds."""

import functools
import json
import pathlib
import shlex

import chex
import cifar_search
import hypernetworks
import jax
import numpy as np
import pytest
import session
from commands import assert_refused, exit_status, run
from helpers import visible
from pages import check_report
from PIL import Image
from presets.cifar_search import PRESETS

from jaxnas import data, genotypes, ghn, metrics, spaces

TINY = (
    *("--channels", "2", "--epochs", "2", "--max-images", "40", "--batch-size", "8"),
    *("--validation-images", "16", "--num-archs", "3", "--searcher-steps", "2"),
    *("--num-candidates", "3", "--num-random", "2", "--scratch-random", "0"),
)
SCRATCH = ("--scratch-random", "2", "--scratch-epochs", "1")
SPACES = {
    "quick-enas": ("--num-cells", "3", "--num-nodes", "1", *SCRATCH),
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
    if preset == "quick-enas":
        assert "Trained from scratch for 1 epochs (2 seeds), test accuracy: " in output
        logs = [metrics.read(workdir / "scratch" / f"seed_{i}.jsonl") for i in (0, 1)]
        assert [len(log) for log in logs] == [3, 3]
        scratch = json.loads((workdir / "scratch.json").read_text())
        assert scratch["found"] == [log[0]["accuracy"] for log in logs]
        assert len(scratch["random"]) == 2 and len(scratch["difference"]) == 3
        assert not list((workdir / "scratch").glob("seed_*_*"))  # checkpoints
    else:
        assert "nothing is known of its worth" in output
    log = metrics.read(workdir / "metrics.jsonl")
    # 24 images for the weights: three steps, then two of the controller.
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


def test_a_search_with_a_hypernetwork(monkeypatch, capsys, tmp_path):
    """Trained on smaller blocks than it ranks; the top_k are trained once."""
    # Three operations instead of nine compile in half the time.
    few = ("sep_conv_3x3", "conv_1x1", "max_pool_3x3")
    few_ops = functools.partial(spaces.ghn_dag, ops=few)
    monkeypatch.setattr(spaces, "ghn_dag", few_ops)
    workdir = tmp_path / "run"
    values: dict[str, str] = dict(zip(TINY[::2], TINY[1::2], strict=True)) | {
        **{"--num-cells": "3", "--epochs": "1", "--num-archs": "1"},
        **{"--num-nodes": "4", "--num-train-nodes": "3", "--top-k-epochs": "1"},
        **{"--hidden-size": "4", "--num-steps": "1", "--searcher-steps": "1"},
        **{"--devices": "1", "--workdir": str(workdir)},
    }

    def flags_of(values) -> tuple[str, ...]:
        pairs: list[str] = [word for pair in values.items() for word in pair]
        return "--preset", "quick-ghn", *pairs

    flags = flags_of(values)

    def search():
        # Adam mixes types; the command itself does not run under strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            status = exit_status(monkeypatch, cifar_search.main, *flags)
        output, errors = capsys.readouterr()
        assert (status, errors) == (0, "")
        return output

    output = search()
    assert visible(workdir) == {
        *("config.json", "metrics.jsonl", "genotype.json", "report.html"),
        *("candidates.json", "top-k", "ghn.npz", "checkpoints", "ranking.jsonl"),
    }
    log = metrics.read(workdir / "metrics.jsonl")
    assert [line["epoch"] for line in log] == [0, 1]
    for line in log:
        assert 0 < line["blocks/min_difference"] <= line["blocks/mean_difference"] < 2
    assert output.count("top candidate ") == 3
    assert "cifar_train.py --preset quick-ghn --genotype" in output
    top_k = metrics.read(workdir / "top-k" / "seed_0.jsonl")
    candidates = json.loads((workdir / "candidates.json").read_text())
    accuracies = [candidate["trained_accuracy"] for candidate in candidates]
    assert accuracies == [line["accuracy"] for line in top_k]
    ranked = metrics.read(workdir / "ranking.jsonl")
    assert len({line["arch"] for line in ranked}) == len(ranked) == 3
    found = candidates[accuracies.index(max(accuracies))]
    assert found["name"] == "found"
    best = genotypes.from_json(json.dumps(found["genotype"]))
    assert best == genotypes.load(workdir / "genotype.json")
    check_report(workdir / "report.html")
    assert "accuracy, trained" in (workdir / "report.html").read_text("utf-8")

    # Its hypernetwork serves blocks of any size.
    larger = list(flags_of(values | {"--num-nodes": "5"}))
    _, config = session.parse(PRESETS, None, larger)
    net = config.space.supernet(data.load("digits"))
    assert isinstance(config.weights, hypernetworks.Hypernetwork)
    provider = hypernetworks.make_hypernetwork(config.weights, net)
    params = ghn.load(workdir / "ghn.npz", provider)
    written = jax.jit(provider.apply)(params, net.space.sample(jax.random.key(0)))
    chex.assert_tree_all_finite(written)

    # What is there is not trained again; what was lost is, with the same result.
    log = workdir / "top-k" / "seed_0.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    again = search()
    assert again.count("from scratch ") == 1 and "epoch" not in again
    assert metrics.read(log) == top_k
    assert json.loads((workdir / "candidates.json").read_text()) == candidates


def test_a_macro_search_with_a_hypernetwork(monkeypatch, capsys, tmp_path):
    ops = ("conv_3x3", "max_pool_3x3")
    monkeypatch.setattr(spaces, "enas_macro", lambda n: spaces.MacroSpace(n, ops))
    workdir = tmp_path / "run"
    tiny = ("--preset", "quick-enas-macro", *TINY, "--num-layers", "3", "--epochs", "1")
    hypernetwork = ("ghn", "--hidden-size", "4", "--num-steps", "1")
    run_flags = ("--devices", "1", "--workdir", str(workdir))
    flags = (*tiny, *run_flags, *hypernetwork)
    with jax.numpy_dtype_promotion("standard"):
        status = exit_status(monkeypatch, cifar_search.main, *flags)
    assert (status, capsys.readouterr().err) == (0, "")
    found = genotypes.check_macro(genotypes.load(workdir / "genotype.json"))
    assert len(found.ops) == 3
    check_report(workdir / "report.html")

    # Its hypernetwork serves networks of any depth.
    deeper = [*tiny, "--num-layers", "4", *hypernetwork]
    _, config = session.parse(PRESETS, None, deeper)
    net = config.space.supernet(data.load("digits"))
    assert isinstance(config.weights, hypernetworks.Hypernetwork)
    provider = hypernetworks.make_hypernetwork(config.weights, net)
    params = ghn.load(workdir / "ghn.npz", provider)
    written = jax.jit(provider.apply)(params, net.space.sample(jax.random.key(0)))
    chex.assert_tree_all_finite(written)


@pytest.mark.parametrize(
    ("preset", "is_one"), [("quick", True), ("quick-enas", True), ("quick-ghn", False)]
)
def test_weights_are_trained_in_the_supernet_that_is_searched(tmp_path, preset, is_one):
    """If it is another one, candidates are random, not what the searcher samples."""
    flags = ["--preset", preset, "--workdir", str(tmp_path / "run")]
    experiment = cifar_search.prepare(*session.parse(PRESETS, None, flags))
    nets = experiment.arguments["net"], experiment.arguments["train_net"]
    assert (nets[0] is nets[1]) == is_one


@pytest.mark.parametrize("name", ["ghn-cifar10", "quick-ghn"])
def test_presets_of_hypernetworks(name):
    """Ranked by accuracy on all validation images (Zhang et al. 2019, section 5.2)."""
    flags = session.flags(PRESETS[name].config)
    assert flags["objective"] == "error"
    assert (flags["pass_embeddings"], flags["tile"]) == ("every_phase", None)


GHN = ("--preset", "quick-ghn")
TWO = ("--devices", "2")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("dag",), ("the searcher is asng; expected random",)),
        ((*GHN, "reinforce"), ("the searcher is reinforce; expected",)),
        (("sng", "--num-archs", "1"), ("--num-archs is 1; SNG compares 2 or more",)),
        (("--stop-when-converged", "2"), ("--stop-when-converged is 2.0; expected",)),
        (("random", "--stop-when-converged", "1"), ("the searcher random has no",)),
        (
            ("dag", "random", "--num-train-nodes", "4"),
            ("--num-train-nodes", "in command ghn --help"),
        ),
        ((*GHN, "micro"), ("--num-train-nodes is 7",)),
        ((*GHN, "--num-train-nodes", "2"), ("num_nodes is 2; expected",)),
        ((*GHN, "--decay-at", "9", "3"), ("--decay-at is 9 3; expected ascending",)),
        ((*GHN, "--decay", "0"), ("--decay is 0.0; expected a positive number",)),
        ((*TWO, "--shard", "archs", "--num-archs", "3"), ("num_weight_archs of 3",)),
        ((*TWO, *GHN, "--shard", "archs", "--num-weight-archs", "2"), ("archs of 1",)),
        (("--preset", "quick-enas-macro", "--num-layers", "2"), ("2 layers",)),
        (("--preset", "quick-enas", "--validation-images", "1500"), ("1500",)),
        (("--preset", "quick-enas", "--searcher-steps", "0"), ("--searcher-steps",)),
        (("--preset", "quick-enas", "--dropout", "1"), ("dropout is 1.0",)),
        (("--preset", "quick-enas", "asng", "--num-archs", "1"), ("1;",)),
        (
            ("--preset", "quick-enas", "--controller-learning-rate", "0"),
            ("learning_rate is 0.0",),
        ),
    ],
)
def test_wrong_settings(monkeypatch, capsys, tmp_path, flags, words):
    flags = (*flags, "--workdir", tmp_path / "run")
    status = exit_status(monkeypatch, cifar_search.main, *flags)
    assert_refused((status, *capsys.readouterr()), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("preset", "flags", "expected"),
    [
        ("quick", [], "--preset quick"),
        ("quick-enas-macro", [], "--preset quick-enas-macro"),
        ("quick-ghn", [], "--preset quick-ghn"),
        ("quick", ["macro"], "--preset quick-enas-macro --crop-fill black"),
        ("ghn-cifar10", [], "--preset ghn-cifar10"),
        ("enas-macro-cifar10", [], "--preset enas-macro-cifar10"),
        (
            "asng-cifar10",
            ["--data-dir", "my data", "--no-flip"],
            "--preset asng-cifar10 --no-flip --data-dir 'my data'",
        ),
        (
            "enas-micro-cifar10",
            ["--dataset", "cifar100"],
            "--preset enas-micro-cifar10 --dataset cifar100",
        ),
        (
            "folder",
            ["--data-dir", "d", "--image-size", "48"],
            "--preset folder --image-size 48 --data-dir d",
        ),
        (
            "quick",
            ["--dataset", "folder", "--data-dir", "d", "--image-size", "32"],
            "--preset quick --dataset folder --image-size 32 --data-dir d",
        ),
        (
            "folder",
            ["macro", "--data-dir", "d"],
            "--preset quick-enas-macro --dataset folder --image-size 32 "
            "--crop-padding 4 --crop-fill black --flip --data-dir d",
        ),
    ],
)
def test_the_command_that_trains_what_was_found(preset, flags, expected):
    _, config = session.parse(PRESETS, None, ["--preset", preset, *flags])
    genotype = pathlib.Path("g.json")
    command = cifar_search.training_command(preset, config, genotype, 1000)
    assert command.replace(" --genotype g.json", "") == (
        f"python launch/cifar_train.py {expected}"
    )
    few = cifar_search.training_command(preset, config, genotype, 30)
    assert few == f"{command} --batch-size 30"


def run_printed_command(variables, output, *flags):
    """The training command that a search prints, cut down by more flags."""
    (line,) = (line for line in output.splitlines() if "cifar_train.py" in line)
    command, *printed = shlex.split(line)[1:]
    return run(variables, pathlib.Path(command).stem, *printed, *flags)


def test_the_printed_command_trains_what_was_found(finished, variables, tmp_path):
    _, _, (_, output, _) = finished
    flags = ("--epochs", "1", "--channels", "2", "--max-images", "100")
    status, trained, errors = run_printed_command(
        variables, output, *flags, "--workdir", tmp_path / "run"
    )
    assert status == 0, errors
    assert "test accuracy" in trained


def test_a_search_on_own_images_and_the_training_after_it(variables, tmp_path):
    rng = np.random.default_rng(0)
    for split, num in (("train", 12), ("test", 4)):
        for color, label in enumerate(("blue sky", "grass")):
            folder = tmp_path / "my images" / split / label
            folder.mkdir(parents=True)
            for index in range(num):
                height, width = rng.integers(9, 20, 2)
                pixels = rng.integers(0, 100, (height, width, 3), np.uint8)
                pixels[..., color] += 100
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    status, output, errors = run(
        variables,
        "cifar_search",
        *("--preset", "folder", "--data-dir", tmp_path / "my images"),
        *("--image-size", "12", "--channels", "2", "--num-nodes", "1"),
        *("--epochs", "1", "--batch-size", "4", "--num-candidates", "1"),
        *("--num-random", "1", "--scratch-random", "0"),
        *("--workdir", tmp_path / "search"),
    )
    assert status == 0, errors
    status, trained, errors = run_printed_command(
        variables,
        output,
        *("--epochs", "1", "--num-cells", "3", "--workdir", tmp_path / "train"),
    )
    assert status == 0, errors
    assert "test accuracy" in trained
