"""Rank correlation of performance predictors (Graph HyperNetworks, section 4.3).

Architectures are trained one by one; their stand-alone accuracies are correlated with
the scores of performance predictors: a few steps of training, shared weights, or the
weights that a hypernetwork predicts.
"""

import functools
import hashlib
import itertools
import math
import os
import pathlib
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxnas import analysis, metrics, train, weights
from jaxnas.studies.images import StudyImages, train_on_random_architectures
from jaxnas.types import Key, Params, SearchSpace, Supernet, WeightProvider


class EarlyScores(NamedTuple):
    """Scores after a few steps of a stand-alone training of each architecture.

    That training is another one than those of the stand-alone accuracies, whose first
    steps would share initial weights, batches and so part of the noise with them.

    Attributes:
      snapshot_steps: after how many optimizer steps scores are taken, ascending.
      key: determines everything random.
    """

    snapshot_steps: Sequence[int]
    key: Key


class TrainedWeights(NamedTuple):
    """Scores with weights that were trained with random architectures.

    Attributes:
      name: how tables call it.
      folder: name of its folder.
      provider: of the weights of the scored supernet.
      train_net: the supernet it is trained with.
      train_provider: of its weights, with the same parameters.
      optimizer: for these parameters.
      num_epochs: passes through the training images.
      key: determines everything random.
      num_seeds: trainings, each of which scores all architectures.
      num_archs: architectures in one step.
      are_generated: whether weights are computed for each architecture, and not there.
      epoch_metrics: `params -> metrics` for the log line of each epoch.
    """

    name: str
    folder: str
    provider: WeightProvider
    train_net: Supernet
    train_provider: WeightProvider
    optimizer: optax.GradientTransformation
    num_epochs: int
    key: Key
    num_seeds: int = 1
    num_archs: int = 1
    are_generated: bool = False
    epoch_metrics: Callable[[Params], dict[str, float]] | None = None


class Coefficients(NamedTuple):
    """A row of the tables of coefficients.

    Attributes:
      name: how the tables call it.
      overall: by coefficient, over all architectures.
      top: the same over the upper half by stand-alone accuracy.
    """

    name: str
    overall: Mapping[str, analysis.Correlation]
    top: Mapping[str, analysis.Correlation]


class PredictorScores(NamedTuple):
    """A performance predictor, and how well it ranks.

    Attributes:
      name: how the report calls it.
      scores: `[runs, num]`, its accuracies on validation images, fractions.
      overall: the coefficients of `analysis.correlations` over all architectures.
      top: the same over the upper half by stand-alone accuracy.
      preparation_seconds: what was done once for all architectures; `None` if nothing.
      weights_seconds: time to get weights for one architecture, a mean; `None` if they
        are there.
      evaluation_seconds: time to get weights for one and run the validation images.
      num_diverged: scores whose validation loss is not finite, over all runs.
    """

    name: str
    scores: np.ndarray
    overall: Mapping[str, analysis.Correlation]
    top: Mapping[str, analysis.Correlation]
    preparation_seconds: float | None
    weights_seconds: float | None
    evaluation_seconds: float
    num_diverged: int = 0


class CorrelationStudy(NamedTuple):
    """The result of a study.

    Attributes:
      standalone: `[seeds, num]`, test accuracies of the architectures, each trained
        stand-alone; one that is not finite counts as 0.
      num_diverged: trainings whose test loss is not finite.
      predictors: the predictors, one for each step of `EarlyScores`.
      ceiling: coefficients of one training against another seed's, `None` with one.
      differences: of the coefficients of all pairs of predictors, later minus earlier.
    """

    standalone: np.ndarray
    num_diverged: int
    predictors: list[PredictorScores]
    ceiling: Coefficients | None
    differences: list[Coefficients]


def sample_distinct(space: SearchSpace, key: Key, num: int) -> list[np.ndarray]:
    """Different random architectures; of a larger number, the first are the same.

    Args:
      space: the search space.
      key: determines the architectures.
      num: how many.

    Returns:
      int32 vectors `[num_decisions]`.

    Raises:
      ValueError: if the space has fewer.
    """
    if num > space.num_architectures:
        raise ValueError(
            f"num is {num}, but the space has only {space.num_architectures} "
            "architectures"
        )
    sample = jax.jit(lambda i: space.sample(jax.random.fold_in(key, i)))
    numbers, distinct = itertools.count(), {}
    while len(distinct) < num:
        arch = np.asarray(sample(next(numbers)))
        distinct.setdefault(arch.tobytes(), arch)
    return list(distinct.values())


