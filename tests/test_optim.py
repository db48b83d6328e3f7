"""Schedules and optimizers against their formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import optim


@pytest.fixture
def implicit_promotion():
    """Adam of optax raises a float to the power of its int32 count."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def rates(schedule, num_steps):
    """As a compiled optimizer reads them: of an int32 count."""
    steps = jnp.arange(num_steps, dtype=jnp.int32)
    return np.array([jax.jit(schedule)(step) for step in steps])


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.025), (50, 0.0125), (99, 6.17e-6), (25, 0.0125 * (1 + math.sqrt(0.5)))],
)
def test_cosine_by_epoch(epoch, rate):
    schedule = optim.cosine_by_epoch(0.025, num_epochs=100, steps_per_epoch=391)
    first, last, following = np.array(
        [schedule(epoch * 391 + step) for step in (0, 390, 391)]
    )
    assert first == last > following
    assert first == pytest.approx(rate, rel=1e-3)


def test_cosine_by_epoch_of_a_traced_step():
    schedule = optim.cosine_by_epoch(1.0, num_epochs=4, steps_per_epoch=3)
    expected = np.repeat(0.5 * (1 + np.cos(np.pi * np.arange(4) / 4)), 3)
    np.testing.assert_allclose(rates(schedule, 12), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("peak", "factor", "boundaries", "expected"),
    [
        # The hypernetwork, then anytime networks, of Zhang et al.
        (
            *(1e-3, 0.5, (100, 150)),
            {0: 1e-3, 99: 1e-3, 100: 5e-4, 149: 5e-4, 150: 2.5e-4, 199: 2.5e-4},
        ),
        (
            *(0.1, 0.1, [150, 225]),
            {0: 0.1, 149: 0.1, 150: 0.01, 224: 0.01, 225: 0.001, 299: 0.001},
        ),
        (0.3, 0.1, (), {0: 0.3, 7: 0.3}),
    ],
)
@pytest.mark.parametrize("steps_per_epoch", [1, 703])
def test_step_decay(peak, factor, boundaries, expected, steps_per_epoch):
    schedule = optim.step_decay(peak, factor, boundaries, steps_per_epoch)
    for epoch, rate in expected.items():
        for step in (0, steps_per_epoch - 1):
            actual = schedule(jnp.int32(epoch * steps_per_epoch + step))
            assert actual == pytest.approx(rate, rel=1e-6)


def test_exponential_by_epoch():
    schedule = optim.exponential_by_epoch(0.1, 0.97, steps_per_epoch=3)
    expected = np.repeat(0.1 * 0.97 ** np.arange(4), 3)
    np.testing.assert_allclose(rates(schedule, 12), expected, rtol=1e-6)
    # Exact at the boundaries of a long training, too.
    long = jax.jit(optim.exponential_by_epoch(0.1, 0.97, steps_per_epoch=20_018))
    before, after = (long(249 * 20_018 + step) for step in (-1, 0))
    assert before == pytest.approx(0.1 * 0.97**248, rel=1e-4)
    assert after == pytest.approx(0.1 * 0.97**249, rel=1e-4)


def test_exponential_from_some_epoch_on():
    schedule = optim.exponential_by_epoch(20.0, 0.96, 2, first_epoch=3)
    expected = np.repeat(20.0 * 0.96 ** np.array([0, 0, 0, 0, 1, 2]), 2)
    np.testing.assert_allclose(rates(schedule, 12), expected, rtol=1e-6)


