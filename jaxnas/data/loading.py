"""Loading a data set by name."""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxnas.data import (
    celeba,
    cifar,
    digits,
    folder,
    images,
    prepared,
    svhn,
    tiny_imagenet,
)


class Request(NamedTuple):
    """Arguments of `load`, besides the name.

    Attributes:
      data_dir: where the files are; the default place if `None`.
      image_size: side in pixels to bring all images to, for those of `RESIZED`.
      download: whether files may be downloaded.
      skip_corrupt: whether to leave out and count images that cannot be decoded, for
        those of `IMAGE_FILES`.
    """

    data_dir: pathlib.Path | None
    image_size: int | None
    download: bool
    skip_corrupt: bool = False


class Unpacked(NamedTuple):
    """A form in which an official archive is unpacked.

    Attributes:
      folder: the folder inside the archive.
      marker: a file that shows that a folder is the official one.
      read: `(path, **options) -> data set`.
    """

    folder: str
    marker: str
    read: Callable[..., images.ImageDataset]


class Published(NamedTuple):
    """A published data set with an official archive, in one of three forms.

    Attributes:
      name: the name it is loaded by; its TFDS builder is `jaxnas_NAME`.
      title: the name it is known by.
      unpacked: the unpacked folders it is distributed as, the preferred one first.
      archive: the file name of the official archive.
      url: where that is.
      read_archive: `(path, **options) -> data set`.
      read_prepared: `(version_dir, cache_dir, **options) -> (train, test, class_names,
        num_corrupt)`, of TFDS.
      dataset: `(train, test, class_names, source) -> data set`.
      tfds_names: other TFDS data sets with the same images.
    """

    name: str
    title: str
    unpacked: tuple[Unpacked, ...]
    archive: str
    url: str
    read_archive: Callable[..., images.ImageDataset]
    read_prepared: Callable[..., Any]
    dataset: Callable[..., images.ImageDataset]
    tfds_names: tuple[str, ...] = ()


def published_cifar(files: cifar.CifarFiles) -> Published:
    """Sources and readers of CIFAR-10 or CIFAR-100."""
    return Published(
        name=files.name,
        title=files.title,
        unpacked=(
            Unpacked(
                files.folder,
                files.meta,
                functools.partial(cifar.read_folder, files=files),
            ),
            Unpacked(
                files.binary.folder,
                files.binary.names,
                functools.partial(cifar.read_binary_folder, files=files),
            ),
        ),
        archive=files.archive,
        url=cifar.URL + files.archive,
        read_archive=functools.partial(cifar.read_archive, files=files),
        read_prepared=functools.partial(
            prepared.read,
            image_shape=cifar.IMAGE_SHAPE,
            num_classes=files.num_classes,
        ),
        dataset=functools.partial(cifar.dataset, files),
        tfds_names=(files.name,),
    )


_TINY_IMAGENET = Published(
    name=tiny_imagenet.NAME,
    title="Tiny-ImageNet-200",
    unpacked=(
        Unpacked(tiny_imagenet.FOLDER, tiny_imagenet.WNIDS, tiny_imagenet.read_folder),
    ),
    archive=tiny_imagenet.ARCHIVE,
    url=tiny_imagenet.URL,
    read_archive=tiny_imagenet.read_archive,
    read_prepared=functools.partial(
        prepared.read, image_shape=tiny_imagenet.IMAGE_SHAPE, test_split="validation"
    ),
    dataset=tiny_imagenet.dataset,
)


def load_published(published: Published, request: Request) -> images.ImageDataset:
    """Load the official folder or archive, or a TFDS data set, prepared if need be.

    Args:
      published: the data set.
      request: where to look.

    Returns:
      The data set.

    Raises:
      DatasetError: if the data are missing or damaged.
    """
    path = _data_dir(request)
    options = {"skip_corrupt": True} if request.skip_corrupt else {}
    for form in published.unpacked:
        if (path / form.folder).is_dir():
            return form.read(path / form.folder, **options)
    for form in published.unpacked:
        if (path / form.marker).is_file():
            return form.read(path, **options)
    if (path / published.archive).is_file():
        return published.read_archive(path / published.archive, **options)
    names = f"jaxnas_{published.name}", *published.tfds_names
    version_dir = prepared.find_version(path, *names)
    if version_dir is None:
        if not request.download:
            folders = ", ".join(form.folder for form in published.unpacked)
            raise images.DatasetError(
                f"{path} holds neither {folders}, {published.archive} nor a TFDS data "
                f"set {published.name} stored as array_record; get {published.url} and "
                "put it there"
            )
        version_dir = prepared.prepare(path, published.name, published.url)
    train, test, class_names, num_corrupt = published.read_prepared(
        version_dir, path, **options
    )
    version = f"{version_dir.parent.name}/{version_dir.name}"
    source = f"{published.title} as the TFDS data set {version}"
    dataset = published.dataset(train, test, class_names, source)
    return dataset._replace(skipped={"corrupt": num_corrupt} if num_corrupt else {})


