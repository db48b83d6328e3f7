"""The flags and functions of commands that read images."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from command_line import option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxnas import data, studies
    from jaxnas.train import Preprocess
    from jaxnas.types import Device


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """Flags that all commands on images share."""

    dataset: str = option(
        "cifar10", "digits, cifar10, cifar100, tiny_imagenet200 or folder"
    )
    data_dir: str | None = option(None, "where the data set is or is to be prepared")
    image_size: int | None = option(
        None, "side to which a folder's images are cut", minimum=1
    )
    max_images: int | None = option(
        None, "use only the first training images", minimum=1
    )
    crop_padding: int = option(
        4, "pixels around an image before a random crop", minimum=0
    )
    crop_fill: Literal["black", "mean"] = option(
        "black", "what they are: black, or in ENAS the mean of the training images"
    )
    flip: bool = option(True, "flip images at random")
    cutout: int = option(16, "side of the square that is cut out", minimum=0)
    workdir: str | None = option(None, "folder of the run (default: runs/...)")
    seed: int = option(0, "determines everything random", minimum=0)
    devices: int = option(1, "number of devices that share every batch", minimum=1)


def load(config: ImageConfig) -> "data.ImageDataset":
    """Load the data set of a configuration."""
    from jaxnas import data

    dataset = data.load(config.dataset, config.data_dir, image_size=config.image_size)
    if config.max_images is None:
        return dataset
    if config.max_images < dataset.train.labels.size:
        first, _ = data.split(dataset.train, config.max_images)
        return dataset._replace(train=first)
    return dataset


def study_images(
    config: Any,
    dataset: "data.ImageDataset",
    num_validation: int,
    devices: "Sequence[Device]",
) -> "studies.StudyImages":
    """The images of a study, some of them held out."""
    from jaxnas import studies

    if num_validation >= dataset.train.num_images:
        raise ValueError(
            f"--validation-images is {num_validation}, but there are only "
            f"{dataset.train.num_images} training images"
        )
    return studies.study_images(
        dataset,
        num_validation=num_validation,
        batch_size=config.batch_size,
        crop_padding=config.crop_padding,
        crop_fill=config.crop_fill,
        flip=config.flip,
        cutout=config.cutout,
        devices=devices,
    )


def steps_per_epoch(train: "data.Split | data.Stream", batch_size: int) -> int:
    """Whole batches among the training images; at least one."""
    if train.num_images < batch_size:
        raise ValueError(
            f"--batch-size is {batch_size}, but there are only {train.num_images} "
            "images"
        )
    return train.num_images // batch_size


def preprocessing(
    config: ImageConfig, dataset: "data.ImageDataset | data.StreamedDataset"
) -> tuple["Preprocess", "Preprocess"]:
    """What is done to images in training, and in evaluation."""
    from jaxnas import studies

    return studies.preprocessing(
        dataset,
        crop_padding=config.crop_padding,
        crop_fill=config.crop_fill,
        flip=config.flip,
        cutout=config.cutout,
    )
