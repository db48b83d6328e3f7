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


class SearchHistory(NamedTuple):
    """Results of a search after each `tell`; accuracies as the table has them.

    Attributes:
      best_valid: float32 `[num_tells]`, the best validation value so far.
      incumbent: float32 `[num_tells]`, test value of the architecture with that
        validation value, the first one to reach it.
      mode: float32 `[num_tells]`, test value of the searcher's mode.
    """

    best_valid: jax.Array
    incumbent: jax.Array
    mode: jax.Array


def count_tells(num_evaluations: int, num_archs_per_tell: int) -> int:
    """Number of calls of `tell`.

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
) -> SearchHistory:
    """Search a table; pure, so that it can be compiled and mapped over keys.

    `tell` gets losses `1 - valid`, with `valid` as a fraction. An
    architecture that is queried twice counts as two evaluations.

    Args:
      searcher: a searcher for `table.cardinalities`.
      table: the accuracies.
      num_evaluations: architectures looked up, a multiple of `num_archs_per_tell`.
      num_archs_per_tell: architectures in one ask and tell.
      key: determines the search.

    Returns:
      A `SearchHistory` with `num_evaluations / num_archs_per_tell` entries.

    Raises:
      ValueError: if a number is wrong, or the searcher has not as many decisions as
        the table.
    """
    num_tells = count_tells(num_evaluations, num_archs_per_tell)
    valid, test = (jnp.asarray(v, jnp.float32) for v in (table.valid, table.test))
    losses = 1 - (valid / 100 if table.percent else valid)

    def position(arch):
        if arch.shape[-1] != len(table.cardinalities):
            raise ValueError(
                f"the searcher has {arch.shape[-1]} decisions; the table has "
                f"{len(table.cardinalities)}"
            )
        digits = tuple(jnp.moveaxis(arch, -1, 0))
        return jnp.ravel_multi_index(digits, table.cardinalities, mode="clip")

    def step(carry, key):
        state, incumbent, best_valid = carry
        archs = searcher.ask(state, key, num_archs_per_tell)
        queried = position(archs)
        state, _ = searcher.tell(state, archs, losses[queried])
        best = queried[jnp.argmax(valid[queried])].astype(jnp.int32)
        incumbent = jnp.where(valid[best] > best_valid, best, incumbent)
        best_valid = jnp.maximum(valid[best], best_valid)
        mode = position(searcher.mode(state))
        return (state, incumbent, best_valid), SearchHistory(
            best_valid, test[incumbent], test[mode]
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
    return np.asarray(table.test.max() - achieved)
