"""Commands that read images: what they say first."""

import importlib

import pytest
import session
from commands import assert_refused, exit_status, run

from jaxnas import data, genotypes

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

    def start(command):
        flags = ["--workdir", tmp_path / "run"]
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


def test_streamed_images_are_not_skipped(monkeypatch, capsys, tmp_path):
    flags = ["--preset", "ghn-imagenet", "--data-dir", tmp_path, "--skip-corrupt"]
    flags += ["--genotype", "GHN", "--workdir", tmp_path / "run"]
    main = importlib.import_module("cifar_train").main
    assert exit_status(monkeypatch, main, *flags) == session.USAGE
    assert "--skip-corrupt has no effect with" in capsys.readouterr().err