def test_warm_up_rises_to_the_schedule():
    cosine = optim.cosine_by_epoch(0.8, num_epochs=4, steps_per_epoch=3)
    schedule = optim.warm_up(cosine, num_epochs=2, steps_per_epoch=3)
    expected = np.concatenate([0.8 * np.arange(1, 7) / 6, rates(cosine, 12)])
    np.testing.assert_allclose(rates(schedule, 18), expected, rtol=1e-6)
    assert optim.warm_up(cosine, 0, 3) is cosine


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.step_decay(1.0, 0.0, (1,), 3), "factor is 0.0; expected a pos"),
        (lambda: optim.exponential_by_epoch(1.0, -1.0, 3), "factor is -1.0; expected"),
        (lambda: optim.exponential_by_epoch(1.0, 0.5, 0), "steps_per_epoch is 0; exp"),
        (
            lambda: optim.exponential_by_epoch(1.0, 0.5, 3, first_epoch=-1),
            "first_epoch is -1; expected 0 or more",
        ),
        (lambda: optim.cosine_by_epoch(1.0, 2, 0), "steps_per_epoch is 0; expected"),
        (lambda: optim.warm_up(optax.constant_schedule(1.0), 1, 0), "per_epoch is 0;"),
        (lambda: optim.warm_up(optax.constant_schedule(1.0), -1, 3), "epochs is -1; "),
        *(
            (
                lambda boundaries=boundaries: optim.step_decay(1.0, 0.5, boundaries, 3),
                rf"boundaries are \[{', '.join(map(str, boundaries))}\]; expected incr",
            )
            for boundaries in ([0, 5], [5, 5], [5, 3])
        ),
    ],
)
def test_schedules_refuse_wrong_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 0.05),
        (5, 0.0255),
        (10, 0.05),
        (20, 0.0255),
        (29, 0.001 + 0.049 * 0.5 * (1 + math.cos(math.pi * 19 / 20))),
        (30, 0.05),
        (50, 0.0255),
    ],
)
def test_warm_restarts(steps_per_epoch, epoch, rate):
    schedule = optim.warm_restarts(
        0.05, 0.001, 10 * steps_per_epoch, 2, 70 * steps_per_epoch
    )
    assert schedule(epoch * steps_per_epoch) == pytest.approx(rate, rel=1e-5)


def test_warm_restarts_by_epoch():
    # As the official code of ENAS: T_cur counts whole epochs.
    periods = [(t, 2) for t in range(2)] + [(t, 4) for t in range(4)]
    by_epoch = [0.001 + 0.0245 * (1 + math.cos(math.pi * t / n)) for t, n in periods]
    schedule = optim.warm_restarts_by_epoch(0.05, 0.001, 2, 2, 6, steps_per_epoch=3)
    np.testing.assert_allclose(rates(schedule, 18), np.repeat(by_epoch, 3), rtol=1e-6)


def test_warm_restarts_stay_low_after_the_end():
    schedule = optim.warm_restarts(1.0, 0.1, 2, 1, num_steps=4)
    expected = [1, 0.55, 1, 0.55, 0.1, 0.1, 0.1, 0.1]
    np.testing.assert_allclose(rates(schedule, 8), expected, rtol=1e-6)


@pytest.mark.parametrize(("first_period", "factor"), [(0, 2), (-1, 2), (10, 0)])
def test_warm_restarts_refuse_periods_without_steps(first_period, factor):
    message = f"first_period is {first_period} and factor is {factor}; expected"
    with pytest.raises(ValueError, match=message):
        optim.warm_restarts(0.05, 0.001, first_period, factor, 100)


PARAMS = {
    "used": jnp.array([1.0, -2.0, 3.0], jnp.float32),
    "unused": jnp.array([10.0], jnp.float32),
}


def gradients(*used):
    return [
        {"used": jnp.array(one, jnp.float32), "unused": jnp.zeros(1, jnp.float32)}
        for one in used
    ]


def run(optimizer, grads):
    """The parameters after each update."""
    params, state, path = PARAMS, optimizer.init(PARAMS), []
    for grad in grads:
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def clipped(grad, norm):
    return np.asarray(grad) * min(1, norm / np.linalg.norm(grad))


# The first has norm 13 and is clipped, the second has norm 3 and is not.
STEEP, GENTLE = [3.0, 4.0, 12.0], [1.0, 2.0, 2.0]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_clips_then_decays_then_accumulates(nesterov):
    optimizer = optim.sgd(
        0.5, momentum=0.8, nesterov=nesterov, weight_decay=0.1, clip_norm=5.0
    )
    params = {name: np.asarray(value) for name, value in PARAMS.items()}
    trace = {name: np.zeros_like(value) for name, value in params.items()}
    for grads, actual in zip(
        ({"used": clipped(g, 5.0), "unused": np.zeros(1)} for g in (STEEP, GENTLE)),
        run(optimizer, gradients(STEEP, GENTLE)),
        strict=True,
    ):
        for name in params:
            decayed = grads[name] + 0.1 * params[name]
            trace[name] = 0.8 * trace[name] + decayed
            step = decayed + 0.8 * trace[name] if nesterov else trace[name]
            params[name] = params[name] - 0.5 * step
            np.testing.assert_allclose(actual[name], params[name], rtol=1e-6)
    assert params["unused"] < 10.0  # decay and momentum act without a gradient


