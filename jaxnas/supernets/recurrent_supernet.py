"""The supernet of recurrent cells (ENAS and DARTS, Penn Treebank)."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxnas import ops
from jaxnas._checks import check_sizes
from jaxnas.ops import LanguageOutputs, RecurrentDropout
from jaxnas.spaces import RecurrentSpace
from jaxnas.types import Arch, Key, Supernet, Weights

_WeightsOf = Literal["pair", "activation", "node"]


def recurrent(
    space: RecurrentSpace,
    num_words: int,
    hidden_size: int,
    *,
    weights_of: _WeightsOf = "pair",
    dropout: RecurrentDropout | None = None,
    max_norm: float | None = None,
) -> Supernet:
    """Make the supernet of a recurrent space, as a language model.

    Node 0 reads the word and the state, every other node one earlier node; each has an
    activation and a highway gate. The new state is the mean of the nodes that the
    space averages. Words are embedded by the matrix that also makes the logits. There
    are no biases.

    Args:
      space: from `jaxnas.spaces.enas_recurrent` or `jaxnas.spaces.darts_recurrent`.
      num_words: size of the vocabulary.
      hidden_size: features of the state and of the embedding.
      weights_of: what has weights: each pair of nodes (the paper of ENAS), each
        activation at it (its official codes), or each node, whatever it reads (DARTS).
      dropout: probabilities in training; none if `None`.
      max_norm: the largest norm of a state, to which larger ones are scaled down; no
        limit if `None`.

    Returns:
      A `Supernet`; `apply` takes `(tokens, state)`, int32 `[B, T]` and `[B,
      hidden_size]`, and returns `ops.LanguageOutputs`. Dropout needs `train` and a
      `key`.

    Raises:
      ValueError: if a number is out of range.

    Source: Pham et al. 2018, section 2.1; official `ptb_enas_child.py`, which also
    normalizes by the batch while it searches, and `enas_lm/src/child.py`; Liu et al.
    2019 and Li and Talwalkar 2019 for weights of nodes. Initial weights are uniform in
    ±0.1, ±0.05 or ±0.04, for sizes up to 300, 400 and beyond, as in
    `ptb_enas_child.py`.
    """
    check_sizes(num_words=num_words, hidden_size=hidden_size)
    if weights_of not in get_args(_WeightsOf):
        raise ValueError(
            f"weights_of is {weights_of!r}; expected 'pair', 'activation' or 'node'"
        )
    dropout = RecurrentDropout() if dropout is None else dropout
    dropout.check()
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm}; expected a positive number")
    num_later = num_pairs = space.num_nodes * (space.num_nodes - 1) // 2
    num_first, num_activations = 1, len(space.activations)
    if weights_of == "activation":
        num_later = num_pairs * num_activations
        num_first = num_activations if space.chooses_first else 1
    elif weights_of == "node":
        num_later = space.num_nodes - 1
    specs = ops.language_specs(
        num_words, hidden_size, num_first=num_first, num_later=num_later
    )

    def init(key: Key) -> Weights:
        return ops.init(key, specs)

    def apply(
        weights: Weights,
        arch: Arch,
        inputs: tuple[jax.Array, jax.Array],
        *,
        train: bool = False,
        key: Key | None = None,
        batch_axis: str | None = None,
    ) -> LanguageOutputs:
        if arch.shape != (len(space.cardinalities),):
            raise ValueError(
                f"arch has shape {arch.shape}; expected ({len(space.cardinalities)},)"
            )
        tokens, state = inputs
        if state.shape != (tokens.shape[0], hidden_size):
            raise ValueError(
                f"state has shape {state.shape}; expected "
                f"{(tokens.shape[0], hidden_size)}"
            )
        return ops.language_model(
            weights["embedding"],
            _cell(space, weights, arch, weights_of),
            tokens,
            state,
            dropout=dropout,
            key=key if train else None,
            max_norm=max_norm,
            batch_axis=batch_axis,
        )

    return Supernet(space, init, apply)


def _cell(
    space: RecurrentSpace,
    weights: Weights,
    arch: Arch,
    weights_of: _WeightsOf,
) -> ops.RecurrentCell:
    """The cell of an architecture; its weights are gathered once for all time steps."""
    choices = arch[1:] if space.chooses_first else arch
    source, activation = choices[::2], choices[1::2]
    nodes = jnp.arange(space.num_nodes, dtype=jnp.int32)
    first, row = 0, nodes[1:] * (nodes[1:] - 1) // 2 + source
    if weights_of == "activation":
        first = arch[0] if space.chooses_first else 0
        row = row * len(space.activations) + activation
    elif weights_of == "node":
        row = nodes[1:] - 1
    first_matrix, matrices = weights["first"][first], weights["nodes"][row]
    if space.averaged == "later_nodes":
        num_later = space.num_nodes - 1
        shares = [0.0, *[1 / num_later] * num_later]
    else:
        is_loose = (source[None] != nodes[:, None]).all(1).astype(first_matrix.dtype)
        shares = [*(is_loose / is_loose.sum())]
    first_activation = arch[0] if space.chooses_first else space.first_activation
    return ops.RecurrentCell(
        first_matrix,
        matrices,
        [first_activation, *activation],
        [*source],
        shares,
        space.activations,
    )
