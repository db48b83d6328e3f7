"""What a data set of images looks like before anything is trained on it."""

import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxnas.data import contents, decoding, folder, images, streaming

FEW_IMAGES = 20
"""Classes with fewer training images are warned of."""

IMBALANCE = 10
"""So many times as many training images as the smallest class has are warned of."""

SMALL = 32
"""Images with fewer pixels on their shorter side are warned of."""

_MEASURED = 20_000  # images whose sizes are read, evenly over all
_QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
_SIZES = (32, 64, 96, 128, 160, 192, 224)
_BATCH_SIZES = (64, 32, 16, 8)
_STEPS = 16  # of an epoch, at least


class Lengths(NamedTuple):
    """Quantiles of lengths in pixels.

    Attributes:
      smallest: the smallest one.
      low: a tenth are not larger.
      median: one half are not larger.
      high: nine tenths are not larger.
      largest: the largest one.
    """

    smallest: int
    low: int
    median: int
    high: int
    largest: int


class Duplicates(NamedTuple):
    """Numbers of images that are equal to others.

    Attributes:
      train: training images that repeat another one.
      test: test images that repeat another one.
      between: test images that are among the training images.
      in_several_classes: images of both splits that are in another class too.
      unit: whether files are compared by their bytes, or images by their pixels.
    """

    train: int
    test: int
    between: int
    in_several_classes: int
    unit: Literal["files", "pixels"]


