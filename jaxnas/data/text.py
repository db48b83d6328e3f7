"""Texts as numbers: Penn Treebank, WikiText-2, own files, and a made-up language.

A text is one row of tokens: the words of each line, which spaces divide, and `<eos>` at
its end, for empty lines too. The vocabulary is that of the training text, in the order
of the words' Unicode code points, as in the scripts of ENAS. Words that only the other
texts have become `<unk>`.
"""

import hashlib
import math
import os
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxnas._checks import check_sizes, reason
from jaxnas.data import decoding, grammar
from jaxnas.data.images import DatasetError

END = "<eos>"
"""The token at the end of each line."""

UNKNOWN = "<unk>"
"""The token of words that the training text does not have."""

MAX_BYTES = 2**28
"""Larger texts are refused: they, their words and numbers are held in memory."""

PTB_SIZES = (929_589, 73_760, 82_430)
"""The published numbers of tokens of Penn Treebank's texts."""

_SPLITS = ("train", "validation", "test")


class TextDataset(NamedTuple):
    """Three texts over one vocabulary.

    Attributes:
      name: the name it was loaded by.
      train: int32 `[num_tokens]`, the text that a model learns from.
      validation: int32 `[num_tokens]`, for what is chosen by its perplexity.
      test: int32 `[num_tokens]`.
      vocabulary: the words, in the order of their numbers.
      source: one line saying what was read.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    vocabulary: tuple[str, ...]
    source: str

    @property
    def num_words(self) -> int:
        """Number of words of the vocabulary."""
        return len(self.vocabulary)


class _Layout(NamedTuple):
    """How a data set of texts is distributed.

    Attributes:
      title: what it is called.
      files: the files of training, validation and test text; the first of some names
        that there is.
      folders: where they may be within the folder of the data.
      archive: the archive that holds them, if there is one.
      member_folder: their folder inside the archive.
      url: where to get it.
    """

    title: str
    files: tuple[tuple[str, ...], ...]
    folders: tuple[str, ...] = ("",)
    archive: str = ""
    member_folder: str = ""
    url: str = ""


_LAYOUTS = {
    "ptb": _Layout(
        "Penn Treebank",
        (("ptb.train.txt",), ("ptb.valid.txt",), ("ptb.test.txt",)),
        ("", "data", "simple-examples/data"),
        "simple-examples.tgz",
        "simple-examples/data",
        "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
    ),
    "wikitext2": _Layout(
        "WikiText-2",
        (("wiki.train.tokens",), ("wiki.valid.tokens",), ("wiki.test.tokens",)),
        ("", "wikitext-2"),
        "wikitext-2-v1.zip",
        "wikitext-2",
        "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip",
    ),
    "text": _Layout(
        "texts",
        (("train.txt",), ("valid.txt", "validation.txt"), ("test.txt",)),
    ),
}

TEXTS = ("grammar", *_LAYOUTS)
"""The names `load_text` knows."""


def load_text(name: str, data_dir: str | os.PathLike[str] | None = None) -> TextDataset:
    """Load texts into memory.

    `grammar` is a made-up language that needs no files, see `jaxnas.data.grammar`.
    `ptb` is Penn Treebank as prepared by Mikolov: `ptb.train.txt`, `ptb.valid.txt` and
    `ptb.test.txt` in `data_dir` or below it in `simple-examples/data`, or the archive
    `simple-examples.tgz`. `wikitext2` are `wiki.train.tokens` and so on, in `data_dir`
    or in `wikitext-2`, or the archive `wikitext-2-v1.zip`. `text` are your own
    `train.txt`, `valid.txt` and `test.txt`, in UTF-8.

    Args:
      name: one of `TEXTS`.
      data_dir: where the files are; unused by `grammar`.

    Returns:
      The texts.

    Raises:
      DatasetError: if the name is unknown, or a file is missing, too large, damaged or
        empty, or has a word that is unknown where there is no `<unk>`.

    Example:
      >>> from jaxnas import data
      >>> text = data.load_text("grammar")
      >>> " ".join(text.vocabulary[i] for i in text.train[:9])
      'every dog sings <eos> some horses hear many pigs'
    """
    if name == "grammar":
        return _made_up()
    if name not in _LAYOUTS:
        raise DatasetError(f"unknown text {name!r}, expected one of {', '.join(TEXTS)}")
    if data_dir is None:
        raise DatasetError(f"text {name!r} needs data_dir, the folder of its files")
    layout = _LAYOUTS[name]
    path = pathlib.Path(data_dir).expanduser()
    contents, place = _read(layout, path)
    lines = [_lines(content, where) for where, content in contents.items()]
    dataset = _numbered(name, lines, list(contents))
    sizes = [array.size for array in dataset[1:4]]
    note = ""
    if name == "ptb" and tuple(sizes) != PTB_SIZES:
        expected = ", ".join(f"{size:,}" for size in PTB_SIZES)
        note = f", instead of the published {expected} tokens"
    return dataset._replace(source=f"{layout.title} in {place}{note}")


def describe_text(dataset: TextDataset) -> str:
    """Say in one line what was loaded.

    Args:
      dataset: the texts.

    Returns:
      Source, numbers of tokens and words.
    """
    sizes = " + ".join(f"{array.size:,}" for array in dataset[1:4])
    return (
        f"{dataset.source}: {sizes} tokens (training, validation, test), "
        f"{dataset.num_words:,} words"
    )


def first_tokens(dataset: TextDataset, num: int) -> TextDataset:
    """Keep the first tokens of each text, and the whole vocabulary.

    Args:
      dataset: the texts.
      num: how many, at least 1.

    Returns:
      The shorter texts; those that have no more stay as they are.

    Raises:
      ValueError: if `num` is not positive.
    """
    check_sizes(num=num)
    return dataset._replace(
        train=dataset.train[:num],
        validation=dataset.validation[:num],
        test=dataset.test[:num],
        source=f"{dataset.source}, at most {num:,} tokens of each text",
    )


def text_digest(dataset: TextDataset) -> str:
    """SHA-256 of the texts and their vocabulary."""
    result = hashlib.sha256("\0".join(dataset.vocabulary).encode())
    for array in (dataset.train, dataset.validation, dataset.test):
        result.update(f"\n{array.dtype} {array.shape}\n".encode())
        result.update(np.ascontiguousarray(array).data)
    return result.hexdigest()


def _made_up() -> TextDataset:
    texts = [grammar.sample(*arguments) for arguments in grammar.SPLITS.values()]
    lines = [[line.split() for line in text.lines] for text in texts]
    dataset = _numbered("grammar", lines, [f"the {split} text" for split in _SPLITS])
    perplexity = math.exp(-texts[-1].log_prob / dataset.test.size)
    return dataset._replace(
        source="a made-up language, in which no model can have a test perplexity much "
        f"below {perplexity:.2f}"
    )


def _read(layout: _Layout, path: pathlib.Path) -> tuple[dict[str, bytes], pathlib.Path]:
    """The content of each text by what to call it, and where all of them are."""
    for folder in layout.folders:
        place = path / folder
        found = [_first_file(place, names) for names in layout.files]
        if any(found):
            for file, names in zip(found, layout.files, strict=True):
                if file is None:
                    raise DatasetError(f"{place} lacks {' or '.join(names)}")
            files = filter(None, found)
            return {str(f): decoding.read_file(f, MAX_BYTES) for f in files}, place
    archive = path / layout.archive
    if layout.archive and archive.is_file():
        read = _read_tar if archive.suffix == ".tgz" else _read_zip
        names = [f"{layout.member_folder}/{names[0]}" for names in layout.files]
        contents = read(archive, names)
        return {f"{name} in {archive}": contents[name] for name in names}, archive
    names = ", ".join(names[0] for names in layout.files)
    also = f" nor {layout.archive}" if layout.archive else ""
    remedy = f"; get it from {layout.url}" if layout.url else ""
    raise DatasetError(f"{path} holds neither {names}{also}{remedy}")


def _first_file(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
    return next(filter(pathlib.Path.is_file, (folder / name for name in names)), None)


def _read_tar(path: pathlib.Path, names: Sequence[str]) -> dict[str, bytes]:
    """The contents of some members, whose names may begin with `./`."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if name in names else None
                if file is not None:
                    decoding.check_size(member.size, f"{name} in {path}", MAX_BYTES)
                    contents[name] = file.read()
    except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise DatasetError(f"{path} is damaged: {reason(error)}") from error
    return _complete(contents, path, names)


