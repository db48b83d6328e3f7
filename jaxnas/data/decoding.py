"""Decoding of image files: what is read, its limits, and the pixels made of it."""

import collections
import concurrent.futures
import contextlib
import io
import lzma
import math
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, NoReturn, TypeVar

import numpy as np

from jaxnas import _memory
from jaxnas._checks import reason
from jaxnas.data import images

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_478_485
"""Larger images are refused before they are decoded; Pillow warns of them."""

MAX_BYTES = 2**29
"""Larger files are refused before they are read: 6 bytes for each of `MAX_PIXELS`."""

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What reading a damaged zip archive is documented or known to raise."""

# Handed to Ghostscript; only recognized.
_NOT_DECODED = ("EPS", "MPEG")

# Damaged EXIF data, as some cameras write them, say nothing.
_EXIF_FAULTS = (
    *(ArithmeticError, LookupError, SyntaxError, TypeError, ValueError),
    struct.error,
)
_ORIENTATION = 274
_TURNED = (5, 6, 7, 8)  # orientations whose width and height change places

# To be raised when the pixels made of a file change, or how they are kept.
_VERSION = 4

_AHEAD = 256  # images that are decoded before they are needed

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class CorruptImage(images.DatasetError):
    """An image file is damaged, or none that can be decoded."""


def version() -> str:
    """Return what decoded pixels depend on besides the files."""
    from PIL import __version__ as pillow_version

    return f"decoding {_VERSION}, Pillow {pillow_version}"


def formats() -> dict[str, str]:
    """Return Pillow's name of the format of each file ending, such as `.png`.

    Left out are formats that Pillow only writes or recognizes, and those that it hands
    to other programs.
    """
    from PIL import Image, ImageFile

    Image.preinit()  # common formats are tried first
    Image.init()

    def is_decoded(name: str) -> bool:
        if name not in Image.OPEN or name in _NOT_DECODED:
            return False
        kind = Image.OPEN[name][0]
        return not (
            isinstance(kind, type) and issubclass(kind, ImageFile.StubImageFile)
        )

    known = Image.registered_extensions() | {".mpo": "JPEG"}
    return {suffix: name for suffix, name in known.items() if is_decoded(name)}


def skipped_kind(name: str, suffixes: frozenset[str]) -> str | None:
    """Say why a file is not taken for an image.

    Args:
      name: the file's name, or its path within a data set, separated by slashes.
      suffixes: endings of images.

    Returns:
      What to call such files in a message: `"hidden"`, an ending, or `"no ending"`;
      None if it is taken for an image.
    """
    if any(part.startswith(".") for part in name.split("/")):
        return "hidden"
    suffix = pathlib.PurePosixPath(name).suffix.lower()
    return None if suffix in suffixes else suffix or "no ending"


def read_file(path: pathlib.Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a file that is not too large.

    Args:
      path: the file.
      max_bytes: its largest size.

    Returns:
      Its contents.

    Raises:
      DatasetError: if it cannot be read or is larger.
    """
    try:
        num_bytes = path.stat().st_size
        check_size(num_bytes, path, max_bytes)
        return path.read_bytes()
    except OSError as error:
        raise images.DatasetError(
            f"{path} cannot be read: {error.strerror or error}"
        ) from error


def check_size(num_bytes: int, name: object, max_bytes: int = MAX_BYTES) -> None:
    """Check the size of a file before it is read.

    Args:
      num_bytes: its size.
      name: what to call it in a message.
      max_bytes: the largest size.

    Raises:
      DatasetError: if it is larger.
    """
    if num_bytes > max_bytes:
        raise images.DatasetError(
            f"{name} has {num_bytes:,} bytes; expected at most {max_bytes:,}"
        )


def open_image(
    contents: bytes, name: object, *, least_side: int | None = None
) -> "Image.Image":
    """Decode an image file, upright as its EXIF data say.

    Gray images of more than 8 bits are scaled to 8; of colors with more, Pillow keeps
    the upper 8. Of animations, the first picture is taken.

    Args:
      contents: the file.
      name: what to call it in a message.
      least_side: how many pixels of the shorter side are needed: of a JPEG file with
        many more, as few as possible are made, which takes less time and memory.

    Returns:
      The image as RGB.

    Raises:
      CorruptImage: if it cannot be read, has more than `MAX_PIXELS`, or pixels that
        are 32-bit integers or floating-point numbers.
    """
    if not contents:
        raise CorruptImage(f"{name} cannot be read: it is empty")
    with _opened(io.BytesIO(contents), name) as image:
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        image.load()
        _check_mode(image, name)
        _turn_upright(image)
        return _to_rgb(image)


