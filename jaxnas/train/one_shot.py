"""One-shot search: weights and searcher learn in turn.

`search_steps` is the pure part: one update of the weights, one of the searcher.
`scan_steps` makes programs of them that do any number of steps; `search` is the host's
part.
"""

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxnas import parallel
from jaxnas.data import Split
from jaxnas.train import batches, epochs, loop, steps
from jaxnas.train.batches import EpochOrder, InputPipeline
from jaxnas.train.evaluation import make_eval_fn
from jaxnas.train.precision import Precision
from jaxnas.train.tasks import Objective, mean_loss
from jaxnas.types import (
    Arch,
    Batch,
    Key,
    Metrics,
    Params,
    Searcher,
    Supernet,
    Task,
    WeightProvider,
)


class OneShotState(NamedTuple):
    """Everything a search has learned, and where it is.

    Attributes:
      step: int32 scalar, steps done.
      key: the run's PRNG key; every step folds its number into it.
      weights: parameters and optimizer state.
      searcher: state of the searcher.
      epoch_metrics: means over the steps of the current epoch.
      searcher_metrics: metrics of the last `tell`.
    """

    step: jax.Array
    key: Key
    weights: steps.WeightState
    searcher: Any
    epoch_metrics: Metrics
    searcher_metrics: Metrics


class SearchSplits(NamedTuple):
    """The images of a search.

    Attributes:
      train: what the weights learn from.
      validation: what architectures are evaluated on.
    """

    train: Split
    validation: Split


class SearchSchedule(NamedTuple):
    """Which steps of an epoch update the weights, and which the searcher.

    Attributes:
      weight_steps: steps of an epoch that update the weights; they come first.
      searcher_steps: steps after them that update the searcher, possibly none.
        `None`: every weight step updates the searcher too.
    """

    weight_steps: int
    searcher_steps: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        """All steps of an epoch."""
        return self.weight_steps + (self.searcher_steps or 0)

    @property
    def first_searcher_step(self) -> int:
        """Position of the first step of an epoch that updates the searcher."""
        return 0 if self.searcher_steps is None else self.weight_steps

    def phase(self, step: int) -> tuple[int, int]:
        """Which phase of its epoch a step is in, and the steps left of it.

        Returns:
          0 for the phase of the weights, 1 for that of the searcher; and how many steps
          it has left, this one included.
        """
        position = step % self.steps_per_epoch
        if position < self.weight_steps:
            return 0, self.weight_steps - position
        return 1, self.steps_per_epoch - position


class SearchOrders(NamedTuple):
    """The order in which the current epoch of each split takes its images.

    Attributes:
      train: of the images that the weights learn from.
      validation: of those that architectures are evaluated on.
    """

    train: EpochOrder
    validation: EpochOrder


SearchStep = Callable[
    [OneShotState, SearchOrders, SearchSplits], tuple[OneShotState, SearchOrders]
]
"""`(state, orders, splits) -> (state, orders)`.

The state alone determines the new state; the orders only save drawing them anew.
"""


class SearchSettings(NamedTuple):
    """Settings of a search.

    By default every step updates the weights and then the searcher, and an epoch is
    one pass through the smaller of the two splits (ASNG-NAS, Algorithm 1). With
    `searcher_steps`, an epoch is one pass through the training images that updates the
    weights, then that many updates of the searcher (ENAS, section 2.2). With 0 of them
    only the weights learn, and nothing is known of the validation images.

    Attributes:
      num_epochs: length of the search.
      num_weight_archs: architectures in one update of the weights.
      num_search_archs: architectures in one update of the searcher.
      searcher_steps: updates of the searcher at the end of each epoch, possibly none;
        `None`: one with every update of the weights.
      objective: what the searcher minimizes.
      augment_validation: whether the images that architectures are evaluated on are
        augmented like training images while searching (ASNG-NAS), or not (ENAS).
      batch_per_arch: evaluate every architecture on a batch of its own (ENAS) instead
        of all on the same (ASNG-NAS).
      archs_at_once: architectures that a device runs at the same time, if there are
        more; see `weight_gradient`.
      precision: what the supernet computes in while searching; see `weight_gradient`.
      shard: what several devices share out: `"batch"`, where each runs its share of
        every batch with all architectures; or `"archs"`, where each runs whole batches
        with its share of the architectures of an update, which needs no exchange
        within a network. Evaluations share out batches either way.
      stop_when_converged: the search ends after the first epoch whose last update of
        the searcher has a `theta_max_mean` of this or more, if there is one.
    """

    num_epochs: int
    num_weight_archs: int = 2
    num_search_archs: int = 2
    searcher_steps: int | None = None
    objective: Objective = mean_loss
    augment_validation: bool = True
    batch_per_arch: bool = False
    archs_at_once: int = 1
    precision: Precision = "float32"
    shard: Literal["batch", "archs"] = "batch"
    stop_when_converged: float | None = None