def _read_zip(path: pathlib.Path, names: Sequence[str]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in {*names} & {*archive.namelist()}:
                size = archive.getinfo(name).file_size
                decoding.check_size(size, f"{name} in {path}", MAX_BYTES)
                contents[name] = archive.read(name)
    except DatasetError:
        raise
    except decoding.ZIP_ERRORS as error:
        raise DatasetError(f"{path} is damaged: {reason(error)}") from error
    return _complete(contents, path, names)


def _complete(
    contents: dict[str, bytes], path: pathlib.Path, names: Sequence[str]
) -> dict[str, bytes]:
    for name in names:
        if name not in contents:
            raise DatasetError(f"{path} lacks {name}")
    return contents


def _lines(contents: bytes, where: str) -> list[list[str]]:
    """The words of each line."""
    try:
        text = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{where} is not in UTF-8: byte {error.start} is {contents[error.start]}"
        ) from error
    if not text.strip():
        raise DatasetError(f"{where} is empty; expected a text")
    # Only these end lines in text files; `splitlines` knows many more.
    return [line.split() for line in text.removesuffix("\n").split("\n")]


def _numbered(
    name: str, texts: Sequence[list[list[str]]], places: Sequence[str]
) -> TextDataset:
    """Number the words by the vocabulary of the first text."""
    words = {word for line in texts[0] for word in line}
    vocabulary = tuple(sorted(words | {END}))
    numbers = {word: number for number, word in enumerate(vocabulary)}
    train, validation, test = (
        np.fromiter(_numbers(text, numbers, where), np.int32)
        for text, where in zip(texts, places, strict=True)
    )
    return TextDataset(name, train, validation, test, vocabulary, "")


def _numbers(
    text: list[list[str]], numbers: dict[str, int], where: str
) -> Iterator[int]:
    unknown = numbers.get(UNKNOWN)
    for i, line in enumerate(text, start=1):
        for word in line:
            number = numbers.get(word, unknown)
            if number is None:
                raise DatasetError(
                    f"{where} has in line {i} the word {word[:40]!r}, which the "
                    f"training text does not have; expected {UNKNOWN} in that text, "
                    "which would stand for it"
                )
            yield number
        yield numbers[END]
