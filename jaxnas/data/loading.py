"""Loading a data set by name."""

import os
import pathlib

from jaxnas.data import cifar, digits, folder, images, prepared, tiny_imagenet

_CIFAR = {layout.name: layout for layout in (cifar.CIFAR10, cifar.CIFAR100)}

NAMES = ("digits", *_CIFAR, tiny_imagenet.NAME, "folder")
"""The names `load` knows."""


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    download: bool = True,
) -> images.ImageDataset:
    """Load an image data set into memory.

    `digits` comes with scikit-learn and reads no file. `cifar10`, `cifar100` and
    `tiny_imagenet200` are looked for in `data_dir` as the official folder, the official
    archive and a TFDS data set stored as array_record, and then downloaded and prepared
    with TFDS. Of Tiny-ImageNet-200, the validation images are those to test on, as its
    test images have no labels. `folder` is any `data_dir/train/CLASS/*` with
    `data_dir/test/CLASS/*`.

    Args:
      name: one of `NAMES`.
      data_dir: where the files are; for CIFAR and Tiny-ImageNet-200 by default TFDS's
        folder, usually `~/tensorflow_datasets`. Unused by `digits`.
      image_size: for `folder` only, side in pixels to bring all images to.
      download: whether CIFAR and Tiny-ImageNet-200 may be downloaded.

    Returns:
      The data set, uint8 images with int32 labels.

    Raises:
      DatasetError: if the name is unknown, or the data are missing or damaged.
    """
    if name not in NAMES:
        raise images.DatasetError(
            f"unknown data set {name!r}, expected one of {', '.join(NAMES)}"
        )
    path = None if data_dir is None else pathlib.Path(data_dir).expanduser()
    if name == "folder":
        if path is None:
            raise images.DatasetError(
                "data set 'folder' needs data_dir, the folder that holds train and test"
            )
        return folder.load(path, image_size)
    if image_size is not None:
        raise images.DatasetError(
            f"image_size is for data set 'folder' only, got {image_size} for {name!r}"
        )
    if name == "digits":
        return digits.load()
    path = path or prepared.default_dir()
    if path.exists() and not path.is_dir():
        raise images.DatasetError(f"{path} is a file, expected a folder")
    if name == tiny_imagenet.NAME:
        return _load_tiny_imagenet(path, download)
    return _load_cifar(_CIFAR[name], path, download)


def _load_cifar(
    layout: cifar.Layout, data_dir: pathlib.Path, download: bool
) -> images.ImageDataset:
    if (data_dir / layout.folder).is_dir():
        return cifar.read_folder(data_dir / layout.folder, layout)
    if (data_dir / layout.meta).is_file():
        return cifar.read_folder(data_dir, layout)
    if (data_dir / layout.archive).is_file():
        return cifar.read_archive(data_dir / layout.archive, layout)
    version_dir = prepared.find_version(data_dir, f"jaxnas_{layout.name}", layout.name)
    if version_dir is None:
        version_dir = _prepare(
            data_dir, download, layout.name, layout.folder, cifar.URL + layout.archive
        )
    train, test, class_names = prepared.read(
        version_dir, data_dir, cifar.IMAGE_SHAPE, num_classes=layout.num_classes
    )
    source = f"{layout.title} as {_tfds_name(version_dir)}"
    return cifar.dataset(layout, train, test, class_names, source)


def _load_tiny_imagenet(data_dir: pathlib.Path, download: bool) -> images.ImageDataset:
    if (data_dir / tiny_imagenet.FOLDER).is_dir():
        return tiny_imagenet.read_folder(data_dir / tiny_imagenet.FOLDER)
    if (data_dir / tiny_imagenet.WNIDS).is_file():
        return tiny_imagenet.read_folder(data_dir)
    if (data_dir / tiny_imagenet.ARCHIVE).is_file():
        return tiny_imagenet.read_archive(data_dir / tiny_imagenet.ARCHIVE)
    version_dir = prepared.find_version(data_dir, f"jaxnas_{tiny_imagenet.NAME}")
    if version_dir is None:
        version_dir = _prepare(
            data_dir,
            download,
            tiny_imagenet.NAME,
            tiny_imagenet.FOLDER,
            tiny_imagenet.URL,
        )
    train, test, class_names = prepared.read(
        version_dir, data_dir, tiny_imagenet.IMAGE_SHAPE, test_split="validation"
    )
    source = f"Tiny-ImageNet-200 as {_tfds_name(version_dir)}"
    return tiny_imagenet.dataset(train, test, class_names, source)


def _tfds_name(version_dir: pathlib.Path) -> str:
    return f"the TFDS data set {version_dir.parent.name}/{version_dir.name}"


def _prepare(
    data_dir: pathlib.Path, download: bool, name: str, folder_name: str, url: str
) -> pathlib.Path:
    if not download:
        archive = pathlib.PurePosixPath(url).name
        raise images.DatasetError(
            f"{data_dir} holds neither {folder_name}, {archive} nor a TFDS data set "
            f"{name} stored as array_record; get {url} and put it there"
        )
    return prepared.prepare(data_dir, name, url)
