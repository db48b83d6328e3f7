"""Images in folders, one folder per class."""

import collections
import functools
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnas.data import cache, decoding, files, images


class FolderFiles(NamedTuple):
    """The images of one split.

    Attributes:
      folder: the folder of the split.
      paths: its files, ordered by class and path.
      labels: int32 `[num]`.
      skipped: how many other files there are, by kind.
    """

    folder: pathlib.Path
    paths: list[pathlib.Path]
    labels: np.ndarray
    skipped: collections.Counter[str]


def find(data_dir: pathlib.Path) -> tuple[FolderFiles, FolderFiles, tuple[str, ...]]:
    """Find `data_dir/train/CLASS/*` and `data_dir/test/CLASS/*` (or `val/`).

    Args:
      data_dir: the folder that holds `train` and `test`, or `train` and `val`.

    Returns:
      The files for training, those for testing, and the names of the classes in
      alphabetical order. Links are followed; what is hidden is left out.

    Raises:
      DatasetError: if a folder or its images are missing, there is one class only, or
        the classes of the two splits differ.
    """
    train_dir, test_dir = _split_dirs(data_dir)
    (train, skipped), (test, test_skipped) = map(_class_files, (train_dir, test_dir))
    if len(train) == 1:
        raise images.DatasetError(_one_class(train_dir, *train))
    check_same_classes(train_dir, train, test_dir, test)
    return (
        FolderFiles(train_dir, *_list(train), skipped),
        FolderFiles(test_dir, *_list(test), test_skipped),
        tuple(train),
    )


def load(
    data_dir: pathlib.Path,
    image_size: int | None = None,
    *,
    skip_corrupt: bool = False,
) -> images.ImageDataset:
    """Load `data_dir/train/CLASS/*` and `data_dir/test/CLASS/*` (or `val/`).

    Images may lie in deeper folders of their class. The decoded images are kept in
    `data_dir/.jaxnas-cache`, and used again until a file's path, size or time of
    change differs, or the version of the decoder.

    Args:
      data_dir: the folder that holds `train` and `test`, or `train` and `val`.
      image_size: side of the square images to make, in pixels: the shorter side is
        resized to it (bilinear, antialiased) and the center is kept. Without it,
        all images must have one size.
      skip_corrupt: whether to leave out and count images that cannot be decoded.

    Returns:
      RGB images, those for training in one fixed random order, so that the first
      ones are a sample of all classes, those for testing ordered by class and path;
      class names in alphabetical order.

    Raises:
      DatasetError: if a folder or its images are missing, there is one class only, the
        classes of the two splits differ, an image cannot be read, or sizes differ.
    """
    train, test, class_names = find(data_dir)
    dataset = _decode(data_dir, train, test, image_size, skip_corrupt)
    return dataset._replace(class_names=class_names)


SPLITS = (("train", "test"), ("train", "val"))
"""Names of the folders of training and test images."""


def load_unlabeled(
    data_dir: pathlib.Path,
    image_size: int | None = None,
    *,
    name: str = "images",
    splits: Sequence[tuple[str, str]] = SPLITS,
    skip_corrupt: bool = False,
) -> images.ImageDataset:
    """Load the images in two folders and the folders below, without classes.

    Args:
      data_dir: the folder that holds `train` and `test`, or `train` and `val`.
      image_size: as for `load`.
      name: what the data set is loaded by.
      splits: names that the two folders may have; the first pair that is there.
      skip_corrupt: as for `load`.

    Returns:
      As `load`, with no names of classes and labels of 0.

    Raises:
      DatasetError: if a folder or its images are missing, an image cannot be read, or
        sizes differ.
    """
    pairs = [(data_dir / train, data_dir / test) for train, test in splits]
    found = next((pair for pair in pairs if all(map(pathlib.Path.is_dir, pair))), None)
    if found is None:
        names = " nor ".join(f"{train} and {test}" for train, test in splits)
        raise images.DatasetError(
            f"{data_dir} holds neither the folders {names}; expected images in them"
        )
    train, test = (_all_files(folder) for folder in found)
    return _decode(data_dir, train, test, image_size, skip_corrupt)._replace(name=name)


def find_images(
    paths: Iterable[str | os.PathLike[str]],
) -> tuple[list[pathlib.Path], collections.Counter[str]]:
    """Find image files, also in folders and the folders below.

    Args:
      paths: files, which are taken whatever their endings, and folders.

    Returns:
      The files, those of a folder sorted, and how many others there are in folders, by
      kind.

    Raises:
      DatasetError: if there is no such file, or a folder holds no image.
    """
    found: list[pathlib.Path] = []
    skipped: collections.Counter[str] = collections.Counter()
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            files, skipped_here = _image_files(path, _above(path))
            found += files
            skipped += skipped_here
        elif path.is_file():
            found.append(path)
        else:
            raise images.DatasetError(
                f"{path} cannot be read: there is no such file or folder"
            )
    return found, skipped


def _all_files(folder: pathlib.Path) -> FolderFiles:
    """All images in a folder and the folders below."""
    paths, skipped = _image_files(folder, _above(folder))
    return FolderFiles(folder, paths, np.zeros(len(paths), np.int32), skipped)


