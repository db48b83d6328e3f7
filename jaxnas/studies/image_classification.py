"""From images to a network that classifies them, in the time that there is.

A cell is searched, and networks are trained from scratch: of the found cell, of a
random one with as many parameters, and a plain residual network with as many
operations. How large they are and how long they train follows from what a step takes on
this machine.
"""

import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxnas import (
    _files,
    analysis,
    data,
    genotypes,
    networks,
    optim,
    parallel,
    search,
    spaces,
    supernets,
    train,
    weights,
)
from jaxnas.studies import architecture_search
from jaxnas.studies.classifier_testing import (
    ClassifierResults,
    classifier_results,
    trained_network,
)
from jaxnas.studies.images import StudyImages
from jaxnas.types import Key, Supernet

NUM_NODES = 5
NUM_BLOCKS = 3
LEARNING_RATE = 0.025

SEARCH_SHARE = 0.3
TRAINING_SHARE = 0.9
"""How much of the time is over when the search ends, and when the trainings do."""

TIMED_STEPS = 8


class ClassifierSize(NamedTuple):
    """Size of a network of cells.

    Attributes:
      channels: of the first cells.
      num_cells: cells, two of which reduce.
    """

    channels: int
    num_cells: int


SEARCH_SIZES = (
    ClassifierSize(8, 3),
    ClassifierSize(8, 5),
    ClassifierSize(16, 5),
    ClassifierSize(16, 8),
)
NETWORK_SIZES = (
    ClassifierSize(8, 5),
    ClassifierSize(16, 5),
    ClassifierSize(16, 8),
    ClassifierSize(24, 8),
    ClassifierSize(36, 8),
    ClassifierSize(36, 14),
    ClassifierSize(36, 20),
)
TIMED_SEARCH, TIMED_NETWORK = SEARCH_SIZES[1], NETWORK_SIZES[1]


class ClassifierPlan(NamedTuple):
    """Size of networks, and how long they are trained.

    Attributes:
      size: of the networks of cells.
      num_epochs: length of the search, or of each training.
      seconds: how long all of it should take by what was measured; `None` if nothing
        was.
    """

    size: ClassifierSize
    num_epochs: int
    seconds: float | None = None


class Lengths(NamedTuple):
    """Lengths that are worth their time, in epochs.

    Attributes:
      least: what is too short to be of use.
      enough: a larger network is better than more epochs.
      most: more is a waste of time.
    """

    least: int
    enough: int
    most: int


SEARCH_LENGTHS = Lengths(3, 25, 100)
TRAINING_LENGTHS = Lengths(5, 60, 300)


class TimeBudgetError(ValueError):
    """The time is too short for anything useful."""


class TrainedClassifier(NamedTuple):
    """A network that has been trained from scratch.

    Attributes:
      name: `"found"`, `"random"` or `"residual"`.
      network: the Flax module.
      num_params: number of trainable parameters.
      flops: floating-point operations of one image's evaluation.
      speeds: measured on this device, for each batch size.
      trained: for each seed, the network with its parameters, for `networks.save`.
      results: on the test images, one for each seed.
      seconds: that training and testing took, of all seeds; `None` if an earlier
        process has done a part of it.
    """

    name: str
    network: nn.Module
    num_params: int
    flops: float
    speeds: Sequence[networks.Speed]
    trained: Sequence[networks.TrainedNetwork]
    results: Sequence[ClassifierResults]
    seconds: float | None


class ImageClassifierStudy(NamedTuple):
    """Trained networks, and the search that found one of them.

    Attributes:
      search: what was found.
      search_plan: size and length of the search.
      training_plan: size of the found network, and length of each training.
      trained: the found network, the random and the residual one.
      differences: accuracy of the found one minus that of the others, by their names.
    """

    search: architecture_search.SearchStudy
    search_plan: ClassifierPlan
    training_plan: ClassifierPlan
    trained: Sequence[TrainedClassifier]
    differences: Mapping[str, analysis.Difference]


