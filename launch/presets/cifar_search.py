"""Presets of `cifar_search.py`."""

import dataclasses
from typing import Literal

from command_line import option
from images import ImageConfig


@dataclasses.dataclass(frozen=True)
class Config(ImageConfig):
    """Settings of a search for a convolutional cell."""

    searcher: Literal["asng", "random"] = option("asng", "search algorithm")
    alpha: float = option(1.5, "ASNG: signal-to-noise threshold")
    init_delta: float = option(1.0, "ASNG: first radius of the trust region")
    num_archs: int = option(
        2, "architectures sampled in every step (lambda)", minimum=1
    )
    select: Literal["mode", "best"] = option(
        "mode", "result: the most likely architecture, or the best of the candidates"
    )
    num_candidates: int = option(20, "architectures ranked at the end", minimum=1)
    num_random: int = option(8, "random architectures to compare with", minimum=1)

    channels: int = option(16, "channels of the first cells, an even number", minimum=1)
    num_cells: int = option(8, "cells, two of which reduce", minimum=1)
    num_nodes: int = option(5, "nodes of a cell", minimum=1)

    epochs: int = option(100, "epochs over one half of the training images", minimum=1)
    batch_size: int = option(64, "images in a batch", minimum=1)
    learning_rate: float = option(
        0.025, "first learning rate of the cosine schedule", minimum=0
    )
    momentum: float = option(0.9, "of SGD", minimum=0)
    weight_decay: float = option(3e-4, "L2 penalty on all weights", minimum=0)
    clip_norm: float = option(5.0, "limit of the gradient's global norm", minimum=0)


def quick() -> Config:
    """ASNG-NAS on scikit-learn's digits (8x8), a demonstration for a laptop CPU.

    Expected: the found cell is better than all 8 random ones with the same weights.
    Cost: under a minute on 2 CPU cores, compilation included.
    """
    return Config(
        dataset="digits",
        crop_padding=1,
        flip=False,
        cutout=0,
        num_candidates=8,
        channels=8,
        num_cells=5,
        epochs=40,
        batch_size=32,
    )


def asng_cifar10() -> Config:
    """ASNG-NAS on CIFAR-10 as published (Akimoto et al. 2019, section 3.2).

    One half of the training images is for the weights, the other for the distribution.
    Cost: 39,000 steps (the paper: about 40,000), each of 2 training and 2 evaluation
    passes over 64 images. The accuracies of a search only rank architectures.
    """
    return Config()


def random_cifar10() -> Config:
    """Weights trained with uniformly drawn cells; the best of 1000 is the result.

    The baseline of asng-cifar10, at the same cost but for the final ranking: 1000
    cells with 1000 validation images each, then the best 10 with all of them.
    """
    return Config(searcher="random", select="best", num_candidates=1000)


PRESETS = {
    "quick": quick,
    "asng-cifar10": asng_cifar10,
    "random-cifar10": random_cifar10,
}