class SearchSteps(NamedTuple):
    """The pure parts of a search.

    Attributes:
      init: `(key, splits) -> state`.
      weights: one optimizer step on the weights.
      searcher: one update of the searcher.
    """

    init: Callable[[Key, SearchSplits], OneShotState]
    weights: SearchStep
    searcher: SearchStep


def search_steps(
    net: Supernet,
    provider: WeightProvider,
    searcher: Searcher,
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: SearchSchedule,
    pipeline: InputPipeline,
    settings: SearchSettings,
) -> SearchSteps:
    """Make the pure steps of a one-shot search.

    A step of the weights samples architectures and takes one optimizer step with the
    mean gradient over them. A step of the searcher samples architectures, evaluates
    them on validation images with the weights as they are, and tells the searcher the
    objectives.

    All devices sample the same architectures and hold whole batches. Each then takes
    its share of either, over the axis `search_axis(settings)`, so that the result is
    that of one device but for rounding.

    Args:
      net: the supernet.
      provider: where its weights come from.
      searcher: what proposes architectures.
      task: the loss.
      optimizer: for the provider's parameters.
      schedule: the order of the steps.
      pipeline: preprocessing, batches and devices.
      settings: how weights and searcher learn; its `num_epochs` and `searcher_steps`
        have no effect here.

    Returns:
      Functions that leave the state's `step` as it is; `scan_steps` counts.

    Raises:
      ValueError: if the devices cannot share batches or architectures,
        `archs_at_once` does not divide them, or `shard` or `precision` is unknown.
    """
    devices = pipeline.on_devices()
    axis = search_axis(settings)
    used = ["num_weight_archs"]
    if schedule.searcher_steps != 0:
        used.append("num_search_archs")
    for name in used:
        num = getattr(settings, name)
        if settings.shard == "archs":
            num = parallel.per_device_size(num, len(devices), name)
        if name == "num_weight_archs" or not settings.batch_per_arch:
            steps.num_at_once(num, settings.archs_at_once)
    shares = len(devices) > 1
    parts = _SearchParts(
        net,
        provider,
        searcher,
        task,
        optimizer,
        schedule,
        pipeline,
        settings,
        batch_axis=axis if shares and settings.shard == "batch" else None,
        arch_axis=axis if shares and settings.shard == "archs" else None,
        num_devices=len(devices),
    )
    return SearchSteps(parts.init, parts.weight_step(), parts.searcher_step())


def search_axis(settings: SearchSettings) -> str:
    """Name of the mapped axis over which several devices share out a search.

    Raises:
      ValueError: if `settings.shard` is unknown.
    """
    axes = {"batch": parallel.BATCH_AXIS, "archs": parallel.ARCH_AXIS}
    if settings.shard not in axes:
        raise ValueError(f"shard is {settings.shard!r}; expected 'batch' or 'archs'")
    return axes[settings.shard]


