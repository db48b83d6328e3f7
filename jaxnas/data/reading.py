"""What a network expects of images, and image files brought to it."""

import functools
import itertools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxnas._checks import check_integer
from jaxnas.data import decoding, images, streaming

Cut = Literal["fit", "central_crop", "exact"]
_CUTS = ("fit", "central_crop", "exact")


class ImageFormat(NamedTuple):
    """What a network expects of images.

    Attributes:
      image_shape: `(height, width, channels)`; 1 channel is gray, 3 are RGB.
      cut: what files are brought to this size by: `"fit"`, the shorter side is resized
        and the center kept, as `load` does; `"central_crop"`, the central 7/8 of the
        shorter side are resized, as `stream` does in evaluation; `"exact"`, they must
        have the size.
      mean: per-channel mean that is subtracted from pixels in `[0, 1]`.
      std: per-channel standard deviation that is then divided by; a channel where it is
        0 becomes 0.
    """

    image_shape: tuple[int, int, int]
    cut: Cut
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def check(self) -> "ImageFormat":
        """Return it with tuples for lists.

        Raises:
          ValueError: if a value is out of range, or they do not fit together.
        """
        shape, mean, std = tuple(self.image_shape), tuple(self.mean), tuple(self.std)
        if len(shape) != 3:
            raise ValueError(
                f"image_shape is {shape}; expected height, width and channels"
            )
        for name, size in zip(("height", "width", "channels"), shape, strict=True):
            check_integer(name, size)
        if self.cut not in _CUTS:
            raise ValueError(f"cut is {self.cut!r}; expected one of {', '.join(_CUTS)}")
        if self.cut != "exact" and shape[0] != shape[1]:
            raise ValueError(
                f"cut is {self.cut!r} for {decoding.size_text(shape)} pixels; expected "
                "square images, or 'exact'"
            )
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != shape[2] or not all(map(math.isfinite, values)):
                raise ValueError(
                    f"{name} is {values}; expected a finite number for each of "
                    f"{shape[2]} channels"
                )
        if min(std) < 0:
            raise ValueError(f"std is {std}; expected 0 or more")
        return ImageFormat(shape, self.cut, mean, std)


def image_format(
    dataset: images.ImageDataset | streaming.StreamedDataset,
) -> ImageFormat:
    """What a network that is trained on a data set expects of images."""
    shape = dataset.train.image_shape
    cut: Cut = "fit" if shape[0] == shape[1] else "exact"
    if isinstance(dataset, streaming.StreamedDataset):
        cut = "central_crop"
    return ImageFormat(shape, cut, dataset.mean, dataset.std)


class ImageBatch(NamedTuple):
    """Images that were read from files.

    Attributes:
      paths: their files.
      images: uint8 `[num, height, width, channels]`.
    """

    paths: list[pathlib.Path]
    images: np.ndarray


def read_images(
    paths: Sequence[pathlib.Path],
    image_format: ImageFormat,
    *,
    batch_size: int,
    skip_corrupt: bool = False,
) -> Iterator[ImageBatch]:
    """Read image files in threads, some batches ahead.

    Args:
      paths: the files, of any kind that Pillow decodes.
      image_format: what they are brought to.
      batch_size: most images in a batch.
      skip_corrupt: whether to leave out those that cannot be decoded.

    Yields:
      All images in their order.

    Raises:
      CorruptImage: if one cannot be decoded, unless these are skipped.
      DatasetError: if one cannot be read, or has another size than the exact one.
    """

    def attempt(path: pathlib.Path) -> np.ndarray | None:
        try:
            return _read(path, image_format)
        except decoding.CorruptImage:
            if not skip_corrupt:
                raise
            return None

    pixels = decoding.in_threads(attempt, paths, 2 * batch_size)
    read = (pair for pair in zip(paths, pixels, strict=True) if pair[1] is not None)
    while batch := list(itertools.islice(read, batch_size)):
        yield ImageBatch(
            [path for path, _ in batch],
            np.stack([image for _, image in batch if image is not None]),
        )


def _read(path: pathlib.Path, image_format: ImageFormat) -> np.ndarray:
    height, width, channels = image_format.image_shape
    if channels not in (1, 3):
        raise images.DatasetError(
            f"{path} cannot be read as an image of {channels} channels; expected 1 or 3"
        )
    image = decoding.open_image(decoding.read_file(path), path)
    if channels == 1:
        image = image.convert("L")
    if image_format.cut == "exact" and image.size != (width, height):
        raise images.DatasetError(
            f"{path} is {image.width}x{image.height} pixels; expected {width}x{height}"
        )
    cut = {
        "fit": functools.partial(decoding.fit, size=height),
        "central_crop": functools.partial(streaming.central_crop, size=height),
        "exact": lambda image: image,
    }[image_format.cut]
    return np.asarray(cut(image)).reshape(image_format.image_shape)
