import io
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import metrics


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_append_and_read_give_plain_values_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, 10, {"loss": jnp.float32(0.5), "count": np.int64(3)})
    metrics.append(path, jnp.int32(20), {"name": "é", "half": 0.25})
    entries = metrics.read(path)
    assert entries == [
        {"step": 10, "loss": 0.5, "count": 3},
        {"step": 20, "name": "é", "half": 0.25},
    ]
    assert list(entries[0]) == ["step", "loss", "count"]
    assert type(entries[0]["loss"]) is float and type(entries[0]["count"]) is int


def test_low_precision_arrays_are_numbers(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, 0, {"loss": jnp.bfloat16(1.5), "done": jnp.bool_(True)})
    assert metrics.read(path) == [{"step": 0, "loss": 1.5, "done": 1}]


def test_numbers_that_are_not_finite_are_strings_in_strict_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.append(
        path, 1, {"a": math.nan, "b": jnp.float32(jnp.inf), "c": np.float32(-np.inf)}
    )

    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    entry = json.loads(path.read_text(), parse_constant=refuse)
    assert entry == {"step": 1, "a": "nan", "b": "inf", "c": "-inf"}


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("loss", jnp.ones((2,)), r"metric 'loss' has shape \(2,\)"),
        ("loss", None, "metric 'loss' is None"),
        ("loss", 1j, "a number or a string was expected"),
        ("step", 3, 'a metric is called "step"'),
    ],
)
def test_append_refuses_and_leaves_the_log_alone(tmp_path, name, value, match):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, 1, {"loss": 1.0})
    with pytest.raises(ValueError, match=match):
        metrics.append(path, 2, {name: value})
    assert metrics.read(path) == [{"step": 1, "loss": 1.0}]


@pytest.mark.parametrize("bad", ["{", "", "[1]", '{"loss": 1.0}', '{"step": 1.5}'])
def test_read_names_the_malformed_line(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{bad}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: found"):
        metrics.read(path)


def test_read_leaves_out_only_an_incomplete_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert metrics.read(path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": 2}')
    assert metrics.read(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"step": 2, "lo\n')
    with pytest.raises(ValueError, match="line 2"):
        metrics.read(path)


def test_read_of_an_absent_log(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        metrics.read(tmp_path / "absent.jsonl")


def test_truncate_then_append_equals_an_uninterrupted_log(tmp_path):
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    for step in (10, 20, 30):
        metrics.append(whole, step, {"loss": 1 / step, "worst": math.inf})
    resumed.write_text(whole.read_text()[:-5])  # killed while writing step 30
    metrics.truncate(resumed, after_step=10)
    for step in (20, 30):
        metrics.append(resumed, step, {"loss": 1 / step, "worst": math.inf})
    assert resumed.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [resumed, whole]


def test_truncate_from_the_start_and_of_an_absent_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.truncate(path, after_step=5)
    assert not path.exists()
    metrics.append(path, 0, {})
    metrics.truncate(path, after_step=-1)
    assert metrics.read(path) == []


def test_truncate_leaves_a_malformed_log_as_it_is(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n?\n{"step": 9}\n')
    with pytest.raises(ValueError, match="line 2"):
        metrics.truncate(path, after_step=1)
    assert path.read_text() == '{"step": 1}\n?\n{"step": 9}\n'


def test_speed_excludes_the_first_update_and_earlier_processes():
    clock = Clock()
    progress = metrics.Progress(1000, stream=io.StringIO(), clock=clock)
    clock.now += 500.0  # compilation
    shared = {"metrics": {}, "epoch": 9, "num_epochs": 10}
    progress.update(810, images=640, **shared)  # 800 steps by an earlier process
    assert progress.images_per_second is None and progress.seconds_left is None
    clock.now += 4.0
    progress.update(820, images=600, **shared)
    clock.now += 6.0
    progress.update(830, images=400, **shared)
    assert progress.images_per_second == pytest.approx(1000 / 10)
    assert progress.seconds_left == pytest.approx(170 * 10 / 20)


def test_plain_lines_once_per_epoch():
    stream, clock = io.StringIO(), Clock()
    with metrics.Progress(6, stream=stream, clock=clock, unit="tokens") as progress:
        for step in range(1, 7):
            clock.now += 5.0
            progress.update(
                step,
                images=5000,
                metrics={"loss": 2.0 / step, "accuracy": jnp.float32(0.25)},
                epoch=(step + 1) // 2,
                num_epochs=3,
            )
    assert stream.getvalue().splitlines() == [
        "search epoch 1/3 loss 1.000 accuracy 0.250 1,000 tokens/s 0:00:20 left",
        "search epoch 2/3 loss 0.500 accuracy 0.250 1,000 tokens/s 0:00:10 left",
        "search epoch 3/3 loss 0.333 accuracy 0.250 1,000 tokens/s 0:00:00 left",
    ]


def test_a_long_epoch_shows_signs_of_life():
    stream, clock = io.StringIO(), Clock()
    with metrics.Progress(1000, stream=stream, clock=clock) as progress:
        for step in range(1, 21):
            clock.now += 10.0
            progress.update(step, images=1, metrics={}, epoch=1, num_epochs=1)
    assert len(stream.getvalue().splitlines()) == 6  # 200 seconds, one per 30


def test_terminal_shows_one_live_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream, clock = Terminal(), Clock()
    with metrics.Progress(4, stream=stream, clock=clock) as progress:
        for step in (1, 2, 3):
            clock.now += 2.0
            shown = {"loss": 0.5, "accuracy": 0.75}
            progress.update(step, images=30, metrics=shown, epoch=step, num_epochs=4)
    text = stream.getvalue()
    assert "epoch 3/4 loss 0.500 accuracy 0.750 15 images/s 0:00:02 left" in text
    assert text.count("\n") == 1
    assert "━" in text


def test_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with metrics.Progress(1, stream=stream, description="train") as progress:
        progress.update(1, images=1, metrics={"loss": 1}, epoch=1, num_epochs=1)
    assert stream.getvalue() == "train epoch 1/1 loss 1.000\n"


def test_progress_refuses_impossible_steps():
    with pytest.raises(ValueError, match="total_steps is 0"):
        metrics.Progress(0)
    progress = metrics.Progress(10, stream=io.StringIO())
    shared = {"images": 1, "metrics": {}, "epoch": 1, "num_epochs": 1}
    progress.update(5, **shared)
    with pytest.raises(ValueError, match=r"step is 4; expected 5 .* to 10"):
        progress.update(4, **shared)
    with pytest.raises(ValueError, match="step is 11"):
        progress.update(11, **shared)
