"""Pure steps of a one-shot search, generic over networks, providers and tasks.

The same step runs under `jit` and under `pmap`. With several devices the work is
shared along one of two axes: `batch_axis`, where each device holds a share of the batch
and all devices run the same architectures (normalization then takes the statistics of
the whole batch), or `arch_axis`, where each device runs architectures of its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxnas._checks import check_sizes
from jaxnas.train.precision import Precision, check_precision, narrowed, widened
from jaxnas.types import (
    Arch,
    Batch,
    Key,
    Metrics,
    Params,
    Supernet,
    Task,
    WeightProvider,
)


class WeightState(NamedTuple):
    """State of the weights.

    Attributes:
      params: the provider's parameters.
      opt_state: the optimizer's state.
    """

    params: Params
    opt_state: optax.OptState


def init_weights(
    provider: WeightProvider, optimizer: optax.GradientTransformation, key: Key
) -> WeightState:
    """Fresh parameters and optimizer state."""
    params = provider.init(key)
    return WeightState(params, optimizer.init(params))


def _mean_over(tree, *axes: str | None):
    for axis in axes:
        if axis is not None:
            tree = lax.pmean(tree, axis)
    return tree


def num_at_once(num: int, archs_at_once: int) -> int:
    """Architectures that run at the same time; `ValueError` if some are left over."""
    size = min(num, archs_at_once)
    if num % size:
        raise ValueError(
            f"archs_at_once is {archs_at_once}, which does not divide "
            f"{num} architectures"
        )
    return size


def weight_gradient(
    net: Supernet,
    provider: WeightProvider,
    task: Task,
    *,
    batch_axis: str | None = None,
    arch_axis: str | None = None,
    archs_at_once: int = 1,
    precision: Precision = "float32",
) -> Callable[[Params, Arch, Batch, Key], tuple[Params, Metrics]]:
    """Make the gradient of the loss, averaged over architectures.

    Args:
      net: the supernet.
      provider: where its weights come from.
      task: what it is trained for.
      batch_axis: mapped axis over which the batch is sharded, if any.
      arch_axis: mapped axis over which the architectures are sharded, if any.
      archs_at_once: architectures that run at the same time, if there are more. It is
        of use to supernets that run several in one kernel, and takes their memory.
      precision: what the network computes in; parameters, their gradients, statistics
        and losses stay in float32.

    Returns:
      `(params, archs, batch, key) -> (gradient, metrics)` for archs
      `[num, num_decisions]`; both results are means over the architectures and over
      the devices. It raises `ValueError` if `archs_at_once` does not divide a larger
      `num`.
    """
    check_sizes(archs_at_once=archs_at_once)
    check_precision(precision)

    def loss(params, arch, batch, key):
        weights = provider.apply(params, arch)
        weights, inputs = narrowed((weights, batch["image"]), precision)
        outputs = net.apply(
            weights, arch, inputs, train=True, key=key, batch_axis=batch_axis
        )
        return task.loss(widened(outputs, precision), batch)

    def mean_loss(params, archs, batch, keys):
        if archs.shape[0] == 1:
            return loss(params, archs[0], batch, keys[0])
        losses, metrics = jax.vmap(loss, (None, 0, None, 0))(params, archs, batch, keys)
        return losses.mean(), jax.tree.map(lambda values: values.mean(0), metrics)

    gradient_of_some = jax.grad(mean_loss, has_aux=True)

    def split(key, num):
        """Keys of this device's architectures, the same on any number of devices."""
        if arch_axis is None:
            return jax.random.split(key, num) if num > 1 else key[None]
        keys = jax.random.split(key, num * lax.axis_size(arch_axis))
        return keys.reshape(-1, num)[lax.axis_index(arch_axis)]

    def gradient(params, archs, batch, key):
        size = num_at_once(archs.shape[0], archs_at_once)
        keys, num = split(key, archs.shape[0]), archs.shape[0] // size
        if num == 1:
            means = gradient_of_some(params, archs, batch, keys)
            return _mean_over(means, batch_axis, arch_axis)
        parts = archs.reshape(num, size, -1), keys.reshape(num, size)

        def add_some(total, part):
            some = gradient_of_some(params, part[0], batch, part[1])
            return jax.tree.map(jnp.add, total, some), None

        first, first_keys = jax.tree.map(lambda leaf: leaf[0], parts)
        shapes = jax.eval_shape(gradient_of_some, params, first, batch, first_keys)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        sums, _ = lax.scan(add_some, zeros, parts)
        means = jax.tree.map(lambda total: total / num, sums)
        return _mean_over(means, batch_axis, arch_axis)

    return gradient


def weight_step(
    net: Supernet,
    provider: WeightProvider,
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    batch_axis: str | None = None,
    arch_axis: str | None = None,
    archs_at_once: int = 1,
    precision: Precision = "float32",
) -> Callable[[WeightState, Arch, Batch, Key], tuple[WeightState, Metrics]]:
    """Make one optimizer step on the weights.

    Args:
      net: the supernet.
      provider: where its weights come from.
      task: what it is trained for.
      optimizer: an optax transformation.
      batch_axis: mapped axis over which the batch is sharded, if any.
      arch_axis: mapped axis over which the architectures are sharded, if any.
      archs_at_once: as for `weight_gradient`.
      precision: as for `weight_gradient`.

    Returns:
      `(state, archs, batch, key) -> (state, metrics)`; see `weight_gradient`.
    """
    gradient = weight_gradient(
        net,
        provider,
        task,
        batch_axis=batch_axis,
        arch_axis=arch_axis,
        archs_at_once=archs_at_once,
        precision=precision,
    )

    def step(state, archs, batch, key):
        grads, metrics = gradient(state.params, archs, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return WeightState(
            optax.apply_updates(state.params, updates), opt_state
        ), metrics

    return step


def evaluation_step(
    net: Supernet,
    provider: WeightProvider,
    task: Task,
    *,
    batch_axis: str | None = None,
    archs_at_once: int = 1,
    precision: Precision = "float32",
) -> Callable[[Params, Arch, Batch], Metrics]:
    """Make the evaluation of several architectures on one batch.

    Args:
      net: the supernet.
      provider: where its weights come from.
      task: what it is evaluated for.
      batch_axis: mapped axis over which the batch is sharded, if any.
      archs_at_once: as for `weight_gradient`.
      precision: as for `weight_gradient`.

    Returns:
      `(params, archs, batch) -> metrics`, each metric of shape `[num]`, means over the
      batch and the devices. It raises `ValueError` as the former does.
    """
    check_sizes(archs_at_once=archs_at_once)
    check_precision(precision)

    def step(params, archs, batch):
        def evaluate(arch):
            weights = provider.apply(params, arch)
            weights, inputs = narrowed((weights, batch["image"]), precision)
            outputs = net.apply(
                weights, arch, inputs, train=False, batch_axis=batch_axis
            )
            return task.loss(widened(outputs, precision), batch)[1]

        size = num_at_once(archs.shape[0], archs_at_once)
        metrics = lax.map(evaluate, archs, batch_size=None if size == 1 else size)
        if batch_axis is None:
            return metrics
        # Shares may count unequally: padding has weight 0.
        weight = batch.get("weight", jnp.ones_like(batch["image"][:, 0, 0, 0])).sum()
        total = lax.psum(weight, batch_axis)
        return jax.tree.map(lambda m: lax.psum(m * weight, batch_axis) / total, metrics)

    return step