def classifier_space() -> spaces.MicroSpace:
    """The search space, that of ENAS and ASNG-NAS."""
    return spaces.enas_micro(NUM_NODES)


def make_supernet(dataset: data.ImageDataset, size: ClassifierSize) -> Supernet:
    """The supernet of a search, that of ASNG-NAS."""
    return supernets.micro(
        classifier_space(),
        size.channels,
        size.num_cells,
        dataset.num_classes,
        image_channels=dataset.train.image_shape[-1],
    )


def make_cell_network(
    genotype: genotypes.Genotype,
    dataset: data.ImageDataset,
    size: ClassifierSize,
    *,
    batch_axis: str | None = None,
) -> nn.Module:
    """The network of two cells for the images and classes of a data set."""
    return networks.micro(
        genotype,
        size.channels,
        size.num_cells,
        dataset.num_classes,
        cell_output="projection",
        batch_axis=batch_axis,
    )


def make_networks(
    found: genotypes.Genotype,
    random: genotypes.Genotype,
    dataset: data.ImageDataset,
    size: ClassifierSize,
    *,
    batch_axis: str | None = None,
) -> dict[str, nn.Module]:
    """The networks to compare with the found one, none of which costs more.

    Args:
      found: cells that a search has found.
      random: cells that were drawn.
      dataset: whose images and classes they are for.
      size: of the network of the found cells; that of random ones has as many cells
        and at most as many parameters, the residual one at most as many operations.
      batch_axis: as for `networks.micro`.
    """
    num_classes, image_shape = dataset.num_classes, dataset.train.image_shape

    def residual(channels: int) -> nn.Module:
        return networks.residual(
            channels, NUM_BLOCKS, num_classes, batch_axis=batch_axis
        )

    def of_random(channels: int) -> nn.Module:
        smaller = size._replace(channels=channels)
        return make_cell_network(random, dataset, smaller, batch_axis=batch_axis)

    of_found = make_cell_network(found, dataset, size, batch_axis=batch_axis)
    limits = networks.cost(of_found, image_shape)
    return {
        "found": of_found,
        "random": of_random(
            networks.channels_for_budget(of_random, limits.num_params, image_shape)
        ),
        "residual": residual(
            networks.channels_for_flops(residual, limits.flops, image_shape)
        ),
    }


def plan(
    seconds_of_epoch: Callable[[ClassifierSize], float],
    sizes: Sequence[ClassifierSize],
    lengths: Lengths,
    seconds: float,
    *,
    may_take_longer: bool = False,
) -> ClassifierPlan:
    """Choose the largest networks that train long enough in some time.

    Args:
      seconds_of_epoch: how long an epoch takes, by size.
      sizes: what to choose from, the smallest first.
      lengths: what is long enough.
      seconds: the time.
      may_take_longer: whether the smallest networks train for `lengths.least` also if
        there is less time.

    Raises:
      TimeBudgetError: if there is not even time for that, and it may not take longer.
    """
    best = None
    for size in sizes:
        one = seconds_of_epoch(size)
        num_epochs = min(int(seconds / one), lengths.most)
        if best is not None and num_epochs < lengths.enough:
            break
        if num_epochs < lengths.least and may_take_longer:
            num_epochs = lengths.least
        if num_epochs < lengths.least:
            raise TimeBudgetError(
                f"an epoch takes {one:.1f} s, and {max(seconds, 0):.0f} s are left "
                f"for it; expected time for at least {lengths.least} epochs"
            )
        best = ClassifierPlan(size, num_epochs, num_epochs * one)
    assert best is not None
    return best


