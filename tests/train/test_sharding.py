"""A search whose devices share out architectures, and one that trains weights alone."""

import chex
import jax
import jax.numpy as jnp
import pytest
import toy_search
from helpers import read_log

from jaxnas import parallel, train
from jaxnas.train import steps

ARCHS = {"num_weight_archs": 4, "num_search_archs": 8, "num_epochs": 1}
FOUR = {"shard": "archs", "devices": jax.devices()[:4]}


@pytest.fixture
def seen(monkeypatch):
    """Shapes that networks and weight steps are traced with; networks draw noise."""
    net = toy_search.perceptron()
    shapes = {"train": set(), "evaluation": set(), "archs": set()}

    def noisy(weights, arch, inputs, *, train, key=None, batch_axis=None):
        shapes["train" if train else "evaluation"].add((inputs.shape[0], batch_axis))
        if train:
            assert key is not None
            inputs += jax.random.normal(key, inputs.shape)
        return net.apply(weights, arch, inputs, train=train, batch_axis=batch_axis)

    monkeypatch.setattr(toy_search, "perceptron", lambda: net._replace(apply=noisy))
    weight_step = steps.weight_step

    def spy(*args, **options):
        step = weight_step(*args, **options)

        def step_and_tell(state, archs, batch, key):
            shapes["archs"].add(archs.shape)
            return step(state, archs, batch, key)

        return step_and_tell

    monkeypatch.setattr(steps, "weight_step", spy)
    return shapes


@pytest.mark.parametrize(
    ("num_weight_archs", "options"),
    [
        pytest.param(8, {}, id="one phase"),
        pytest.param(4, {"searcher_steps": 3, "batch_per_arch": True}, id="two phases"),
    ],
)
def test_four_devices_equal_one(num_weight_archs, options, seen):
    options = {**ARCHS, **options, "num_weight_archs": num_weight_archs}
    one = toy_search.run(**options)
    assert seen["archs"] == {(num_weight_archs, 2)}
    seen["archs"].clear()
    four = toy_search.run(**options, **FOUR)
    assert seen["archs"] == {(num_weight_archs // 4, 2)}
    parallel.assert_replicated(four.state)
    chex.assert_trees_all_close(
        four.state._replace(key=0), one.state._replace(key=0), rtol=1e-5, atol=1e-5
    )
    # Every network runs whole batches and knows of no other device.
    assert seen["train"] == {(16, None)}
    # The test after each epoch shares out its batches; one image tells the shapes.
    shared_out = {(4, parallel.BATCH_AXIS)}
    assert seen["evaluation"] == {(1, None), (16, None), *shared_out}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "images"}, "shard is 'images'; expected 'batch' or 'archs'"),
        (
            {**FOUR, "num_weight_archs": 2},
            "num_weight_archs of 2 cannot be divided among 4 devices",
        ),
        (
            {**FOUR, "num_search_archs": 6},
            "num_search_archs of 6 cannot be divided among 4 devices",
        ),
        (
            {**FOUR, "batch_size": 18},
            "batch_size of 18 cannot be divided among 4 devices",
        ),
        ({"searcher_steps": -1}, "searcher_steps is -1; expected 0 or more"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        toy_search.run(**{**ARCHS, **options})


# Weights alone ----------------------------------------------------------------------


def test_a_search_without_updates_of_the_searcher(tmp_path):
    # The architectures that judge nothing need not be shared out.
    options = {**ARCHS, "searcher_steps": 0, "num_search_archs": 2}
    result = toy_search.run(tmp_path, **{**options, "num_epochs": 2}, **FOUR)
    log = read_log(tmp_path)
    assert [entry["step"] for entry in log] == [0, 4, 8]
    assert log[2]["train/loss"] < log[1]["train/loss"]
    losses = {name for name in log[2] if name.endswith("/loss")}
    assert losses == {"train/loss", "test/loss"}
    assert "theta_max_mean" not in log[2]
    # What nobody has told anything is as certain as in the beginning.
    theta = result.state.searcher.theta
    chex.assert_trees_all_close(theta, jnp.full_like(theta, 1 / 3))
    chex.assert_shape(result.arch, (2,))


def test_schedule_without_updates_of_the_searcher():
    _, splits = toy_search.load()
    schedule = train.search_schedule(splits, 16, 0)
    assert schedule == train.SearchSchedule(4, 0)
    assert schedule.steps_per_epoch == 4
