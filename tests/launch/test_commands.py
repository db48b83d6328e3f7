"""The commands: flags, exit statuses, and what a run leaves in its folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import architectures
import cifar_search
import cifar_train
import jax
import presets.cifar_search
import presets.cifar_train
import ptb_train
import pytest
import session
from commands import assert_refused, exit_status, run, start
from helpers import ROOT, visible
from pages import check_report

from jaxnas import genotypes, loggers, metrics
from jaxnas.checkpoint import CheckpointError
from jaxnas.train import Diverged, Interrupted

COMMANDS = {
    "cifar_search": presets.cifar_search.PRESETS,
    "cifar_train": presets.cifar_train.PRESETS,
}
CELLS = genotypes.Genotype(
    normal=(("sep_conv_3x3", 1), ("skip_connect", 0)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("skip_connect", 1)),
    reduce_concat=(2,),
)
TINY = {
    "cifar_search": (
        *("--channels", "2", "--num-cells", "3", "--num-nodes", "1"),
        *("--epochs", "1", "--max-images", "32", "--batch-size", "8"),
        *("--num-candidates", "1", "--num-random", "1", "--scratch-random", "0"),
    ),
    "cifar_train": (
        *("--channels", "2", "--num-cells", "3"),
        *("--epochs", "1", "--max-images", "16", "--batch-size", "8"),
    ),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Flags that make a command quick."""
    path = tmp_path_factory.mktemp("genotypes") / "cells.json"
    genotypes.save(path, CELLS)
    return {**TINY, "cifar_train": (*TINY["cifar_train"], "--genotype", path)}


# Whole runs -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(COMMANDS))
def finished(request, tmp_path_factory, variables, tiny):
    """A command, its finished folder, and what it printed."""
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    flags = (*tiny[request.param], "--workdir", workdir)
    return request.param, flags, workdir, run(variables, request.param, *flags)


def test_a_run_leaves_everything_in_its_folder(finished):
    command, _, workdir, (status, output, errors) = finished
    assert status == 0, errors
    own = {
        "cifar_search": {"candidates.json", "ranking.jsonl"},
        "cifar_train": {"network.safetensors"},
    }
    assert visible(workdir) == own[command] | {
        *("config.json", "metrics.jsonl", "genotype.json", "report.html"),
        "checkpoints",
    }
    config = json.loads((workdir / "config.json").read_text())["config"]
    assert (config["epochs"], config["seed"]) == (1, 0)
    genotype = genotypes.load(workdir / "genotype.json")
    log = metrics.read(workdir / "metrics.jsonl")
    assert [entry["epoch"] for entry in log] == [0, 1]
    assert f"report: {workdir / 'report.html'}" in output
    check_report(workdir / "report.html")
    if command == "cifar_search":
        assert len(genotype.normal) == 2
        assert genotypes.to_darts(genotype) in output
    else:
        assert genotype == CELLS
        assert f"test accuracy {log[-1]['test/accuracy']:.2%}" in output


def test_the_same_command_again_ends_the_same_way(finished, variables):
    command, flags, workdir, _ = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    genotype = (workdir / "genotype.json").read_bytes()
    status, _, errors = run(variables, command, *flags)
    assert status == 0, errors
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert (workdir / "genotype.json").read_bytes() == genotype


def test_another_configuration_is_refused(finished, variables):
    command, flags, workdir, _ = finished
    result = run(variables, command, *flags, "--weight-decay", 0.5, "--seed", 7)
    assert_refused(
        result, str(workdir), "weight_decay (there 0.0003, now 0.5)", "seed (there 0"
    )


def test_an_interrupt_saves(tmp_path, variables, tiny):
    workdir = tmp_path / "run"
    process = start(
        variables,
        "cifar_train",
        *tiny["cifar_train"],
        *("--epochs", 100_000, "--workdir", workdir),
    )
    log = workdir / "metrics.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert re.fullmatch(
        r"interrupted by SIGINT at step \d+, which is saved; run the same command "
        r"again to continue\n",
        errors,
    )
    steps = [int(entry.name) for entry in (workdir / "checkpoints").iterdir()]
    assert max(steps) >= metrics.read(log)[-1]["step"]