class _SearchParts(NamedTuple):
    """Parts of the steps of a search; see `search_steps`."""

    net: Supernet
    provider: WeightProvider
    searcher: Searcher
    task: Task
    optimizer: optax.GradientTransformation
    schedule: SearchSchedule
    pipeline: InputPipeline
    settings: SearchSettings
    batch_axis: str | None
    arch_axis: str | None
    num_devices: int

    def init(self, key: Key, splits: SearchSplits) -> OneShotState:
        run_key, weights_key, searcher_key = jax.random.split(key, 3)
        state = OneShotState(
            jnp.int32(0),
            run_key,
            steps.init_weights(self.provider, self.optimizer, weights_key),
            self.searcher.init(searcher_key),
            {},
            {},
        )
        epoch_metrics, searcher_metrics = self._zero_metrics(state, splits)
        state = state._replace(
            epoch_metrics=epoch_metrics, searcher_metrics=searcher_metrics
        )
        return epochs.strongly_typed(state)

    def _zero_metrics(
        self, state: OneShotState, splits: SearchSplits
    ) -> tuple[Metrics, Metrics]:
        """Metrics whose names and shapes follow from the task and the searcher."""
        archs = jax.eval_shape(
            lambda: self.searcher.ask(
                state.searcher, state.key, self.settings.num_search_archs
            )
        )
        batch = jax.eval_shape(
            lambda key, batch: batches.prepared(
                key, batch, self.pipeline.augment, self.task
            ),
            state.key,
            {"image": splits.train.images[:1], "label": splits.train.labels[:1]},
        )
        single = steps.evaluation_step(self.net, self.provider, self.task)
        evaluated = jax.eval_shape(single, state.weights.params, archs, batch)
        _, info = jax.eval_shape(
            self.searcher.tell, state.searcher, archs, evaluated["loss"]
        )
        names = [f"train/{name}" for name in evaluated]
        if self.schedule.searcher_steps != 0:
            names += [f"validation/{name}" for name in [*evaluated, "num_not_finite"]]
        return (
            dict.fromkeys(names, jnp.zeros((), evaluated["loss"].dtype)),
            jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), info),
        )

    def weight_step(self) -> SearchStep:
        """Make one optimizer step on the weights."""
        step = steps.weight_step(
            self.net,
            self.provider,
            self.task,
            self.optimizer,
            batch_axis=self.batch_axis,
            arch_axis=self.arch_axis,
            archs_at_once=self.settings.archs_at_once,
            precision=self.settings.precision,
        )

        def update_weights(
            state: OneShotState, orders: SearchOrders, splits: SearchSplits
        ) -> tuple[OneShotState, SearchOrders]:
            epoch, position = self._epoch_and_position(state)
            batch_key, _, step_key = self._keys(state)
            ask_key, net_key, _ = jax.random.split(step_key, 3)
            archs = self.searcher.ask(
                state.searcher, ask_key, self.settings.num_weight_archs
            )
            order, batch = self._next_batch(
                orders.train, batch_key, splits.train, epoch, position
            )
            new, metrics = step(state.weights, self._local_part(archs), batch, net_key)
            metrics = {f"train/{name}": value for name, value in metrics.items()}
            means = epochs.mean_over_epoch(state.epoch_metrics, metrics, position)
            state = state._replace(weights=new, epoch_metrics=means)
            return state, orders._replace(train=order)

        return update_weights

    def searcher_step(self) -> SearchStep:
        """Make one update of the searcher."""
        evaluate = steps.evaluation_step(
            self.net,
            self.provider,
            self.task,
            batch_axis=self.batch_axis,
            archs_at_once=self.settings.archs_at_once,
            precision=self.settings.precision,
        )
        schedule, num_archs = self.schedule, self.settings.num_search_archs

        def update_searcher(
            state: OneShotState, orders: SearchOrders, splits: SearchSplits
        ) -> tuple[OneShotState, SearchOrders]:
            epoch, position = self._epoch_and_position(state)
            position = position - schedule.first_searcher_step
            _, batch_key, step_key = self._keys(state)
            _, _, ask_key = jax.random.split(step_key, 3)
            archs = self.searcher.ask(state.searcher, ask_key, num_archs)
            # Batches are numbered through all epochs, so that none is left out.
            per_epoch = schedule.searcher_steps or schedule.weight_steps
            number = epoch * per_epoch + position
            per_pass = splits.validation.num_images // self.pipeline.batch_size

            def evaluate_on(order, archs, number):
                order, batch = self._next_batch(
                    order,
                    batch_key,
                    splits.validation,
                    number // per_pass,
                    number % per_pass,
                    validates=True,
                )
                return order, evaluate(state.weights.params, archs, batch)

            if self.settings.batch_per_arch:
                numbers = number * num_archs + jnp.arange(num_archs)
                order, evaluated = lax.scan(
                    lambda order, x: evaluate_on(order, x[0][None], x[1]),
                    orders.validation,
                    (self._local_part(archs), self._local_part(numbers)),
                )
                evaluated = {name: values[:, 0] for name, values in evaluated.items()}
            else:
                order, evaluated = evaluate_on(
                    orders.validation, self._local_part(archs), number
                )
            evaluated = self._gather(evaluated)
            losses = self.settings.objective(evaluated)
            searcher_state, info = self.searcher.tell(state.searcher, archs, losses)
            means = epochs.mean_of_finite(
                state.epoch_metrics, evaluated, position, "validation/"
            )
            state = state._replace(
                searcher=searcher_state, epoch_metrics=means, searcher_metrics=info
            )
            return state, orders._replace(validation=order)

        return update_searcher

    def _epoch_and_position(self, state: OneShotState) -> tuple[jax.Array, jax.Array]:
        epoch = state.step // self.schedule.steps_per_epoch
        return epoch, state.step % self.schedule.steps_per_epoch

    @staticmethod
    def _keys(state: OneShotState) -> tuple[Key, Key, Key]:
        """Streams of training and validation batches, and this step's own key."""
        train_key, validation_key, step_key = jax.random.split(state.key, 3)
        return train_key, validation_key, jax.random.fold_in(step_key, state.step)

    def _next_batch(
        self,
        order: EpochOrder,
        key: Key,
        split: Split,
        epoch: jax.Array,
        position: jax.Array,
        *,
        validates: bool = False,
    ) -> tuple[EpochOrder, Batch]:
        augments = self.settings.augment_validation or not validates
        return batches.next_batch(
            order,
            key,
            split,
            epoch,
            position,
            self.pipeline.batch_size,
            self.pipeline.augment if augments else self.pipeline.normalize,
            self.task,
            batch_axis=self.batch_axis,
            num_devices=self.num_devices,
        )

    def _local_part(self, per_arch: jax.Array) -> jax.Array:
        """This device's part of what there is for each architecture."""
        if self.arch_axis is None:
            return per_arch
        parts = per_arch.reshape(self.num_devices, -1, *per_arch.shape[1:])
        return parts[lax.axis_index(self.arch_axis)]

    def _gather(self, metrics: Metrics) -> Metrics:
        """Undo `_local_part`."""
        if self.arch_axis is None:
            return metrics
        return lax.all_gather(metrics, self.arch_axis, tiled=True)