def correlation(
    net: Supernet,
    images: StudyImages,
    archs: Sequence[Any],
    predictors: Sequence[EarlyScores | TrainedWeights],
    optimizer: optax.GradientTransformation,
    *,
    key: Key,
    num_steps: int,
    num_seeds: int = 1,
    num_resamples: int = 2000,
    resampling_seed: int = 0,
    workdir: str | os.PathLike[str],
    standalone_dir: str | os.PathLike[str] | None = None,
) -> CorrelationStudy:
    """Correlate the scores of predictors with stand-alone accuracies.

    Results are keyed by architecture, so that architectures, predictors and seeds may
    be added, and the order of architectures may change; what is in the folders is not
    measured again.

    Args:
      net: the supernet within which architectures are trained and scored.
      images: training, validation (for the scores) and test images.
      archs: int32 vectors `[num_decisions]`, different ones.
      predictors: what is compared.
      optimizer: for the training of single architectures, of stand-alone accuracies
        and early scores alike.
      key: determines everything random in the trainings of stand-alone accuracies.
      num_steps: their length.
      num_seeds: trainings of each architecture. Scores are compared with the mean of
        their accuracies, and two or more give the noise ceiling.
      num_resamples: resamples of the bootstrap of the intervals.
      resampling_seed: determines them.
      workdir: folder of the logs and of trained weights.
      standalone_dir: folder of the trainings of single architectures, which studies
        that train alike can share; `standalone` in `workdir` if `None`.

    Returns:
      The result.

    Raises:
      ValueError: if there is no predictor, steps are not ascending or too many, or a
        log is damaged.
      Interrupted: after a signal; the state has been saved.
    """
    if not predictors:
        raise ValueError("there are 0 predictors; expected at least 1")
    for predictor in predictors:
        if (
            isinstance(predictor, EarlyScores)
            and max(predictor.snapshot_steps) > num_steps
        ):
            raise ValueError(
                f"snapshot_steps is {[*predictor.snapshot_steps]}; expected at most "
                f"{num_steps}, the steps of the whole training"
            )
    study = _Study(
        net,
        images,
        [np.asarray(arch) for arch in archs],
        optimizer,
        num_steps,
        pathlib.Path(workdir),
        pathlib.Path(standalone_dir or pathlib.Path(workdir, "standalone")),
    )
    study.standalone_folder.mkdir(parents=True, exist_ok=True)
    trained = _measure_standalone(study, key, num_seeds)
    standalone = _accuracies(trained, "test/accuracy")
    options = {"num_resamples": num_resamples, "seed": resampling_seed}
    coefficients = functools.partial(_overall_and_top, options)
    scored: list[PredictorScores] = []
    for predictor in predictors:
        if isinstance(predictor, TrainedWeights):
            found = _scores_with_weights(study, predictor)
        else:
            found = _early_scores(study, predictor)
        for name, runs, seconds, has_weights in found:
            scores = _accuracies(runs, "accuracy")
            lines = list(itertools.chain.from_iterable(runs))
            weights_seconds = None
            if not has_weights:
                weights_seconds = statistics.fmean(x["weights_seconds"] for x in lines)
            scored.append(
                PredictorScores(
                    name,
                    scores,
                    **coefficients(analysis.correlations, scores, standalone.mean(0)),
                    preparation_seconds=seconds,
                    weights_seconds=weights_seconds,
                    evaluation_seconds=statistics.fmean(
                        line["seconds"] for line in lines
                    ),
                    num_diverged=_count_diverged(runs, "loss"),
                )
            )
    ceiling = None
    if num_seeds > 1:
        ceiling = Coefficients(
            "Noise ceiling", **coefficients(analysis.noise_ceiling, standalone)
        )
    differences = [
        Coefficients(
            f"{second.name} minus {first.name}",
            **coefficients(
                analysis.correlation_differences,
                second.scores,
                first.scores,
                standalone.mean(0),
            ),
        )
        for first, second in itertools.combinations(scored, 2)
    ]
    num_diverged = _count_diverged(trained, "test/loss")
    return CorrelationStudy(standalone, num_diverged, scored, ceiling, differences)


