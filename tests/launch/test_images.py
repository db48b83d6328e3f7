"""Commands that read images: what they say first."""

import importlib

import cifar_train
import images
import numpy as np
import pytest
import session
from commands import assert_refused, exit_status, run
from PIL import Image

from jaxnas import _memory, data, genotypes

COMMANDS = (
    *("anytime_search", "cell_study", "cifar_search", "cifar_train"),
    "ghn_correlation",
)
CELL = (("sep_conv_3x3", 1), ("skip_connect", 0))


@pytest.fixture
def start(monkeypatch, capsys, tmp_path):
    """Run a command up to its first line; what it says instead of it."""

    def stop(found, environment, folder):
        raise session.UsageError(found)

    def start(command, *given):
        flags = ["--workdir", tmp_path / "run", *given]
        if command == "cifar_train":
            flags += ["--genotype", tmp_path / "cells.json", "--channels", "4"]
            cells = genotypes.Genotype(CELL, (2,), CELL, (2,))
            genotypes.save(tmp_path / "cells.json", cells)
        main = importlib.import_module(command).main
        assert exit_status(monkeypatch, main, *flags) == session.USAGE
        output, errors = capsys.readouterr()
        assert output == ""
        return errors

    monkeypatch.setattr(session, "announce", stop)
    return start


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_line_says_what_was_found(start, command):
    assert start(command) == (
        "error: scikit-learn's digits, first 1500 train and last 297 test: 1500 "
        "training and 297 test images of 8x8 pixels, 1 channel, 10 classes\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_does_not_go_on_with_other_images(start, monkeypatch, command):
    first = start(command)
    assert start(command) == first
    digits = data.load("digits")
    pixels = digits.test.images.copy()
    pixels[-1, 0, 0, 0] += 1
    changed = digits._replace(test=digits.test._replace(images=pixels))
    monkeypatch.setattr(data, "load", lambda *args, **options: changed)
    errors = start(command)
    assert "holds a run with another configuration: images (there '1500" in errors
    assert errors.count("SHA-256") == 2


def test_images_too_large_are_refused_in_one_line(variables, tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "large.pgm").write_bytes(b"P5 10000 9000 255\n")
    flags = "--dataset", "folder", "--data-dir", tmp_path
    result = run(variables, "cifar_search", *flags)
    assert_refused(result, "large.pgm is 10000x9000 pixels; expected 1 to 89,478,485")
    assert result[2].count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_images_without_classes_are_refused(start, monkeypatch, command):
    dataset = data.load("digits")._replace(name="images", class_names=())
    monkeypatch.setattr(data, "load", lambda *args, **options: dataset)
    assert "'images' has no classes; expected one with classes" in start(command)


# Folders as people have them --------------------------------------------------------


def draw(path, width=12, height=12, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def plain(top):
    """Three images of cats and of dogs for training, and as many for testing."""
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            for index in range(3):
                seed = 100 * number + 10 * index + len(split)
                draw(top / split / name / f"{index}.png", seed=seed)


def sixteen_bits(top):
    plain(top)
    for path in top.glob("*/cat/*.png"):
        ramp = np.arange(144, dtype=np.uint16).reshape(12, 12) * 455
        Image.fromarray(ramp).save(path)


def empty_channel(top):
    plain(top)
    for path in top.glob("*/*/*.png"):
        pixels = np.array(Image.open(path))
        pixels[..., 2] = 0
        Image.fromarray(pixels).save(path)


def one_level_too_deep(top):
    plain(top / "animals")
    for split in ("train", "test"):
        (top / split).mkdir()
        (top / "animals" / split).rename(top / split / "animals")
    (top / "animals").rmdir()


def notebooks(top):
    plain(top)
    draw(top / "train/cat/.ipynb_checkpoints/0-checkpoint.png")


def links(top):
    plain(top)
    store = top.parent / "store"
    for index in range(4):
        draw(store / f"{index}.png", seed=1000 + index)
    (top / "train/cat/more").symlink_to(store)
    for split in ("train", "test"):
        (top / split / "linked").symlink_to(store)


def endings(top):
    plain(top)
    for path in sorted(top.glob("train/cat/*"))[:2]:
        Image.open(path).save(path.with_suffix(".jfif"), "JPEG")
        path.unlink()


def turned(top):
    plain(top)
    exif = Image.Exif()
    exif[0x112] = 6
    for path in top.glob("*/*/*.png"):
        pixels = np.zeros((16, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()


def classes_only(top):
    for name in ("cat", "dog"):
        for index in range(10):
            draw(top / name / f"{index}.png", seed=index + 20 * ord(name[0]))


def train_only(top):
    classes_only(top / "train")


def one_image(top):
    classes_only(top)
    for path in list(top.glob("dog/*"))[1:]:
        path.unlink()


def nine_images(top):
    classes_only(top)
    (top / "dog/0.png").write_bytes(b"")


KINDS = [
    (plain, "6 training and 6 test images of 12x12 pixels, 3 channels, 2 classes"),
    (sixteen_bits, "6 training and 6 test images of 12x12 pixels, 3 channels, 2 cl"),
    (empty_channel, "6 training and 6 test images of 12x12 pixels, 3 channels, 2 cl"),
    (one_level_too_deep, "holds one class only, 'animals'; expected two or more"),
    (notebooks, "6 training and 6 test images of 12x12 pixels"),
    (links, "14 training and 10 test images of 12x12 pixels, 3 channels, 3 classes"),
    (endings, "6 training and 6 test images of 12x12 pixels"),
    (turned, "6 training and 6 test images of 16x24 pixels"),
    (classes_only, "a fifth of each class held out for testing: 16 training and 4 te"),
    (train_only, "a fifth of each class held out for testing: 16 training and 4 test"),
    (one_image, "class 'dog' in "),
    (nine_images, "dog/0.png cannot be read: it is empty"),
]


@pytest.mark.parametrize(("make", "words"), KINDS, ids=[k.__name__ for k, _ in KINDS])
@pytest.mark.parametrize("command", ["cifar_search", "cifar_train"])
def test_folders_of_many_kinds(start, tmp_path, command, make, words):
    make(tmp_path / "photos")
    flags = "--preset", "folder", "--data-dir", tmp_path / "photos"
    flags += "--image-size", "None", "--batch-size", "2"
    assert words in start(command, *flags)


def test_an_image_of_a_class_is_too_few_for_a_search(start, tmp_path):
    plain(tmp_path)
    for name in ("cat/0", "cat/1"):
        (tmp_path / f"train/{name}.png").unlink()
    flags = "--preset", "folder", "--data-dir", tmp_path, "--batch-size", "2"
    errors = start("cifar_search", *flags)
    assert "class 'cat' has one training image (1 such classes); a search" in errors
    assert "4 training and 6 test images" in start("cifar_train", *flags)


def test_what_a_folder_looks_like_follows_the_first_line(capsys, tmp_path):
    plain(tmp_path)
    (tmp_path / "test/cat/0.png").write_bytes(
        (tmp_path / "train/cat/0.png").read_bytes()
    )
    dataset = data.load("folder", tmp_path, image_size=8)
    images.announce(dataset, {"device": "CPU"}, tmp_path / "run")
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.endswith(f"2 classes; CPU; folder {tmp_path / 'run'}")
    assert lines[:3] == [
        "images per class: 3 training and 3 test, 2 classes",
        "sizes: 12 wide (median 12), 12 high (median 12)",
        "duplicates (equal files): 0 in training, 0 in test, 1 in both",
    ]
    assert any("1 test images are among the training images" in x for x in lines[3:])
    images.announce(data.load("digits"), {"device": "CPU"}, tmp_path / "run")
    assert capsys.readouterr().out.count("\n") == 1


# Images that are read while training ------------------------------------------------


def test_large_folders_are_read_while_training(start, monkeypatch, tmp_path):
    classes_only(tmp_path / "photos")
    flags = "--preset", "folder", "--data-dir", tmp_path / "photos", "--batch-size", "4"
    held_out = "photos, a fifth of each class held out for testing, "
    in_memory, streamed = "resized to 32x32", "cut to 32x32 while they are read"

    def first_line(*more):
        folder = tmp_path / f"run {' '.join(more)} {cifar_train.STREAM_ABOVE}"
        return start("cifar_train", *flags, *more, "--workdir", folder)

    assert held_out + in_memory in first_line()
    assert held_out + streamed in first_line("--stream", "always")
    monkeypatch.setattr(cifar_train, "STREAM_ABOVE", 20 * 32 * 32 * 3)
    assert in_memory in first_line()
    monkeypatch.setattr(cifar_train, "STREAM_ABOVE", 20 * 32 * 32 * 3 - 1)
    assert streamed in first_line()
    assert in_memory in first_line("--stream", "never")
    assert in_memory in first_line("--max-images", "4")


def test_streamed_images_are_skipped(start, tmp_path):
    nine_images(tmp_path / "photos")
    flags = "--preset", "folder", "--data-dir", tmp_path / "photos", "--batch-size", "4"
    errors = start("cifar_train", *flags, "--stream", "always", "--skip-corrupt")
    assert ": 15 training and 4 test" in errors or ": 16 training and 3 test" in errors
    assert "; skipped: 1 corrupt" in errors


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--stream", "always"), "--stream is always, but the data set is digits; exp"),
        (
            ("--stream", "always", "--preset", "folder"),
            "--dataset folder needs --data-dir, a folder with train/CLASS",
        ),
        (
            ("--dataset", "imagenet", "--data-dir", "x", "--max-images", "4"),
            "--max-images is 4, which has no effect on images that are read while",
        ),
        (
            ("--dataset", "imagenet", "--data-dir", "x", "--stream", "never"),
            "--stream is never; expected auto or always for imagenet",
        ),
    ],
)
def test_streams_that_are_refused(start, flags, words):
    assert words in start("cifar_train", *flags)


def test_images_that_exceed_memory_are_told(start, monkeypatch, tmp_path):
    plain(tmp_path)
    monkeypatch.setattr(_memory, "available_bytes", lambda: 10**6)
    flags = "--preset", "folder", "--data-dir", tmp_path, "--image-size", "224"
    assert (
        "12 images of 224x224 pixels take 1,806,336 bytes, and as many on the device; "
        "1,000,000 bytes are available: expected fewer images or a smaller "
        "--image-size, or, for a training, --stream always"
    ) in start("cifar_search", *flags)
