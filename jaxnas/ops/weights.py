"""Weights that are not there yet: their shapes, scales and initial values."""

import itertools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.types import Key, Weights

Distribution = Literal["uniform", "he_normal"]


class WeightSpec(NamedTuple):
    """Shape and initial scale of an array of weights.

    Attributes:
      shape: of the array.
      fan_in: inputs of one output, which set the scale of random initial values.
      constant: the initial value of all elements, if they are not random.
      spatial: axes of height and width, counted from the last (-1). A small kernel is
        the center of a larger one along them.
    """

    shape: tuple[int, ...]
    fan_in: int
    constant: float | None = None
    spatial: tuple[int, ...] = ()

    def stack(self, *sizes: int) -> "WeightSpec":
        """The spec of independent copies along new leading axes."""
        return self._replace(shape=(*sizes, *self.shape))


def affine_specs(*shape: int) -> dict[str, WeightSpec]:
    """Specs of the learned `scale` and `offset` after a normalization."""
    return {"scale": WeightSpec(shape, 1, 1.0), "offset": WeightSpec(shape, 1, 0.0)}


def init(key: Key, specs: Any, distribution: Distribution = "uniform") -> Weights:
    """Draw initial weights for a pytree of specs.

    All values come from one call of the generator, because each call takes a fraction
    of a second to compile.

    Args:
      key: random key, consumed.
      specs: pytree of `WeightSpec`.
      distribution: `"uniform"`: in `±1 / sqrt(fan_in)`, PyTorch's default for
        convolutions and linear layers; `"he_normal"`: Gaussian with variance
        `2 / fan_in` (He et al. 2015), which ENAS uses.

    Returns:
      Pytree of float arrays.
    """
    leaves, treedef = jax.tree.flatten(
        specs, is_leaf=lambda leaf: isinstance(leaf, WeightSpec)
    )
    sizes = [
        0 if spec.constant is not None else math.prod(spec.shape) for spec in leaves
    ]
    if distribution == "uniform":
        values = jax.random.uniform(key, (sum(sizes),), minval=-1, maxval=1)
    else:
        values = jax.random.normal(key, (sum(sizes),)) * math.sqrt(2)
    parts = jnp.split(values, list(itertools.accumulate(sizes)))[:-1]
    weights = [
        part.reshape(spec.shape) / math.sqrt(spec.fan_in)
        if spec.constant is None
        else jnp.full(spec.shape, spec.constant, values.dtype)
        for part, spec in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, weights)
