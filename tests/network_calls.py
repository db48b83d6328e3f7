"""Calls of networks on gray images, compiled once, and parts of reference networks."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnums=(0, 1))
def init(network, side=8):
    return network.init(jax.random.key(0), jnp.zeros((2, side, side, 1)), train=True)


def shapes(network, side=8, image_channels=1):
    image = jax.ShapeDtypeStruct((2, side, side, image_channels), jnp.float32)
    init = functools.partial(network.init, train=True)
    return jax.eval_shape(init, jax.random.key(0), image)


@functools.partial(jax.jit, static_argnums=0)
def train(network, variables, images, prob=None, key=None):
    """Outputs and updated statistics of a training step."""
    return network.apply(
        variables,
        images,
        train=True,
        drop_path_prob=prob,
        rngs=None if key is None else {"drop_path": key, "dropout": key},
        mutable=["batch_stats"],
    )


@functools.partial(jax.jit, static_argnums=0)
def evaluate(network, variables, images):
    return network.apply(variables, images, train=False)


@functools.cache
def images(batch_size=4, side=8):
    return jax.random.normal(jax.random.key(1), (batch_size, side, side, 1))


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# With the initial statistics, as references are computed ------------------------------


def initial_norm(x):
    return x / (1 + 1e-5) ** 0.5


def relu_conv_norm(x, module):
    return initial_norm(jax.nn.relu(x) @ module["kernel"])


def halve(x, module):
    """A factorized reduction."""
    first, second = module["kernel"]
    halves = [x[:, ::2, ::2] @ first, x[:, 1::2, 1::2] @ second]
    return initial_norm(jnp.concatenate(halves, axis=-1))
