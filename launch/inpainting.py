"""The flags and functions of commands that restore images."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from images import Images
from session import Count

if TYPE_CHECKING:
    from jaxnas import data
    from jaxnas.types import Supernet, Task


Mask = Literal["center", "pixel", "half"]


@dataclasses.dataclass(frozen=True)
class Missing:
    """Which pixels are missing.

    Attributes:
      mask: center: the square between 1/4 and 3/4 of both sides; pixel: 80 % of the
        pixels; half: the left, right, upper or lower half.
      scale_kept: multiply the pixels that the mask pixel keeps by draws from [0.8, 1),
        as the first code of this space does, against its paper.
    """

    mask: Mask = "center"
    scale_kept: bool = False

    def task(self) -> "Task":
        """The task of restoring them."""
        from jaxnas import train

        return train.inpainting(self.mask, scale_kept=self.scale_kept)


@dataclasses.dataclass(frozen=True)
class _Grid:
    """A grid of nodes, of which some make a chain.

    Attributes:
      num_nodes: nodes.
      level_back: how far before itself a node may read.
      channels: numbers of channels to choose from; in the space mixed, any from the
        first to the last.
    """

    num_nodes: Count = 20
    level_back: Count = 5
    channels: tuple[Count, ...] = (64, 128, 256)

    encoding: ClassVar[Any]

    def supernet(self, dataset: "data.ImageDataset") -> "Supernet":
        """The supernet of all autoencoders."""
        from jaxnas import spaces, supernets

        space = spaces.AutoencoderSpace(
            self.num_nodes, self.level_back, self.channels, self.encoding
        )
        return supernets.autoencoder(space, dataset.train.image_shape[-1])


@dataclasses.dataclass(frozen=True)
class Categorical(_Grid):
    """Kernels and channels are categories (ASNG-NAS, Cat)."""

    encoding: ClassVar[Any] = "categorical"


@dataclasses.dataclass(frozen=True)
class Mixed(_Grid):
    """Kernels and channels are ordered integers (ASNG-NAS, Int)."""

    encoding: ClassVar[Any] = "mixed"


CELEBA = Images(dataset="celeba_ecae", crop_padding=0, cutout=0)
DIGITS = Images(dataset="digits", image_size=16, crop_padding=0, flip=False, cutout=0)


def check_images(dataset: "data.ImageDataset") -> None:
    """Refuse images that no autoencoder takes, or that have no SSIM."""
    height, width, _ = dataset.train.image_shape
    if height % 2 or width % 2 or min(height, width) < 12:
        raise ValueError(
            f"images are {width}x{height} pixels; expected even sides of 12 or more, "
            "for example by --image-size 16"
        )


def describe(means: Any) -> str:
    """Metrics of restored images in words."""
    return (
        f"PSNR {means['psnr']:.2f} dB, SSIM {means['ssim']:.4f}, mean squared error "
        f"{means['loss']:.5f}"
    )