def _first_batches(split: data.Split, batch_size: int) -> data.Split:
    num = max(1, min(TIMED_STEPS, split.num_images // batch_size)) * batch_size
    return data.Split(split.images[:num], split.labels[:num])


def search_seconds(images: StudyImages, size: ClassifierSize) -> float:
    """Measure how long a step of a search takes, once it has been compiled."""
    net, batch_size = make_supernet(images.dataset, size), images.pipeline.batch_size
    ends: list[float] = []

    def note_time(params: Any) -> dict[str, float]:
        jax.block_until_ready(params)
        ends.append(time.perf_counter())
        return {}

    splits = train.SearchSplits(*(_first_batches(s, batch_size) for s in images.splits))
    schedule = train.search_schedule(splits, batch_size, None)
    train.search(
        net,
        weights.shared(net),
        search.asng(net.space),
        train.classification(),
        optim.sgd(LEARNING_RATE),
        splits,
        images.pipeline,
        train.SearchSettings(num_epochs=2),
        key=jax.random.key(0),
        epoch_metrics=note_time,
        description="timing a search",
    )
    return (ends[-1] - ends[-2]) / schedule.steps_per_epoch


class StepTime(NamedTuple):
    """What a training takes.

    Attributes:
      compilation: seconds before the first step.
      step: seconds of a step.
    """

    compilation: float
    step: float


def training_seconds(images: StudyImages, network: nn.Module) -> StepTime:
    """Measure how long a step of a training takes, and its compilation."""
    batch_size = images.pipeline.batch_size
    split = _first_batches(images.dataset.train, batch_size)
    run = train.make_train_fn(
        network,
        train.classification(),
        optim.sgd(LEARNING_RATE),
        split,
        images.pipeline,
        num_epochs=1,
    )
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        result = run(jax.random.key(0), description="timing a training")
        jax.block_until_ready(result.state.params)
        seconds.append(time.perf_counter() - start)
    first, second = seconds
    return StepTime(max(first - second, 0.0), second / (split.num_images // batch_size))


def _flops(network: nn.Module, dataset: data.ImageDataset) -> float:
    return networks.cost(network, dataset.train.image_shape).flops


def plan_search(images: StudyImages, seconds: float, random: Any) -> ClassifierPlan:
    """Choose size and length of a search.

    Args:
      images: what it is about.
      seconds: how long it may take, measuring included.
      random: cells whose networks tell how time grows with size.

    Raises:
      TimeBudgetError: as `plan` does.
    """
    start = time.perf_counter()
    step = search_seconds(images, TIMED_SEARCH)
    batch_size = images.pipeline.batch_size
    schedule = train.search_schedule(images.splits, batch_size, None)

    def flops(size: ClassifierSize) -> float:
        network = make_cell_network(random, images.dataset, size)
        return _flops(network, images.dataset)

    timed = flops(TIMED_SEARCH)
    left = seconds - (time.perf_counter() - start)
    return plan(
        lambda size: schedule.steps_per_epoch * step * flops(size) / timed,
        SEARCH_SIZES,
        SEARCH_LENGTHS,
        left,
    )


def plan_trainings(
    images: StudyImages,
    found: genotypes.Genotype,
    seconds: float,
    num_seeds: int,
) -> ClassifierPlan:
    """Choose the size of the networks to compare, and the length of each training.

    What has been searched is trained for a few epochs at least, whatever time is left.

    Args:
      images: what they are trained on.
      found: cells that a search has found.
      seconds: how long all trainings together may take, measuring included.
      num_seeds: trainings of each.
    """
    start = time.perf_counter()
    dataset = images.dataset

    def of_found(size: ClassifierSize) -> nn.Module:
        return make_cell_network(found, dataset, size)

    timed = of_found(TIMED_NETWORK)
    measured = training_seconds(images, timed)
    seconds_per_flop = measured.step / _flops(timed, dataset)
    steps_per_epoch = images.pipeline.steps_per_epoch(dataset.train)

    def seconds_of_epoch(size: ClassifierSize) -> float:
        # The other two are about as large.
        flops = 3 * num_seeds * _flops(of_found(size), dataset)
        return steps_per_epoch * flops * seconds_per_flop

    left = seconds - (time.perf_counter() - start) - 3 * measured.compilation
    return plan(
        seconds_of_epoch, NETWORK_SIZES, TRAINING_LENGTHS, left, may_take_longer=True
    )


def image_classifier(
    images: StudyImages,
    *,
    key: Key,
    workdir: str | os.PathLike[str],
    seconds: float,
    num_seeds: int = 1,
    search_plan: ClassifierPlan | None = None,
    training_plan: ClassifierPlan | None = None,
    num_candidates: int = 20,
) -> ImageClassifierStudy:
    """Search for a cell, and train its network beside ones that need no search.

    What is measured on the machine is kept in the folder as soon as it is known, so
    that an interrupted run continues with the same plans, and ends bit for bit like
    one that was not interrupted.

    Args:
      images: what is to be classified; some are held out for the searcher.
      key: determines everything random, but for the plans.
      workdir: folder of the run: `plans.json`, `genotype.json`, `summary.json`, the
        search in `search` and each training in a folder of its own.
      seconds: how long everything may take, about. What there is no plan for is planned
        by measuring steps, so that it takes this long. Trainings take longer where less
        than a few epochs would be left for them.
      num_seeds: trainings of each network.
      search_plan: size and length of the search, if it is not to be planned.
      training_plan: size of the found network and length of the trainings, likewise.
      num_candidates: as for `Selection`.

    Returns:
      The result.

    Raises:
      TimeBudgetError: if the time is too short for a search.
      ValueError: if there are fewer than two test images, or the images are smaller
        than a batch.
      Diverged: if a training loss stops being finite.
      Interrupted: after a signal; the state has been saved.

    Source: the search is that of ASNG-NAS (Akimoto et al. 2019, section 3.2), the
    trainings its SGD with one cosine, without auxiliary head and drop path.
    """
    dataset, folder = images.dataset, pathlib.Path(workdir)
    if dataset.test.num_images < 2:
        raise ValueError(
            f"there are {dataset.test.num_images} test images; expected 2 or more"
        )
    start = time.perf_counter()

    def left(share: float) -> float:
        return share * seconds - (time.perf_counter() - start)

    plans = _Plans(folder / "plans.json")
    search_key, random_key, train_key = jax.random.split(key, 3)
    space = classifier_space()
    (random_arch,) = architecture_search.random_architectures(space, random_key, 1)
    random = space.decode(random_arch)
    search_plan = plans.get("search", search_plan) or plans.keep(
        "search", plan_search(images, left(SEARCH_SHARE), random)
    )
    _announce("search", search_plan)
    found = _search(images, search_plan, search_key, num_candidates, folder / "search")
    genotype = found.found.genotype
    assert isinstance(genotype, genotypes.Genotype)
    genotypes.save(folder / "genotype.json", genotype)
    training_plan = plans.get("training", training_plan) or plans.keep(
        "training",
        plan_trainings(images, genotype, left(TRAINING_SHARE), num_seeds),
    )
    _announce(f"training of each of 3 networks, {num_seeds} seeds", training_plan)
    of_each = make_networks(
        genotype,
        random,
        dataset,
        training_plan.size,
        batch_axis=parallel.batch_axis(images.pipeline.on_devices()),
    )
    keys = jax.random.split(train_key, num_seeds)  # all see the same batches
    trained = [
        _train(name, network, images, training_plan, keys, folder / name)
        for name, network in of_each.items()
    ]
    right = {network.name: _right_answers(network) for network in trained}
    differences = {
        name: analysis.mean_difference(right["found"] - right[name])
        for name in right
        if name != "found"
    }
    study = ImageClassifierStudy(
        found, search_plan, training_plan, trained, differences
    )
    _files.write_json(folder / "summary.json", summary(study), indent=1)
    return study


class _Plans:
    """The plans of a run, in a file."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._plans: dict[str, Any] = {}
        if path.exists():
            self._plans = _files.parse_json(_files.read_text(path))

    def get(self, name: str, given: ClassifierPlan | None) -> ClassifierPlan | None:
        """The plan that is given, or the one of an earlier process."""
        if given is not None or name not in self._plans:
            return given
        *size, num_epochs, seconds = self._plans[name]
        return ClassifierPlan(ClassifierSize(*size), num_epochs, seconds)

    def keep(self, name: str, plan: ClassifierPlan) -> ClassifierPlan:
        """Write a plan, and return it."""
        self._plans[name] = [*plan.size, plan.num_epochs, plan.seconds]
        _files.write_json(self._path, self._plans)
        return plan


def _announce(what: str, plan: ClassifierPlan) -> None:
    expected = ""
    if plan.seconds is not None:
        expected = f", {plan.seconds / 60:.1f} minutes by what steps took"
    print(
        f"{what}: {plan.size.channels} channels, {plan.size.num_cells} cells, "
        f"{plan.num_epochs} epochs{expected}",
        flush=True,
    )


def _search(
    images: StudyImages,
    plan: ClassifierPlan,
    key: Key,
    num_candidates: int,
    workdir: pathlib.Path,
) -> architecture_search.SearchStudy:
    dataset, size = images.dataset, plan.size
    net = make_supernet(dataset, size)
    schedule = train.search_schedule(images.splits, images.pipeline.batch_size, None)
    return architecture_search.search(
        net,
        search.asng(net.space),
        optim.sgd(
            optim.cosine_by_epoch(
                LEARNING_RATE, plan.num_epochs, schedule.weight_steps
            ),
            clip_norm=5.0,
        ),
        images,
        train.SearchSettings(num_epochs=plan.num_epochs),
        architecture_search.Selection(num_candidates=num_candidates, num_random=8),
        key=key,
        make_network=lambda genotype: make_cell_network(genotype, dataset, size),
        workdir=workdir,
    )


def _train(
    name: str,
    network: nn.Module,
    images: StudyImages,
    plan: ClassifierPlan,
    keys: Key,
    workdir: pathlib.Path,
) -> TrainedClassifier:
    """Train a network with each seed, and test it."""
    dataset, pipeline = images.dataset, images.pipeline
    steps_per_epoch = pipeline.steps_per_epoch(dataset.train)
    run = train.make_train_fn(
        network,
        train.classification(),
        optim.sgd(
            optim.cosine_by_epoch(LEARNING_RATE, plan.num_epochs, steps_per_epoch),
            clip_norm=5.0,
        ),
        dataset.train,
        pipeline,
        num_epochs=plan.num_epochs,
        test=dataset.test,
    )
    print(f"training the {name} network", flush=True)
    trained, results, start = [], [], time.perf_counter()
    is_first = not workdir.exists()
    for seed, key in enumerate(keys):
        folder = workdir / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        result = run(key, workdir=folder, description=f"{name} {seed}")
        trained.append(trained_network(network, result.state, dataset, result.test))
        results.append(
            classifier_results(
                trained[-1], dataset.test, batch_size=pipeline.batch_size
            )
        )
    seconds = time.perf_counter() - start if is_first else None
    image_shape = dataset.train.image_shape
    return TrainedClassifier(
        name,
        network,
        *networks.cost(network, image_shape),
        [networks.measure_speed(network, image_shape, size) for size in (1, 64)],
        trained,
        results,
        seconds,
    )


def _right_answers(trained: TrainedClassifier) -> np.ndarray:
    """Share of the seeds that are right, for each test image."""
    return np.mean([result.metrics.is_right for result in trained.results], axis=0)


def summary(study: ImageClassifierStudy) -> dict[str, Any]:
    """The figures of a study, as JSON holds them."""
    rows = [
        {
            "name": one.name,
            "accuracies": [result.metrics.accuracy.value for result in one.results],
            "accuracy": one.results[0].metrics.accuracy._asdict(),
            "channels": vars(one.network)["channels"],
            "num_params": one.num_params,
            "flops": one.flops,
            "speeds": [speed._asdict() for speed in one.speeds],
            "seconds": one.seconds,
        }
        for one in study.trained
    ]
    return {
        "networks": rows,
        "found_minus": {
            name: difference._asdict() for name, difference in study.differences.items()
        },
        "plans": {
            "search": study.search_plan._asdict(),
            "training": study.training_plan._asdict(),
        },
    }
