"""One-shot search: weights and searcher learn in turn.

`search_steps` is the pure part: one update of the weights, one of the searcher.
`scan_steps` makes programs of them that do any number of steps; `search` is the host's
part.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxnas import metrics as metrics_log
from jaxnas import parallel
from jaxnas.data import Split
from jaxnas.train import batches, loop, steps
from jaxnas.train.batches import EpochOrder, Preprocess
from jaxnas.train.evaluation import make_eval_fn
from jaxnas.train.tasks import Objective, mean_loss
from jaxnas.types import (
    Arch,
    Device,
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
      validation: what architectures are judged by.
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


class SearchOrders(NamedTuple):
    """The order in which the current epoch of each split takes its images.

    Attributes:
      train: of the images that the weights learn from.
      validation: of those that architectures are judged by.
    """

    train: EpochOrder
    validation: EpochOrder


SearchStep = Callable[
    [OneShotState, SearchSplits, SearchOrders], tuple[OneShotState, SearchOrders]
]
"""`(state, splits, orders) -> (state, orders)`.

The state alone determines the new state; the orders only save drawing them anew.
"""


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
    *,
    batch_size: int,
    num_weight_archs: int,
    num_search_archs: int,
    augment: Preprocess,
    prepare_validation: Preprocess,
    objective: Objective = mean_loss,
    batch_per_arch: bool = False,
    batch_axis: str | None = None,
    arch_axis: str | None = None,
    num_devices: int = 1,
) -> SearchSteps:
    """Make the pure updates of a one-shot search.

    An update of the weights draws architectures and takes one optimizer step with the
    mean gradient over them. An update of the searcher draws architectures, evaluates
    them on validation images with the weights as they are, and tells the searcher what
    the objective makes of it.

    All devices draw the same architectures and hold whole batches. Each then takes its
    share of either, so that the result is that of one device but for rounding.

    Args:
      net: the supernet.
      provider: where its weights come from.
      searcher: what proposes architectures.
      task: the loss.
      optimizer: for the provider's parameters.
      schedule: the order of the updates.
      batch_size: images in a batch, over all devices.
      num_weight_archs: architectures in one update of the weights.
      num_search_archs: architectures in one update of the searcher.
      augment: `(key, uint8 images) -> float images` for training.
      prepare_validation: the same for the images that architectures are judged by.
      objective: what the searcher minimizes.
      batch_per_arch: judge every architecture by a batch of its own (ENAS) instead of
        all by the same (ASNG-NAS).
      batch_axis: mapped axis over which batches are shared out, if any.
      arch_axis: mapped axis over which the architectures of an update are shared out,
        if any; not both.
      num_devices: size of that axis.

    Returns:
      Functions that leave the state's `step` as it is; `scan_steps` counts.

    Raises:
      ValueError: if both axes are given, or architectures cannot be shared out.
    """
    if batch_axis is not None and arch_axis is not None:
        raise ValueError(
            f"batch_axis is {batch_axis!r} and arch_axis is {arch_axis!r}; expected at "
            "most one of them"
        )
    if arch_axis is not None:
        parallel.per_device_size(num_weight_archs, num_devices, "num_weight_archs")
        if schedule.searcher_steps != 0:
            parallel.per_device_size(num_search_archs, num_devices, "num_search_archs")
    weight_step = steps.weight_step(
        net, provider, task, optimizer, batch_axis=batch_axis, arch_axis=arch_axis
    )
    evaluation_step = steps.evaluation_step(net, provider, task, batch_axis=batch_axis)

    def epoch_and_position(state: OneShotState) -> tuple[jax.Array, jax.Array]:
        epoch = state.step // schedule.steps_per_epoch
        return epoch, state.step % schedule.steps_per_epoch

    def keys(state: OneShotState) -> tuple[Key, Key, Key]:
        """Streams of training and validation batches, and this step's own key."""
        train_key, validation_key, step_key = jax.random.split(state.key, 3)
        return train_key, validation_key, jax.random.fold_in(step_key, state.step)

    def local_part(per_arch: jax.Array) -> jax.Array:
        """This device's part of what there is for each architecture."""
        if arch_axis is None:
            return per_arch
        shares = per_arch.reshape(num_devices, -1, *per_arch.shape[1:])
        return shares[lax.axis_index(arch_axis)]

    def gather(metrics: Metrics) -> Metrics:
        """Undo `local_part`."""
        if arch_axis is None:
            return metrics
        return lax.all_gather(metrics, arch_axis, tiled=True)

    def update_weights(
        state: OneShotState, splits: SearchSplits, orders: SearchOrders
    ) -> tuple[OneShotState, SearchOrders]:
        epoch, position = epoch_and_position(state)
        batch_key, _, step_key = keys(state)
        ask_key, net_key, _ = jax.random.split(step_key, 3)
        archs = searcher.ask(state.searcher, ask_key, num_weight_archs)
        order = batches.update_order(orders.train, batch_key, epoch)
        batch = batches.shuffled(
            batch_key, splits.train, order, position, batch_size, augment
        )
        batch = batches.local_batch(batch, batch_axis, num_devices)
        new, metrics = weight_step(state.weights, local_part(archs), batch, net_key)
        metrics = {f"train/{name}": value for name, value in metrics.items()}
        means = loop.mean_over_epoch(state.epoch_metrics, metrics, position)
        state = state._replace(weights=new, epoch_metrics=means)
        return state, orders._replace(train=order)

    def update_searcher(
        state: OneShotState, splits: SearchSplits, orders: SearchOrders
    ) -> tuple[OneShotState, SearchOrders]:
        epoch, position = epoch_and_position(state)
        position = position - schedule.first_searcher_step
        _, batch_key, step_key = keys(state)
        _, _, ask_key = jax.random.split(step_key, 3)
        archs = searcher.ask(state.searcher, ask_key, num_search_archs)
        # Batches are numbered through all epochs, so that none is left out.
        per_epoch = schedule.searcher_steps or schedule.weight_steps
        number = epoch * per_epoch + position
        batches_per_pass = splits.validation.labels.shape[0] // batch_size

        def evaluate_on(order, archs, number):
            order = batches.update_order(order, batch_key, number // batches_per_pass)
            batch = batches.shuffled(
                batch_key,
                splits.validation,
                order,
                number % batches_per_pass,
                batch_size,
                prepare_validation,
            )
            batch = batches.local_batch(batch, batch_axis, num_devices)
            return order, evaluation_step(state.weights.params, archs, batch)

        if batch_per_arch:
            numbers = number * num_search_archs + jnp.arange(num_search_archs)
            shares = local_part(archs), local_part(numbers)
            order, evaluated = lax.scan(
                lambda order, x: evaluate_on(order, x[0][None], x[1]),
                orders.validation,
                shares,
            )
            evaluated = {name: values[:, 0] for name, values in evaluated.items()}
        else:
            order, evaluated = evaluate_on(orders.validation, local_part(archs), number)
        evaluated = gather(evaluated)
        searcher_state, info = searcher.tell(
            state.searcher, archs, objective(evaluated)
        )
        means = loop.mean_of_finite(
            state.epoch_metrics, evaluated, position, "validation/"
        )
        state = state._replace(
            searcher=searcher_state, epoch_metrics=means, searcher_metrics=info
        )
        return state, orders._replace(validation=order)

    def init(key: Key, splits: SearchSplits) -> OneShotState:
        run_key, weights_key, searcher_key = jax.random.split(key, 3)
        state = OneShotState(
            jnp.int32(0),
            run_key,
            steps.init_weights(provider, optimizer, weights_key),
            searcher.init(searcher_key),
            {},
            {},
        )
        # The metrics' names and shapes follow from the task and the searcher.
        arch = jnp.zeros((num_search_archs, len(net.space.cardinalities)), jnp.int32)
        image = jax.eval_shape(augment, run_key, splits.train.images[:1])
        batch = {
            "image": jnp.zeros((1, *image.shape[1:]), image.dtype),
            "label": jnp.zeros(1, jnp.int32),
        }
        single = steps.evaluation_step(net, provider, task)
        evaluated = jax.eval_shape(single, state.weights.params, arch, batch)
        _, info = jax.eval_shape(searcher.tell, state.searcher, arch, evaluated["loss"])
        names = [f"train/{name}" for name in evaluated]
        if schedule.searcher_steps != 0:
            names += [f"validation/{name}" for name in [*evaluated, "num_not_finite"]]
        zero = jnp.zeros((), evaluated["loss"].dtype)
        state = state._replace(
            epoch_metrics=dict.fromkeys(names, zero),
            searcher_metrics=jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), info),
        )
        # A weak type would become a strong one in the first step, and the program
        # would be compiled twice.
        return jax.tree.map(
            lambda leaf: lax.convert_element_type(leaf, leaf.dtype), state
        )

    return SearchSteps(init, update_weights, update_searcher)


