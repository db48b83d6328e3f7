"""Presets of `cifar_train.py`."""

import dataclasses
from typing import Literal

from command_line import option
from images import ImageConfig
from optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Config(OptimizerConfig, ImageConfig):
    """Settings of training one genotype from scratch."""

    dataset: str = option(
        "cifar10",
        "digits, cifar10, cifar100, tiny_imagenet200, folder, or imagenet (a folder, "
        "or a TFDS data set, that is read while training)",
    )
    genotype: str = option(
        "", "file (JSON or DARTS text), or the name of a published genotype"
    )
    network: Literal["nasnet", "enas", "macro", "dag", "dag-imagenet"] = option(
        "nasnet",
        "what is around two cells, as in NASNet (DARTS, ASNG-NAS) or in ENAS; macro "
        "for a macro genotype; dag for a block, dag-imagenet for one on large images",
    )
    channels: int | None = option(
        None,
        "channels of the first cells (default: as many as --params-limit allows)",
        minimum=1,
    )
    params_limit: int = option(
        4_000_000, "most parameters, not counting the auxiliary head", minimum=1
    )
    flops_limit: int | None = option(
        None,
        "instead of --params-limit: most floating-point operations of an image, a "
        "multiplication and an addition being two",
        minimum=1,
    )
    dropout: float = option(
        0.0, "probability of dropping a feature before the classifier", minimum=0
    )
    separable: bool = option(
        True, "macro: separable convolutions are not computed as dense ones"
    )
    num_cells: int = option(
        20, "cells or blocks, two of which reduce (on large images four)", minimum=1
    )
    cell_output: Literal["projection", "concat"] = option(
        "projection",
        "a cell ends with a 1x1 convolution (ASNG-NAS), or not (DARTS, ENAS)",
    )
    count_include_pad: bool = option(True, "average pools count the zero padding")
    stem_stride: int = option(
        1, "2 halves the images before the cells, as on Tiny-ImageNet", minimum=1
    )
    auxiliary: bool = option(True, "train an auxiliary head")
    auxiliary_weight: float = option(0.4, "weight of its loss", minimum=0)
    drop_path: float = option(
        0.3, "probability of dropping an edge in the last epoch", minimum=0
    )
    drop_path_growth: Literal["epoch", "step"] = option(
        "epoch", "when that probability grows"
    )


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


def quick_enas() -> Config:
    """Cells in ENAS's network on scikit-learn's digits (8x8), for a laptop CPU.

    Cost: about a minute on 2 CPU cores, mostly compilation.
    """
    return dataclasses.replace(
        enas_micro_cifar10(),
        dataset="digits",
        crop_padding=1,
        flip=False,
        cutout=3,
        channels=None,
        params_limit=150_000,
        num_cells=5,
        auxiliary=False,
        drop_path=0.1,
        epochs=30,
        batch_size=50,
    )


def quick_enas_macro() -> Config:
    """A macro genotype on scikit-learn's digits (8x8), for a laptop CPU.

    Cost: about a minute on 2 CPU cores with a genotype of 6 layers, compilation
    included.
    """
    return dataclasses.replace(
        enas_macro_cifar10(),
        dataset="digits",
        crop_padding=1,
        flip=False,
        cutout=3,
        channels=None,
        params_limit=150_000,
        dropout=0.2,
        epochs=70,
        batch_size=50,
    )


def enas_micro_cifar10() -> Config:
    """Cells trained as published for ENAS (Pham et al. 2018), with CutOut.

    17 cells (the script's 15 and 2 reductions) of 36 channels, 630 epochs in six
    periods of warm restarts; 3.9 M parameters with the genotype ENAS_MICRO, 4.4 M with
    the auxiliary head. The paper reports 4.6 M, a test error of 2.89 % with CutOut and
    of 3.54 % without (--cutout 0). The authors expect 3.5 % of their script, which has
    no CutOut; a user measured 3.9 % with a searched cell, and 3.95 % with the best of
    four random ones. Test images are looked at after every epoch, so report the last.

    The paper's are the learning rates and the L2 penalty of 1e-4 times the squares of
    the weights, weight decay 2e-4 here; the rest is the official script's. Gradients
    are not clipped. The script differs in: --min-learning-rate 0.0001 --weight-decay
    0.0004 --schedule restarts-by-epoch. Its auxiliary head is not trained, and its
    CutOut has the corner of the square, not the centre, anywhere in the image.
    """
    return Config(
        network="enas",
        channels=36,
        dropout=0.2,
        num_cells=17,
        cell_output="concat",
        count_include_pad=False,
        auxiliary=True,
        auxiliary_weight=0.4,
        drop_path=0.4,
        drop_path_growth="step",
        epochs=630,
        batch_size=144,
        learning_rate=0.05,
        schedule="restarts",
        optimizer="nesterov",
        weight_decay=2e-4,
        clip_norm=0.0,
        crop_fill="mean",
    )


