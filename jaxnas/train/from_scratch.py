"""Training one fixed network from scratch."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxnas import parallel
from jaxnas.data import Split, Stream, streaming
from jaxnas.train import batches, epochs, loop
from jaxnas.train.batches import InputPipeline, Preprocess
from jaxnas.train.precision import Precision, check_precision, narrowed, widened
from jaxnas.types import Batch, Key, Metrics, Task

Options = Mapping[str, Any]
"""Further named arguments of a network, pytrees of arrays."""


class TrainState(NamedTuple):
    """Everything a training run has learned, and where it is.

    Attributes:
      step: int32 scalar, optimizer steps done.
      key: the run's PRNG key; every step folds its number into it.
      params: parameters.
      batch_stats: running statistics; empty in a network without.
      opt_state: optimizer state.
      epoch_metrics: means over the steps of the current epoch.
    """

    step: jax.Array
    key: Key
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    epoch_metrics: Metrics


def train_step(
    network: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    batch_axis: str | None = None,
    precision: Precision = "float32",
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Make one optimizer step on a network.

    Args:
      network: module called as `network(images, train=)` and, for drop path, with
        `drop_path_prob=`; its PRNG streams are `drop_path` and `dropout`.
      task: the loss.
      optimizer: an optax transformation.
      batch_axis: mapped axis over which the batch is sharded, if any.
      precision: what the network computes in; parameters, their gradients, statistics
        and losses stay in float32.

    Returns:
      `(state, batch, key, drop_path_prob, options=None) -> (state, metrics)`;
      `drop_path_prob` is a scalar, or `None` for a network trained without drop path;
      `options` are further named arguments of the network, arrays. The state's step
      and metrics are left alone.
    """

    def loss(params, batch_stats, batch, key, drop_path_prob, options):
        drop_path_key, dropout_key = jax.random.split(key)
        options = dict(options or {})
        if drop_path_prob is not None:
            options["drop_path_prob"] = drop_path_prob
        params, inputs = narrowed((params, batch["image"]), precision)
        outputs, updated = network.apply(
            {"params": params, "batch_stats": batch_stats},
            inputs,
            train=True,
            rngs={"drop_path": drop_path_key, "dropout": dropout_key},
            mutable=["batch_stats"],
            **options,
        )
        value, metrics = task.loss(widened(outputs, precision), batch)
        return value, (metrics, updated.get("batch_stats", {}))

    def step(state, batch, key, drop_path_prob, options=None):
        if batch_axis is not None:  # devices drop independently
            key = jax.random.fold_in(key, lax.axis_index(batch_axis))
        grads, (metrics, batch_stats) = jax.grad(loss, has_aux=True)(
            state.params, state.batch_stats, batch, key, drop_path_prob, options
        )
        if batch_axis is not None:
            grads, metrics = lax.pmean((grads, metrics), batch_axis)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        state = state._replace(
            params=params, batch_stats=batch_stats, opt_state=opt_state
        )
        return state, metrics

    return step


def network_evaluation_step(network: nn.Module, task: Task) -> Callable[..., Metrics]:
    """Make `(params, batch_stats, batch, options=None) -> metrics`.

    Normalization uses the running statistics; `options` are as for `train_step`.
    """

    def step(params, batch_stats, batch, options=None):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs = network.apply(
            variables, batch["image"], train=False, **(options or {})
        )
        return task.loss(outputs, batch)[1]

    return step


