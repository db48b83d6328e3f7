"""Distributions with ordered integers, and without a range restriction."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import GOLDENS_DIR
from scipy import stats

from jaxnas import search

CARDINALITIES = (2, 3, 4)
BOUNDS = ((1, 3), (64, 256))
NUM_CATEGORICAL = len(CARDINALITIES)

with np.load(GOLDENS_DIR / "asng.npz") as file:
    # Recorded from the official code: 200 updates, with its own samples and losses.
    GOLDEN = {
        name.removeprefix("integers_lam2/"): file[name]
        for name in file.files
        if name.startswith("integers_lam2/")
    }

make_searchers = pytest.mark.parametrize("make", [search.asng, search.sng])


def of_golden():
    integers = [tuple(pair) for pair in GOLDEN["integers"].tolist()]
    return search.asng(GOLDEN["categories"], integers=integers)


def recorded(step, dtype):
    """The official state before an update, with variances for second moments."""
    first = of_golden().init(jax.random.key(0))
    mean, moment = GOLDEN["moments"][step]
    values = (
        *(GOLDEN["theta"][step], mean, moment - mean**2),
        *(GOLDEN[name][step] for name in ("s", "gamma", "Delta")),
    )
    leaves = [np.asarray(value, dtype) for value in values]
    return jax.tree.unflatten(jax.tree.structure(first), leaves)


def all_recorded(dtype):
    states = [recorded(step, dtype) for step in range(201)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


def update_each(states, dtype):
    """One update from each recorded state; in the precision of JAX."""
    tell = of_golden().tell
    told = (states, GOLDEN["archs"].astype(dtype), GOLDEN["losses"].astype(dtype))
    update = jax.jit(jax.vmap(lambda *args: tell(*args)[0]))
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64),
        update(*jax.tree.map(lambda leaf: jnp.asarray(leaf, float), told)),
    )


def replay():
    """All states of a search that is told what the official code was told."""
    searcher = of_golden()

    def tell(state, told):
        state, _ = searcher.tell(state, *told)
        return state, state

    told = tuple(jnp.asarray(GOLDEN[name], float) for name in ("archs", "losses"))
    first = searcher.init(jax.random.key(0))
    return jax.jit(lambda: jax.lax.scan(tell, first, told))()[1]


def errors(states, expected):
    """Largest errors; of means, second moments and Delta relative."""
    by_name = {}
    for name, state in (("actual", states), ("expected", expected)):
        normal = state.theta.normal
        by_name[name] = {
            "theta": state.theta.probabilities,
            "mean": normal.mean,
            "moment": normal.variance + normal.mean**2,
            "s": state.s,
            "gamma": state.gamma,
            "Delta": state.Delta,
        }
    relative = "mean", "moment", "Delta"
    return {
        name: float(
            np.abs((actual - value) / (value if name in relative else 1.0)).max()
        )
        for name, actual in by_name["actual"].items()
        for value in [by_name["expected"][name]]
    }


def test_each_update_repeats_the_official_code(x64):
    states = all_recorded(np.float64)
    before, after = (
        jax.tree.map(lambda leaf, cut=cut: leaf[cut], states)
        for cut in (slice(-1), slice(1, None))
    )
    found = errors(update_each(before, np.float64), after)
    # The smaller eigenvalue in the official root of the Fisher matrix is a difference
    # of numbers 1e6 times as large.
    assert found.pop("s") < 1e-8
    assert max(found.values()) < 1e-12


def test_each_update_in_single_precision():
    states = jax.tree.map(lambda leaf: leaf[:-1], all_recorded(np.float32))
    found = update_each(states, np.float32)
    with jax.enable_x64(True):
        expected = update_each(states, np.float32)
    assert max(errors(found, expected).values()) < 1e-6


def test_a_run_repeats_the_official_code():
    """As long as rounding has not grown: by a factor of 1e5 in these 200 updates."""
    states, official = replay(), all_recorded(np.float64)
    start, recorded_start = (
        jax.tree.map(lambda leaf, cut=cut: np.asarray(leaf[cut], float), tree)
        for tree, cut in ((states, slice(0, 20)), (official, slice(1, 21)))
    )
    assert start.theta.normal.mean.shape == (20, 4)
    assert max(errors(start, recorded_start).values()) < 1e-6


def second_moment_asng():
    """Algorithm 1 in second moments, with more digits; independent of the library.

    Returns:
      The states after each update, as those of the searcher.
    """
    real = np.longdouble
    sizes = GOLDEN["categories"].astype(int)
    low, high = GOLDEN["integers"].T.astype(real)
    theta = (
        np.array([np.arange(5) < size for size in sizes]) / sizes.astype(real)[:, None]
    )
    mean = (low + high) / 2
    moment = mean**2 + ((high - low) / 2) ** 2
    s, gamma, Delta = np.zeros(16, real), real(0), real(1)
    states = []
    for archs, losses in zip(GOLDEN["archs"], GOLDEN["losses"], strict=True):
        best, worst = archs[np.argsort(losses)]
        if abs(np.diff(losses)) > 1e-14 * losses.min():
            hot = [np.arange(5) == arch[:4, None] for arch in (best, worst)]
            G = (hot[0].astype(real) - hot[1]) / 2
            z, other = best[4:].astype(real), worst[4:].astype(real)
            G_mean, G_moment = (z - other) / 2, (z**2 - other**2) / 2
            roots = []
            for row, g, size in zip(theta, G, sizes, strict=True):
                p, free = np.sqrt(row[: size - 1]), g[: size - 1]
                last = row[size - 1] + np.sqrt(row[size - 1])
                roots.append(free / p + p * free.sum() / last)
            # The root of a symmetric 2x2 matrix, by its determinant and trace.
            v = moment - mean**2
            F = np.array([[4 * mean**2 + 2 * v, -2 * mean], [-2 * mean, 1 + 0 * v]])
            F = F / (2 * v**2)
            det = np.sqrt(F[0, 0] * F[1, 1] - F[0, 1] ** 2)
            root = F + det * np.eye(2)[:, :, None]
            root = root / np.sqrt(F[0, 0] + F[1, 1] + 2 * det)
            roots += [root[k, 0] * G_mean + root[k, 1] * G_moment for k in range(2)]
            root_G = np.concatenate(roots)
            norm = np.sqrt((root_G**2).sum())
            beta = 1 / Delta / 4
            step = 1 / Delta / (norm + real(1e-9))
            s = (1 - beta) * s + np.sqrt(beta * (2 - beta)) * root_G / norm
            gamma = (1 - beta) ** 2 * gamma + beta * (2 - beta)
            Delta = Delta * np.exp(beta * (gamma - (s**2).sum() / real(1.5)))
            theta = theta + step * G
            for row, size in zip(theta, sizes, strict=True):
                least = 1 / real(4 * (size - 1))
                p = np.maximum(row[:size], least)
                p = p - (p.sum() - 1) * (p - least) / (p.sum() - least * size)
                row[:size] = p / p.sum()
            mean = np.clip(mean + step * G_mean, low, high)
            spread = mean**2 + real(1) / 16, mean**2 + ((high - low) / 2) ** 2
            moment = np.clip(moment + step * G_moment, *spread)
        states.append([theta.copy(), mean, moment - mean**2, s, gamma, Delta])
    leaves = [np.array(values) for values in zip(*states, strict=True)]
    structure = jax.tree.structure(of_golden().init(jax.random.key(0)))
    return jax.tree.unflatten(structure, leaves)


@pytest.mark.skipif(
    bool(np.finfo(np.longdouble).eps > 1e-18),
    reason="long doubles have no more digits here",
)
def test_a_run_in_double_precision(x64):
    states = jax.tree.map(np.asarray, replay())
    exact = second_moment_asng()
    assert max(errors(states, exact).values()) < 5e-11
    first, exact_first = (
        jax.tree.map(lambda leaf: leaf[:100], tree) for tree in (states, exact)
    )
    assert max(errors(first, exact_first).values()) < 1e-12
    # The recorded run lies farther from both, for its own rounding.
    official = jax.tree.map(lambda leaf: leaf[1:], all_recorded(np.float64))
    assert max(errors(states, official).values()) < 5e-8
    assert errors(official, exact)["s"] > 100 * errors(states, exact)["s"]


# Architectures ----------------------------------------------------------------------


@make_searchers
def test_integers_are_drawn_in_mirrored_pairs(make):
    searcher = make(CARDINALITIES, integers=BOUNDS)
    state = searcher.init(jax.random.key(0))
    archs = np.asarray(searcher.ask(state, jax.random.key(1), 4000), np.float64)
    assert archs.shape == (4000, 5)
    chosen, draws = archs[:, :NUM_CATEGORICAL], archs[:, NUM_CATEGORICAL:]
    for column, size in zip(chosen.T, CARDINALITIES, strict=True):
        assert set(column) == set(range(size))
    # Categories are drawn for each; pairs lie on both sides of the middle.
    assert (chosen[::2] != chosen[1::2]).any()
    middle, half = np.array([2.0, 160.0]), np.array([1.0, 96.0])
    np.testing.assert_allclose(
        (draws[::2] + draws[1::2]) / 2, [middle] * 2000, rtol=1e-6
    )
    for column, m, h in zip(draws[::2].T, middle, half, strict=True):
        assert stats.kstest((column - m) / h, "norm").pvalue > 0.01
    # Raw: beyond the bounds, and no whole numbers.
    assert (draws[:, 0] > 3).any() and (draws % 1 != 0).mean() > 0.99


@make_searchers
def test_architectures_are_floats_of_the_default_precision(make):
    searcher = make(CARDINALITIES, integers=BOUNDS)
    for x64, dtype in ((False, jnp.float32), (True, jnp.float64)):
        with jax.enable_x64(x64):
            state = searcher.init(jax.random.key(0))
            archs = searcher.ask(state, jax.random.key(1), 2)
            assert archs.dtype == searcher.mode(state).dtype == dtype


@make_searchers
@pytest.mark.parametrize("num", [1, 3, 5])
def test_an_odd_number_is_refused(make, num):
    searcher = make(CARDINALITIES, integers=BOUNDS)
    state = searcher.init(jax.random.key(0))
    with pytest.raises(ValueError, match=f"num is {num}; expected an even number"):
        searcher.ask(state, jax.random.key(1), num)


def test_mode_has_categories_and_means():
    searcher = search.asng(CARDINALITIES, integers=BOUNDS)
    state = searcher.init(jax.random.key(0))
    theta = state.theta._replace(
        probabilities=jnp.array(
            [[0.2, 0.8, 0, 0], [0.4, 0.3, 0.3, 0], [0.1] * 3 + [0.7]]
        ),
        normal=state.theta.normal._replace(mean=jnp.array([2.25, 100.5])),
    )
    mode = searcher.mode(state._replace(theta=theta))
    np.testing.assert_array_equal(mode, [1, 0, 3, 2.25, 100.5])


@make_searchers
@pytest.mark.parametrize(
    "bounds", [(3, 3), (3, 1), (1, 2.5), (np.nan, 3), (False, True)]
)
def test_wrong_bounds_are_refused(make, bounds):
    with pytest.raises(ValueError, match=r"integer 1 has the bounds .*; expected two"):
        make(CARDINALITIES, integers=[(0, 1), bounds])


@make_searchers
def test_a_restriction_that_does_not_fit_is_refused_with_integers_too(make):
    with pytest.raises(ValueError, match="decision 0 has 2 categories"):
        make((2,), integers=BOUNDS)


# Learning ---------------------------------------------------------------------------


def cost(archs):
    """Zero for the categories 1, 2, 3 and the integers 1 and 200, as they round."""
    wrong = (archs[:, :NUM_CATEGORICAL] != jnp.array([[1.0, 2, 3]])).sum(1)
    draws = jnp.clip(archs[:, NUM_CATEGORICAL:], *jnp.array(BOUNDS, float).T[:, None])
    far = jnp.abs(jnp.round(draws) - jnp.array([[1.0, 200]]))
    return wrong.astype(float) + (far / jnp.array([[2.0, 192]])).sum(1)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def run(searcher, num, num_steps, cost=cost):
    def step(state, key):
        archs = searcher.ask(state, key, num)
        return searcher.tell(state, archs, cost(archs))

    state = searcher.init(jax.random.key(0))
    return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), num_steps))


@make_searchers
def test_the_optimum_is_found(make):
    searcher = make(CARDINALITIES, integers=BOUNDS)
    state, metrics = run(searcher, 8, 2000)
    mode = np.asarray(searcher.mode(state))
    np.testing.assert_array_equal(np.round(mode[:-1]), [1, 2, 3, 1])
    assert mode[-1] == pytest.approx(200, abs=8)
    variance = np.asarray(state.theta.normal.variance)
    assert (variance >= 1 / 16).all() and (variance <= [1, 96**2]).all()
    shares = np.sqrt(variance) / [1, 96]
    assert metrics["std_mean"][-1] == pytest.approx(shares.mean(), rel=1e-5)
    assert metrics["std_mean"][-1] < 0.3 < metrics["std_mean"][0] <= 1
    chex.assert_tree_all_finite((state, metrics))


@make_searchers
def test_nothing_is_learned_from_equal_losses(make):
    searcher = make(CARDINALITIES, integers=BOUNDS)
    for loss in (0.0, np.inf, np.nan):
        state, _ = run(searcher, 4, 20, functools.partial(equal, loss))
        chex.assert_trees_all_equal(state, searcher.init(jax.random.key(0)))


def equal(loss, archs):
    return jnp.full(len(archs), loss)


def test_there_may_be_integers_alone():
    searcher = search.asng((), integers=BOUNDS)
    state, metrics = run(searcher, 2, 500, lambda archs: jnp.abs(archs - 100.3).sum(1))
    assert float(searcher.mode(state)[1]) == pytest.approx(100.3, abs=5)
    assert metrics.keys() == {"std_mean", "delta", "signal_to_noise"}


def test_a_small_step_has_its_length_in_the_joint_fisher_norm(x64):
    """Twice the divergence of two near distributions is the squared Fisher norm."""
    searcher = search.asng(CARDINALITIES, integers=BOUNDS, init_delta=1e-4)
    state, _ = run(search.asng(CARDINALITIES, integers=BOUNDS), 2, 100)
    state = searcher.init(jax.random.key(0))._replace(theta=state.theta)
    inside = state.theta.normal._replace(variance=jnp.array([0.4, 900.0]))
    state = state._replace(theta=state.theta._replace(normal=inside))
    archs = searcher.ask(state, jax.random.key(3), 4)
    told, _ = searcher.tell(state, archs, jnp.arange(4.0))
    (p, old), (q, new) = state.theta, told.theta
    of_categories = (p * jnp.log(jnp.where(q > 0, p / q, 1))).sum()
    ratio = old.variance / new.variance
    of_integers = (
        ratio - 1 - jnp.log(ratio) + (new.mean - old.mean) ** 2 / new.variance
    ).sum() / 2
    assert of_categories > 0 and of_integers > 0
    # The variance loses the square of a step's mean, which is of second order.
    length = np.sqrt(2 * (of_categories + of_integers))
    assert length == pytest.approx(1e-4, rel=1e-2)


# Convergence and restriction ----------------------------------------------------------


@pytest.mark.parametrize("make", [search.asng, search.sng, search.adam_sng])
def test_metrics_of_convergence(make):
    searcher = make((1, 2, 4, 4))
    state = searcher.init(jax.random.key(0))
    archs = jnp.zeros((2, 4), jnp.int32)
    _, metrics = searcher.tell(state, archs, jnp.zeros(2))
    assert metrics["theta_max_mean"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 4) / 4)
    assert metrics["entropy"] == pytest.approx(np.log(2 * 4 * 4), rel=1e-6)


@pytest.mark.parametrize("make", [search.asng, search.sng, search.adam_sng])
@pytest.mark.parametrize("cardinalities", [(2,), (2, 3), (3, 1, 4, 5)])
def test_without_range_restriction_everything_stays_finite(make, cardinalities):
    searcher = make(cardinalities, range_restriction=False)
    state, metrics = run(searcher, 2, 1000, lambda archs: archs.sum(1).astype(float))
    chex.assert_tree_all_finite((state, metrics))
    # Far beyond what the restriction allows, 1 - 1 / n, and perhaps too early.
    assert metrics["theta_max_mean"][-1] > 0.999