def _data_dir(request: Request) -> pathlib.Path:
    path = request.data_dir or prepared.default_dir()
    if path.exists() and not path.is_dir():
        raise images.DatasetError(f"{path} is a file, expected a folder")
    return path


def _load_folder(
    request: Request, name: str, load: Callable[..., images.ImageDataset]
) -> images.ImageDataset:
    if request.data_dir is None:
        raise images.DatasetError(
            f"data set {name!r} needs data_dir, the folder that holds train and test"
        )
    return load(request.data_dir, request.image_size, skip_corrupt=request.skip_corrupt)


def _load_celeba(request: Request, ecae: bool) -> images.ImageDataset:
    return celeba.load(
        _data_dir(request),
        request.image_size,
        ecae=ecae,
        skip_corrupt=request.skip_corrupt,
    )


def _load_cars(request: Request) -> images.ImageDataset:
    load = functools.partial(
        folder.load_unlabeled,
        name="cars",
        splits=(("cars_train", "cars_test"), *folder.SPLITS),
    )
    size = 64 if request.image_size is None else request.image_size
    return _load_folder(request._replace(image_size=size), "cars", load)


DATASETS: dict[str, Callable[[Request], images.ImageDataset]] = {
    "digits": lambda request: digits.load(request.image_size),
    "cifar10": functools.partial(load_published, published_cifar(cifar.CIFAR10)),
    "cifar100": functools.partial(load_published, published_cifar(cifar.CIFAR100)),
    "tiny_imagenet200": functools.partial(load_published, _TINY_IMAGENET),
    "celeba": functools.partial(_load_celeba, ecae=False),
    "celeba_ecae": functools.partial(_load_celeba, ecae=True),
    "cars": _load_cars,
    "svhn": lambda request: svhn.load(_data_dir(request), request.image_size),
    "folder": functools.partial(_load_folder, name="folder", load=folder.load),
    "images": functools.partial(
        _load_folder, name="images", load=folder.load_unlabeled
    ),
}
"""Loaders of all data sets, by name. To add one, add a row."""

RESIZED = ("digits", "celeba", "celeba_ecae", "cars", "svhn", "folder", "images")
"""Names of the data sets that are brought to an `image_size`."""

IMAGE_FILES = ("tiny_imagenet200", "celeba", "celeba_ecae", "cars", "folder", "images")
"""Names of the data sets that consist of image files, which may be corrupt."""

NAMES = tuple(DATASETS)
"""The names `load` knows."""


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    download: bool = True,
    skip_corrupt: bool = False,
) -> images.ImageDataset:
    """Load an image data set into memory.

    `digits` comes with scikit-learn and reads no file. `cifar10`, `cifar100` and
    `tiny_imagenet200` are looked for in `data_dir` as the official folder (CIFAR also
    in its binary version), the official archive and a TFDS data set stored as
    array_record, and then downloaded and prepared with TFDS. Of Tiny-ImageNet-200, the
    validation images are those to test on, as its test images have no labels. `folder`
    is any `data_dir/train/CLASS/*` with `data_dir/test/CLASS/*`.

    Without classes, for tasks such as `train.inpainting`: `images` is whatever lies in
    `data_dir/train` and `data_dir/test` and the folders below; `cars` is the same of
    `cars_train` and `cars_test`, as Stanford Cars is distributed; `celeba` is described
    in `celeba.load`, and `celeba_ecae` is divided as by Suganuma et al. (2018). `svhn`,
    with classes, is described in `svhn.load`.

    Args:
      name: one of `NAMES`.
      data_dir: where the files are; by default TFDS's folder, usually
        `~/tensorflow_datasets`. Needed by `cars`, `folder` and `images`, unused by
        `digits`.
      image_size: for those of `RESIZED`, side in pixels to bring all images to; if
        `None`, 64 for CelebA and Cars, and the images' own for the others.
      download: whether CIFAR and Tiny-ImageNet-200 may be downloaded.
      skip_corrupt: for those of `IMAGE_FILES`, whether to leave out images that cannot
        be decoded, and to count them in `skipped` as `"corrupt"`.

    Returns:
      The data set, uint8 images with int32 labels.

    Raises:
      DatasetError: if the name is unknown, or the data are missing or damaged.
    """
    if name not in DATASETS:
        raise images.DatasetError(
            f"unknown data set {name!r}, expected one of {', '.join(DATASETS)}"
        )
    if image_size is not None and name not in RESIZED:
        raise images.DatasetError(
            f"image_size is for data sets {', '.join(RESIZED)}, got {image_size} for "
            f"{name!r}"
        )
    if skip_corrupt and name not in IMAGE_FILES:
        raise images.DatasetError(
            f"skip_corrupt is for data sets {', '.join(IMAGE_FILES)}, got it for "
            f"{name!r}"
        )
    path = None if data_dir is None else pathlib.Path(data_dir).expanduser()
    return DATASETS[name](Request(path, image_size, download, skip_corrupt))
