"""Presets of `cifar_train.py`."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from images import DIGITS, FOLDER, Images
from optimizers import Exponential, Nesterov, Restarts, Sgd, Training
from session import AtLeast, AtMost, Count, Preset, Presets, Rate, Run

if TYPE_CHECKING:
    import flax.linen as nn


@dataclasses.dataclass(frozen=True)
class _Stacked:
    """A network of cells or blocks, one upon the other.

    Attributes:
      num_cells: cells or blocks, two of which reduce (on large images four).
      dropout: probability of dropping a feature before the classifier.
      auxiliary: train an auxiliary head.
      auxiliary_weight: weight of its loss.
      drop_path: probability of dropping an edge in the last epoch.
      drop_path_growth: when that probability grows.
    """

    num_cells: Count = 20
    dropout: Rate = 0.0
    auxiliary: bool = True
    auxiliary_weight: Rate = 0.4
    drop_path: Rate = 0.3
    drop_path_growth: Literal["epoch", "step"] = "epoch"


@dataclasses.dataclass(frozen=True)
class _Cells(_Stacked):
    """A network of two cells.

    Attributes:
      cell_output: a cell ends with a 1x1 convolution (ASNG-NAS), or not (DARTS,
        ENAS).
      count_include_pad: average pools count the zero padding.
      stem_stride: 2 halves the images before the cells, as on Tiny-ImageNet.
    """

    cell_output: Literal["projection", "concat"] = "projection"
    count_include_pad: bool = True
    stem_stride: Count = 1

    genotype_kind: ClassVar[str] = "Genotype"
    skeleton: ClassVar[Any]

    def __call__(
        self, genotype: Any, channels: int, num_classes: int, batch_axis: str | None
    ) -> "nn.Module":
        """The network of a genotype."""
        from jaxnas import networks

        return networks.micro(
            genotype,
            channels,
            self.num_cells,
            num_classes,
            skeleton=self.skeleton,
            auxiliary=self.auxiliary,
            cell_output=self.cell_output,
            count_include_pad=self.count_include_pad,
            stem_stride=self.stem_stride,
            dropout=self.dropout,
            batch_axis=batch_axis,
        )


@dataclasses.dataclass(frozen=True)
class Nasnet(_Cells):
    """Two cells, stacked as in NASNet (DARTS, ASNG-NAS)."""

    skeleton: ClassVar[Any] = "nasnet"


@dataclasses.dataclass(frozen=True)
class Enas(_Cells):
    """Two cells, stacked as in ENAS."""

    skeleton: ClassVar[Any] = "enas"


@dataclasses.dataclass(frozen=True)
class _Blocks(_Stacked):
    genotype_kind: ClassVar[str] = "DagGenotype"
    skeleton: ClassVar[Any]

    def __call__(
        self, genotype: Any, channels: int, num_classes: int, batch_axis: str | None
    ) -> "nn.Module":
        """The network of a genotype."""
        from jaxnas import networks

        return networks.dag(
            genotype,
            channels,
            self.num_cells,
            num_classes,
            skeleton=self.skeleton,
            auxiliary=self.auxiliary,
            dropout=self.dropout,
            batch_axis=batch_axis,
        )


@dataclasses.dataclass(frozen=True)
class Dag(_Blocks):
    """A block that is any graph, stacked as for CIFAR (GHN)."""

    skeleton: ClassVar[Any] = "cifar"


@dataclasses.dataclass(frozen=True)
class DagImagenet(_Blocks):
    """A block that is any graph, stacked for large images (GHN)."""

    skeleton: ClassVar[Any] = "imagenet"


@dataclasses.dataclass(frozen=True)
class Macro:
    """A whole network of layers and skips (ENAS).

    Attributes:
      dropout: probability of dropping a feature before the classifier.
      separable: separable convolutions are not computed as dense ones.
    """

    dropout: Rate = 0.0
    separable: bool = True

    genotype_kind: ClassVar[str] = "MacroGenotype"
    auxiliary_weight: ClassVar[float] = 0.0
    drop_path: ClassVar[float] = 0.0
    drop_path_growth: ClassVar[Literal["epoch", "step"]] = "epoch"

    def __call__(
        self, genotype: Any, channels: int, num_classes: int, batch_axis: str | None
    ) -> "nn.Module":
        """The network of a genotype."""
        from jaxnas import networks

        return networks.macro(
            genotype,
            channels,
            num_classes,
            separable=self.separable,
            dropout=self.dropout,
            batch_axis=batch_axis,
        )


Network = Nasnet | Enas | Macro | Dag | DagImagenet


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of training one genotype from scratch.

    Attributes:
      genotype: file (JSON or DARTS text), or the name of a published genotype.
      channels: channels of the first cells (default: as many as --params-limit
        allows).
      params_limit: most parameters, not counting the auxiliary head.
      flops_limit: instead of --params-limit: most floating-point operations of an
        image, a multiplication and an addition being two.
      precision: what the network computes in while training. Evaluations are in
        float32.
      stream: read the images of a folder while training, in random crops of all sizes,
        instead of once into memory (auto: if they take more than 1 GiB decoded).
    """

    genotype: str = ""
    channels: Count | None = None
    params_limit: Count = 4_000_000
    flops_limit: Annotated[int, AtLeast(1), AtMost(2**63 - 1)] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    stream: Literal["auto", "always", "never"] = "auto"
    network: Network = Nasnet()
    training: Training = Training()
    images: Images = Images()
    run: Run = Run()


SMALL = dataclasses.replace(DIGITS, cutout=3)

