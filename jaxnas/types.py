"""The types every part of jaxnas shares. Nothing here computes anything."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Key = jax.Array
"""A typed PRNG key, as made by `jax.random.key`."""

Device = Any
"""A `jax.Device`, which is no type to a type checker."""

Arch = jax.Array
"""An architecture: int32 `[num_decisions]`; a batch of them has a leading axis."""

Weights = Any
"""Pytree of arrays a supernet computes with. Its structure is the supernet's own."""

Params = Any
"""Trainable pytree of a weight provider (for shared weights: the weights)."""

Outputs = Any
"""What a network returns: logits, or `(logits, auxiliary_logits)`."""

Batch = Mapping[str, jax.Array]
"""Arrays with a common leading axis, for example `image` and `label`."""

Losses = jax.Array
"""float32 `[num]`, one per architecture; lower is better."""

Metrics = dict[str, jax.Array]
"""Named scalars (or arrays with one entry per architecture)."""

SearchState = Any
"""Pytree with everything a searcher has learnt."""


class SearchSpace(Protocol):
    """What can be chosen: a list of decisions, each among a few categories."""

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision."""
        ...

    @property
    def num_architectures(self) -> int:
        """Number of valid integer vectors, at most the product of the cardinalities."""
        ...

    def sample(self, key: Key) -> Arch:
        """Draw one architecture, int32 `[num_decisions]`."""
        ...

    def encode(self, genotype: Any) -> Arch:
        """Turn the human form of an architecture into its integer vector."""
        ...

    def decode(self, arch: Any) -> Any:
        """Turn an integer vector into the human form of the architecture."""
        ...


class Supernet(NamedTuple):
    """A network whose architecture is data and whose weights come from outside.

    Attributes:
      space: the search space its architectures are drawn from.
      init: `key -> weights`.
      apply: `(weights, arch, inputs, *, train, key=None, batch_axis=None) ->
        outputs`. `batch_axis` names the mapped axis over which a batch is
        sharded; batch statistics are then taken over the whole batch.
    """

    space: Any
    init: Callable[[Key], Weights]
    apply: Callable[..., Outputs]


class WeightProvider(NamedTuple):
    """Where the weights of an architecture come from.

    Attributes:
      init: `key -> params`.
      apply: `(params, arch) -> weights`.
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Arch], Weights]


class Searcher(NamedTuple):
    """A search algorithm over cardinalities; pure, so usable inside `lax.scan`.

    Attributes:
      init: `key -> state`.
      ask: `(state, key, num) -> archs`, int32 `[num, num_decisions]`.
      tell: `(state, archs, losses) -> (state, metrics)`; lower losses are better.
      mode: `state -> arch`, the most likely architecture.
    """

    init: Callable[[Key], SearchState]
    ask: Callable[[SearchState, Key, int], Arch]
    tell: Callable[[SearchState, Arch, Losses], tuple[SearchState, Metrics]]
    mode: Callable[[SearchState], Arch]


class Task(NamedTuple):
    """What a network is trained for.

    Attributes:
      loss: `(outputs, batch) -> (loss, metrics)`, means over the batch; `metrics`
        holds at least `loss`, the task's own loss without auxiliary terms.
    """

    loss: Callable[[Outputs, Batch], tuple[jax.Array, Metrics]]
