"""Presets of `cell_study.py`."""

import dataclasses
from typing import Annotated, Literal

import tyro
from architectures import VARIANTS
from images import DIGITS, Images
from optimizers import Training
from session import AtLeast, Count, Preset, Presets, Rate, Run, Seed


@dataclasses.dataclass(frozen=True)
class Surfaces:
    """The planes through the trained weights, and what is measured on them.

    Attributes:
      split: images of landscapes and gradients.
      radius: half of the side of the plane.
      resolution: points along a side of it, odd.
      direction_seed: of the random directions.
      num_surfaces: networks of each cell, the first seeds, to draw them of.
      landscape_images: use a sample of so many images (default: all).
      gradient_images: the same for gradients (default: all).
      gradient_resolution: the same as --resolution for gradients (default: as
        many).
      gradient_batch_size: images of one gradient; the variance falls by this
        factor.
      gradient_chunk: gradients that are held in memory at a time.
      point_batch_size: points that a device handles side by side, for large
        devices.
    """

    split: Literal["test", "train"] = "test"
    radius: Rate = 1.0
    resolution: Annotated[int, AtLeast(3)] = 51
    direction_seed: Seed = 123
    num_surfaces: Count = 1
    landscape_images: Count | None = None
    gradient_images: Annotated[int, AtLeast(2)] | None = None
    gradient_resolution: Annotated[int, AtLeast(3)] | None = None
    gradient_batch_size: Count = 1
    gradient_chunk: Count = 16
    point_batch_size: Count = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a study of what the connections of cells do to training.

    Attributes:
      study: what is studied; the others are left as they are.
      genotype: two cells: a file, or a published genotype.
      num_seeds: trainings of each cell, with seeds from --seed on.
      learning_rates: several in place of --learning-rate; networks trained with
        the first are those of the landscapes.
      channels: channels of the first cells.
      num_cells: cells, two of which reduce.
      stem_stride: 2 halves the images first.
      auxiliary: train an auxiliary head.
      auxiliary_weight: weight of its loss.
      drop_path: probability of dropping an edge at the end of training.
      share_program: one compiled program for all cells that differ in connections
        only: much less compilation, a fifth more time per step; not with --drop-
        path.
    """

    study: tyro.conf.Positional[
        Literal["all", "topology", "convergence", "landscape", "variance"]
    ] = "all"
    genotype: str = "DARTS_V2"
    variants: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help=f"What it is compared with, one or more of: {VARIANTS}."),
    ] = ("conn1-10",)
    num_seeds: Count = 1
    learning_rates: tuple[float, ...] = ()
    channels: Count = 36
    num_cells: Annotated[int, AtLeast(3)] = 20
    stem_stride: Count = 1
    auxiliary: bool = False
    auxiliary_weight: Rate = 0.4
    drop_path: Rate = 0.0
    share_program: bool = False
    surfaces: Surfaces = Surfaces()
    training: Training = Training()
    images: Images = Images()
    run: Run = Run()


FIGURES_CIFAR10 = Config(
    variants=(
        *("conn2", "conn13", "conn14", "conn1", "conn5", "conn6"),
        *("conn3", "conn7", "conn9", "conn4", "conn10", "conn16"),
    ),
    learning_rates=(0.025, 0.25, 0.0025),
    images=Images(cutout=0),
)
FIGURES_CIFAR100 = dataclasses.replace(
    FIGURES_CIFAR10, images=Images(dataset="cifar100", cutout=0)
)
TABLE_CIFAR10 = Config(
    study="convergence", variants=("adapt",), auxiliary=True, drop_path=0.2
)
TABLE_CIFAR100 = dataclasses.replace(TABLE_CIFAR10, images=Images(dataset="cifar100"))
TABLE_TINY_IMAGENET = dataclasses.replace(
    TABLE_CIFAR10,
    stem_stride=2,
    training=Training(epochs=300),
    images=Images(dataset="tiny_imagenet200"),
)
QUICK = Config(
    variants=("narrowest", "conn2", "conn1", "widest"),
    num_seeds=2,
    channels=4,
    num_cells=5,
    share_program=True,
    surfaces=Surfaces(
        radius=0.5,
        resolution=11,
        num_surfaces=2,
        landscape_images=200,
        gradient_images=50,
    ),
    training=Training(epochs=15, batch_size=50, learning_rate=0.05),
    images=DIGITS,
)


PRESETS: Presets[Config] = {
    "quick": Preset(
        """The whole study in small on scikit-learn's digits (8x8), for a laptop CPU.

    DARTS and four variants, from the narrowest to the widest, two seeds, networks of 5
    cells. Expected, by width (means over the seeds):

      width                                 1c     2c   2.5c   3.5c     4c
      mean test loss over epochs (nats)   1.42   1.24   0.74   0.53   0.41
      test accuracy (%)                   92.3   91.8   94.8   94.3   97.1
      plane within 1 nat of the center    7.9%    12%    15%    17%    21%
      gradient's deviation at the center    34     27     22     26     20

    Cost: 2 minutes on 2 CPU cores, compilation included.
    """,
        QUICK,
    ),
    "shu-cifar10": Preset(
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
    """,
        FIGURES_CIFAR10,
    ),
    "shu-cifar100": Preset(
        """The same on CIFAR-100.""",
        FIGURES_CIFAR100,
    ),
    "shu-table-cifar10": Preset(
        """Table 1 of Shu et al. (2020): a cell beside its widest and shallowest form.

    With cutout, auxiliary head and drop path growing to 0.2. Run it with `convergence`,
    and for --genotype NASNet, AmoebaNet, ENAS, DARTS_V2 and SNAS_MILD in turn. The
    paper's errors, original / adapted, which could not be verified: 2.65 / 2.80, 2.76 /
    2.91, 2.64 / 2.76, 2.67 / 2.73, 2.88 / 2.69 %. DARTS has 3.83 / 3.90 M parameters,
    the auxiliary head included.
    """,
        TABLE_CIFAR10,
    ),
    "shu-table-cifar100": Preset(
        """The same on CIFAR-100.

    Errors: 17.06 / 16.86, 17.55 / 17.28, 16.67 / 16.04, 16.41 / 16.15, 17.78 / 17.20 %.
    """,
        TABLE_CIFAR100,
    ),
    "shu-table-tiny-imagenet": Preset(
        """The same on Tiny-ImageNet-200: 300 epochs, images halved by the stem.

    The paper's test images are those of the official validation split, as here. Its
    script ignores cutout (--cutout 0), its text does not. Errors: 31.88 / 32.05, 32.22
    / 33.16, 30.68 / 31.36, 30.58 / 31.33, 32.40 / 32.61 %.
    """,
        TABLE_TINY_IMAGENET,
    ),
}
