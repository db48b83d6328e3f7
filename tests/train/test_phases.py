"""A search whose searcher is updated after the weights of each epoch."""

import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_search
from helpers import read_log, signal_at_every_update

from jaxnas import data, train, weights
from jaxnas.train import batches
from jaxnas.types import Searcher

WEIGHT_STEPS, SEARCHER_STEPS = 4, 3
PHASES = {
    "searcher_steps": SEARCHER_STEPS,
    "objective": train.error_rate,
    "augment_validation": False,
    "batch_per_arch": True,
    "num_weight_archs": 1,
    "num_search_archs": 4,
}

SPLIT = data.Split(np.zeros((30, 1, 1, 1), np.uint8), np.zeros(30, np.int32))


def run(workdir=None, **options):
    return toy_search.run(workdir, **PHASES, **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return run(workdir), read_log(workdir)


def test_both_phases_are_in_the_log(uninterrupted):
    result, log = uninterrupted
    assert [entry["step"] for entry in log] == [0, 7, 14, 21]
    assert log[-1]["train/loss"] < log[1]["train/loss"]
    assert all(0 < entry["validation/accuracy"] < 1 for entry in log[1:])
    assert int(result.state.step) == 3 * (WEIGHT_STEPS + SEARCHER_STEPS)


def test_interrupted_in_both_phases_and_resumed(tmp_path, uninterrupted, monkeypatch):
    result, log = uninterrupted
    # A process starts with a call of one step: these stop after steps 1, 2, ...
    with signal_at_every_update(monkeypatch, signal.SIGINT):
        for step in range(1, WEIGHT_STEPS + SEARCHER_STEPS):
            with pytest.raises(train.Interrupted):
                run(tmp_path)
            assert (tmp_path / "checkpoints" / str(step)).is_dir()
    resumed = run(tmp_path)
    assert toy_search.digest(resumed.state) == toy_search.digest(result.state)
    assert read_log(tmp_path) == log


def test_four_devices_equal_one(uninterrupted):
    result, _ = uninterrupted
    four = run(devices=jax.devices()[:4])
    toy_search.assert_equal_on_four_devices(four.state, result.state)


def test_every_phase_is_traced_once(monkeypatch):
    net, traces = toy_search.perceptron(), []

    def counting(*args, **options):
        traces.append(options["train"])
        return net.apply(*args, **options)

    monkeypatch.setattr(toy_search, "perceptron", lambda: net._replace(apply=counting))
    run(num_epochs=1)
    once = list(traces)
    traces.clear()
    run(num_epochs=3)
    assert traces == once


def recording(num: int) -> Searcher:
    """Asks for one architecture again and again, and remembers the last losses."""

    def tell(state, archs, losses):
        del state, archs
        return losses, {}

    return Searcher(
        lambda key: jnp.zeros(num),
        lambda state, key, n: jnp.ones((n, 2), jnp.int32),
        tell,
        lambda state: jnp.ones(2, jnp.int32),
    )


def make(schedule, **options):
    digits, splits = toy_search.load()
    net = toy_search.perceptron()

    def normalize(key, images):
        del key
        return data.normalize(images, digits.mean, digits.std)

    made = train.search_steps(
        net,
        weights.shared(net),
        recording(4),
        train.classification(),
        optax.sgd(0.1),
        schedule,
        train.InputPipeline(16, normalize, normalize),
        train.SearchSettings(1, num_weight_archs=1, num_search_archs=4, **options),
    )
    return made, made.init(jax.random.key(0), splits), splits


def test_an_update_changes_its_own_part_only():
    updates, state, splits = make(train.SearchSchedule(4, 3))
    advance = jax.jit(train.scan_steps(updates.weights))
    after = advance(state, splits, jnp.int32(4))
    assert int(after.step) == 4
    chex.assert_trees_all_equal(after.searcher, state.searcher)
    kernel = state.weights.params["hidden"]
    assert not np.array_equal(after.weights.params["hidden"], kernel)

    told = jax.jit(train.scan_steps(updates.searcher))(after, splits, jnp.int32(3))
    assert int(told.step) == 7
    chex.assert_trees_all_equal(told.weights, after.weights)
    assert np.all(told.searcher > 0)


@pytest.mark.parametrize("batch_per_arch", [True, False])
def test_a_batch_for_every_architecture(batch_per_arch):
    updates, state, splits = make(
        train.SearchSchedule(4, 3), batch_per_arch=batch_per_arch
    )
    update = jax.jit(train.scan_steps(updates.searcher))
    state = update(state._replace(step=jnp.int32(4)), splits, 1)
    losses = np.asarray(state.searcher)
    # All architectures are equal, so that only their batches can differ.
    assert len(set(losses.tolist())) == (4 if batch_per_arch else 1)


def test_batches_of_both_phases_cover_a_pass(monkeypatch):
    """Four batches of 16 are a pass through 70 images, whatever the schedule."""
    seen = []
    shuffled = batches.shuffled

    def spy(key, split, order, position, *args):
        seen.append((split.labels.shape[0], int(order.epoch), int(position)))
        return shuffled(key, split, order, position, *args)

    updates, state, splits = make(train.SearchSchedule(4, 3))
    monkeypatch.setattr(batches, "shuffled", spy)
    with jax.disable_jit():
        for step in (0, 3, 4, 6, 7, 11):
            now = state._replace(step=jnp.int32(step))
            update = updates.weights if step % 7 < 4 else updates.searcher
            train.scan_steps(update)(now, splits, jnp.int32(1))
    assert seen == [
        *((64, 0, 0), (64, 0, 3), (70, 0, 0), (70, 0, 2)),
        *((64, 1, 0), (70, 0, 3)),
    ]


def test_the_objective_is_what_the_searcher_is_told():
    updates, state, splits = make(train.SearchSchedule(4), objective=train.error_rate)
    state = jax.jit(train.scan_steps(updates.searcher))(state, splits, 1)
    error = 1 - state.epoch_metrics["validation/accuracy"]
    np.testing.assert_allclose(state.searcher, jnp.full(4, error), rtol=1e-6)
    assert float(error) * 16 == pytest.approx(round(float(error) * 16))


def test_wrong_schedule():
    _, splits = toy_search.load()
    assert train.search_schedule(splits, 16, 5) == train.SearchSchedule(4, 5)
    with pytest.raises(ValueError, match="searcher_steps is -1; expected 0 or more"):
        train.search_schedule(splits, 16, -1)


def test_rank_by_another_objective():
    table = {0: (0.3, 0.5), 1: (0.9, 0.8), 2: (0.4, 0.8)}

    def evaluate(arch, split):
        loss, accuracy = table[int(arch[0])]
        return {"loss": loss, "accuracy": accuracy}

    archs = [jnp.array([value], jnp.int32) for value in table]
    ranked = train.rank(evaluate, archs, SPLIT, objective=train.error_rate)
    # Equal error rates by their loss.
    assert [int(entry.arch[0]) for entry in ranked] == [2, 1, 0]
