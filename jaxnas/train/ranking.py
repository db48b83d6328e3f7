"""Ranking of many architectures: screen all, evaluate a few."""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnas import metrics as metrics_log
from jaxnas.data import Split
from jaxnas.train import batches
from jaxnas.train.tasks import Objective, mean_loss
from jaxnas.types import Arch


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
      split: the images to evaluate on.
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
    num_images = num_screening_images
    screen = None
    if num_images is not None and split.labels.size > num_images:
        screening = batches.subset(split, num_images)
        screen = functools.partial(_evaluate_on, evaluate, screening)
    return rank_by(
        functools.partial(_evaluate_on, evaluate, split),
        archs,
        screen=screen,
        objective=objective,
        num_best=num_best,
        workdir=workdir,
    )


def _evaluate_on(
    evaluate: Callable[[Arch, Split], dict[str, float]], split: Split, arch: Arch
) -> dict[str, float]:
    return evaluate(arch, split)


def rank_by(
    evaluate: Callable[[Arch], dict[str, float]],
    archs: Sequence[Arch],
    *,
    screen: Callable[[Arch], dict[str, float]] | None = None,
    objective: Objective = mean_loss,
    num_best: int = 10,
    workdir: str | os.PathLike[str] | None = None,
) -> list[Ranked]:
    """Find the best architectures by any measure: `rank` does so by images.

    Args:
      evaluate: `arch -> metrics` with a `loss`.
      archs: the candidates; equal ones are ranked once.
      screen: a cheaper `evaluate`, by which all candidates are ranked before the best
        ones are evaluated; all are evaluated if `None`.
      objective: what to rank by, lowest first; the loss decides between equal values.
      num_best: how many candidates are returned.
      workdir: as for `rank`.

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

    def measure(candidates, evaluate, name: str) -> list[Ranked]:
        lines = metrics_log.measure_missing(
            None if workdir is None else pathlib.Path(workdir) / f"{name}.jsonl",
            [arch for _, arch in candidates],
            lambda i: evaluate(jnp.asarray(candidates[i][1])),
            description=None if workdir is None else name,
        )
        return best_first(
            [
                Ranked(arch, index, line)
                for (index, arch), line in zip(candidates, lines, strict=True)
            ]
        )

    if screen is not None and len(candidates) > num_best:
        screened = measure(candidates, screen, "screening")[:num_best]
        candidates = [(entry.position, entry.arch) for entry in screened]
    return measure(candidates, evaluate, "ranking")[:num_best]