def sides(path: pathlib.Path) -> tuple[int, int]:
    """Read the size of an image, upright as its EXIF data say, from its header.

    Args:
      path: the file, which may be damaged behind its header.

    Returns:
      Width and height in pixels.

    Raises:
      CorruptImage: if it cannot be read, or has more than `MAX_PIXELS`.
      DatasetError: if it cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise images.DatasetError(
            f"{path} cannot be read: {error.strerror or error}"
        ) from error
    with file, _opened(file, path) as image:
        orientation = 1
        with contextlib.suppress(*_EXIF_FAULTS):
            orientation = image.getexif().get(_ORIENTATION, 1)
        width, height = image.size
        return (height, width) if orientation in _TURNED else (width, height)


@contextlib.contextmanager
def _opened(file: BinaryIO, name: object) -> "Iterator[Image.Image]":
    """An image that is not decoded yet; faults end in `CorruptImage`."""
    from PIL import Image, UnidentifiedImageError

    kinds = list(dict.fromkeys(formats().values()))
    try:
        with Image.open(file, formats=kinds) as image:
            _check_sides(image.size, name)
            yield image
    except CorruptImage:
        raise
    except UnidentifiedImageError as error:
        raise CorruptImage(
            f"{name} cannot be read: it is no image that Pillow knows"
        ) from error
    # Damaged files make Pillow's decoders raise errors of many types.
    except Exception as error:
        raise CorruptImage(f"{name} cannot be read: {reason(error)}") from error


def _check_sides(sides: tuple[int, int], name: object) -> None:
    width, height = sides
    if not 0 < width * height <= MAX_PIXELS:
        raise CorruptImage(
            f"{name} is {width}x{height} pixels; expected 1 to {MAX_PIXELS:,} in all"
        )


def _check_mode(image: "Image.Image", name: object) -> None:
    numbers = {"I": "32-bit integers", "F": "floating-point numbers"}
    if image.mode in numbers and _max_gray(image) is None:
        raise CorruptImage(
            f"{name} has pixels of mode {image.mode!r}, {numbers[image.mode]}; "
            "expected at most 16 bits a channel"
        )


def _max_gray(image: "Image.Image") -> int | None:
    """White of a gray image of more than 8 bits; None for other images."""
    if image.mode == "I":  # how Pillow reads some files of 16 bits
        return 65535 if image.format in ("PNG", "PPM") else None
    if not image.mode.startswith("I;16"):
        return None
    tags = getattr(image, "tag_v2", {})  # of a TIFF file
    return 4095 if tags.get(258) == (12,) else 65535


def _turn_upright(image: "Image.Image") -> None:
    from PIL import ImageOps

    with contextlib.suppress(*_EXIF_FAULTS):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    white = _max_gray(image)
    if white is not None:
        pixels = np.asarray(image) * np.float32(255 / white)
        image = Image.fromarray(np.rint(pixels, out=pixels).astype(np.uint8))
    image.info.pop("transparency", None)  # has no effect but a warning
    return image if image.mode == "RGB" else image.convert("RGB")


def check_image_size(image_size: int) -> None:
    """Check the side in pixels that images are brought to.

    Raises:
      DatasetError: if it is below 1, or images would have more than `MAX_PIXELS`.
    """
    largest = math.isqrt(MAX_PIXELS)
    if not 1 <= image_size <= largest:
        raise images.DatasetError(
            f"image_size is {image_size}; expected 1 to {largest}"
        )


def fit(image: "Image.Image", size: int) -> "Image.Image":
    """Resize the shorter side (bilinear, antialiased) and keep the center.

    Args:
      image: RGB.
      size: side in pixels of the result.

    Returns:
      The square image.
    """
    from PIL import Image

    scale = size / min(image.size)
    spans = []
    # Only what is kept is resized, so that long images take no memory.
    for side in image.size:
        resized = max(size, round(side * scale))
        first = (resized - size) // 2
        stop = min((first + size) * side / resized, side)
        spans.append((first * side / resized, stop))
    (left, right), (top, bottom) = spans
    box = (left, top, right, bottom)
    return image.resize((size, size), Image.Resampling.BILINEAR, box)


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bring images in memory to a size, as `fit` does.

    Args:
      pixels: uint8 `[num, height, width, channels]`, of 1 or 3 channels.
      size: side in pixels of the results.

    Returns:
      uint8 `[num, size, size, channels]`.
    """
    from PIL import Image

    if pixels.shape[1:3] == (size, size):
        return pixels
    channels = pixels.shape[3]

    def resize(index: int) -> np.ndarray:
        # Pillow has no axis for the only channel of gray images.
        image = Image.fromarray(
            pixels[index, ..., 0] if channels == 1 else pixels[index]
        )
        return np.asarray(fit(image, size)).reshape(size, size, channels)

    return decode_all(range(len(pixels)), resize)[0]


