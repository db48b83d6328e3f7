"""Random search: the baseline every searcher has to beat."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.search._cardinalities import cardinalities_of
from jaxnas.types import Arch, Key, Losses, Metrics, Searcher, SearchSpace


class RandomSearchState(NamedTuple):
    """The best architecture so far.

    Attributes:
      best_arch: int32 `[num_decisions]`; before the first finite loss one that the
        space draws, or zeros where only cardinalities are known.
      best_loss: its loss, infinite before the first finite loss.
    """

    best_arch: jax.Array
    best_loss: jax.Array


def random_search(space: SearchSpace | Sequence[int]) -> Searcher:
    """Draw architectures at random and remember the best one.

    Args:
      space: a search space, whose `sample` draws, so that all architectures are valid
        and follow its distribution; or cardinalities, the number of categories of each
        decision, of which each is drawn uniformly.

    Returns:
      A `Searcher`. Losses that are not finite are ignored.

    Raises:
      ValueError: if there is no decision, or one without a category.
    """
    cardinalities = cardinalities_of(space)
    sample = getattr(space, "sample", None)

    def init(key: Key) -> RandomSearchState:
        first = jnp.zeros(len(cardinalities), jnp.int32)
        if sample is not None:
            first = sample(key)
        return RandomSearchState(first, jnp.full((), jnp.inf, float))

    def ask(state: RandomSearchState, key: Key, num: int) -> Arch:
        del state
        if sample is not None:
            return jax.vmap(sample)(jax.random.split(key, num))
        shape = (num, len(cardinalities))
        limits = jnp.array(cardinalities, jnp.int32)[None]
        return jax.random.randint(key, shape, 0, limits, jnp.int32)

    def tell(
        state: RandomSearchState, archs: Arch, losses: Losses
    ) -> tuple[RandomSearchState, Metrics]:
        losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
        best = jnp.argmin(losses)
        better = losses[best] < state.best_loss
        new = RandomSearchState(
            jnp.where(better, archs[best], state.best_arch),
            jnp.where(better, losses[best], state.best_loss).astype(
                state.best_loss.dtype
            ),
        )
        return new, {"best_loss": new.best_loss}

    def mode(state: RandomSearchState) -> Arch:
        return state.best_arch

    return Searcher(init, ask, tell, mode)