def scan_steps(
    *updates: SearchStep,
) -> Callable[[OneShotState, SearchSplits, jax.Array], OneShotState]:
    """Make steps of updates: `(state, splits, num_steps) -> state`.

    Every step does all updates, one after the other; `num_steps` is traced.
    """

    def advance(state, splits, num_steps):
        def one_step(_, carry):
            state, orders = carry
            for update in updates:
                state, orders = update(state, splits, orders)
            return state._replace(step=state.step + 1), orders

        orders = SearchOrders(*(batches.no_order(s.num_images) for s in splits))
        return lax.fori_loop(0, num_steps, one_step, (state, orders))[0]

    return advance


class SearchResult(NamedTuple):
    """What a search returns.

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
    *,
    key: Key,
    num_epochs: int,
    batch_size: int,
    augment: Preprocess,
    normalize: Preprocess,
    test: Split | None = None,
    num_weight_archs: int = 2,
    num_search_archs: int = 2,
    searcher_steps: int | None = None,
    objective: Objective = mean_loss,
    augment_validation: bool = True,
    batch_per_arch: bool = False,
    shard: Literal["batch", "archs"] = "batch",
    devices: Sequence[Device] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    save_seconds: float = 30.0,
    description: str = "search",
    epoch_metrics: Callable[[Params], dict[str, float]] | None = None,
) -> SearchResult:
    """Search for `num_epochs` epochs.

    By default every step updates the weights and then the searcher, and an epoch is
    one pass through the smaller of the two splits (ASNG-NAS, Algorithm 1). With
    `searcher_steps`, an epoch is one pass through the training images that updates the
    weights, then that many updates of the searcher (ENAS, section 2.2). With 0 of them
    only the weights learn, and nothing is known of the validation images.

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
      key: determines everything random.
      num_epochs: length of the search.
      batch_size: images in a batch, over all devices.
      augment: `(key, uint8 images) -> float images`, while searching.
      normalize: the same for evaluation; its key is constant.
      test: images for the evaluation after each epoch.
      num_weight_archs: architectures in one update of the weights.
      num_search_archs: architectures in one update of the searcher.
      searcher_steps: updates of the searcher at the end of each epoch, possibly none;
        `None`: one with every update of the weights.
      objective: what the searcher minimizes.
      augment_validation: whether the images that architectures are judged by are
        augmented like training images while searching (ASNG-NAS), or not (ENAS).
      batch_per_arch: see `search_steps`.
      shard: what several devices share out: `"batch"`, where each runs its share of
        every batch with all architectures; or `"archs"`, where each runs whole batches
        with its share of the architectures of an update, which needs no exchange
        within a network. Evaluations share out batches either way.
      devices: where to run; the first device if `None`.
      workdir: folder of the run.
      save_seconds: least time between two checkpoints.
      description: one word for the progress line.
      epoch_metrics: `params -> metrics` of the provider's parameters, for the log
        line of each epoch.

    Returns:
      The final state and the most likely architecture.

    Raises:
      ValueError: if a split is smaller than a batch, a batch or the architectures
        cannot be shared out, or `shard` is unknown.
      Diverged: if the training loss stops being finite.
      Interrupted: after a signal; the state has been saved.
    """
    if shard not in ("batch", "archs"):
        raise ValueError(f"shard is {shard!r}; expected 'batch' or 'archs'")
    devices = [jax.local_devices()[0]] if devices is None else list(devices)
    evaluate = make_eval_fn(
        net,
        provider,
        task,
        normalize=normalize,
        batch_size=batch_size,
        devices=devices,
    )
    schedule = search_schedule(splits, batch_size, searcher_steps)
    axis_name = parallel.BATCH_AXIS if shard == "batch" else parallel.ARCH_AXIS
    shared_axis = axis_name if len(devices) > 1 else None
    init, update_weights, update_searcher = search_steps(
        net,
        provider,
        searcher,
        task,
        optimizer,
        schedule,
        batch_size=batch_size,
        num_weight_archs=num_weight_archs,
        num_search_archs=num_search_archs,
        augment=augment,
        prepare_validation=augment if augment_validation else normalize,
        objective=objective,
        batch_per_arch=batch_per_arch,
        batch_axis=shared_axis if shard == "batch" else None,
        arch_axis=shared_axis if shard == "archs" else None,
        num_devices=len(devices),
    )

    def phase(*updates):
        return parallel.replicated(
            scan_steps(*updates), devices, axis_name=axis_name, donate_argnums=0
        )

    images_per_weight_step = batch_size * num_weight_archs
    images_per_searcher_step = batch_size * num_search_archs
    if searcher_steps is None:
        images_per_weight_step += images_per_searcher_step
        phases = [phase(update_weights, update_searcher)]
    elif searcher_steps == 0:
        phases = [phase(update_weights)]
    else:
        phases = [phase(update_weights), phase(update_searcher)]
    device_splits = parallel.device_put(splits, devices, axis_name=axis_name)
    state = parallel.device_put(
        jax.jit(init)(key, splits), devices, axis_name=axis_name
    )
    for advance_phase in phases[1:]:  # compile before time is measured
        state = advance_phase(state, device_splits, jnp.int32(0))

    def in_weight_phase(step: int) -> bool:
        return step % schedule.steps_per_epoch < schedule.weight_steps

    def advance(state: OneShotState, num_steps: int) -> OneShotState:
        step = int(state.step)
        if in_weight_phase(step):
            left = schedule.weight_steps - step % schedule.steps_per_epoch
            num_steps = min(num_steps, left)
            return phases[0](state, device_splits, jnp.int32(num_steps))
        return phases[1](state, device_splits, jnp.int32(num_steps))

    def images_per_step(step: int) -> int:
        if in_weight_phase(step):
            return images_per_weight_step
        return images_per_searcher_step

    def end_epoch(state: OneShotState) -> dict[str, float]:
        # A searcher that has been info nothing has nothing to tell.
        has_been_told = int(state.step) > 0 and searcher_steps != 0
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
        num_epochs=num_epochs,
        steps_per_epoch=schedule.steps_per_epoch,
        images_per_step=images_per_step,
        end_epoch=end_epoch,
        description=description,
        workdir=workdir,
        save_seconds=save_seconds,
    )
    return SearchResult(
        state,
        searcher.mode(state.searcher),
        lambda arch, split: evaluate(state.weights.params, arch, split),
    )


def search_schedule(
    splits: SearchSplits, batch_size: int, searcher_steps: int | None = None
) -> SearchSchedule:
    """The schedule of `search`: full batches only.

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


