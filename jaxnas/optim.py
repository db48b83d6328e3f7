"""Optimisers of the papers, as optax chains."""

import jax.numpy as jnp
import optax


def cosine_by_epoch(
    peak: float, num_epochs: int, steps_per_epoch: int
) -> optax.Schedule:
    """Cosine from `peak` towards 0, constant within an epoch.

    Epoch `e` (from 0) uses `peak / 2 * (1 + cos(pi * e / num_epochs))`, so that the
    last epoch is small but not 0, as in the official codes of DARTS and ASNG-NAS.

    Args:
      peak: learning rate of the first epoch.
      num_epochs: length of the schedule.
      steps_per_epoch: optimiser steps in one epoch.

    Returns:
      A schedule over optimiser steps.
    """
    cosine = optax.cosine_decay_schedule(peak, num_epochs)
    return lambda step: cosine(jnp.asarray(step) // steps_per_epoch)


def warm_restarts(
    peak: float, low: float, first_period: int, factor: int, num_steps: int
) -> optax.Schedule:
    """Cosine from `peak` to `low`, restarted with periods that grow by `factor`.

    Loshchilov and Hutter 2017 (SGDR); ENAS uses peak 0.05, low 0.001, a first period
    of 10 epochs and factor 2.

    Args:
      peak: learning rate after each restart.
      low: learning rate at the end of each period.
      first_period: length of the first period, in steps.
      factor: ratio of the lengths of one period and the one before.
      num_steps: length of the schedule; the last period may be cut short.

    Returns:
      A schedule over optimiser steps.

    Raises:
      ValueError: if `first_period` or `factor` is below 1.
    """
    if first_period < 1 or factor < 1:
        raise ValueError(
            f"first_period is {first_period} and factor is {factor}; expected at "
            "least 1"
        )
    periods, end = [], 0
    while end < max(num_steps, 1):
        length = first_period * factor ** len(periods)
        periods.append(
            {
                "init_value": peak,
                "peak_value": peak,
                "warmup_steps": 0,
                "decay_steps": length,
                "end_value": low,
            }
        )
        end += length
    return optax.sgdr_schedule(periods)


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 3e-4,
    clip_norm: float = 5.0,
) -> optax.GradientTransformation:
    """Clip by global norm, add weight decay, then SGD with momentum.

    In this order, weight decay is not clipped, and it acts on every leaf, whether or
    not the sampled architecture used it. The defaults, with `cosine_by_epoch`, are
    DARTS's and ASNG-NAS's; ENAS uses Nesterov momentum with `warm_restarts` and
    weight decay 1e-4.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.add_decayed_weights(weight_decay),
        optax.sgd(learning_rate, momentum, nesterov),
    )


def adam(
    learning_rate: optax.ScalarOrSchedule, *, clip_norm: float | None = None
) -> optax.GradientTransformation:
    """Adam, optionally after clipping by global norm."""
    transform = optax.adam(learning_rate)
    if clip_norm is None:
        return transform
    return optax.chain(optax.clip_by_global_norm(clip_norm), transform)
