"""The host loop, around a state that only counts."""

import math
import os
import pathlib
import signal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import read_log

from jaxnas import metrics
from jaxnas.checkpoint import Checkpoints
from jaxnas.train import Diverged, Interrupted, epochs, loop

STEPS_PER_EPOCH = 4


class State(NamedTuple):
    step: jax.Array
    total: jax.Array
    epoch_metrics: dict[str, jax.Array]


def init() -> State:
    return State(jnp.int32(0), jnp.int32(0), {"train/loss": jnp.float32(0)})


def advance(state: State, num_steps: int) -> State:
    """Count; the loss of step `i`, from 1, is `1 / i`."""
    step = int(state.step)
    done_before = step % STEPS_PER_EPOCH
    assert 1 <= num_steps <= STEPS_PER_EPOCH - done_before
    loss = state.epoch_metrics["train/loss"] if done_before else jnp.float32(0)
    total = state.total
    for i in range(step + 1, step + num_steps + 1):
        position = (i - 1) % STEPS_PER_EPOCH
        loss = loss + (jnp.float32(1 / i) - loss) / jnp.float32(position + 1)
        total += i
    return State(jnp.int32(step + num_steps), total, {"train/loss": loss})


def run(workdir, advance=advance, num_epochs: int | None = 3, **options):
    return loop.run(
        advance,
        init(),
        num_epochs=num_epochs,
        steps_per_epoch=STEPS_PER_EPOCH,
        items_per_step=lambda step: 10,
        end_epoch=lambda state: {"test/total": float(state.total)},
        description="count",
        workdir=workdir,
        **{"save_seconds": 0.0, **options},
    )


def checkpointed_steps(workdir: pathlib.Path) -> list[int]:
    return sorted(int(entry.name) for entry in (workdir / "checkpoints").iterdir())


def expected_log(num_epochs: int) -> list[dict]:
    entries: list[dict] = [{"step": 0, "epoch": 0, "test/total": 0.0}]
    for epoch in range(1, num_epochs + 1):
        last = epoch * STEPS_PER_EPOCH
        losses = [1 / i for i in range(last - STEPS_PER_EPOCH + 1, last + 1)]
        loss = pytest.approx(sum(losses) / STEPS_PER_EPOCH, rel=1e-6)
        total = last * (last + 1) / 2
        entries.append(
            {"step": last, "epoch": epoch, "train/loss": loss, "test/total": total}
        )
    return entries


