"""Locks on folders, held by this process and by others."""

import json
import os
import subprocess
import sys
import time

import filelock
import pytest
from helpers import visible

from jaxnas import _locks, metrics, workdir

HOLD = """
import sys, time
from jaxnas import _locks
_locks.acquire(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def contents(folder):
    return {path: path.read_bytes() for path in folder.iterdir()}


def test_the_second_process_is_told_who_holds_the_folder(tmp_path, holder):
    before = contents(tmp_path)
    words = rf"{tmp_path} is in use by process {holder.pid} on .* since 2.*python -c"
    with pytest.raises(workdir.FolderInUse, match=words):
        workdir.prepare(tmp_path, {"seed": 1}, {})
    assert contents(tmp_path) == before


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert _locks.HOLDER_NAME in os.listdir(tmp_path)
    workdir.prepare(tmp_path, {"seed": 1}, {})
    assert json.loads((tmp_path / _locks.HOLDER_NAME).read_text())["pid"] == os.getpid()
    _locks.release(tmp_path)
    assert _locks.HOLDER_NAME not in os.listdir(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[3]", "3", '{"pid": 1, "host": []}'])
def test_who_holds_a_folder_may_be_unknown(tmp_path, holder, content):
    (tmp_path / _locks.HOLDER_NAME).write_text(content)
    with pytest.raises(workdir.FolderInUse, match="in use by another process; wait"):
        _locks.acquire(tmp_path)


def test_one_process_does_not_lock_itself_out(tmp_path):
    with _locks.hold(tmp_path):
        workdir.prepare(tmp_path, {"seed": 1}, {})
        with _locks.hold(tmp_path / "." / ".." / tmp_path.name):
            pass
        assert filelock_is_held(tmp_path)
    assert not filelock_is_held(tmp_path)
    workdir.prepare(tmp_path, {"seed": 1}, {})
    workdir.prepare(tmp_path, {"seed": 1}, {})
    assert filelock_is_held(tmp_path)
    _locks.release(tmp_path)


def filelock_is_held(folder) -> bool:
    """What a process sees that knows nothing of this one's locks."""
    lock = filelock.FileLock(folder / _locks.LOCK_NAME)
    try:
        with lock.acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


def test_a_shared_folder_is_free_once_it_is_prepared(tmp_path):
    workdir.prepare(tmp_path, {"seed": 1}, {}, shared=True)
    assert not filelock_is_held(tmp_path)
    assert visible(tmp_path) == {"config.json"}


MEASURE = """
import sys, time
from jaxnas import metrics
def measure(i):
    print("measures", i, flush=True)
    time.sleep(0.3)
    return {"value": i}
metrics.measure_missing(sys.argv[1], [[i] for i in range(3)], measure)
"""


def test_processes_measure_the_same_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_locks, "_POLL_SECONDS", 0.02)
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", MEASURE, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline()
        lines = metrics.measure_missing(
            log, [[2], [1], [7]], lambda i: {"value": 10.0 + i}
        )
        assert process.wait() == 0
    assert lines == [{"value": 2.0}, {"value": 1.0}, {"value": 12.0}]
    assert [entry["arch"] for entry in metrics.read(log)] == ["0", "1", "2", "7"]
    assert f"waiting for {tmp_path}, in use by process" in capsys.readouterr().out


def test_what_is_measured_is_read_without_waiting(tmp_path, holder):
    metrics.append(tmp_path / "log.jsonl", 0, {"arch": "5", "value": 3})
    start = time.monotonic()
    lines = metrics.measure_missing(tmp_path / "log.jsonl", [[5]], lambda i: {})
    assert lines == [{"value": 3.0}] and time.monotonic() - start < 5


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match=r"cannot be locked \(No locks available\)"):
        assert not _locks.acquire(tmp_path)


def test_a_full_disk_does_not_hinder(tmp_path, monkeypatch):
    (tmp_path / _locks.HOLDER_NAME).write_text('{"pid": 1}')

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jaxnas._files.write_json", full)
        with _locks.hold(tmp_path):
            assert not (tmp_path / _locks.HOLDER_NAME).exists()
