"""Presets of `cell_study.py`."""

import dataclasses
from typing import Literal

from architectures import VARIANTS
from command_line import option
from images import ImageConfig
from optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Config(OptimizerConfig, ImageConfig):
    """Settings of a study of what the connections of cells do to training."""

    study: Literal["all", "topology", "convergence", "landscape", "variance"] = option(
        "all", "what is studied; the others are left as they are", positional=True
    )
    genotype: str = option("DARTS_V2", "two cells: a file, or a published genotype")
    variants: str = option("conn1-10", f"what it is compared with, commas: {VARIANTS}")
    num_seeds: int = option(
        1, "trainings of each cell, with seeds from --seed on", minimum=1
    )
    learning_rates: str = option(
        "",
        "several in place of --learning-rate, with commas; networks trained with the "
        "first are those of the landscapes",
    )
    channels: int = option(36, "channels of the first cells", minimum=1)
    num_cells: int = option(20, "cells, two of which reduce", minimum=3)
    stem_stride: int = option(1, "2 halves the images first", minimum=1)
    auxiliary: bool = option(False, "train an auxiliary head")
    auxiliary_weight: float = option(0.4, "weight of its loss", minimum=0)
    drop_path: float = option(
        0.0, "probability of dropping an edge at the end of training", minimum=0
    )
    share_program: bool = option(
        False,
        "one compiled program for all cells that differ in connections only: much less "
        "compilation, a fifth more time per step; not with --drop-path",
    )

    split: Literal["test", "train"] = option(
        "test", "images of landscapes and gradients"
    )
    radius: float = option(1.0, "half of the side of the plane", minimum=0)
    resolution: int = option(51, "points along a side of it, odd", minimum=3)
    direction_seed: int = option(123, "of the random directions", minimum=0)
    num_surfaces: int = option(
        1, "networks of each cell, the first seeds, to draw them of", minimum=1
    )
    landscape_images: int | None = option(
        None, "use a sample of so many images (default: all)", minimum=1
    )
    gradient_images: int | None = option(
        None, "the same for gradients (default: all)", minimum=2
    )
    gradient_resolution: int | None = option(
        None, "the same as --resolution for gradients (default: as many)", minimum=3
    )
    gradient_batch_size: int = option(
        1, "images of one gradient; the variance falls by this factor", minimum=1
    )
    gradient_chunk: int = option(
        16, "gradients that are held in memory at a time", minimum=1
    )
    points_at_once: int = option(
        1, "points that a device handles side by side, for large devices", minimum=1
    )


def quick() -> Config:
    """The whole study in small on scikit-learn's digits (8x8), for a laptop CPU.

    DARTS and four variants, from the narrowest to the widest, two seeds, networks of 5
    cells. Expected, by width (means over the seeds):

      width                                 1c     2c   2.5c   3.5c     4c
      mean test loss over epochs (nats)   1.42   1.24   0.74   0.53   0.41
      test accuracy (%)                   92.3   91.8   94.8   94.3   97.1
      plane within 1 nat of the centre    7.9%    12%    15%    17%    21%
      gradient's deviation at the centre    34     27     22     26     20

    Cost: 2 minutes on 2 CPU cores, compilation included.
    """
    return Config(
        dataset="digits",
        crop_padding=1,
        flip=False,
        cutout=0,
        variants="narrowest,conn2,conn1,widest",
        num_seeds=2,
        channels=4,
        num_cells=5,
        share_program=True,
        epochs=15,
        batch_size=50,
        learning_rate=0.05,
        radius=0.5,
        resolution=11,
        num_surfaces=2,
        landscape_images=200,
        gradient_images=50,
    )


def shu_cifar10() -> Config:
    """Figures of Shu et al. (2020), section 4 and appendix B, on CIFAR-10.

    36 channels, 20 cells, 600 epochs of 625 steps, without cutout, drop path and
    auxiliary head; three initial learning rates. The published figures show DARTS and
    twelve variants, three of each width of 2c, 2.5c, 3c and 3.5c, whose seeds are not
    published: these are the first of those widths (conn1 to conn10 are the official
    ones). Planes of 51x51 points from -1 to 1 over all test images, gradients of single
    images. Figure 13 shows final test losses, by eye, of 0.22 for DARTS, 0.35, 0.37
    and 0.26 for those of 2c, and 0.20 to 0.23 for all others.

    Cost: 375,000 steps for each of 39 networks; a landscape is 26 million evaluations
    of one image for each of 13, a surface of the variance as many gradients: for one
    tenth of it, --gradient-resolution 25 --gradient-images 4000.
    """
    return Config(
        cutout=0,
        variants="conn2,conn13,conn14,conn1,conn5,conn6,conn3,conn7,conn9,conn4,conn10,"
        "conn16",
        learning_rates="0.025,0.25,0.0025",
    )


def shu_cifar100() -> Config:
    """The same on CIFAR-100."""
    return dataclasses.replace(shu_cifar10(), dataset="cifar100")


def shu_table_cifar10() -> Config:
    """Table 1 of Shu et al. (2020): a cell beside its widest and shallowest form.

    With cutout, auxiliary head and drop path growing to 0.2. Run it with `convergence`,
    and for --genotype NASNet, AmoebaNet, ENAS, DARTS_V2 and SNAS_MILD in turn. The
    paper's errors, original / adapted, which could not be verified: 2.65 / 2.80, 2.76 /
    2.91, 2.64 / 2.76, 2.67 / 2.73, 2.88 / 2.69 %. DARTS has 3.83 / 3.90 M parameters,
    the auxiliary head included.
    """
    return Config(study="convergence", variants="adapt", auxiliary=True, drop_path=0.2)


def shu_table_cifar100() -> Config:
    """The same on CIFAR-100.

    Errors: 17.06 / 16.86, 17.55 / 17.28, 16.67 / 16.04, 16.41 / 16.15, 17.78 / 17.20 %.
    """
    return dataclasses.replace(shu_table_cifar10(), dataset="cifar100")


def shu_table_tiny_imagenet() -> Config:
    """The same on Tiny-ImageNet-200: 300 epochs, images halved by the stem.

    The paper's test images are those of the official validation split, as here. Its
    script ignores cutout (--cutout 0), its text does not. Errors: 31.88 / 32.05, 32.22
    / 33.16, 30.68 / 31.36, 30.58 / 31.33, 32.40 / 32.61 %.
    """
    return dataclasses.replace(
        shu_table_cifar10(), dataset="tiny_imagenet200", epochs=300, stem_stride=2
    )


PRESETS = {
    "quick": quick,
    "shu-cifar10": shu_cifar10,
    "shu-cifar100": shu_cifar100,
    "shu-table-cifar10": shu_table_cifar10,
    "shu-table-cifar100": shu_table_cifar100,
    "shu-table-tiny-imagenet": shu_table_tiny_imagenet,
}
