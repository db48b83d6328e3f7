"""CIFAR as TFDS data sets: finding, reading and preparing them."""

import contextlib
import io
import pathlib
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxnas.data import cache, cifar, images

_TIMEOUT = 30.0  # Seconds until the server must have answered.


def default_dir() -> pathlib.Path:
    """Return the folder in which TFDS keeps data sets unless told otherwise."""
    from tensorflow_datasets.core import constants

    return pathlib.Path(constants.DATA_DIR)


def find(data_dir: pathlib.Path, layout: cifar.Layout) -> pathlib.Path | None:
    """Find a prepared data set that can be read without TensorFlow.

    Args:
      data_dir: a TFDS folder (`data_dir/NAME/VERSION`), or that of one version.
      layout: `CIFAR10` or `CIFAR100`.

    Returns:
      The folder of the newest version stored as array_record, this library's own
      before that of TFDS; None if there is none.
    """
    return find_version(data_dir, f"jaxnas_{layout.name}", layout.name)


def find_version(data_dir: pathlib.Path, *names: str) -> pathlib.Path | None:
    """Find the newest version stored as array_record of the first name that has one.

    Args:
      data_dir: a TFDS folder (`data_dir/NAME/VERSION`), or that of one version.
      *names: names of TFDS data sets.

    Returns:
      The folder of the version; None if there is none.
    """
    if data_dir.parent.name in names and _readable(data_dir):
        return data_dir
    for name in names:
        versions = filter(_readable, (data_dir / name).glob("*.*.*"))
        newest = max(versions, key=_version, default=None)
        if newest is not None:
            return newest
    return None


def _readable(folder: pathlib.Path) -> bool:
    # Asking for a builder would need the TFDS code that prepared the folder.
    return (folder / "dataset_info.json").is_file() and any(
        folder.glob("*.array_record*")
    )


def _version(folder: pathlib.Path) -> tuple[int, ...]:
    parts = folder.name.split(".")
    return tuple(int(part) for part in parts) if "".join(parts).isdigit() else ()


def read(
    folder: pathlib.Path, layout: cifar.Layout, cache_dir: pathlib.Path
) -> images.ImageDataset:
    """Read a prepared data set.

    Args:
      folder: the folder of one version, as returned by `find`.
      layout: `CIFAR10` or `CIFAR100`.
      cache_dir: where the decoded images are kept.

    Returns:
      The data set, sorted by the examples' `id`, which is the official order.

    Raises:
      DatasetError: if the folder does not hold the data set it should.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise images.DatasetError(f"the examples in {folder} are no dictionaries")
    image, label = (dict(features.items()).get(name) for name in ("image", "label"))
    if not isinstance(image, tfds.features.Image) or image.shape != cifar.IMAGE_SHAPE:
        raise images.DatasetError(
            f"'image' in {folder} is {image}, expected an image of shape "
            f"{cifar.IMAGE_SHAPE}"
        )
    if (
        not isinstance(label, tfds.features.ClassLabel)
        or label.num_classes != layout.num_classes
    ):
        raise images.DatasetError(
            f"'label' in {folder} is {label}, expected one of {layout.num_classes} "
            "classes"
        )

    def decode() -> dict[str, np.ndarray]:
        arrays = {}
        for split in ("train", "test"):
            examples = _examples(builder, split)
            if "id" in features:
                examples.sort(key=lambda example: example["id"])
            pixels = [_decode(example["image"]) for example in examples]
            arrays[f"{split}_images"] = np.stack(pixels)
            arrays[f"{split}_labels"] = np.array([e["label"] for e in examples])
        return arrays

    files = sorted(path for path in folder.iterdir() if path.is_file())
    key = cache.fingerprint(folder, files)
    arrays = cache.load_or_compute(cache_dir, f"{layout.name}-{key[:16]}", decode)
    train, test = (
        images.Split(
            arrays[f"{split}_images"],
            cifar.check_labels(
                arrays[f"{split}_labels"], layout.num_classes, f"{folder} ({split})"
            ),
        )
        for split in ("train", "test")
    )
    return images.ImageDataset(
        name=layout.name,
        train=train,
        test=test,
        class_names=tuple(label.names),
        mean=layout.mean,
        std=layout.std,
        source=f"{layout.title} as the TFDS data set {folder.parent.name}/{folder.name}"
        + images.count_note(train, test, layout.num_examples),
    )


def _examples(builder: Any, split: str) -> list[dict[str, Any]]:
    """Return the examples of a split with their images still encoded."""
    source = data_source(builder, split)
    with damage_told(builder, split):
        return [source[index] for index in range(len(source))]


def data_source(builder: Any, split: str) -> Any:
    """The examples of a split by index, with their images still encoded.

    Raises:
      DatasetError: if there is no such split, or it is damaged.
    """
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        raise images.DatasetError(f"{builder.data_dir} has no split {split!r}")
    with damage_told(builder, split):
        return builder.as_data_source(
            split=split,
            decoders={"image": tfds.decode.SkipDecoding()},
            file_format="array_record",
        )


@contextlib.contextmanager
def damage_told(builder: Any, split: str) -> Iterator[None]:
    """Raise `DatasetError` for what array_record raises for a bad file."""
    try:
        yield
    except RuntimeError as error:
        raise images.DatasetError(
            f"the split {split!r} in {builder.data_dir} is damaged ({error}); delete "
            "the folder and prepare the data set again"
        ) from error


def _decode(png: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as file:
        return np.asarray(file.convert("RGB"))


def prepare(data_dir: pathlib.Path, layout: cifar.Layout) -> pathlib.Path:
    """Download a data set and prepare it as a TFDS data set.

    The archive is not downloaded when it lies in `data_dir` already. Either way TFDS
    checks its size and SHA-256.

    Args:
      data_dir: the TFDS folder to prepare it in.
      layout: `CIFAR10` or `CIFAR100`.

    Returns:
      The folder to `read`.

    Raises:
      DatasetError: if the archive cannot be had or is not the official one.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager

    from jaxnas.data import tfds_builders

    builders = {
        cifar.CIFAR10.name: tfds_builders.JaxnasCifar10,
        cifar.CIFAR100.name: tfds_builders.JaxnasCifar100,
    }
    builder = builders[layout.name](data_dir=data_dir)
    archive = data_dir / pathlib.PurePosixPath(builder.URL).name
    remedy = f"put {cifar.URL}{layout.archive} into {data_dir}"
    try:
        if not archive.is_file():
            # An unreachable server shows at once, where TFDS would try for minutes.
            request = urllib.request.Request(builder.URL, method="HEAD")
            urllib.request.urlopen(request, timeout=_TIMEOUT).close()
        builder.download_and_prepare(
            download_dir=data_dir / "downloads",
            download_config=tfds.download.DownloadConfig(
                manual_dir=data_dir,
                force_checksums_validation=True,
                try_download_gcs=False,
            ),
            file_format="array_record",
        )
    except (OSError, tfds.download.DownloadError) as error:
        raise images.DatasetError(
            f"{layout.title} is not in {data_dir} and could not be downloaded from "
            f"{builder.URL} and prepared there ({error}); {remedy}"
        ) from error
    except download_manager.NonMatchingChecksumError as error:
        found = archive if archive.is_file() else f"what {builder.URL} sent"
        raise images.DatasetError(
            f"{found} is not the official archive or not all of it, its SHA-256 "
            f"differs from the expected one; delete it and {remedy}"
        ) from error
    return pathlib.Path(builder.data_dir)
