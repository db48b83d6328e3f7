"""Distributions of architectures, for searchers that follow their natural gradient.

A distribution of an exponential family has as parameters `theta` the expectations of
its sufficient statistics. The natural gradient of the log-likelihood is then simply
`statistics(arch) - theta`. All about paddings, units and limits of the parameters is
here, so that the searchers can be written as in the paper.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas._checks import is_integer
from jaxnas.types import Arch, Key, Metrics

_SMALLEST_VARIANCE = 1 / 16

# Without a range restriction: the smallest probability times the number of categories.
# Square roots of probabilities are divided by.
_SMALLEST_SHARE = 1e-4


class Distribution(Protocol):
    """A distribution; `theta` and its natural gradients are pytrees of one structure.

    Attributes:
      n_theta: number of free parameters.
      norm_offset: what the official code for it adds to a norm it divides by.
    """

    n_theta: int
    norm_offset: float

    def uniform(self) -> Any:
        """The first parameters."""
        ...

    def sample(self, theta: Any, key: Key, num: int) -> Arch:
        """Draw architectures, `[num, num_decisions]`."""
        ...

    def mode(self, theta: Any) -> Arch:
        """The most likely architecture."""
        ...

    def gradient(self, theta: Any, archs: Arch, u: jax.Array) -> Any:
        """The natural gradient of the log-likelihood, weighted by `u`, `[num]`."""
        ...

    def fisher_root(self, theta: Any, gradient: Any) -> jax.Array:
        """Multiply a natural gradient by a square root of the Fisher matrix.

        The result, `[n_theta]`, has as Euclidean norm the Fisher norm of the gradient.
        """
        ...

    def move(self, theta: Any, step: Any) -> Any:
        """Add a step, within the limits of the parameters."""
        ...

    def is_informative(self, archs: Arch, u: jax.Array) -> jax.Array:
        """Whether the gradient is more than rounding."""
        ...

    def convergence(self, theta: Any) -> Metrics:
        """How far the distribution has left its start."""
        ...


class Categorical:
    """Independent categorical variables, padded to a common number of categories.

    `theta` holds the probabilities, `[num_decisions, max_cardinality]`. Architectures
    are int32 `[num, num_decisions]`.
    """

    norm_offset = 0.0

    def __init__(self, cardinalities: Sequence[int], *, range_restriction: bool = True):
        """Prepare what depends on the numbers of categories.

        Args:
          cardinalities: of each decision, at least 1.
          range_restriction: whether probabilities stay above `1 / (n * (cardinality -
            1))`, where `n` is the number of decisions of more than one category.

        Raises:
          ValueError: if these smallest probabilities of a decision do not fit.
        """
        self.sizes = sizes = np.array(cardinalities, int)
        index = np.arange(sizes.max(initial=1))[None]
        self.valid = index < sizes[:, None]
        # The last category of a decision is not free: it is what the others leave.
        self.last = sizes - 1
        self.is_free = index < self.last[:, None]
        self.n_theta = int(self.is_free.sum())
        self.num_open = int((sizes > 1).sum())
        if range_restriction:
            self._check()
            with np.errstate(divide="ignore"):
                lowest = 1 / (self.num_open * (sizes - 1))
        else:
            lowest = _SMALLEST_SHARE / sizes
        self.theta_min = np.where(sizes > 1, lowest, 0.0)

    def _check(self) -> None:
        for decision, size in enumerate(self.sizes.tolist()):
            if size > 1 and self.num_open * (size - 1) <= size:
                raise ValueError(
                    f"decision {decision} has {size} categories, and {self.num_open} "
                    f"decision(s) have more than one: the smallest probabilities would "
                    f"add up to 1 or more; expected more than {size / (size - 1):.3g} "
                    f"such decisions"
                )

    def uniform(self) -> jax.Array:
        return jnp.asarray(np.where(self.valid, 1 / self.sizes[:, None], 0.0), float)

    def sample(self, theta: jax.Array, key: Key, num: int) -> Arch:
        uniform = jax.random.uniform(key, (num, len(self.sizes), 1), theta.dtype)
        chosen = (jnp.cumsum(theta, axis=1)[None] <= uniform).sum(2)
        # Rounding can leave the last sum a little below 1.
        return jnp.minimum(chosen, jnp.asarray(self.last)[None]).astype(jnp.int32)

    def mode(self, theta: jax.Array) -> Arch:
        return jnp.argmax(theta, axis=1).astype(jnp.int32)

    def _one_hot(self, archs: Arch, dtype: jnp.dtype) -> jax.Array:
        return jax.nn.one_hot(archs, self.valid.shape[1], dtype=dtype)

    def gradient(self, theta: jax.Array, archs: Arch, u: jax.Array) -> jax.Array:
        one_hot = self._one_hot(archs, theta.dtype)
        return (u[:, None, None] * (one_hot - theta[None])).mean(0)

    def fisher_root(self, theta: jax.Array, gradient: jax.Array) -> jax.Array:
        root = jnp.sqrt(theta)
        root_last = root[np.arange(len(self.last)), self.last][:, None]
        free = jnp.where(self.is_free, gradient, 0.0).sum(1, keepdims=True)
        scale = free / (jnp.square(root_last) + root_last)
        product = gradient / jnp.where(self.valid, root, 1) + root * scale
        return product[np.nonzero(self.is_free)]

    def move(self, theta: jax.Array, step: jax.Array) -> jax.Array:
        """Raise probabilities to their minimum and rescale what lies above it."""
        low = jnp.asarray(self.theta_min, theta.dtype)[:, None]
        theta = jnp.where(self.valid, jnp.maximum(theta + step, low), 0.0)
        total = theta.sum(1, keepdims=True)
        room = total - low * jnp.asarray(self.sizes, theta.dtype)[:, None]
        excess = jnp.where(room > 0, (total - 1) / jnp.where(room > 0, room, 1), 0.0)
        theta = jnp.where(self.valid, theta - excess * (theta - low), 0.0)
        return theta / theta.sum(1, keepdims=True)

    def is_informative(self, archs: Arch, u: jax.Array) -> jax.Array:
        """Whether architectures and their weights give any gradient.

        The weights add up to zero, so that architectures may cancel: all are equal, or
        the best are equal to the worst. Rounding would be all that is left then.
        """
        one_hot = self._one_hot(archs, u.dtype)
        votes = jnp.abs((u[:, None, None] * one_hot).sum(0)).max(initial=0)
        return (votes > 1e-6) & (archs != archs[:1]).any()

    def convergence(self, theta: jax.Array) -> Metrics:
        return {
            "theta_max_mean": theta.max(1).mean(),
            "entropy": jax.scipy.special.entr(theta).sum(),
        }


class Normal(NamedTuple):
    """Independent normal variables, or their natural gradient.

    Attributes:
      mean: `[num_integers]`.
      variance: `[num_integers]`; of a gradient the part of the mean square deviation
        from the current mean.
    """

    mean: jax.Array
    variance: jax.Array


class _Integers:
    """Ordered integers as rounded normal variables, in expectation parameters.

    The parameters of the family are the mean and the second moment. In their place,
    mean and variance are kept, since the difference of large squares would lose most
    digits; the steps are the same.
    """

    def __init__(self, bounds: Sequence[tuple[int, int]]):
        for integer, (low, high) in enumerate(bounds):
            if not (is_integer(low) and is_integer(high) and low < high):
                raise ValueError(
                    f"integer {integer} has the bounds {low} and {high}; expected two "
                    f"integers, the lower one first"
                )
        self.low, self.high = np.array(bounds, float).T
        self.n_theta = 2 * len(bounds)

    def uniform(self) -> Normal:
        mean, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return Normal(jnp.asarray(mean, float), jnp.asarray(half**2, float))

    def sample(self, theta: Normal, key: Key, num: int) -> jax.Array:
        """Draw pairs that lie on both sides of the mean, at one distance."""
        if num % 2:
            raise ValueError(
                f"num is {num}; expected an even number: integers are drawn in pairs"
            )
        shape = num // 2, len(self.low)
        normal = jax.random.normal(key, shape, theta.mean.dtype)
        offset = jnp.sqrt(theta.variance)[None] * normal
        pairs = jnp.stack([offset, -offset], 1) + theta.mean[None, None]
        return pairs.reshape(num, len(self.low))

    def gradient(self, theta: Normal, draws: jax.Array, u: jax.Array) -> Normal:
        deviation = draws - theta.mean[None]
        square = jnp.square(deviation) - theta.variance[None]
        return Normal((u[:, None] * deviation).mean(0), (u[:, None] * square).mean(0))

    def fisher_root(self, theta: Normal, gradient: Normal) -> jax.Array:
        """Multiply by the symmetric root, in mean and second moment.

        A root in the terms of mean and variance, rotated.
        """
        std = jnp.sqrt(theta.variance)
        by_mean = gradient.mean / std
        by_variance = gradient.variance / (math.sqrt(2) * theta.variance)
        x, y = std + math.sqrt(0.5), math.sqrt(2) * theta.mean
        length = jnp.hypot(x, y)
        cos, sin = x / length, y / length
        return jnp.concatenate(
            [cos * by_mean - sin * by_variance, sin * by_mean + cos * by_variance]
        )

    def move(self, theta: Normal, step: Normal) -> Normal:
        """Clip the means, then the variances of the second moments that remain."""
        low, high = (jnp.asarray(v, theta.mean.dtype) for v in (self.low, self.high))
        moved = theta.mean + step.mean
        mean = jnp.clip(moved, low, high)
        variance = theta.variance + step.variance - jnp.square(step.mean)
        variance += (moved - mean) * (moved + mean)
        largest = jnp.square((high - low) / 2)
        return Normal(mean, jnp.clip(variance, _SMALLEST_VARIANCE, largest))

    def convergence(self, theta: Normal) -> Metrics:
        share = jnp.sqrt(theta.variance / self.uniform().variance.astype(float))
        return {"std_mean": share.mean()}


class MixedTheta(NamedTuple):
    """Parameters of a distribution of categories and integers, or their gradient.

    Attributes:
      probabilities: of the categories, `[num_categorical, max_cardinality]`.
      normal: of the integers.
    """

    probabilities: jax.Array
    normal: Normal


class Mixed:
    """Independent categorical variables, and ordered integers after them.

    Architectures are floats `[num, num_categorical + num_integers]`: categories, and
    normal draws that are neither clipped nor rounded.
    """

    norm_offset = 1e-9

    def __init__(self, categorical: Categorical, bounds: Sequence[tuple[int, int]]):
        """Prepare what depends on the decisions.

        Args:
          categorical: the distribution of the categories.
          bounds: smallest and largest value of each integer.

        Raises:
          ValueError: if the bounds of an integer are no two integers that ascend.
        """
        self.categorical, self.integers = categorical, _Integers(bounds)
        self.n_theta = categorical.n_theta + self.integers.n_theta

    def uniform(self) -> MixedTheta:
        return MixedTheta(self.categorical.uniform(), self.integers.uniform())

    def sample(self, theta: MixedTheta, key: Key, num: int) -> Arch:
        categories_key, integers_key = jax.random.split(key)
        draws = self.integers.sample(theta.normal, integers_key, num)
        chosen = self.categorical.sample(theta.probabilities, categories_key, num)
        return jnp.concatenate([chosen.astype(draws.dtype), draws], 1)

    def mode(self, theta: MixedTheta) -> Arch:
        mean = theta.normal.mean
        chosen = self.categorical.mode(theta.probabilities)
        return jnp.concatenate([chosen.astype(mean.dtype), mean])

    def _split(self, archs: Arch) -> tuple[jax.Array, jax.Array]:
        chosen, draws = jnp.split(archs, [len(self.categorical.sizes)], axis=1)
        return chosen.astype(jnp.int32), draws

    def gradient(self, theta: MixedTheta, archs: Arch, u: jax.Array) -> MixedTheta:
        chosen, draws = self._split(archs)
        return MixedTheta(
            self.categorical.gradient(theta.probabilities, chosen, u),
            self.integers.gradient(theta.normal, draws, u),
        )

    def fisher_root(self, theta: MixedTheta, gradient: MixedTheta) -> jax.Array:
        roots = (
            self.categorical.fisher_root(theta.probabilities, gradient.probabilities),
            self.integers.fisher_root(theta.normal, gradient.normal),
        )
        return jnp.concatenate(roots)

    def move(self, theta: MixedTheta, step: MixedTheta) -> MixedTheta:
        return MixedTheta(
            self.categorical.move(theta.probabilities, step.probabilities),
            self.integers.move(theta.normal, step.normal),
        )

    def is_informative(self, archs: Arch, u: jax.Array) -> jax.Array:
        """Whether any weight is not 0: normal draws differ."""
        return (jnp.abs(u).max() > 1e-6) & (archs != archs[:1]).any()

    def convergence(self, theta: MixedTheta) -> Metrics:
        metrics = self.integers.convergence(theta.normal)
        if len(self.categorical.sizes):
            metrics = self.categorical.convergence(theta.probabilities) | metrics
        return metrics
