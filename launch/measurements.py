"""Long series of measurements that go on where they stopped."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import command_line


def measure_missing(
    log: pathlib.Path, num: int, measure: Callable[[int], dict[str, float]]
) -> list[dict[str, float]]:
    """Measure what is missing in a log that has one line for each architecture.

    A line is written when its architecture is done, so that no more than one is lost
    when the process is killed. Its `step` is the number of the architecture.
    """
    from jaxnas import metrics

    with command_line.wrong_input():
        lines = metrics.read(log) if log.exists() else []
        if [line["step"] for line in lines] != list(range(len(lines))):
            raise ValueError(
                f"{log} is damaged: expected one line for each architecture, in order"
            )
    metrics.truncate(log, len(lines))  # drops a half-written line
    for i in range(len(lines), num):
        metrics.append(log, i, measure(i))
    return [
        {name: float(value) for name, value in line.items()}
        for line in metrics.read(log)[:num]
    ]


def timed(function: Callable[..., Any]) -> Callable[..., tuple[Any, float]]:
    """Also return the seconds a call took; the first, which compiles, is made twice."""
    import jax

    is_compiled = False

    def call(*args):
        nonlocal is_compiled
        if not is_compiled:
            jax.block_until_ready(function(*args))
            is_compiled = True
        start = time.monotonic()
        result = jax.block_until_ready(function(*args))
        return result, time.monotonic() - start

    return call
