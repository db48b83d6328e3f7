"""The host loop under search and retraining: the only impure part of training.

Compiled code advances the state by a number of steps; this loop decides how many, and
between two such calls it shows progress, logs, saves and reacts to signals. What is
computed does not depend on where it stops in between.
"""

import contextlib
import math
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import jax

from jaxnas import _locks, loggers
from jaxnas import metrics as metrics_log
from jaxnas.checkpoint import Checkpoints
from jaxnas.types import Device, Metrics

LOG_NAME = "metrics.jsonl"
CHECKPOINTS_NAME = "checkpoints"


class Diverged(RuntimeError):
    """The loss is no longer finite."""


class Interrupted(RuntimeError):
    """A signal asked the run to stop; the message says what has been saved.

    Attributes:
      signal: number of the signal.
    """

    def __init__(self, signal_number: int, step: int, *, is_saved: bool):
        name = signal.Signals(signal_number).name
        saved = "which is saved" if is_saved else "which is not saved without a folder"
        super().__init__(f"interrupted by {name} at step {step}, {saved}")
        self.signal = signal_number


class LoopState(Protocol):
    """Fields of a state that the loop reads; the NamedTuple has more."""

    @property
    def step(self) -> jax.Array:
        """int32 scalar, number of steps done."""
        ...

    @property
    def epoch_metrics(self) -> Metrics:
        """Means over the steps of the current epoch so far."""
        ...


def run(
    advance: Callable[[Any, int], Any],
    state: Any,
    *,
    num_epochs: int | None = None,
    num_steps: int | None = None,
    steps_per_epoch: int,
    items_per_step: Callable[[int], int],
    end_epoch: Callable[[Any], dict[str, float]],
    description: str,
    unit: str = "images",
    workdir: str | os.PathLike[str] | None = None,
    chunk_seconds: float = 5.0,
    save_seconds: float = 30.0,
    may_diverge: bool = False,
    ends_early: Callable[[Any], bool] | None = None,
    seconds_waited: Callable[[], float] | None = None,
) -> Any:
    """Advance a state to its last step.

    Args:
      advance: `(state, num_steps) -> state`, compiled. Is never asked to cross an
        epoch, and may do fewer steps, but at least one.
      state: the initial state; replaced by the newest checkpoint if there is one.
      num_epochs: length of the run, in epochs, which the progress line then shows.
      num_steps: its length in steps, instead; the last epoch may be cut short.
      steps_per_epoch: steps of one epoch.
      items_per_step: `step -> number` of items, for the speed shown and logged.
      end_epoch: `state -> metrics` of the end of an epoch, evaluations for example.
      description: one word for the progress line.
      unit: what the items are.
      workdir: folder of the run, with `metrics.jsonl` and `checkpoints/`; nothing is
        written if `None`.
      chunk_seconds: how long one call of `advance` should take.
      save_seconds: least time between two checkpoints, but for the last one.
      may_diverge: whether the run continues if the training loss is not finite.
      ends_early: `state -> whether` an epoch that ends with this state is the last.
      seconds_waited: seconds so far in which `advance` has waited for its input.

    The line of an epoch also holds, from the second call of `advance` on,
    `seconds_per_step` and, for images, `images_per_second`, of wall time;
    `input_wait`, the share of that time in which the next batch was waited for, while
    the devices may still have been at work; and `peak_memory_bytes`, the most that this
    process has used of a device, where the device counts it.

    Returns:
      The final state.

    Raises:
      ValueError: unless one of `num_epochs` and `num_steps` is given.
      Diverged: if the training loss stops being finite. The last checkpoint is kept.
      Interrupted: after SIGINT or SIGTERM, when a checkpoint has been written.
      CheckpointError: if the folder's checkpoints are all damaged.
      FolderInUse: if another process uses the folder.
      OSError: if something cannot be saved, as on a full disk.
    """
    if (num_epochs is None) == (num_steps is None):
        raise ValueError(
            f"num_epochs is {num_epochs} and num_steps is {num_steps}; expected one "
            "of them"
        )
    if num_epochs is not None:
        total_steps = num_epochs * steps_per_epoch
    else:
        total_steps = num_steps or 0
    with contextlib.ExitStack() as stack:
        checkpoints = None
        if workdir is not None:
            folder = pathlib.Path(workdir) / CHECKPOINTS_NAME
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locks.hold(workdir))
            checkpoints = stack.enter_context(Checkpoints(folder))
            restored = checkpoints.restore(state)
            state = state if restored is None else restored
        step = int(state.step)

        def is_over() -> bool:
            at_end = step > 0 and step % steps_per_epoch == 0
            stops = ends_early is not None and at_end and ends_early(state)
            return step >= total_steps or stops

        def log(metrics: dict[str, float]) -> None:
            if log_path is not None:
                metrics_log.append(log_path, step, metrics)
                send_log()

        def save() -> None:
            if checkpoints is not None:
                checkpoints.save(step, state)

        log_path = None if workdir is None else pathlib.Path(workdir) / LOG_NAME
        if log_path is not None:
            metrics_log.truncate(log_path, step if step > 0 else -1)
        send_log = stack.enter_context(loggers.follow(log_path))
        stopped_by = stack.enter_context(_signals())
        progress = stack.enter_context(
            metrics_log.Progress(total_steps, unit=unit, description=description)
        )
        if step == 0:
            # The untrained network's metrics; this also compiles the evaluation.
            log({"epoch": 0, **end_epoch(state)})
        steps_per_second = None
        last_save = time.monotonic()
        speed = _Speed(unit, seconds_waited)
        while not is_over():
            left = steps_per_epoch - step % steps_per_epoch
            left = min(left, total_steps - step)
            wanted = 1 if steps_per_second is None else chunk_seconds * steps_per_second
            chunk = max(1, min(left, int(wanted)))
            # The first call compiles, so only the others tell the speed.
            start = time.monotonic()
            first = steps_per_second is None
            items = items_per_step(step)
            state = advance(state, chunk)
            # Reading the state back also waits for it.
            chunk, step = int(state.step) - step, int(state.step)
            items *= chunk
            now = time.monotonic()
            steps_per_second = 1.0 if first else chunk / max(now - start, 1e-9)
            if first:
                speed.restart()
            else:
                speed.add(chunk, items)
            means = {name: float(mean) for name, mean in state.epoch_metrics.items()}
            if not may_diverge:
                _check_finite(means, step)
            epoch = (step - 1) // steps_per_epoch + 1
            shown = {
                name: means[f"train/{name}"]
                for name in ("loss", "accuracy", "psnr", "perplexity")
                if f"train/{name}" in means
            }
            epoch_is_over = step % steps_per_epoch == 0
            if epoch_is_over:
                measured = speed.metrics() | _peak_memory(state.step.devices())
                log({"epoch": epoch, **means, **end_epoch(state), **measured})
                speed.restart()
            progress.update(
                step, images=items, metrics=shown, epoch=epoch, num_epochs=num_epochs
            )
            if stopped_by and not is_over():
                save()
                if checkpoints is not None:
                    checkpoints.wait()
                is_saved = checkpoints is not None
                raise Interrupted(stopped_by[0], step, is_saved=is_saved)
            if is_over() or time.monotonic() - last_save >= save_seconds:
                save()
                last_save = time.monotonic()
    return state


