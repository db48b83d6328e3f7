"""Faults while a search runs in a process of its own: nothing is lost, nothing mixes.

All searches are resumed in this process, and end like the one without faults.
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

import numpy as np
import pytest
import toy_language
import toy_search
from helpers import ROOT, quick_environment, read_log, small_disk

from jaxnas.train import loop

# As commands do, for which 28 is a full disk and 130 an interrupt.
SCRIPT = """
import pathlib, sys
import session
def search():
    print("starts", flush=True)
    import toy_search
    toy_search.run(pathlib.Path(sys.argv[1]), num_epochs=8)
session.run(search)
"""

LANGUAGE_SCRIPT = """
import pathlib, sys
import toy_language
for run in (toy_language.run_search, toy_language.run_training):
    run(pathlib.Path(sys.argv[1]) / run.__name__, num_epochs=8, save_seconds=0.0)
"""


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    return quick_environment(tmp_path_factory.mktemp("xla")) | {
        "PYTHONPATH": os.pathsep.join([f"{ROOT}/launch", f"{ROOT}/tests", *sys.path])
    }


def start(
    variables, workdir: pathlib.Path, script: str = SCRIPT
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(workdir)],
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate()
    return process.returncode, errors


def end(workdir: pathlib.Path):
    """Run or resume the search in this process; what it finds, and its log."""
    state = toy_search.run(workdir, num_epochs=8).state
    return toy_search.digest(state), read_log(workdir)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return workdir, end(workdir)


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
        (signal.SIGKILL, 4),
        (signal.SIGTERM, 6),
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
    assert end(tmp_path) == uninterrupted[1]


@pytest.mark.parametrize("name", ["run_search", "run_training"])
def test_a_killed_reader_of_texts_goes_on_where_it_was(variables, tmp_path, name):
    run = getattr(toy_language, name)
    workdir = tmp_path / name
    for lines in (2, 5):
        process = start(variables, tmp_path, LANGUAGE_SCRIPT)
        wait_for_lines(process, workdir, lines)
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
    before = max(int(entry["step"]) for entry in read_log(workdir))
    uninterrupted = run(num_epochs=8)
    assert 0 < before < int(uninterrupted.state.step)
    resumed = run(workdir, num_epochs=8)
    digest = toy_search.digest
    assert digest(resumed.state) == digest(uninterrupted.state)
    assert np.abs(resumed.state.reader.hidden).max() > 0


def test_interrupted_in_a_long_call(variables, tmp_path):
    """The search has not begun: there is nothing to save, and no wait."""
    program = "import session, time; session.run(lambda: time.sleep(print('x') or 60))"
    command = [sys.executable, "-u", "-c", program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=variables, **pipes)
    assert process.stdout is not None and process.stdout.readline() == "x\n"
    process.send_signal(signal.SIGINT)
    message = "interrupted; the same command continues from what has been saved\n"
    assert finish(process) == (130, message)


def test_interrupted_twice(variables, uninterrupted, tmp_path):
    process = start(variables, tmp_path)
    wait_for_lines(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    status, errors = finish(process)
    assert status == 130
    assert errors.startswith("interrupted") and errors.count("\n") == 1
    assert end(tmp_path) == uninterrupted[1]


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_interrupted_while_modules_load(variables, tmp_path, seconds):
    process = start(variables, tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "starts\n"
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
    status, errors = finish(first)
    assert (status, errors) == (0, "")
    assert end(tmp_path) == uninterrupted[1]


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
        assert end(workdir) == uninterrupted[1]
        # A finished run has nothing to write.
        with filling.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        assert end(workdir) == uninterrupted[1]


def test_a_damaged_checkpoint(variables, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted[0], workdir)
    steps = sorted(map(int, os.listdir(workdir / "checkpoints")))
    newest = workdir / "checkpoints" / str(steps[-1])
    tree = newest / "state" / "_METADATA"
    tree.write_bytes(tree.read_bytes().replace(b".step", b".stem"))
    with pytest.warns(UserWarning, match=f"checkpoint {newest} is damaged and is skip"):
        assert end(workdir) == uninterrupted[1]
    assert end(workdir) == uninterrupted[1]
