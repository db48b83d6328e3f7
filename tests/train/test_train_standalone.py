"""Architectures trained by themselves, with results that stay theirs."""

import os
import signal

import jax
import numpy as np
import optax
import pytest
from helpers import visible
from toy_training import BATCH_SIZE, augment, load, normalize, perceptron, small

from jaxnas import metrics, train

ARCHS = [np.array([i], np.int32) for i in (0, 1)]


def run(archs, workdir=None, *, num_seeds=2, num_steps=8):
    return train.train_standalone(
        perceptron(),
        train.classification(),
        optax.sgd(0.1, 0.9),
        small(),
        load().test,
        archs,
        train.InputPipeline(BATCH_SIZE, augment, normalize),
        key=jax.random.key(3),
        num_seeds=num_seeds,
        num_steps=num_steps,
        workdir=workdir,
    )


@pytest.fixture(scope="module")
def results():
    return run(ARCHS)


def test_they_learn_and_seeds_differ(results):
    accuracies = np.array([[line["accuracy"] for line in seeds] for seeds in results])
    assert accuracies.shape == (2, 2) and (accuracies > 0.4).all()
    assert results[0][0] != results[0][1] and results[0][0] != results[1][0]


def test_a_result_does_not_depend_on_what_else_is_trained(tmp_path, results):
    assert run(ARCHS[1:], tmp_path, num_seeds=1) == [results[1][:1]]
    logged = (tmp_path / "seed_0.jsonl").read_text()
    # More architectures and seeds are added to what is there.
    assert run(ARCHS, tmp_path) == results
    assert (tmp_path / "seed_0.jsonl").read_text().startswith(logged)
    assert visible(tmp_path) == {"seed_0.jsonl", "seed_1.jsonl"}
    assert run(ARCHS[::-1], tmp_path) == results[::-1]
    assert [len(metrics.read(path)) for path in tmp_path.glob("*.jsonl")] == [2, 2]


def test_a_training_continues_where_it_was_interrupted(tmp_path, monkeypatch, results):
    append = metrics.append

    def interrupted(path, *args):
        if path.name == "metrics.jsonl":  # of a training
            os.kill(os.getpid(), signal.SIGINT)
        return append(path, *args)

    with monkeypatch.context() as patch, pytest.raises(train.Interrupted):
        patch.setattr(metrics, "append", interrupted)
        run(ARCHS, tmp_path)
    (unfinished,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert any((unfinished / "checkpoints").iterdir())
    assert run(ARCHS, tmp_path) == results
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_wrong_numbers():
    with pytest.raises(ValueError, match="num_seeds is 0; expected at least 1"):
        run(ARCHS, num_seeds=0)
    with pytest.raises(ValueError, match=r"snapshot_steps is \[0\]"):
        run(ARCHS, num_steps=0)
