"""Tiny-ImageNet-200 as its authors distribute it.

Of 200 classes of ImageNet it has 500 images each for training and 50 for validation, of
64x64 pixels. The official test images have no labels, so that the validation images are
those to test on.

Source: the course CS231n of Stanford, http://cs231n.stanford.edu/tiny-imagenet-200.zip.
"""

import collections
import contextlib
import pathlib
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnas._checks import reason
from jaxnas.data import cache, decoding, files, folder, images

NAME = "tiny_imagenet200"
"""The name it is loaded by."""

FOLDER = "tiny-imagenet-200"
"""The folder inside the archive."""

ARCHIVE = f"{FOLDER}.zip"
"""The file name of the archive."""

URL = f"http://cs231n.stanford.edu/{ARCHIVE}"
"""Address of the official archive."""

WNIDS = "wnids.txt"
"""The file that lists the classes by their WordNet identifiers, one a line."""

IMAGE_SHAPE = (64, 64, 3)
"""Height, width, channels."""

NUM_CLASSES = 200
"""The published number of classes."""

NUM_EXAMPLES = (100_000, 10_000)
"""The published numbers of training and validation images."""

MEAN = (0.4802, 0.4481, 0.3975)
"""Per-channel mean of the training pixels in `[0, 1]`."""

STD = (0.2302, 0.2265, 0.2262)
"""Per-channel deviation within an image, averaged over the training images.

Over all pixels it is larger. Source, also of the mean: the code of Shu et al. (2020),
`train_imagenet_tiny.py`.
"""

_WORDS = "words.txt"
_ANNOTATIONS = "val/val_annotations.txt"

# The largest official file, of words, has 2.7 MB.
_MAX_MEMBER_BYTES = 2**24


class Tree(NamedTuple):
    """The files of a folder or an archive.

    Attributes:
      where: the folder or the archive.
      names: paths of files within it, separated by slashes.
      read: the contents of a file; may be called in many threads.
      skipped: how many others are not among `names`, by kind.
    """

    where: pathlib.Path
    names: frozenset[str]
    read: Callable[[str], bytes]
    skipped: collections.Counter[str]


class Listing(NamedTuple):
    """Which images there are.

    Attributes:
      train: the training images in one fixed random order, so that the first ones are
        a sample of all classes.
      val: the validation images, ordered by file name; items are paths in the tree.
      class_names: the names of the classes, in the order of their identifiers.
      skipped: how many other files there are, by kind, besides those of the layout.
    """

    train: files.ListedFiles
    val: files.ListedFiles
    class_names: tuple[str, ...]
    skipped: collections.Counter[str]


def read_folder(root: pathlib.Path, skip_corrupt: bool = False) -> images.ImageDataset:
    """Read the unpacked official folder, or one with fewer classes.

    The decoded images are kept in `root/.jaxnas-cache`, and used again until a file's
    path, size or time of change differs.

    Args:
      root: the folder with `wnids.txt`, `train` and `val`. The validation images may
        also lie in `val/WNID`.
      skip_corrupt: whether to leave out and count images that cannot be decoded.

    Returns:
      The data set, in the order of `find`.

    Raises:
      DatasetError: if the folder is not as it should be.
    """
    tree = _folder_tree(root)
    listing = find(tree)
    paths = [root / name for name in (*listing.train.items, *listing.val.items)]
    key = cache.fingerprint(root, paths)
    return _load(tree, listing, root, key, "folder", skip_corrupt)


def read_archive(path: pathlib.Path, skip_corrupt: bool = False) -> images.ImageDataset:
    """Read the official archive, or one with fewer classes, without unpacking it.

    The decoded images are kept in `.jaxnas-cache` beside it, and used again until the
    archive changes.

    Args:
      path: the `.zip` file.
      skip_corrupt: whether to leave out and count images that cannot be decoded.

    Returns:
      The data set, in the order of `find`.

    Raises:
      DatasetError: if the archive is damaged or not as it should be.
    """
    with open_archive(path) as tree:
        key = cache.fingerprint(path.parent, [path])
        return _load(tree, find(tree), path.parent, key, "archive", skip_corrupt)


def dataset(
    train: images.Split,
    test: images.Split,
    class_names: Sequence[str],
    source: str,
) -> images.ImageDataset:
    """Put together what was read, wherever it was read.

    Args:
      train: the training images.
      test: the validation images.
      class_names: the names of the classes, in label order.
      source: what was read.

    Returns:
      The data set. `source` also says that it is tested on the validation images, and
      how its size differs from the published one.
    """
    num_classes = len(class_names)
    classes = (
        ""
        if num_classes == NUM_CLASSES
        else f", {num_classes} classes instead of {NUM_CLASSES}"
    )
    return images.ImageDataset(
        name=NAME,
        train=train,
        test=test,
        class_names=tuple(class_names),
        mean=MEAN,
        std=STD,
        source=f"{source}, tested on its val split as its test split has no labels"
        + classes
        + images.count_note(train, test, NUM_EXAMPLES),
    )


