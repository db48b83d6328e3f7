"""Texts: what is read in which layout, and the made-up language."""

import io
import math
import tarfile
import zipfile

import numpy as np
import pytest

from jaxnas import data
from jaxnas.data import grammar, text

PARTS = {
    "train": " the cat sat \n a <unk> sat \n",
    "valid": " the dog sat \n",
    "test": " a cat \n\n sat \n",
}
WORDS = ("<eos>", "<unk>", "a", "cat", "sat", "the")
TRAIN = [5, 3, 4, 0, 2, 1, 4, 0]
VALIDATION = [5, 1, 4, 0]
TEST = [2, 3, 0, 0, 4, 0]


def write_files(folder, pattern, parts=PARTS):
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in parts.items():
        (folder / pattern.format(part)).write_text(content, encoding="utf-8")


def write_tar(path, prefix="./simple-examples/data/", parts=PARTS):
    with tarfile.open(path, "w:gz") as archive:
        for part, content in parts.items():
            member = tarfile.TarInfo(f"{prefix}ptb.{part}.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))


def write_zip(path, parts=PARTS):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(f"wikitext-2/wiki.{part}.tokens", content)


LAYOUTS = {
    "ptb, files": ("ptb", lambda path: write_files(path, "ptb.{}.txt")),
    "ptb, data": ("ptb", lambda path: write_files(path / "data", "ptb.{}.txt")),
    "ptb, unpacked": (
        "ptb",
        lambda path: write_files(path / "simple-examples" / "data", "ptb.{}.txt"),
    ),
    "ptb, archive": ("ptb", lambda path: write_tar(path / "simple-examples.tgz")),
    "wikitext2, files": ("wikitext2", lambda path: write_files(path, "wiki.{}.tokens")),
    "wikitext2, unpacked": (
        "wikitext2",
        lambda path: write_files(path / "wikitext-2", "wiki.{}.tokens"),
    ),
    "wikitext2, archive": (
        "wikitext2",
        lambda path: write_zip(path / "wikitext-2-v1.zip"),
    ),
    "own files": ("text", lambda path: write_files(path, "{}.txt")),
    "own files, validation": (
        "text",
        lambda path: write_files(
            path, "{}.txt", {**PARTS, "validation": PARTS["valid"]}
        ),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_same_tokens(tmp_path, layout):
    name, write = LAYOUTS[layout]
    write(tmp_path)
    dataset = data.load_text(name, tmp_path)
    assert dataset.name == name
    assert dataset.vocabulary == WORDS and dataset.num_words == 6
    for array, expected in zip(dataset[1:4], (TRAIN, VALIDATION, TEST), strict=True):
        assert array.dtype == np.int32
        assert array.tolist() == expected
    line = data.describe_text(dataset)
    assert str(tmp_path) in line
    assert "8 + 4 + 6 tokens (training, validation, test), 6 words" in line
    assert ("published 929,589, 73,760, 82,430" in line) == (name == "ptb")


def test_line_ends_and_marks_of_other_systems(tmp_path):
    parts = {part: content.replace("\n", "\r\n") for part, content in PARTS.items()}
    parts["train"] = "\ufeff" + parts["train"].replace("cat", "cat\x0bnap")
    write_files(tmp_path, "{}.txt", parts)
    dataset = data.load_text("text", tmp_path)
    assert dataset.vocabulary == ("<eos>", "<unk>", "a", "cat", "nap", "sat", "the")
    assert dataset.train.size == 9
    (tmp_path / "test.txt").write_text("the end", encoding="utf-8")
    dataset = data.load_text("text", tmp_path)
    assert dataset.test.tolist() == [6, 1, 0]


@pytest.mark.parametrize(
    ("name", "parts", "words"),
    [
        ("text", {"train": "a b\n", "valid": "a\n"}, "lacks test.txt"),
        ("text", {**PARTS, "valid": ""}, "valid.txt is empty; expected a text"),
        ("text", {**PARTS, "test": " \n\n"}, "test.txt is empty; expected a text"),
        (
            "text",
            {"train": "a b\n", "valid": "a\n", "test": "a\nb long\n"},
            "test.txt has in line 2 the word 'long', which the training text does",
        ),
        ("ptb", {}, "holds neither ptb.train.txt, .* nor simple-examples.tgz; get it"),
        ("text", {}, "holds neither train.txt, valid.txt, test.txt$"),
    ],
)
def test_wrong_texts(tmp_path, name, parts, words):
    write_files(tmp_path, "{}.txt", parts)
    with pytest.raises(data.DatasetError, match=words) as error:
        data.load_text(name, tmp_path)
    assert str(tmp_path) in str(error.value)


def test_wrong_bytes(tmp_path, monkeypatch):
    write_files(tmp_path, "{}.txt")
    (tmp_path / "valid.txt").write_bytes(b"the \xff cat")
    with pytest.raises(data.DatasetError, match=r"valid.txt is not in UTF-8: byte 4 "):
        data.load_text("text", tmp_path)
    write_files(tmp_path, "{}.txt")
    monkeypatch.setattr(text, "MAX_BYTES", 20)
    with pytest.raises(data.DatasetError, match=r"train.txt has 28 bytes; expected"):
        data.load_text("text", tmp_path)


def test_wrong_names():
    with pytest.raises(data.DatasetError, match="'enwik8', expected one of grammar, "):
        data.load_text("enwik8")
    with pytest.raises(data.DatasetError, match="'ptb' needs data_dir"):
        data.load_text("ptb")


@pytest.mark.parametrize("name", ["ptb", "wikitext2"])
def test_wrong_archives(tmp_path, monkeypatch, name):
    archive, write = {
        "ptb": ("simple-examples.tgz", write_tar),
        "wikitext2": ("wikitext-2-v1.zip", write_zip),
    }[name]
    path = tmp_path / archive
    write(path, parts={"train": "a\n", "valid": "a\n"})
    with pytest.raises(data.DatasetError, match=r"lacks .*test"):
        data.load_text(name, tmp_path)
    write(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"x" * 200):
        path.write_bytes(damaged)
        with pytest.raises(data.DatasetError, match=f"{archive} (is damaged|lacks)"):
            data.load_text(name, tmp_path)
    path.write_bytes(whole)
    monkeypatch.setattr(text, "MAX_BYTES", 20)
    with pytest.raises(data.DatasetError, match=r"train.* has 28 bytes; expected"):
        data.load_text(name, tmp_path)


# The made-up language -------------------------------------------------------------


class Parser:
    """Reads a sentence by the rules, written anew, and tells its probability."""

    def __init__(self, line):
        self.words = line.split()
        self.log_prob = 0.0

    def next(self):
        return self.words[0] if self.words else ""

    def take(self, choices):
        self.log_prob -= math.log(len(choices))
        word = self.words.pop(0)
        assert word in choices
        return word

    def branch(self, taken, prob):
        self.log_prob += math.log(prob if taken else 1 - prob)
        return taken

    def phrase(self, depth, *, is_free):
        """A phrase; its number, by the noun."""
        nouns = {n: n + "s" for n in grammar.NOUNS} | {"wolf": "wolves", "fox": "foxes"}
        at = 2 if self.words[1] in grammar.ADJECTIVES else 1
        is_plural = self.words[at] in nouns.values()
        number = "plural" if is_plural else "singular"
        if is_free:
            self.branch(is_plural, 0.5)
        self.take(grammar.DETERMINERS[number])
        if self.branch(at == 2, 0.25):
            self.take(grammar.ADJECTIVES)
        self.take(list(nouns.values() if is_plural else nouns))
        if depth == 0 and self.branch(self.next() == "that", 0.25):
            self.words.pop(0)
            is_verb = not any(
                self.next() in words for words in grammar.DETERMINERS.values()
            )
            if self.branch(is_verb, 0.5):
                self.predicate(number, 1)
            else:
                self.verb(grammar.TRANSITIVE, self.phrase(1, is_free=True))
        return number

    def verb(self, verbs, number):
        self.take([v + "s" for v in verbs] if number == "singular" else verbs)

    def predicate(self, number, depth):
        is_intransitive = self.next().removesuffix("s") in grammar.INTRANSITIVE
        if self.branch(is_intransitive, 0.5):
            self.verb(grammar.INTRANSITIVE, number)
            if self.branch(self.next() in grammar.ADVERBS, 0.25):
                self.take(grammar.ADVERBS)
        else:
            self.verb(grammar.TRANSITIVE, number)
            self.phrase(depth, is_free=True)


def test_sentences_follow_the_rules_and_their_probabilities():
    drawn = grammar.sample(300, seed=5)
    total = 0.0
    for line in drawn.lines:
        parser = Parser(line)
        parser.predicate(parser.phrase(0, is_free=True), 0)
        assert parser.words == []
        total += parser.log_prob
    assert drawn.log_prob == pytest.approx(total)


def test_the_made_up_language_is_always_the_same():
    dataset = data.load_text("grammar")
    assert [array.size for array in dataset[1:4]] == [27_729, 3_518, 3_413]
    assert dataset.num_words == 61
    assert set(dataset.train.tolist()) == set(range(61))
    lines = " <eos> ".join([*grammar.sample(500, seed=2).lines, ""]).split()
    assert [dataset.vocabulary[number] for number in dataset.test] == lines
    assert " ".join(lines[:6]) == "every big pig chases a cat"
    assert "a test perplexity much below 7.56" in dataset.source
    for array in dataset[1:4]:
        assert array[-1] == dataset.vocabulary.index("<eos>")


def test_no_table_of_word_pairs_is_as_good_as_the_rules():
    """The language has more to learn than which word follows which."""
    dataset = data.load_text("grammar")
    counts = np.full((61, 61), 0.1)
    np.add.at(counts, (dataset.train[:-1], dataset.train[1:]), 1)
    probs = counts / counts.sum(1, keepdims=True)
    test = dataset.test
    bigrams = np.exp(-np.log(probs[test[:-1], test[1:]]).mean())
    assert 7.56 * 1.1 < bigrams < 12


def test_the_first_tokens_of_each_text():
    whole = data.load_text("grammar")
    first = data.first_tokens(whole, 5)
    for short, long in zip(first[1:4], whole[1:4], strict=True):
        np.testing.assert_array_equal(short, long[:5])
    assert first.vocabulary == whole.vocabulary
    assert first.source == f"{whole.source}, at most 5 tokens of each text"
    assert data.first_tokens(whole, 10**6).test.size == whole.test.size
    with pytest.raises(ValueError, match="num is 0; expected at least 1"):
        data.first_tokens(whole, 0)


def test_digests_tell_texts_apart():
    whole = data.load_text("grammar")
    digest = data.text_digest(whole)
    assert digest == data.text_digest(whole._replace(source="elsewhere"))
    others = (
        whole._replace(test=whole.test[:-1]),
        whole._replace(train=whole.validation, validation=whole.train),
        whole._replace(vocabulary=whole.vocabulary[::-1]),
    )
    assert len({digest, *map(data.text_digest, others)}) == 4