class _Speed:
    """Speed of an epoch, without the first call of a process, which compiles."""

    def __init__(
        self,
        unit: str,
        seconds_waited: Callable[[], float] | None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._unit = unit
        self._seconds_waited = seconds_waited
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin to measure."""
        self._steps = self._items = 0
        self._start = self._clock()
        self._waited = 0.0 if self._seconds_waited is None else self._seconds_waited()

    def add(self, steps: int, items: int) -> None:
        """Count what has been done."""
        self._steps += steps
        self._items += items

    def metrics(self) -> dict[str, float]:
        """Steps and items for the time since it began; nothing without any."""
        if not self._steps:
            return {}
        seconds = max(self._clock() - self._start, 1e-9)
        found = {"seconds_per_step": seconds / self._steps}
        if self._items:
            found[f"{self._unit}_per_second"] = self._items / seconds
        if self._seconds_waited is not None:
            found["input_wait"] = (self._seconds_waited() - self._waited) / seconds
        return found


def _peak_memory(devices: Iterable[Device]) -> dict[str, int]:
    """The most that this process has used of one of the devices, if they tell it."""
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return {"peak_memory_bytes": max(peaks)} if peaks else {}


def _check_finite(means: dict[str, float], step: int) -> None:
    for name, value in means.items():
        if name.startswith("train/") and not math.isfinite(value):
            raise Diverged(f"{name} is {value} by step {step}")


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; a second SIGINT does what it did before."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            earlier = before[signal.SIGINT]
            (earlier if callable(earlier) else signal.default_int_handler)(
                number, frame
            )
        received.append(number)

    try:
        before = {
            number: signal.signal(number, receive)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # signals reach the main thread only
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