def test_sgd_has_the_defaults_of_the_papers():
    (after,) = run(optim.sgd(1.0), gradients(STEEP))
    expected = PARAMS["used"] - clipped(STEEP, 5.0) - 3e-4 * np.asarray(PARAMS["used"])
    np.testing.assert_allclose(after["used"], expected, rtol=1e-5)
    np.testing.assert_allclose(after["unused"], [10 * (1 - 3e-4)], rtol=1e-6)


def test_sgd_without_a_limit_does_not_clip():
    (after,) = run(optim.sgd(1.0, weight_decay=0.0, clip_norm=None), gradients(STEEP))
    np.testing.assert_allclose(after["used"], PARAMS["used"] - np.array(STEEP))


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan])
@pytest.mark.parametrize("make", [optim.sgd, optim.adam])
def test_limits_that_are_not_positive_are_refused(make, clip_norm):
    with pytest.raises(ValueError, match=f"clip_norm is {clip_norm}; expected a pos"):
        make(0.1, clip_norm=clip_norm)


def test_sgd_without_momentum_holds_no_gradients():
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optim.sgd(1.0, momentum=0.0).init(params)
    assert not jax.tree.leaves(state)


def test_sgd_follows_a_schedule():
    schedule = optim.cosine_by_epoch(1.0, num_epochs=2, steps_per_epoch=1)
    optimizer = optim.sgd(schedule, momentum=0.0, weight_decay=0.0)
    first, second = run(optimizer, gradients(GENTLE, GENTLE))
    np.testing.assert_allclose(PARAMS["used"] - first["used"], GENTLE, rtol=1e-6)
    half = 0.5 * np.array(GENTLE)
    np.testing.assert_allclose(first["used"] - second["used"], half, rtol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 5.0])
def test_adam(clip_norm, implicit_promotion):
    params = np.asarray(PARAMS["used"])
    mean = square = np.zeros(3)
    path = run(optim.adam(0.1, clip_norm=clip_norm), gradients(STEEP, GENTLE))
    for step, (grad, actual) in enumerate(zip((STEEP, GENTLE), path, strict=True), 1):
        grad = clipped(grad, math.inf if clip_norm is None else clip_norm)
        mean = 0.9 * mean + 0.1 * grad
        square = 0.999 * square + 0.001 * grad**2
        params = params - 0.1 * (mean / (1 - 0.9**step)) / (
            np.sqrt(square / (1 - 0.999**step)) + 1e-8
        )
        np.testing.assert_allclose(actual["used"], params, rtol=1e-5)
        np.testing.assert_array_equal(actual["unused"], PARAMS["unused"])


@pytest.mark.parametrize(
    ("b1", "eps"), [(0.9, 1e-8), (0.0, 1e-3)], ids=["defaults", "scripts of ENAS"]
)
def test_tensorflow_adam(b1, eps):
    """Against the formula of `tf.train.AdamOptimizer`'s documentation."""
    grads = [1e-3 * np.array(g) for g in (STEEP, GENTLE, STEEP)]
    params = np.asarray(PARAMS["used"])
    mean = square = np.zeros(3)
    path = run(optim.tensorflow_adam(0.1, b1, eps=eps), gradients(*grads))
    for step, (grad, actual) in enumerate(zip(grads, path, strict=True), 1):
        rate = 0.1 * math.sqrt(1 - 0.999**step) / (1 - b1**step)
        mean = b1 * mean + (1 - b1) * grad
        square = 0.999 * square + 0.001 * grad**2
        params = params - rate * mean / (np.sqrt(square) + eps)
        np.testing.assert_allclose(actual["used"], params, rtol=1e-5)
        np.testing.assert_array_equal(actual["unused"], PARAMS["unused"])


def test_tensorflow_adam_follows_a_schedule():
    schedule = optim.step_decay(1.0, 1e-9, [1], steps_per_epoch=1)
    first, second = run(optim.tensorflow_adam(schedule), gradients(STEEP, STEEP))
    np.testing.assert_allclose(PARAMS["used"] - first["used"], np.ones(3), rtol=1e-5)
    np.testing.assert_allclose(second["used"], first["used"], atol=1e-6)
