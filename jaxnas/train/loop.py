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
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from jaxnas import _locks
from jaxnas import metrics as metrics_log
from jaxnas.checkpoint import Checkpoints
from jaxnas.types import Metrics

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
            if workdir is not None:
                metrics_log.append(pathlib.Path(workdir) / LOG_NAME, step, metrics)

        def save() -> None:
            if checkpoints is not None:
                checkpoints.save(step, state)

        if workdir is not None:
            metrics_log.truncate(
                pathlib.Path(workdir) / LOG_NAME, step if step > 0 else -1
            )
        stopped_by = stack.enter_context(_signals())
        progress = stack.enter_context(
            metrics_log.Progress(total_steps, unit=unit, description=description)
        )
        if step == 0:
            # The untrained network's metrics; this also compiles the evaluation.
            log({"epoch": 0, **end_epoch(state)})
        steps_per_second = None
        last_save = epoch_start = time.monotonic()
        items_this_epoch = 0
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
                epoch_start = now
            else:
                items_this_epoch += items
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
                seconds = time.monotonic() - epoch_start
                metrics = {"epoch": epoch, **means, **end_epoch(state)}
                if items_this_epoch:
                    metrics[f"{unit}_per_second"] = items_this_epoch / seconds
                log(metrics)
                epoch_start, items_this_epoch = time.monotonic(), 0
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
