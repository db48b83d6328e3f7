"""Base of all controllers: decisions, an LSTM, attention to earlier steps."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.search.controllers.settings import ControllerSettings
from jaxnas.types import Key


class Decision(NamedTuple):
    """One decision, or several with a common shape of leading axes.

    Attributes:
      choice: int32, the category.
      log_prob: its log-probability, given the decisions before.
      entropy: in nats, of the distribution it was taken from. This is the true
        entropy; the official code takes `-p log p` of the decision itself, except in
        the micro space.
    """

    choice: jax.Array
    log_prob: jax.Array
    entropy: jax.Array


class Episode(NamedTuple):
    """All decisions of an architecture, with a leading axis for a batch.

    Attributes:
      arch: int32 `[num_decisions]`, in the encoding of the space.
      log_probs: `[num_decisions]`; see `Decision`.
      entropies: `[num_decisions]`, in nats.
      skip_penalty: scalar, how far skip probabilities are from their target; `None`
        where there are no skips.
    """

    arch: jax.Array
    log_probs: jax.Array
    entropies: jax.Array
    skip_penalty: jax.Array | None = None


Choose = Callable[[jax.Array, jax.Array], jax.Array]
"""`(logits, x) -> choice`, int32, along the last axis of logits."""


def decide(
    choose: Choose, logits: jax.Array, x: jax.Array, valid: jax.Array | None = None
) -> Decision:
    """Take a decision.

    Args:
      choose: how a choice is made from logits.
      logits: `[..., num_categories]`.
      x: what `choose` needs besides, with the same leading axes.
      valid: bool `[num_categories]`; other categories have probability zero.

    Returns:
      The decision, with the leading axes of the logits.
    """
    if valid is not None:
        # Finite, so that a probability of zero has no NaN in its entropy.
        logits = jnp.where(valid, logits, jnp.finfo(logits.dtype).min)
    log_probs = jax.nn.log_softmax(logits)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1)
    choice = choose(logits, x)
    log_prob = jnp.take_along_axis(log_probs, choice[..., None], axis=-1)[..., 0]
    return Decision(choice, log_prob, entropy)


def stack(decisions: Sequence[Decision]) -> Decision:
    """Put decisions side by side, on a new first axis."""
    return jax.tree.map(lambda *v: jnp.stack(v), *decisions)


LstmState = tuple[jax.Array, jax.Array]
"""Cell and hidden state, `[hidden_size]` each."""


class Memory(NamedTuple):
    """Steps that attention can point to, one a row, `[num, hidden_size]` each.

    Attributes:
      anchors: hidden states, which stand for the steps where they are chosen.
      keys: what a query is compared with.
    """

    anchors: jax.Array
    keys: jax.Array


class Attention(NamedTuple):
    """Additive attention.

    Attributes:
      to_keys: `anchors -> keys`.
      score: `(keys, query) -> scores`, one for each key.
    """

    to_keys: Callable[[jax.Array], jax.Array]
    score: Callable[[jax.Array, jax.Array], jax.Array]

    def remember(self, memory: Memory, i: jax.Array, hidden: jax.Array) -> Memory:
        """Store a step in row `i`; rows past the last one are dropped."""
        return Memory(
            memory.anchors.at[i].set(hidden, mode="drop"),
            memory.keys.at[i].set(self.to_keys(hidden), mode="drop"),
        )


class Controller(nn.Module):
    """A controller; subclasses are called with `(choose, x)` and return an `Episode`.

    `x` has one row for each decision, `[num_decisions, ...]`, which is handed to
    `choose` with the logits: Gumbel noise when sampling, the choice when scoring. A
    controller takes its decisions by `decide` and asks for nothing else.

    Attributes:
      settings: its settings.
      priors: names of those settings among `separable_bias`, `separable_offset`,
        `recency` and `tied_head` that it reads; the others have to be zero or false.
    """

    settings: ControllerSettings
    priors: ClassVar[tuple[str, ...]] = ()

    @nn.nowrap
    def uniform(self, name: str, *shape: int) -> jax.Array:
        """Declare a parameter that starts uniform within the settings' `init_range`."""
        limit = self.settings.init_range

        def init(key: Key) -> jax.Array:
            return jax.random.uniform(key, shape, float, -limit, limit)

        return self.param(name, init)

    @nn.nowrap
    def lstm(self) -> tuple[LstmState, Callable[[LstmState, jax.Array], LstmState]]:
        """Declare an LSTM without bias: its first state, of zeros, and its step."""
        size = self.settings.hidden_size
        kernel = self.uniform("lstm", 2 * size, 4 * size)

        def step(state: LstmState, x: jax.Array) -> LstmState:
            c, h = state
            i, f, o, g = jnp.split(jnp.concatenate([x, h]) @ kernel, 4)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return c, jax.nn.sigmoid(o) * jnp.tanh(c)

        zeros = jnp.zeros(size, kernel.dtype)
        return (zeros, zeros), step

    @nn.nowrap
    def attention(self) -> Attention:
        """Declare additive attention."""
        size = self.settings.hidden_size
        key_kernel = self.uniform("attention_key", size, size)
        query_kernel = self.uniform("attention_query", size, size)
        vector = self.uniform("attention_vector", size)

        def score(keys: jax.Array, query: jax.Array) -> jax.Array:
            return jnp.tanh(keys + (query @ query_kernel)[None]) @ vector

        return Attention(lambda anchors: anchors @ key_kernel, score)

    @nn.nowrap
    def squash(self, logits: jax.Array, *, op: bool) -> jax.Array:
        """Bound logits, and with them the probabilities from below."""
        settings = self.settings
        bound = settings.tanh_constant / (settings.op_tanh_reduction if op else 1.0)
        return bound * jnp.tanh(logits / settings.temperature)
