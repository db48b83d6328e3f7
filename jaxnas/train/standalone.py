"""Stand-alone training of architectures by one program that serves all of them."""

import hashlib
import itertools
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas import metrics, parallel, weights
from jaxnas._checks import check_sizes
from jaxnas.data import Split
from jaxnas.train import batches, epochs, loop, steps
from jaxnas.train.batches import InputPipeline
from jaxnas.train.evaluation import make_eval_fn
from jaxnas.types import Arch, Key, Metrics, Supernet, Task, Weights


class StandaloneState(NamedTuple):
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
    """Weights after some steps of a training.

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
    pipeline: InputPipeline,
    *,
    snapshot_steps: Sequence[int],
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
      train: training images (uint8); each epoch is shuffled anew.
      pipeline: preprocessing, batches and devices.
      snapshot_steps: when to hand out the weights: ascending numbers of steps, at
        least 1. Training ends with the last.

    Returns:
      `(arch, key, initial=None, *, workdir=None, description="train") -> snapshots`;
      training begins with the `initial` weights, such as a hypernetwork predicts, or
      with random ones. The key determines all that is random. Each snapshot is
      computed, in one compiled call, when it is asked for. With a `workdir`, training
      shows its progress, logs and saves there, and an interrupted one continues as
      `jaxnas.train.search` does; the weights of earlier steps are not kept, so that
      `snapshot_steps` must have one entry. A diverged training is not an error: it
      shows in the evaluation.

    Raises:
      ValueError: if there are fewer images than a batch, the devices cannot share a
        batch, or the steps are not ascending numbers from 1; when training, if a folder
        is given for more than one snapshot.
      Interrupted: after a signal, with a folder; the state has been saved.
    """
    batch_size, devices = pipeline.batch_size, pipeline.on_devices()
    steps_per_epoch = pipeline.steps_per_epoch(train)
    ends = list(snapshot_steps)
    if not ends or any(b <= a for a, b in itertools.pairwise([0, *ends])):
        raise ValueError(
            f"snapshot_steps is {ends}; expected ascending numbers of steps, at least 1"
        )
    num_devices, batch_axis = len(devices), parallel.batch_axis(devices)
    provider = weights.shared(net)
    weight_step = steps.weight_step(
        net, provider, task, optimizer, batch_axis=batch_axis
    )

    def begin(params: Weights, key: Key) -> StandaloneState:
        state = StandaloneState(
            jnp.int32(0),
            key,
            steps.WeightState(params, optimizer.init(params)),
            {"train/loss": jnp.zeros((), jnp.float32)},
        )
        return epochs.strongly_typed(state)

    def step(
        state: StandaloneState, order: batches.EpochOrder, arch: Arch, split: Split
    ) -> tuple[StandaloneState, batches.EpochOrder]:
        batch_key, step_key = jax.random.split(state.key)
        position = state.step % steps_per_epoch
        order, batch = batches.next_batch(
            order,
            batch_key,
            split,
            state.step // steps_per_epoch,
            position,
            batch_size,
            pipeline.augment,
            task,
            batch_axis=batch_axis,
            num_devices=num_devices,
        )
        key = jax.random.fold_in(step_key, state.step)
        new, metrics = weight_step(state.weights, arch[None], batch, key)
        loss = {"train/loss": metrics["loss"].astype(jnp.float32)}
        means = epochs.mean_over_epoch(state.epoch_metrics, loss, position)
        return state._replace(weights=new, epoch_metrics=means), order

    advance = parallel.replicated(
        epochs.repeat(step, lambda arch, split: batches.no_order(split.num_images)),
        devices,
    )
    init, begin = jax.jit(net.init), jax.jit(begin)
    device_split = parallel.device_put(train, devices)

    def run(
        arch: Arch,
        key: Key,
        initial: Weights | None = None,
        *,
        workdir: str | os.PathLike[str] | None = None,
        description: str = "train",
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

        def advance_by(state: StandaloneState, num_steps: int) -> StandaloneState:
            return advance(state, arch, device_split, jnp.int32(num_steps))

        if workdir is not None:
            state = loop.run(
                advance_by,
                state,
                num_steps=ends[-1],
                steps_per_epoch=steps_per_epoch,
                items_per_step=lambda step: batch_size,
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

    return run


def train_standalone(
    net: Supernet,
    task: Task,
    optimizer: optax.GradientTransformation,
    train: Split,
    test: Split,
    archs: Sequence[Arch],
    pipeline: InputPipeline,
    *,
    key: Key,
    num_seeds: int,
    num_steps: int,
    workdir: str | os.PathLike[str] | None = None,
) -> list[list[dict[str, float]]]:
    """Train architectures from scratch, within the supernet, and evaluate them.

    Nothing is shared but the program, which is compiled once for all of them: see
    `make_standalone_train_fn`. Trainings of one seed have the same initial weights (of
    equal operations) and the same batches, whatever else is trained, so that
    differences between architectures are not those of luck.

    Args:
      net: the supernet.
      task: the loss.
      optimizer: an optax transformation.
      train: training images (uint8).
      test: images that the trained architectures are evaluated on.
      archs: int32 vectors `[num_decisions]`.
      pipeline: preprocessing, batches and devices.
      key: determines everything random, together with the number of the seed.
      num_seeds: trainings of each architecture.
      num_steps: optimizer steps of each training.
      workdir: folder of the results, one log for each seed, keyed by architecture,
        and of the training that is running. An interrupted call continues; more
        architectures or seeds may be added.

    Returns:
      The metrics of `archs[i]` with seed `s`, at `[i][s]`.

    Raises:
      ValueError: if a number is not positive, or as `make_standalone_train_fn` and
        `metrics.measure_missing` do.
      Interrupted: after a signal, with a folder; the state has been saved.
    """
    check_sizes(num_seeds=num_seeds)
    train_fn = make_standalone_train_fn(
        net, task, optimizer, train, pipeline, snapshot_steps=[num_steps]
    )
    evaluate = make_eval_fn(net, weights.shared(net), task, pipeline)
    folder = None if workdir is None else pathlib.Path(workdir)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)

    def folder_of(arch: Any, seed: int) -> pathlib.Path | None:
        digest = hashlib.sha256(np.asarray(arch, np.int32).tobytes()).hexdigest()
        return None if folder is None else folder / f"seed_{seed}_{digest[:16]}"

    def train_one(arch: Any, seed: int) -> dict[str, float]:
        run = folder_of(arch, seed)
        (snapshot,) = train_fn(
            arch, jax.random.fold_in(key, seed), workdir=run, description="from scratch"
        )
        return evaluate(snapshot.weights, arch, test)

    def train_seed(seed: int) -> list[dict[str, float]]:
        lines = metrics.measure_missing(
            None if folder is None else folder / f"seed_{seed}.jsonl",
            archs,
            lambda i: train_one(archs[i], seed),
        )
        for arch in archs:  # what has been logged needs no checkpoints
            finished = folder_of(arch, seed)
            if finished is not None:
                shutil.rmtree(finished, ignore_errors=True)
        return lines

    by_seed = [train_seed(seed) for seed in range(num_seeds)]
    return [list(of_arch) for of_arch in zip(*by_seed, strict=True)]