def make_network_eval_fn(
    network: nn.Module, task: Task, *, normalize: Preprocess, batch_size: int
) -> Callable[..., dict[str, float]]:
    """Make the evaluation of a network on all images of a split.

    Normalization uses the running statistics, so that the result does not depend on
    the batches: it is what one gets from one image at a time.

    Args:
      network: see `train_step`.
      task: what it is evaluated for.
      normalize: `(key, uint8 images) -> float images`; its key is constant.
      batch_size: images in a batch.

    Returns:
      `(params, batch_stats, split, options=None) -> metrics`, means over the images,
      floats; `options` are as for `train_step`. It is compiled once for all
      parameters.
    """
    evaluate_prepared = network_evaluation_step(network, task)

    @jax.jit
    def evaluate_batch(
        params: Any, batch_stats: Any, batch: Batch, options: Options
    ) -> Metrics:
        batch = batches.prepared_for_evaluation(batch, normalize, task)
        return evaluate_prepared(params, batch_stats, batch, options)

    def evaluate(
        params: Any,
        batch_stats: Any,
        split: Split | Stream,
        options: Options | None = None,
    ) -> dict[str, float]:
        means = batches.mean_metrics(
            lambda batch: evaluate_batch(
                params, batch_stats, batch, dict(options or {})
            ),
            split,
            batch_size,
        )
        return {name: float(value) for name, value in means.items()}

    return evaluate


class TrainResult(NamedTuple):
    """Result of a training.

    Attributes:
      state: the final state.
      test: metrics of the final network on the test images, empty without them.
    """

    state: TrainState
    test: dict[str, float]


class DropPath(NamedTuple):
    """Dropping of edges in training, with a probability that grows from 0.

    Attributes:
      max_prob: the probability at the end of training; 0 for a network without.
      growth: how it gets there: `"epoch"`, as `max_prob * epoch / num_epochs` with
        epochs from 0 (DARTS, ASNG-NAS); `"step"`, as
        `max_prob * (step + 1) / num_steps` (ENAS).
    """

    max_prob: float = 0.0
    growth: Literal["epoch", "step"] = "epoch"

    def check(self) -> None:
        """Raise `ValueError` if a value is out of range."""
        if not 0 <= self.max_prob < 1:
            raise ValueError(
                f"max_prob of drop_path is {self.max_prob}; expected 0 or more, below 1"
            )
        if self.growth not in ("epoch", "step"):
            raise ValueError(
                f"growth of drop_path is {self.growth!r}; expected 'epoch' or 'step'"
            )

    def prob(
        self, step: jax.Array, steps_per_epoch: int, num_epochs: int
    ) -> jax.Array | None:
        """The probability in a step; `None` for a network without drop path."""
        if self.max_prob == 0:
            return None
        done, total = step // steps_per_epoch, num_epochs
        if self.growth == "step":
            done, total = step + 1, num_epochs * steps_per_epoch
        return self.max_prob * done.astype(jnp.float32) / total


