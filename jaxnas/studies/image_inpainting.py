"""A search for an autoencoder that restores images, and what it is worth.

Akimoto et al. 2019, section 3.3: weights and searcher learn from masked images, and the
found autoencoder is trained from scratch. Here random ones of its space are, too.
"""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas import _files, analysis, data, genotypes, metrics, networks, train, weights
from jaxnas.studies.architecture_search import random_architectures
from jaxnas.studies.images import StudyImages
from jaxnas.studies.network_training import NetworkTraining, train_network
from jaxnas.train import batches
from jaxnas.types import Batch, Key, Params, Searcher, Supernet, Task

RESTORATION_METRICS = ("psnr", "ssim", "loss")
"""What restored images are judged by: decibels, similarity, mean squared error."""


class Autoencoder(NamedTuple):
    """An autoencoder and what is known about it.

    Attributes:
      name: how reports call it.
      genotype: the architecture.
      num_params: number of trainable parameters.
      flops: floating-point operations for one image.
      trained: `[num_seeds]`, `RESTORATION_METRICS` on the test images after each
        training from scratch.
    """

    name: str
    genotype: genotypes.AutoencoderGenotype
    num_params: int
    flops: float
    trained: Sequence[Mapping[str, float]]

    def values(self, metric: str) -> list[float]:
        """One of `RESTORATION_METRICS` after each training."""
        return [means[metric] for means in self.trained]


class Restorations(NamedTuple):
    """Images that an autoencoder has restored.

    Attributes:
      masked: float32 `[num, height, width, channels]` in [0, 1], what it was given.
      restored: what it made of them, clipped to [0, 1].
      original: what they were.
      psnr: float32 `[num]`, decibels.
    """

    masked: np.ndarray
    restored: np.ndarray
    original: np.ndarray
    psnr: np.ndarray


class InpaintingStudy(NamedTuple):
    """The result of a search for an autoencoder.

    Attributes:
      found: the found autoencoder.
      searched: its metrics on the test images with the weights of the search, which
        only rank architectures.
      random: random ones of the same space.
      num_epochs: length of the trainings from scratch, 0 if there were none.
      differences: means of the found one minus those of the random ones, by metric.
      restorations: test images restored by the found one after its first training, as
        `restore` returns them; empty without one.
      params: trained weights of the supernet.
    """

    found: Autoencoder
    searched: Mapping[str, float]
    random: list[Autoencoder]
    num_epochs: int
    differences: Mapping[str, analysis.Difference]
    restorations: Mapping[str, Restorations]
    params: Params


def inpainting(
    net: Supernet,
    searcher: Searcher,
    optimizer: optax.GradientTransformation,
    task: Task,
    images: StudyImages,
    settings: train.SearchSettings,
    training: NetworkTraining | None,
    *,
    key: Key,
    num_candidates: int | None = None,
    num_screening_images: int | None = 1000,
    num_random: int = 8,
    workdir: str | os.PathLike[str],
) -> InpaintingStudy:
    """Search for an autoencoder, and compare it with random ones.

    Args:
      net: the supernet, as `supernets.autoencoder` makes it.
      searcher: what proposes its architectures.
      optimizer: for its weights.
      task: `train.inpainting` with a mask.
      images: training, validation and test images in [0, 1]: see `normalize` of
        `study_images`.
      settings: how weights and searcher learn.
      training: training of the found autoencoder and of the random ones; none if
        `None`, and then nothing tells what the found one is worth.
      key: determines everything random in the search.
      num_candidates: architectures that the searcher samples in the end, of which the
        best by the validation images is the result; `None`: the result is the most
        likely architecture.
      num_screening_images: as for `train.rank`.
      num_random: random autoencoders, at least 2.
      workdir: folder of the run, with which an interrupted one continues. It gets
        `genotype.json`, `scratch.json`, the logs and checkpoints of the search, and
        below `networks/` a folder for each training.

    Returns:
      The result.

    Raises:
      ValueError: if images are not in [0, 1] or `num_random` is less than 2, or as
        `train.search` does.
      Diverged: if a training loss stops being finite.
      Interrupted: after a signal; the state has been saved.
    """
    if training is not None and num_random < 2:
        raise ValueError(f"num_random is {num_random}; expected at least 2")
    _check_range(images)
    folder = pathlib.Path(workdir)
    search_key, ask_key, random_key = jax.random.split(key, 3)
    provider = weights.shared(net)
    test = images.dataset.test
    result = train.search(
        net,
        provider,
        searcher,
        task,
        optimizer,
        images.splits,
        images.pipeline,
        settings,
        key=search_key,
        test=test,
        workdir=folder,
    )
    params = result.state.weights.params
    found_arch: Any = result.arch
    if num_candidates is not None:
        print("ranking candidates by the validation images", flush=True)
        sampled = searcher.ask(result.state.searcher, ask_key, num_candidates)
        ranked = train.rank(
            result.evaluate,
            [found_arch, *sampled],
            images.splits.validation,
            objective=settings.objective,
            num_screening_images=num_screening_images,
            workdir=folder,
        )
        found_arch = ranked[0].arch
    searched = result.evaluate(jnp.asarray(found_arch), test)
    genotypes.save(folder / "genotype.json", net.space.decode(found_arch))

    archs = [found_arch]
    if training is not None:
        archs += random_architectures(net.space, random_key, num_random)
    names = ["found", *(f"random {i}" for i in range(1, len(archs)))]
    trained = _train_all(net, archs, names, training, task, images, folder)
    found, *random = map(
        functools.partial(_autoencoder, net, images), names, archs, trained
    )
    differences = {
        metric: analysis.difference_from_random(
            found.values(metric), [other.values(metric) for other in random]
        )
        for metric in (RESTORATION_METRICS if training is not None else ())
    }
    restorations = {}
    num_epochs = 0
    if training is not None:
        num_epochs = training.num_epochs
        restorations = _restored_by(found, training, task, images, folder)
        content = {
            "num_epochs": num_epochs,
            "found": _row(found),
            "random": [_row(other) for other in random],
            "differences": differences,
        }
        _files.write_json(folder / "scratch.json", content, indent=1)
    return InpaintingStudy(
        found, searched, random, num_epochs, differences, restorations, params
    )


