import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.analysis import linear_cells

NODES, FEATURES, CLASSES, INSTANCES, PAIRS = 4, 3, 3, 8, 5


def draw(seed=0, scale=1.0, dtype=float):
    generator = np.random.default_rng(seed)
    shape = (NODES, FEATURES, FEATURES)
    arrays = {
        "weights": scale * generator.normal(size=shape),
        "pairs": scale * generator.normal(size=(PAIRS, 2, *shape)),
        "head": generator.normal(size=(CLASSES, NODES * FEATURES)),
        "inputs": generator.normal(size=(INSTANCES, FEATURES)),
    }
    drawn = {name: jnp.asarray(array, dtype) for name, array in arrays.items()}
    labels = generator.integers(0, CLASSES, INSTANCES)
    return drawn | {"labels": jnp.asarray(labels, jnp.int32)}


def without(drawn, *names):
    return {name: array for name, array in drawn.items() if name not in names}


def product(matrices):
    """`M_k ... M_1`, the identity of no matrices."""
    result = np.eye(FEATURES)
    for matrix in matrices:
        result = matrix @ result
    return result


def test_example_in_the_documentation():
    result = doctest.testmod(linear_cells, verbose=False)
    assert result.attempted > 8
    assert result.failed == 0


@pytest.mark.usefixtures("x64")
def test_cells_are_what_they_are_called():
    drawn = draw()
    weights, x = np.asarray(drawn["weights"]), np.asarray(drawn["inputs"][0])
    widest = linear_cells.widest_cell(drawn["weights"], drawn["inputs"][0])
    narrowest = linear_cells.narrowest_cell(drawn["weights"], drawn["inputs"][0])
    for node in range(NODES):
        np.testing.assert_allclose(widest[node], weights[node] @ x)
        np.testing.assert_allclose(narrowest[node], product(weights[: node + 1]) @ x)


@pytest.mark.usefixtures("x64")
def test_gradients_are_those_of_losses_linear_in_the_nodes():
    drawn = draw()
    upstream = linear_cells.upstream_gradients(**without(drawn, "pairs"))
    assert upstream.shape == (INSTANCES, NODES, FEATURES)
    found = linear_cells.linear_cell_gradients(
        drawn["weights"], drawn["inputs"], upstream
    )
    direction = np.random.default_rng(1).normal(size=(NODES, FEATURES, FEATURES))
    cells = (linear_cells.widest_cell, linear_cells.narrowest_cell)
    for cell, gradients in zip(cells, found, strict=True):

        def loss(step, cell=cell):
            nodes = cell(drawn["weights"] + step * direction, drawn["inputs"][2])
            return float((upstream[2] * nodes).sum())

        difference = (loss(1e-6) - loss(-1e-6)) / 2e-6
        slope = (np.asarray(gradients[2]) * direction).sum()
        np.testing.assert_allclose(slope, difference, rtol=1e-7)


@pytest.mark.usefixtures("x64")
def test_widest_gradients_are_those_of_the_classifier():
    drawn = draw()

    def losses(weights):
        nodes = jnp.einsum("nij,bj->bni", weights, drawn["inputs"])
        logits = nodes.reshape(INSTANCES, -1) @ drawn["head"].T
        log_probabilities = jax.nn.log_softmax(logits)
        return -log_probabilities[jnp.arange(INSTANCES), drawn["labels"]]

    upstream = linear_cells.upstream_gradients(**without(drawn, "pairs"))
    found = linear_cells.linear_cell_gradients(
        drawn["weights"], drawn["inputs"], upstream
    )
    np.testing.assert_allclose(
        found.widest, jax.jacobian(losses)(drawn["weights"]), atol=1e-12
    )


