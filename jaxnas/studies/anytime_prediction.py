"""Search for networks that predict at any time (Graph HyperNetworks, section 4.2).

A hypernetwork is trained on random networks with exits. The candidate with the largest
area under its predicted curve of accuracy over computation is trained from scratch, and
so are random ones, as networks with running statistics.
"""

import functools
import os
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from jaxnas import analysis, genotypes, metrics, train
from jaxnas.studies.images import StudyImages, train_on_random_architectures
from jaxnas.studies.network_training import NetworkTraining, train_network
from jaxnas.types import Key, Params, SearchSpace, Supernet, WeightProvider


class AnytimeNetwork(NamedTuple):
    """A network with exits, and what is known about it.

    Attributes:
      name: how the report calls it.
      genotype: the architecture.
      flops: `[num_exits]`, multiply-adds for one image until each exit.
      predicted: `[num_exits]`, accuracies with generated weights, fractions. These are
        normalized by the statistics of each batch, on which they therefore depend.
      trained: `[num_seeds, num_exits]`, accuracies of `networks.anytime` after training
        from scratch, once for each seed. It has running statistics, so that these are
        accuracies of one image at a time.
    """

    name: str
    genotype: genotypes.AnytimeGenotype
    flops: Sequence[float] | np.ndarray
    predicted: Sequence[float] | np.ndarray
    trained: Sequence[Sequence[float]] | np.ndarray

    def area(self, accuracies: Sequence[float] | np.ndarray, budget: float) -> float:
        """The mean of some accuracies of its exits over all budgets up to this."""
        return analysis.area_under_accuracy_flops(self.flops, accuracies, budget)

    def trained_areas(self, budget: float) -> list[float]:
        """The area after each training, `[num_seeds]`."""
        return [self.area(accuracies, budget) for accuracies in self.trained]


class HypernetworkTraining(NamedTuple):
    """Training of a hypernetwork.

    Attributes:
      provider: the hypernetwork of the supernet that is searched.
      space: of the random architectures it learns on, whose vectors are those of the
        supernet's space; they may be smaller.
      optimizer: for its parameters.
      num_epochs: passes through the training images.
      key: determines everything random.
      num_archs: architectures in one step.
      epoch_metrics: `params -> metrics` for the log line of each epoch.
    """

    provider: WeightProvider
    space: SearchSpace
    optimizer: optax.GradientTransformation
    num_epochs: int
    key: Key
    num_archs: int = 1
    epoch_metrics: Callable[[Params], dict[str, float]] | None = None


def anytime(
    net: Supernet,
    images: StudyImages,
    candidates: Sequence[Any],
    random: Sequence[Any],
    hypernetwork: HypernetworkTraining,
    training: NetworkTraining,
    *,
    channels: int,
    budget: float,
    workdir: str | os.PathLike[str],
) -> list[AnytimeNetwork]:
    """Find the network with the best curve of accuracy over computation.

    Args:
      net: the supernet with exits.
      images: training, validation (for the ranking) and test images.
      candidates: architectures that the hypernetwork ranks.
      random: architectures to compare with.
      hypernetwork: how it learns.
      training: how the found network and the random ones are trained.
      channels: of the supernet, for the cost of its exits.
      budget: most multiply-adds for one image; areas are means over all budgets up to
        it.
      workdir: folder of the run, with which an interrupted one continues: `ghn/`, the
        logs `candidates.jsonl` and `trained.jsonl`, and below `networks/` a folder for
        each training.

    Returns:
      The found network, then the random ones.

    Raises:
      Diverged: if a training loss stops being finite.
      Interrupted: after a signal; the state has been saved.
    """
    folder = pathlib.Path(workdir)
    params = functools.cache(
        lambda: train_on_random_architectures(
            net,
            hypernetwork.provider,
            hypernetwork.space,
            train.multi_exit_classification(),
            hypernetwork.optimizer,
            images,
            key=hypernetwork.key,
            num_epochs=hypernetwork.num_epochs,
            num_archs=hypernetwork.num_archs,
            description="ghn",
            epoch_metrics=hypernetwork.epoch_metrics,
            workdir=folder / "ghn",
        )
    )
    evaluate = train.make_eval_fn(
        net, hypernetwork.provider, train.multi_exit_classification(), images.pipeline
    )

    def evaluate_generated(arch: Any, split: Any) -> dict[str, float]:
        return evaluate(params(), arch, split)

    def flops(arch: Any) -> np.ndarray:
        return analysis.exit_costs(
            net.space.decode(arch),
            channels,
            images.dataset.num_classes,
            images.dataset.train.image_shape,
        )

    found = _select(evaluate_generated, flops, images, candidates, budget, folder)
    archs = [found, *random]
    names = ["found", *(f"random {i}" for i in range(1, len(archs)))]

    def measure(i: int) -> dict[str, float]:
        # As candidates are selected: normalized by the statistics of each batch.
        test = images.dataset.test
        parts = {"predicted": evaluate_generated(archs[i], test)}
        genotype = net.space.decode(archs[i])
        trained = train_network(
            training,
            train.multi_exit_classification(),
            images,
            genotype,
            names[i],
            folder / "networks",
        )
        for seed, result in enumerate(trained):
            print(
                f"{names[i]} trained, seed {seed}: test accuracy "
                f"{result.test['accuracy']:.1%} at the last exit",
                flush=True,
            )
            parts[f"trained_{seed}"] = result.test
        return {
            f"{part}/{name}": value
            for part, means in parts.items()
            for name, value in means.items()
        }

    lines = metrics.measure_missing(folder / "trained.jsonl", archs, measure)

    def network(name: str, arch: Any, line: dict[str, float]) -> AnytimeNetwork:
        def accuracies(part: str) -> list[float]:
            prefix = f"{part}/"
            return train.exit_accuracies(
                {
                    key.removeprefix(prefix): value
                    for key, value in line.items()
                    if key.startswith(prefix)
                }
            )

        return AnytimeNetwork(
            name,
            net.space.decode(arch),
            flops(arch),
            accuracies("predicted"),
            [accuracies(f"trained_{seed}") for seed in range(training.num_seeds)],
        )

    return list(map(network, names, archs, lines))


def _select(
    evaluate: Callable[..., dict[str, float]],
    flops: Callable[[Any], np.ndarray],
    images: StudyImages,
    candidates: Sequence[Any],
    budget: float,
    folder: pathlib.Path,
) -> Any:
    """The candidate with the largest area by the validation images."""
    lines = metrics.measure_missing(
        folder / "candidates.jsonl",
        candidates,
        lambda i: evaluate(candidates[i], images.splits.validation),
        description="rank",
    )
    areas = [
        analysis.area_under_accuracy_flops(
            flops(arch), train.exit_accuracies(line), budget
        )
        for arch, line in zip(candidates, lines, strict=True)
    ]
    print(
        f"predicted area of {len(areas)} candidates: {statistics.fmean(areas):.1%} on "
        f"average, {max(areas):.1%} at best",
        flush=True,
    )
    return candidates[areas.index(max(areas))]