def _load(
    tree: Tree,
    listing: Listing,
    cache_dir: pathlib.Path,
    key: str,
    kind: str,
    skip_corrupt: bool,
) -> images.ImageDataset:
    def decode(name: str) -> np.ndarray:
        where = f"{tree.where}/{name}"
        return decoding.decode(tree.read(name), where, IMAGE_SHAPE)

    decoded = files.decode(
        cache_dir,
        f"{NAME}-{key[:16]}",
        listing.train,
        listing.val,
        decode,
        skip_corrupt=skip_corrupt,
    )
    return dataset(
        decoded.train,
        decoded.test,
        listing.class_names,
        f"Tiny-ImageNet-200 {kind}",
    )._replace(skipped=listing.skipped + decoded.skipped)


def _folder_tree(root: pathlib.Path) -> Tree:
    names = {name for name in (WNIDS, _WORDS) if (root / name).is_file()}
    skipped: collections.Counter[str] = collections.Counter()
    for split in ("train", "val"):
        if (root / split).is_dir():
            found, skipped_here = folder.list_files(root / split)
            names.update(path.relative_to(root).as_posix() for path in found)
            skipped += skipped_here
    return Tree(
        root, frozenset(names), lambda name: decoding.read_file(root / name), skipped
    )


@contextlib.contextmanager
def open_archive(path: pathlib.Path) -> Iterator[Tree]:
    """Open the archive to read its files.

    Args:
      path: the `.zip` file.

    Yields:
      The files of its folder `FOLDER`.

    Raises:
      DatasetError: if it is no zip archive; when a damaged file is read.
    """
    remedy = f"get it again from {URL}"
    try:
        archive = zipfile.ZipFile(path)
    except decoding.ZIP_ERRORS as error:
        raise images.DatasetError(
            f"{path} is no zip archive or not all of it ({reason(error)}); {remedy}"
        ) from error
    prefix, lock = f"{FOLDER}/", threading.Lock()

    def read(name: str) -> bytes:
        where = f"{prefix}{name} in {path}"
        try:
            info = archive.getinfo(prefix + name)
            decoding.check_size(info.file_size, where, _MAX_MEMBER_BYTES)
            with lock:
                return archive.read(info)
        except images.DatasetError:
            raise
        except decoding.ZIP_ERRORS as error:
            raise images.DatasetError(
                f"{where} is damaged ({reason(error)}); {remedy}"
            ) from error

    with archive:
        inside = (name for name in archive.namelist() if name.startswith(prefix))
        names = frozenset(name.removeprefix(prefix) for name in inside)
        yield Tree(path, names, read, collections.Counter())


def find(tree: Tree) -> Listing:
    """List the images of the official layout with their classes.

    `wnids.txt` decides which classes there are; a class is labeled by the rank of its
    identifier in alphabetical order. Training images are those in `train/WNID`.
    Validation images are labeled by `val/val_annotations.txt`; where it is absent, by
    their folders `val/WNID`, to which many programs want them moved.

    Args:
      tree: the files.

    Returns:
      The images and the names of the classes: the first of their words in `words.txt`,
      with the identifier where two classes share it; the identifier where there is no
      such file.

    Raises:
      DatasetError: if a file is missing or malformed, a class has no images, or an
        image no class.
    """
    for name in (WNIDS, "train", "val"):
        if name not in tree.names and not _images_in(tree, name):
            what = "" if name == WNIDS else "images in "
            raise images.DatasetError(
                f"{tree.where} lacks {what}{name}; expected {FOLDER} as in {URL}"
            )
    wnids = sorted(_lines(tree, WNIDS))
    repeated = [wnid for wnid, num in collections.Counter(wnids).items() if num > 1]
    if len(wnids) < 2 or repeated:
        found = f"{repeated[0][:200]!r} twice" if repeated else f"{len(wnids)} classes"
        raise images.DatasetError(
            f"{tree.where}/{WNIDS} lists {found}; expected two classes or more, one "
            "per line"
        )
    train = _by_folder(tree, "train")
    val = _annotated(tree) if _ANNOTATIONS in tree.names else _by_folder(tree, "val")
    for split, found in (("train", train), ("val", val)):
        folder.check_same_classes(
            f"{tree.where}/{split}",
            found.values(),
            f"{tree.where}/{WNIDS}",
            wnids,
        )
    train_files, val_files = (_in_order(found, wnids) for found in (train, val))
    # As in `folder`, so that a search may take the first half of the images.
    order = np.random.default_rng(0).permutation(len(train))
    shuffled = files.ListedFiles(
        tuple(train_files.items[i] for i in order), train_files.labels[order]
    )
    return Listing(shuffled, val_files, _class_names(tree, wnids), _skipped(tree))


