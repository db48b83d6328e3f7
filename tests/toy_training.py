"""A training that compiles at once: one layer, or a layer of noise, on digits."""

import functools

import jax
import jax.numpy as jnp

from jaxnas import data
from jaxnas.types import Supernet

BATCH_SIZE = 48


class Space:
    cardinalities = (2,)
    num_architectures = 2


def perceptron() -> Supernet:
    """One layer, or a layer of noise; every kind has weights of its own."""

    def init(key):
        return 0.1 * jax.random.normal(key, (2, 64, 10))

    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        del train, batch_axis
        x = inputs.reshape(inputs.shape[0], -1)
        noise = 0.0 if key is None else 0.01 * jax.random.normal(key, (1, 64))
        return (x + noise * arch[0].astype(x.dtype)) @ weights[arch[0]]

    return Supernet(Space(), init, apply)


@functools.cache
def load() -> data.ImageDataset:
    return data.load("digits")


def normalize(key, images):
    del key
    return data.normalize(images, load().mean, load().std)


def augment(key, images):
    return normalize(key, images) + 0.1 * jax.random.normal(
        key, images.shape, jnp.float32
    )


def small() -> data.Split:
    return data.split(load().train, 200)[0]