def _decode(
    data_dir: pathlib.Path,
    train: FolderFiles,
    test: FolderFiles,
    image_size: int | None,
    skip_corrupt: bool,
) -> images.ImageDataset:
    """A data set without names of classes."""
    if image_size is not None:
        decoding.check_image_size(image_size)
    # One fixed shuffle, so that a search may take the first half of the images.
    order = np.random.default_rng(0).permutation(len(train.paths))
    train_paths = [train.paths[i] for i in order]
    key = cache.fingerprint(data_dir, [*train_paths, *test.paths], f"{image_size}")
    decoded = files.decode(
        data_dir,
        f"folder-{key[:16]}",
        files.ListedFiles(train_paths, train.labels[order]),
        files.ListedFiles(test.paths, test.labels),
        functools.partial(_decode_one, image_size=image_size),
        skip_corrupt=skip_corrupt,
    )
    resized = "" if image_size is None else f", resized to {image_size}x{image_size}"
    return images.ImageDataset(
        name="folder",
        train=decoded.train,
        test=decoded.test,
        class_names=(),
        mean=decoded.mean,
        std=decoded.std,
        source=f"images in {data_dir}, {train.folder.name} and {test.folder.name}"
        + resized,
        skipped=train.skipped + test.skipped + decoded.skipped,
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


def _class_files(
    split_dir: pathlib.Path,
) -> tuple[dict[str, list[pathlib.Path]], collections.Counter[str]]:
    """Return the sorted image files of each class of a split; and what is skipped."""
    above = _above(split_dir) | {os.path.realpath(split_dir)}
    folders, outside, skipped = _entries(split_dir)
    if outside:
        skipped["in no class"] += len(outside)
    found: dict[str, list[pathlib.Path]] = {}
    for folder in folders:
        paths, skipped_here = _image_files(folder, above)
        found[_class_name(folder)] = paths
        skipped += skipped_here
    if not found:
        raise images.DatasetError(
            f"{split_dir} holds no folder; expected one folder of images per class"
            + images.skipped_text(skipped)
        )
    return found, skipped


def _above(split_dir: pathlib.Path) -> frozenset[str]:
    """Real paths of the folders that hold one."""
    real = pathlib.Path(os.path.realpath(split_dir))
    return frozenset(map(str, real.parents))


def _image_files(
    folder: pathlib.Path, above: frozenset[str]
) -> tuple[list[pathlib.Path], collections.Counter[str]]:
    """The images in a folder and the folders below, sorted; and what is skipped."""
    suffixes = frozenset(decoding.formats())
    paths, skipped = list_files(folder, above)
    kinds = [decoding.skipped_kind(path.name, suffixes) for path in paths]
    skipped.update(kind for kind in kinds if kind is not None)
    found = [path for path, kind in zip(paths, kinds, strict=True) if kind is None]
    if not found:
        raise images.DatasetError(
            f"{folder} holds no image; expected files such as .jpg or .png"
            + images.skipped_text(skipped)
        )
    return found, skipped


def _class_name(folder: pathlib.Path) -> str:
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise images.DatasetError(
            f"the class {folder.name!r} in {folder.parent} is no text in UTF-8; rename "
            "its folder"
        ) from error
    return folder.name


def list_files(
    top: pathlib.Path, above: frozenset[str] = frozenset()
) -> tuple[list[pathlib.Path], collections.Counter[str]]:
    """List the files in a folder and the folders below, following links.

    Args:
      top: the folder.
      above: real paths of folders that hold it.

    Returns:
      The regular files, sorted, and how many others were skipped, by kind: hidden
      files and folders, broken links, pipes and devices, and folders that another
      link has led to before.

    Raises:
      DatasetError: if a folder cannot be read, or is a link to one that holds it.
    """
    found: list[pathlib.Path] = []
    skipped: collections.Counter[str] = collections.Counter()
    seen: set[str] = set()
    left = [(top, above)]
    while left:
        folder, above = left.pop()
        real = os.path.realpath(folder)
        if real in above:
            raise images.DatasetError(
                f"{folder} is a link to {real}, which holds it; remove the link"
            )
        if real in seen:
            skipped["linked twice"] += 1
            continue
        seen.add(real)
        folders, files, skipped_here = _entries(folder)
        found += files
        skipped += skipped_here
        left += ((inner, above | {real}) for inner in reversed(folders))
    return sorted(found), skipped


def _entries(
    folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[pathlib.Path], collections.Counter[str]]:
    """Return the folders and the files in a folder, sorted, and what else is there."""
    folders, files = [], []
    skipped: collections.Counter[str] = collections.Counter()
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    skipped["hidden"] += 1
                elif entry.is_dir():
                    folders.append(folder / entry.name)
                elif entry.is_file():
                    files.append(folder / entry.name)
                else:
                    exists = os.path.exists(entry.path)
                    skipped["pipe or device" if exists else "broken link"] += 1
    except OSError as error:
        raise images.DatasetError(
            f"{error.filename or folder} cannot be read: {error.strerror or error}"
        ) from error
    return folders, files, skipped


def _one_class(split_dir: pathlib.Path, name: str) -> str:
    deeper = [folder.name for folder in _entries(split_dir / name)[0]]
    hint = ""
    if deeper:
        names = ", ".join(map(repr, deeper[:3])) + ", ..." * (len(deeper) > 3)
        hint = (
            f"; {split_dir / name} holds the folders {names}: if these are the "
            f"classes, move them one level up, into {split_dir}"
        )
    return (
        f"{split_dir} holds one class only, {name!r}; expected two or more, one folder "
        f"per class{hint}"
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
                f"class {extra[0][:200]!r} is in {name} but not in {other_name} "
                f"({len(extra)} such classes); both need the same classes"
            )


def _list(
    files: Mapping[str, Sequence[pathlib.Path]],
) -> tuple[list[pathlib.Path], np.ndarray]:
    """Return all files and their labels, ordered by class."""
    paths = [path for group in files.values() for path in group]
    counts = [len(group) for group in files.values()]
    return paths, np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def _decode_one(path: pathlib.Path, image_size: int | None) -> np.ndarray:
    image = decoding.open_image(decoding.read_file(path), path)
    return np.asarray(image if image_size is None else decoding.fit(image, image_size))
