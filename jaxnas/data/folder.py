"""Images in folders, one folder per class."""

import concurrent.futures
import io
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar

import numpy as np

from jaxnas.data import cache, images

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""Files with other endings are left alone."""

_Item = TypeVar("_Item")


class FolderFiles(NamedTuple):
    """The images of one split.

    Attributes:
      folder: the folder of the split.
      paths: its files, ordered by class and path.
      labels: int32 `[num]`.
    """

    folder: pathlib.Path
    paths: list[pathlib.Path]
    labels: np.ndarray


def find(data_dir: pathlib.Path) -> tuple[FolderFiles, FolderFiles, tuple[str, ...]]:
    """Find `data_dir/train/CLASS/*` and `data_dir/test/CLASS/*` (or `val/`).

    Args:
      data_dir: the folder that holds `train` and `test`, or `train` and `val`.

    Returns:
      The files for training, those for testing, and the names of the classes in
      alphabetical order.

    Raises:
      DatasetError: if a folder or its images are missing, or the classes of the two
        splits differ.
    """
    train_dir, test_dir = _split_dirs(data_dir)
    train, test = _class_files(train_dir), _class_files(test_dir)
    check_same_classes(train_dir, train, test_dir, test)
    return (
        FolderFiles(train_dir, *_list(train)),
        FolderFiles(test_dir, *_list(test)),
        tuple(train),
    )


def load(data_dir: pathlib.Path, image_size: int | None = None) -> images.ImageDataset:
    """Load `data_dir/train/CLASS/*` and `data_dir/test/CLASS/*` (or `val/`).

    Images may lie in deeper folders of their class. The decoded images are kept in
    `data_dir/.jaxnas-cache`, and used again until a file's path, size or time of
    change differs.

    Args:
      data_dir: the folder that holds `train` and `test`, or `train` and `val`.
      image_size: side of the square images to make, in pixels: the shorter side is
        resized to it (bilinear, antialiased) and the center is kept. Without it,
        all images must have one size.

    Returns:
      RGB images, those for training in one fixed random order, so that the first
      ones are a sample of all classes, those for testing ordered by class and path;
      class names in alphabetical order.

    Raises:
      DatasetError: if a folder or its images are missing, the classes of the two
        splits differ, an image cannot be read, or sizes differ.
    """
    if image_size is not None and image_size < 1:
        raise images.DatasetError(f"image_size must be at least 1, got {image_size}")
    (train_dir, train_paths, train_labels), test_files, class_names = find(data_dir)
    test_dir, test_paths, test_labels = test_files
    # One fixed shuffle, so that a search may take the first half of the images.
    order = np.random.default_rng(0).permutation(len(train_paths))
    train_paths, train_labels = [train_paths[i] for i in order], train_labels[order]

    def decode() -> dict[str, np.ndarray]:
        pixels = _decode_all([*train_paths, *test_paths], image_size)
        train, test = pixels[: len(train_paths)], pixels[len(train_paths) :]
        mean, std = images.channel_statistics(train)
        return {
            "train": train,
            "test": test,
            "mean": np.array(mean),
            "std": np.array(std),
        }

    key = cache.fingerprint(data_dir, [*train_paths, *test_paths], f"{image_size}")
    arrays = cache.load_or_compute(data_dir, f"folder-{key[:16]}", decode)
    resized = "" if image_size is None else f", resized to {image_size}x{image_size}"
    return images.ImageDataset(
        name="folder",
        train=images.Split(arrays["train"], train_labels),
        test=images.Split(arrays["test"], test_labels),
        class_names=class_names,
        mean=tuple(arrays["mean"].tolist()),
        std=tuple(arrays["std"].tolist()),
        source=f"images in {data_dir}, {train_dir.name} and {test_dir.name}{resized}",
    )


def _split_dirs(data_dir: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    train, test, val = (data_dir / name for name in ("train", "test", "val"))
    if not train.is_dir():
        raise images.DatasetError(
            f"{train} is not a folder; expected images in {train}/CLASS and "
            f"{test}/CLASS"
        )
    if not test.is_dir() and not val.is_dir():
        raise images.DatasetError(
            f"neither {test} nor {val} is a folder; expected images in one of them, "
            "in the same classes as in train"
        )
    return train, test if test.is_dir() else val


def _class_files(split_dir: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Return the sorted image files of each class of a split."""
    files = {}
    for folder in sorted(split_dir.iterdir()):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        found = [path for path in folder.rglob("*") if _is_image(path)]
        if not found:
            raise images.DatasetError(
                f"{folder} holds no image; expected files ending in "
                f"{', '.join(sorted(SUFFIXES))}"
            )
        files[folder.name] = sorted(found)
    if not files:
        raise images.DatasetError(
            f"{split_dir} holds no folder; expected one folder of images per class"
        )
    return files


