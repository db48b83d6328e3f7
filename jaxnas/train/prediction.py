"""Probabilities of classes, by a trained network."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.data import Split, Stream
from jaxnas.train import batches
from jaxnas.train.batches import Preprocess
from jaxnas.train.from_scratch import Options
from jaxnas.train.loop import Diverged


def predict_probabilities(
    network: nn.Module,
    params: Any,
    batch_stats: Any,
    images: Split | Stream,
    *,
    normalize: Preprocess,
    batch_size: int,
    options: Options | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute what a network says of images, in one pass and by one program.

    Normalization uses the running statistics, so that the batches do not matter.

    Args:
      network: as for `train_step`; it returns logits `[B, num_classes]`, or those and
        the logits of an auxiliary head.
      params: its parameters.
      batch_stats: its running statistics.
      images: in memory, or read batch by batch.
      normalize: `(key, uint8 images) -> float images`; its key is constant.
      batch_size: images in a batch.
      options: further named arguments of the network, arrays.

    Returns:
      The labels, int32 `[num_images]`, and the probabilities of the classes,
      `[num_images, num_classes]`, in the order of the images.

    Raises:
      ValueError: if there are no images, or the network returns anything else.
      Diverged: if probabilities are not finite.
    """
    num_images = images.num_images
    if num_images == 0:
        raise ValueError("there are no images; expected at least one")

    @jax.jit
    def predict(variables: Any, pixels: jax.Array, options: Options) -> jax.Array:
        prepared = normalize(jax.random.key(0), pixels)
        outputs = network.apply(variables, prepared, train=False, **options)
        logits: Any = outputs[0] if isinstance(outputs, tuple) else outputs
        if logits.ndim != 2:
            raise ValueError(
                f"the network returns shape {list(logits.shape)}; expected [batch, "
                "classes]"
            )
        dtype = np.promote_types(logits.dtype, jnp.float32)
        return jax.nn.softmax(logits.astype(dtype))

    variables = {"params": params, "batch_stats": batch_stats}
    labels = np.zeros(num_images, np.int32)
    probabilities: np.ndarray | None = None
    for batch in batches.evaluation_batches(images, batch_size):
        found = np.asarray(predict(variables, batch["image"], dict(options or {})))
        if probabilities is None:
            probabilities = np.zeros((num_images, found.shape[1]), found.dtype)
        counts = batch["weight"] > 0
        index = batch["index"][counts]
        labels[index] = batch["label"][counts]
        probabilities[index] = found[counts]
    assert probabilities is not None
    num_wrong = int((~np.isfinite(probabilities)).any(1).sum())
    if num_wrong:
        raise Diverged(
            f"probabilities of {num_wrong} of {num_images} images are not finite"
        )
    return labels, probabilities