def make_train_fn(
    network: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    train: Split | Stream,
    pipeline: InputPipeline,
    *,
    num_epochs: int,
    test: Split | Stream | None = None,
    drop_path: DropPath | None = None,
    precision: Precision = "float32",
    save_seconds: float = 30.0,
) -> Callable[..., TrainResult]:
    """Make the training of networks from scratch, evaluated after each epoch.

    The last network is the result; no epoch is selected by its test accuracy. The
    programs are compiled once for all runs.

    Args:
      network: see `train_step`; on several devices, made with
        `batch_axis=jaxnas.parallel.BATCH_AXIS`.
      task: the loss.
      optimizer: an optax transformation.
      train: training images (uint8): all of them on the devices, or a stream that is
        read batch by batch.
      pipeline: preprocessing, batches and devices.
      num_epochs: length of the training.
      test: images for the evaluation after each epoch.
      drop_path: dropping of edges, for a network with `drop_path_prob`; none if `None`.
      precision: as for `train_step`. Evaluations are in float32.
      save_seconds: least time between two checkpoints.

    Returns:
      `(key, *, variables=None, options=None, workdir=None, description="train") ->
      result`. The key determines everything random; `variables` are the `params` and
      `batch_stats` to begin with, if not random ones; `options` are further named
      arguments of the network, arrays, such as the `sources` of `networks.micro`;
      `workdir` is the folder of the run, see `jaxnas.train.search`, and `description`
      a few words for the progress line. It raises `Diverged` if the loss stops being
      finite, and `Interrupted` after a signal, when the state has been saved.

    Raises:
      ValueError: if there are fewer images than a batch, the devices cannot share a
        batch, `drop_path` is out of range, or `precision` is unknown.
    """
    check_precision(precision)
    drop_path = DropPath() if drop_path is None else drop_path
    drop_path.check()
    batch_size, devices = pipeline.batch_size, pipeline.on_devices()
    steps_per_epoch = pipeline.steps_per_epoch(train)
    parts = _TrainingParts(
        network,
        task,
        optimizer,
        train,
        pipeline,
        steps_per_epoch,
        num_epochs,
        drop_path,
        precision,
    )
    # It has running statistics, so that shares need not know of each other.
    evaluate_on = make_network_eval_fn(
        network, task, normalize=pipeline.normalize, batch_size=batch_size
    )
    init = jax.jit(parts.init)
    advance = parallel.replicated(
        epochs.repeat(parts.step(), parts.begin), devices, donate_argnums=0
    )
    split: Any = (
        None if isinstance(train, Stream) else parallel.device_put(train, devices)
    )

    def run(
        key: Key,
        *,
        variables: Mapping[str, Any] | None = None,
        options: Options | None = None,
        workdir: str | os.PathLike[str] | None = None,
        description: str = "train",
    ) -> TrainResult:
        placed = parallel.device_put(dict(options or {}), devices)

        def evaluate(state: TrainState) -> dict[str, float]:
            if test is None:
                return {}
            return evaluate_on(state.params, state.batch_stats, test, placed)

        newest: dict[str, float] | None = None

        def end_epoch(state: TrainState) -> dict[str, float]:
            nonlocal newest
            newest = evaluate(state)
            return {f"test/{name}": value for name, value in newest.items()}

        def advance_on(state: TrainState, images: Split, num_steps: int) -> TrainState:
            return advance(state, images, placed, jnp.int32(num_steps))

        if isinstance(train, Stream):
            feed = _advance_on_stream(advance_on, train, batch_size)
        else:
            feed = contextlib.nullcontext(
                (lambda state, num_steps: advance_on(state, split, num_steps), None)
            )
        with feed as (advance_by, seconds_waited):
            state = loop.run(
                advance_by,
                parallel.device_put(init(key, variables, placed), devices),
                num_epochs=num_epochs,
                steps_per_epoch=steps_per_epoch,
                items_per_step=lambda step: batch_size,
                end_epoch=end_epoch,
                description=description,
                workdir=workdir,
                save_seconds=save_seconds,
                seconds_waited=seconds_waited,
            )
        # A finished run that is started again has not ended an epoch.
        return TrainResult(state, evaluate(state) if newest is None else newest)

    return run


