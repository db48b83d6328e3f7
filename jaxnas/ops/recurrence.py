"""Recurrent cells over time, with a backward pass of their own.

Differentiated as it stands, a loop over time computes the gradient of the weights in
every step, and keeps what each activation and each choice of a node has computed. Here
a step keeps three numbers for each feature of a node: what it reads, the activation's
value and the gate. The gradients of the weights are one product each, over all words.
That takes half the time of the plain loop on a CPU.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Activation(NamedTuple):
    """An activation of a recurrent cell.

    Attributes:
      function: `x -> value`.
      slope: `value -> derivative`.
    """

    function: Callable[[jax.Array], jax.Array]
    slope: Callable[[jax.Array], jax.Array]


ACTIVATIONS = {
    "tanh": Activation(jnp.tanh, lambda value: 1 - value * value),
    "relu": Activation(jax.nn.relu, lambda value: (value > 0).astype(value.dtype)),
    "identity": Activation(lambda x: x, jnp.ones_like),
    "sigmoid": Activation(jax.nn.sigmoid, lambda value: value * (1 - value)),
}
"""The activations of recurrent cells, by name."""


class RecurrentCell(NamedTuple):
    """A recurrent cell: a tree of nodes with activations and highway gates.

    Node 0 reads the word and the state, every later node an earlier one. A node with
    input `r` and product `(a, g)` has the state `r + sigmoid(g) * (f(a) - r)`; the new
    state of the cell is a mean of those of some nodes.

    Attributes:
      first: `[2H, 2H]`, weights of node 0: rows of the word, then of the state.
      later: `[num_later, H, 2H]`, those of the later nodes. The columns of both make
        `a`, then `g`.
      activations: of each node, a name of `ACTIVATIONS`, or an int32 scalar that counts
        `choices`.
      sources: of each later node, the node it reads: an integer or an int32 scalar.
      shares: of each node, its weight in the mean: a number or a scalar.
      choices: names of `ACTIVATIONS` that scalars count.

    Source: Zilly et al. (2017), "Recurrent highway networks"; Pham et al. (2018),
    section 2.1, in whose official code both products of a node are one.
    """

    first: jax.Array
    later: jax.Array
    activations: Sequence[Any]
    sources: Sequence[Any]
    shares: Sequence[Any]
    choices: tuple[str, ...] = ()


def run_recurrent_cell(
    cell: RecurrentCell,
    x: jax.Array,
    state: jax.Array,
    mask: jax.Array,
    *,
    max_norm: float | None = None,
) -> jax.Array:
    """Read embedded words one after the other.

    Args:
      cell: the cell.
      x: `[T, B, H]`, the words.
      state: `[B, H]`, before the first word.
      mask: `[B, H]`, multiplies the state and what every later node reads where it
        enters a product; it has no gradient.
      max_norm: the largest Euclidean norm of a state, to which larger ones are scaled
        down; no limit if `None`.

    Returns:
      `[T, B, H]`, the state after each word. It has derivatives in reverse mode only.
    """
    size = state.shape[-1]
    # Numbers that are known make a program of their own; the others are arguments.
    choices = (tuple(cell.activations), tuple(cell.sources), tuple(cell.shares))
    leaves, structure = jax.tree.flatten(choices)
    known = tuple(None if isinstance(leaf, jax.Array) else leaf for leaf in leaves)
    plan = _Plan(structure, known, cell.choices, max_norm)
    traced = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    # The words' part of the product of node 0 takes one product for all of them.
    products = x.reshape(-1, size) @ cell.first[:size]
    products = products.reshape(*x.shape[:2], 2 * size)
    return _run(plan, traced, mask, products, cell.first[size:], cell.later, state)


class _Plan(NamedTuple):
    """What a program for a cell depends on."""

    structure: Any
    known: tuple[Any, ...]
    choices: tuple[str, ...]
    max_norm: float | None

    def decisions(self, traced: Sequence[jax.Array]) -> "_Decisions":
        left = iter(traced)
        leaves = [next(left) if leaf is None else leaf for leaf in self.known]
        activations, sources, shares = jax.tree.unflatten(self.structure, leaves)
        return _Decisions(activations, sources, shares, self.choices)


class _Decisions(NamedTuple):
    """What the nodes of a cell do; see `RecurrentCell`."""

    activations: tuple[Any, ...]
    sources: tuple[Any, ...]
    shares: tuple[Any, ...]
    choices: tuple[str, ...]

    def value(self, node: int, x: jax.Array) -> jax.Array:
        """The activation of a node."""
        return self._select(node, lambda activation: activation.function(x))

    def slope(self, node: int, value: jax.Array) -> jax.Array:
        """Its derivative, where it has a value."""
        return self._select(node, lambda activation: activation.slope(value))

    def _select(self, node: int, apply: Callable[[Activation], jax.Array]) -> jax.Array:
        activation = self.activations[node]
        if isinstance(activation, str):
            return apply(ACTIVATIONS[activation])
        # All are computed, which costs less than a branch.
        values = [apply(ACTIVATIONS[name]) for name in self.choices]
        return lax.select_n(activation, *values) if len(values) > 1 else values[0]

    def read(self, node: int, states: Sequence[jax.Array]) -> jax.Array:
        """What a later node reads of the states of the nodes before it."""
        source = self.sources[node - 1]
        if isinstance(source, int):
            return states[source]
        return lax.select_n(source, *states) if len(states) > 1 else states[0]

    def sent_to(self, node: int, reader: int, gradient: jax.Array) -> jax.Array | None:
        """The part of a gradient of what `reader` reads that is a node's."""
        source = self.sources[reader - 1]
        if isinstance(source, int):
            return gradient if source == node else None
        return jnp.where(source == node, gradient, 0)

    def mean(self, states: Sequence[jax.Array]) -> jax.Array:
        """The new state of the cell."""
        return _sum(list(map(_scaled, self.shares, states)))