def restore(
    network: nn.Module,
    params: Params,
    task: Task,
    split: data.Split,
    pipeline: train.InputPipeline,
    *,
    num: int = 8,
) -> dict[str, Restorations]:
    """Restore some images: the first ones, and those restored best and worst.

    Args:
      network: as `networks.autoencoder` makes it.
      params: its parameters.
      task: `train.inpainting` with a mask; masks are those of an evaluation.
      split: the images.
      pipeline: their normalization and batches.
      num: how many of each kind, fewer if there are not as many.

    Returns:
      `"first"`, `"best"` (the best one first) and `"worst"` (the worst one first), by
      PSNR.
    """

    @jax.jit
    def run(batch: Batch) -> tuple[jax.Array, ...]:
        batch = batches.prepared_for_evaluation(batch, pipeline.normalize, task)
        masked, original = batch["image"], batch["target"]
        outputs: Any = network.apply({"params": params}, masked, train=False)
        restored = jnp.clip(outputs, 0, 1)
        return masked, restored, original, train.psnr(restored, original)

    ratios = np.zeros(split.num_images, np.float32)
    for batch in batches.evaluation_batches(split, pipeline.batch_size):
        ratios[batch["index"]] = run(batch)[-1]
    by_ratio = np.argsort(ratios, kind="stable")
    chosen = {
        "first": np.arange(split.num_images)[:num],
        "best": by_ratio[::-1][:num],
        "worst": by_ratio[:num],
    }
    return {
        kind: Restorations(
            *map(np.asarray, run(batches.chosen_for_evaluation(split, index)))
        )
        for kind, index in chosen.items()
    }


def _check_range(images: StudyImages) -> None:
    """Raise if white and black are not 1 and 0 after normalization."""
    shape = images.dataset.train.image_shape
    extremes = jnp.stack([jnp.full(shape, level, jnp.uint8) for level in (0, 255)])
    values = np.asarray(images.pipeline.normalize(jax.random.key(0), extremes))
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"images have values from {values.min():.2f} to {values.max():.2f}; "
            "expected 0 to 1, as from study_images(..., normalize=False)"
        )


def _train_all(
    net: Supernet,
    archs: Sequence[Any],
    names: Sequence[str],
    training: NetworkTraining | None,
    task: Task,
    images: StudyImages,
    folder: pathlib.Path,
) -> list[list[dict[str, float]]]:
    """Train from scratch; the metrics at `[arch][seed]`."""
    if training is None:
        return [[] for _ in archs]

    def measure(i: int) -> dict[str, float]:
        measured = {}
        genotype = net.space.decode(archs[i])
        for seed, result in enumerate(
            train_network(
                training, task, images, genotype, names[i], folder / "networks"
            )
        ):
            print(
                f"{names[i]} trained, seed {seed}: test PSNR "
                f"{result.test['psnr']:.2f} dB, SSIM {result.test['ssim']:.3f}",
                flush=True,
            )
            for metric, value in result.test.items():
                measured[f"seed_{seed}/{metric}"] = value
        return measured

    names_by_seed = [
        {metric: f"seed_{seed}/{metric}" for metric in RESTORATION_METRICS}
        for seed in range(training.num_seeds)
    ]
    lines = metrics.measure_missing(
        folder / "trained.jsonl",
        archs,
        measure,
        needs=[name for by_metric in names_by_seed for name in by_metric.values()],
    )
    return [
        [
            {metric: line[name] for metric, name in by_metric.items()}
            for by_metric in names_by_seed
        ]
        for line in lines
    ]


def _autoencoder(
    net: Supernet,
    images: StudyImages,
    name: str,
    arch: Any,
    trained: Sequence[Mapping[str, float]],
) -> Autoencoder:
    genotype = net.space.decode(arch)
    cost = networks.cost(
        networks.autoencoder(genotype), images.dataset.train.image_shape
    )
    return Autoencoder(name, genotype, *cost, trained)


def _restored_by(
    found: Autoencoder,
    training: NetworkTraining,
    task: Task,
    images: StudyImages,
    folder: pathlib.Path,
) -> dict[str, Restorations]:
    """Test images, restored by the found autoencoder after its first training."""
    first = training._replace(num_seeds=1)
    (result,) = train_network(
        first, task, images, found.genotype, found.name, folder / "networks"
    )
    return restore(
        training.make_network(found.genotype),
        result.state.params,
        task,
        images.dataset.test,
        images.pipeline,
    )


def _row(autoencoder: Autoencoder) -> dict[str, Any]:
    genotype = genotypes.to_dict(autoencoder.genotype)
    return autoencoder._asdict() | {"genotype": genotype}
