"""The flags and functions of commands that read images."""

import dataclasses
import warnings
from typing import TYPE_CHECKING, Literal

import session
from session import Count, Size

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Mapping, Sequence

    from jaxnas import data, studies
    from jaxnas.train import Preprocess
    from jaxnas.types import Device


# Pillow's; such images are refused with their names.
warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")


@dataclasses.dataclass(frozen=True)
class Images:
    """Which images there are, and how they are augmented.

    Attributes:
      dataset: digits, cifar10, cifar100, tiny_imagenet200, svhn or folder; in
        cifar_train.py also imagenet (a folder, or a TFDS data set, that is read
        while training); for inpainting also celeba, celeba_ecae, cars or images, which
        have no classes.
      data_dir: where the data set is or is to be prepared.
      image_size: side to which images of a folder are cut, and those of digits and
        SVHN resized.
      skip_corrupt: leave out and count images that cannot be decoded, which otherwise
        end the command.
      max_images: use only the first training images.
      crop_padding: pixels around an image before a random crop.
      crop_fill: what they are: black, or in ENAS the mean of the training images.
      flip: flip images at random.
      cutout: side of the square that is cut out.
    """

    dataset: str = "cifar10"
    data_dir: str | None = None
    image_size: Count | None = None
    skip_corrupt: bool = False
    max_images: Count | None = None
    crop_padding: Size = 4
    crop_fill: Literal["black", "mean"] = "black"
    flip: bool = True
    cutout: Size = 16


# Flags of the images that a training after a search has in common with it.
_SAME = (
    *("dataset", "image_size", "skip_corrupt", "crop_padding", "crop_fill", "flip"),
    "data_dir",
)

DIGITS = Images(dataset="digits", crop_padding=1, flip=False, cutout=0)
FOLDER = Images(dataset="folder", image_size=32, cutout=0)


def load(config: Images) -> "data.ImageDataset":
    """Load the data set of the settings."""
    from jaxnas import data

    dataset = data.load(
        config.dataset,
        config.data_dir,
        image_size=config.image_size,
        skip_corrupt=config.skip_corrupt,
    )
    if config.max_images is None:
        return dataset
    if config.max_images < dataset.train.labels.size:
        first, _ = data.split(dataset.train, config.max_images)
        return dataset._replace(train=first)
    return dataset


def announce(
    dataset: "data.ImageDataset | data.StreamedDataset",
    environment: "Mapping[str, str]",
    folder: "pathlib.Path",
) -> None:
    """Say which images were found, and on which device and in which folder it runs.

    What the images of a folder look like, with warnings, is said too.
    """
    from jaxnas import data

    session.announce(data.describe(dataset), environment, folder)
    if dataset.data_dir is not None:
        print(data.survey_text(data.survey(dataset)), flush=True)


def identity(dataset: "data.ImageDataset | data.StreamedDataset") -> dict[str, str]:
    """What a run knows its images by, wherever they lie."""
    from jaxnas import data

    train, test = dataset.train.num_images, dataset.test.num_images
    digest = data.digest(dataset)[:16]
    return {"images": f"{train} training and {test} test images, SHA-256 {digest}"}


def study_images(
    config: Images,
    dataset: "data.ImageDataset",
    *,
    num_validation: int,
    batch_size: int,
    devices: "Sequence[Device]",
    normalize: bool = True,
) -> "studies.StudyImages":
    """The images of a study, some of them held out."""
    from jaxnas import studies

    if num_validation and config.max_images is None and dataset.data_dir is not None:
        check_classes(dataset)
    if num_validation >= dataset.train.num_images:
        raise ValueError(
            f"--validation-images is {num_validation}, but there are only "
            f"{dataset.train.num_images} training images"
        )
    return studies.study_images(
        dataset,
        num_validation=num_validation,
        batch_size=batch_size,
        devices=devices,
        normalize=normalize,
        **augmentation(config),
    )


def check_classes(dataset: "data.ImageDataset") -> None:
    """Refuse classes of a folder that cannot be both learned and judged by."""
    import numpy as np

    counts = np.bincount(dataset.train.labels, minlength=len(dataset.class_names))
    single = [
        name
        for name, count in zip(dataset.class_names, counts, strict=False)
        if count == 1
    ]
    if single:
        raise ValueError(
            f"class {single[0]!r} has one training image ({len(single)} such classes); "
            "a search needs two or more, for weights and for validation"
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
    config: Images,
    dataset: "data.ImageDataset | data.StreamedDataset",
    *,
    normalize: bool = True,
) -> tuple["Preprocess", "Preprocess"]:
    """Preprocessing for training and for evaluation."""
    from jaxnas import studies

    return studies.preprocessing(dataset, normalize=normalize, **augmentation(config))


def augmentation(config: Images) -> dict:
    """The settings of random crops, flips and cutout."""
    names = "crop_padding", "crop_fill", "flip", "cutout"
    return {name: getattr(config, name) for name in names}


def training_flags(
    searched: Images, preset: Images, num_images: int, batch_size: int
) -> list[str]:
    """Flags of a training preset for the images of a search.

    Args:
      searched: the images of the search.
      preset: those of the preset.
      num_images: number of training images.
      batch_size: that of the preset.
    """
    flags = []
    for name in _SAME:
        value = getattr(searched, name)
        flag = name.replace("_", "-")
        if value == getattr(preset, name):
            continue
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", str(value)]
    if num_images < batch_size:
        flags += ["--batch-size", str(num_images)]
    return flags
