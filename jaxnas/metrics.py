"""Metrics log and progress bar: JSON lines to read later, a live line to watch now.

The log is plain functions over a path, since a line is appended a few times a
minute and the file, not the process, is what survives a kill.
"""

import contextlib
import datetime
import json
import math
import operator
import os
import pathlib
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import _files, _locks


class LogError(ValueError):
    """A line of a log is damaged; the message names the file and the line."""


def append(path: str | os.PathLike[str], step: int, metrics: Mapping[str, Any]) -> None:
    """Append one line `{"step": step, ...}` to a metrics log.

    JSON has no word for numbers that are not finite; they are written as the
    strings `"nan"`, `"inf"` and `"-inf"`.

    Args:
      path: the log, created if absent.
      step: number of steps done so far.
      metrics: named numbers or strings; arrays of shape `[]` count as numbers.

    Raises:
      ValueError: if a metric is called `step`, or is neither number nor string.
      OSError: if the line cannot be written; the log is then as before.
    """
    if "step" in metrics:
        raise ValueError('a metric is called "step", the name of the step itself')
    entry = {"step": operator.index(step)}
    entry |= {name: _plain(name, value) for name, value in metrics.items()}
    _files.append(path, f"{json.dumps(entry)}\n".encode())


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read a metrics log.

    A last line without its newline, which a killed process may leave behind, is
    left out if it is not complete. Nothing else is skipped.

    Args:
      path: the log.

    Returns:
      One dictionary per line, in order, each with an integer `step`.

    Raises:
      LogError: if a line is malformed; the message gives its number.
      FileNotFoundError: if there is no such file.
    """
    *lines, rest = pathlib.Path(path).read_bytes().split(b"\n")
    entries = [_parse(path, i, line) for i, line in enumerate(lines, start=1)]
    if rest:
        with contextlib.suppress(ValueError):
            entries.append(_parse(path, len(lines) + 1, rest))
    return entries


def truncate(path: str | os.PathLike[str], after_step: int) -> None:
    """Drop the lines that a resumed run is going to write again.

    Call it before the first `append` of a process, with the step of the checkpoint
    the run continues from, or with -1 if it starts afresh. It also drops a
    half-written last line. The file is replaced as a whole or not at all; an absent
    file stays absent.

    Args:
      path: the log.
      after_step: lines with a greater step are dropped.

    Raises:
      LogError: if a line is malformed; the file is then left as it is.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return
    kept = [entry for entry in read(path) if entry["step"] <= after_step]
    _files.write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))


def measure_missing(
    path: str | os.PathLike[str] | None,
    archs: Sequence[Any],
    measure: Callable[[int], Mapping[str, float]],
    *,
    needs: Collection[str] = (),
    description: str | None = None,
) -> list[dict[str, float]]:
    """Measure the architectures that a log does not have yet.

    Every line of the log holds its architecture, so it stays valid when the order or
    the number of the architectures changes. A line is appended as soon as its
    architecture is measured: a killed process loses one measurement at most. Several
    processes may share the folder of a log: one measures, and others that lack
    something wait for it.

    Args:
      path: the log, as of `append`; nothing is kept if `None`.
      archs: integer vectors `[num_decisions]`. Equal ones are measured once.
      measure: `i -> metrics` of `archs[i]`, numbers.
      needs: metrics without which a line of the log does not count, such as those of
        a further seed.
      description: first words of a progress line; none is shown if `None`.

    Returns:
      The metrics of all architectures, in the order of `archs`.

    Raises:
      LogError: if a line of the log is malformed or has no architecture.
    """
    names = [",".join(map(str, np.asarray(arch).tolist())) for arch in archs]
    found = {} if path is None else _measured(path, needs)
    with contextlib.ExitStack() as stack:
        num_lines = 0
        if path is not None and not found.keys() >= {*names}:
            stack.enter_context(_locks.hold(pathlib.Path(path).parent, wait=True))
            found = _measured(path, needs)
            num_lines = len(read(path)) if os.path.exists(path) else 0
            truncate(path, sys.maxsize)
        progress = None
        if description is not None and not found.keys() >= {*names}:
            progress = stack.enter_context(
                Progress(len(names), unit="architectures", description=description)
            )
        for i, name in enumerate(names):
            is_missing = name not in found
            if is_missing:
                metrics = {key: float(value) for key, value in measure(i).items()}
                if path is not None:
                    append(path, num_lines, {"arch": name, **metrics})
                    num_lines += 1
                found[name] = metrics
            if progress is not None:
                progress.update(i + 1, images=int(is_missing), metrics={})
    return [found[name] for name in names]


def timed(function: Callable[..., Any]) -> Callable[..., tuple[Any, float]]:
    """Make a function that also returns the seconds a call took.

    The first call, which compiles, is made twice.
    """
    is_compiled = False

    def call(*args: Any) -> tuple[Any, float]:
        nonlocal is_compiled
        if not is_compiled:
            jax.block_until_ready(function(*args))
            is_compiled = True
        start = time.monotonic()
        result = jax.block_until_ready(function(*args))
        return result, time.monotonic() - start

    return call