class Stop:
    """`advance` that does something once a step has been reached."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def __call__(self, state, num_steps):
        state = advance(state, num_steps)
        if int(state.step) >= self.step:
            replacement = self.action(state)
            return state if replacement is None else replacement
        return state


def test_one_line_per_epoch_and_one_before(tmp_path, capsys):
    state = run(tmp_path)
    assert int(state.step) == 12 and int(state.total) == 78
    assert read_log(tmp_path) == expected_log(3)
    assert checkpointed_steps(tmp_path)[-1] == 12
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[:3] for line in lines] == [
        ["count", "epoch", f"{epoch}/3"] for epoch in (1, 2, 3)
    ]


def test_speed_is_logged_without_the_first_call(tmp_path):
    run(tmp_path)
    log = metrics.read(tmp_path / loop.LOG_NAME)
    for name in ("images_per_second", "seconds_per_step"):
        assert [name in entry for entry in log] == [False, True, True, True]
    for entry in log[1:]:
        assert entry["images_per_second"] * entry["seconds_per_step"] == pytest.approx(
            10
        )
        # The CPU does not count its memory, and nothing is said to wait.
        assert not entry.keys() & {"peak_memory_bytes", "input_wait"}


def test_time_spent_waiting_for_input():
    now = waited = 0.0
    speed = loop._Speed("images", lambda: waited, clock=lambda: now)
    now, waited = 8.0, 6.0
    assert speed.metrics() == {}
    speed.restart()
    now, waited = 18.0, 8.5
    for items in (30, 10):
        speed.add(2, items)
    assert speed.metrics() == {
        "images_per_second": 4.0,
        "seconds_per_step": 2.5,
        "input_wait": 0.25,
    }


def test_peak_memory_of_the_fullest_device():
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    peaks = [{"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 7, "bytes_in_use": 9}]
    assert loop._peak_memory(map(Device, peaks)) == {"peak_memory_bytes": 7}
    assert loop._peak_memory(map(Device, [None, {"bytes_in_use": 9}])) == {}


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert int(run(None).total) == 78
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chunk_seconds", [0.0, 1e-3, 1e9])
def test_result_does_not_depend_on_the_chunks(tmp_path, chunk_seconds):
    chunks = []

    def recorded(state, num_steps):
        chunks.append(num_steps)
        return advance(state, num_steps)

    state = run(tmp_path, recorded, chunk_seconds=chunk_seconds)
    assert sum(chunks) == 12 and chunks[0] == 1
    if chunk_seconds == 0.0:
        assert chunks == [1] * 12
    if chunk_seconds == 1e9:
        assert chunks == [1, 3, 4, 4]
    assert int(state.total) == 78
    assert read_log(tmp_path) == expected_log(3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_interrupts(tmp_path, number):
    stop = Stop(6, lambda _: os.kill(os.getpid(), number))
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"interrupted by {number.name}") as error:
        run(tmp_path, stop, chunk_seconds=0.0, save_seconds=1e9)
    assert error.value.signal == number
    assert signal.getsignal(number) is handler
    assert checkpointed_steps(tmp_path) == [6]
    assert read_log(tmp_path) == expected_log(1)

    resumed_at = []

    def recorded(state, num_steps):
        resumed_at.append(int(state.step))
        return advance(state, num_steps)

    assert int(run(tmp_path, recorded).total) == 78
    assert resumed_at[0] == 6
    assert read_log(tmp_path) == expected_log(3)


def test_a_signal_in_the_last_step_comes_too_late(tmp_path):
    state = run(tmp_path, Stop(12, lambda _: os.kill(os.getpid(), signal.SIGINT)))
    assert int(state.total) == 78
    assert checkpointed_steps(tmp_path)[-1] == 12


def test_a_second_interrupt_stops_at_once(tmp_path):
    def interrupt_twice(_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Stop(6, interrupt_twice), save_seconds=1e9)
    assert checkpointed_steps(tmp_path) == []


def test_resumption_drops_the_lines_it_writes_again(tmp_path):
    run(tmp_path, num_epochs=2)
    # The process died after a line and before the checkpoint that belongs to it.
    log = tmp_path / "metrics.jsonl"
    metrics.append(log, 12, {"epoch": 3, "test/total": -1.0})
    with log.open("a") as file:
        file.write('{"step": 1')
    run(tmp_path, num_epochs=3)
    assert read_log(tmp_path) == expected_log(3)


def test_a_run_without_a_checkpoint_starts_its_log_anew(tmp_path):
    metrics.append(tmp_path / "metrics.jsonl", 0, {"epoch": 0, "test/total": -1.0})
    metrics.append(tmp_path / "metrics.jsonl", 4, {"epoch": 1, "test/total": -1.0})
    run(tmp_path)
    assert read_log(tmp_path) == expected_log(3)


def test_a_finished_run_does_nothing(tmp_path):
    run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def fail(state, num_steps):
        raise AssertionError

    assert int(run(tmp_path, fail).total) == 78
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_keeps_the_last_good_checkpoint(tmp_path, value):
    def spoil(state):
        return state._replace(epoch_metrics={"train/loss": jnp.float32(value)})

    with pytest.raises(Diverged, match=f"train/loss is {value} by step 7"):
        run(tmp_path, Stop(7, spoil), chunk_seconds=0.0)
    assert checkpointed_steps(tmp_path)[-1] == 6
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        last = checkpoints.restore(init())
    assert last is not None and int(last.total) == 21
    assert read_log(tmp_path) == expected_log(1)


def test_only_training_losses_end_a_run(tmp_path):
    def spoil(state):
        if int(state.step) > 7:
            return None
        metrics = state.epoch_metrics | {"validation/loss": jnp.float32(math.nan)}
        return state._replace(epoch_metrics=metrics)

    assert int(run(None, Stop(7, spoil), chunk_seconds=0.0).total) == 78

    def diverge(state):
        return state._replace(epoch_metrics={"train/loss": jnp.float32(math.nan)})

    assert int(run(None, Stop(7, diverge), may_diverge=True).step) == 12


def test_a_length_in_steps(tmp_path, capsys):
    state = run(tmp_path, num_epochs=None, num_steps=10)
    assert int(state.step) == 10 and checkpointed_steps(tmp_path)[-1] == 10
    assert "count 10/10 loss" in capsys.readouterr().out
    with pytest.raises(ValueError, match="num_epochs is 3 and num_steps is 10"):
        run(None, num_steps=10)


def test_means_leave_out_what_is_not_finite():
    """Validation losses that are not finite are counted, epoch by epoch."""
    nan = math.nan
    steps = [
        ([nan, nan], 0),
        ([1, nan], 1),
        ([2, 6], 2),
        ([nan, math.inf], 3),
        ([5, 7], 0),
    ]
    names = ["v/loss", "v/accuracy", "v/num_not_finite"]
    means = {name: jnp.array(9.0, jnp.float32) for name in names}
    found = []
    for losses, position in steps:
        metrics = {"loss": jnp.array(losses, jnp.float32)}
        metrics["accuracy"] = 10 * jnp.nan_to_num(metrics["loss"], posinf=3)
        means = epochs.mean_of_finite(means, metrics, jnp.int32(position), "v/")
        found.append([float(means[name]) for name in sorted(means)])
    np.testing.assert_allclose(
        found, [[nan, nan, 2], [10, 1, 3], [30, 3, 3], [30, 3, 5], [60, 6, 0]]
    )


def test_checkpoints_are_spaced_out(tmp_path):
    run(tmp_path, chunk_seconds=0.0, save_seconds=1e9)
    assert checkpointed_steps(tmp_path) == [12]


def test_a_run_that_ends_early_has_ended(tmp_path):
    asked = []

    def ends_early(state):
        asked.append(int(state.step))
        return state.total >= 20

    state = run(tmp_path, ends_early=ends_early, chunk_seconds=0.0)
    # 1 + ... + 6 is above 20; the epoch ends at 8. It is asked at ends of epochs only.
    assert int(state.step) == 8 and set(asked) == {4, 8}
    assert read_log(tmp_path) == expected_log(2)
    assert checkpointed_steps(tmp_path)[-1] == 8

    def never(state, num_steps):
        raise AssertionError("the run is over")

    assert int(run(tmp_path, never, ends_early=ends_early).step) == 8
    assert read_log(tmp_path) == expected_log(2)
    # Without the condition it goes on from there.
    assert int(run(tmp_path).total) == 78
    assert read_log(tmp_path) == expected_log(3)
