"""Visits of the nodes of a block one after the other, with a gradient of their own.

A visit depends on the one before, so that whatever happens in it takes its time. What
is differentiated automatically keeps a dozen small arrays of each visit, and adds to
the gradient of every parameter in each. Here only new states are kept: the rest of all
visits is computed at once from them, as are the gradients of the parameters, and the
visits of the backward pass do nothing but pass gradients on to other nodes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.ghn import functions
from jaxnas.types import Params


class Visits(NamedTuple):
    """Visits of one phase, a row for each.

    Attributes:
      is_updated: bool `[num_visits]`, whether the node's state changes.
      listens: `[num_visits, num, num_nodes]`, how much of each message of whom reaches
        the node.
    """

    is_updated: jax.Array
    listens: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run(
    nodes: tuple[int, ...],
    num_phases: int,
    params: Params,
    states: jax.Array,
    given: jax.Array,
    visits: Visits,
) -> jax.Array:
    """Visit nodes, each of which receives messages and updates its state.

    Args:
      nodes: which one each visit of a phase is to.
      num_phases: how often all visits are made.
      params: of the functions `messages` and `update` of `jaxnas.ghn.functions`.
      states: `[num_nodes, size]`.
      given: `[num_visits, size]`, what they receive from outside of the block in each
        visit of a phase.
      visits: the visits of a phase.

    Returns:
      The final states, `[num_nodes, size]`.
    """
    return _forward(nodes, num_phases, params, states, given, visits)[0]


def _forward(nodes, num_phases, params, states, given, visits):
    """Final states, and what the backward pass needs."""

    def visit(tables, visited):
        states, messages = tables
        node, given, (is_updated, listens) = visited
        received = jnp.tensordot(listens, messages, axes=([0, 1], [1, 0])) + given
        state = lax.dynamic_index_in_dim(states, node, keepdims=False)
        new = functions.update(params["update"], received, state)
        new = jnp.where(is_updated, new, state)
        rows = new, functions.messages(params["message"], new)
        return [
            lax.dynamic_update_index_in_dim(table, row, node, 0)
            for table, row in zip(tables, rows, strict=True)
        ], new

    def phase(tables, _):
        return lax.scan(visit, tables, (np.array(nodes, np.int32), given, visits))

    tables = [states, functions.messages(params["message"], states)]
    (final, _), new = lax.scan(phase, tables, length=num_phases)
    return final, (params, states, given, visits, new.reshape(-1, states.shape[1]))


def _backward(nodes, num_phases, kept, gradient):
    """Gradients of `run` by its parameters, first states and what it was given."""
    params, first, given, visits, new = kept
    num_nodes = first.shape[0]
    visited, latest = _order(nodes, num_phases, num_nodes)
    given, visits = jax.tree.map(
        lambda rows: jnp.tile(rows, (num_phases, *[1] * (rows.ndim - 1))),
        (given, visits),
    )

    # Everything of all visits that does not depend on gradients.
    states = jnp.concatenate([first, new])
    sent, sent_vjp = jax.vjp(functions.messages, params["message"], states)
    received = jnp.einsum("vku,vukd->vd", visits.listens, sent[latest]) + given
    before = states[latest[np.arange(visited.size), visited]]
    _, new_vjp = jax.vjp(
        lambda params, received: functions.update(params, received, before),
        params["update"],
        received,
    )
    rows = (
        visited,
        visits,
        functions.update_factors(params["update"], received, before),
        functions.active_units(params["message"], new),
    )

    def visit(tables, row):
        of_states, of_sent = tables
        node, visited, factors, active = row
        of_new, of_messages = (
            lax.dynamic_index_in_dim(table, node, keepdims=False) for table in tables
        )
        of_new += functions.messages_vjp(params["message"], active, of_messages)
        of_update = jnp.where(visited.is_updated, of_new, jnp.zeros_like(of_new))
        of_received, of_state = functions.update_vjp(
            params["update"], factors, of_update
        )
        of_state = jnp.where(visited.is_updated, of_state, of_new)
        # What was sent before this visit has been sent by an earlier state.
        others = lax.dynamic_update_index_in_dim(
            of_sent, jnp.zeros_like(of_messages), node, 0
        )
        heard = visited.listens.T[..., None] * of_received[None, None]
        states = lax.dynamic_update_index_in_dim(of_states, of_state, node, 0)
        return (states, others + heard), (of_update, of_messages)

    tables = gradient, jnp.zeros_like(sent[:num_nodes])
    (of_first, of_first_sent), (of_update, of_sent) = lax.scan(
        visit, tables, rows, reverse=True
    )
    of_message_params, of_sender = sent_vjp(jnp.concatenate([of_first_sent, of_sent]))
    of_update_params, of_received = new_vjp(of_update)
    of_params = {"message": of_message_params, "update": of_update_params}
    of_given = of_received.reshape(num_phases, len(nodes), -1).sum(0)
    return of_params, of_first + of_sender[:num_nodes], of_given, None


def _order(
    nodes: tuple[int, ...], num_phases: int, num_nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nodes of all visits, and where the states before each of them are.

    Returns:
      int32 `[num_visits]`, and int32 `[num_visits, num_nodes]`, indices into the first
      states followed by those after each visit.
    """
    visited = np.tile(np.array(nodes, np.int32), num_phases)
    latest = np.empty((visited.size, num_nodes), np.int32)
    newest = np.arange(num_nodes)
    for visit, node in enumerate(visited):
        latest[visit] = newest
        newest[node] = num_nodes + visit
    return visited, latest


run.defvjp(_forward, _backward)
