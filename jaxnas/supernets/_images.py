"""Parts of all supernets for images: checks, stem and classifier."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas import ops
from jaxnas.ops import Norm, WeightSpec
from jaxnas.types import Arch, Key, SearchSpace, Weights


def check_channels(channels: int) -> None:
    """Raise `ValueError` unless a number of channels is even and positive."""
    if channels < 2 or channels % 2:
        raise ValueError(f"channels is {channels}; expected a positive even number")


def check_inputs(space: SearchSpace, arch: Arch, images: jax.Array) -> None:
    """Raise `ValueError` for images or an architecture of another shape."""
    if images.ndim != 4 or images.shape[1] % 4 or images.shape[2] % 4:
        raise ValueError(
            f"images have shape {images.shape}; expected [B, H, W, C], image "
            "height and width must be divisible by 4"
        )
    if arch.shape != (len(space.cardinalities),):
        raise ValueError(
            f"arch has shape {arch.shape}; expected ({len(space.cardinalities)},)"
        )


def stem_specs(image_channels: int, channels: int) -> dict[str, WeightSpec]:
    """Specs of a 3x3 convolution with a learned scale and offset."""
    kernel = WeightSpec((3, 3, image_channels, channels), 9 * image_channels)
    return {"kernel": kernel, **ops.affine_specs(channels)}


def stem(weights: Weights, images: jax.Array, norm: Norm) -> jax.Array:
    """Convolve and normalize, without a nonlinearity."""
    x = norm(ops.conv(images, weights["kernel"], (1, 1)))
    return ops.scale_and_offset(x, weights["scale"], weights["offset"])


def classifier_specs(channels: int, num_classes: int, *, bias: bool) -> dict[str, Any]:
    """Specs of a linear layer."""
    spec = WeightSpec((num_classes,), channels)
    return {"kernel": spec.stack(channels)} | ({"bias": spec} if bias else {})


def classify(
    weights: Weights,
    x: jax.Array,
    *,
    dropout: float = 0.0,
    key: Key | None = None,
    batch_axis: str | None = None,
) -> jax.Array:
    """Average over all pixels, drop features, apply the linear layer.

    Args:
      weights: as specified by `classifier_specs`.
      x: `[B, H, W, C]`.
      dropout: probability of dropping a feature; the others are scaled up.
      key: random key, needed if `dropout` is positive.
      batch_axis: mapped axis over which the batch is sharded, if any; every share
        drops features of its own.

    Returns:
      Logits `[B, num_classes]`.

    Raises:
      ValueError: if features are to be dropped without a key.
    """
    features = x.mean((1, 2))
    if dropout > 0:
        if key is None:
            raise ValueError("key is None; training with dropout needs one")
        if batch_axis is not None:
            key = jax.random.fold_in(key, lax.axis_index(batch_axis))
        kept = jax.random.bernoulli(key, 1 - dropout, features.shape)
        features = jnp.where(kept, features / (1 - dropout), 0)
    logits = features @ weights["kernel"]
    return logits + weights["bias"][None] if "bias" in weights else logits
