"""The flags and functions of commands that read images."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from command_line import option

if TYPE_CHECKING:
    from jaxnas import data
    from jaxnas.train import Preprocess, SearchSplits


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


def hold_out(train: "data.Split", num: int) -> "SearchSplits":
    """Divide training images into those for weights and `num` held out."""
    from jaxnas import data
    from jaxnas.train import SearchSplits

    if num >= train.num_images:
        raise ValueError(
            f"--validation-images is {num}, but there are only {train.num_images} "
            "training images"
        )
    return SearchSplits(*data.split(train, train.num_images - num))


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
    import jax

    from jaxnas import data

    def augment(key, images):
        return data.augment(
            key,
            images,
            dataset.mean,
            dataset.std,
            crop_padding=config.crop_padding,
            crop_fill=config.crop_fill,
            flip=config.flip,
            cutout=config.cutout,
        )

    def normalize(key, images):
        del key
        return data.normalize(images, dataset.mean, dataset.std)

    # Tell at once what would otherwise be told in the middle of compilation.
    image = jax.ShapeDtypeStruct((1, *dataset.train.image_shape), "uint8")
    jax.eval_shape(augment, jax.random.key(0), image)
    return augment, normalize
