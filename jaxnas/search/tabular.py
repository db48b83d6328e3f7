"""Searchers on a table that holds the accuracy of every architecture of a space.

The whole search is one `lax.scan` without a network in it, so that searchers can be
compared over many seeds in seconds: `jax.vmap` of `run` over keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas._checks import check_sizes
from jaxnas.data.tables import Table
from jaxnas.types import Key, Searcher


class History(NamedTuple):
    """What a search has found after each `tell`; accuracies as the table has them.

    Attributes:
      best_signal: float32 `[num_tells]`, the best signal so far.
      incumbent: float32 `[num_tells]`, report value of the architecture with that
        signal, the first one to reach it.
      mode: float32 `[num_tells]`, report value of the searcher's mode.
    """

    best_signal: jax.Array
    incumbent: jax.Array
    mode: jax.Array


def count_tells(num_evaluations: int, num_archs_per_tell: int) -> int:
    """Number of times a searcher is told losses.

    Raises:
      ValueError: if a number is not positive, or the evaluations are no multiple.
    """
    check_sizes(num_evaluations=num_evaluations, num_archs_per_tell=num_archs_per_tell)
    if num_evaluations % num_archs_per_tell:
        raise ValueError(
            f"num_evaluations is {num_evaluations}; expected a multiple of "
            f"num_archs_per_tell, {num_archs_per_tell}"
        )
    return num_evaluations // num_archs_per_tell


def run(
    searcher: Searcher,
    table: Table,
    num_evaluations: int,
    num_archs_per_tell: int,
    key: Key,
) -> History:
    """Search a table; pure, so that it can be compiled and mapped over keys.

    The searcher is told losses `1 - signal`, with the signal as a fraction. An
    architecture that is queried twice counts as two evaluations.

    Args:
      searcher: a searcher for `table.cardinalities`.
      table: the accuracies.
      num_evaluations: architectures looked up, a multiple of `num_archs_per_tell`.
      num_archs_per_tell: architectures in one ask and tell.
      key: determines the search.

    Returns:
      A `History` with `num_evaluations / num_archs_per_tell` entries.

    Raises:
      ValueError: if a number is wrong, or the searcher has not as many decisions as
        the table.
    """
    num_tells = count_tells(num_evaluations, num_archs_per_tell)
    signal, report = (jnp.asarray(v, jnp.float32) for v in (table.signal, table.report))
    losses = 1 - (signal / 100 if table.percent else signal)

    def position(arch):
        if arch.shape[-1] != len(table.cardinalities):
            raise ValueError(
                f"the searcher has {arch.shape[-1]} decisions; the table has "
                f"{len(table.cardinalities)}"
            )
        digits = tuple(jnp.moveaxis(arch, -1, 0))
        return jnp.ravel_multi_index(digits, table.cardinalities, mode="clip")

    def step(carry, key):
        state, incumbent, best_signal = carry
        archs = searcher.ask(state, key, num_archs_per_tell)
        queried = position(archs)
        state, _ = searcher.tell(state, archs, losses[queried])
        best = queried[jnp.argmax(signal[queried])].astype(jnp.int32)
        incumbent = jnp.where(signal[best] > best_signal, best, incumbent)
        best_signal = jnp.maximum(signal[best], best_signal)
        mode = position(searcher.mode(state))
        return (state, incumbent, best_signal), History(
            best_signal, report[incumbent], report[mode]
        )

    init_key, ask_key = jax.random.split(key)
    first = (
        searcher.init(init_key),
        jnp.zeros((), jnp.int32),
        jnp.full((), -jnp.inf, jnp.float32),
    )
    return jax.lax.scan(step, first, jax.random.split(ask_key, num_tells))[1]


def regret(table: Table, achieved: np.ndarray | jax.Array) -> np.ndarray:
    """Report value of the table's best architecture minus what was achieved."""
    return np.asarray(table.report.max() - achieved)