class _Study(NamedTuple):
    """Arguments of all parts of a study."""

    net: Supernet
    images: StudyImages
    archs: list[np.ndarray]
    optimizer: optax.GradientTransformation
    num_steps: int
    folder: pathlib.Path
    standalone_folder: pathlib.Path

    def make_train_fn(self, snapshot_steps: Sequence[int]) -> Callable[..., Any]:
        """The training of single architectures, up to the last of some steps."""
        return train.make_standalone_train_fn(
            self.net,
            train.classification(),
            self.optimizer,
            self.images.splits.train,
            self.images.pipeline,
            snapshot_steps=snapshot_steps,
        )

    def make_eval_fn(self, provider: WeightProvider) -> Callable[..., Any]:
        """The evaluation that all scores and accuracies come from."""
        return train.make_eval_fn(
            self.net, provider, train.classification(), self.images.pipeline
        )


_Scores = tuple[str, list[list[dict[str, float]]], float | None, bool]
"""Name, lines of all runs, seconds of preparation, and whether weights are there."""


def _measure_standalone(
    study: _Study, key: Key, num_seeds: int
) -> list[list[dict[str, float]]]:
    """Train every architecture stand-alone, with each seed, and test it.

    The key of a training depends on seed and architecture only, so that studies can
    share the folder.
    """
    archs, folder = study.archs, study.standalone_folder
    fit = study.make_train_fn([study.num_steps])
    evaluate = study.make_eval_fn(weights.shared(study.net))

    def measure(i: int, seed: int, running: pathlib.Path) -> dict[str, float]:
        name = f"architecture {i + 1}/{len(archs)}, seed {seed}"
        arch_key = _key_of(jax.random.fold_in(key, seed), archs[i])
        (snapshot,) = fit(archs[i], arch_key, workdir=running, description=name)
        means = evaluate(snapshot.weights, archs[i], study.images.dataset.test)
        print(f"{name}: trained, test accuracy {means['accuracy']:.1%}", flush=True)
        return {f"test/{metric}": value for metric, value in means.items()}

    def measured(i: int, seed: int) -> dict[str, float]:
        running = folder / f"training-{seed}-{_digest(archs[i])}"
        (line,) = metrics.measure_missing(
            folder / f"standalone-{seed}.jsonl",
            [archs[i]],
            lambda _: measure(i, seed, running),
        )
        # Checkpoints are of no use once the result has been logged.
        shutil.rmtree(running, ignore_errors=True)
        return line

    return [[measured(i, seed) for i in range(len(archs))] for seed in range(num_seeds)]


def _early_scores(study: _Study, predictor: EarlyScores) -> list[_Scores]:
    """Score every architecture during a training of its own."""
    archs, splits = study.archs, study.images.splits
    fit = study.make_train_fn(predictor.snapshot_steps)
    evaluate = metrics.timed(study.make_eval_fn(weights.shared(study.net)))

    def measure(i: int) -> dict[str, float]:
        line = {}
        for snapshot in fit(archs[i], _key_of(predictor.key, archs[i])):
            assert snapshot.seconds is not None  # as it has no folder
            means, seconds = evaluate(snapshot.weights, archs[i], splits.validation)
            line |= {f"{snapshot.step}/{name}": value for name, value in means.items()}
            line |= {f"{snapshot.step}/weights_seconds": snapshot.seconds}
            line |= {f"{snapshot.step}/seconds": snapshot.seconds + seconds}
        return line

    steps = "-".join(map(str, predictor.snapshot_steps))
    lines = metrics.measure_missing(
        study.standalone_folder / f"sgd-{steps}.jsonl",
        archs,
        measure,
        description="sgd",
    )

    def at_step(step: int) -> list[dict[str, float]]:
        names = ("loss", "accuracy", "weights_seconds", "seconds")
        return [{name: line[f"{step}/{name}"] for name in names} for line in lines]

    return [
        (
            f"SGD, {'all ' if step == study.num_steps else ''}{step:,} steps",
            [at_step(step)],
            None,
            False,
        )
        for step in predictor.snapshot_steps
    ]


