"""The learned functions of message passing: messages M and updates U.

Zhang et al. 2019, section 3.2; the gates are those of Cho et al. 2014.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.ops import WeightSpec
from jaxnas.types import Params


def linear_specs(size_in: int, *shape_out: int) -> dict[str, WeightSpec]:
    """Specs of a linear layer from a vector to an array."""
    return {
        "kernel": WeightSpec((size_in, *shape_out), size_in),
        "bias": WeightSpec(shape_out, size_in),
    }


def linear(params: Params, x: jax.Array) -> jax.Array:
    """Apply a linear layer to vectors `[..., size_in]`."""
    kernel, bias = params["kernel"], params["bias"]
    y = jnp.tensordot(x, kernel, axes=1)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def specs(size: int, *, virtual_edges: bool) -> dict[str, Any]:
    """Specs of the message functions M and of the update function U.

    Args:
      size: of the embedding of a node.
      virtual_edges: whether far nodes send messages too, by a function of their own;
        both functions then have half of the hidden units.
    """
    num, hidden = (2, size // 2) if virtual_edges else (1, size)
    return {
        "message": {
            "hidden": WeightSpec((num, size, hidden), size),
            "hidden_bias": WeightSpec((num, hidden), size),
            "output": WeightSpec((num, hidden, size), hidden),
            "output_bias": WeightSpec((num, size), hidden),
        },
        "update": {
            "from_message": linear_specs(size, 3 * size),
            "from_state": WeightSpec((size, 3 * size), size),
            "candidate_bias": WeightSpec((size,), size),
        },
    }


def messages(params: Params, states: jax.Array) -> jax.Array:
    """Messages of states `[..., size]` by all functions, `[..., num, size]`."""
    messages = jnp.einsum("...kh,khd->...kd", _hidden(params, states), params["output"])
    return _with_bias(messages, params["output_bias"])


def _hidden(params: Params, states: jax.Array) -> jax.Array:
    hidden = jnp.einsum("...d,kdh->...kh", states, params["hidden"])
    return jax.nn.relu(_with_bias(hidden, params["hidden_bias"]))


def _with_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)


def active_units(params: Params, states: jax.Array) -> jax.Array:
    """Which hidden units of the messages of states are not 0, `[..., num, hidden]`."""
    return _hidden(params, states) > 0


def messages_vjp(params: Params, active: jax.Array, gradient: jax.Array) -> jax.Array:
    """Gradient of a state, given `active_units` and the gradient of its messages."""
    of_hidden = jnp.einsum("kd,khd->kh", gradient, params["output"])
    of_hidden = jnp.where(active, of_hidden, jnp.zeros_like(of_hidden))
    return jnp.einsum("kh,kdh->d", of_hidden, params["hidden"])


class Gates(NamedTuple):
    """Gates of a gated recurrent unit: `(1 - keep) * new + keep * state`.

    Attributes:
      reset: `[..., size]`, as all of them.
      keep: how much of the state stays.
      from_state: what the state adds to the candidate where it is not reset.
      new: the candidate.
    """

    reset: jax.Array
    keep: jax.Array
    from_state: jax.Array
    new: jax.Array


def gates(params: Params, message: jax.Array, state: jax.Array) -> Gates:
    """Gates of messages and states `[..., size]`."""
    reset_m, keep_m, new_m = jnp.split(linear(params["from_message"], message), 3, -1)
    products = jnp.tensordot(state, params["from_state"], axes=1)
    reset_s, keep_s, new_s = jnp.split(products, 3, -1)
    reset = jax.nn.sigmoid(reset_m + reset_s)
    keep = jax.nn.sigmoid(keep_m + keep_s)
    from_state = _with_bias(new_s, params["candidate_bias"])
    return Gates(reset, keep, from_state, jnp.tanh(new_m + reset * from_state))


def update(params: Params, message: jax.Array, state: jax.Array) -> jax.Array:
    """A gated recurrent unit: `[..., size]` and `[..., size]` to the new state."""
    _, keep, _, new = gates(params, message, state)
    return (1 - keep) * new + keep * state


class UpdateFactors(NamedTuple):
    """Derivatives of `update` by what its linear layers return, elementwise.

    Attributes:
      of_message: `[..., 3, size]`, by what the message's layer returns.
      of_state: `[..., 3, size]`, by what the state's returns.
      keep: `[..., size]`, by the state itself.
    """

    of_message: jax.Array
    of_state: jax.Array
    keep: jax.Array


def update_factors(
    params: Params, message: jax.Array, state: jax.Array
) -> UpdateFactors:
    """Derivatives of updates of states `[..., size]` by messages `[..., size]`."""
    reset, keep, from_state, new = gates(params, message, state)
    of_new = (1 - keep) * (1 - jnp.square(new))
    of_reset = of_new * from_state * reset * (1 - reset)
    of_keep = (state - new) * keep * (1 - keep)
    return UpdateFactors(
        jnp.stack([of_reset, of_keep, of_new], -2),
        jnp.stack([of_reset, of_keep, of_new * reset], -2),
        keep,
    )


def update_vjp(
    params: Params, factors: UpdateFactors, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of message and state, given that of the new state `[size]`."""
    of_layers = (factors.of_message * gradient[None]).ravel()
    of_message = params["from_message"]["kernel"] @ of_layers
    of_state = params["from_state"] @ (factors.of_state * gradient[None]).ravel()
    return of_message, of_state + factors.keep * gradient
