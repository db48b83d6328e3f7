"""The compiled part of an epoch: any number of steps, and means of their metrics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas.types import Metrics


def repeat(
    step: Callable[..., tuple[Any, Any]], begin: Callable[..., Any]
) -> Callable[..., Any]:
    """Make one program of any number of steps.

    Args:
      step: `(state, orders, *args) -> (state, orders)`, one step; it leaves the state's
        `step` as it is. The orders of the images spare it drawing them anew.
      begin: `(*args) -> orders` for the first step.

    Returns:
      `(state, *args, num_steps) -> state`; `num_steps` is traced.
    """

    def advance(state, *args):
        *args, num_steps = args

        def one_step(_, carry):
            state, orders = step(*carry, *args)
            return state._replace(step=state.step + 1), orders

        return lax.fori_loop(0, num_steps, one_step, (state, begin(*args)))[0]

    return advance


def strongly_typed(state: Any) -> Any:
    """Give all leaves of an initial state the types that a step leaves them with.

    A weak type would become a strong one in the first step, and the program would be
    compiled twice.
    """
    return jax.tree.map(lambda leaf: lax.convert_element_type(leaf, leaf.dtype), state)


def mean_over_epoch(
    epoch_metrics: Metrics, metrics: Metrics, position: jax.Array
) -> Metrics:
    """Add one step's metrics to the means of its epoch.

    Args:
      epoch_metrics: means over the steps before, and others that stay as they are.
      metrics: of this step.
      position: number of this step within the epoch; 0 begins anew.

    Returns:
      The new means, of the structure of `epoch_metrics`.
    """
    return epoch_metrics | {
        name: jnp.where(
            position == 0,
            value,
            epoch_metrics[name]
            + (value - epoch_metrics[name]) / (position + 1).astype(value.dtype),
        )
        for name, value in metrics.items()
    }


def mean_of_finite(
    epoch_metrics: Metrics, metrics: Metrics, position: jax.Array, prefix: str
) -> Metrics:
    """Add the metrics of several architectures to the means of their epoch.

    An architecture whose loss is not finite is left out of the means and counted: it
    may overflow by its own fault, where the weights serve the others well.

    Args:
      epoch_metrics: as for `mean_over_epoch`; the means are NaN while there is no
        finite loss.
      metrics: `loss` and others, `[num]`.
      position: number of this step within the epoch; 0 begins anew.
      prefix: of the names of the means and of their `num_not_finite`.

    Returns:
      The new means, of the structure of `epoch_metrics`.
    """
    is_finite = jnp.isfinite(metrics["loss"])
    dtype = metrics["loss"].dtype
    begins, num = position == 0, is_finite.shape[0]
    new = is_finite.sum().astype(dtype)
    before = epoch_metrics[f"{prefix}num_not_finite"]
    num_not_finite = jnp.where(begins, 0, before) + num - new
    total = (num * (position + 1)).astype(dtype) - num_not_finite

    def mean(values: jax.Array, before: jax.Array) -> jax.Array:
        before = jnp.where(begins | ~jnp.isfinite(before), 0, before)
        added = jnp.where(is_finite, values, before)
        mean = before + (added - before).sum() / jnp.maximum(total, 1)
        return jnp.where(total > 0, mean, jnp.nan)

    return epoch_metrics | {
        f"{prefix}num_not_finite": num_not_finite,
        **{
            prefix + name: mean(values, epoch_metrics[prefix + name])
            for name, values in metrics.items()
        },
    }