def _sum(parts: Sequence[jax.Array | None]) -> jax.Array:
    """The sum of arrays; `None` stands for zero."""
    return functools.reduce(jnp.add, [part for part in parts if part is not None])


def _scaled(share: Any, x: jax.Array) -> jax.Array | None:
    """A share of an array; `None` of what is known to be zero."""
    if isinstance(share, jax.Array):
        return share.astype(x.dtype) * x
    return x * share if share else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(plan, traced, mask, products, first, later, state):
    decisions = plan.decisions(traced)

    def step(state, product):
        state = _limited(
            _step(decisions, mask, product, first, later, state)[0], plan.max_norm
        )
        return state, state

    return lax.scan(step, state, products)[1]


class _Kept(NamedTuple):
    """What the backward pass needs of a node: `[B, H]`, or with time before them.

    Attributes:
      read: what it reads.
      value: of its activation.
      opening: of its gate.
    """

    read: jax.Array
    value: jax.Array
    opening: jax.Array


def _step(
    decisions: _Decisions,
    mask: jax.Array,
    product: jax.Array,
    first: jax.Array,
    later: jax.Array,
    state: jax.Array,
) -> tuple[jax.Array, tuple[_Kept, ...]]:
    """The mean of the nodes after a word, and what to keep of each."""
    states, kept = [], []
    for node in range(len(decisions.activations)):
        if node == 0:
            read, product = state, product + (state * mask) @ first
        else:
            read = decisions.read(node, states)
            product = (read * mask) @ later[node - 1]
        inner, gate = jnp.split(product, 2, axis=-1)
        value, opening = decisions.value(node, inner), jax.nn.sigmoid(gate)
        states.append(read + opening * (value - read))
        kept.append(_Kept(read, value, opening))
    return decisions.mean(states), tuple(kept)


def _run_forward(plan, traced, mask, products, first, later, state):
    decisions = plan.decisions(traced)

    def step(state, product):
        mean, kept = _step(decisions, mask, product, first, later, state)
        state = _limited(mean, plan.max_norm)
        return state, (state, kept, None if plan.max_norm is None else mean)

    _, (hidden, kept, means) = lax.scan(step, state, products)
    return hidden, (traced, mask, first, later, kept, means)


def _run_backward(plan, residuals, gradient):
    traced, mask, first, later, kept, means = residuals
    decisions = plan.decisions(traced)
    nodes = range(len(decisions.activations))

    def step(d_state, inputs):
        d_hidden, kept, mean = inputs
        d_mean = d_hidden + d_state
        if mean is not None:
            limited = functools.partial(_limited, max_norm=plan.max_norm)
            (d_mean,) = jax.vjp(limited, mean)[1](d_mean)
        d_reads: dict[int, jax.Array] = {}
        d_products: dict[int, jax.Array] = {}
        for node in reversed(nodes):
            read, value, opening = kept[node]
            parts = [_scaled(decisions.shares[node], d_mean)]
            for reader, d_read in d_reads.items():
                parts.append(decisions.sent_to(node, reader, d_read))
            d_node = _sum(parts)
            d_value = d_node * opening
            d_inner = d_value * decisions.slope(node, value)
            d_gate = d_value * (value - read) * (1 - opening)
            d_product = jnp.concatenate([d_inner, d_gate], axis=-1)
            matrix = first if node == 0 else later[node - 1]
            d_products[node] = d_product
            d_reads[node] = d_node - d_value + (d_product @ matrix.T) * mask
        return d_reads[0], tuple(d_products[node] for node in nodes)

    d_state, d_products = lax.scan(
        step, jnp.zeros_like(mask), (gradient, kept, means), reverse=True
    )
    # Products of matrices: XLA computes sums over two axes in a slower way.
    size = mask.shape[-1]
    d_matrices = [
        (node.read * mask[None]).reshape(-1, size).T @ d_product.reshape(-1, 2 * size)
        for node, d_product in zip(kept, d_products, strict=True)
    ]
    d_later = jnp.stack(d_matrices[1:]) if len(d_matrices) > 1 else 0 * later
    return None, None, d_products[0], d_matrices[0], d_later, d_state


_run.defvjp(_run_forward, _run_backward)


def _limited(state: jax.Array, max_norm: float | None) -> jax.Array:
    if max_norm is None:
        return state
    square = jnp.square(state).sum(-1, keepdims=True)
    # The derivative of a root at 0 is infinite.
    is_large = square > max_norm**2
    scale = max_norm * lax.rsqrt(jnp.where(is_large, square, 1))
    return state * jnp.where(is_large, scale, 1)