ASNG = Config()
ENAS_MICRO = Config(
    channels=36,
    network=Enas(
        num_cells=17,
        dropout=0.2,
        drop_path=0.4,
        drop_path_growth="step",
        cell_output="concat",
        count_include_pad=False,
    ),
    training=Training(
        epochs=630,
        batch_size=144,
        learning_rate=0.05,
        clip_norm=0.0,
        optimizer=Nesterov(weight_decay=2e-4),
        schedule=Restarts(),
    ),
    images=Images(crop_fill="mean"),
)
ENAS_MACRO = Config(
    channels=96,
    network=Macro(dropout=0.5),
    training=dataclasses.replace(ENAS_MICRO.training, epochs=310, batch_size=100),
    images=Images(crop_fill="mean", cutout=0),
)
GHN = Config(
    channels=32,
    network=Dag(
        num_cells=18, auxiliary_weight=0.5, drop_path=0.4, drop_path_growth="step"
    ),
    training=Training(batch_size=64),
)
GHN_IMAGENET = Config(
    flops_limit=1_200_000_000,
    network=DagImagenet(
        num_cells=14, auxiliary_weight=0.5, drop_path=0.4, drop_path_growth="step"
    ),
    training=Training(
        epochs=250,
        batch_size=128,
        learning_rate=0.1,
        optimizer=Sgd(weight_decay=3e-5),
        schedule=Exponential(0.97),
    ),
    images=Images(dataset="imagenet", image_size=224, crop_padding=0, cutout=0),
)

QUICK = Config(
    params_limit=300_000,
    network=Nasnet(num_cells=5, auxiliary=False, drop_path=0.2),
    training=Training(epochs=100, batch_size=50, learning_rate=0.05),
    images=SMALL,
)
QUICK_ENAS = Config(
    params_limit=150_000,
    network=dataclasses.replace(
        ENAS_MICRO.network, num_cells=5, auxiliary=False, drop_path=0.1
    ),
    training=dataclasses.replace(ENAS_MICRO.training, epochs=30, batch_size=50),
    images=dataclasses.replace(SMALL, crop_fill="mean"),
)
QUICK_ENAS_MACRO = Config(
    params_limit=150_000,
    network=Macro(dropout=0.2),
    training=dataclasses.replace(ENAS_MICRO.training, epochs=70, batch_size=50),
    images=QUICK_ENAS.images,
)
QUICK_GHN = Config(
    channels=8,
    network=dataclasses.replace(
        GHN.network, num_cells=3, auxiliary=False, drop_path=0.1
    ),
    training=Training(epochs=30, batch_size=50, learning_rate=0.05),
    images=SMALL,
)
FOLDER_CELLS = Config(
    params_limit=300_000,
    network=QUICK.network,
    training=Training(epochs=60, batch_size=32, learning_rate=0.05),
    images=FOLDER,
)


PRESETS: Presets[Config] = {
    "quick": Preset(
        """A small network on scikit-learn's digits (8x8), for a laptop CPU.

    Expected: test accuracy of 98 % with a cell found by the search's quick preset.
    Cost: about a minute on 2 CPU cores, compilation included.
    """,
        QUICK,
    ),
    "quick-enas": Preset(
        """Cells in ENAS's network on scikit-learn's digits (8x8), for a laptop CPU.

    Cost: about a minute on 2 CPU cores, mostly compilation.
    """,
        QUICK_ENAS,
    ),
    "quick-enas-macro": Preset(
        """A macro genotype on scikit-learn's digits (8x8), for a laptop CPU.

    Cost: about a minute on 2 CPU cores with a genotype of 6 layers, compilation
    included.
    """,
        QUICK_ENAS_MACRO,
    ),
    "folder": Preset(
        """A small network on your own images, for a laptop CPU: --data-dir FOLDER.

    FOLDER holds train/CLASS/* and test/CLASS/*, or CLASS/* only; images are cut to
    32x32, or to --image-size. Measured on 2,000 images of 4 classes of Tiny-ImageNet:
    test accuracy of 85.5 % (one seed, 200 test images). Cost: 60 epochs of 2,000 images
    take 77 minutes of CPU time, 40 minutes on 2 idle CPU cores (estimated).
    """,
        FOLDER_CELLS,
    ),
    "asng-cifar10": Preset(
        """Training as published for ASNG-NAS (Akimoto et al. 2019, section 3.2).

    At most 4.0 M parameters, 20 cells, 600 epochs of 625 steps over all 50,000 training
    images; cutout, auxiliary head, drop path growing to 0.3. The last network counts.
    """,
        ASNG,
    ),
    "enas-micro-cifar10": Preset(
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
    0.0004 --by-epoch. Its auxiliary head is not trained, and its
    CutOut has the corner of the square, not the center, anywhere in the image.
    """,
        ENAS_MICRO,
    ),
    "enas-macro-cifar10": Preset(
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
    --by-epoch.
    """,
        ENAS_MACRO,
    ),
    "quick-ghn": Preset(
        """A block in a small network on scikit-learn's digits (8x8), for a laptop CPU.

    Expected: test accuracy of 94 % (one run) with a random block of 7 nodes. Cost:
    about a minute on 2 CPU cores, two minutes with the 17 nodes of the genotype GHN,
    mostly compilation.
    """,
        QUICK_GHN,
    ),
    "ghn-cifar10": Preset(
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
    """,
        GHN,
    ),
    "ghn-imagenet": Preset(
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
    """,
        GHN_IMAGENET,
    ),
}