def scan_steps(
    *steps_in_turn: SearchStep,
) -> Callable[[OneShotState, SearchSplits, jax.Array], OneShotState]:
    """Make one program of many steps: `(state, splits, num_steps) -> state`.

    Every step does all of these, one after the other; `num_steps` is traced.
    """

    def step(state, orders, splits):
        for one in steps_in_turn:
            state, orders = one(state, orders, splits)
        return state, orders

    def begin(splits):
        return SearchOrders(*(batches.no_order(s.num_images) for s in splits))

    return epochs.repeat(step, begin)


class SearchResult(NamedTuple):
    """Result of a search.

    Attributes:
      state: the final state.
      arch: int32 `[num_decisions]`, the searcher's most likely architecture.
      evaluate: `(arch, split) -> metrics` with the final weights, floats.
    """

    state: OneShotState
    arch: Arch
    evaluate: Callable[[Arch, Split], dict[str, float]]


def search(
    net: Supernet,
    provider: WeightProvider,
    searcher: Searcher,
    task: Task,
    optimizer: optax.GradientTransformation,
    splits: SearchSplits,
    pipeline: InputPipeline,
    settings: SearchSettings,
    *,
    key: Key,
    test: Split | None = None,
    workdir: str | os.PathLike[str] | None = None,
    save_seconds: float = 30.0,
    description: str = "search",
    epoch_metrics: Callable[[Params], dict[str, float]] | None = None,
) -> SearchResult:
    """Search for `settings.num_epochs` epochs, or until the searcher has converged.

    Architectures whose validation loss is not finite are counted in the log, as
    `validation/num_not_finite`, and left out of its means; only training losses end a
    search. After each epoch the most likely architecture is evaluated on `test`, for
    the log only. The speed shown counts an image once for each architecture it is run
    through. With a `workdir` the search logs and saves there, and continues from the
    newest checkpoint it finds. The result depends on the arguments and the kind of
    device, not on where a run was stopped.

    Args:
      net: the supernet.
      provider: where its weights come from.
      searcher: what proposes architectures.
      task: the loss.
      optimizer: for the provider's parameters.
      splits: images (uint8) for weights and for the searcher.
      pipeline: preprocessing, batches and devices.
      settings: how weights and searcher learn.
      key: determines everything random.
      test: images for the evaluation after each epoch.
      workdir: folder of the run.
      save_seconds: least time between two checkpoints.
      description: one word for the progress line.
      epoch_metrics: `params -> metrics` of the provider's parameters, for the log
        line of each epoch.

    Returns:
      The final state and the most likely architecture.

    Raises:
      ValueError: if a split is smaller than a batch, or `stop_when_converged` out of
        range or the searcher without that metric, or as `search_steps` does.
      Diverged: if the training loss stops being finite.
      Interrupted: after a signal; the state has been saved.
    """
    axis, devices = search_axis(settings), pipeline.on_devices()
    evaluate = make_eval_fn(net, provider, task, pipeline)
    schedule = search_schedule(splits, pipeline.batch_size, settings.searcher_steps)
    made = search_steps(
        net, provider, searcher, task, optimizer, schedule, pipeline, settings
    )
    phases = _phases(made, schedule, settings)
    programs = [
        parallel.replicated(
            scan_steps(*phase.steps), devices, axis_name=axis, donate_argnums=0
        )
        for phase in phases
    ]
    device_splits = parallel.device_put(splits, devices, axis_name=axis)
    state = jax.jit(made.init)(key, splits)
    ends_early = _convergence_test(state, settings)
    state = parallel.device_put(state, devices, axis_name=axis)
    for program in programs[1:]:  # compile before time is measured
        state = program(state, device_splits, jnp.int32(0))

    def advance(state: OneShotState, num_steps: int) -> OneShotState:
        phase, left = schedule.phase(int(state.step))
        return programs[phase](state, device_splits, jnp.int32(min(num_steps, left)))

    def images_per_step(step: int) -> int:
        phase, _ = schedule.phase(step)
        return pipeline.batch_size * phases[phase].num_archs

    def end_epoch(state: OneShotState) -> dict[str, float]:
        # The searcher's metrics are those of the last `tell`, if there was one.
        has_been_told = int(state.step) > 0 and settings.searcher_steps != 0
        info = state.searcher_metrics if has_been_told else {}
        metrics = {name: float(value) for name, value in info.items()}
        if test is not None:
            arch = searcher.mode(state.searcher)
            result = evaluate(state.weights.params, arch, test)
            metrics |= {f"test/{name}": value for name, value in result.items()}
        if epoch_metrics is not None:
            metrics |= epoch_metrics(state.weights.params)
        return metrics

    state = loop.run(
        advance,
        state,
        num_epochs=settings.num_epochs,
        steps_per_epoch=schedule.steps_per_epoch,
        items_per_step=images_per_step,
        end_epoch=end_epoch,
        description=description,
        workdir=workdir,
        save_seconds=save_seconds,
        ends_early=ends_early,
    )
    return SearchResult(
        state,
        searcher.mode(state.searcher),
        lambda arch, split: evaluate(state.weights.params, arch, split),
    )


