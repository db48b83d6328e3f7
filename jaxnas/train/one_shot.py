"""One-shot search: weights and distribution learn in turn.

`alternate` is the pure part, one compiled program that does any number of steps;
`search` is the host's part.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxnas import parallel
from jaxnas.data import Split
from jaxnas.train import batches, loop, steps
from jaxnas.train.batches import Preprocess
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
    """Everything a search has learnt, and where it is.

    Attributes:
      step: int32 scalar, weight steps done.
      key: the run's PRNG key; every step folds its number into it.
      weights: parameters and optimiser state.
      searcher: state of the searcher.
      epoch_metrics: sums over the steps of the current epoch.
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


def alternate(
    net: Supernet,
    provider: WeightProvider,
    searcher: Searcher,
    task: Task,
    optimizer: optax.GradientTransformation,
    preprocess: Preprocess,
    *,
    steps_per_epoch: int,
    batch_size: int,
    num_weight_archs: int,
    num_search_archs: int,
    batch_axis: str | None = None,
    num_devices: int = 1,
) -> tuple[
    Callable[[Key, SearchSplits], OneShotState],
    Callable[[OneShotState, SearchSplits, jax.Array], OneShotState],
]:
    """Make the pure alternation of weight steps and searcher steps.

    Each step draws architectures, takes one optimiser step on the weights with the
    mean gradient over them, draws architectures anew, evaluates them on one batch of
    validation images with the new weights, and tells the searcher their losses
    (ASNG-NAS, Algorithm 1; validation images are augmented like training images).

    Args:
      net: the supernet.
      provider: where its weights come from.
      searcher: what proposes architectures.
      task: the loss.
      optimizer: for the provider's parameters.
      preprocess: `(key, uint8 images) -> float images`.
      steps_per_epoch: steps in one epoch.
      batch_size: images in a batch, over all devices.
      num_weight_archs: architectures in one weight step.
      num_search_archs: architectures in one searcher step.
      batch_axis: mapped axis over which batches are shared out, if any.
      num_devices: its size.

    Returns:
      `(init, advance)`: `init(key, splits)` makes a state, `advance(state, splits,
      num_steps)` runs steps within the current epoch; `num_steps` is traced.
    """
    weight_step = steps.weight_step(
        net, provider, task, optimizer, batch_axis=batch_axis
    )
    evaluation_step = steps.evaluation_step(net, provider, task, batch_axis=batch_axis)

    def draw(key, split, step):
        batch = batches.shuffled(
            key,
            split,
            step // steps_per_epoch,
            step % steps_per_epoch,
            batch_size,
            preprocess,
        )
        return batches.share(batch, batch_axis, num_devices)

    def one_step(state: OneShotState, splits: SearchSplits) -> OneShotState:
        train_key, validation_key = jax.random.split(state.key)
        ask_key, net_key, ask_again_key = jax.random.split(
            jax.random.fold_in(state.key, state.step), 3
        )
        archs = searcher.ask(state.searcher, ask_key, num_weight_archs)
        batch = draw(train_key, splits.train, state.step)
        weights, train_metrics = weight_step(state.weights, archs, batch, net_key)

        archs = searcher.ask(state.searcher, ask_again_key, num_search_archs)
        batch = draw(validation_key, splits.validation, state.step)
        judged = evaluation_step(weights.params, archs, batch)
        searcher_state, searcher_metrics = searcher.tell(
            state.searcher, archs, judged["loss"]
        )
        metrics = {f"train/{name}": value for name, value in train_metrics.items()}
        metrics |= {f"validation/{name}": m.mean() for name, m in judged.items()}
        return OneShotState(
            state.step + 1,
            state.key,
            weights,
            searcher_state,
            loop.add_to_epoch(
                state.epoch_metrics, metrics, state.step % steps_per_epoch == 0
            ),
            searcher_metrics,
        )

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
        image = jax.eval_shape(preprocess, run_key, splits.train.images[:1])
        batch = {
            "image": jnp.zeros((1, *image.shape[1:]), image.dtype),
            "label": jnp.zeros(1, jnp.int32),
        }
        single = steps.evaluation_step(net, provider, task)
        judged = jax.eval_shape(single, state.weights.params, arch, batch)
        _, told = jax.eval_shape(searcher.tell, state.searcher, arch, judged["loss"])
        names = [
            f"{part}/{name}" for part in ("train", "validation") for name in judged
        ]
        zero = jnp.zeros((), judged["loss"].dtype)
        state = state._replace(
            epoch_metrics=dict.fromkeys(names, zero),
            searcher_metrics=jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), told),
        )
        # A weak type would become a strong one in the first step, and the program
        # would be compiled twice.
        return jax.tree.map(
            lambda leaf: lax.convert_element_type(leaf, leaf.dtype), state
        )

    def advance(
        state: OneShotState, splits: SearchSplits, num_steps: jax.Array
    ) -> OneShotState:
        return lax.fori_loop(0, num_steps, lambda _, s: one_step(s, splits), state)

    return init, advance


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
    devices: Sequence[Device] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    save_seconds: float = 30.0,
    description: str = "search",
) -> SearchResult:
    """Search for `num_epochs` epochs of the smaller of the two splits.

    After each epoch the most likely architecture is evaluated on `test`, for the log
    only. The speed shown counts an image once for each architecture it is run
    through. With a `workdir` the search logs and saves there, and goes on from the
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
      num_weight_archs: architectures in one weight step.
      num_search_archs: architectures in one searcher step.
      devices: where to run; the first device if `None`.
      workdir: folder of the run.
      save_seconds: least time between two checkpoints.
      description: one word for the progress line.

    Returns:
      The final state and the most likely architecture.

    Raises:
      ValueError: if a split is smaller than a batch, or a batch cannot be shared out.
      Diverged: if the loss stops being finite.
      Interrupted: after a signal; the state has been saved.
    """
    devices = [jax.local_devices()[0]] if devices is None else list(devices)
    num_devices = len(devices)
    parallel.share(batch_size, num_devices, "batch_size")
    steps_per_epoch = count_steps(splits, batch_size)
    batch_axis = parallel.batch_axis(devices)
    init, advance = alternate(
        net,
        provider,
        searcher,
        task,
        optimizer,
        augment,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        num_weight_archs=num_weight_archs,
        num_search_archs=num_search_archs,
        batch_axis=batch_axis,
        num_devices=num_devices,
    )
    advance = parallel.replicated(advance, devices, donate_argnums=0)
    device_splits = parallel.place(splits, devices)
    state = parallel.place(jax.jit(init)(key, splits), devices)

    evaluation_step = steps.evaluation_step(net, provider, task, batch_axis=batch_axis)

    def evaluate_batch(params: Params, arch: Arch, batch):
        batch = dict(batch, image=normalize(jax.random.key(0), batch["image"]))
        batch = batches.share(batch, batch_axis, num_devices)
        return evaluation_step(params, arch[None], batch)

    compiled = parallel.replicated(evaluate_batch, devices)

    def evaluate(params: Params, arch: Arch, split: Split) -> dict[str, float]:
        host_arch = np.asarray(arch)  # wherever it lies, one compilation
        means = batches.mean_metrics(
            lambda batch: compiled(params, host_arch, batch), split, batch_size
        )
        return {name: float(value[0]) for name, value in means.items()}

    def end_epoch(state: OneShotState) -> dict[str, float]:
        told = state.searcher_metrics if int(state.step) > 0 else {}
        metrics = {name: float(value) for name, value in told.items()}
        if test is not None:
            arch = searcher.mode(state.searcher)
            result = evaluate(state.weights.params, arch, test)
            metrics |= {f"test/{name}": value for name, value in result.items()}
        return metrics

    state = loop.run(
        lambda state, num_steps: advance(state, device_splits, jnp.int32(num_steps)),
        state,
        num_epochs=num_epochs,
        steps_per_epoch=steps_per_epoch,
        images_per_step=batch_size * (num_weight_archs + num_search_archs),
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


def count_steps(splits: SearchSplits, batch_size: int) -> int:
    """Steps in one epoch, full batches only; `ValueError` if there are none."""
    smallest = min(split.labels.shape[0] for split in splits)
    if smallest < batch_size:
        raise ValueError(
            f"batch_size is {batch_size}, but one of the splits has only {smallest} "
            "images"
        )
    return smallest // batch_size


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
    num_screening_images: int = 1000,
    num_best: int = 10,
) -> list[Ranked]:
    """Find the best architectures by their loss: screen all, evaluate a few.

    Args:
      evaluate: `(arch, split) -> metrics` with a `loss`, as in `SearchResult`.
      archs: the candidates; equal ones are ranked once.
      split: the images to judge by.
      num_screening_images: how many of them all candidates are screened with.
      num_best: how many candidates are then evaluated with all images.

    Returns:
      The best ones, best first; losses that are not finite come last.
    """
    distinct: dict[bytes, tuple[int, np.ndarray]] = {}
    for index, arch in enumerate(map(np.asarray, archs)):
        distinct.setdefault(arch.tobytes(), (index, arch))
    candidates = list(distinct.values())

    def by_loss(entries: list[Ranked]) -> list[Ranked]:
        losses = [entry.metrics["loss"] for entry in entries]
        return [entries[i] for i in np.argsort(losses, stable=True)]

    def judge(candidates, images: Split) -> list[Ranked]:
        return by_loss(
            [
                Ranked(arch, index, evaluate(jnp.asarray(arch), images))
                for index, arch in candidates
            ]
        )

    if len(candidates) > num_best and split.labels.size > num_screening_images:
        screening = Split(*(leaf[:num_screening_images] for leaf in split))
        screened = judge(candidates, screening)[:num_best]
        candidates = [(entry.position, entry.arch) for entry in screened]
    return judge(candidates, split)[:num_best]
