"""Presets of `asng_toy.py`."""

import dataclasses
from typing import Annotated, Literal

from session import AtLeast, Count, Preset, Presets, Rate, Seed


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the toy problem of ASNG-NAS.

    Attributes:
      searcher: algorithms of the distribution.
      exponents: the initial steps are n^-exponent, where n is the number of free
        parameters.
      learning_rates: of the continuous variables, with each initial step.
      seeds: runs with each setting.
      decisions: categories to choose.
      categories: of each decision.
      archs_per_step: samples in one update.
      momentum: of the continuous variables.
      max_iterations: limit, and length of the cosine of the learning rates.
      workdir: folder of the run (default: runs/...).
      seed: determines everything random.
    """

    searcher: tuple[Literal["asng", "sng", "adam_sng"], ...] = (
        *("asng", "sng", "adam_sng"),
    )
    exponents: tuple[Rate, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    learning_rates: tuple[Rate, ...] = (0.025, 0.05, 0.1)
    seeds: Count = 20
    decisions: Annotated[int, AtLeast(3)] = 30
    categories: Annotated[int, AtLeast(2)] = 5
    archs_per_step: Annotated[int, AtLeast(2)] = 2
    momentum: Rate = 0.9
    max_iterations: Count = 100_000
    workdir: str | None = None
    seed: Seed = 0


PRESETS: Presets[Config] = {
    "quick": Preset(
        """A smaller one: 20 decisions, 10 seeds, two initial steps, 1 and 1/80.

    Expected seeds that solve it, and median iterations:

      initial step           1          1/80
      asng            10,   934    10, 1,088
      sng             10,   772    10, 5,371
      adam_sng         1,     -    10,   812

    Cost: half a minute of CPU time, most of it compilation.
    """,
        Config(
            exponents=(0.0, 1.0),
            learning_rates=(0.05,),
            seeds=10,
            decisions=20,
            max_iterations=10_000,
        ),
    ),
    "asng-toy": Preset(
        """Section 3.1 of Akimoto et al. (2019): 30 decisions among 5 categories.

    The official program has learning rate 0.05, momentum 0.9, 2 samples and at most
    100,000 iterations. The grid of initial steps and learning rates is ours, for the
    paper's could not be verified. Five seeds of the official code with ASNG, initial
    step 1 and learning rate 0.05 took 6,018 to 15,923 iterations, median 9,308; here 20
    of 20 seeds take at most 18,832, median 5,200.
    """,
        Config(),
    ),
}