def test_loggers_show_the_run_and_its_result(tmp_path, monkeypatch, capsys, tiny):
    sent, results = [], {}

    class Writer:
        def __init__(self, run):
            self.run = run

        def log(self, step, values):
            sent.append((self.run.name, step, values["epoch"]))

        def summarize(self, found):
            results.update(found)

        def close(self, *, failed):
            results["failed"] = failed

    monkeypatch.setattr(loggers, "LOGGERS", {"tensorboard": Writer})
    monkeypatch.setattr(loggers, "_PACKAGES", {"tensorboard": "json"})
    flags = (*tiny["cifar_train"], "--workdir", tmp_path / "run")
    with jax.numpy_dtype_promotion("standard"):
        status = exit_status(
            monkeypatch, cifar_train.main, *flags, "--log-to", "tensorboard"
        )
        output, errors = capsys.readouterr()
        assert status == 0, errors
        # The run goes on without loggers, too.
        assert exit_status(monkeypatch, cifar_train.main, *flags) == 0
    log = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert sent == [("run", entry["step"], entry["epoch"]) for entry in log]
    assert results["test_accuracy"] == log[-1]["test/accuracy"]
    assert results["result"] in output and not results["failed"]


@pytest.mark.parametrize("command", [cifar_search, ptb_train])
@pytest.mark.parametrize(
    ("logger", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")]
)
def test_a_missing_package_of_a_logger(
    tmp_path, monkeypatch, capsys, command, logger, package
):
    monkeypatch.setitem(sys.modules, package, None)
    workdir = tmp_path / "run"
    flags = ("--log-to", logger, "--workdir", workdir)
    if command is ptb_train:
        flags = (*flags, "--genotype", "ENAS_RECURRENT")
    status = exit_status(monkeypatch, command.main, *flags)
    assert_refused(
        (status, *capsys.readouterr()),
        f"error: --log-to {logger}: the logger {logger} needs {package}: pip install",
    )
    assert not workdir.exists()


def test_divergence(tmp_path, variables, tiny):
    status, _, errors = run(
        variables,
        "cifar_train",
        *tiny["cifar_train"],
        *("--epochs", 5, "--workdir", tmp_path / "run"),
        *("--learning-rate", "1e30", "--clip-norm", "1e30"),
    )
    assert status == 3
    assert errors.startswith("error: training diverged: train/loss is nan by step ")
    assert errors.count("\n") == 1


# Within this process ----------------------------------------------------------------


def fail_with(error):
    raise error


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (session.UsageError("no\n  such file"), 2, "error: no such file\n"),
        (CheckpointError("all damaged"), 2, "error: all damaged\n"),
        (Diverged("loss is nan"), 3, "error: training diverged: loss is nan; "),
        (
            Interrupted(signal.SIGTERM, 7, is_saved=True),
            130,
            "interrupted by SIGTERM at step 7, which is saved; run the same",
        ),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues from"),
        (
            OSError(28, "No space left on device", "/no/such/file"),
            28,
            "error: /no/such/file could not be written: No space left on device, ",
        ),
    ],
)
def test_exit_statuses(monkeypatch, capsys, error, status, line):
    assert exit_status(monkeypatch, lambda: fail_with(error)) == status
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("num_characters", [1, 2**16])
@pytest.mark.parametrize(
    ("output", "status", "line"),
    [("full", 28, "No space left on device"), ("closed", 141, "output was closed")],
)
def test_output_that_cannot_be_written(output, status, line, num_characters):
    program = f"import session; session.run(lambda: print('x' * {num_characters}))"
    if output == "full":
        file = os.open("/dev/full", os.O_WRONLY)
    else:
        unread, file = os.pipe()
        os.close(unread)
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "launch",
        stdout=file,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(file)
    assert result.returncode == status
    assert line in result.stderr and result.stderr.count("\n") == 1


def test_other_errors_are_bugs_and_keep_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        exit_status(monkeypatch, lambda: fail_with(ZeroDivisionError()))


SEARCH, TRAIN = cifar_search.main, cifar_train.main


