"""CIFAR-10 and CIFAR-100 as their authors distribute them for Python.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009);
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import hashlib
import io
import pathlib
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data import images

URL = "https://www.cs.toronto.edu/~kriz/"
"""Address of the official archives."""

IMAGE_SHAPE = (32, 32, 3)
"""Height, width, channels."""


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
    names = _file_names(files)
    contents = {n: (folder / n).read_bytes() for n in names if (folder / n).is_file()}
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
    meta = _unpickle(contents[files.meta], f"{where}/{files.meta}")
    names = meta.get(files.names_key)
    if not isinstance(names, list) or len(names) != files.num_classes:
        raise images.DatasetError(
            f"{where}/{files.meta} does not list {files.num_classes} names under "
            f"{files.names_key!r}"
        )
    train, test = (
        _concatenate([_batch(contents[n], f"{where}/{n}", files) for n in part])
        for part in (files.train, files.test)
    )
    class_names = [n.decode() if isinstance(n, bytes) else n for n in names]
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
    batch = _unpickle(contents, where)
    pixels, labels = batch.get("data"), batch.get(files.labels_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise images.DatasetError(f"{where} holds no uint8 array under 'data'")
    if pixels.ndim != 2 or pixels.shape[0] == 0 or pixels.shape[1] != 3072:
        raise images.DatasetError(
            f"'data' in {where} has shape {pixels.shape}, expected [num, 3072]"
        )
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


def _empty_bytes() -> bytes:
    return b""


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode("latin1")


# The private function's home differs between versions of NumPy.
_RECONSTRUCT = np.empty(0).__reduce__()[0]

_SAFE_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # How Python 3 writes bytes into a pickle of protocol 2.
    ("__builtin__", "bytes"): _empty_bytes,
    ("_codecs", "encode"): _encode_latin1,
}

# What a damaged pickle is documented or known to raise.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays and builtin containers; runs nothing a file may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE_GLOBALS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _SAFE_GLOBALS[module, name]


def _unpickle(contents: bytes, where: str) -> dict[str, Any]:
    try:
        loaded = _ArrayUnpickler(io.BytesIO(contents), encoding="bytes").load()
    except _PICKLE_ERRORS as error:
        raise images.DatasetError(
            f"{where} is not a pickled CIFAR file, or is cut short: {error}"
        ) from error
    if not isinstance(loaded, dict):
        raise images.DatasetError(
            f"{where} holds a {type(loaded).__name__}, expected a dictionary"
        )
    return {k.decode() if isinstance(k, bytes) else k: v for k, v in loaded.items()}
