"""Loading a data set by name."""

import os
import pathlib

from jaxnas.data import cifar, digits, folder, images, prepared

_CIFAR = {layout.name: layout for layout in (cifar.CIFAR10, cifar.CIFAR100)}

NAMES = ("digits", *_CIFAR, "folder")
"""The names `load` knows."""


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    download: bool = True,
) -> images.ImageDataset:
    """Load an image data set into memory.

    `digits` comes with scikit-learn and reads no file. `cifar10` and `cifar100` are
    looked for in `data_dir` as the official folder, the official archive and a TFDS
    data set stored as array_record, and then downloaded and prepared with TFDS.
    `folder` is any `data_dir/train/CLASS/*` with `data_dir/test/CLASS/*`.

    Args:
      name: one of `NAMES`.
      data_dir: where the files are; for CIFAR by default TFDS's folder, usually
        `~/tensorflow_datasets`. Unused by `digits`.
      image_size: for `folder` only, side in pixels to bring all images to.
      download: whether CIFAR may be downloaded.

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
    return _load_cifar(_CIFAR[name], path or prepared.default_dir(), download)


def _load_cifar(
    layout: cifar.Layout, data_dir: pathlib.Path, download: bool
) -> images.ImageDataset:
    if data_dir.exists() and not data_dir.is_dir():
        raise images.DatasetError(f"{data_dir} is a file, expected a folder")
    if (data_dir / layout.folder).is_dir():
        return cifar.read_folder(data_dir / layout.folder, layout)
    if (data_dir / layout.meta).is_file():
        return cifar.read_folder(data_dir, layout)
    if (data_dir / layout.archive).is_file():
        return cifar.read_archive(data_dir / layout.archive, layout)
    version_dir = prepared.find(data_dir, layout)
    if version_dir is None:
        if not download:
            raise images.DatasetError(
                f"{data_dir} holds neither {layout.folder}, {layout.archive} nor a "
                f"TFDS data set {layout.name} stored as array_record; get "
                f"{cifar.URL}{layout.archive} and put it there"
            )
        version_dir = prepared.prepare(data_dir, layout)
    return prepared.read(version_dir, layout, data_dir)