@pytest.mark.parametrize(
    ("main", "flags", "words"),
    [
        (SEARCH, ["--num-epochs", 3], "--num-epochs"),
        (SEARCH, ["--epoch", 3], "--epoch"),
        (SEARCH, ["--epochs", "many"], "Error parsing --epochs: invalid literal"),
        (SEARCH, ["--preset", "fast"], "--preset is 'fast'; expected one of quick, "),
        (SEARCH, ["grid"], "Unrecognized options: grid"),
        (SEARCH, ["--entropy-weight", 1], "in command reinforce --help"),
        (SEARCH, ["random", "--alpha", 1], "in command asng --help"),
        (SEARCH, ["adam", "--weight-decay", 1], "in command sgd --help"),
        (SEARCH, ["--dataset", "mnist"], "unknown data set 'mnist', expected one of"),
        (SEARCH, ["--dataset", "folder"], "needs data_dir"),
        (SEARCH, ["--dataset", "folder", "--data-dir", "no/such"], "no/such"),
        (
            SEARCH,
            ["--dataset", "cifar10", "--image-size", 9],
            "image_size is for data",
        ),
        (SEARCH, ["--batch-size", 751], "only 750 images"),
        (SEARCH, ["--devices", 9], "9 devices asked for; this machine has 4"),
        (SEARCH, ["--devices", 3], "batch_size of 32 cannot be divided among 3"),
        (SEARCH, ["--num-nodes", 0], "--num-nodes is 0; expected at least 1"),
        (SEARCH, ["--alpha", -1], "alpha is -1.0; expected a positive number"),
        (TRAIN, [], "--genotype is missing: expected a file"),
        (TRAIN, ["--genotype", "no/such"], "no/such is neither a file nor one of"),
        (TRAIN, ["--genotype", ROOT / "LICENSE"], "LICENSE"),
        (TRAIN, ["--genotype", "ENAS", "--channels", -1], "channels is -1"),
        (TRAIN, ["--genotype", "ENAS", "--num-cells", 2], "num_cells is 2; two red"),
        (TRAIN, ["--genotype", "ENAS", "--params-limit", 9], "params_limit is 9"),
        (TRAIN, ["--genotype", "ENAS", "--cell-output", "sum"], "invalid choice 'sum'"),
    ],
)
def test_wrong_input(monkeypatch, capsys, tmp_path, main, flags, words):
    workdir = tmp_path / "run"
    status = exit_status(monkeypatch, main, *flags, "--workdir", workdir)
    assert_refused((status, *capsys.readouterr()), words)
    assert not workdir.exists()


