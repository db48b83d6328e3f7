"""Presets of `cifar_train.py`."""

import dataclasses
from typing import Literal

from command_line import option
from images import ImageConfig


@dataclasses.dataclass(frozen=True)
class Config(ImageConfig):
    """Settings of training one genotype from scratch."""

    genotype: str = option(
        "", "file (JSON or DARTS text), or the name of a published genotype"
    )
    channels: int | None = option(
        None,
        "channels of the first cells (default: as many as --params-limit allows)",
        minimum=1,
    )
    params_limit: int = option(
        4_000_000, "most parameters, not counting the auxiliary head", minimum=1
    )
    num_cells: int = option(20, "cells, two of which reduce", minimum=1)
    cell_output: Literal["projection", "concat"] = option(
        "projection",
        "a cell ends with a 1x1 convolution (ENAS, ASNG-NAS), or not (DARTS)",
    )
    count_include_pad: bool = option(True, "average pools count the zero padding")
    auxiliary: bool = option(True, "train an auxiliary head")
    auxiliary_weight: float = option(0.4, "weight of its loss", minimum=0)
    drop_path: float = option(
        0.3, "probability of dropping an edge in the last epoch", minimum=0
    )

    epochs: int = option(600, "epochs over all training images", minimum=1)
    batch_size: int = option(80, "images in a batch", minimum=1)
    learning_rate: float = option(
        0.025, "first learning rate of the schedule", minimum=0
    )
    schedule: Literal["cosine", "restarts"] = option(
        "cosine",
        "of the learning rate: one cosine, or ENAS's cosine with warm restarts",
    )
    optimizer: Literal["sgd", "nesterov", "adam"] = option(
        "sgd", "plain SGD with momentum, Nesterov, or Adam"
    )
    momentum: float = option(0.9, "of SGD", minimum=0)
    weight_decay: float = option(3e-4, "L2 penalty on all weights, SGD only", minimum=0)
    clip_norm: float = option(5.0, "limit of the gradient's global norm", minimum=0)


def quick() -> Config:
    """A small network on scikit-learn's digits (8x8), for a laptop CPU.

    Expected: test accuracy of 98 % with a cell found by the search's quick preset.
    Cost: about a minute on 2 CPU cores, compilation included.
    """
    return Config(
        dataset="digits",
        crop_padding=1,
        flip=False,
        cutout=3,
        params_limit=300_000,
        num_cells=5,
        auxiliary=False,
        drop_path=0.2,
        epochs=100,
        batch_size=50,
        learning_rate=0.05,
    )


def asng_cifar10() -> Config:
    """Training as published for ASNG-NAS (Akimoto et al. 2019, section 3.2).

    At most 4.0 M parameters, 20 cells, 600 epochs of 625 steps over all 50,000 training
    images; cutout, auxiliary head, drop path growing to 0.3. The last network counts.
    """
    return Config()


PRESETS = {"quick": quick, "asng-cifar10": asng_cifar10}
