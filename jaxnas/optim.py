"""Optimizers of the papers, as optax chains."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from jaxnas._checks import check_sizes


def cosine_by_epoch(
    peak: float, num_epochs: int, steps_per_epoch: int
) -> optax.Schedule:
    """Cosine from `peak` toward 0, constant within an epoch.

    Epoch `e` (from 0) uses `peak / 2 * (1 + cos(pi * e / num_epochs))`, so that the
    last epoch is small but not 0, as in the official codes of DARTS and ASNG-NAS.

    Args:
      peak: learning rate of the first epoch.
      num_epochs: length of the schedule.
      steps_per_epoch: optimizer steps in one epoch.

    Returns:
      A schedule over optimizer steps.

    Raises:
      ValueError: if `steps_per_epoch` is not positive.
    """
    cosine = optax.cosine_decay_schedule(peak, num_epochs)
    return _by_epoch(cosine, steps_per_epoch)


def step_decay(
    peak: float, factor: float, boundaries: Sequence[int], steps_per_epoch: int
) -> optax.Schedule:
    """Constant, but multiplied by `factor` at some epochs.

    Zhang et al. 2019 (Graph HyperNetworks) train the hypernetwork with peak 1e-3,
    halved at epochs 100 and 150, and anytime networks with peak 0.1, divided by 10 at
    epochs 150 and 225.

    Args:
      peak: learning rate of the first epoch.
      factor: what it is multiplied by.
      boundaries: epochs (from 0) that begin with a new learning rate, in order.
      steps_per_epoch: optimizer steps in one epoch.

    Returns:
      A schedule over optimizer steps.

    Raises:
      ValueError: if `factor` or `steps_per_epoch` is not positive, or `boundaries` do
        not increase from above 0.
    """
    _check_factor(factor)
    if any(b <= a for a, b in zip((0, *boundaries), boundaries, strict=False)):
        raise ValueError(
            f"boundaries are {list(boundaries)}; expected increasing epochs above 0"
        )
    scales = dict.fromkeys(boundaries, factor)
    steps = optax.piecewise_constant_schedule(peak, scales)
    return _by_epoch(steps, steps_per_epoch)


def exponential_by_epoch(
    peak: float, factor: float, steps_per_epoch: int, *, first_epoch: int = 0
) -> optax.Schedule:
    """Multiplied by `factor` after every epoch from some epoch on, constant within one.

    Epoch `e` (from 0) uses `peak * factor ** max(e - first_epoch, 0)`. Zhang et al.
    2019 use peak 0.1 and factor 0.97 for ImageNet, Pham et al. 2018 peak 20 and factor
    0.96 from epoch 15 on for language models.

    Args:
      peak: learning rate of the first epoch.
      factor: ratio of the learning rates of one epoch and the one before.
      steps_per_epoch: optimizer steps in one epoch.
      first_epoch: the epoch (from 0) after which the learning rate first changes.

    Returns:
      A schedule over optimizer steps.

    Raises:
      ValueError: if `factor` or `steps_per_epoch` is not positive, or `first_epoch` is
        negative.
    """
    _check_factor(factor)
    if first_epoch < 0:
        raise ValueError(f"first_epoch is {first_epoch}; expected 0 or more")
    decay = optax.exponential_decay(
        peak, transition_steps=1, decay_rate=factor, transition_begin=first_epoch
    )
    return _by_epoch(decay, steps_per_epoch)


def warm_up(
    schedule: optax.Schedule, num_epochs: int, steps_per_epoch: int
) -> optax.Schedule:
    """Rise linearly to the start of a schedule, then follow it from there.

    Step `i` (from 0) of the `n` steps of the warm-up uses `(i + 1) / n` of the
    schedule's first learning rate, so that no step is lost. The warm-up comes on top
    of the schedule's own length. Zhang et al. 2019 warm up for 5 epochs where large
    batches call for large learning rates.

    Args:
      schedule: what follows, over optimizer steps.
      num_epochs: length of the warm-up; without any, the schedule is as it was.
      steps_per_epoch: optimizer steps in one epoch.

    Returns:
      A schedule over optimizer steps.

    Raises:
      ValueError: if `num_epochs` is negative or `steps_per_epoch` not positive.
    """
    check_sizes(steps_per_epoch=steps_per_epoch)
    if num_epochs < 0:
        raise ValueError(f"num_epochs is {num_epochs}; expected 0 or more")
    if num_epochs == 0:
        return schedule
    num_steps = num_epochs * steps_per_epoch
    rise = optax.linear_schedule(0.0, schedule(0), num_steps)
    return optax.join_schedules([lambda step: rise(step + 1), schedule], [num_steps])


def warm_restarts(
    peak: float, low: float, first_period: int, factor: int, num_steps: int
) -> optax.Schedule:
    """Cosine from `peak` to `low`, restarted with periods that grow by `factor`.

    Loshchilov and Hutter 2017 (SGDR). The paper of ENAS has peak 0.05, low 0.001, a
    first period of 10 epochs and factor 2.

    Args:
      peak: learning rate after each restart.
      low: learning rate at the end of each period.
      first_period: length of the first period, in steps.
      factor: ratio of the lengths of one period and the one before.
      num_steps: length of the schedule; the last period may be cut short.

    Returns:
      A schedule over optimizer steps.

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
    restarts = optax.sgdr_schedule(periods)
    return lambda step: restarts(jnp.asarray(step, float))


