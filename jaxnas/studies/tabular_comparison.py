"""Search algorithms compared on a table of known accuracies, over many seeds."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxnas.data.tables import Table
from jaxnas.search import tabular
from jaxnas.types import Key, Searcher


class Algorithm(NamedTuple):
    """A search algorithm, and what it had found after so many evaluations.

    Attributes:
      name: how the report calls it.
      incumbent: `[num_seeds, num_points]`, value of the best architecture so far;
        higher is better.
      mode: `[num_seeds, num_points]`, value of its most likely architecture.
    """

    name: str
    incumbent: np.ndarray
    mode: np.ndarray


def compare_searchers(
    searchers: Mapping[str, Searcher],
    table: Table,
    *,
    key: Key,
    num_evaluations: int,
    num_archs_per_tell: int = 2,
    num_seeds: int = 50,
) -> list[Algorithm]:
    """Run every algorithm with every seed; the seeds of one run side by side.

    Args:
      searchers: the algorithms by name.
      table: the accuracies of all architectures.
      key: determines everything random; the seeds are the same for each algorithm.
      num_evaluations: architectures evaluated in a search.
      num_archs_per_tell: architectures after which an algorithm learns.
      num_seeds: searches by each algorithm.

    Returns:
      What each had found after every `tell`.

    Raises:
      ValueError: as `tabular.run` does.
    """
    keys = jax.random.split(key, num_seeds)
    algorithms = []
    for name, searcher in searchers.items():
        print(f"{num_seeds} searches with {name}", flush=True)
        search_once = functools.partial(
            tabular.run, searcher, table, num_evaluations, num_archs_per_tell
        )
        history = jax.jit(jax.vmap(search_once))(keys)
        incumbent, mode = np.asarray(history.incumbent), np.asarray(history.mode)
        algorithms.append(Algorithm(name, incumbent, mode))
    return algorithms