def _scores_with_weights(study: _Study, predictor: TrainedWeights) -> list[_Scores]:
    """Score every architecture with the shared or generated weights of each seed."""
    archs = study.archs
    make_weights = metrics.timed(jax.jit(predictor.provider.apply))
    evaluate = metrics.timed(study.make_eval_fn(predictor.provider))

    def folder_of(seed: int) -> pathlib.Path:
        return study.folder / predictor.folder / f"seed-{seed}"

    def of_seed(seed: int) -> list[dict[str, float]]:
        name = f"{predictor.folder}, seed {seed}"
        trained = functools.cache(
            lambda: _train_weights(study, predictor, seed, name, folder_of(seed))
        )
        log = folder_of(seed) / "scores.jsonl"
        description = None
        if not log.exists():
            trained()  # its progress line cannot stand within the one of the scores
            description = f"{name}, scores"

        def measure(i: int) -> dict[str, float]:
            params = trained()
            _, weights_seconds = make_weights(params, archs[i])
            validation = study.images.splits.validation
            means, seconds = evaluate(params, archs[i], validation)
            return means | {"weights_seconds": weights_seconds, "seconds": seconds}

        return metrics.measure_missing(log, archs, measure, description=description)

    runs = [of_seed(seed) for seed in range(predictor.num_seeds)]
    logs = [
        metrics.read(folder_of(seed) / "metrics.jsonl")
        for seed in range(predictor.num_seeds)
    ]
    seconds = _preparation_seconds(study, predictor, logs)
    return [(predictor.name, runs, seconds, not predictor.are_generated)]


def _train_weights(
    study: _Study,
    predictor: TrainedWeights,
    seed: int,
    description: str,
    folder: pathlib.Path,
) -> Params:
    """Train shared weights or a hypernetwork on random architectures."""
    return train_on_random_architectures(
        predictor.train_net,
        predictor.train_provider,
        predictor.train_net.space,
        train.classification(),
        predictor.optimizer,
        study.images,
        key=jax.random.fold_in(predictor.key, seed),
        num_epochs=predictor.num_epochs,
        num_archs=predictor.num_archs,
        description=description,
        epoch_metrics=predictor.epoch_metrics,
        workdir=folder,
    )


def _preparation_seconds(
    study: _Study,
    predictor: TrainedWeights,
    logs: Sequence[Sequence[Mapping[str, Any]]],
) -> float | None:
    """Seconds of one training of weights, by the speeds in the logs."""
    speeds = [
        entry["images_per_second"]
        for entry in itertools.chain.from_iterable(logs)
        if "images_per_second" in entry
    ]
    if not speeds:
        return None  # an epoch of a single step has none, as it is compiled
    batch_size = study.images.pipeline.batch_size
    schedule = train.search_schedule(study.images.splits, batch_size, 0)
    num_images = predictor.num_epochs * schedule.weight_steps * batch_size
    return num_images * predictor.num_archs * statistics.fmean(1 / s for s in speeds)


def _digest(arch: Any) -> str:
    """A short name of an architecture, for folders and keys."""
    data = np.asarray(arch, "<i4").tobytes()
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _key_of(key: Key, arch: Any) -> Key:
    """A key that depends on the architecture, wherever in the list it is."""
    return jax.random.fold_in(key, int(_digest(arch)[:8], 16))


def _accuracies(runs: Sequence[Sequence[Mapping[str, float]]], name: str) -> np.ndarray:
    """Accuracies `[runs, num]`; one that is not finite is the worst there is."""
    values = np.array([[line[name] for line in lines] for lines in runs])
    return np.where(np.isfinite(values), values, 0.0)


def _count_diverged(runs: Sequence[Sequence[Mapping[str, float]]], name: str) -> int:
    """Number of losses that are not finite."""
    return sum(not math.isfinite(line[name]) for lines in runs for line in lines)


def _overall_and_top(
    options: Mapping[str, int], function: Callable[..., Any], *arrays: np.ndarray
) -> dict[str, Any]:
    """A function of `analysis` over all architectures, and over the upper half."""
    return {
        part: function(*arrays, only_top_half=only_top_half, **options)
        for part, only_top_half in (("overall", False), ("top", True))
    }
