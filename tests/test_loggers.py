"""Loggers: what they get, once each, and that nothing depends on them."""

import importlib
import json
import struct
import sys
from typing import Any

import pytest
import toy_search
from helpers import read_log

from jaxnas import loggers, metrics
from jaxnas.train import loop

CONFIG = {"config": {"seed": 3, "space": "micro"}, "environment": {"device": "CPU"}}


class Stub:
    """A logger that keeps what it gets, of each run by its name."""

    def __init__(self, fails_at=None):
        self.runs, self.sent, self.results, self.ends = [], {}, {}, []
        self.fails_at = fails_at

    def __call__(self, run):
        self.runs.append(run)
        return _StubWriter(self, run.name)


class _StubWriter:
    def __init__(self, stub, name):
        self.stub, self.name = stub, name

    def log(self, step, values):
        if self.stub.fails_at is not None and step >= self.stub.fails_at:
            raise OSError(28, "No space left on device")
        self.stub.sent.setdefault(self.name, []).append((step, dict(values)))

    def summarize(self, results):
        self.stub.results[self.name] = dict(results)

    def close(self, *, failed):
        self.stub.ends.append((self.name, failed))


def write_run(folder):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder / loop.LOG_NAME


def steps(stub, name="run"):
    return [step for step, _ in stub.sent.get(name, [])]


def test_every_line_is_sent_once(tmp_path):
    log, stub = write_run(tmp_path / "run"), Stub()
    metrics.append(log, 0, {"epoch": 0})  # of a process without loggers
    with loggers.use({"stub": stub}, tmp_path / "run"):
        with loggers.follow(log) as send:
            assert steps(stub) == [0]
            metrics.append(log, 4, {"loss": float("nan"), "arch": "1,2"})
            send()
            send()
            metrics.append(log, 8, {"loss": 0.5})
            send()
        loggers.summarize({"test accuracy": 0.75})
    assert steps(stub) == [0, 4, 8]
    assert repr(stub.sent["run"][1:]) == "[(4, {'loss': nan}), (8, {'loss': 0.5})]"
    assert stub.results == {"run": {"test accuracy": 0.75}}
    assert stub.ends == [("run", False)]
    (run,) = stub.runs
    assert (run.group, run.config) == ("run", CONFIG)
    assert (run.folder, run.workdir) == (log.parent / "stub", log.parent)

    # A process that resumes at step 4 computes step 8 again.
    again = Stub()
    metrics.truncate(log, 4)
    with loggers.use({"stub": again}, tmp_path / "run"):
        with loggers.follow(log) as send:
            for step in (8, 12):
                metrics.append(log, step, {"loss": 0.5})
                send()
        loggers.summarize({"test accuracy": 0.75})
    assert steps(again) == [12] and again.results == {}
    assert again.runs[0].id == run.id

    # Nothing is opened where nothing is missing.
    with loggers.use({"stub": again}, tmp_path / "run"), loggers.follow(log):
        pass
    assert len(again.runs) == 1


def test_trainings_of_a_command_are_runs_of_one_group(tmp_path):
    write_run(tmp_path / "run")
    below, elsewhere = tmp_path / "run" / "networks" / "a", tmp_path / "shared" / "b"
    stub = Stub()
    with loggers.use({"stub": stub}, tmp_path / "run"):
        for folder in (below, elsewhere):
            folder.mkdir(parents=True)
            metrics.append(folder / loop.LOG_NAME, 1, {"loss": 1})
            with loggers.follow(folder / loop.LOG_NAME):
                pass
        loggers.summarize({"best": "a"})
    names = ["run/networks/a", elsewhere.as_posix()]
    assert [run.name for run in stub.runs] == [*names, "run"]
    assert {run.group for run in stub.runs} == {"run"}
    assert len({run.id for run in stub.runs}) == 3
    assert stub.ends == [(names[0], False), (names[1], False), ("run", False)]


def test_loggers_are_told_of_failures(tmp_path):
    log, stub = write_run(tmp_path / "run"), Stub()
    metrics.append(log, 0, {"epoch": 0})
    with (
        pytest.raises(KeyboardInterrupt),
        loggers.use({"stub": stub}, tmp_path / "run"),
        loggers.follow(log),
    ):
        raise KeyboardInterrupt
    assert stub.ends == [("run", True)]


def test_without_loggers_nothing_happens(tmp_path):
    log = tmp_path / loop.LOG_NAME
    metrics.append(log, 0, {"epoch": 0})
    with loggers.follow(log) as send:
        send()
    with loggers.use({"stub": Stub()}, tmp_path), loggers.follow(None) as send:
        send()
    loggers.summarize({"accuracy": 1.0})
    assert [entry.name for entry in tmp_path.iterdir()] == [log.name]


def test_a_logger_that_fails_is_named_and_catches_up(tmp_path):
    log = write_run(tmp_path / "run")
    broken, good = Stub(fails_at=4), Stub()
    message = (
        r"the logger broken has stopped: OSError: \[Errno 28\] No space left on device;"
        " the run continues, metrics.jsonl has all metrics, and the same command"
    )
    with loggers.use({"broken": broken, "good": good}, tmp_path / "run"):
        with loggers.follow(log) as send:
            metrics.append(log, 0, {"epoch": 0})
            send()
            metrics.append(log, 4, {"epoch": 1})
            with pytest.warns(UserWarning, match=message):
                send()
            metrics.append(log, 8, {"epoch": 2})
            send()
        loggers.summarize({"accuracy": 0.5})
    assert (steps(broken), steps(good)) == ([0], [0, 4, 8])
    assert good.results and not broken.results
    mended = Stub()
    with loggers.use({"broken": mended}, tmp_path / "run"), loggers.follow(log):
        pass
    assert steps(mended) == [4, 8]