class Ranked(NamedTuple):
    """An architecture and what it is worth.

    Attributes:
      arch: int32 `[num_decisions]`.
      position: its place in the list that was ranked.
      metrics: of all images.
    """

    arch: np.ndarray
    position: int
    metrics: dict[str, float]


def rank(
    evaluate: Callable[[Arch, Split], dict[str, float]],
    archs: Sequence[Arch],
    split: Split,
    *,
    objective: Objective = mean_loss,
    num_screening_images: int | None = 1000,
    num_best: int = 10,
    workdir: str | os.PathLike[str] | None = None,
) -> list[Ranked]:
    """Find the best architectures: screen all, evaluate a few.

    Args:
      evaluate: `(arch, split) -> metrics` with a `loss`, as in `SearchResult`.
      archs: the candidates; equal ones are ranked once.
      split: the images to judge by.
      objective: what to rank by, lowest first; the loss decides between equal values.
      num_screening_images: how many of them, chosen at random but always the same, all
        candidates are screened with; all images if `None`.
      num_best: how many candidates are then evaluated with all images.
      workdir: folder of the logs `screening.jsonl` and `ranking.jsonl`, with which an
        interrupted ranking continues, and of a progress line; none if `None`.

    Returns:
      The best ones, best first; what is not finite comes last.

    Raises:
      ValueError: if a log is damaged.
    """
    distinct: dict[bytes, tuple[int, np.ndarray]] = {}
    for index, arch in enumerate(map(np.asarray, archs)):
        distinct.setdefault(arch.tobytes(), (index, arch))
    candidates = list(distinct.values())

    def best_first(entries: list[Ranked]) -> list[Ranked]:
        keys = [(e.metrics["loss"], objective(e.metrics)) for e in entries]
        return [entries[i] for i in np.lexsort(np.array(keys, float).T)]

    def measure(candidates, images: Split, name: str) -> list[Ranked]:
        lines = metrics_log.measure_missing(
            None if workdir is None else pathlib.Path(workdir) / f"{name}.jsonl",
            [arch for _, arch in candidates],
            lambda i: evaluate(jnp.asarray(candidates[i][1]), images),
            description=None if workdir is None else name,
        )
        return best_first(
            [
                Ranked(arch, index, line)
                for (index, arch), line in zip(candidates, lines, strict=True)
            ]
        )

    if (
        num_screening_images is not None
        and len(candidates) > num_best
        and split.labels.size > num_screening_images
    ):
        screening = batches.subset(split, num_screening_images)
        screened = measure(candidates, screening, "screening")[:num_best]
        candidates = [(entry.position, entry.arch) for entry in screened]
    return measure(candidates, split, "ranking")[:num_best]