def test_a_folder_with_something_else_is_refused(monkeypatch, capsys, tmp_path):
    (tmp_path / "thesis.tex").touch()
    status = exit_status(monkeypatch, SEARCH, "--workdir", tmp_path)
    assert_refused((status, *capsys.readouterr()), f"{tmp_path} is neither empty")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_shows_flags_and_presets(capsys, command):
    presets = COMMANDS[command]
    with pytest.raises(SystemExit) as exit_:
        session.parse(presets, "What it does.", ["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "What it does." in text
    for flag in ("dataset", "data-dir", "workdir", "seed", "epochs"):
        assert f"--{flag} " in text
    for name in presets:
        assert f" {name}" in text


def test_help_of_a_preset_is_about_it(capsys):
    with pytest.raises(SystemExit):
        session.parse(COMMANDS["cifar_search"], None, ["--preset", "quick-ghn", "-h"])
    text = capsys.readouterr().out
    assert "It learns on blocks of 7 nodes" in text
    assert "--hidden-size" in text and "--alpha" not in text


def test_help_of_a_choice_fits_a_screen(capsys):
    choices = session._choices(COMMANDS["cifar_search"]["quick"].config)
    assert {"micro", "macro", "dag", "asng", "reinforce", "random"} <= set(choices)
    for word in choices:
        with pytest.raises(SystemExit) as exit_:
            session.parse(COMMANDS["cifar_search"], None, [word, "--help"])
        assert exit_.value.code == 0
        text = capsys.readouterr().out
        assert text.count("\n") < 45
        for flag in session.flags(choices[word]):
            assert f"--{flag.replace('_', '-')}" in text


def test_the_packages_of_commands_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    with pytest.raises(session.UsageError, match=r"pip install -e '.\[launch\]'"):
        session.parse(COMMANDS["cifar_search"], None, [])


def test_flags_override_a_preset():
    quick = COMMANDS["cifar_search"]["quick"].config
    assert session.parse(COMMANDS["cifar_search"], None, []) == ("quick", quick)
    flags = ["--preset", "asng-cifar10", "--epochs", "3", "--no-flip"]
    name, config = session.parse(COMMANDS["cifar_search"], None, flags)
    assert name == "asng-cifar10"
    published = session.flags(COMMANDS["cifar_search"]["asng-cifar10"].config)
    assert published["flip"] and published["max_images"] is None
    assert session.flags(config) == published | {"epochs": 3, "flip": False}
    flags = ["--max-images", "7", "--data-dir", "a b", "--alpha", "2"]
    _, config = session.parse(COMMANDS["cifar_search"], None, flags)
    changed = {"max_images": 7, "data_dir": "a b", "alpha": 2.0}
    assert session.flags(config) == session.flags(quick) | changed


@pytest.mark.parametrize(
    "argv",
    [
        ["macro", "--num-layers", "3", "reinforce", "--entropy-weight", "1"],
        ["reinforce", "--entropy-weight", "1", "macro", "--num-layers", "3"],
        ["reinforce", "macro", "--num-layers", "3", "--entropy-weight", "1"],
    ],
)
def test_choices_come_in_any_order(argv):
    _, config = session.parse(COMMANDS["cifar_search"], None, argv)
    flags = session.flags(config)
    assert (flags["space"], flags["num_layers"]) == ("macro", 3)
    assert (flags["searcher"], flags["entropy_weight"]) == ("reinforce", 1.0)
    assert "num_cells" not in flags and "alpha" not in flags


@pytest.mark.parametrize("numbers", [(), (7,), (10, 20, 300)])
def test_ascending_numbers(numbers):
    assert session.check_ascending("--at", numbers) == numbers


@pytest.mark.parametrize("numbers", [(0, 1), (2, 2), (3, 1), (-1,)])
def test_numbers_that_do_not_ascend(numbers):
    with pytest.raises(session.UsageError, match=r"--at is .*; expected ascending"):
        session.check_ascending("--at", numbers)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--epochs", "0"], "--epochs is 0; expected at least 1"),
        (["--clip-norm", "nan"], "--clip-norm is nan; expected at least 0"),
        (["--num-weight-archs", "0"], "--num-weight-archs is 0; expected at least 1"),
        (["--seed", "9" * 20], f"--seed is {'9' * 20}; expected at most 4294967295"),
        (["--epochs", "9" * 20], "999; expected at most 2147483647"),
        (["--image-size", str(2**63)], f"--image-size is {2**63}; expected at most 21"),
    ],
)
def test_values_beyond_their_bounds(argv, words):
    with pytest.raises(session.UsageError, match=words):
        session.parse(COMMANDS["cifar_search"], None, argv)


def test_seconds_are_without_compilation():
    calls = []
    timed = metrics.timed(lambda x: calls.append(x) or x)
    for value in (1, 2):
        result, seconds = timed(value)
        assert result == value and seconds >= 0
    assert calls == [1, 1, 2]


def test_genotypes_by_name_and_by_file(tmp_path):
    enas = genotypes.named("ENAS")
    assert architectures.find_genotype("ENAS") == enas
    genotypes.save(tmp_path / "found.json", enas)
    assert architectures.find_genotype(str(tmp_path / "found.json")) == enas


def test_any_text_is_printed_in_any_locale(tmp_path):
    program = """
import session, sys, warnings
def command():
    print("a \\u00b1 b, \\udce9")
    warnings.warn("\\u00e9")
    raise session.UsageError("no file \\u00e9")
session.run(command)
"""
    variables = {
        **os.environ,
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        **{"PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT / "launch")},
    }
    result = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stdout == "a ? b, ?\n"
    assert result.stderr == "warning: ?\nerror: no file ?\n"