def _convergence_test(
    state: OneShotState, settings: SearchSettings
) -> Callable[[OneShotState], bool] | None:
    """Make the test of whether a search has converged, if there is a threshold."""
    threshold, name = settings.stop_when_converged, "theta_max_mean"
    if threshold is None:
        return None
    if not 0 < threshold <= 1:
        raise ValueError(
            f"stop_when_converged is {threshold}; expected above 0, at most 1"
        )
    if name not in state.searcher_metrics:
        raise ValueError(
            f"stop_when_converged is {threshold}; expected None for a searcher without "
            f"the metric {name}"
        )
    return lambda state: float(state.searcher_metrics[name]) >= threshold


class _Phase(NamedTuple):
    """A phase of an epoch.

    Attributes:
      steps: parts of every step, in turn.
      num_archs: architectures that a step runs its batches through.
    """

    steps: list[SearchStep]
    num_archs: int


def _phases(
    made: SearchSteps, schedule: SearchSchedule, settings: SearchSettings
) -> list[_Phase]:
    """The phases of an epoch, as `SearchSchedule.phase` numbers them."""
    weights = _Phase([made.weights], settings.num_weight_archs)
    searcher = _Phase([made.searcher], settings.num_search_archs)
    if schedule.searcher_steps is None:
        both = weights.num_archs + searcher.num_archs
        return [_Phase([*weights.steps, *searcher.steps], both)]
    return [weights] if schedule.searcher_steps == 0 else [weights, searcher]


def search_schedule(
    splits: SearchSplits, batch_size: int, searcher_steps: int | None = None
) -> SearchSchedule:
    """Make the schedule of `search`: full batches only.

    Args:
      splits: images for weights and for the searcher.
      batch_size: images in a batch, over all devices.
      searcher_steps: as for `search`.

    Returns:
      The schedule.

    Raises:
      ValueError: if a split is smaller than a batch, or `searcher_steps` below 0.
    """
    smallest = min(split.labels.shape[0] for split in splits)
    if smallest < batch_size:
        raise ValueError(
            f"batch_size is {batch_size}, but one of the splits has only {smallest} "
            "images"
        )
    if searcher_steps is None:
        return SearchSchedule(smallest // batch_size)
    if searcher_steps < 0:
        raise ValueError(f"searcher_steps is {searcher_steps}; expected 0 or more")
    return SearchSchedule(splits.train.labels.shape[0] // batch_size, searcher_steps)
