"""Probabilities of all images of a split, in its order."""

import io

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxnas import data, train


class Linear(nn.Module):
    """Logits of the mean color, of two outputs where asked for."""

    outputs: str = "logits"

    @nn.compact
    def __call__(self, images, *, train: bool):
        assert not train
        shift = self.variable("batch_stats", "shift", jnp.zeros, (1, 3))
        logits = nn.Dense(3)(images.mean((1, 2)) - shift.value)
        return {
            "logits": logits,
            "auxiliary": (logits, jnp.zeros_like(logits)),
            "exits": logits[None],
        }[self.outputs]


def normalize(key, images):
    del key
    return images.astype(jnp.float32) / 255


def split(num=7):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num, 4, 4, 3)).astype(np.uint8)
    return data.Split(images, np.arange(num, dtype=np.int32) % 3)


def variables():
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3)).astype(np.float32)
    params = {"Dense_0": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}
    return params, {"shift": np.array([[0.5, 0.25, 0.0]], np.float32)}


def expected(images):
    params, stats = variables()
    means = images.astype(np.float64).mean((1, 2)) / 255 - stats["shift"]
    weights = np.exp(means @ params["Dense_0"]["kernel"])
    return weights / weights.sum(1, keepdims=True)


def predict(images, outputs="logits", batch_size=3, scale=1.0):
    params, stats = variables()
    params["Dense_0"]["kernel"] *= np.float32(scale)
    return train.predict_probabilities(
        Linear(outputs),
        params,
        stats,
        images,
        normalize=normalize,
        batch_size=batch_size,
    )


@pytest.mark.parametrize("outputs", ["logits", "auxiliary"])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_images_in_memory(outputs, batch_size):
    labels, found = predict(split(), outputs, batch_size)
    np.testing.assert_array_equal(labels, split().labels)
    np.testing.assert_allclose(found, expected(split().images), rtol=1e-5)
    assert found.dtype == np.float32


def test_one_compilation():
    traced = []

    def recorded(key, images):
        traced.append(images.shape)
        return normalize(key, images)

    params, stats = variables()
    options = {"normalize": recorded, "batch_size": 3}
    train.predict_probabilities(Linear(), params, stats, split(), **options)
    assert traced == [(3, 4, 4, 3)]


def stream(images: data.Split) -> data.Stream:
    def read(index):
        file = io.BytesIO()
        Image.fromarray(images.images[index]).save(file, "PNG")
        return data.Example(
            file.getvalue(), int(images.labels[index]), f"image {index}"
        )

    return data.Stream(images.num_images, 4, read)


def test_images_that_are_read():
    num = 5
    flat = np.broadcast_to(split(num).images[:, :1, :1], (num, 4, 4, 3)).copy()
    images = stream(data.Split(flat, split(num).labels))
    labels, found = predict(images)
    np.testing.assert_array_equal(labels, split(num).labels)
    np.testing.assert_allclose(found, expected(flat), rtol=1e-5)
    np.testing.assert_array_equal(data.images_at(images, [3, 0]), flat[[3, 0]])
    assert data.images_at(images, []).shape == (0, 4, 4, 3)
    np.testing.assert_array_equal(data.images_at(split(), [6]), split().images[6:])


def test_faults():
    with pytest.raises(ValueError, match="there are no images"):
        predict(split(0))
    with pytest.raises(ValueError, match=r"network returns shape \[1, 3, 3\]; expecte"):
        predict(split(), "exits")
    with pytest.raises(train.Diverged, match="of 7 of 7 images are not finite"):
        predict(split(), scale=jnp.inf)
