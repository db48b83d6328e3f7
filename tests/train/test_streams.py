"""Training on images that are read batch by batch: the same, resumed and shared out."""

import io
import signal

import chex
import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from helpers import signal_at_every_update, take
from PIL import Image

from jaxnas import data, metrics, parallel, train

MEAN, STD = (0.5,) * 3, (0.5,) * 3


class Linear(nn.Module):
    """A linear layer, and running statistics that count the steps."""

    @nn.compact
    def __call__(self, images, *, train):
        steps = self.variable("batch_stats", "steps", lambda: np.zeros((), np.int32))
        if train and not self.is_initializing():
            steps.value = steps.value + 1
        return nn.Dense(2)(images.reshape(images.shape[0], -1))


def stream(num):
    """Dark images of class 0 and bright ones of class 1, with noise."""
    noise = np.random.default_rng(0).integers(0, 100, (num, 9, 9, 3))

    def read(index):
        file, label = io.BytesIO(), index % 2
        pixels = (noise[index] + 100 * label).astype(np.uint8)
        Image.fromarray(pixels).save(file, format="PNG")
        return data.Example(file.getvalue(), label, f"image {index}")

    return data.Stream(num, 6, read)


def run(workdir=None, num_epochs=3, num_devices=1, images=None, **options):
    pipeline = take(
        train.InputPipeline,
        options,
        batch_size=4,
        augment=lambda key, x: data.augment(key, x, MEAN, STD, flip=True),
        normalize=lambda key, x: data.normalize(x, MEAN, STD),
        devices=jax.devices()[:num_devices],
    )
    return train.train_from_scratch(
        Linear(),
        train.classification(),
        optax.sgd(0.05),
        stream(22) if images is None else images,
        pipeline,
        key=jax.random.key(0),
        num_epochs=num_epochs,
        test=stream(7),
        workdir=workdir,
        save_seconds=0.0,
        **options,
    )


def arrays(state):
    return state._replace(key=jax.random.key_data(state.key))


def test_it_learns_and_evaluates(tmp_path):
    result = run(tmp_path, num_epochs=8)
    # 22 images are five batches of four.
    assert int(result.state.step) == 40 == int(result.state.batch_stats["steps"])
    log = metrics.read(tmp_path / "metrics.jsonl")
    assert [entry["step"] for entry in log] == list(range(0, 45, 5))
    assert log[-1]["train/loss"] < log[1]["train/loss"] / 2
    assert result.test["accuracy"] == 1.0
    assert run(num_epochs=8).test == result.test


def test_interrupted_and_resumed(tmp_path, monkeypatch):
    interrupts = signal_at_every_update(monkeypatch, signal.SIGTERM)
    with interrupts, pytest.raises(train.Interrupted, match="SIGTERM"):
        run(tmp_path)
    assert (tmp_path / "checkpoints" / "1").is_dir()
    resumed, uninterrupted = run(tmp_path), run()
    chex.assert_trees_all_equal(arrays(resumed.state), arrays(uninterrupted.state))
    assert resumed.test == uninterrupted.test


def test_two_devices_equal_one():
    one, two = run().state, run(num_devices=2).state
    parallel.assert_replicated(two)
    chex.assert_trees_all_close(two.params, one.params, rtol=1e-4, atol=1e-5)


def test_faults_of_images_and_arguments():
    damaged = data.Stream(8, 6, lambda index: data.Example(b"", 0, f"image {index}"))
    with pytest.raises(data.DatasetError, match=r"image \d cannot be read"):
        run(images=damaged)
    with pytest.raises(ValueError, match="batch_size is 23, but there are only 22 im"):
        run(batch_size=23)
