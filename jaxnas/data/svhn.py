"""SVHN: digits cut out of house numbers, 32x32 pixels, as MATLAB files or by TFDS.

Source: Netzer et al., "Reading digits in natural images" (2011);
http://ufldl.stanford.edu/housenumbers/.
"""

import pathlib
import zlib

import numpy as np

from jaxnas._checks import reason
from jaxnas.data import cache, decoding, images, prepared

URL = "http://ufldl.stanford.edu/housenumbers/"
"""Where the official files are."""

FILES = ("train_32x32.mat", "test_32x32.mat")
"""The official files of the training and the test images."""

IMAGE_SHAPE = (32, 32, 3)
"""Height, width, channels."""

NUM_EXAMPLES = (73_257, 26_032)
"""The published numbers of training and test images."""

# The official files unpack to 226 and 80 MB.
_MAX_BYTES = 2**28
_CHUNK = 2**16

# What SciPy is known to raise for damaged files.
_FAULTS = (
    *(ValueError, TypeError, LookupError, OSError, EOFError, OverflowError),
    *(MemoryError, NotImplementedError, zlib.error),
)


def load(data_dir: pathlib.Path, image_size: int | None = None) -> images.ImageDataset:
    """Load the official files, or a TFDS data set `svhn_cropped`.

    Args:
      data_dir: the folder that holds `train_32x32.mat` and `test_32x32.mat`, or a TFDS
        folder.
      image_size: side in pixels to resize the images to (bilinear); 32 if `None`.

    Returns:
      RGB images labeled by their digits.

    Raises:
      DatasetError: if the data are missing or damaged.
    """
    size = IMAGE_SHAPE[0] if image_size is None else image_size
    decoding.check_image_size(size)
    paths = [data_dir / name for name in FILES]
    if any(path.is_file() for path in paths):
        source, root = f"SVHN in {data_dir}", data_dir

        def read() -> tuple[images.Split, images.Split]:
            train, test = map(read_file, paths)
            return train, test

    else:
        version_dir = prepared.find_version(data_dir, "svhn_cropped")
        if version_dir is None:
            raise images.DatasetError(
                f"{data_dir} holds neither {FILES[0]} and {FILES[1]} nor a TFDS data "
                f"set svhn_cropped stored as array_record; get the files from {URL}"
            )
        source = f"SVHN as the TFDS data set svhn_cropped/{version_dir.name}"
        paths = sorted(filter(pathlib.Path.is_file, version_dir.iterdir()))
        root = version_dir

        def read() -> tuple[images.Split, images.Split]:
            train, test, *_ = prepared.read(
                version_dir, data_dir, IMAGE_SHAPE, num_classes=10
            )
            return train, test

    def compute() -> dict[str, np.ndarray]:
        train, test = read()
        mean, std = images.channel_statistics(train.images)
        return {
            "train": decoding.resized(train.images, size),
            "train_labels": train.labels,
            "test": decoding.resized(test.images, size),
            "test_labels": test.labels,
            "mean": np.array(mean),
            "std": np.array(std),
        }

    for path in paths:
        if not path.is_file():
            raise images.DatasetError(f"{path} is missing; get it from {URL}")
    key = cache.fingerprint(root, paths, f"{size}")
    arrays = cache.load_or_compute(data_dir, f"svhn-{key[:16]}", compute)
    train, test = (
        images.Split(arrays[split], arrays[f"{split}_labels"])
        for split in ("train", "test")
    )
    resized = f", resized to {size}x{size}" if size != IMAGE_SHAPE[0] else ""
    return images.ImageDataset(
        name="svhn",
        train=train,
        test=test,
        class_names=tuple("0123456789"),
        mean=tuple(arrays["mean"].tolist()),
        std=tuple(arrays["std"].tolist()),
        source=source + resized + images.count_note(train, test, NUM_EXAMPLES),
    )


def read_file(path: pathlib.Path) -> images.Split:
    """Read the arrays `X` `[32, 32, 3, num]` and `y` `[num, 1]`, with 10 for zeros.

    Raises:
      DatasetError: if the file is damaged or holds something else.
    """
    import scipy.io

    remedy = f"get it again from {URL}"
    try:
        decoding.check_size(path.stat().st_size, path, _MAX_BYTES)
        _check_unpacked_size(path)
        arrays = scipy.io.loadmat(path, variable_names=("X", "y"))
    except images.DatasetError:
        raise
    except _FAULTS as error:
        raise images.DatasetError(
            f"{path} cannot be read: {reason(error)}; {remedy}"
        ) from error
    pixels, labels = (arrays.get(name, np.zeros(0)) for name in ("X", "y"))
    num = pixels.shape[-1]
    if (
        (pixels.dtype, pixels.shape) != (np.uint8, (*IMAGE_SHAPE, num))
        or (labels.dtype.kind, labels.shape) != ("u", (num, 1))
        or not num
    ):
        raise images.DatasetError(
            f"{path} has X of type {pixels.dtype} {list(pixels.shape)} and y of type "
            f"{labels.dtype} {list(labels.shape)}; expected uint8 [32, 32, 3, num] and "
            f"[num, 1]; {remedy}"
        )
    digits = labels[:, 0].astype(np.int64)
    digits[digits == 10] = 0
    return images.Split(
        np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)),
        images.check_labels(digits, 10, str(path)),
    )


def _check_unpacked_size(path: pathlib.Path) -> None:
    """Refuse a file whose arrays are larger than the official ones, by unpacking it."""
    num_bytes = 0
    with path.open("rb") as file:
        if file.read(128)[124:] != b"\0\1IM":  # version 5, little-endian
            raise ValueError("it is no MATLAB 5 file")
        while len(tag := file.read(8)) == 8:
            kind, size = (int.from_bytes(tag[i : i + 4], "little") for i in (0, 4))
            content = file.read(min(size, _MAX_BYTES))
            unpacker = zlib.decompressobj()
            while kind == 15 and content:  # a compressed array
                num_bytes += len(unpacker.decompress(content, _CHUNK))
                content = unpacker.unconsumed_tail
                decoding.check_size(num_bytes, f"the content of {path}", _MAX_BYTES)