def decode(contents: bytes, name: object, image_shape: tuple[int, ...]) -> np.ndarray:
    """Decode an image file of a known size.

    Args:
      contents: the file.
      name: what to call it in a message.
      image_shape: height, width, and 3 channels.

    Returns:
      uint8 `image_shape`, RGB.

    Raises:
      CorruptImage: if it cannot be read.
      DatasetError: if it has another size.
    """
    image = np.asarray(open_image(contents, name))
    if image.shape != image_shape:
        raise images.DatasetError(
            f"{name} is {size_text(image.shape)} pixels, expected "
            f"{size_text(image_shape)}"
        )
    return image


def size_text(image_shape: tuple[int, ...]) -> str:
    """Return width and height as in `64x48`, of a shape `(height, width, ...)`."""
    return f"{image_shape[1]}x{image_shape[0]}"


def decode_all(
    items: Sequence[_Item],
    decode: Callable[[_Item], np.ndarray],
    *,
    skip_corrupt: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode images of one size in threads.

    Args:
      items: what the images are made from, one or more.
      decode: makes an image, uint8 `[height, width, channels]`; is called in many
        threads.
      skip_corrupt: whether to leave out those for which it raises `CorruptImage`.

    Returns:
      uint8 `[num, height, width, channels]`, and bool `[num_items]`, which items these
      were made from.

    Raises:
      DatasetError: if their sizes differ, none can be decoded, or memory cannot hold
        them; or as `decode` does.
    """

    def attempt(item: _Item) -> np.ndarray | CorruptImage:
        try:
            return decode(item)
        except CorruptImage as error:
            if not skip_corrupt:
                raise
            return error

    is_read = np.ones(len(items), bool)
    pixels, first, num = None, 0, 0
    for index, image in enumerate(in_threads(attempt, items, _AHEAD)):
        if isinstance(image, CorruptImage):
            is_read[index] = False
            continue
        if pixels is None:
            pixels, first = _allocate(len(items), image.shape), index
        if image.shape != pixels.shape[1:]:
            raise images.DatasetError(
                f"{items[first]} is {size_text(pixels.shape[1:])} pixels but "
                f"{items[index]} is {size_text(image.shape)}; give image_size to "
                "bring all images to one size"
            )
        pixels[num] = image
        num += 1
    if pixels is None:
        raise images.DatasetError(
            f"{items[0]} and all other images are corrupt; expected one or more that "
            "can be decoded"
        )
    return pixels[:num], is_read


def in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], num_ahead: int
) -> Generator[_Result, None, None]:
    """Compute results in threads, one for each core, not too many ahead.

    Args:
      function: `item -> result`.
      items: what it is called with.
      num_ahead: the most results that wait until they are taken.

    Yields:
      The results, in the order of the items.
    """
    # Of the largest images, each thread holds some hundred MiB.
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    pending: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > num_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def check_memory(num: int, image_shape: tuple[int, ...]) -> None:
    """Check that images fit into memory, and into that of a device beside it.

    Args:
      num: how many there are.
      image_shape: `(height, width, channels)`.

    Raises:
      DatasetError: if they do not.
    """
    available = _memory.available_bytes()
    needed = 2 * num * math.prod(image_shape)
    if available is not None and needed > available:
        _raise_too_large(num, image_shape, f"{available:,} bytes are available")


def _raise_too_large(num: int, image_shape: tuple[int, ...], found: str) -> NoReturn:
    num_bytes = num * math.prod(image_shape)
    raise images.DatasetError(
        f"{num:,} images of {size_text(image_shape)} pixels take {num_bytes:,} bytes, "
        f"and as many on the device; {found}: expected fewer images or a smaller "
        "--image-size, or, for a training, --stream always"
    )


def _allocate(num: int, image_shape: tuple[int, ...]) -> np.ndarray:
    check_memory(num, image_shape)
    try:
        return np.empty((num, *image_shape), np.uint8)
    except MemoryError:
        _raise_too_large(num, image_shape, "there is no such memory")
