"""The commands: flags, exit statuses, and what a run leaves in its folder."""

import html.parser
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import command_line
import presets.cifar_search
import presets.cifar_train
import pytest

from jaxnas import genotypes, metrics

ROOT = pathlib.Path(__file__).parent.parent
COMMANDS = {
    "cifar_search": presets.cifar_search.PRESETS,
    "cifar_train": presets.cifar_train.PRESETS,
}
TINY = {
    "cifar_search": (
        *("--channels", "2", "--num-cells", "3", "--num-nodes", "1"),
        *("--epochs", "1", "--max-images", "128", "--batch-size", "32"),
        *("--num-candidates", "2", "--num-random", "2"),
    ),
    "cifar_train": (
        *("--genotype", "DARTS_V2", "--channels", "1", "--num-cells", "3"),
        *("--epochs", "1", "--max-images", "100", "--batch-size", "50"),
    ),
}


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """The environment of a command: one cache of compiled programs for all."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


def start(variables, command, *flags) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / f"{command}.py"), *map(str, flags)],
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(variables, command, *flags) -> tuple[int, str, str]:
    process = start(variables, command, *flags)
    output, errors = process.communicate()
    return process.returncode, output, errors


def assert_refused(result, *words):
    status, output, errors = result
    assert (status, output) == (2, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1
    for word in words:
        assert word in errors


class Tags(html.parser.HTMLParser):
    """Checks that elements close in the order they open, and counts them."""

    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self):
        super().__init__()
        self.open, self.count = [], {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_report(path):
    tags = Tags()
    tags.feed(path.read_text(encoding="utf-8"))
    tags.close()
    assert not tags.open
    assert tags.count["svg"] >= 1 and tags.count["table"] >= 1


# Whole runs -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(COMMANDS))
def finished(request, tmp_path_factory, variables):
    """A command, its finished folder, and what it printed."""
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    flags = (*TINY[request.param], "--workdir", workdir)
    return request.param, flags, workdir, run(variables, request.param, *flags)


def test_a_run_leaves_everything_in_its_folder(finished):
    command, _, workdir, (status, output, errors) = finished
    assert status == 0, errors
    assert {entry.name for entry in workdir.iterdir()} == {
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
        assert genotype == genotypes.named("DARTS_V2")
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
    result = run(variables, command, *flags, "--learning-rate", 0.5, "--seed", 7)
    assert_refused(
        result, str(workdir), "learning_rate (there 0.025, now 0.5)", "seed (there 0"
    )


def test_an_interrupt_saves(tmp_path, variables):
    workdir = tmp_path / "run"
    process = start(
        variables,
        "cifar_train",
        *TINY["cifar_train"],
        *("--epochs", 100_000, "--workdir", workdir),
    )
    log = workdir / "metrics.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "interrupted by SIGINT; run the same command again to go on\n"
    steps = [int(entry.name) for entry in (workdir / "checkpoints").iterdir()]
    assert max(steps) >= metrics.read(log)[-1]["step"]


def test_divergence(tmp_path, variables):
    status, _, errors = run(
        variables,
        "cifar_train",
        *TINY["cifar_train"],
        *("--epochs", 5, "--workdir", tmp_path / "run"),
        *("--learning-rate", "1e30", "--clip-norm", "1e30"),
    )
    assert status == 3
    assert errors.startswith("error: training diverged: train/loss is nan by step ")
    assert errors.count("\n") == 1


# Wrong input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("cifar_search", ["--dataset", "mnist"], ["unknown data set 'mnist'"]),
        ("cifar_search", ["--num-epochs", "3"], ["--num-epochs"]),
        (
            "cifar_train",
            ["--genotype", "no/such/file"],
            ["--genotype no/such/file is neither a file nor one of", "DARTS_V2"],
        ),
    ],
)
def test_wrong_input_is_one_line(variables, tmp_path, command, flags, words):
    workdir = tmp_path / "run"
    assert_refused(run(variables, command, *flags, "--workdir", workdir), *words)
    assert not workdir.exists()
