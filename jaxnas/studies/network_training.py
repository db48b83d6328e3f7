"""Training from scratch of the networks that a study compares."""

import hashlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import optax

from jaxnas import genotypes, train
from jaxnas.studies.images import StudyImages
from jaxnas.types import Key, Task


class NetworkTraining(NamedTuple):
    """Training from scratch of networks of one architecture.

    Attributes:
      make_network: `genotype -> network`, as `networks.anytime`.
      optimizer: for its parameters.
      num_epochs: passes through all training images.
      key: determines everything random, together with the number of the seed.
      num_seeds: trainings of each network.
    """

    make_network: Callable[[Any], nn.Module]
    optimizer: optax.GradientTransformation
    num_epochs: int
    key: Key
    num_seeds: int = 1


def train_network(
    training: NetworkTraining,
    task: Task,
    images: StudyImages,
    genotype: genotypes.AnyGenotype,
    name: str,
    networks_folder: pathlib.Path,
) -> Iterator[train.TrainResult]:
    """Train one network from scratch on all training images, once for each seed.

    Each training has a folder, named by the architecture and the seed, which together
    determine the result: whether it is the first found or the third at random does not.

    Args:
      training: how.
      task: what for.
      images: with the test images, on which it is evaluated after each epoch.
      genotype: the architecture.
      name: first words of the progress line.
      networks_folder: the folder of the folders.

    Yields:
      The result with each seed, in order; a finished one is read from its folder.

    Raises:
      Diverged: if a loss stops being finite.
      Interrupted: after a signal; the state has been saved.
    """
    run = train.make_train_fn(
        training.make_network(genotype),
        task,
        training.optimizer,
        images.dataset.train,
        images.pipeline,
        num_epochs=training.num_epochs,
        test=images.dataset.test,
    )
    folder = network_folder(networks_folder, genotype)
    for seed in range(training.num_seeds):
        yield run(
            jax.random.fold_in(training.key, seed),
            workdir=folder / f"seed_{seed}",
            description=name if training.num_seeds == 1 else f"{name}, seed {seed}",
        )


def network_folder(
    networks_folder: pathlib.Path, genotype: genotypes.AnyGenotype
) -> pathlib.Path:
    """The folder of the trainings of one architecture, made if it is missing."""
    digest = hashlib.sha256(genotypes.to_text(genotype).encode()).hexdigest()
    folder = networks_folder / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    genotypes.save(folder / "genotype.json", genotype)
    return folder