def warm_restarts_by_epoch(
    peak: float,
    low: float,
    first_period: int,
    factor: int,
    num_epochs: int,
    steps_per_epoch: int,
) -> optax.Schedule:
    """`warm_restarts` with periods in epochs, constant within an epoch.

    As in the official code of ENAS, where the paper cites Loshchilov and Hutter, who
    change the learning rate in every step.

    Args:
      peak: learning rate after each restart.
      low: learning rate that each period approaches.
      first_period: length of the first period, in epochs.
      factor: ratio of the lengths of one period and the one before.
      num_epochs: length of the schedule; the last period may be cut short.
      steps_per_epoch: optimizer steps in one epoch.

    Returns:
      A schedule over optimizer steps.

    Raises:
      ValueError: if `first_period`, `factor` or `steps_per_epoch` is below 1.
    """
    restarts = warm_restarts(peak, low, first_period, factor, num_epochs)
    return _by_epoch(restarts, steps_per_epoch)


def _by_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """Use a schedule over epochs as one over optimizer steps."""
    check_sizes(steps_per_epoch=steps_per_epoch)
    # Strict promotion does not let optax multiply an int32 by Python's floats.
    return lambda step: schedule((jnp.asarray(step) // steps_per_epoch).astype(float))


def _check_factor(factor: float) -> None:
    if not factor > 0:
        raise ValueError(f"factor is {factor}; expected a positive number")


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 3e-4,
    clip_norm: float | None = 5.0,
) -> optax.GradientTransformation:
    """Clip by global norm, add weight decay, then SGD with momentum.

    In this order, weight decay is not clipped, and it acts on every leaf, whether or
    not the sampled architecture used it. The defaults, with `cosine_by_epoch`, are
    DARTS's and ASNG-NAS's. ENAS uses Nesterov momentum with `warm_restarts`, does not
    clip, and has a penalty of `1e-4 * sum(weights ** 2)`, which is weight decay 2e-4.

    Args:
      learning_rate: a number, or a schedule over steps.
      momentum: decay of the sum of gradients; 0 for none, which then is not held.
      nesterov: whether to use Nesterov momentum.
      weight_decay: times the weights, is added to their gradient: the gradient of the
        penalty `weight_decay / 2 * sum(weights ** 2)`.
      clip_norm: largest global norm of the gradient; `None` for no limit.

    Returns:
      An optax transformation.

    Raises:
      ValueError: if `clip_norm` is not positive.
    """
    return _clipped(
        clip_norm,
        optax.add_decayed_weights(weight_decay),
        optax.sgd(learning_rate, momentum or None, nesterov),
    )


def adam(
    learning_rate: optax.ScalarOrSchedule, *, clip_norm: float | None = None
) -> optax.GradientTransformation:
    """Adam, optionally after clipping by global norm.

    Raises:
      ValueError: if `clip_norm` is not positive.
    """
    return _clipped(clip_norm, optax.adam(learning_rate))


def tensorflow_adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam as TensorFlow computes it, for settings that were tuned there.

    Step `t` (from 1) is `learning_rate * sqrt(1 - b2**t) / (1 - b1**t) * m / (sqrt(v) +
    eps)`, with the averages `m` and `v` of the gradient and its square before bias
    correction. `optax.adam` adds `eps` after the correction of `v`, so that its `eps`
    counts less by the factor `sqrt(1 - b2**t)`, 0.03 in the first step. That matters
    where `eps` is not small against gradients: ENAS's scripts have 1e-3.

    Args:
      learning_rate: a number, or a schedule over steps.
      b1: decay of the average of the gradient.
      b2: decay of the average of its square.
      eps: "epsilon hat" of Kingma and Ba.

    Returns:
      An optax transformation, with the state of `optax.adam`.

    Source: Kingma and Ba 2015, end of section 2; `tf.train.AdamOptimizer`.
    """
    return optax.chain(
        _scale_by_tensorflow_adam(b1, b2, eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def _scale_by_tensorflow_adam(
    b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    def init(params: optax.Params) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        step = jnp.asarray(count, float)
        scale = jnp.sqrt(1 - b2**step) / (1 - b1**step)
        updates = jax.tree.map(
            lambda m, v: scale.astype(m.dtype) * m / (jnp.sqrt(v) + eps), mu, nu
        )
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _clipped(
    clip_norm: float | None, *transforms: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Clip by global norm, if there is a limit, then the other transformations."""
    if clip_norm is None:
        return optax.chain(*transforms)
    if not clip_norm > 0:
        raise ValueError(
            f"clip_norm is {clip_norm}; expected a positive number or None"
        )
    return optax.chain(optax.clip_by_global_norm(clip_norm), *transforms)