def _images_in(tree: Tree, split: str) -> list[str]:
    suffixes = frozenset(decoding.formats())
    return [
        name
        for name in tree.names
        if name.startswith(f"{split}/")
        and decoding.skipped_kind(name, suffixes) is None
    ]


def _skipped(tree: Tree) -> collections.Counter[str]:
    suffixes = frozenset(decoding.formats())
    kinds = (
        decoding.skipped_kind(name, suffixes)
        for name in tree.names
        if name.startswith(("train/", "val/"))
        and not name.endswith(("/", "_boxes.txt", _ANNOTATIONS))
    )
    return tree.skipped + collections.Counter(kind for kind in kinds if kind)


def _file_name(name: str) -> str:
    return name.rpartition("/")[2]


def _lines(tree: Tree, name: str) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = tree.read(name).decode()
    except UnicodeDecodeError as error:
        raise images.DatasetError(f"{tree.where}/{name} is no text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _by_folder(tree: Tree, split: str) -> dict[str, str]:
    """The class of each image, which the folder below the split is named after."""
    found = {name: name.split("/")[1] for name in _images_in(tree, split)}
    if split == "val" and "images" in found.values():
        raise images.DatasetError(
            f"{tree.where} lacks {_ANNOTATIONS}, which says the classes of the images "
            "in val/images; expected it, or the images in val/WNID"
        )
    return found


def _annotated(tree: Tree) -> dict[str, str]:
    """The class of each validation image, which a line of the annotations says."""
    where = f"{tree.where}/{_ANNOTATIONS}"
    wnids = frozenset(_lines(tree, WNIDS))
    classes: dict[str, str] = {}
    for number, line in enumerate(_lines(tree, _ANNOTATIONS), 1):
        file, *rest = line.split("\t")
        if len(rest) != 5 or not all(side.isdigit() for side in rest[1:]):
            raise images.DatasetError(
                f"line {number} of {where} is {line[:200]!r}; expected a file, a class "
                "and the 4 sides of a box, separated by tabs"
            )
        if rest[0] not in wnids:
            raise images.DatasetError(
                f"line {number} of {where} has class {rest[0][:200]!r}, which is not "
                f"in {WNIDS}"
            )
        if file in classes:
            raise images.DatasetError(f"{where} lists {file[:200]!r} twice")
        classes[file] = rest[0]
    paths: dict[str, str] = {}
    for path in _images_in(tree, "val"):
        other = paths.setdefault(_file_name(path), path)
        if other != path:
            raise images.DatasetError(
                f"{tree.where} holds two images of one name: {min(path, other)} and "
                f"{max(path, other)}"
            )
    _check_annotations(classes, paths, tree.where)
    return {path: classes[file] for file, path in paths.items()}


def _check_annotations(
    classes: Mapping[str, str], paths: Mapping[str, str], where: pathlib.Path
) -> None:
    missing = sorted(classes.keys() - paths.keys())
    if missing:
        raise images.DatasetError(
            f"{where}/val lacks {missing[0][:200]!r}, which val_annotations.txt lists "
            f"({len(missing)} such images)"
        )
    unknown = sorted(paths.keys() - classes.keys())
    if unknown:
        raise images.DatasetError(
            f"{where}/{_ANNOTATIONS} lacks {unknown[0]!r}, which is in val "
            f"({len(unknown)} such images)"
        )


def _in_order(found: Mapping[str, str], wnids: Sequence[str]) -> files.ListedFiles:
    # By file name, so that the order is the same wherever val's images were moved.
    names = sorted(found, key=lambda name: (_file_name(name), name))
    label = {wnid: index for index, wnid in enumerate(wnids)}
    labels = np.array([label[found[name]] for name in names], np.int32)
    return files.ListedFiles(tuple(names), labels)


def _class_names(tree: Tree, wnids: Sequence[str]) -> tuple[str, ...]:
    words = {}
    for line in _lines(tree, _WORDS) if _WORDS in tree.names else ():
        wnid, _, synonyms = line.partition("\t")
        words[wnid] = synonyms.split(",")[0].strip()
    names = [words.get(wnid) or wnid for wnid in wnids]
    counts = collections.Counter(names)
    return tuple(
        name if counts[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )
