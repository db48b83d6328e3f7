"""REINFORCE: its update against definitions, and its learning against chance."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import optim, search, spaces
from jaxnas.search import controllers
from jaxnas.search.policy_gradient import moving_baseline

SIZES = (2, 3, 4)
PLAIN = search.ControllerSettings(hidden_size=5, entropy_weight=0.0, baseline_start=0.0)
ARCHS = jnp.array([[0, 2, 1], [1, 0, 3], [1, 2, 2]], jnp.int32)


@functools.cache
def built(settings, space=SIZES):
    # The step is the gradient itself.
    return search.reinforce(space, optimizer=optax.sgd(1.0), settings=settings)


def started(searcher, scale=1):
    """A state in NumPy, on which tests compute faster."""
    state = jax.device_get(searcher.init(jax.random.key(0)))
    return state._replace(params=jax.tree.map(lambda p: scale * p, state.params))


def gradient_of(searcher, state, archs, losses):
    told, _ = searcher.tell(state, archs, jnp.asarray(losses, float))
    return jax.tree.map(lambda p, q: p - np.asarray(q), state.params, told.params)


# The update ----------------------------------------------------------------------


def test_the_optimizer_is_given_the_gradient_and_the_parameters():
    state = started(built(PLAIN))
    losses = [0.3, 0.2, 9.0]
    gradient = gradient_of(built(PLAIN), state, ARCHS, losses)
    decay = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    decayed = search.reinforce(SIZES, optimizer=decay, settings=PLAIN)
    state = state._replace(opt_state=decay.init(state.params))
    chex.assert_trees_all_close(
        gradient_of(decayed, state, ARCHS, losses),
        jax.tree.map(lambda g, p: 0.1 * (g + 0.5 * p), gradient, state.params),
        rtol=1e-4,
        atol=1e-7,
    )
    assert max(np.abs(g).max() for g in jax.tree.leaves(gradient)) > 1e-3


@pytest.mark.parametrize(
    ("space", "entropy"),
    [(SIZES, "reward"), (spaces.MacroSpace(3, ("conv_3x3", "conv_5x5")), "bonus")],
)
def test_gradient_is_that_of_the_objective(space, entropy, x64):
    settings = PLAIN._replace(entropy=entropy, entropy_weight=0.1, baseline_start=0.3)
    searcher = built(settings, space)
    score = jax.jit(controllers.policy(space, settings).score)
    state = started(searcher, scale=10)
    archs = searcher.ask(state, jax.random.key(1), 3)

    rewards = np.array([0.5, 0.1, 0.8])
    gradient = gradient_of(searcher, state, archs, 1 - rewards)
    if entropy == "reward":
        episodes = jax.device_get(score(state.params, archs))
        rewards += 0.1 * episodes.entropies.sum(1)
    baseline, advantages = 0.3, np.empty(3)
    for i, reward in enumerate(rewards):
        baseline = 0.99 * baseline + 0.01 * reward
        advantages[i] = reward - baseline

    def objective(shift):
        params = jax.tree.map(lambda p, d: p + shift * d, state.params, direction)
        episodes = jax.device_get(score(params, archs))
        loss = -np.mean(advantages * episodes.log_probs.sum(1))
        if entropy == "bonus":
            loss -= 0.1 * np.mean(episodes.entropies.sum(1))
        if episodes.skip_penalty is not None:
            loss += 0.8 * np.mean(episodes.skip_penalty)
        return loss

    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), state.params)
    slopes = jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)
    slope = sum(jax.tree.leaves(slopes))
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(
        (objective(1e-5) - objective(-1e-5)) / 2e-5, slope, rtol=1e-6
    )


def test_twice_the_advantage_is_twice_the_gradient(x64):
    searcher = built(PLAIN)
    state = started(searcher, scale=10)
    # From a baseline of zero, the advantage is 0.99 of the reward.
    once, twice, worse = (
        gradient_of(searcher, state, ARCHS, np.full(3, 1 - reward))
        for reward in (1.0, 2.0, -1.0)
    )
    for factor, other in ((2, twice), (-1, worse)):
        expected = jax.tree.map(lambda g, factor=factor: factor * g, once)
        chex.assert_trees_all_close(other, expected, rtol=1e-6, atol=1e-12)
    assert max(np.abs(g).max() for g in jax.tree.leaves(once)) > 1e-3


def test_unused_choices_have_no_gradient(x64):
    searcher = built(PLAIN)
    gradient = gradient_of(searcher, started(searcher), ARCHS, [0.1, 0.5, 0.9])
    used = np.zeros(gradient["embeddings"].shape[:2], bool)
    used[np.arange(2), np.asarray(ARCHS)[:, :2]] = True  # the last feeds nothing
    np.testing.assert_array_equal((gradient["embeddings"] != 0).any(2), used)


# The baseline --------------------------------------------------------------------


def test_baseline_averages_rewards_in_turn(x64):
    rewards, valid = jnp.array([1.0, 5.0, 2.0]), jnp.array([True, False, True])
    found = moving_baseline(jnp.zeros(()), rewards, valid, 0.9)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.29])


def test_baseline_of_equal_rewards(x64):
    searcher = built(PLAIN)
    state, metrics = started(searcher), {}
    for _ in range(3):
        state, metrics = searcher.tell(state, ARCHS, jnp.full(3, 0.4))
    np.testing.assert_allclose(state.baseline, 0.6 * (1 - 0.99**9))
    assert metrics["baseline"] == state.baseline
    np.testing.assert_allclose(metrics["reward"], 0.6)
    assert state.num_rewards == 9


LATE = search.ControllerSettings(hidden_size=5, entropy_weight=0.0, baseline_decay=0.9)


def test_baseline_can_start_at_the_first_rewards(x64):
    searcher = built(LATE)
    state = started(searcher)
    state, _ = searcher.tell(state, ARCHS, jnp.array([np.nan, np.inf, np.nan]))
    state, _ = searcher.tell(state, ARCHS, jnp.array([0.2, np.nan, 0.4]))
    expected = 0.9 * (0.9 * 0.7 + 0.08) + 0.06
    np.testing.assert_allclose(state.baseline, expected)
    state, _ = searcher.tell(state, ARCHS, jnp.array([np.nan, 0.4, np.nan]))
    np.testing.assert_allclose(state.baseline, 0.9 * expected + 0.06)


# Losses and architectures --------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_left_out(bad, x64):
    searcher = built(LATE)
    state = started(searcher)
    told, metrics = searcher.tell(state, ARCHS, jnp.array([0.2, bad, 0.6]))
    kept, expected = searcher.tell(state, ARCHS[::2], jnp.array([0.2, 0.6]))
    chex.assert_trees_all_close(told, kept, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose([metrics["reward"], expected["reward"]], 0.6)


def test_without_a_finite_loss_the_state_stays(x64):
    searcher = built(LATE)
    state, _ = searcher.tell(started(searcher), ARCHS, jnp.array([0.2, 0.1, 0.6]))
    told, metrics = searcher.tell(state, ARCHS, jnp.array([np.nan, np.inf, -np.inf]))
    chex.assert_trees_all_equal(told, state)
    assert np.isnan(metrics["reward"]) and np.isfinite(metrics["log_prob"])


@pytest.mark.parametrize(
    ("space", "more"), [(SIZES, set()), (spaces.enas_macro(2), {"skip_penalty"})]
)
def test_types_of_states_and_metrics(space, more):
    searcher = built(LATE, space)
    state = jax.eval_shape(searcher.init, jax.random.key(0))
    archs = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    losses = jax.ShapeDtypeStruct((2,), jnp.float32)
    told, metrics = jax.eval_shape(searcher.tell, state, archs, losses)
    chex.assert_trees_all_equal_structs(told, state)
    for new, old in zip(jax.tree.leaves(told), jax.tree.leaves(state), strict=True):
        assert (new.dtype, new.weak_type) == (old.dtype, old.weak_type)
    assert set(metrics) == {"reward", "baseline", "log_prob", "entropy"} | more
    for metric in metrics.values():
        assert metric.shape == () and metric.dtype == jnp.float32


def test_searches_can_be_mapped_over_seeds(x64):
    searcher = built(LATE)

    def run(key):
        init_key, ask_key = jax.random.split(key)
        state = searcher.init(init_key)
        archs = searcher.ask(state, ask_key, 3)
        state, _ = searcher.tell(state, archs, archs.astype(float).mean(1))
        return archs, state

    keys = jax.random.split(jax.random.key(0), 2)
    archs, states = jax.jit(jax.vmap(run))(keys)
    assert (archs[0] != archs[1]).any()
    single = jax.tree.map(lambda v: v[1], jax.device_get((archs, states)))
    chex.assert_trees_all_close(single, run(keys[1]), rtol=1e-6, atol=1e-9)


# Learning ------------------------------------------------------------------------

FAST = search.ControllerSettings(
    hidden_size=32, entropy_weight=1e-4, baseline_decay=0.9, skip_weight=0.0
)


@pytest.mark.parametrize(
    ("space", "best"),
    [
        pytest.param((5,) * 6, [3, 0, 4, 1, 2, 0], id="sequence"),
        # Two operations, and the stem is added to every later layer.
        pytest.param(spaces.enas_macro(4), [1, 1, 1, 4, 1, 0, 4, 1, 0, 0], id="macro"),
    ],
)
def test_controllers_learn_more_than_random_search(space, best):
    best = jnp.array(best, jnp.int32)

    def loss(archs):
        return (archs != best[None]).mean(1)

    def run(searcher, key):
        def step(state, key):
            archs = searcher.ask(state, key, 10)
            return searcher.tell(state, archs, loss(archs))[0], None

        state = searcher.init(key)
        state, _ = jax.lax.scan(step, state, jax.random.split(key, 100))
        return loss(searcher.mode(state)[None])[0]

    keys = jax.random.split(jax.random.key(0), 3)
    fast = search.reinforce(space, optimizer=optax.adam(0.02), settings=FAST)
    chance = search.random_search(getattr(space, "cardinalities", space))
    learned, drawn = (
        np.asarray(jax.jit(jax.vmap(functools.partial(run, searcher)))(keys))
        for searcher in (fast, chance)
    )
    assert (learned == 0).all() and (drawn > 0).all()


# Settings ------------------------------------------------------------------------


# Pham et al. 2018, sections 2.2, 3.1 and 3.2, and `controller_*` of the scripts.
# In order: hidden_size, tanh_constant, temperature, op_tanh_reduction, entropy_weight;
# entropy, baseline_decay, baseline_start, skip_weight, skip_target, separable_bias,
# separable_offset, recency, and where they are not the defaults init_range, tied_head.
COMMON = ("reward", 0.99, None, 0.8, 0.4, 0.0, 0.0, 0.0)
PAPER = (100, 2.5, 5.0, 1.0)
OFFICIAL = ("reward", 0.99, 0.0, 0.8, 0.4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (search.ControllerSettings(), (*PAPER, 0.1, *COMMON)),
        (search.paper_settings(spaces.enas_macro()), (*PAPER, 0.1, *COMMON)),
        (search.paper_settings(spaces.enas_micro()), (*PAPER, 0.1, *COMMON)),
        (search.paper_settings(SIZES), (*PAPER, 0.1, *COMMON)),
        (search.paper_settings(spaces.enas_recurrent()), (*PAPER, 1e-4, *COMMON)),
        (
            search.official_settings(spaces.enas_macro()),
            (*(64, 1.5, 1.0, 1.0, 1e-4), *OFFICIAL, 0.0, 0.0, 0.0),
        ),
        (
            search.official_settings(spaces.enas_micro()),
            (*(64, 1.10, 1.0, 2.5, 1e-4), *OFFICIAL, 10.0, 0.25, 0.0),
        ),
        (
            search.official_settings(spaces.enas_recurrent()),
            (*(100, 2.5, 5.0, 1.0, 1e-3), *OFFICIAL, 0.0, 0.0, 1 / 6),
        ),
        (
            search.official_settings(spaces.darts_recurrent()),
            (
                *(64, 2.25, 5.0, 1.0, 1e-5, "reward", 0.999, 0.0, 0.8, 0.4),
                *(0.0, 0.0, 1 / 6, 0.01, True),
            ),
        ),
    ],
)
def test_published_settings(settings, expected):
    assert settings == search.ControllerSettings(*expected)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (search.paper_optimizer(), optax.adam(3.5e-4)),
        (search.paper_optimizer(learning_rate=0.1), optax.adam(0.1)),
        *(
            (
                search.official_optimizer(space, learning_rate=given),
                optim.tensorflow_adam(rate, b1=0.0, b2=0.999, eps=1e-3),
            )
            for space, given, rate in [
                (spaces.enas_macro(), None, 1e-3),
                (spaces.enas_micro(), None, 3.5e-3),
                (spaces.enas_recurrent(), None, 1e-3),
                (spaces.enas_micro(), 0.1, 0.1),
            ]
        ),
        (
            search.official_optimizer(spaces.darts_recurrent()),
            optim.tensorflow_adam(5e-5, b1=0.9, b2=0.999, eps=1e-8),
        ),
    ],
)
def test_published_optimizers(optimizer, expected):
    gradient = jnp.array([1e-3, -0.2, 3.0])
    with jax.numpy_dtype_promotion("standard"):
        steps = [
            made.update(gradient, made.init(gradient))[0]
            for made in (optimizer, expected)
        ]
    np.testing.assert_array_equal(*steps)


def test_the_paper_is_the_default():
    space = spaces.enas_recurrent(3)
    states = [
        search.reinforce(space, **options).init(jax.random.key(0))
        for options in (
            {},
            {
                "optimizer": search.paper_optimizer(),
                "settings": search.paper_settings(space),
            },
        )
    ]
    chex.assert_trees_all_equal(*states)
    assert states[0].params["start"].shape == (100,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0; expected an integer of at least 1"),
        ({"hidden_size": 6.4}, "hidden_size is 6.4; expected an integer"),
        ({"tanh_constant": 0.0}, "tanh_constant is 0.0; expected a positive"),
        ({"temperature": -1.0}, "temperature is -1.0; expected a positive"),
        ({"op_tanh_reduction": np.inf}, "op_tanh_reduction is inf; expected a pos"),
        ({"entropy_weight": -0.1}, "entropy_weight is -0.1; expected a number of"),
        ({"entropy": "none"}, "entropy is 'none'; expected 'reward' or 'bonus'"),
        ({"baseline_decay": 1.0}, "baseline_decay is 1.0; expected a number of at"),
        ({"baseline_start": np.nan}, "baseline_start is nan; expected a finite"),
        ({"skip_weight": -1.0}, "skip_weight is -1.0; expected a number of at least"),
        ({"skip_target": 1.0}, "skip_target is 1.0; expected a number between 0 and"),
        ({"separable_bias": np.inf}, "separable_bias is inf; expected a finite"),
        ({"separable_offset": 0.25}, "separable_offset is 0.25; expected 0.0, beca"),
        (
            {"recency": 1.0},
            "recency is 1.0; expected 0.0, because only a RecurrentSpac",
        ),
        ({"tied_head": True}, "tied_head is True; expected False, because only a Recu"),
        ({"tied_head": 1}, "tied_head is 1; expected True or False"),
        ({"init_range": 0.0}, "init_range is 0.0; expected a positive number"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        search.reinforce((3, 3), settings=search.ControllerSettings(**changes))


def test_settings_of_another_kind_are_refused():
    wrong: Any = "paper"
    with pytest.raises(ValueError, match="settings is 'paper'; expected ControllerSe"):
        search.reinforce((3, 3), settings=wrong)


@pytest.mark.parametrize("published", ["official_settings", "official_optimizer"])
def test_the_scripts_search_three_spaces(published):
    with pytest.raises(ValueError, match="scripts do not search tuple; expected a Mac"):
        getattr(search, published)((3, 3))


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, np.inf])
def test_wrong_learning_rates_are_refused(rate):
    message = f"learning_rate is {rate}; expected a positive number"
    with pytest.raises(ValueError, match=message):
        search.paper_optimizer(learning_rate=rate)
    with pytest.raises(ValueError, match=message):
        search.official_optimizer(spaces.enas_macro(), learning_rate=rate)


@pytest.mark.parametrize(
    ("archs", "losses", "message"),
    [
        (ARCHS, np.zeros(2), r"losses has shape \[2\]; expected one loss for each"),
        (ARCHS, np.zeros((3, 1)), r"losses has shape \[3, 1\]; expected one loss"),
        (ARCHS[:, :2], np.zeros(3), r"archs has shape \[3, 2\]; expected \[num, 3\]"),
        (np.zeros((3, 3)), np.zeros(3), "archs has type float32; expected integers"),
    ],
)
def test_tell_refuses_what_does_not_fit(archs, losses, message):
    searcher = built(PLAIN)
    state = searcher.init(jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        searcher.tell(state, jnp.asarray(archs), jnp.asarray(losses))