def enas_macro_cifar10() -> Config:
    """A macro network trained as published for ENAS (Pham et al. 2018).

    310 epochs in five periods of warm restarts, 96 channels; 30.9 M parameters with the
    genotype ENAS_MACRO, or 42.6 M with --no-separable, as the script computes it. The
    paper reports a test error of 3.87 % with 38.0 M, and of 4.23 % with 21.3 M. The
    authors expect 3.9 % of their script, and users measured 3.99 %. How its 24 layers
    of four operations follow from a search for 12 layers of six is not published. Test
    images are looked at after every epoch, so report the last.

    The paper's are the learning rates and the L2 penalty of 1e-4 times the squares of
    the weights, weight decay 2e-4 here; the rest is the official script's. Gradients
    are not clipped. The script differs in: --no-separable --weight-decay 0.0004
    --schedule restarts-by-epoch.
    """
    return Config(
        network="macro",
        cutout=0,
        channels=96,
        dropout=0.5,
        auxiliary=False,
        drop_path=0.0,
        epochs=310,
        batch_size=100,
        learning_rate=0.05,
        schedule="restarts",
        optimizer="nesterov",
        weight_decay=2e-4,
        clip_norm=0.0,
        crop_fill="mean",
    )


def quick_ghn() -> Config:
    """A block in a small network on scikit-learn's digits (8x8), for a laptop CPU.

    Expected: test accuracy of 94 % (one run) with a random block of 7 nodes. Cost:
    about a minute on 2 CPU cores, two minutes with the 17 nodes of the genotype GHN,
    mostly compilation.
    """
    return dataclasses.replace(
        ghn_cifar10(),
        dataset="digits",
        crop_padding=1,
        flip=False,
        cutout=3,
        channels=8,
        num_cells=3,
        auxiliary=False,
        drop_path=0.1,
        epochs=30,
        batch_size=50,
        learning_rate=0.05,
    )


def ghn_cifar10() -> Config:
    """A block trained as published for Graph HyperNetworks (Zhang et al. 2019).

    18 blocks of 32 channels, 600 epochs, one cosine, drop path growing to 0.4, an
    auxiliary head of weight 0.5, cutout. Published test accuracies on CIFAR-10:

    without cutout (--cutout 0), mean of ten blocks      M parameters  accuracy %
      ten random blocks                                    4.6 +- 0.6  94.6 +- 0.3
      the ten best of 1,000 by the hypernetwork            5.1 +- 0.6  95.7 +- 0.1
    with cutout, mean of five runs
      the best of these ten after short training           5.7         97.16 +- 0.07

    The paper's best block is the genotype GHN; here it has 3.26 M parameters, 3.72 M
    with the auxiliary head: the 5.7 M are not reproduced, since the paper does not
    define its operations in every detail. It does not state its weight decay (here
    DARTS's 0.0003), the size of its cutout (here 16), and whether gradients are clipped
    (here at norm 5).

    The authors train on 32 devices: --devices 32 --batch-size 2048
    --learning-rate 0.8 --warmup-epochs 5.
    """
    return Config(
        network="dag",
        channels=32,
        num_cells=18,
        auxiliary_weight=0.5,
        drop_path=0.4,
        drop_path_growth="step",
        epochs=600,
        batch_size=64,
        learning_rate=0.025,
    )


def ghn_imagenet() -> Config:
    """A block transferred to ImageNet (Zhang et al. 2019), in the mobile setting.

    224x224 pixels, 14 blocks, as many channels as 600 million multiplications with
    additions allow, 250 epochs, learning rate 0.1 multiplied by 0.97 after each,
    auxiliary head and drop path as on CIFAR-10. The paper reports a top-1 accuracy of
    73.0 % with 6.1 M parameters for its best block, on 32 devices; with the genotype
    GHN, 15 channels fit here, and 2.7 M parameters, because the paper does not define
    its operations in every detail. Batch size and weight decay, which it does not state
    for this data set, are those of DARTS (128, 0.00003). Images are cropped to random
    sizes and flipped; the validation images are looked at after every epoch, so report
    the last.
    """
    return Config(
        dataset="imagenet",
        image_size=224,
        crop_padding=0,
        cutout=0,
        network="dag-imagenet",
        flops_limit=1_200_000_000,
        num_cells=14,
        auxiliary_weight=0.5,
        drop_path=0.4,
        drop_path_growth="step",
        epochs=250,
        batch_size=128,
        learning_rate=0.1,
        schedule="exponential",
        decay=0.97,
        weight_decay=3e-5,
    )


PRESETS = {
    "quick": quick,
    "quick-enas": quick_enas,
    "quick-enas-macro": quick_enas_macro,
    "asng-cifar10": asng_cifar10,
    "enas-micro-cifar10": enas_micro_cifar10,
    "enas-macro-cifar10": enas_macro_cifar10,
    "quick-ghn": quick_ghn,
    "ghn-cifar10": ghn_cifar10,
    "ghn-imagenet": ghn_imagenet,
}
