"""Images as TFDS data sets: finding, reading and preparing them."""

import contextlib
import pathlib
import urllib.request
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from jaxnas.data import cache, decoding, images

_TIMEOUT = 30.0  # Seconds until the server must have answered.


def import_tfds() -> Any:
    """Import TensorFlow Datasets.

    Raises:
      DatasetError: if it is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise images.DatasetError(
            "TensorFlow Datasets, which downloads and reads this data set, is missing: "
            "pip install 'jaxnas[tfds]'"
        ) from error
    return tfds


def default_dir() -> pathlib.Path:
    """Return the folder in which TFDS keeps data sets unless told otherwise."""
    import_tfds()
    from tensorflow_datasets.core import constants

    return pathlib.Path(constants.DATA_DIR)


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
    version_dir: pathlib.Path,
    cache_dir: pathlib.Path,
    image_shape: tuple[int, int, int],
    *,
    num_classes: int | None = None,
    test_split: str = "test",
    skip_corrupt: bool = False,
) -> tuple[images.Split, images.Split, tuple[str, ...], int]:
    """Read a prepared data set.

    Args:
      version_dir: the folder of one version, as returned by `find_version`.
      cache_dir: where the decoded images are kept.
      image_shape: the images' height, width and channels.
      num_classes: the number of classes; None for any number.
      test_split: the split to test on.
      skip_corrupt: whether to leave out and count images that cannot be decoded.

    Returns:
      The split `train` and the one to test on, sorted by the examples' `id`, which is
      the order they were prepared in; the names of the classes; how many images were
      left out.

    Raises:
      DatasetError: if the folder does not hold the data set it should.
    """
    tfds = import_tfds()
    builder = tfds.builder_from_directory(version_dir)
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise images.DatasetError(f"the examples in {version_dir} are no dictionaries")
    image, label = (
        cast(Any, dict(features.items()).get(name)) for name in ("image", "label")
    )
    if not isinstance(image, tfds.features.Image) or image.shape != image_shape:
        raise images.DatasetError(
            f"'image' in {version_dir} is {image}, expected an image of shape "
            f"{image_shape}"
        )
    if not isinstance(label, tfds.features.ClassLabel) or (
        num_classes is not None and label.num_classes != num_classes
    ):
        number = "" if num_classes is None else f"{num_classes} "
        raise images.DatasetError(
            f"'label' in {version_dir} is {label}, expected one of {number}classes"
        )
    class_names = tuple(label.names)
    splits = ("train", test_split)

    def decode(example: dict[str, Any]) -> np.ndarray:
        where = f"an image in {version_dir}"
        return decoding.decode(example["image"], where, image_shape)

    def decode_all() -> dict[str, np.ndarray]:
        arrays = {}
        for split in splits:
            examples = _examples(builder, split)
            if "id" in features:
                examples.sort(key=lambda example: example["id"])
            pixels, is_read = decoding.decode_all(
                examples, decode, skip_corrupt=skip_corrupt
            )
            labels = np.array([e["label"] for e in examples])
            arrays[f"{split}_images"] = pixels
            arrays[f"{split}_labels"] = labels[is_read]
            arrays[f"{split}_corrupt"] = (~is_read).sum()
        return arrays

    files = sorted(path for path in version_dir.iterdir() if path.is_file())
    key = cache.fingerprint(version_dir, files)
    arrays = cache.load_or_compute(
        cache_dir,
        f"{version_dir.parent.name}-{key[:16]}" + "-skipping" * skip_corrupt,
        decode_all,
    )
    train, test = (
        images.Split(
            arrays[f"{split}_images"],
            images.check_labels(
                arrays[f"{split}_labels"], len(class_names), f"{version_dir} ({split})"
            ),
        )
        for split in splits
    )
    num_corrupt = sum(int(arrays[f"{split}_corrupt"]) for split in splits)
    return train, test, class_names, num_corrupt


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
    tfds = import_tfds()

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


def prepare(data_dir: pathlib.Path, name: str, archive_url: str) -> pathlib.Path:
    """Download a data set and prepare it as a TFDS data set.

    The archive is not downloaded when it lies in `data_dir` already. Either way TFDS
    checks its size and SHA-256.

    Args:
      data_dir: the TFDS folder to prepare it in.
      name: the name the data set is loaded by; its builder is `jaxnas_NAME`.
      archive_url: the archive to get by hand if this fails.

    Returns:
      The folder to `read`.

    Raises:
      DatasetError: if the archive cannot be had or is not the official one.
    """
    tfds = import_tfds()
    from tensorflow_datasets.core.download import download_manager

    from jaxnas.data import tfds_builders

    builders = {
        "cifar10": tfds_builders.JaxnasCifar10,
        "cifar100": tfds_builders.JaxnasCifar100,
        "tiny_imagenet200": tfds_builders.JaxnasTinyImagenet200,
    }
    builder = builders[name](data_dir=data_dir)
    archive = data_dir / pathlib.PurePosixPath(builder.URL).name
    remedy = f"put {archive_url} into {data_dir}"
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
            f"{name} is not in {data_dir} and could not be downloaded from "
            f"{builder.URL} and prepared there ({error}); {remedy}"
        ) from error
    except download_manager.NonMatchingChecksumError as error:
        found = archive if archive.is_file() else f"what {builder.URL} sent"
        raise images.DatasetError(
            f"{found} is not the official archive or not all of it, its SHA-256 "
            f"differs from the expected one; delete it and {remedy}"
        ) from error
    return pathlib.Path(builder.data_dir)
