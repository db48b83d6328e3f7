"""Precision of a training step."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

Precision = Literal["float32", "bfloat16"]
"""What a network computes in: `"float32"` for the precision of its parameters."""


def check_precision(precision: Precision) -> None:
    """Raise `ValueError` if a precision is unknown."""
    known = get_args(Precision)
    if precision not in known:
        raise ValueError(
            f"precision is {precision!r}; expected one of {', '.join(known)}"
        )


def narrowed(tree: Any, precision: Precision) -> Any:
    """The floating-point arrays of a tree in the precision a network computes in.

    Parameters stay as they are and so do their gradients, which pass through this
    conversion: an optimizer adds its updates to what has not been rounded.
    """
    if precision == "float32":
        return tree
    return jax.tree.map(lambda x: _converted(x, jnp.bfloat16), tree)


def widened(outputs: Any, precision: Precision) -> Any:
    """The outputs of a network in float32, in which losses are computed."""
    if precision == "float32":
        return outputs
    return jax.tree.map(lambda x: _converted(x, jnp.float32), outputs)


def _converted(x: jax.Array, dtype: Any) -> jax.Array:
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
