"""Images in folders, one folder per class."""

import collections
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnas.data import cache, contents, decoding, files, images

HELD_OUT = 5
"""Without a folder of test images, one of so many of each class is for testing."""

# Names of folders that hold a split; others than `train`, `test` and `val` have to be
# renamed.
_SPLIT_NAMES = (
    *("train", "training", "test", "tests", "testing", "eval", "evaluation", "dev"),
    *("val", "valid", "validation", "holdout"),
)

# Made beside images by unpacked archives and by file servers.
_HIDDEN = ("__MACOSX", "@eaDir")


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


class FoundImages(NamedTuple):
    """The images of a folder, before they are decoded.

    Attributes:
      train: those for training.
      test: those for testing.
      class_names: in alphabetical order.
      source: one line saying where they lie, and how they were divided.
    """

    train: FolderFiles
    test: FolderFiles
    class_names: tuple[str, ...]
    source: str


def find(data_dir: pathlib.Path) -> FoundImages:
    """Find images in folders, one for each class.

    Looked for are `data_dir/train/CLASS/*` with `data_dir/test/CLASS/*` (or `val/`).
    Where there is no folder of test images, or `data_dir/CLASS/*` only, a fifth of each
    class is held out for testing, one image or more. Which ones depends on their paths
    only, and one more image moves at most one other. Equal files are on one side; those
    of several classes are for training.

    Args:
      data_dir: the folder.

    Returns:
      The files. Links are followed; what is hidden is left out.

    Raises:
      DatasetError: if a folder or its images are missing, there is one class only, the
        classes of the two splits differ, or a class has a single image, of which none
        can be held out.
    """
    train_dir, test_dir = _split_dirs(data_dir)
    train, skipped = _class_files(train_dir)
    if len(train) == 1:
        raise images.DatasetError(_one_class(train_dir, *train))
    if test_dir is None:
        _check_no_splits(train_dir, train)
        train, test = _hold_out(train_dir, train)
        test_skipped = collections.Counter()
        source = f"images in {train_dir}, a fifth of each class held out for testing"
    else:
        test, test_skipped = _class_files(test_dir)
        check_same_classes(train_dir, train, test_dir, test)
        source = f"images in {data_dir}, {train_dir.name} and {test_dir.name}"
    return FoundImages(
        FolderFiles(train_dir, *_list(train), skipped),
        FolderFiles(test_dir or train_dir, *_list(test), test_skipped),
        tuple(train),
        source,
    )


def load(
    data_dir: pathlib.Path,
    image_size: int | None = None,
    *,
    skip_corrupt: bool = False,
) -> images.ImageDataset:
    """Load images in folders, one for each class, as `find` finds them.

    Images may lie in deeper folders of their class. The decoded images are kept in
    `data_dir/.jaxnas-cache`, and used again until a file's path, size or time of
    change differs, or the version of the decoder.

    Args:
      data_dir: the folder that holds `train` and `test`, `train` and `val`, only
        `train`, or the classes.
      image_size: side of the square images to make, in pixels: the shorter side is
        resized to it (bilinear, antialiased) and the center is kept. Without it,
        all images must have one size.
      skip_corrupt: whether to leave out and count images that cannot be decoded.

    Returns:
      RGB images, those for training in one fixed random order, so that the first
      ones are a sample of each class, those for testing ordered by class and path;
      class names in alphabetical order.

    Raises:
      DatasetError: as `find` does, or if an image cannot be read, sizes differ, or
        memory cannot hold the images.
    """
    found = find(data_dir)
    dataset = _decode(data_dir, found, image_size, skip_corrupt)
    return dataset._replace(data_dir=data_dir)


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
    pair = next((pair for pair in pairs if all(map(pathlib.Path.is_dir, pair))), None)
    if pair is None:
        names = " nor ".join(f"{train} and {test}" for train, test in splits)
        raise images.DatasetError(
            f"{data_dir} holds neither the folders {names}; expected images in them"
        )
    train, test = (_all_files(folder) for folder in pair)
    source = f"images in {data_dir}, {train.folder.name} and {test.folder.name}"
    found = FoundImages(train, test, (), source)
    return _decode(data_dir, found, image_size, skip_corrupt)._replace(name=name)


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
    found: FoundImages,
    image_size: int | None,
    skip_corrupt: bool,
) -> images.ImageDataset:
    train, test = found.train, found.test
    if image_size is not None:
        decoding.check_image_size(image_size)
        num_images = len(train.paths) + len(test.paths)
        decoding.check_memory(num_images, (image_size, image_size, 3))
    order = sampling_order(train.labels)
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
        class_names=found.class_names,
        mean=decoded.mean,
        std=decoded.std,
        source=found.source + resized,
        skipped=train.skipped + test.skipped + decoded.skipped,
    )


