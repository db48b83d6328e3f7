"""Time and memory of a network's evaluation."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from jaxnas import networks


class Product(nn.Module):
    """Pixels times a matrix; it counts how often it is traced."""

    width: int

    @nn.compact
    def __call__(self, images, *, train):
        del train
        pixels = images.reshape(images.shape[0], -1)
        shape = (pixels.shape[1], self.width)
        return pixels @ self.param("kernel", nn.initializers.zeros, shape)


def test_speed():
    speed = networks.measure_speed(Product(1000), (4, 4, 1), 8)
    assert speed.batch_size == 8
    assert 0 < speed.milliseconds < 1000
    least = 4 * (16 * 1000 + 8 * 16 + 8 * 1000)  # kernel, images, outputs
    assert speed.peak_bytes is not None
    assert least <= speed.peak_bytes < 1.5 * least


def test_the_median_of_repetitions(monkeypatch):
    now = iter(jnp.cumsum(jnp.array([0, 1, 9, 5, 9, 2], float)).tolist())
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    speed = networks.measure_speed(Product(1), (1, 1, 1), 1, num_repeats=3)
    assert speed.milliseconds == 2000


def test_wrong_numbers():
    with pytest.raises(ValueError, match="batch_size is 0; expected"):
        networks.measure_speed(Product(1), (1, 1, 1), 0)
