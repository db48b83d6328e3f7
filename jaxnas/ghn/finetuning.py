"""From generated weights to weights that can be trained."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxnas.types import Key, Weights


def add_noise(key: Key, weights: Weights, scale: float = 0.01) -> Weights:
    """Add a little noise to generated weights, before they are trained on.

    Kernels with more channels than the hypernetwork's tile repeat it, and filters that
    are equal would stay equal (Knyazev et al. 2023).

    Args:
      key: random key, consumed.
      weights: generated weights, those of `provider.apply(params, arch)`.
      scale: standard deviation of the noise in units of the root mean square of the
        array's weights that are not 0.

    Returns:
      The weights with noise. Those that are 0, which the architecture does not use,
      stay 0.
    """
    flat, unravel = ravel_pytree(weights)
    noise = unravel(jax.random.normal(key, flat.shape, flat.dtype))

    def disturb(leaf: jax.Array, noise: jax.Array) -> jax.Array:
        is_used = leaf != 0
        num_used = jnp.maximum(is_used.sum(dtype=leaf.dtype), 1)
        size = scale * jnp.sqrt(jnp.square(leaf).sum() / num_used)
        return leaf + jnp.where(is_used, size * noise, jnp.zeros((), leaf.dtype))

    return jax.tree.map(disturb, weights, noise)
