"""Training of language models: averages, the best epoch, resumption, devices."""

import signal
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import read_log, signal_at_every_update
from toy_language import (
    GENOTYPE,
    NUM_WORDS,
    SIZE,
    run_training,
    texts,
)
from toy_search import digest

from jaxnas import networks, ops, parallel, train
from jaxnas.train import language


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return run_training(workdir), read_log(workdir)


def test_perplexity_falls_and_everything_is_logged(uninterrupted):
    result, log = uninterrupted
    assert [entry["step"] for entry in log] == [0, 13, 26, 39, 52]
    losses = [entry["validation/loss"] for entry in log]
    assert min(losses) < losses[0] - 0.2
    assert result.validation_loss == pytest.approx(min(losses))
    assert log[result.epoch]["validation/loss"] == min(losses)
    assert log[-1]["train/loss"] < log[1]["train/loss"]
    assert log[-1]["averaged_steps"] == int(result.state.averaging.num_steps)


def test_interrupted_within_epochs_and_resumed(tmp_path, uninterrupted, monkeypatch):
    result, log = uninterrupted
    with signal_at_every_update(monkeypatch, signal.SIGTERM):
        for step in (1, 2):
            with pytest.raises(train.Interrupted, match="SIGTERM"):
                run_training(tmp_path, save_seconds=0.0)
            assert (tmp_path / "checkpoints" / str(step)).is_dir()
    resumed = run_training(tmp_path)
    assert digest(resumed.state) == digest(result.state)
    assert digest(resumed.params) == digest(result.params)
    assert read_log(tmp_path) == log


def test_four_devices_equal_one(uninterrupted):
    result, _ = uninterrupted
    four = run_training(devices=jax.devices()[:4]).state
    parallel.assert_replicated(four)
    for part in ("reader", "averaging", "best", "losses", "epoch_metrics"):
        chex.assert_trees_all_close(
            getattr(four, part), getattr(result.state, part), rtol=1e-4, atol=1e-4
        )


class Scripted(types.SimpleNamespace):
    """A model of one logit that grows by one in every step, and with it the loss."""

    hidden_size = 1

    def init(self, key, inputs, *, train):
        return {"params": {"embedding": jnp.zeros((1, 1), jnp.float32)}}

    def apply(self, variables, inputs, *, train=False, batch_axis=None, rngs=None):
        tokens, state = inputs
        value = variables["params"]["embedding"][0, 0]
        # Evaluated, the loss is value - 6 up to the logarithm of a sum.
        away = jnp.abs(value - 26) if not train else -value
        logits = jnp.stack([-away, jnp.zeros_like(away)])
        logits = jnp.broadcast_to(logits, (*tokens.shape, 2))
        return ops.LanguageOutputs(logits, state, state[:, None], state[:, None])


def constant_gradient() -> optax.GradientTransformation:
    """Whatever the gradient is, parameters grow by one."""
    return optax.stateless(lambda g, _: jax.tree.map(jnp.ones_like, g))


def test_averaging_begins_when_validation_stops_improving(tmp_path):
    zeros = np.zeros(640, np.int32)
    result = run_training(
        tmp_path,
        network=Scripted(),
        optimizer=constant_gradient(),
        train=zeros,
        validation=zeros[:160],
        patience=1,
        num_epochs=6,
    )
    # After the epochs of 13 steps: values 13, 26, 39, 52, 65, 78, of which 26 is best.
    # After epoch 4, 52 is worse than the best of the epochs 1 and 2, so that the mean
    # begins with it.
    assert [e["averaged_steps"] for e in read_log(tmp_path)[1:]] == [0, 0, 0, 1, 14, 27]
    assert float(result.params["embedding"][0, 0]) == 26 and result.epoch == 2
    mean = float(result.state.averaging.params["embedding"][0, 0])
    assert mean == pytest.approx(np.mean(np.arange(52, 79)))
    losses = np.asarray(result.state.losses)
    averages = [13, 26, 39, 52, np.mean(np.arange(52, 66)), mean]
    expected = [np.logaddexp(0, abs(value - 26)) for value in averages]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert result.validation_loss == pytest.approx(np.log(2))


def test_without_patience_nothing_is_averaged():
    zeros = np.zeros(640, np.int32)
    result = run_training(
        network=Scripted(),
        optimizer=constant_gradient(),
        train=zeros,
        validation=zeros[:160],
        patience=None,
        num_epochs=4,
    )
    assert int(result.state.averaging.num_steps) == 0
    assert float(result.params["embedding"][0, 0]) == 26


def test_the_result_is_what_an_evaluation_measures(uninterrupted):
    result, _ = uninterrupted
    model = train.language_model_of(networks.recurrent(GENOTYPE, NUM_WORDS, SIZE))
    evaluate = train.make_language_eval_fn(model, batch_size=4, window=6)
    found = evaluate(result.params, texts().validation)
    assert found["loss"] == pytest.approx(result.validation_loss, rel=1e-5)


def test_random_windows_learn_and_resume(tmp_path, monkeypatch):
    options = {"random_windows": True, "num_epochs": 1, "batch_size": 4, "window": 5}
    result = run_training(**options)
    assert result.validation_loss < np.log(7)
    with (
        signal_at_every_update(monkeypatch, signal.SIGTERM),
        pytest.raises(train.Interrupted),
    ):
        run_training(tmp_path, save_seconds=0.0, **options)
    assert digest(run_training(tmp_path, **options).state) == digest(result.state)


def test_a_run_that_is_not_finite_stops(tmp_path):
    with pytest.raises(train.Diverged, match="train/loss is nan by step"):
        run_training(tmp_path, optimizer=optax.scale(jnp.inf), max_skipped=2)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
        ({"patience": -1}, "patience is -1; expected 0 or more"),
        (
            {"eval_batch_size": 160},
            "160 tokens; expected more than eval_batch_size",
        ),
        (
            {"validation": -texts().validation},
            "validation text has a word of",
        ),
        ({"train": texts().train * 1.0}, "and the type float64; expected a row of int"),
        ({"batch_size": 200}, "640 tokens, which are 3 in each of 200 rows"),
        ({"devices": jax.devices()[:3]}, "batch_size of 8 cannot be divided among 3"),
        ({"window": 0}, "window is 0"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        run_training(**options)


def test_all_words_of_an_evaluation_have_a_weight_of_one():
    windows = language.evaluation_windows(np.arange(11, dtype=np.int32), 3, 2)
    assert windows.words.shape == (2, 3, 2)
    kept = windows.weights.astype(bool)
    assert sorted(windows.targets[kept]) == list(range(1, 11))
    assert (windows.targets - windows.words == 1)[kept].all()
