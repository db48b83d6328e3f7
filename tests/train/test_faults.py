"""Faults while a search runs in a process of its own: nothing is lost, nothing mixes.

All searches of this module are resumed until they end like the one without faults.
"""

import errno
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import QUICK_COMPILATION, ROOT, read_log, small_disk

from jaxnas import metrics
from jaxnas.train import loop

pytestmark = pytest.mark.optimized

# As commands do, for which 28 is a full disk and 130 an interrupt.
SCRIPT = """
import pathlib, sys
import session
def search():
    import toy_search
    workdir = pathlib.Path(sys.argv[1])
    state = toy_search.run(workdir, num_epochs=8).state
    (workdir / "digest").write_text(toy_search.digest(state))
session.run(search)
"""


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    return {
        **os.environ,
        **QUICK_COMPILATION,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(
            map(str, (ROOT, ROOT / "launch", ROOT / "tests"))
        ),
    }


def start(variables, workdir: pathlib.Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(workdir)],
        env=variables,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.fixture(scope="module")
def uninterrupted(variables, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert finish(start(variables, workdir)) == (0, "")
    return workdir


def assert_ends_like(variables, workdir, uninterrupted):
    assert finish(start(variables, workdir)) == (0, "")
    assert read_log(workdir) == read_log(uninterrupted)
    assert (workdir / "digest").read_text() == (uninterrupted / "digest").read_text()


def wait_for_lines(process, workdir: pathlib.Path, num_lines: int) -> None:
    log = workdir / loop.LOG_NAME
    while not log.exists() or log.read_bytes().count(b"\n") < num_lines:
        assert process.poll() is None
        time.sleep(0.005)


def test_killed_and_interrupted_at_random(variables, uninterrupted, tmp_path):
    rng = random.Random(0)
    for number, lines in (
        (signal.SIGKILL, 1),
        (signal.SIGINT, 3),
        (signal.SIGTERM, 5),
    ):
        process = start(variables, tmp_path)
        wait_for_lines(process, tmp_path, lines)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(number)
        status, errors = finish(process)
        if number == signal.SIGKILL:
            assert (status, errors) == (-signal.SIGKILL, "")
        elif status:  # it may have been in its last step
            assert status == 130
            assert errors.startswith(f"interrupted by {number.name} at step ")
            assert "which is saved" in errors and errors.count("\n") == 1
    assert_ends_like(variables, tmp_path, uninterrupted)


def test_interrupted_twice(variables, uninterrupted, tmp_path):
    process = start(variables, tmp_path)
    wait_for_lines(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    status, errors = finish(process)
    assert status == 130
    assert errors.startswith("interrupted") and errors.count("\n") == 1
    assert_ends_like(variables, tmp_path, uninterrupted)


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1.0, 1.7])
def test_interrupted_while_modules_load(variables, tmp_path, seconds):
    process = start(variables, tmp_path)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    status, errors = finish(process)
    assert status == 130
    assert errors.startswith("interrupted") and errors.count("\n") == 1


def test_two_runs_at_once(variables, uninterrupted, tmp_path):
    first = start(variables, tmp_path)
    while not (tmp_path / ".lock.json").exists():
        assert first.poll() is None
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGSTOP)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    status, errors = finish(start(variables, tmp_path))
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    os.kill(first.pid, signal.SIGCONT)
    assert status == 2 and errors.count("\n") == 1
    assert f"error: {tmp_path} is in use by process {first.pid} on " in errors
    assert finish(first) == (0, "")
    assert_ends_like(variables, tmp_path, uninterrupted)


def test_a_full_disk(variables, uninterrupted, tmp_path):
    with small_disk(tmp_path, "size=700k"):
        workdir = tmp_path / "run"
        filling = tmp_path / "filling"
        filling.write_bytes(bytes(300_000))
        status, errors = finish(start(variables, workdir))
        assert status == errno.ENOSPC
        assert errors.startswith(f"error: {workdir}{os.sep}")
        assert "could not be written: No space left on device, 0." in errors
        assert errors.count("\n") == 1
        filling.unlink()
        assert_ends_like(variables, workdir, uninterrupted)
        # A finished run has nothing to write.
        with filling.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        assert_ends_like(variables, workdir, uninterrupted)


def test_a_damaged_checkpoint(variables, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    steps = sorted(map(int, os.listdir(workdir / "checkpoints")))
    newest = workdir / "checkpoints" / str(steps[-1])
    tree = newest / "state" / "_METADATA"
    tree.write_bytes(tree.read_bytes().replace(b".step", b".stem"))
    status, errors = finish(start(variables, workdir))
    assert status == 0
    assert errors.startswith(f"warning: checkpoint {newest} is damaged and is skipped")
    assert errors.count("\n") == 1
    assert metrics.read(workdir / loop.LOG_NAME)[-1]["step"] == steps[-1]
    assert_ends_like(variables, workdir, uninterrupted)