@pytest.mark.parametrize("content", ["{", "[1]", '{"step": "4"}', '{"id": 3}'])
def test_damage_to_what_was_sent_is_named(tmp_path, content):
    log = write_run(tmp_path / "run")
    metrics.append(log, 0, {"epoch": 0})
    sent = tmp_path / "run" / "stub" / loggers.SENT_NAME
    sent.parent.mkdir()
    sent.write_text(content)
    with (
        loggers.use({"stub": Stub()}, tmp_path / "run"),
        pytest.warns(UserWarning, match="sent.json"),
        loggers.follow(log),
    ):
        pass


def test_unknown_and_missing_loggers(monkeypatch):
    with pytest.raises(ValueError, match="logger is 'csv'; expected one of tensorboa"):
        loggers.named(["csv"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        message = rf"{name} needs {package}: pip install 'jaxnas\[{name}\]'"
        with pytest.raises(ImportError, match=message):
            loggers.named([name])
    assert loggers.named([]) == {}


def test_a_search_is_the_same_with_loggers(tmp_path):
    log, stub = write_run(tmp_path / "run"), Stub()
    with loggers.use({"stub": stub}, tmp_path / "run"):
        logged = toy_search.run(tmp_path / "run")
    plain = toy_search.run(tmp_path / "plain")
    assert toy_search.digest(logged.state) == toy_search.digest(plain.state)
    assert read_log(tmp_path / "run") == read_log(tmp_path / "plain")
    lines = [{"step": step, **values} for step, values in stub.sent["run"]]
    assert lines == metrics.read(log)

    with (
        pytest.warns(UserWarning, match="the logger broken has stopped"),
        loggers.use({"broken": Stub(fails_at=0)}, tmp_path / "broken"),
    ):
        failed = toy_search.run(tmp_path / "broken")
    assert toy_search.digest(failed.state) == toy_search.digest(plain.state)
    assert read_log(tmp_path / "broken") == read_log(tmp_path / "plain")


# Known loggers ----------------------------------------------------------------------


def attribute(module, name) -> Any:
    """Of a module that makes its attributes when it is imported."""
    return getattr(importlib.import_module(module), name)


def events(folder):
    """Scalars and texts of the event files of TensorBoard in a folder."""
    parse = attribute("tensorboardX.proto.event_pb2", "Event").FromString
    scalars, texts = [], {}
    # TensorBoard, too, reads them in the order of their names.
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = parse(content[12 : 12 + size])
            content = content[16 + size :]
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    scalars.append((event.step, value.tag, value.simple_value))
                else:
                    texts[value.tag] = value.tensor.string_val[0].decode()
    return scalars, texts


def log_in_two_processes(name, log):
    """The lines at 0 and 4, then, resumed from 0, those at 4 and 8, and results."""
    for last, kept in ((4, -1), (8, 0)):
        metrics.truncate(log, kept)
        with loggers.use(loggers.named([name]), log.parent):
            with loggers.follow(log) as send:
                for step in range(kept + 1 and 4, last + 1, 4):
                    metrics.append(log, step, {"epoch": step // 4, "test/loss": 1 / 8})
                    send()
            if last == 8:
                loggers.summarize({"test accuracy": 0.75, "worst": "cat"})


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    log = write_run(tmp_path / "run")
    log_in_two_processes("tensorboard", log)
    scalars, texts = events(tmp_path / "run" / "tensorboard")
    assert scalars == [
        (step, name, value)
        for step in (0, 4, 8)
        for name, value in (("epoch", step / 4), ("test/loss", 0.125))
    ]
    assert "| seed | 3 |" in texts["config/text_summary"]
    assert "| device | CPU |" in texts["environment/text_summary"]
    assert "| test accuracy | 0.75 |" in texts["results/text_summary"]


def leveldb_records(content, first_block):
    """The records of a file in LevelDB's log format, after a header."""
    blocks = [content[:first_block]]
    rest = content[first_block:]
    blocks += [rest[i : i + 32768] for i in range(0, len(rest), 32768)]
    record = b""
    for block in blocks:
        while len(block) > 7:
            size, kind = struct.unpack("<HB", block[4:7])
            record += block[7 : 7 + size]
            block = block[7 + size :]
            if kind in (1, 4):  # whole, or the last piece
                yield record
                record = b""


def test_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip("wandb")
    parse = attribute("wandb.proto.wandb_internal_pb2", "Record").FromString
    log = write_run(tmp_path / "run")
    log_in_two_processes("wandb", log)
    history, summary, ids = [], {}, set()
    for file in sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")):
        for data in leveldb_records(file.read_bytes()[7:], first_block=32768 - 7):
            record = parse(data)
            items = {i.key or "/".join(i.nested_key): i for i in record.history.item}
            if items:
                history.append({k: json.loads(i.value_json) for k, i in items.items()})
            for item in record.summary.update:
                summary[item.key or "/".join(item.nested_key)] = item.value_json
            if record.HasField("run"):
                ids.add((record.run.run_id, record.run.run_group))
    assert [line["_step"] for line in history] == [0, 4, 8]
    assert {line["test/loss"] for line in history} == {0.125}
    assert json.loads(summary["test accuracy"]) == 0.75
    ((_, group),) = ids
    assert group == "run"
