"""Images that are read while they are used, where memory cannot hold them all.

Files are decoded and brought to one size in threads, some batches ahead. Which image
is where in which batch, and what is cut out of it, depends on a seed and the number of
the step only, so that a resumed run sees the same batches.
"""

import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from jaxnas.data import cache, decoding, folder, images, prepared

if TYPE_CHECKING:
    from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Per-channel mean of ImageNet's training pixels in `[0, 1]`."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Per-channel standard deviation of the same."""

_TFDS_NAME = "imagenet2012"
_BATCHES_AHEAD = 2

_Item = TypeVar("_Item")


class Example(NamedTuple):
    """A labeled image that is not decoded yet.

    Attributes:
      contents: an image file.
      label: its class.
      name: what to call it in a message.
    """

    contents: bytes
    label: int
    name: str


class Stream(NamedTuple):
    """Labeled images that are read when they are needed.

    Attributes:
      num_images: how many there are.
      image_size: side in pixels of the square RGB images to make.
      read: `index -> Example`; is called in many threads.
    """

    num_images: int
    image_size: int
    read: Callable[[int], Example]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.image_size, self.image_size, 3


class StreamedDataset(NamedTuple):
    """An image classification data set that is not held in memory.

    Attributes:
      name: the name it was loaded by.
      train: the training images.
      test: the held-out images.
      class_names: the names of the classes, in label order.
      mean: per-channel mean of the training pixels scaled to `[0, 1]`.
      std: per-channel standard deviation of the same pixels.
      source: one line saying what is read.
      files: where the images are read from.
      skipped: how many files beside the images are left alone, by kind, and corrupt
        images if these were to be skipped.
      data_dir: the folder of the classes' folders, of `folder`.
    """

    name: str
    train: Stream
    test: Stream
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    files: Sequence[pathlib.Path]
    skipped: Mapping[str, int] = images.NONE_SKIPPED
    data_dir: pathlib.Path | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def stream(
    data_dir: str | os.PathLike[str],
    *,
    image_size: int = 224,
    name: str = "imagenet",
    skip_corrupt: bool = False,
) -> StreamedDataset:
    """Find images without decoding them: ImageNet, or those of any folder.

    As `imagenet`, looked for are `data_dir/train/CLASS/*` with `data_dir/val/CLASS/*`
    (or `test/`), and a TFDS data set `imagenet2012` stored as array_record, whose
    validation images are for testing. A `folder` has the classes, labels and split that
    `load` finds.

    Args:
      data_dir: the folder that holds `train`; or a TFDS folder, or that of one version;
        or any folder for `load("folder")`.
      image_size: side in pixels of the images to make.
      name: `imagenet` or `folder`.
      skip_corrupt: whether to decode all images once, to leave out and to count those
        that cannot be decoded. The result is kept in `data_dir/.jaxnas-cache`.

    Returns:
      The data set, with ImageNet's mean and standard deviation.

    Raises:
      DatasetError: if there is no such data set, or it is not as it should be.
    """
    path = pathlib.Path(data_dir).expanduser()
    decoding.check_image_size(image_size)
    if name not in ("imagenet", "folder"):
        raise images.DatasetError(f"name is {name!r}; expected 'imagenet' or 'folder'")
    version_dir = None
    if name == "imagenet":
        version_dir = prepared.find_version(path, _TFDS_NAME)
        if version_dir is None and not (path / "train").is_dir():
            raise images.DatasetError(
                f"{path} holds neither images in train/CLASS and val/CLASS nor a TFDS "
                f"data set {_TFDS_NAME} stored as array_record"
            )
    if version_dir is not None:
        dataset, root = _tfds(version_dir, image_size), version_dir
    else:
        dataset, root = _folder(path, image_size, name), path
    return _without_corrupt(dataset, root) if skip_corrupt else dataset


def _folder(path: pathlib.Path, image_size: int, name: str) -> StreamedDataset:
    found = folder.find(path)
    return _dataset(
        _files(found.train, image_size),
        _files(found.test, image_size),
        found.class_names,
        found.source,
        [*found.train.paths, *found.test.paths],
    )._replace(
        name=name,
        skipped=found.train.skipped + found.test.skipped,
        data_dir=path if name == "folder" else None,
    )


