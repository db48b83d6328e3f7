"""CIFAR-10 and CIFAR-100 as their authors distribute them, for Python and in binary.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009);
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import hashlib
import pathlib
import tarfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnas.data import decoding, images, pickles

URL = "https://www.cs.toronto.edu/~kriz/"
"""Address of the official archives."""

IMAGE_SHAPE = (32, 32, 3)
"""Height, width, channels."""


class BinaryFiles(NamedTuple):
    """Layout of a data set in its authors' archive of binary files.

    Attributes:
      folder: the folder inside the archive.
      train: the training files, in order.
      test: the test files.
      names: the text file with one class name per line.
      num_label_bytes: label bytes before each image, of which the last is the class.
      num_classes: the number of classes.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    num_label_bytes: int
    num_classes: int


class CifarFiles(NamedTuple):
    """Files of one of the two data sets, and checksums of the official ones.

    Attributes:
      name: the name it is loaded by.
      title: the name it is known by.
      folder: the folder inside the archive.
      archive: the file name of the archive.
      archive_md5: its digest.
      train: training files and their official digests, in order.
      test: the test file and its digest.
      meta: the file with the class names.
      names_key: the entry of `meta` that holds them.
      labels_key: the entry of a batch that holds the labels.
      num_classes: the number of classes.
      num_examples: the published numbers of training and test images.
      mean: per-channel mean of the training pixels in `[0, 1]`.
      std: per-channel standard deviation of the same.
      binary: the same data set in binary files.
    """

    name: str
    title: str
    folder: str
    archive: str
    archive_md5: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    meta: str
    names_key: str
    labels_key: str
    num_classes: int
    num_examples: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    binary: BinaryFiles


CIFAR10 = CifarFiles(
    name="cifar10",
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta="batches.meta",
    names_key="label_names",
    labels_key="labels",
    num_classes=10,
    num_examples=(50_000, 10_000),
    mean=(0.49139968, 0.48215827, 0.44653124),
    std=(0.24703233, 0.24348505, 0.26158768),
    binary=BinaryFiles(
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test=("test_batch.bin",),
        names="batches.meta.txt",
        num_label_bytes=1,
        num_classes=10,
    ),
)

CIFAR100 = CifarFiles(
    name="cifar100",
    title="CIFAR-100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta="meta",
    names_key="fine_label_names",
    labels_key="fine_labels",
    num_classes=100,
    num_examples=(50_000, 10_000),
    mean=(0.5070751592, 0.4865488733, 0.4409178434),
    std=(0.2673342859, 0.2564384629, 0.2761504713),
    binary=BinaryFiles(
        folder="cifar-100-binary",
        train=("train.bin",),
        test=("test.bin",),
        names="fine_label_names.txt",
        num_label_bytes=2,
        num_classes=100,
    ),
)


def read_folder(folder: pathlib.Path, files: CifarFiles) -> images.ImageDataset:
    """Read the unpacked official folder.

    Args:
      folder: the folder with the batch files.
      files: `CIFAR10` or `CIFAR100`.

    Returns:
      The data set, images in the official order. `source` says whether the files
      are the official ones.

    Raises:
      DatasetError: if a file is missing, unreadable or not as it should be.
    """
    contents = _contents(folder, _file_names(files))
    official = all(
        hashlib.md5(contents.get(name, b""), usedforsecurity=False).hexdigest() == md5
        for name, md5 in (*files.train.items(), *files.test.items())
    )
    source = (
        f"official {files.title} files"
        if official
        else f"{files.title} layout, files differ from the official ones"
    )
    return _parse(contents, folder, files, source)


def read_binary_folder(folder: pathlib.Path, files: CifarFiles) -> images.ImageDataset:
    """Read the unpacked folder of binary files.

    Args:
      folder: the folder with the `.bin` files.
      files: `CIFAR10` or `CIFAR100`.

    Returns:
      The data set, images in the official order.

    Raises:
      DatasetError: if a file is missing, unreadable or not as it should be.
    """
    binary = files.binary
    wanted = (*binary.train, *binary.test, binary.names)
    contents = _contents(folder, wanted)
    missing = [name for name in wanted if name not in contents]
    if missing:
        raise images.DatasetError(
            f"{folder} lacks {', '.join(missing)}; get {files.title} again from {URL}"
        )
    train, test = (
        _concatenate(
            [parse_records(contents[n], binary, f"{folder}/{n}") for n in part]
        )
        for part in (binary.train, binary.test)
    )
    class_names = parse_names(
        contents[binary.names], binary, f"{folder}/{binary.names}"
    )
    return dataset(files, train, test, class_names, f"{files.title} in binary files")


