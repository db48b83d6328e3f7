"""Message passing, against plain loops over nodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import ops, spaces
from jaxnas.ghn import _visits, functions
from jaxnas.ghn import propagation as message_passing
from jaxnas.types import Graph

SIZE = 4


def draw(*, virtual_edges=False, num_blocks=None, seed=0):
    specs = functions.specs(SIZE, virtual_edges=virtual_edges)
    if num_blocks is not None:
        specs = jax.tree.map(
            lambda spec: spec.stack(num_blocks),
            specs,
            is_leaf=lambda leaf: isinstance(leaf, ops.WeightSpec),
        )
    return ops.init(jax.random.key(seed), specs)


def sample(num_nodes, seed, max_nodes=None):
    space = spaces.ghn_dag(num_nodes, max_nodes=max_nodes, density=0.5)
    arch = space.sample(jax.random.key(seed))
    return np.asarray(space.adjacency(arch)), np.asarray(space.node_mask(arch))


def initial(num_nodes, seed=0):
    return np.asarray(jax.random.normal(jax.random.key(seed), (num_nodes, SIZE)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference_update(params, message, state):
    """A gated recurrent unit, gate by gate."""
    kernel, bias = (params["from_message"][name] for name in ("kernel", "bias"))
    told = np.split(message @ kernel + bias, 3)
    own = np.split(state @ params["from_state"], 3)
    reset = sigmoid(told[0] + own[0])
    keep = sigmoid(told[1] + own[1])
    new = np.tanh(told[2] + reset * (own[2] + params["candidate_bias"]))
    return (1 - keep) * new + keep * state


def reference_message(params, state, function=0):
    layers = {name: np.asarray(leaf)[function] for name, leaf in params.items()}
    hidden = np.maximum(state @ layers["hidden"] + layers["hidden_bias"], 0)
    return hidden @ layers["output"] + layers["output_bias"]


def shortest(adjacency, u, v):
    """Length of the shortest path by breadth-first search, 0 if there is none."""
    found, length = {u}, 0
    while found:
        found, length = (
            {w for x in found for w in np.flatnonzero(adjacency[x])},
            (length + 1),
        )
        if v in found:
            return length
    return 0


def reference_propagate(
    params, states, adjacency, present, steps, order, far=None, passed=None
):
    params = jax.tree.map(np.asarray, params)
    h, num_nodes = np.array(states), len(states)
    nodes = [v for v in range(num_nodes) if present[v]]

    def received(h, v, *, back):
        total = np.zeros(SIZE) if passed is None or v > 1 else passed[v]
        for u in nodes:
            ends = (v, u) if back else (u, v)
            if adjacency[ends]:
                total = total + reference_message(params["message"], h[u])
            distance = shortest(adjacency, *ends)
            if far is not None and 1 < distance <= far:
                total = total + reference_message(params["message"], h[u], 1) / distance
        return total

    def visit(v, *, back=False):
        h[v] = reference_update(params["update"], received(h, v, back=back), h[v])

    num_visits = 0
    for _ in range(steps):
        if order == "synchronous":
            told = {v: received(h, v, back=False) for v in nodes}
            for v in nodes:
                h[v] = reference_update(params["update"], told[v], h[v])
            continue
        for v in nodes:
            visit(v)
            num_visits += 1
        if order == "forward_backward":
            for v in nodes[-2::-1]:
                num_visits += 1
                if adjacency[v].any():
                    visit(v, back=True)
            assert num_visits % (2 * len(nodes) - 1) == 0
    return h


@pytest.mark.parametrize("has_passed", [False, True])
@pytest.mark.parametrize("virtual_edges", [None, 2, 50])
@pytest.mark.parametrize("order", message_passing.PROPAGATIONS)
@pytest.mark.parametrize(("num_nodes", "max_nodes"), [(6, 6), (5, 8)])
def test_propagation(x64, order, virtual_edges, num_nodes, max_nodes, has_passed):
    params = draw(virtual_edges=virtual_edges is not None)
    adjacency, present = sample(num_nodes, 3, max_nodes)
    states = initial(max_nodes)
    passed = jnp.asarray(initial(2, 7)) if has_passed else None
    final = jax.jit(
        lambda *args: message_passing.propagate(
            *args,
            num_steps=2,
            propagation=order,
            virtual_edges=virtual_edges,
            passed=passed,
        )
    )(params, states, adjacency, present)
    expected = reference_propagate(
        params, states, adjacency, present, 2, order, virtual_edges, passed
    )
    np.testing.assert_allclose(final, expected, rtol=1e-12)
    np.testing.assert_array_equal(final[num_nodes:], states[num_nodes:])


@pytest.mark.parametrize("virtual_edges", [None, 2])
@pytest.mark.parametrize("order", ["forward_backward", "forward"])
def test_gradients_are_those_of_automatic_differentiation(
    x64, monkeypatch, order, virtual_edges
):
    num_nodes, max_nodes = 5, 7
    params = draw(virtual_edges=virtual_edges is not None)
    adjacency, present = sample(num_nodes, 3, max_nodes)
    graph = jnp.asarray(adjacency), jnp.asarray(present)
    weights = initial(max_nodes, 8)

    def loss(params, states, passed):
        final = message_passing.propagate(
            params,
            states,
            *graph,
            num_steps=3,
            propagation=order,
            virtual_edges=virtual_edges,
            passed=passed,
        )
        return (final * weights).sum()

    def gradients():  # compiled anew
        of_all = jax.jit(lambda *args: jax.grad(loss, (0, 1, 2))(*args))
        return of_all(params, initial(max_nodes), initial(2, 7))

    found = gradients()
    monkeypatch.setattr(_visits, "run", lambda *args: _visits._forward(*args)[0])
    expected = gradients()
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        found,
        expected,
    )


def test_distances():
    adjacency, _ = sample(9, 1)
    adjacency = adjacency & (np.arange(9)[None] - np.arange(9)[:, None] < 4)
    found = message_passing.distances(jnp.asarray(adjacency))
    expected = [[shortest(adjacency, u, v) for v in range(9)] for u in range(9)]
    np.testing.assert_array_equal(found, expected)
    assert np.max(expected) > 2


def test_order_matters_along_a_path():
    """One phase there and back takes a message through the whole graph."""
    params = draw()
    path, present = jnp.eye(5, k=1, dtype=bool), jnp.ones(5, bool)

    def change(order, node):
        """Which states change if the initial state of one node does."""

        def run(states):
            return message_passing.propagate(
                params,
                states,
                path,
                present,
                num_steps=1,
                propagation=order,
                virtual_edges=None,
            )

        states = initial(5)
        other = states.copy()
        other[node] += 1
        return [*np.flatnonzero((run(states) != run(other)).any(axis=1))]

    assert change("synchronous", 0) == [0, 1]
    assert change("forward", 0) == [0, 1, 2, 3, 4]
    assert change("forward", 4) == [4]
    assert change("forward_backward", 4) == [0, 1, 2, 3, 4]


def make_graph(num_blocks, num_nodes=5, seed=2):
    blocks = [sample(num_nodes, seed + i) for i in range(num_blocks)]
    rng = np.random.default_rng(0)
    return Graph(
        node_features=jnp.asarray(
            rng.integers(0, 3, (num_blocks, num_nodes, 2)), jnp.int32
        ),
        adjacency=jnp.stack([adjacency for adjacency, _ in blocks]),
        node_mask=jnp.stack([present for _, present in blocks]),
    )


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("pass_embeddings", message_passing.PASS_EMBEDDINGS)
def test_stack_of_blocks(x64, share, pass_embeddings):
    graph = make_graph(3)
    graph = graph._replace(  # an input that nobody reads
        node_mask=graph.node_mask.at[1, 1].set(False),
        adjacency=graph.adjacency.at[1, 1].set(False),
    )
    tables = [initial(3, 5), initial(3, 6)]
    blocks = draw(num_blocks=None if share else 3)
    found = jax.jit(
        lambda params, graph: message_passing.embed(
            params,
            graph,
            num_steps=2,
            propagation="forward_backward",
            pass_embeddings=pass_embeddings,
            virtual_edges=None,
        )
    )({"attributes": tables, "blocks": blocks}, graph)
    graph = jax.tree.map(np.asarray, graph)
    last = before = np.zeros(SIZE)
    for b in range(3):
        own = jax.tree.map(lambda p, b=b: np.asarray(p if share else p[b]), blocks)
        kinds = graph.node_features[b]
        states = tables[0][kinds[:, 0]] + tables[1][kinds[:, 1]]
        passed = None
        if pass_embeddings == "once":
            states[0] = reference_update(own["update"], last, states[0])
            states[1] = reference_update(own["update"], before, states[1])
        if pass_embeddings == "every_phase":
            passed = np.stack([last, before])
        present = graph.node_mask[b]
        states = reference_propagate(
            own,
            states,
            graph.adjacency[b],
            present,
            2,
            "forward_backward",
            passed=passed,
        )
        np.testing.assert_allclose(found[b], states, rtol=1e-12)
        mean = states[present].mean(0)
        if passed is not None:
            normal = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-5)
            mean = normal + last[[-1, 0, 1, 2]]
        last, before = mean, last
