"""Commands that read images: what they say first."""

import importlib

import pytest
import session
from commands import assert_refused, exit_status, run

from jaxnas import genotypes

COMMANDS = (
    *("anytime_search", "cell_study", "cifar_search", "cifar_train"),
    "ghn_correlation",
)
CELL = (("sep_conv_3x3", 1), ("skip_connect", 0))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_line_says_what_was_found(monkeypatch, capsys, tmp_path, command):
    def stop(found, environment, folder):
        raise session.UsageError(found)

    monkeypatch.setattr(session, "announce", stop)
    flags = ["--workdir", tmp_path / "run"]
    if command == "cifar_train":
        flags += ["--genotype", tmp_path / "cells.json", "--channels", "4"]
        cells = genotypes.Genotype(CELL, (2,), CELL, (2,))
        genotypes.save(tmp_path / "cells.json", cells)
    main = importlib.import_module(command).main
    assert exit_status(monkeypatch, main, *flags) == session.USAGE
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == (
        "error: scikit-learn's digits, first 1500 train and last 297 test: 1500 "
        "training and 297 test images of 8x8 pixels, 1 channel, 10 classes\n"
    )


def test_images_too_large_are_refused_in_one_line(variables, tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "large.pgm").write_bytes(b"P5 10000 9000 255\n")
    flags = "--dataset", "folder", "--data-dir", tmp_path
    result = run(variables, "cifar_search", *flags)
    assert_refused(result, "large.pgm is 10000x9000 pixels; expected 1 to 89,478,485")
    assert result[2].count("\n") == 1