def _measured(
    path: str | os.PathLike[str], needs: Collection[str]
) -> dict[str, dict[str, float]]:
    """The metrics in a log by architecture, of lines that have those of `needs`."""
    found = {}
    for number, entry in enumerate(read(path) if os.path.exists(path) else [], start=1):
        if not isinstance(entry.get("arch"), str):
            raise LogError(
                f"{os.fspath(path)}, line {number}: has no architecture; expected "
                '"arch", integers with commas'
            )
        if entry.keys() >= {*needs}:
            found[entry["arch"]] = _numbers(entry)
    return found


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line, numbers that are not finite included."""
    return {
        name: float(value)
        for name, value in entry.items()
        if name not in ("step", "arch")
    }


def _plain(name: str, value: Any) -> float | int | str:
    """Turn a metric into what JSON can hold."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.shape:
        raise ValueError(
            f"metric {name!r} has shape {array.shape}; one number was expected"
        )
    if array.dtype == np.bool_ or jnp.issubdtype(array.dtype, jnp.integer):
        return int(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"metric {name!r} is {value!r}; a number or a string was expected"
        )
    number = float(array)
    return number if math.isfinite(number) else str(number)


def _parse(path: str | os.PathLike[str], number: int, line: bytes) -> dict[str, Any]:
    message = (
        f"{os.fspath(path)}, line {number}: found {line[:60]!r}, expected a JSON "
        'object with an integer "step"'
    )
    try:
        entry = _files.parse_json(line.decode())
    except ValueError as error:
        raise LogError(message) from error
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        raise LogError(message)
    return entry


class Progress:
    """The live line of long work; a context manager.

    On a terminal it is one line that stays in place; elsewhere it is one plain line
    per epoch (at the end, where there are none), and at most one every 30 seconds
    before.

    Speed and time left are measured between this process' first update and the
    latest one. So neither compilation, which the first update contains, nor the
    steps an earlier process did before a resumption count.

    Attributes:
      images_per_second: images per second of wall time; None before the second
        update.
      seconds_left: expected seconds until the last step; None before the second
        update.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        unit: str = "images",
        description: str = "search",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Prepare the line.

        Args:
          total_steps: steps of the whole run, those of earlier processes included.
          unit: what is counted per second.
          description: first words of the line.
          stream: where to write; standard output if None.
          clock: monotonic time in seconds.

        Raises:
          ValueError: if `total_steps` is not positive.
        """
        if total_steps < 1:
            raise ValueError(f"total_steps is {total_steps}; at least 1 was expected")
        self.images_per_second: float | None = None
        self.seconds_left: float | None = None
        self._total_steps = total_steps
        self._unit = unit
        self._description = description
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._step = 0
        self._first: tuple[float, int] | None = None  # time and step, first update
        self._images = 0  # since the first update
        self._last_line_time = clock()
        self._live = _live_line(self._stream)
        if self._live is not None:
            self._task = self._live.add_task(
                description, total=total_steps, status="compiling"
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(
        self,
        step: int,
        *,
        images: int,
        metrics: Mapping[str, Any],
        epoch: int | None = None,
        num_epochs: int | None = None,
    ) -> None:
        """Show how far the work is.

        Args:
          step: number of steps done so far, those of earlier processes included.
          images: number of images (or of `unit`) processed since the last update.
          metrics: named numbers to show, in this order.
          epoch: the epoch this step belongs to, counted from 1; steps are shown
            instead if `None`.
          num_epochs: epochs of the whole run.

        Raises:
          ValueError: if `step` is less than before or more than `total_steps`.
        """
        if not self._step <= step <= self._total_steps:
            raise ValueError(
                f"step is {step}; expected {self._step} (the last one shown) to "
                f"{self._total_steps} (the whole run)"
            )
        self._step = step
        now = self._clock()
        self._measure(now, images)
        if epoch is None or num_epochs is None:
            place, is_over = f"{step}/{self._total_steps}", step == self._total_steps
        else:
            place = f"epoch {epoch}/{num_epochs}"
            is_over = step * num_epochs >= epoch * self._total_steps
        status = " ".join(
            [
                place,
                *(f"{name} {float(value):.3f}" for name, value in metrics.items()),
                *self._speed(),
            ]
        )
        if self._live is not None:
            self._live.update(self._task, completed=step, status=status)
            return
        if is_over or now - self._last_line_time >= 30.0:
            self._last_line_time = now
            print(f"{self._description} {status}", file=self._stream, flush=True)

    def _measure(self, now: float, images: int) -> None:
        if self._first is None:
            self._first = now, self._step
            return
        first_time, first_step = self._first
        self._images += images
        seconds, steps = now - first_time, self._step - first_step
        if seconds > 0.0 and steps > 0:
            self.images_per_second = self._images / seconds
            self.seconds_left = seconds / steps * (self._total_steps - self._step)

    def _speed(self) -> list[str]:
        if self.images_per_second is None or self.seconds_left is None:
            return []
        left = datetime.timedelta(seconds=round(self.seconds_left))
        return [f"{self.images_per_second:,.0f} {self._unit}/s", f"{left} left"]


def _live_line(stream: TextIO) -> Any:
    """Return a rich progress display, or None where a line cannot stay in place."""
    if not stream.isatty():
        return None
    from rich import console as rich_console
    from rich import progress

    console = rich_console.Console(file=stream, highlight=False)
    if console.is_dumb_terminal:
        return None
    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=6),
        progress.TextColumn("{task.fields[status]}", markup=False),
        console=console,
        refresh_per_second=4,  # the work needs the processor more than the line does
    )
