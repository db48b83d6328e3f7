"""What all search spaces share: integer vectors whose decisions have categories."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas._checks import is_integer
from jaxnas.types import Arch, Key


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


def sample(key: Key, cardinalities: Sequence[int]) -> Arch:
    """Draw every decision uniformly; works inside `jax.jit`.

    Args:
      key: random key, consumed.
      cardinalities: number of categories of each decision.

    Returns:
      int32 `[num_decisions]`.
    """
    sizes = jnp.asarray(cardinalities, jnp.int32)
    return jax.random.randint(key, sizes.shape, 0, sizes, jnp.int32)


def check(
    arch: Any, cardinalities: Sequence[int], *, whole: str, place: Callable[[int], str]
) -> np.ndarray:
    """Check an architecture vector.

    Args:
      arch: `num_decisions` integers: a list, a NumPy or a JAX array.
      cardinalities: number of categories of each decision.
      whole: what errors call the architecture, such as `cells of 5 nodes`.
      place: what errors call a decision, by its position.

    Returns:
      The same integers, a NumPy int32 array.

    Raises:
      ValueError: naming the decision that is out of range or no integer.
    """
    # As objects, so that a float between integers is not cast unseen.
    values = np.asarray(arch, dtype=object)
    if values.shape != (len(cardinalities),):
        raise ValueError(
            f"the architecture has shape {list(values.shape)}; expected "
            f"{[len(cardinalities)]} for {whole}"
        )
    for i, (value, size) in enumerate(zip(values, cardinalities, strict=True)):
        name = f"decision {i} ({place(i)})"
        if not is_integer(value):
            raise ValueError(f"{name}: {value!r} is not an integer")
        if not 0 <= value < size:
            raise ValueError(f"{name}: {value} is not in 0..{size - 1}")
    return values.astype(np.int32)