def _is_image(path: pathlib.Path) -> bool:
    return is_image_name(path.name) and path.is_file()


def is_image_name(name: str) -> bool:
    """Say whether a file is taken for an image.

    Args:
      name: the file's name, without its folder.

    Returns:
      Whether it ends as one of `SUFFIXES` and is not hidden.
    """
    return not name.startswith(".") and (
        pathlib.PurePosixPath(name).suffix.lower() in SUFFIXES
    )


def check_same_classes(
    here_name: object,
    here: Iterable[str],
    there_name: object,
    there: Iterable[str],
) -> None:
    """Check that two places have the same classes.

    Args:
      here_name: what to call the first place in a message.
      here: its classes.
      there_name: what to call the second place.
      there: its classes.

    Raises:
      DatasetError: if a class is missing in one of them.
    """
    here, there = frozenset(here), frozenset(there)
    for some, others, name, other_name in (
        (here, there, here_name, there_name),
        (there, here, there_name, here_name),
    ):
        extra = sorted(some - others)
        if extra:
            raise images.DatasetError(
                f"class {extra[0]!r} is in {name} but not in {other_name} "
                f"({len(extra)} such classes); both need the same classes"
            )


def _list(
    files: Mapping[str, Sequence[pathlib.Path]],
) -> tuple[list[pathlib.Path], np.ndarray]:
    """Return all files and their labels, ordered by class."""
    paths = [path for group in files.values() for path in group]
    counts = [len(group) for group in files.values()]
    return paths, np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def _decode_all(paths: Sequence[pathlib.Path], image_size: int | None) -> np.ndarray:
    first = _decode(paths[0], image_size)

    def decode(path: pathlib.Path) -> np.ndarray:
        image = _decode(path, image_size)
        if image.shape != first.shape:
            raise images.DatasetError(
                f"{paths[0]} is {_size(first.shape)} pixels but {path} is "
                f"{_size(image.shape)}; give image_size to bring all images to one size"
            )
        return image

    return decode_all(paths, decode, first.shape)


def decode_all(
    items: Sequence[_Item],
    decode: Callable[[_Item], np.ndarray],
    image_shape: tuple[int, ...],
) -> np.ndarray:
    """Decode images in threads.

    Args:
      items: what the images are made from.
      decode: makes an image, uint8 `image_shape`; is called in many threads.
      image_shape: height, width, channels.

    Returns:
      uint8 `[num, *image_shape]`.
    """
    pixels = np.empty((len(items), *image_shape), np.uint8)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(decode, items)):
            pixels[index] = image
    return pixels


def decode_image(
    contents: bytes, name: object, image_shape: tuple[int, ...]
) -> np.ndarray:
    """Decode an image file of a known size.

    Args:
      contents: the file.
      name: what to call it in a message.
      image_shape: height, width, and 3 channels.

    Returns:
      uint8 `image_shape`, RGB.

    Raises:
      DatasetError: if it cannot be read, or has another size.
    """
    image = np.asarray(open_image(io.BytesIO(contents), name))
    if image.shape != image_shape:
        raise images.DatasetError(
            f"{name} is {_size(image.shape)} pixels, expected {_size(image_shape)}"
        )
    return image


def _size(image_shape: tuple[int, ...]) -> str:
    return f"{image_shape[1]}x{image_shape[0]}"


def open_image(file: pathlib.Path | BinaryIO, name: object) -> "Image.Image":
    """Read an image as RGB.

    Args:
      file: where it is.
      name: what to call it in a message.

    Returns:
      The decoded image.

    Raises:
      DatasetError: if it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise images.DatasetError(f"{name} cannot be read: {error}") from error


def _decode(path: pathlib.Path, image_size: int | None) -> np.ndarray:
    from PIL import Image

    image = open_image(path, path)
    if image_size is not None:
        scale = image_size / min(image.size)
        width, height = (max(image_size, round(side * scale)) for side in image.size)
        left, top = (width - image_size) // 2, (height - image_size) // 2
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + image_size, top + image_size))
    return np.asarray(image)