def _without_corrupt(dataset: StreamedDataset, root: pathlib.Path) -> StreamedDataset:
    """Leave out and count the images that cannot be decoded."""
    streams = dataset.train, dataset.test

    def check(place: tuple[Stream, int]) -> tuple[int, bool]:
        contents, label, name = place[0].read(place[1])
        try:
            decoding.open_image(contents, name, least_side=1)
        except decoding.CorruptImage:
            return label, False
        return label, True

    def compute() -> dict[str, np.ndarray]:
        places = ((stream, i) for stream in streams for i in range(stream.num_images))
        checked = decoding.in_threads(check, places, 256)
        labels, is_read = zip(*checked, strict=True)
        return {"labels": np.array(labels, np.int32), "is_read": np.array(is_read)}

    key = cache.fingerprint(root, dataset.files)
    arrays = cache.load_or_compute(root, f"checked-{key[:16]}", compute)
    is_read, num_train = arrays["is_read"], dataset.train.num_images
    for labels, part in zip(
        np.split(arrays["labels"], [num_train]),
        np.split(is_read, [num_train]),
        strict=True,
    ):
        lost = np.setdiff1d(labels, labels[part])
        if lost.size:
            raise images.DatasetError(
                f"all images of class {dataset.class_names[lost[0]]!r} for training or "
                "for testing are corrupt; expected one or more that can be decoded"
            )
    num_corrupt = int((~is_read).sum())
    if not num_corrupt:
        return dataset
    kept = dataset.files
    if len(kept) == len(is_read):  # the files are images
        kept = [file for file, keep in zip(kept, is_read, strict=True) if keep]
    return dataset._replace(
        train=_subset(dataset.train, np.flatnonzero(is_read[:num_train])),
        test=_subset(dataset.test, np.flatnonzero(is_read[num_train:])),
        files=kept,
        skipped={**dataset.skipped, "corrupt": num_corrupt},
    )


def _subset(stream: Stream, indices: np.ndarray) -> Stream:
    return Stream(
        len(indices), stream.image_size, lambda index: stream.read(int(indices[index]))
    )


def _dataset(
    train: Stream,
    test: Stream,
    class_names: Sequence[str],
    source: str,
    files: Sequence[pathlib.Path],
) -> StreamedDataset:
    size = train.image_size
    return StreamedDataset(
        name="imagenet",
        train=train,
        test=test,
        class_names=tuple(class_names),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source=f"{source}, cut to {size}x{size} while they are read",
        files=files,
    )


def _files(files: folder.FolderFiles, image_size: int) -> Stream:
    def read(index: int) -> Example:
        path = files.paths[index]
        contents = decoding.read_file(path)
        return Example(contents, int(files.labels[index]), str(path))

    return Stream(len(files.paths), image_size, read)


def _tfds(version_dir: pathlib.Path, image_size: int) -> StreamedDataset:
    tfds = prepared.import_tfds()

    builder: Any = tfds.builder_from_directory(version_dir)

    def split(name: str) -> Stream:
        source = prepared.data_source(builder, name)

        def read(index: int) -> Example:
            with prepared.damage_told(builder, name):
                example = source[index]
            where = f"image {index} of the split {name!r} in {version_dir}"
            return Example(example["image"], int(example["label"]), where)

        return Stream(len(source), image_size, read)

    return _dataset(
        split("train"),
        split("validation"),
        builder.info.features["label"].names,
        f"the TFDS data set {version_dir.parent.name}/{version_dir.name}",
        sorted(filter(pathlib.Path.is_file, version_dir.iterdir())),
    )


def describe(dataset: images.ImageDataset | StreamedDataset) -> str:
    """Say in one line which images a data set has, and which files were skipped.

    Args:
      dataset: in memory or not.

    Returns:
      Its source, the numbers of images and classes, and the size of the images.

    Example:
      >>> from jaxnas import data
      >>> print(data.describe(data.load("digits")).partition(": ")[2])
      1500 training and 297 test images of 8x8 pixels, 1 channel, 10 classes
    """
    train, test = dataset.train, dataset.test
    channels = train.image_shape[2]
    return (
        f"{dataset.source}: {train.num_images} training and {test.num_images} test "
        f"images of {decoding.size_text(train.image_shape)} pixels, {channels} "
        f"channel{'s' * (channels > 1)}"
        + (f", {len(dataset.class_names)} classes" if dataset.class_names else "")
        + images.skipped_text(dataset.skipped)
    )


def digest(dataset: images.ImageDataset | StreamedDataset) -> str:
    """Compute what tells a data set from others, wherever it lies.

    Args:
      dataset: in memory or not.

    Returns:
      SHA-256 in hexadecimal over the images, the labels and the names of the classes.
      Of images that are not in memory, it is over the paths of their files: one that
      cannot be decoded may be mended, and the run goes on.
    """
    if isinstance(dataset, images.ImageDataset):
        return images.digest(dataset)
    result = hashlib.sha256("\0".join(dataset.class_names).encode())
    root = os.path.commonpath(dataset.files)
    for file in dataset.files:
        result.update(b"\n%b" % os.fsencode(file.relative_to(root)))
    return result.hexdigest()


