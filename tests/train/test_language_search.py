"""Search for recurrent cells: it learns, repeats, resumes, and shares out rows."""

import math
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import read_log, signal_at_every_update
from toy_language import NUM_WORDS, SIZE, run_search, texts
from toy_search import digest

from jaxnas import parallel, search, spaces, supernets, train
from jaxnas.types import Searcher


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return run_search(workdir), read_log(workdir)


def test_loss_falls_and_everything_is_logged(uninterrupted):
    result, log = uninterrupted
    assert [entry["step"] for entry in log] == [0, 16, 32]
    assert [entry["epoch"] for entry in log] == [0, 1, 2]
    for part in ("train", "validation"):
        losses = [entry[f"{part}/loss"] for entry in log[1:]]
        assert losses[1] < losses[0] < math.log(NUM_WORDS) + 0.1
        assert [e[f"{part}/perplexity"] for e in log[1:]] == pytest.approx(
            np.exp(losses), rel=1e-5
        )
    assert log[2]["train/num_skipped"] == log[2]["validation/num_not_finite"] == 0
    assert "theta_max_mean" not in log[0] and 0 < log[1]["theta_max_mean"] <= 1
    chex.assert_shape(result.arch, (3,))
    assert int(result.state.step) == 32


def test_interrupted_within_epochs_and_resumed(tmp_path, uninterrupted, monkeypatch):
    result, log = uninterrupted
    with signal_at_every_update(monkeypatch, signal.SIGINT):
        for step in (1, 2):
            with pytest.raises(train.Interrupted, match="SIGINT"):
                run_search(tmp_path, save_seconds=0.0)
            assert (tmp_path / "checkpoints" / str(step)).is_dir()
    resumed = run_search(tmp_path)
    assert digest(resumed.state) == digest(result.state)
    assert np.any(np.asarray(resumed.state.reader.hidden) != 0)
    assert read_log(tmp_path) == log


def test_four_devices_equal_one(uninterrupted):
    result, _ = uninterrupted
    four = run_search(devices=jax.devices()[:4]).state
    parallel.assert_replicated(four)
    for part in ("reader", "searcher", "epoch_metrics"):
        chex.assert_trees_all_close(
            getattr(four, part), getattr(result.state, part), rtol=1e-4, atol=1e-4
        )


def test_every_phase_is_traced_once(monkeypatch):
    net = supernets.recurrent(spaces.enas_recurrent(2), NUM_WORDS, SIZE)
    traced = []

    def apply(*args, train=False, **options):
        traced.append(train)
        return net.apply(*args, train=train, **options)

    run_search(net=net._replace(apply=apply))
    # Of each program there is one for a loop's body, whatever the steps.
    assert traced.count(True) <= 2 and traced.count(False) <= 2


def told(losses: list) -> Searcher:
    """Random search that keeps what it is told."""
    made = search.random_search(spaces.enas_recurrent(2))

    def tell(state, archs, values):
        jax.debug.callback(lambda a, v: losses.append((a, v)), archs, values)
        return made.tell(state, archs, values)

    return made._replace(tell=tell)


def test_the_searcher_is_told_the_objective_on_windows_of_the_validation_text():
    losses = []
    result = run_search(
        num_epochs=1, searcher=told(losses), objective=train.inverse_perplexity(3.0)
    )
    jax.effects_barrier()
    assert len(losses) == 3  # the program that compiles does no step
    # Weights do not change any more, so that each value is that of some window.
    net = supernets.recurrent(spaces.enas_recurrent(2), NUM_WORDS, SIZE)
    rows = texts().validation.reshape(8, -1)
    zeros = jnp.zeros((8, SIZE), jnp.float32)

    @jax.jit
    def value(arch, words):
        logits = net.apply(
            result.state.reader.params, arch, (words[:, :-1], zeros)
        ).logits
        table = jax.nn.log_softmax(logits)
        nats = jnp.take_along_axis(table, words[:, 1:, None], axis=2)
        return 1 - 3 * jnp.exp(nats.mean())

    for archs, values in losses:
        for arch, found in zip(archs, values, strict=True):
            windows = [
                float(value(arch, rows[:, s : s + 7])) for s in range(rows.shape[1] - 6)
            ]
            assert min(abs(np.array(windows) - found)) < 1e-5
    distinct = {float(v) for _, values in losses for v in values}
    assert len(distinct) == 6


def test_without_steps_of_the_searcher_only_weights_learn(tmp_path):
    run_search(tmp_path, searcher_steps=0, num_epochs=1)
    log = read_log(tmp_path)
    assert [entry["step"] for entry in log] == [0, 13]
    assert not any(name.startswith("validation") for name in log[1])


def test_a_run_that_is_not_finite_stops(tmp_path):
    net = supernets.recurrent(spaces.enas_recurrent(2), NUM_WORDS, SIZE)

    def init(key):
        return jax.tree.map(lambda x: x * jnp.nan, net.init(key))

    with pytest.raises(train.Diverged, match="train/loss is nan by step"):
        run_search(tmp_path, net=net._replace(init=init), max_skipped=3)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"num_search_archs": 0}, "num_search_archs is 0"),
        ({"searcher_steps": -1}, "searcher_steps is -1; expected 0 or more"),
        ({"train": texts().train + 1}, "training text has a word of the number 7"),
        ({"validation": texts().validation[None]}, r"validation text has the shape \["),
        ({"batch_size": 200}, "640 tokens, which are 3 in each of 200 rows"),
        (
            {"validation": texts().validation[:40]},
            "40 tokens, which are 5 in each",
        ),
        ({"devices": jax.devices()[:3]}, "batch_size of 8 cannot be divided among 3"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        run_search(**options)
