"""One architecture trained by itself, by a program that serves all architectures."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxnas import parallel, weights
from jaxnas.data import Split
from jaxnas.train import batches, steps
from jaxnas.train.batches import Preprocess
from jaxnas.types import Arch, Device, Key, Supernet, Task, Weights


class Snapshot(NamedTuple):
    """Weights on the way.

    Attributes:
      step: optimiser steps so far.
      seconds: time they have taken, without compilation.
      weights: of the supernet; only what the architecture uses has been trained.
    """

    step: int
    seconds: float
    weights: Weights


def fitter(
    net: Supernet,
    task: Task,
    optimizer: optax.GradientTransformation,
    train: Split,
    *,
    at_steps: Sequence[int],
    batch_size: int,
    augment: Preprocess,
    devices: Sequence[Device] | None = None,
) -> Callable[..., Iterator[Snapshot]]:
    """Make the training of single architectures.

    An architecture is trained within the supernet, with weights of its own: nothing is
    shared. Since architectures are data, the program is compiled once for all of them,
    where `retrain` would compile a network for each. Normalisation takes batch
    statistics, in evaluation too.

    Args:
      net: the supernet.
      task: the loss.
      optimizer: an optax transformation.
      train: training images (uint8).
      at_steps: when to hand out the weights: ascending numbers of steps, at least 1.
        Training ends with the last.
      batch_size: images in a batch, over all devices; each epoch is shuffled anew.
      augment: `(key, uint8 images) -> float images`.
      devices: where to run; the first device if `None`.

    Returns:
      `(arch, key, initial=None) -> snapshots`; training begins with the `initial`
      weights, such as a hypernetwork writes, or with random ones. The key determines
      all that is random. Each snapshot is computed, in one compiled call, when it is
      asked for. A diverged training is not an error: it shows in the evaluation.

    Raises:
      ValueError: if there are fewer images than a batch, a batch cannot be shared out,
        or the steps are not ascending numbers from 1.
    """
    num_images = train.labels.shape[0]
    if num_images < batch_size:
        raise ValueError(
            f"batch_size is {batch_size}, but there are only {num_images} images"
        )
    ends = list(at_steps)
    if not ends or any(b <= a for a, b in itertools.pairwise([0, *ends])):
        raise ValueError(
            f"at_steps is {ends}; expected ascending numbers of steps, at least 1"
        )
    devices = [jax.local_devices()[0]] if devices is None else list(devices)
    num_devices = len(devices)
    parallel.share(batch_size, num_devices, "batch_size")
    batch_axis = parallel.batch_axis(devices)
    steps_per_epoch = num_images // batch_size
    provider = weights.shared(net)
    weight_step = steps.weight_step(
        net, provider, task, optimizer, batch_axis=batch_axis
    )

    def begin(params: Weights) -> steps.WeightState:
        state = steps.WeightState(params, optimizer.init(params))
        # A weak type would become a strong one in the first call of `advance`, which
        # would be compiled twice.
        return jax.tree.map(lambda x: lax.convert_element_type(x, x.dtype), state)

    def advance(
        state: steps.WeightState,
        arch: Arch,
        key: Key,
        split: Split,
        start: jax.Array,
        end: jax.Array,
    ) -> steps.WeightState:
        batch_key, step_key = jax.random.split(key)

        def one_step(step, carry):
            state, order = carry
            epoch, position = step // steps_per_epoch, step % steps_per_epoch
            order = batches.update_order(order, batch_key, epoch)
            batch = batches.shuffled(
                batch_key, split, order, position, batch_size, augment
            )
            batch = batches.share(batch, batch_axis, num_devices)
            key = jax.random.fold_in(step_key, step)
            return weight_step(state, arch[None], batch, key)[0], order

        order = batches.no_order(num_images)
        return lax.fori_loop(start, end, one_step, (state, order))[0]

    init, begin = jax.jit(net.init), jax.jit(begin)
    advance = parallel.replicated(advance, devices)
    device_split = parallel.place(train, devices)

    def fit(arch: Arch, key: Key, initial: Weights | None = None) -> Iterator[Snapshot]:
        init_key, run_key = jax.random.split(key)
        initial = init(init_key) if initial is None else initial
        state = parallel.place(begin(initial), devices)
        arch, run_key = parallel.place((jnp.asarray(arch), run_key), devices)

        def until(end: int) -> steps.WeightState:
            new = advance(
                state, arch, run_key, device_split, jnp.int32(start), jnp.int32(end)
            )
            return jax.block_until_ready(new)

        start, seconds = 0, 0.0
        state = until(0)  # compiles before time is measured
        for end in ends:
            before = time.monotonic()
            state = until(end)
            start, seconds = end, seconds + time.monotonic() - before
            yield Snapshot(end, seconds, state.params)

    return fit