def random_resized_crop(
    image: "Image.Image", size: int, generator: np.random.Generator
) -> np.ndarray:
    """Cut out a random rectangle and bring it to one size.

    The rectangle has 8 to 100 % of the area and a ratio of width to height between 3/4
    and 4/3, uniform in its logarithm; if ten of them do not fit into the image, it is
    the largest square in the center.

    Args:
      image: RGB.
      size: side in pixels of the result.
      generator: source of the draws.

    Returns:
      uint8 `[size, size, 3]`.

    Source: Szegedy et al. 2015 (Going deeper with convolutions), section 6.
    """
    for _ in range(10):
        area = image.width * image.height * generator.uniform(0.08, 1)
        ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if width <= image.width and height <= image.height:
            left = generator.uniform(0, image.width - width)
            top = generator.uniform(0, image.height - height)
            return _resize(image, size, (left, top, left + width, top + height))
    return _resize(image, size, _central_square(image, min(image.size)))


def central_crop(image: "Image.Image", size: int) -> np.ndarray:
    """Cut out the central 7/8 of the shorter side and bring them to one size.

    Of 224 pixels, this is the center of an image whose shorter side has 256 pixels.

    Args:
      image: RGB.
      size: side in pixels of the result.

    Returns:
      uint8 `[size, size, 3]`.
    """
    return _resize(image, size, _central_square(image, 7 / 8 * min(image.size)))


def _central_square(
    image: "Image.Image", side: float
) -> tuple[float, float, float, float]:
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return left, top, left + side, top + side


def _resize(
    image: "Image.Image", size: int, box: tuple[float, float, float, float]
) -> np.ndarray:
    from PIL import Image

    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))


def shuffled(
    stream: Stream, seed: Sequence[int], batch_size: int, first_step: int = 0
) -> Generator[images.Split, None, None]:
    """Batches of freshly shuffled epochs, without end.

    The images that do not fill a last batch are left out, others in each epoch.

    Args:
      stream: the images.
      seed: determines order and crops, together with the epoch.
      batch_size: images in a batch.
      first_step: number of the first batch, counted from the first epoch's first.

    Yields:
      Batches of randomly cropped images; those of a step do not depend on
      `first_step`.

    Raises:
      DatasetError: if an image cannot be read.
    """
    steps_per_epoch = stream.num_images // batch_size
    first_epoch, position = divmod(first_step, steps_per_epoch)

    def generator(*place: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(seed, spawn_key=place)
        return np.random.default_rng(sequence)

    def places() -> Iterator[tuple[int, int]]:
        for epoch in itertools.count(first_epoch):
            order = generator(epoch).permutation(stream.num_images)
            start = position * batch_size if epoch == first_epoch else 0
            for index in order[start : steps_per_epoch * batch_size]:
                yield epoch, int(index)

    def load(place: tuple[int, int]) -> tuple[np.ndarray, int]:
        image, label = _open(stream, place[1])
        return random_resized_crop(image, stream.image_size, generator(*place)), label

    yield from _batches(load, places(), batch_size)


def in_order(stream: Stream, batch_size: int) -> Iterator[dict[str, Any]]:
    """All images once, cut from the center, in batches of one size.

    The last batch is filled up with images from the beginning, whose `weight` is 0.

    Args:
      stream: the images.
      batch_size: images in a batch.

    Yields:
      `image` uint8 `[batch_size, H, W, C]`; `label` and `index` in the stream, int32,
      and `weight`, float32, `[batch_size]`.

    Raises:
      DatasetError: if an image cannot be read.
    """
    num = stream.num_images

    def load(index: int) -> tuple[np.ndarray, int]:
        image, label = _open(stream, index % num)
        return central_crop(image, stream.image_size), label

    num_batches = -(-num // batch_size)
    loaded = _batches(load, range(num_batches * batch_size), batch_size)
    for start, batch in zip(itertools.count(step=batch_size), loaded, strict=False):
        index = np.arange(start, start + batch_size)
        yield {
            "image": batch.images,
            "label": batch.labels,
            "index": (index % num).astype(np.int32),
            "weight": (index < num).astype(np.float32),
        }


def images_at(split: images.Split | Stream, indices: Sequence[int]) -> np.ndarray:
    """Some images of a split, as they are evaluated.

    Args:
      split: in memory, or not: then they are read, and cut from the center.
      indices: their places.

    Returns:
      uint8 `[num, H, W, C]`.

    Raises:
      DatasetError: if an image cannot be read.
    """
    if isinstance(split, images.Split):
        return np.asarray(split.images)[np.asarray(indices, int)]
    found = np.zeros((len(indices), *split.image_shape), np.uint8)
    for place, index in enumerate(indices):
        found[place] = central_crop(_open(split, index)[0], split.image_size)
    return found


def _open(stream: Stream, index: int) -> tuple["Image.Image", int]:
    contents, label, name = stream.read(index)
    return decoding.open_image(contents, name), label


def _batches(
    load: Callable[[_Item], tuple[np.ndarray, int]],
    items: Iterable[_Item],
    batch_size: int,
) -> Iterator[images.Split]:
    loaded = decoding.in_threads(load, items, _BATCHES_AHEAD * batch_size)
    while batch := list(itertools.islice(loaded, batch_size)):
        pixels, labels = zip(*batch, strict=True)
        yield images.Split(np.stack(pixels), np.array(labels, np.int32))