class _TrainingParts(NamedTuple):
    """Parts of the training of a network; see `make_train_fn`."""

    network: nn.Module
    task: Task
    optimizer: optax.GradientTransformation
    train: Split | Stream
    pipeline: InputPipeline
    steps_per_epoch: int
    num_epochs: int
    drop_path: DropPath
    precision: Precision

    def init(self, key: Key, initial: Any, options: Options) -> TrainState:
        run_key, params_key = jax.random.split(key)
        batch = {
            "image": jnp.zeros((1, *self.train.image_shape), jnp.uint8),
            "label": jnp.zeros(1, jnp.int32),
        }
        batch = batches.prepared(key, batch, self.pipeline.normalize, self.task)
        images = batch["image"]
        if initial is None:
            variables = self.network.init(params_key, images, train=True, **options)
        else:  # a copy, for the state is overwritten in place
            variables = jax.tree.map(lambda x: jnp.array(x, x.dtype), dict(initial))
        # In training the statistics would need the devices' axis.
        outputs = jax.eval_shape(
            lambda: self.network.apply(variables, images, train=False, **options)
        )
        _, shapes = jax.eval_shape(self.task.loss, outputs, batch)
        return TrainState(
            jnp.int32(0),
            run_key,
            variables["params"],
            variables.get("batch_stats", {}),
            self.optimizer.init(variables["params"]),
            {
                f"train/{name}": jnp.zeros(s.shape, s.dtype)
                for name, s in shapes.items()
            },
        )

    def begin(self, images: Split, options: Options) -> batches.EpochOrder | None:
        """The order of the images before the first step; streams have their own."""
        del options
        if isinstance(self.train, Stream):
            return None
        return batches.no_order(images.num_images)

    def step(self) -> Callable[..., tuple[TrainState, batches.EpochOrder | None]]:
        """Make a step on a batch of all images, or on a batch of a stream."""
        devices = self.pipeline.on_devices()
        num_devices, batch_axis = len(devices), parallel.batch_axis(devices)
        step_on_batch = train_step(
            self.network,
            self.task,
            self.optimizer,
            batch_axis=batch_axis,
            precision=self.precision,
        )

        def step(
            state: TrainState,
            order: batches.EpochOrder | None,
            images: Split,
            options: Options,
        ) -> tuple[TrainState, batches.EpochOrder | None]:
            position = state.step % self.steps_per_epoch
            batch_key, network_key = jax.random.split(state.key)
            if order is None:
                image_key = jax.random.fold_in(batch_key, state.step)
                batch = {"image": jnp.asarray(images.images), "label": images.labels}
                batch = batches.prepared(
                    image_key, batch, self.pipeline.augment, self.task
                )
                batch = batches.local_batch(batch, batch_axis, num_devices)
            else:
                order, batch = batches.next_batch(
                    order,
                    batch_key,
                    images,
                    state.step // self.steps_per_epoch,
                    position,
                    self.pipeline.batch_size,
                    self.pipeline.augment,
                    self.task,
                    batch_axis=batch_axis,
                    num_devices=num_devices,
                )
            prob = self.drop_path.prob(
                state.step, self.steps_per_epoch, self.num_epochs
            )
            key = jax.random.fold_in(network_key, state.step)
            new, metrics = step_on_batch(state, batch, key, prob, options)
            metrics = {f"train/{name}": value for name, value in metrics.items()}
            means = epochs.mean_over_epoch(state.epoch_metrics, metrics, position)
            return new._replace(epoch_metrics=means), order

        return step


def train_from_scratch(
    network: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    train: Split | Stream,
    pipeline: InputPipeline,
    *,
    key: Key,
    variables: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    description: str = "train",
    **settings: Any,
) -> TrainResult:
    """Train one network from scratch, evaluating it after each epoch.

    Args:
      network: as for `make_train_fn`, like all that is not named here.
      task: the loss.
      optimizer: an optax transformation.
      train: training images.
      pipeline: preprocessing, batches and devices.
      key: determines everything random.
      variables: `params` and `batch_stats` to begin with; random ones if `None`.
      workdir: folder of the run; see `jaxnas.train.search`.
      description: one word for the progress line.
      **settings: the other arguments of `make_train_fn`.

    Returns:
      The final state and its test metrics.

    Raises:
      ValueError: as `make_train_fn` does.
      Diverged: if the loss stops being finite.
      Interrupted: after a signal; the state has been saved.
    """
    run = make_train_fn(network, task, optimizer, train, pipeline, **settings)
    return run(key, variables=variables, workdir=workdir, description=description)


@contextlib.contextmanager
def _advance_on_stream(
    advance: Callable[[TrainState, Split, int], TrainState],
    stream: Stream,
    batch_size: int,
) -> Iterator[
    tuple[Callable[[TrainState, int], TrainState], Callable[[], float] | None]
]:
    """Read batch by batch, from where the first state is, until the block is left.

    Yields what advances a state by a number of steps, and what tells the seconds in
    which it has waited for batches.
    """
    with contextlib.ExitStack() as stack:
        feed = None
        seconds_waited = 0.0

        def advance_by(state: TrainState, num_steps: int) -> TrainState:
            nonlocal feed, seconds_waited
            if feed is None:
                batch_key, _ = jax.random.split(state.key)
                seed = jax.random.key_data(batch_key).tolist()
                feed = streaming.shuffled(stream, seed, batch_size, int(state.step))
                stack.enter_context(contextlib.closing(feed))
            for _ in range(num_steps):
                start = time.monotonic()
                batch = next(feed)
                seconds_waited += time.monotonic() - start
                state = advance(state, batch, 1)
            return state

        yield advance_by, lambda: seconds_waited
