"""Running statistics of a network that was not trained with them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.data import Split
from jaxnas.networks import layers
from jaxnas.train import batches
from jaxnas.train.batches import Preprocess
from jaxnas.types import Params


def statistics_estimator(
    network: nn.Module, *, normalize: Preprocess, batch_size: int
) -> Callable[[Params, Split], Any]:
    """Make the estimation of running statistics by one pass over images.

    Parameters that come from elsewhere (`networks.params_from_supernet`) have no
    running statistics. These are means and variances of every normalized channel, the
    averages of those of all batches, which is what running averages would get to if
    the parameters stayed as they are.

    Args:
      network: any network of `jaxnas.networks`, made without `batch_axis`.
      normalize: `(key, uint8 images) -> float images`; its key is constant.
      batch_size: images in a batch. They are taken in one fixed permutation; those
        that do not fill a last batch are left out.

    Returns:
      `(params, split) -> batch_stats`. Use training images.

    Raises:
      ValueError: when estimating, if there are fewer images than a batch.
    """

    @jax.jit
    def statistics_of(params: Params, images: jax.Array) -> Any:
        image = normalize(jax.random.key(0), images)
        shapes = jax.eval_shape(
            lambda: network.init(jax.random.key(0), image, train=True)["batch_stats"]
        )
        # From zeros, a step of a running average is a share of the batch's statistics.
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        _, updated = network.apply(
            {"params": params, "batch_stats": zeros},
            image,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        share = 1 - layers.MOMENTUM
        return jax.tree.map(lambda leaf: leaf / share, updated["batch_stats"])

    def estimate(params: Params, split: Split) -> Any:
        num_batches = split.num_images // batch_size
        if num_batches == 0:
            raise ValueError(
                f"batch_size is {batch_size}, but there are only {split.num_images} "
                "images"
            )
        order = batches.evaluation_order(split.num_images)
        total = None
        for batch in order[: num_batches * batch_size].reshape(num_batches, -1):
            own = statistics_of(params, jnp.asarray(split.images[batch]))
            total = own if total is None else jax.tree.map(jnp.add, total, own)
        return jax.tree.map(lambda leaf: leaf / num_batches, total)

    return estimate
