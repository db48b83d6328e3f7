"""Training single architectures with one program for all."""

import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import take
from toy_training import BATCH_SIZE, augment, load, normalize, perceptron, small

from jaxnas import metrics, train, weights
from jaxnas.train import batches


def make(net=None, *, split=None, **changes):
    pipeline = take(
        train.InputPipeline,
        changes,
        batch_size=BATCH_SIZE,
        augment=augment,
        normalize=normalize,
    )
    return train.make_standalone_train_fn(
        net or perceptron(),
        train.classification(),
        optax.sgd(0.1, 0.9),
        small() if split is None else split,
        pipeline,
        **{"snapshot_steps": (3, 10), **changes},
    )


def test_it_is_the_loop_over_weight_steps():
    net, task, optimizer = perceptron(), train.classification(), optax.sgd(0.1, 0.9)
    provider = weights.shared(net)
    key, arch = jax.random.key(1), jnp.array([1], jnp.int32)
    init_key, run_key = jax.random.split(key)
    batch_key, step_key = jax.random.split(run_key)
    state = train.init_weights(provider, optimizer, init_key)
    weight_step = train.weight_step(net, provider, task, optimizer)

    split = jax.tree.map(jnp.asarray, small())

    @jax.jit
    def step(state, i):
        # 200 images: epochs of 4 full batches.
        order = batches.epoch_order(batch_key, 200, i // 4)
        batch = batches.shuffled(
            batch_key, split, order, i % 4, BATCH_SIZE, augment, task
        )
        key = jax.random.fold_in(step_key, i)
        return weight_step(state, arch[None], batch, key)[0]

    expected = []
    for i in range(10):
        state = step(state, jnp.int32(i))
        expected.append(state.params)
    first, last = make()(arch, key)
    assert (first.step, last.step) == (3, 10)
    assert first.seconds is not None and last.seconds is not None
    assert 0 < first.seconds < last.seconds
    chex.assert_trees_all_close(first.weights, expected[2], atol=1e-5)
    chex.assert_trees_all_close(last.weights, expected[9], atol=1e-5)
    # The other architecture's weights are as they were.
    untouched = net.init(init_key)[0]
    np.testing.assert_allclose(last.weights[0], untouched, rtol=1e-6)


def test_one_program_trains_all_and_stops_do_not_matter():
    net = perceptron()
    apply = chex.assert_max_traces(net.apply, 1)
    fit = make(net._replace(apply=apply), snapshot_steps=(2, 5, 30))
    key = jax.random.key(0)
    results = [list(fit(jnp.array([i]), key)) for i in (0, 1)]
    (*_, again) = fit(jnp.array([1]), key)
    chex.assert_trees_all_equal(again.weights, results[1][-1].weights)
    at_once = make(snapshot_steps=(30,))
    (whole,) = at_once(jnp.array([1]), key)
    chex.assert_trees_all_equal(whole.weights, again.weights)
    (other,) = at_once(jnp.array([1]), jax.random.key(1))
    assert not np.allclose(other.weights, again.weights)
    evaluate = train.make_eval_fn(
        net,
        weights.shared(net),
        train.classification(),
        train.InputPipeline(BATCH_SIZE, augment, normalize),
    )
    for i, (first, _, last) in enumerate(results):
        accuracies = [
            evaluate(snapshot.weights, jnp.array([i]), load().test)["accuracy"]
            for snapshot in (first, last)
        ]
        assert accuracies[1] > max(0.75, accuracies[0])


def test_a_training_with_a_folder_is_resumed(tmp_path, monkeypatch, capsys):
    key, arch = jax.random.key(4), jnp.array([1], jnp.int32)
    (whole,) = make(snapshot_steps=(50,))(arch, key)
    assert whole.seconds is not None and whole.seconds > 0

    def interrupted(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return append(*args, **options)

    append = metrics.append
    with monkeypatch.context() as patch, pytest.raises(train.Interrupted):
        patch.setattr(metrics, "append", interrupted)
        list(make(snapshot_steps=(50,))(arch, key, workdir=tmp_path))
    saved = [int(entry.name) for entry in (tmp_path / "checkpoints").iterdir()]
    assert saved and 0 < max(saved) < 50
    (resumed,) = make(snapshot_steps=(50,))(
        arch, key, workdir=tmp_path, description="network 1"
    )
    assert resumed.step == 50 and resumed.seconds is None
    chex.assert_trees_all_equal(resumed.weights, whole.weights)
    assert "network 1 50/50 loss" in capsys.readouterr().out
    # One that is done is not repeated.
    (again,) = make(snapshot_steps=(50,))(arch, key, workdir=tmp_path)
    chex.assert_trees_all_equal(again.weights, whole.weights)
    with pytest.raises(
        ValueError, match=r"snapshot_steps is \[3, 10\]; expected one number"
    ):
        next(make()(arch, key, workdir=tmp_path / "other"))


def test_a_training_that_diverges_ends(tmp_path):
    fit = make(snapshot_steps=(6,), augment=lambda key, x: augment(key, x) * jnp.inf)
    (snapshot,) = fit(jnp.array([0]), jax.random.key(0), workdir=tmp_path)
    assert snapshot.step == 6 and not np.isfinite(snapshot.weights[0]).all()


def test_many_devices_share_batches():
    key, arch = jax.random.key(2), jnp.array([0], jnp.int32)
    (_, alone), (_, together) = (
        make(devices=jax.devices()[:num])(arch, key) for num in (1, 4)
    )
    chex.assert_trees_all_close(alone.weights, together.weights, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"snapshot_steps": ()},
            r"snapshot_steps is \[\]; expected ascending numbers of steps",
        ),
        ({"snapshot_steps": (0, 5)}, r"snapshot_steps is \[0, 5\]"),
        ({"snapshot_steps": (5, 5)}, r"snapshot_steps is \[5, 5\]"),
        ({"batch_size": 201}, "batch_size is 201, but there are only 200 images"),
        ({"devices": jax.devices()[:1] * 5}, "batch_size of 48 cannot be divided"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
