"""Base of all search spaces: integer vectors whose decisions have categories."""

import abc
import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas._checks import is_integer
from jaxnas.types import Arch, Key


class Space(abc.ABC):
    """A space in which every combination of categories is an architecture.

    A subclass has `cardinalities`, `decode` and `encode`. Spaces with invalid
    combinations override `num_architectures` and `sample`, and extend `check`. Errors
    become clearer with `_whole` and `_place`.
    """

    @property
    @abc.abstractmethod
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision."""

    @abc.abstractmethod
    def decode(self, arch: Any) -> Any:
        """Turn an architecture vector into a genotype."""

    @abc.abstractmethod
    def encode(self, genotype: Any) -> Arch:
        """Turn a genotype of this space into its architecture vector."""

    @property
    def _whole(self) -> str:
        """Name of the architecture in errors, such as `cells of 5 nodes`."""
        return f"a {type(self).__name__} of {len(self.cardinalities)} decisions"

    def _place(self, decision: int) -> str:
        """Name of a decision in errors, by its position."""
        return f"of {len(self.cardinalities)}"

    @property
    def num_architectures(self) -> int:
        """Number of distinct vectors, isomorphic architectures counted apart."""
        return math.prod(self.cardinalities)

    def sample(self, key: Key) -> Arch:
        """Draw one architecture uniformly; works inside `jax.jit`.

        Args:
          key: random key, consumed.

        Returns:
          int32 `[num_decisions]`.
        """
        sizes = jnp.asarray(self.cardinalities, jnp.int32)
        return jax.random.randint(key, sizes.shape, 0, sizes, jnp.int32)

    def check(self, arch: Any) -> np.ndarray:
        """Check an architecture vector.

        Args:
          arch: `num_decisions` integers: a list, a NumPy or a JAX array.

        Returns:
          The same integers, a NumPy int32 array.

        Raises:
          ValueError: naming the decision that is out of range or no integer.
        """
        sizes = self.cardinalities
        # As objects, so that a float between integers is not cast unseen.
        values = np.asarray(arch, dtype=object)
        if values.shape != (len(sizes),):
            raise ValueError(
                f"the architecture has shape {list(values.shape)}; expected "
                f"{[len(sizes)]} for {self._whole}"
            )
        for i, (value, size) in enumerate(zip(values, sizes, strict=True)):
            name = f"decision {i} ({self._place(i)})"
            if not is_integer(value):
                raise ValueError(f"{name}: {value!r} is not an integer")
            if not 0 <= value < size:
                raise ValueError(f"{name}: {value} is not in 0..{size - 1}")
        return values.astype(np.int32)


def check_choices(
    name: str, choices: Sequence[str], known: Sequence[str], noun: str
) -> None:
    """Check the operations or activations that a space chooses from.

    Args:
      name: name of the field.
      choices: its value.
      known: every name it may hold.
      noun: what errors call the choices, in the plural.

    Raises:
      ValueError: if they are none, repeated or unknown.
    """
    if not choices or len(set(choices)) != len(choices):
        raise ValueError(f"{name} is {choices!r}; expected distinct {noun}")
    for choice in choices:
        if choice not in known:
            raise ValueError(
                f"{name} holds {choice!r}; expected some of {', '.join(known)}"
            )


def check_density(density: float) -> None:
    """Raise `ValueError` for a probability outside of (0, 1]."""
    if not isinstance(density, numbers.Real) or not 0 < density <= 1:
        raise ValueError(f"density is {density!r}; expected a probability above 0")
