"""CelebA: aligned photographs of faces, cut out around the eyes.

Source: Liu et al., "Deep learning face attributes in the wild" (2015);
https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html. The patch, its size and the division
`celeba_ecae` are those of Suganuma et al. (2018), whose code has them in
`Inpainting/create_data.py`.
"""

import os
import pathlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnas import _files
from jaxnas._checks import reason
from jaxnas.data import cache, decoding, files, images, prepared

if TYPE_CHECKING:
    from PIL import Image

URL = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
"""Where the official files are."""

IMAGES = "img_align_celeba"
"""The folder of the aligned photographs."""

PARTITION = "list_eval_partition.txt"
"""The file that says of each photograph whether it is for training."""

LANDMARKS = "list_landmarks_align_celeba.txt"
"""The file that says where eyes, nose and mouth are."""

IMAGE_SIZE = 64
"""Side in pixels, unless another is asked for."""

NUM_EXAMPLES = (162_770, 19_962)
"""The published numbers of training and test images."""

ECAE = (100_000, 101_000, 103_000)
"""Ends of the training, validation and test images of Suganuma et al."""

_PATCH = 96  # side in pixels of what is cut out
_FOLDERS = ("", "Img", "Anno", "Eval")  # of the official download


def load(
    data_dir: pathlib.Path,
    image_size: int | None = None,
    *,
    ecae: bool = False,
    skip_corrupt: bool = False,
) -> images.ImageDataset:
    """Load the official files, or a TFDS data set `celeb_a`.

    Of every photograph, a square of 96x96 pixels around the point between the eyes is
    cut out and resized (bicubic, antialiased). Images have no labels.

    Args:
      data_dir: the folder that holds `img_align_celeba/`,
        `list_landmarks_align_celeba.txt` and `list_eval_partition.txt`, also in the
        folders `Img`, `Anno` and `Eval` of the official download; or a TFDS folder.
      image_size: side of the images to make, in pixels; 64 if `None`.
      ecae: whether to train on the first 100,000 photographs and test on the 2,000
        after the next 1,000, as Suganuma et al. do, instead of by the partition.
      skip_corrupt: whether to leave out and count what cannot be decoded.

    Returns:
      RGB images in the order of the files.

    Raises:
      DatasetError: if a file is missing, malformed or cannot be decoded.
    """
    image_size = IMAGE_SIZE if image_size is None else image_size
    decoding.check_image_size(image_size)
    if _find(data_dir, IMAGES) is not None:
        decoded, source = _official(data_dir, image_size, ecae, skip_corrupt)
    elif ecae:
        raise images.DatasetError(
            f"{data_dir} does not hold {IMAGES}, whose order celeba_ecae needs; get it "
            f"from {URL}"
        )
    else:
        decoded, source = _tfds(data_dir, image_size, skip_corrupt)
    expected = (ECAE[0], ECAE[2] - ECAE[1]) if ecae else NUM_EXAMPLES
    return images.ImageDataset(
        name="celeba_ecae" if ecae else "celeba",
        train=decoded.train,
        test=decoded.test,
        class_names=(),
        mean=decoded.mean,
        std=decoded.std,
        source=f"{source}, faces cut to {image_size}x{image_size}"
        + images.count_note(decoded.train, decoded.test, expected),
        skipped=decoded.skipped,
    )


def _find(data_dir: pathlib.Path, name: str) -> pathlib.Path | None:
    places = (data_dir / folder / name for folder in _FOLDERS)
    return next(filter(pathlib.Path.exists, places), None)


def _official(
    data_dir: pathlib.Path, image_size: int, ecae: bool, skip_corrupt: bool
) -> tuple[files.DecodedFiles, str]:
    eyes = _between_eyes(data_dir)
    folder = _find(data_dir, IMAGES)
    assert folder is not None
    if ecae:
        ordered = list(eyes)
        parts = ordered[: ECAE[0]], ordered[ECAE[1] : ECAE[2]]
    else:
        partition = _partition(data_dir)
        lost = next((name for name in partition if name not in eyes), None)
        if lost is not None:
            raise images.DatasetError(
                f"{data_dir} has {lost!r} in {PARTITION} but not in {LANDMARKS}"
            )
        parts = tuple(
            [name for name, part in partition.items() if part == wanted]
            for wanted in (0, 2)
        )
    for split, names in zip(("training", "test"), parts, strict=True):
        if not names:
            raise images.DatasetError(f"{data_dir} lists no {split} images")
    _check_present(folder, [*parts[0], *parts[1]])

    def decode(path: pathlib.Path) -> np.ndarray:
        image = decoding.open_image(decoding.read_file(path), path)
        return _cut(image, eyes[path.name], image_size, path)

    train, test = ([folder / name for name in names] for names in parts)
    lists = [_find(data_dir, name) for name in (LANDMARKS, PARTITION)]
    read = [*filter(None, lists), *train, *test]
    key = cache.fingerprint(data_dir, read, f"{image_size} {ecae}")
    decoded = files.decode(
        data_dir,
        f"celeba-{key[:16]}",
        files.unlabeled(train),
        files.unlabeled(test),
        decode,
        skip_corrupt=skip_corrupt,
    )
    division = ", divided as by Suganuma et al." if ecae else ""
    return decoded, f"CelebA in {data_dir}{division}"


