"""The search algorithms of the commands."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from session import Rate, choice_name

if TYPE_CHECKING:
    from jaxnas.types import Searcher, SearchSpace


@dataclasses.dataclass(frozen=True)
class Asng:
    """Adaptive stochastic natural gradient (Akimoto et al. 2019).

    Attributes:
      alpha: signal-to-noise threshold.
      init_delta: first radius of the trust region.
      max_delta: upper limit of what the radius is divided by (default: none).
    """

    alpha: float = 1.5
    init_delta: float = 1.0
    max_delta: float | None = None

    def __call__(self, space: "SearchSpace | Sequence[int]") -> "Searcher":
        """The searcher of a space, or of decisions with so many categories."""
        from jaxnas import search

        return search.asng(
            space,
            alpha=self.alpha,
            init_delta=self.init_delta,
            max_Delta=math.inf if self.max_delta is None else self.max_delta,
        )


@dataclasses.dataclass(frozen=True)
class Sng:
    """Stochastic natural gradient with steps of one length.

    Attributes:
      delta: length of the steps (default: 1 / sqrt of the number of free parameters).
    """

    delta: float | None = None

    def __call__(self, space: "SearchSpace | Sequence[int]") -> "Searcher":
        """The searcher of a space, or of decisions with so many categories."""
        from jaxnas import search

        return search.sng(space, delta=self.delta)


@dataclasses.dataclass(frozen=True)
class AdamSng:
    """Adam on the stochastic natural gradient.

    Attributes:
      adam_learning_rate: its learning rate (default: 1 / number of free parameters).
    """

    adam_learning_rate: float | None = None

    def __call__(self, space: "SearchSpace | Sequence[int]") -> "Searcher":
        """The searcher of a space, or of decisions with so many categories."""
        from jaxnas import search

        return search.adam_sng(space, learning_rate=self.adam_learning_rate)


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """An LSTM controller, trained by the policy gradient (ENAS).

    Attributes:
      controller: the paper's settings or those of the official scripts.
      controller_learning_rate: of the controller's Adam (default: as --controller
        says).
      entropy_weight: weight of the entropy (default: as --controller says).
    """

    controller: Literal["paper", "script"] = "paper"
    controller_learning_rate: Rate | None = None
    entropy_weight: Rate | None = None

    def __call__(self, space: "SearchSpace | Sequence[int]") -> "Searcher":
        """The searcher of a space, or of decisions with so many categories."""
        from jaxnas import search

        rate = self.controller_learning_rate
        if self.controller == "paper":
            settings = search.paper_settings(space)
            given = {} if rate is None else {"learning_rate": rate}
            optimizer = search.paper_optimizer(**given)
        else:
            settings = search.official_settings(space)
            optimizer = search.official_optimizer(space, learning_rate=rate)
        if self.entropy_weight is not None:
            settings = settings._replace(entropy_weight=self.entropy_weight)
        return search.reinforce(space, optimizer=optimizer, settings=settings)


@dataclasses.dataclass(frozen=True)
class Random:
    """Uniform draws, which nothing is learned from."""

    def __call__(self, space: "SearchSpace | Sequence[int]") -> "Searcher":
        """The searcher of a space, or of decisions with so many categories."""
        from jaxnas import search

        return search.random_search(space)


Searchers = Asng | Sng | AdamSng | Reinforce | Random


def check_convergence(searcher: Searchers, threshold: float | None) -> None:
    """Refuse `--stop-when-converged` out of range, or without probabilities."""
    if threshold is None:
        return
    if isinstance(searcher, Random | Reinforce):
        raise ValueError(
            f"--stop-when-converged is {threshold}, but the searcher "
            f"{choice_name(searcher)} has no probabilities that converge"
        )
    if not 0 < threshold <= 1:
        raise ValueError(
            f"--stop-when-converged is {threshold}; expected above 0, at most 1"
        )


def check_comparison(searcher: Searchers, num_archs: int) -> None:
    """Refuse to compare one architecture by the natural gradient."""
    if isinstance(searcher, Asng | Sng | AdamSng) and num_archs < 2:
        raise ValueError(
            f"--num-archs is 1; {choice_name(searcher).upper()} compares 2 or more "
            "architectures"
        )