def sampling_order(labels: np.ndarray) -> np.ndarray:
    """Order images so that the first ones and the last ones are samples of each class.

    Args:
      labels: int32 `[num]`.

    Returns:
      int64 `[num]`, indices in one fixed random order: of a class with `n` images, a
      share `s` of all has about `s * n`, and either half one or more if `n` is two.
    """
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.unique(labels, return_counts=True)[1]
    # Images of a class are spread evenly between 0 and 1.
    places = [
        (np.arange(count) + generator.uniform(0.25, 0.75)) / count for count in counts
    ]
    return by_class[np.argsort(np.concatenate(places), kind="stable")]


def _split_dirs(data_dir: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
    """The folders of training and test images; the latter may be missing."""
    train, test, val = (data_dir / name for name in ("train", "test", "val"))
    if not data_dir.is_dir():
        raise images.DatasetError(
            f"{data_dir} is not a folder; expected images in {train}/CLASS and "
            f"{test}/CLASS, or in {data_dir}/CLASS"
        )
    for folder in (test, val):
        if train.is_dir() and folder.is_dir():
            return train, folder
    others = [folder for folder in _entries(data_dir)[0] if folder != train]
    is_class = others and not (train.is_dir() and _entries(train)[0])
    if not train.is_dir() or is_class:
        return data_dir, None
    split = next((f for f in others if f.name.casefold() in _SPLIT_NAMES), None)
    if split is not None:
        raise images.DatasetError(
            f"neither {test} nor {val} is a folder, but {split} is; if it holds the "
            "test images, rename it to test, or else move it away"
        )
    return train, None


def _check_no_splits(top: pathlib.Path, class_names: Iterable[str]) -> None:
    """Refuse folders of splits where classes are expected."""
    for name in class_names:
        if name.casefold() in _SPLIT_NAMES and _entries(top / name)[0]:
            raise images.DatasetError(
                f"{top / name} seems to hold classes, not images of one; expected them "
                f"in {top / 'train'} and {top / 'test'}, or folders of images in {top}"
            )


def _hold_out(
    top: pathlib.Path, found: Mapping[str, Sequence[pathlib.Path]]
) -> tuple[dict[str, list[pathlib.Path]], dict[str, list[pathlib.Path]]]:
    """Divide the images of each class into those for training and for testing."""
    groups = iter(contents.equal_files([p for paths in found.values() for p in paths]))
    members: dict[str, dict[int, list[pathlib.Path]]] = {}
    num_classes: collections.Counter[int] = collections.Counter()
    for name, paths in found.items():
        members[name] = {}
        for path in paths:
            members[name].setdefault(next(groups), []).append(path)
        num_classes.update(members[name].keys())
    _check_divisible(top, members, num_classes)
    train, test = {}, {}
    for name, own in members.items():
        # Sorted by what is as good as random, and depends on one path only.
        ranks = {
            group: min(_path_digest(path.relative_to(top)) for path in paths)
            for group, paths in own.items()
            if num_classes[group] == 1
        }
        num_test = max(1, (len(ranks) + HELD_OUT // 2) // HELD_OUT)
        held_out = set(sorted(ranks, key=ranks.__getitem__)[:num_test])
        train[name] = sorted(p for g in own if g not in held_out for p in own[g])
        test[name] = sorted(p for g in held_out for p in own[g])
    return train, test


def _path_digest(path: pathlib.Path) -> bytes:
    return hashlib.sha256(os.fsencode(path.as_posix())).digest()


def _check_divisible(
    top: pathlib.Path,
    members: Mapping[str, Mapping[int, Sequence[pathlib.Path]]],
    num_classes: Mapping[int, int],
) -> None:
    """Refuse classes of which no image can be held out."""
    for what, is_such in (
        ("has one image", lambda own: len(own) == 1),
        (
            "has no image that is not in another class too",
            lambda own: all(num_classes[group] > 1 for group in own),
        ),
    ):
        found = [name for name, own in members.items() if is_such(own)]
        if found:
            raise images.DatasetError(
                f"class {found[0][:200]!r} in {top} {what} ({len(found)} such "
                "classes); expected two or more, one of them to test on, or a folder "
                "of test images"
            )


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
                if entry.name == cache.FOLDER:
                    continue
                if entry.name.startswith(".") or entry.name in _HIDDEN:
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
    # Twice as many pixels as are kept, for the quality of the resizing.
    least_side = None if image_size is None else 2 * image_size
    file = decoding.read_file(path)
    image = decoding.open_image(file, path, least_side=least_side)
    return np.asarray(image if image_size is None else decoding.fit(image, image_size))
