"""What surrounds the recurrent cell of a language model: embedding, dropout, time."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.ops.recurrence import RecurrentCell, run_recurrent_cell
from jaxnas.ops.weights import WeightSpec
from jaxnas.types import Key

# Initial values are uniform in 1 / sqrt(fan_in): 0.1, 0.05 or 0.04, by the size.
_FAN_INS = {300: 100, 400: 400, math.inf: 625}


class RecurrentDropout(NamedTuple):
    """Probabilities of variational dropout: masks are drawn once for all time steps.

    Attributes:
      words: of a word of the vocabulary, in each row of a batch, wherever it stands.
      inputs: of a feature of the embedded words.
      states: of a feature of the state and of what every node reads.
      outputs: of a feature of the state before the logits.
    """

    words: float = 0.0
    inputs: float = 0.0
    states: float = 0.0
    outputs: float = 0.0

    def check(self) -> None:
        """Raise `ValueError` if a probability is out of range."""
        for name, prob in self._asdict().items():
            if not 0 <= prob < 1:
                raise ValueError(
                    f"dropout of {name} is {prob}; expected 0 or more, below 1"
                )


class LanguageOutputs(NamedTuple):
    """Outputs of a language model.

    Attributes:
      logits: `[B, T, num_words]`, of the word after each.
      state: `[B, H]`, after the last word.
      hidden: `[B, T, H]`, the states after each word.
      dropped: `[B, T, H]`, these after dropout, which the logits are made of.
    """

    logits: jax.Array
    state: jax.Array
    hidden: jax.Array
    dropped: jax.Array


def language_specs(
    num_words: int, hidden_size: int, *, num_first: int = 1, num_later: int
) -> dict[str, WeightSpec]:
    """Specs of the weights of a recurrent language model.

    Args:
      num_words: size of the vocabulary.
      hidden_size: features of the state.
      num_first: matrices of the node that reads word and state.
      num_later: matrices of the later nodes, of all together.

    Returns:
      `embedding`, `first` of the node that reads word and state, and `nodes`.
    """
    fan_in = next(n for limit, n in _FAN_INS.items() if hidden_size <= limit)
    both, size = 2 * hidden_size, hidden_size
    return {
        "embedding": WeightSpec((num_words, size), fan_in),
        "first": WeightSpec((num_first, both, both), fan_in),
        "nodes": WeightSpec((num_later, size, both), fan_in),
    }


def language_model(
    embedding: jax.Array,
    cell: RecurrentCell,
    tokens: jax.Array,
    state: jax.Array,
    *,
    dropout: RecurrentDropout,
    key: Key | None,
    max_norm: float | None = None,
    batch_axis: str | None = None,
) -> LanguageOutputs:
    """Read words one after the other.

    The embedding is that of the inputs and, transposed, the matrix of the logits, which
    have no bias.

    Args:
      embedding: `[num_words, H]`.
      cell: the recurrent cell.
      tokens: int32 `[B, T]`.
      state: `[B, H]`, before the first word.
      dropout: probabilities.
      key: for their masks; no dropout if `None`.
      max_norm: the largest Euclidean norm of a state, to which larger ones are scaled
        down; no limit if `None`.
      batch_axis: mapped axis over which the rows of a batch are sharded, if any.

    Returns:
      The outputs.
    """
    num_words, size = embedding.shape
    batch_size = tokens.shape[0]
    x = embedding[tokens]
    ones = jnp.ones((batch_size, size), embedding.dtype)
    masks = {"inputs": ones, "states": ones, "outputs": ones}
    if key is not None:
        keys = jax.random.split(key, 4)
        mask = functools.partial(_mask, dtype=x.dtype, batch_axis=batch_axis)
        words = mask(keys[0], dropout.words, (batch_size, num_words))
        x = x * jnp.take_along_axis(words, tokens, axis=1)[..., None]
        masks = {
            name: mask(key, getattr(dropout, name), ones.shape)
            for name, key in zip(masks, keys[1:], strict=True)
        }
    x = x * masks["inputs"][:, None]

    hidden = run_recurrent_cell(
        cell, x.swapaxes(0, 1), state, masks["states"], max_norm=max_norm
    )
    state, hidden = hidden[-1], hidden.swapaxes(0, 1)
    dropped = hidden * masks["outputs"][:, None]
    # Products of matrices: XLA computes their gradients faster than those of arrays.
    logits = dropped.reshape(-1, size) @ embedding.T
    logits = logits.reshape(*tokens.shape, num_words)
    return LanguageOutputs(logits, state, hidden, dropped)


def _mask(
    key: Key, prob: float, shape: tuple[int, ...], *, dtype, batch_axis: str | None
) -> jax.Array:
    """Zeros with a probability, and otherwise what makes the mean one."""
    if prob == 0:
        return jnp.ones(shape, dtype)
    if batch_axis is None:
        kept = jax.random.bernoulli(key, 1 - prob, shape)
    else:  # this device's rows of what one device would draw
        rows, columns = shape
        whole = (rows * lax.axis_size(batch_axis), columns)
        kept = lax.dynamic_slice_in_dim(
            jax.random.bernoulli(key, 1 - prob, whole),
            lax.axis_index(batch_axis) * rows,
            rows,
        )
    return kept.astype(dtype) / (1 - prob)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Negative log-likelihood of each word, in nats; at least in float32.

    Its backward pass reads and writes the logits once. They are most of what a language
    model with many words computes.

    Args:
      logits: `[B, T, num_words]`.
      targets: int32 `[B, T]`.

    Returns:
      `[B, T]`. It has derivatives in reverse mode only.
    """
    precise = logits.astype(np.promote_types(logits.dtype, jnp.float32))
    precise = precise.reshape(-1, logits.shape[-1])
    return _cross_entropy(precise, targets.reshape(-1)).reshape(targets.shape)


@jax.custom_vjp
def _cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return _cross_entropy_forward(logits, targets)[0]


def _cross_entropy_forward(logits, targets):
    log_sums = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    return (log_sums - chosen)[..., 0], (logits, targets, log_sums)


def _cross_entropy_backward(residuals, gradient):
    logits, targets, log_sums = residuals
    words = lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    is_target = (words == targets[..., None]).astype(logits.dtype)
    return gradient[..., None] * (jnp.exp(logits - log_sums) - is_target), None


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
