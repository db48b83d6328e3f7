"""Stand-alone training of one architecture, by a program that serves all of them."""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxnas import parallel, weights
from jaxnas.data import Split
from jaxnas.train import batches, loop, steps
from jaxnas.train.batches import Preprocess
from jaxnas.types import Arch, Device, Key, Metrics, Supernet, Task, Weights


class FitState(NamedTuple):
    """Everything the training of one architecture has learned, and where it is.

    Attributes:
      step: int32 scalar, optimizer steps done.
      key: the run's PRNG key; every step folds its number into it.
      weights: weights and optimizer state.
      epoch_metrics: mean loss over the steps of the current epoch.
    """

    step: jax.Array
    key: Key
    weights: steps.WeightState
    epoch_metrics: Metrics


class Snapshot(NamedTuple):
    """Weights on the way.

    Attributes:
      step: optimizer steps so far.
      seconds: time they have taken, without compilation; `None` for a training with a
        folder, which may have been interrupted.
      weights: of the supernet; only what the architecture uses has been trained.
    """

    step: int
    seconds: float | None
    weights: Weights


def make_standalone_train_fn(
    net: Supernet,
    task: Task,
    optimizer: optax.GradientTransformation,
    train: Split,
    *,
    snapshot_steps: Sequence[int],
    batch_size: int,
    augment: Preprocess,
    devices: Sequence[Device] | None = None,
) -> Callable[..., Iterator[Snapshot]]:
    """Make the training of single architectures.

    An architecture is trained within the supernet, with weights of its own: nothing is
    shared. Since architectures are data, the program is compiled once for all of them,
    where `train_from_scratch` would compile a network for each. Normalization takes
    batch statistics, in evaluation too.

    Args:
      net: the supernet.
      task: the loss.
      optimizer: an optax transformation.
      train: training images (uint8).
      snapshot_steps: when to hand out the weights: ascending numbers of steps, at
        least 1. Training ends with the last.
      batch_size: images in a batch, over all devices; each epoch is shuffled anew.
      augment: `(key, uint8 images) -> float images`.
      devices: where to run; the first device if `None`.

    Returns:
      `(arch, key, initial=None, *, workdir=None, description="fit") -> snapshots`;
      training begins with the `initial` weights, such as a hypernetwork predicts, or
      with random ones. The key determines all that is random. Each snapshot is
      computed, in one compiled call, when it is asked for. With a `workdir`, training
      shows its progress, logs and saves there, and an interrupted one continues as
      `jaxnas.train.search` does; the weights on the way are not kept, so that
      `snapshot_steps` must have one entry. A diverged training is not an error: it
      shows in the evaluation.

    Raises:
      ValueError: if there are fewer images than a batch, a batch cannot be shared out,
        or the steps are not ascending numbers from 1; when training, if a folder is
        given for more than one snapshot.
      Interrupted: after a signal, with a folder; the state has been saved.
    """
    num_images = train.labels.shape[0]
    if num_images < batch_size:
        raise ValueError(
            f"batch_size is {batch_size}, but there are only {num_images} images"
        )
    ends = list(snapshot_steps)
    if not ends or any(b <= a for a, b in itertools.pairwise([0, *ends])):
        raise ValueError(
            f"snapshot_steps is {ends}; expected ascending numbers of steps, at least 1"
        )
    devices = [jax.local_devices()[0]] if devices is None else list(devices)
    num_devices = len(devices)
    parallel.per_device_size(batch_size, num_devices, "batch_size")
    batch_axis = parallel.batch_axis(devices)
    steps_per_epoch = num_images // batch_size
    provider = weights.shared(net)
    weight_step = steps.weight_step(
        net, provider, task, optimizer, batch_axis=batch_axis
    )

    def begin(params: Weights, key: Key) -> FitState:
        state = FitState(
            jnp.int32(0),
            key,
            steps.WeightState(params, optimizer.init(params)),
            {"train/loss": jnp.zeros((), jnp.float32)},
        )
        # A weak type would become a strong one in the first call of `advance`, which
        # would be compiled twice.
        return jax.tree.map(lambda x: lax.convert_element_type(x, x.dtype), state)

    def advance(
        state: FitState, arch: Arch, split: Split, num_steps: jax.Array
    ) -> FitState:
        batch_key, step_key = jax.random.split(state.key)

        def one_step(_, carry):
            state, order = carry
            epoch = state.step // steps_per_epoch
            position = state.step % steps_per_epoch
            order = batches.update_order(order, batch_key, epoch)
            batch = batches.shuffled(
                batch_key, split, order, position, batch_size, augment
            )
            batch = batches.local_batch(batch, batch_axis, num_devices)
            key = jax.random.fold_in(step_key, state.step)
            new, metrics = weight_step(state.weights, arch[None], batch, key)
            loss = {"train/loss": metrics["loss"].astype(jnp.float32)}
            means = loop.mean_over_epoch(state.epoch_metrics, loss, position)
            return FitState(state.step + 1, state.key, new, means), order

        order = batches.no_order(num_images)
        return lax.fori_loop(0, num_steps, one_step, (state, order))[0]

    init, begin = jax.jit(net.init), jax.jit(begin)
    advance = parallel.replicated(advance, devices)
    device_split = parallel.device_put(train, devices)

    def fit(
        arch: Arch,
        key: Key,
        initial: Weights | None = None,
        *,
        workdir: str | os.PathLike[str] | None = None,
        description: str = "fit",
    ) -> Iterator[Snapshot]:
        if workdir is not None and len(ends) > 1:
            raise ValueError(
                f"snapshot_steps is {ends}; expected one number of steps for a "
                "training with a folder"
            )
        init_key, run_key = jax.random.split(key)
        initial = init(init_key) if initial is None else initial
        state = parallel.device_put(begin(initial, run_key), devices)
        arch = parallel.device_put(jnp.asarray(arch), devices)

        def advance_by(state: FitState, num_steps: int) -> FitState:
            return advance(state, arch, device_split, jnp.int32(num_steps))

        if workdir is not None:
            state = loop.run(
                advance_by,
                state,
                num_steps=ends[-1],
                steps_per_epoch=steps_per_epoch,
                images_per_step=lambda step: batch_size,
                end_epoch=lambda state: {},
                description=description,
                workdir=workdir,
                may_diverge=True,
            )
            yield Snapshot(ends[-1], None, state.weights.params)
            return
        seconds = 0.0
        state = advance_by(state, 0)  # compiles before time is measured
        for start, end in itertools.pairwise([0, *ends]):
            before = time.monotonic()
            state = jax.block_until_ready(advance_by(state, end - start))
            seconds += time.monotonic() - before
            yield Snapshot(end, seconds, state.weights.params)

    return fit
