"""The edge primitive equals a Python loop over edges with ordinary derivatives."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.supernets import Edges, evaluate
from jaxnas.supernets.edges import select, used_rows

NUM_STATES, NUM_SOURCES, NUM_ROWS, CHANNELS = 5, 3, 4, 3

OPS = (
    lambda x, row: x,
    lambda x, row: jnp.tanh(x * row["scale"][None]),
    lambda x, row: x @ row["kernel"],
    lambda x, row: jnp.sin(x @ row["kernel"]) * row["scale"][None],
    lambda x, row: jnp.zeros_like(x),
)
HALVING_OPS = tuple(lambda x, row, op=op: op(x, row)[::2] for op in OPS)


def loop(ops, states, weights, edges, sources=None):
    """The definition of `evaluate`, for concrete edges."""
    states = list(states)
    for e in range(int(edges.num_edges)):
        source, target, op, row = (int(column[e]) for column in edges[:4])
        x = (states if sources is None else sources)[source]
        y = ops[op](x, jax.tree.map(lambda leaf, row=row: leaf[row], weights))
        states[target] = states[target] + y
    return jnp.stack(states)


def random_edges(seed, size=9, count=None, separate=False):
    """Edges in the order of their targets, each from a state before its target."""
    rng = np.random.default_rng(seed)
    if separate:
        target = rng.integers(0, NUM_STATES, size)
        source = rng.integers(0, NUM_SOURCES, size)
    else:
        target = np.sort(rng.integers(1, NUM_STATES, size))
        source = rng.integers(0, target)
    op, row = rng.integers(0, len(OPS), size), rng.integers(0, NUM_ROWS, size)
    count = size if count is None else count
    return Edges(*map(jnp.int32, (source, target, op, row, count)))


def random_arrays(seed):
    keys = jax.random.split(jax.random.key(seed), 5)
    weights = {
        "kernel": jax.random.normal(keys[0], (NUM_ROWS, CHANNELS, CHANNELS)),
        "scale": jax.random.normal(keys[1], (NUM_ROWS, CHANNELS)),
    }
    states = jax.random.normal(keys[2], (NUM_STATES, 2, CHANNELS))
    sources = jax.random.normal(keys[3], (NUM_SOURCES, 4, CHANNELS))
    projection = jax.random.normal(keys[4], states.shape)
    return states, weights, sources, projection


def scalar(make_eval_fn, ops, edges, projection):
    """A function of states, weights and sources whose value is one number."""

    def function(states, weights, sources=None):
        return (make_eval_fn(ops, states, weights, edges, sources) * projection).sum()

    return function


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_loop_with_autodiff(x64, seed):
    states, weights, _, projection = random_arrays(seed)
    edges = random_edges(seed)
    np.testing.assert_allclose(
        evaluate(OPS, states, weights, edges),
        loop(OPS, states, weights, edges),
        atol=1e-12,
    )
    actual, expected = (
        jax.grad(scalar(f, OPS, edges, projection), (0, 1))(states, weights)
        for f in (evaluate, loop)
    )
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_sources_of_another_shape(x64, seed):
    states, weights, sources, projection = random_arrays(seed)
    edges = random_edges(seed, separate=True)
    actual, expected = (
        jax.value_and_grad(scalar(f, HALVING_OPS, edges, projection), (0, 1, 2))(
            states, weights, sources
        )
        for f in (evaluate, loop)
    )
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-12)
    # No edge reads a state, so each of them passes its own gradient through.
    np.testing.assert_array_equal(actual[1][0], projection)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_edges_beyond_the_count_do_not_exist(x64, count):
    states, weights, _, projection = random_arrays(0)
    edges = random_edges(0, count=count)
    actual = jax.value_and_grad(scalar(evaluate, OPS, edges, projection), (0, 1))
    expected = jax.value_and_grad(scalar(loop, OPS, edges, projection), (0, 1))
    chex.assert_trees_all_close(
        actual(states, weights), expected(states, weights), rtol=1e-10, atol=1e-12
    )


def test_rows_that_no_edge_reads_have_no_gradient():
    states, weights, _, projection = random_arrays(0)
    column = jnp.array([0, 0], jnp.int32)
    # Row 2 by an operation that reads `kernel` only, row 1 by one that reads nothing.
    edges = Edges(column, column + 1, jnp.int32([2, 0]), jnp.int32([2, 1]), column[0])
    edges = edges._replace(num_edges=jnp.int32(2))
    gradient = jax.grad(scalar(evaluate, OPS, edges, projection), 1)(states, weights)
    assert not gradient["scale"].any()
    assert gradient["kernel"].any((1, 2)).tolist() == [False, False, True, False]


def test_leaves_may_have_unequal_numbers_of_rows(x64):
    states, weights, _, projection = random_arrays(0)
    weights["scale"] = weights["scale"][:2]
    # In rows 2 and 3 only by the operation that reads nothing but `kernel`.
    edges = Edges(
        source=jnp.int32([0, 0, 1, 1, 2, 3]),
        target=jnp.int32([1, 2, 2, 3, 3, 4]),
        op=jnp.int32([2, 1, 3, 2, 2, 3]),
        row=jnp.int32([3, 1, 0, 2, 3, 1]),
        num_edges=jnp.int32(6),
    )

    def padded(ops, states, weights, edges, sources):
        scale = jnp.pad(weights["scale"], ((0, 2), (0, 0)), constant_values=jnp.nan)
        return loop(ops, states, weights | {"scale": scale}, edges, sources)

    actual, expected = (
        jax.value_and_grad(scalar(f, OPS, edges, projection), (0, 1))(states, weights)
        for f in (evaluate, padded)
    )
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("chosen", "order"),
    [
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([0, 1, 0, 1], [1, 3]),
        ([0, 0, 1, 1], [2, 3]),
        ([0, 0, 0, 0], []),
    ],
)
def test_select_keeps_chosen_edges_in_order(chosen, order):
    column = jnp.arange(4, dtype=jnp.int32)
    # The number of edges is ignored.
    edges = Edges(column, column + 10, column + 20, column + 30, jnp.int32(0))
    selected = jax.jit(select)(edges, jnp.array(chosen, bool))
    assert selected.num_edges == len(order)
    chex.assert_type(list(selected), jnp.int32)
    for i, column in enumerate(selected[:-1]):
        assert column.shape == (4,)
        assert (column - 10 * i)[: len(order)].tolist() == order


def test_evaluating_selected_edges_skips_the_others(x64):
    states, weights, _, projection = random_arrays(0)
    edges, chosen = random_edges(0), np.arange(9) % 3 != 1
    source, target, op, row = (column[chosen] for column in edges[:-1])
    few = Edges(source, target, op, row, jnp.int32(chosen.sum()))
    actual, expected = (
        jax.value_and_grad(scalar(f, OPS, e, projection), (0, 1))(states, weights)
        for f, e in ((evaluate, select(edges, jnp.array(chosen))), (loop, few))
    )
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 6, 9])
def test_rows_that_edges_use(x64, count):
    edges = random_edges(5, count=count)
    is_used, first = jax.jit(used_rows, static_argnums=(1, 2))(
        edges, len(OPS), NUM_ROWS
    )
    chex.assert_shape([is_used, first], (len(OPS), NUM_ROWS))
    chex.assert_type([is_used, first], [bool, jnp.int32])
    pairs = [*zip(edges.op.tolist(), edges.row.tolist(), strict=True)][:count]
    for pair in np.ndindex(is_used.shape):
        assert is_used[pair] == (pair in pairs)
        assert first[pair] == (pairs.index(pair) if pair in pairs else 0)


def test_one_compilation_serves_all_edges():
    states, weights, _, projection = random_arrays(0)
    traces = []

    @jax.jit
    def gradient(states, weights, edges):
        traces.append(edges)
        return jax.grad(scalar(evaluate, OPS, edges, projection), (0, 1))(
            states, weights
        )

    results = [
        gradient(states, weights, random_edges(seed, count=count))
        for seed, count in ((0, None), (1, None), (1, 4), (2, 0))
    ]
    assert len(traces) == 1
    kernels = [result[1]["kernel"] for result in results]
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[1], kernels[2])
    assert not kernels[3].any()


def stacked_edges():
    lists = [random_edges(seed, count=count) for seed, count in ((0, 9), (1, 4))]
    return lists, jax.tree.map(lambda *leaves: jnp.stack(leaves), *lists)


def test_inside_scan(x64):
    states, weights, _, projection = random_arrays(0)
    lists, stacked = stacked_edges()

    def scanned(states, weights):
        def body(carry, edges):
            return evaluate(OPS, carry, weights, edges), None

        return (jax.lax.scan(body, states, stacked)[0] * projection).sum()

    def unrolled(states, weights):
        for edges in lists:
            states = loop(OPS, states, weights, edges)
        return (states * projection).sum()

    actual, expected = (
        jax.value_and_grad(f, (0, 1))(states, weights)
        for f in (jax.jit(scanned), unrolled)
    )
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_inside_vmap(x64):
    states, weights, _, projection = random_arrays(0)
    lists, stacked = stacked_edges()
    batch = jnp.stack([states, 2 * states])

    def one(states, edges, weights):
        return jax.value_and_grad(scalar(evaluate, OPS, edges, projection), (0, 1))(
            states, weights
        )

    # Another list, of another length, for each element of the batch.
    actual = jax.vmap(one, (0, 0, None))(batch, stacked, weights)
    for i, edges in enumerate(lists):
        expected = jax.value_and_grad(scalar(loop, OPS, edges, projection), (0, 1))
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], actual),
            expected(batch[i], weights),
            rtol=1e-10,
            atol=1e-12,
        )


def test_grad_of_vmap(x64):
    states, weights, _, projection = random_arrays(0)
    edges = random_edges(0)
    batch = jnp.stack([states, 2 * states])

    def total(weights, make_eval_fn):
        function = scalar(make_eval_fn, OPS, edges, projection)
        return jax.vmap(function, (0, None))(batch, weights).sum()

    actual, expected = (jax.grad(total)(weights, f) for f in (evaluate, loop))
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-12)
