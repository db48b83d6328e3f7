"""Long series of measurements that go on where they stopped."""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import command_line


def measure_missing(
    log: pathlib.Path,
    archs: Sequence[Any],
    measure: Callable[[int], Mapping[str, float]],
    *,
    description: str | None = None,
) -> list[dict[str, float]]:
    """`jaxnas.metrics.measure_missing`; a damaged log is the user's to mend."""
    from jaxnas import metrics

    with command_line.wrong_input():
        if log.exists():
            metrics.measure_missing(log, [], measure)
    return metrics.measure_missing(log, archs, measure, description=description)


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
