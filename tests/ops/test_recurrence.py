"""Recurrent cells over time, and the loss of words: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxnas import ops

NAMES = tuple(ops.ACTIVATIONS)
ROWS, SIZE, STEPS = 3, 5, 6


def plain(cell, x, state, mask, max_norm=None):
    """The same by JAX's own derivative of a loop, with numbers that are known."""

    def step(state, x):
        states = []
        for node, name in enumerate(cell.activations):
            if node == 0:
                read = state
                product = jnp.concatenate([x, read * mask], 1) @ cell.first
            else:
                read = states[cell.sources[node - 1]]
                product = (read * mask) @ cell.later[node - 1]
            inner, gate = jnp.split(product, 2, axis=1)
            opening = jax.nn.sigmoid(gate)
            value = ops.ACTIVATIONS[name].function(inner)
            states.append(opening * value + (1 - opening) * read)
        mean = sum(share * s for share, s in zip(cell.shares, states, strict=True))
        if max_norm is not None:
            norm = jnp.linalg.norm(mean, axis=1, keepdims=True)
            mean = mean * jnp.minimum(1, max_norm / norm)
        return mean, mean

    return lax.scan(step, state, x)[1]


def make(activations, sources, shares):
    keys = jax.random.split(jax.random.key(0), 5)
    normal = jax.random.normal
    cell = ops.RecurrentCell(
        normal(keys[0], (2 * SIZE, 2 * SIZE), float),
        normal(keys[1], (len(sources), SIZE, 2 * SIZE), float),
        activations,
        sources,
        shares,
    )
    x = normal(keys[2], (STEPS, ROWS, SIZE), float)
    state = normal(keys[3], (ROWS, SIZE), float)
    mask = 2.0 * jax.random.bernoulli(keys[4], 0.5, (ROWS, SIZE)).astype(x.dtype)
    return cell, x, state, mask


CELLS = {
    "one node": (["tanh"], [], [1.0]),
    "all activations": (
        ["sigmoid", "tanh", "relu", "identity", "tanh"],
        [0, 0, 1, 1],
        [0.0, 0.0, 0.5, 0.25, 0.25],
    ),
}


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("is_traced", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_the_plain_loop(name, is_traced, max_norm):
    cell, x, state, mask = make(*CELLS[name])
    weights = jnp.arange(1.0, 1 + x.size).reshape(x.shape)

    def run(first, later, x, state):
        made = cell._replace(first=first, later=later)
        if is_traced:
            made = made._replace(
                activations=[jnp.int32(NAMES.index(a)) for a in cell.activations],
                sources=[jnp.int32(source) for source in cell.sources],
                shares=[jnp.asarray(share, x.dtype) for share in cell.shares],
                choices=NAMES,
            )
        hidden = ops.run_recurrent_cell(made, x, state, mask, max_norm=max_norm)
        return (weights * hidden).mean(), hidden

    def run_plain(first, later, x, state):
        made = cell._replace(first=first, later=later)
        hidden = plain(made, x, state, mask, max_norm)
        return (weights * hidden).mean(), hidden

    arguments = (cell.first, cell.later, x, state)
    found, expected = (
        jax.jit(jax.grad(f, (0, 1, 2, 3), has_aux=True))(*arguments)
        for f in (run, run_plain)
    )
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-6)
    for one, other in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        assert one.size == 0 or np.abs(one).max() > 0


def test_one_program_serves_all_cells():
    _, x, state, mask = make(*CELLS["all activations"])
    cell = make(*CELLS["all activations"])[0]
    num_traces = 0

    @jax.jit
    def run(activations, sources, shares):
        nonlocal num_traces
        num_traces += 1
        made = cell._replace(
            activations=[*activations],
            sources=[*sources],
            shares=[*shares],
            choices=NAMES,
        )
        return ops.run_recurrent_cell(made, x, state, mask)

    for seed in range(3):
        rng = np.random.default_rng(seed)
        activations = rng.integers(4, size=5)
        sources = [int(rng.integers(node)) for node in range(1, 5)]
        shares = rng.random(5)
        found = run(
            jnp.asarray(activations, jnp.int32),
            jnp.asarray(sources, jnp.int32),
            jnp.asarray(shares, x.dtype),
        )
        named = cell._replace(
            activations=[NAMES[i] for i in activations],
            sources=sources,
            shares=[float(share) for share in shares],
        )
        expected = plain(named, x, state, mask)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert num_traces == 1


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_derivatives(name):
    function, slope = ops.ACTIVATIONS[name]
    x = jnp.linspace(-3, 3, 12)
    expected = jax.vmap(jax.grad(function))(x)
    np.testing.assert_allclose(slope(function(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cross_entropy_is_that_of_optax(dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    logits = 30 * jax.random.normal(keys[0], (2, 4, 9), jnp.float32)
    logits = logits.astype(dtype)
    targets = jax.random.randint(keys[1], (2, 4), 0, 9, jnp.int32)
    weights = jax.random.normal(keys[2], (2, 4), jnp.float32)

    def total(function):
        return lambda logits: (weights * function(logits, targets)).sum()

    def expected(logits, targets):
        return optax.softmax_cross_entropy_with_integer_labels(
            logits.astype(jnp.float32), targets
        )

    found = ops.cross_entropy(logits, targets)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected(logits, targets), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(total(ops.cross_entropy))(logits)
    assert gradient.dtype == dtype
    other = jax.grad(total(expected))(logits)
    np.testing.assert_allclose(
        gradient.astype(jnp.float32), other.astype(jnp.float32), rtol=1e-4, atol=1e-5
    )