@pytest.mark.usefixtures("x64")
def test_narrowest_gradients_have_the_closed_form():
    drawn = draw()
    weights = np.asarray(drawn["weights"])
    upstream = linear_cells.upstream_gradients(**without(drawn, "pairs"))
    widest, narrowest = linear_cells.linear_cell_gradients(
        drawn["weights"], drawn["inputs"], upstream
    )
    for i in range(NODES):
        before = product(weights[:i])
        expected = sum(
            product(weights[i + 1 : k + 1]).T @ np.asarray(widest[:, k]) @ before.T
            for k in range(i, NODES)
        )
        np.testing.assert_allclose(narrowest[:, i], expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_variances_are_over_instances():
    gradients = np.random.default_rng(0).normal(size=(INSTANCES, NODES, 2, 2))
    expected = [gradients[:, i].reshape(-1, 4).var(axis=0).sum() for i in range(NODES)]
    found = linear_cells.block_variances(jnp.asarray(gradients))
    np.testing.assert_allclose(found, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_theorems_hold(seed, scale):
    cells = linear_cells.measure_linear_cells(**draw(seed, scale))
    assert np.all(cells.narrowest_variance <= cells.variance_bound)
    assert np.all(cells.narrowest_smoothness <= cells.smoothness_bound * (1 + 1e-12))
    # Nothing comes before the first matrix.
    np.testing.assert_allclose(
        cells.narrowest_smoothness[0], cells.widest_smoothness[0]
    )
    assert np.all(np.asarray(cells.widest_variance) > 0)


@pytest.mark.usefixtures("x64")
def test_smoothness_bound_holds_pair_by_pair():
    drawn = draw(scale=1.5)
    widest, narrowest = map(np.asarray, linear_cells.smoothness_ratios(**drawn))
    assert widest.shape == narrowest.shape == (PAIRS, NODES)
    norms = np.linalg.norm(np.asarray(drawn["weights"]), 2, axis=(1, 2))
    before = np.concatenate([[1.0], np.cumprod(norms)[:-1]])
    assert np.all(narrowest <= before * widest * (1 + 1e-12))
    # The inequality is not an idle one.
    assert np.all(narrowest > 0.01 * before * widest)


@pytest.mark.usefixtures("x64")
def test_narrowest_difference_is_the_widest_times_the_matrices_before():
    drawn = draw()
    pair, node = drawn["pairs"][1], 2
    differences = []
    for side in (0, 1):
        replaced = drawn["weights"].at[node].set(pair[side, node])
        arguments = without(drawn, "pairs") | {"weights": replaced}
        upstream = linear_cells.upstream_gradients(**arguments)
        found = linear_cells.linear_cell_gradients(
            replaced, drawn["inputs"], upstream
        ).widest
        differences.append(np.asarray(found[:, node]).mean(axis=0))
    difference = differences[0] - differences[1]
    before = product(np.asarray(drawn["weights"][:node]))
    distance = np.linalg.norm(pair[0, node] - pair[1, node])
    ratios = [np.linalg.norm(d) for d in (difference, difference @ before.T)]
    found = linear_cells.smoothness_ratios(**drawn)
    np.testing.assert_allclose(
        [ratio[1, node] for ratio in found], np.array(ratios) / distance
    )


@pytest.mark.usefixtures("x64")
def test_bounds_are_the_published_formulas():
    norms = np.array([0.5, 3.0, 2.0])
    variances = np.array([4.0, 1.0, 9.0])
    expected = [
        3
        * sum(
            (np.sqrt(variances[k]) / norms[i] * np.prod(norms[: k + 1])) ** 2
            for k in range(i, 3)
        )
        for i in range(3)
    ]
    found = linear_cells.variance_bound(jnp.asarray(variances), jnp.asarray(norms))
    np.testing.assert_allclose(found, expected)
    found = linear_cells.smoothness_bound(jnp.asarray(variances), jnp.asarray(norms))
    np.testing.assert_allclose(found, [4.0, 0.5, 9 * 1.5])


def test_equal_matrices_of_a_pair_have_ratio_zero():
    drawn = draw(dtype=jnp.float32)
    drawn["pairs"] = jnp.zeros_like(drawn["pairs"])
    for ratio in linear_cells.smoothness_ratios(**drawn):
        np.testing.assert_array_equal(ratio, 0.0)


def test_random_cells_have_the_spectral_norm_asked_for():
    cells = linear_cells.compare_linear_cells(
        jax.random.key(1), 2, 5, num_instances=8, num_pairs=2, spectral_norm=1.5
    )
    for array in cells:
        assert array.shape == (2,) and array.dtype == jnp.float32
    np.testing.assert_allclose(cells.spectral_norms, 1.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_nodes": 0}, "num_nodes is 0; expected at least 1"),
        ({"features": 0}, "features is 0"),
        ({"num_classes": 1}, "num_classes is 1; expected at least 2"),
        ({"num_instances": 1}, "num_instances is 1; expected at least 2"),
        ({"num_pairs": 0}, "num_pairs is 0"),
        ({"spectral_norm": 0.0}, r"spectral_norm is 0\.0; expected a positive"),
        ({"spectral_norm": float("nan")}, "spectral_norm is nan"),
    ],
)
def test_wrong_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        linear_cells.compare_linear_cells(jax.random.key(0), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": jnp.ones((4, 3, 2))},
            r"weights has shape \(4, 3, 2\); expec",
        ),
        ({"weights": jnp.ones((0, 3, 3))}, r"weights has shape \(0, 3, 3\)"),
        ({"head": jnp.ones((3, 11))}, r"head has shape \(3, 11\); expected \[num_clas"),
        ({"inputs": jnp.ones((8, 2))}, r"inputs has shape \(8, 2\); expected .*3\]"),
        ({"labels": jnp.zeros(7, int)}, r"labels are int32 \(7,\); expected .*\[8\]"),
        ({"labels": jnp.zeros(8)}, r"labels are float32 \(8,\); expected integers"),
        ({"labels": jnp.full(8, 3)}, "label 3 of instance 0 .*; expected 0 to 2"),
        ({"labels": jnp.full(8, -1)}, "label -1 of instance 0"),
        ({"pairs": jnp.ones((5, 1, 4, 3, 3))}, r"\[num_pairs, 2, 4, 3, 3\]"),
        ({"pairs": jnp.ones((0, 2, 4, 3, 3))}, r"pairs has shape \(0, 2, 4, 3, 3\)"),
        (
            {"inputs": jnp.ones((1, 3)), "labels": jnp.zeros(1, int)},
            "there is 1 instance; expected 2 or more",
        ),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        linear_cells.measure_linear_cells(**(draw(dtype=jnp.float32) | change))
