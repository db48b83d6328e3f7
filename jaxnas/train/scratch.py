"""Many architectures, each trained from scratch with one budget, by one program."""

import hashlib
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from jaxnas import metrics, weights
from jaxnas._checks import check_sizes
from jaxnas.data import Split
from jaxnas.train.batches import Preprocess
from jaxnas.train.evaluation import make_eval_fn
from jaxnas.train.fitting import make_standalone_train_fn
from jaxnas.types import Arch, Device, Key, Supernet, Task


def train_standalone(
    net: Supernet,
    task: Task,
    optimizer: optax.GradientTransformation,
    train: Split,
    test: Split,
    archs: Sequence[Arch],
    *,
    key: Key,
    num_seeds: int,
    num_steps: int,
    batch_size: int,
    augment: Preprocess,
    normalize: Preprocess,
    devices: Sequence[Device] | None = None,
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
      key: determines everything random, together with the number of the seed.
      num_seeds: trainings of each architecture.
      num_steps: optimizer steps of each training.
      batch_size: images in a batch, over all devices.
      augment: `(key, uint8 images) -> float images` for training.
      normalize: the same for evaluation.
      devices: where to run; the first device if `None`.
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
    fit = make_standalone_train_fn(
        net,
        task,
        optimizer,
        train,
        snapshot_steps=[num_steps],
        batch_size=batch_size,
        augment=augment,
        devices=devices,
    )
    evaluate = make_eval_fn(
        net,
        weights.shared(net),
        task,
        normalize=normalize,
        batch_size=batch_size,
        devices=devices,
    )
    folder = None if workdir is None else pathlib.Path(workdir)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)

    def train_one(arch: Any, seed: int) -> dict[str, float]:
        run = None
        if folder is not None:
            digest = hashlib.sha256(np.asarray(arch, np.int32).tobytes()).hexdigest()
            run = folder / f"seed_{seed}_{digest[:16]}"
        (snapshot,) = fit(
            arch, jax.random.fold_in(key, seed), workdir=run, description="from scratch"
        )
        return evaluate(snapshot.weights, arch, test)

    def train_seed(seed: int) -> list[dict[str, float]]:
        lines = metrics.measure_missing(
            None if folder is None else folder / f"seed_{seed}.jsonl",
            archs,
            lambda i: train_one(archs[i], seed),
        )
        if folder is not None:  # what has been logged needs no checkpoints
            for finished in folder.glob(f"seed_{seed}_*"):
                shutil.rmtree(finished)
        return lines

    by_seed = [train_seed(seed) for seed in range(num_seeds)]
    return [list(of_arch) for of_arch in zip(*by_seed, strict=True)]
