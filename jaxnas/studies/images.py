"""Images of a study and their input pipeline."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import optax

from jaxnas import data, search, train
from jaxnas.train import InputPipeline, Preprocess, SearchSplits
from jaxnas.types import (
    Device,
    Key,
    Params,
    SearchSpace,
    Supernet,
    Task,
    WeightProvider,
)


class StudyImages(NamedTuple):
    """Images, their preprocessing, and how they are fed.

    Attributes:
      dataset: training and test images.
      splits: the training images, divided into those for weights and those that
        architectures are judged by.
      pipeline: preprocessing, batches and devices.
    """

    dataset: data.ImageDataset
    splits: SearchSplits
    pipeline: InputPipeline


def train_on_random_architectures(
    net: Supernet,
    provider: WeightProvider,
    space: SearchSpace,
    task: Task,
    optimizer: optax.GradientTransformation,
    images: StudyImages,
    *,
    key: Key,
    num_epochs: int,
    num_archs: int,
    description: str,
    epoch_metrics: Callable[[Params], dict[str, float]] | None,
    workdir: pathlib.Path,
) -> Params:
    """Train shared weights or a hypernetwork; nothing is learned about architectures.

    Arguments are those of `train.search`; `num_archs` random architectures of `space`
    are in each step. Returns the parameters of the provider.
    """
    result = train.search(
        net,
        provider,
        search.random_search(space),
        task,
        optimizer,
        images.splits,
        images.pipeline,
        train.SearchSettings(
            num_epochs,
            num_weight_archs=num_archs,
            num_search_archs=1,
            searcher_steps=0,
        ),
        key=key,
        workdir=workdir,
        description=description,
        epoch_metrics=epoch_metrics,
    )
    return result.state.weights.params


def study_images(
    dataset: data.ImageDataset,
    *,
    num_validation: int,
    batch_size: int,
    crop_padding: int = 4,
    crop_fill: Literal["black", "mean"] = "black",
    flip: bool = True,
    cutout: int = 0,
    normalize: bool = True,
    devices: Sequence[Device] | None = None,
) -> StudyImages:
    """Hold out validation images, and choose augmentation and batches.

    Args:
      dataset: training and test images.
      num_validation: training images held out, the last ones; 0 for studies that have
        no use for them.
      batch_size: images in a batch, over all devices.
      crop_padding: as for `data.augment`.
      crop_fill: as for `data.augment`.
      flip: as for `data.augment`.
      cutout: as for `data.augment`.
      normalize: as for `preprocessing`.
      devices: where to run; the first device if `None`.

    Returns:
      What the functions of this package take.

    Raises:
      ValueError: if no training images are left, the devices cannot share a batch, or
        the augmentation does not fit the images.

    Example:
      >>> from jaxnas import data, studies
      >>> digits = data.load("digits")
      >>> images = studies.study_images(digits, num_validation=300, batch_size=32)
      >>> images.splits.train.num_images
      1200
    """
    num_images = dataset.train.num_images
    if not 0 <= num_validation < num_images:
        raise ValueError(
            f"num_validation is {num_validation}; expected 0 or more, and less than "
            f"the {num_images} training images"
        )
    preprocess = preprocessing(
        dataset,
        crop_padding=crop_padding,
        crop_fill=crop_fill,
        flip=flip,
        cutout=cutout,
        normalize=normalize,
    )
    first = num_images - num_validation
    splits = SearchSplits(
        *(
            data.Split(dataset.train.images[part], dataset.train.labels[part])
            for part in (slice(first), slice(first, None))
        )
    )
    pipeline = InputPipeline(batch_size, *preprocess, devices)
    pipeline.on_devices()  # raises if they cannot share a batch
    return StudyImages(dataset, splits, pipeline)


def preprocessing(
    dataset: data.ImageDataset | data.StreamedDataset,
    *,
    crop_padding: int,
    crop_fill: Literal["black", "mean"],
    flip: bool,
    cutout: int,
    normalize: bool = True,
) -> tuple[Preprocess, Preprocess]:
    """Make the preprocessing of a data set for training and for evaluation.

    Args:
      dataset: whose mean and standard deviation images are normalized by.
      crop_padding: as for `data.augment`.
      crop_fill: as for `data.augment`.
      flip: as for `data.augment`.
      cutout: as for `data.augment`.
      normalize: whether the mean is subtracted and the standard deviation divided by;
        if not, pixels have values in [0, 1], as `train.inpainting` needs them.

    Returns:
      `augment` and `normalize`, both `(key, uint8 images) -> float images`.

    Raises:
      ValueError: if the augmentation does not fit the images.
    """
    mean, std = dataset.mean, dataset.std
    if not normalize:
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)

    def augment(key, images):
        return data.augment(
            key,
            images,
            mean,
            std,
            crop_padding=crop_padding,
            crop_fill=crop_fill,
            flip=flip,
            cutout=cutout,
        )

    def for_evaluation(key, images):
        del key
        return data.normalize(images, mean, std)

    # Raises now what would otherwise be raised in the middle of compilation.
    image = jax.ShapeDtypeStruct((1, *dataset.train.image_shape), "uint8")
    jax.eval_shape(augment, jax.random.key(0), image)
    return augment, for_evaluation