def parse_names(contents: bytes, binary: BinaryFiles, where: str) -> list[str]:
    """Parse the text file with the names of the classes.

    Args:
      contents: the file.
      binary: the layout.
      where: the file's name, for messages.

    Returns:
      The names, in label order.

    Raises:
      DatasetError: if it is no text or does not have a name for each class.
    """
    try:
        lines = contents.decode().splitlines()
    except UnicodeDecodeError as error:
        raise images.DatasetError(f"{where} is no text: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != binary.num_classes:
        raise images.DatasetError(
            f"{where} lists {len(names)} names; expected {binary.num_classes}"
        )
    return names


def parse_records(contents: bytes, binary: BinaryFiles, where: str) -> images.Split:
    """Parse a binary file: label bytes, then 1,024 red, green and blue values each.

    Args:
      contents: the file.
      binary: the layout.
      where: the file's name, for messages.

    Returns:
      The images and their labels.

    Raises:
      DatasetError: if the file does not hold whole records or a label is wrong.
    """
    size = binary.num_label_bytes + 3072
    if not contents or len(contents) % size:
        raise images.DatasetError(
            f"{where} has {len(contents)} bytes, expected a multiple of {size}"
        )
    records = np.frombuffer(contents, np.uint8).reshape(-1, size)
    labels = records[:, binary.num_label_bytes - 1]
    return images.Split(
        planes_to_images(records[:, binary.num_label_bytes :]),
        images.check_labels(labels, binary.num_classes, where),
    )


def read_archive(path: pathlib.Path, files: CifarFiles) -> images.ImageDataset:
    """Read the official archive without unpacking it.

    Args:
      path: the `.tar.gz` file.
      files: `CIFAR10` or `CIFAR100`.

    Returns:
      The data set, images in the official order.

    Raises:
      DatasetError: if the archive is not the official one.
    """
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != files.archive_md5:
        raise images.DatasetError(
            f"{path} is not the official archive or not all of it: its MD5 is {md5}, "
            f"expected {files.archive_md5}; get it again from {URL}{files.archive}"
        )
    wanted = {f"{files.folder}/{name}": name for name in _file_names(files)}
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name in wanted else None
            if file is not None:
                contents[wanted[member.name]] = file.read()
    return _parse(contents, path, files, f"official {files.title} archive")


def _contents(folder: pathlib.Path, names: Sequence[str]) -> dict[str, bytes]:
    """The contents of those files that are in a folder."""
    there = [name for name in names if (folder / name).is_file()]
    return {name: decoding.read_file(folder / name) for name in there}


def _file_names(files: CifarFiles) -> tuple[str, ...]:
    return (*files.train, *files.test, files.meta)


def _parse(
    contents: Mapping[str, bytes], where: pathlib.Path, files: CifarFiles, source: str
) -> images.ImageDataset:
    missing = [name for name in _file_names(files) if name not in contents]
    if missing:
        raise images.DatasetError(
            f"{where} lacks {', '.join(missing)}; get {files.title} again from "
            f"{URL}{files.archive}"
        )
    meta = pickles.load(contents[files.meta], f"{where}/{files.meta}")
    names = meta.get(files.names_key)
    if (
        not isinstance(names, list)
        or len(names) != files.num_classes
        or not all(isinstance(name, str | bytes) for name in names)
    ):
        raise images.DatasetError(
            f"{where}/{files.meta} does not list {files.num_classes} names under "
            f"{files.names_key!r}"
        )
    train, test = (
        _concatenate([_batch(contents[n], f"{where}/{n}", files) for n in part])
        for part in (files.train, files.test)
    )
    class_names = [
        n.decode(errors="replace") if isinstance(n, bytes) else n for n in names
    ]
    return dataset(files, train, test, class_names, source)


def dataset(
    files: CifarFiles,
    train: images.Split,
    test: images.Split,
    class_names: Sequence[str],
    source: str,
) -> images.ImageDataset:
    """Put together what was read, wherever it was read.

    Args:
      files: `CIFAR10` or `CIFAR100`.
      train: the training images.
      test: the test images.
      class_names: the names of the classes, in label order.
      source: what was read.

    Returns:
      The data set. `source` also says how its size differs from the published one.
    """
    return images.ImageDataset(
        name=files.name,
        train=train,
        test=test,
        class_names=tuple(class_names),
        mean=files.mean,
        std=files.std,
        source=source + images.count_note(train, test, files.num_examples),
    )


def _concatenate(parts: list[images.Split]) -> images.Split:
    return images.Split(
        *(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    )


def _batch(contents: bytes, where: str, files: CifarFiles) -> images.Split:
    batch = pickles.load(contents, where)
    pixels, labels = batch.get("data"), batch.get(files.labels_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise images.DatasetError(f"{where} holds no uint8 array under 'data'")
    if pixels.ndim != 2 or pixels.shape[0] == 0 or pixels.shape[1] != 3072:
        raise images.DatasetError(
            f"'data' in {where} has shape {pixels.shape}, expected [num, 3072]"
        )
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list) or not all(isinstance(x, int) for x in labels):
        raise images.DatasetError(
            f"{where} holds no list of integers under {files.labels_key!r}"
        )
    if len(labels) != len(pixels):
        raise images.DatasetError(
            f"{where} holds {len(pixels)} images but {len(labels)} labels"
        )
    return images.Split(
        planes_to_images(pixels),
        images.check_labels(labels, files.num_classes, where),
    )


def planes_to_images(pixels: np.ndarray) -> np.ndarray:
    """Turn rows of 1,024 red, green and blue values into images.

    Args:
      pixels: uint8 `[num, 3072]`.

    Returns:
      uint8 `[num, 32, 32, 3]`, contiguous.
    """
    planes = pixels.reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
