"""A supernet of one hidden layer with batch statistics, for single steps."""

import types

import jax
import jax.numpy as jnp

from jaxnas import ops, train, weights
from jaxnas.types import Supernet

ACTIVATIONS = (jnp.tanh, jax.nn.relu, jnp.sin)


def tiny() -> Supernet:
    """One hidden layer; the architecture picks its activation and its classifier."""

    def init(key):
        hidden, out = jax.random.split(key)
        return {
            "hidden": jax.random.normal(hidden, (12, 6), float),
            "out": jax.random.normal(out, (2, 6, 3), float),
        }

    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        del train, key
        x = inputs.reshape(inputs.shape[0], 12) @ weights["hidden"]
        x = ops.batch_norm(x[:, None, None], batch_axis=batch_axis)[:, 0, 0]
        return jax.lax.switch(arch[0], ACTIVATIONS, x) @ weights["out"][arch[1]]

    return Supernet(types.SimpleNamespace(cardinalities=(3, 2)), init, apply)


NET = tiny()


PROVIDER = weights.shared(NET)


TASK = train.classification()