def _rows(data_dir: pathlib.Path, name: str) -> list[list[str]]:
    """The words of each line of a list."""
    path = _find(data_dir, name)
    if path is None:
        raise images.DatasetError(f"{data_dir} lacks {name}; get it from {URL}")
    try:
        text = _files.read_text(path)
    except (ValueError, OSError) as error:
        raise images.DatasetError(f"{path} cannot be read: {reason(error)}") from error
    return [line.split() for line in text.splitlines() if line.strip()]


def _wrong_line(
    data_dir: pathlib.Path, name: str, row: list[str], expected: str
) -> images.DatasetError:
    path, shown = _find(data_dir, name), " ".join(row)[:100]
    return images.DatasetError(f"{path} has the line {shown!r}; expected {expected}")


def _between_eyes(data_dir: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Column and row of the point between the eyes, of each file in order."""
    points: dict[str, tuple[int, int]] = {}
    # The first lines hold the number of files and the names of the columns.
    for row in _rows(data_dir, LANDMARKS)[2:]:
        name, *numbers = row
        is_known = all(re.fullmatch(r"-?\d{1,6}", number) for number in numbers)
        if len(numbers) != 10 or not is_known or name in points:
            expected = "a file, listed once, and 10 integers"
            raise _wrong_line(data_dir, LANDMARKS, row, expected)
        left_x, left_y, right_x, right_y = map(int, numbers[:4])
        points[name] = (left_x + right_x) // 2, (left_y + right_y) // 2
    return points


def _partition(data_dir: pathlib.Path) -> dict[str, int]:
    """0, 1 or 2 of each file in order: training, validation, test."""
    parts: dict[str, int] = {}
    for row in _rows(data_dir, PARTITION):
        if len(row) != 2 or row[1] not in ("0", "1", "2") or row[0] in parts:
            expected = "a file, listed once, and 0, 1 or 2"
            raise _wrong_line(data_dir, PARTITION, row, expected)
        parts[row[0]] = int(row[1])
    return parts


def _check_present(folder: pathlib.Path, names: list[str]) -> None:
    present = set(os.listdir(folder))
    missing = [name for name in names if name not in present]
    if missing:
        raise images.DatasetError(
            f"{folder} lacks {missing[0][:100]!r}, which is listed ({len(missing)} "
            "such images)"
        )


def _cut(
    image: "Image.Image", point: tuple[int, int], image_size: int, name: object
) -> np.ndarray:
    """The square around a point, moved into the image where it would leave it."""
    from PIL import Image

    if min(image.size) < _PATCH:
        raise images.DatasetError(
            f"{name} is {image.width}x{image.height} pixels; expected an aligned "
            "photograph, 178x218"
        )
    left, top = (
        min(max(place - _PATCH // 2, 0), side - _PATCH)
        for place, side in zip(point, image.size, strict=True)
    )
    box = (left, top, left + _PATCH, top + _PATCH)
    size = (image_size, image_size)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box))


def _tfds(
    data_dir: pathlib.Path, image_size: int, skip_corrupt: bool
) -> tuple[files.DecodedFiles, str]:
    version_dir = prepared.find_version(data_dir, "celeb_a")
    if version_dir is None:
        raise images.DatasetError(
            f"{data_dir} holds neither {IMAGES} nor a TFDS data set celeb_a stored as "
            f"array_record; get the official files from {URL}"
        )
    builder: Any = prepared.import_tfds().builder_from_directory(version_dir)
    if "landmarks" not in builder.info.features:
        raise images.DatasetError(f"{version_dir} has no landmarks; prepare it again")
    sources = {
        split: prepared.data_source(builder, split) for split in ("train", "test")
    }

    def decode(item: tuple[str, int]) -> np.ndarray:
        split, index = item
        with prepared.damage_told(builder, split):
            example = sources[split][index]
        name = f"image {index} of the split {split!r} in {version_dir}"
        marks = example["landmarks"]
        x, y = (
            int(marks[f"lefteye_{axis}"] + marks[f"righteye_{axis}"]) // 2
            for axis in "xy"
        )
        image = decoding.open_image(example["image"], name)
        return _cut(image, (x, y), image_size, name)

    train, test = (
        files.unlabeled([(split, index) for index in range(len(source))])
        for split, source in sources.items()
    )
    read = sorted(filter(pathlib.Path.is_file, version_dir.iterdir()))
    key = cache.fingerprint(version_dir, read, f"{image_size}")
    decoded = files.decode(
        data_dir,
        f"celeb_a-{key[:16]}",
        train,
        test,
        decode,
        skip_corrupt=skip_corrupt,
    )
    version = f"{version_dir.parent.name}/{version_dir.name}"
    return decoded, f"CelebA as the TFDS data set {version}"