class Survey(NamedTuple):
    """What a data set looks like.

    Attributes:
      class_names: in label order.
      train_counts: training images of each class.
      test_counts: test images of each class.
      widths: of the images, upright and before they are resized.
      heights: the same.
      shorter_sides: the smaller one of both.
      num_measured: images whose sizes these are; of very many, some.
      duplicates: equal images.
      unreadable: files whose headers show that they are no images, of those whose
        sizes were to be measured; none if corrupt images have been left out.
      skipped: how many files were left alone, by kind.
    """

    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    widths: Lengths
    heights: Lengths
    shorter_sides: Lengths
    num_measured: int
    duplicates: Duplicates
    unreadable: tuple[str, ...]
    skipped: Mapping[str, int]

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return sum(self.train_counts)

    @property
    def num_test(self) -> int:
        """Number of test images."""
        return sum(self.test_counts)

    @property
    def imbalance(self) -> float:
        """Training images of the largest class for each one of the smallest."""
        return max(self.train_counts) / max(1, min(self.train_counts))

    def small_classes(self, least: int = FEW_IMAGES) -> tuple[str, ...]:
        """Names of the classes with fewer than `least` training images."""
        pairs = zip(self.class_names, self.train_counts, strict=True)
        return tuple(name for name, count in pairs if count < least)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may make results worse or misleading, a sentence each."""
        return tuple(_warnings(self))


def survey_folder(data_dir: str | os.PathLike[str]) -> Survey:
    """Look at the files of a folder, whose images are not decoded.

    Args:
      data_dir: the folder, as for `data.load("folder")`.

    Returns:
      What was found; files are compared by their bytes, and sizes read from headers.

    Raises:
      DatasetError: if there are no such images, or a file cannot be read.
    """
    found = folder.find(pathlib.Path(data_dir).expanduser())
    train, test = found.train, found.test
    paths = [*train.paths, *test.paths]
    some = paths[:: max(1, math.ceil(len(paths) / _MEASURED))]
    sizes, unreadable = [], []
    for path, size in zip(some, decoding.in_threads(_sides, some, 256), strict=True):
        if size is None:
            unreadable.append(str(path))
        else:
            sizes.append(size)
    if not sizes:
        raise images.DatasetError(
            f"{paths[0]} and all other files are no images that can be read"
        )
    widths, heights = zip(*sizes, strict=True)
    return Survey(
        found.class_names,
        _counts(train.labels, len(found.class_names)),
        _counts(test.labels, len(found.class_names)),
        _lengths(widths),
        _lengths(heights),
        _lengths([min(size) for size in sizes]),
        len(sizes),
        _duplicates(contents.equal_files(paths), train.labels, test.labels, "files"),
        tuple(unreadable),
        train.skipped + test.skipped,
    )


def survey(dataset: images.ImageDataset | streaming.StreamedDataset) -> Survey:
    """Look at a data set that has been found.

    Args:
      dataset: in memory, or a `folder` that is not.

    Returns:
      Of a folder, what `survey_folder` finds, with the numbers of images that are in
      memory; of others, what is in memory, compared by pixels.

    Raises:
      DatasetError: if it is neither in memory nor a folder, has no classes, or is not
        there any more.
    """
    num_classes = dataset.num_classes
    found = None if dataset.data_dir is None else survey_folder(dataset.data_dir)
    if isinstance(dataset, streaming.StreamedDataset):
        if found is None:
            raise images.DatasetError(
                f"the images of {dataset.name!r} are not in memory; expected those of "
                "a folder"
            )
        is_checked = "corrupt" in dataset.skipped
        unreadable = () if is_checked else found.unreadable
        return found._replace(skipped=dataset.skipped, unreadable=unreadable)
    train, test = dataset.train, dataset.test
    counts = {
        "train_counts": _counts(train.labels, num_classes),
        "test_counts": _counts(test.labels, num_classes),
        "skipped": dataset.skipped,
    }
    if found is not None:
        return found._replace(**counts, unreadable=())
    height, width, _ = train.image_shape
    groups = contents.equal_images(train.images, test.images)
    return Survey(
        class_names=dataset.class_names,
        widths=_lengths([width]),
        heights=_lengths([height]),
        shorter_sides=_lengths([min(width, height)]),
        num_measured=train.num_images + test.num_images,
        duplicates=_duplicates(groups, train.labels, test.labels, "pixels"),
        unreadable=(),
        **counts,
    )


def _sides(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        return decoding.sides(path)
    except decoding.CorruptImage:
        return None


def _counts(labels: np.ndarray, num_classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels, minlength=num_classes).tolist())


def _lengths(values: Sequence[int]) -> Lengths:
    found = np.quantile(values, _QUANTILES, method="inverted_cdf")
    return Lengths(*found.astype(int).tolist())


def _duplicates(
    groups: np.ndarray,
    train_labels: np.ndarray,
    test_labels: np.ndarray,
    unit: Literal["files", "pixels"],
) -> Duplicates:
    labels = np.concatenate([train_labels, test_labels])
    train, test = np.split(groups, [len(train_labels)])
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    num_classes = np.bincount(pairs[0])
    return Duplicates(
        len(train) - len(np.unique(train)),
        len(test) - len(np.unique(test)),
        int(np.isin(test, train).sum()),
        int((num_classes[groups] > 1).sum()),
        unit,
    )


def _warnings(found: Survey) -> Iterator[str]:
    smallest, largest = min(found.train_counts), max(found.train_counts)
    if found.imbalance >= IMBALANCE:
        yield (
            f"the largest class has {largest} training images, the smallest "
            f"{smallest}: {found.imbalance:.0f} times as many"
        )
    few = found.small_classes()
    if few:
        yield (
            f"{_classes(few)} fewer than {FEW_IMAGES} training images; results will "
            "vary much"
        )
    if found.num_test < 400:
        half = 98 / math.sqrt(found.num_test)
        yield (
            f"{found.num_test} test images tell an accuracy of 50 % to within "
            f"{half:.0f} points only"
        )
    same = found.duplicates
    if same.between:
        yield (
            f"{same.between} test images are among the training images, which makes "
            "test accuracies too high"
        )
    if same.train or same.test:
        yield (
            f"{same.train} training and {same.test} test images repeat others of "
            "their split"
        )
    if same.in_several_classes:
        yield f"{same.in_several_classes} images are in several classes"
    if found.shorter_sides.low < SMALL:
        yield (
            f"a tenth of the images or more have fewer than {SMALL} pixels on their "
            "shorter side"
        )
    if found.unreadable:
        yield (
            f"{found.unreadable[0]} is no image that can be read "
            f"({len(found.unreadable)} such files); --skip-corrupt leaves them out"
        )


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:3])
    if len(names) == 1:
        return f"class {shown} has"
    return f"{len(names)} classes ({shown}{', ...' * (len(names) > 3)}) have"


def survey_text(found: Survey) -> str:
    """Describe a data set in a few lines, the last ones its warnings.

    Args:
      found: what it looks like.

    Returns:
      Lines of text.
    """
    splits = (("training", found.train_counts), ("test", found.test_counts))
    numbers = " and ".join(
        f"{_range(min(counts), max(counts))} {name}" for name, counts in splits
    )
    width, height = found.widths, found.heights
    same = found.duplicates
    unit = "equal files" if same.unit == "files" else "equal pixels"
    lines = [
        f"images per class: {numbers}, {len(found.class_names)} classes",
        f"sizes: {_range(width.smallest, width.largest)} wide (median {width.median}), "
        f"{_range(height.smallest, height.largest)} high (median {height.median})",
        f"duplicates ({unit}): {same.train} in training, {same.test} in test, "
        f"{same.between} in both",
    ]
    return "\n".join([*lines, *(f"warning: {line}" for line in found.warnings)])


def _range(smallest: int, largest: int) -> str:
    return f"{smallest}" if smallest == largest else f"{smallest} to {largest}"


def survey_dict(found: Survey) -> dict[str, Any]:
    """Return a survey as JSON has it, with its warnings.

    Args:
      found: what a data set looks like.

    Returns:
      Its fields by name, those of quantiles and duplicates by theirs.
    """
    fields = {
        name: value._asdict() if isinstance(value, (Lengths, Duplicates)) else value
        for name, value in found._asdict().items()
    }
    fields |= {"imbalance": found.imbalance, "warnings": found.warnings}
    return fields | {"skipped": dict(found.skipped)}


class Proposal(NamedTuple):
    """Settings that fit a data set.

    Attributes:
      image_size: side in pixels to bring images to.
      crop_padding: pixels around an image before a random crop.
      flip: whether to mirror images at random.
      batch_size: images in a batch.
      reasons: a sentence for each of these, by its name.
    """

    image_size: int
    crop_padding: int
    flip: bool
    batch_size: int
    reasons: Mapping[str, str]


def propose(found: Survey, *, max_image_size: int = 64) -> Proposal:
    """Propose settings for a data set of photographs.

    Args:
      found: what it looks like.
      max_image_size: the largest side of images in pixels; the time of a step grows
        with its square.

    Returns:
      The settings. Images are not enlarged but to 32 pixels, an epoch has steps enough
      for a schedule, and images are not mirrored where a class tells left from right.

    Raises:
      ValueError: if `max_image_size` is below 32.
    """
    if max_image_size < _SIZES[0]:
        raise ValueError(
            f"max_image_size is {max_image_size}; expected at least {_SIZES[0]}"
        )
    side = found.shorter_sides.low
    image_size = max(size for size in _SIZES if size <= max(_SIZES[0], side))
    image_size = max(size for size in _SIZES if size <= min(image_size, max_image_size))
    sided = [name for name in found.class_names if _tells_sides(name)]
    # One half of the training images is for weights, the other for validation.
    num_images = found.num_train // 2
    fits = (size for size in _BATCH_SIZES if size * _STEPS <= num_images)
    batch_size = next(fits, max(1, min(_BATCH_SIZES[-1], num_images)))
    padding = image_size // 8
    return Proposal(
        image_size,
        padding,
        not sided,
        batch_size,
        {
            "image_size": f"nine tenths of the images have {side} pixels or more on "
            f"their shorter side; at most {max_image_size}",
            "crop_padding": f"an eighth of {image_size} pixels, as is usual on CIFAR",
            "flip": f"class {sided[0]!r} may tell left from right"
            if sided
            else "photographs look alike when mirrored",
            "batch_size": f"{num_images // batch_size} steps in an epoch of a search, "
            f"which trains weights on {num_images} images",
        },
    )


def _tells_sides(name: str) -> bool:
    """Whether a name of a class stands for a letter, a digit or a direction."""
    words = name.casefold().replace("_", " ").replace("-", " ").split()
    return len(name) == 1 or not {"left", "right"}.isdisjoint(words)
