"""From folders of photographs to a report and a network that predicts."""

import csv
import io
import json

import commands
import image_classifier
import jax
import numpy as np
import predict
import pytest
from PIL import Image

from jaxnas import networks


@pytest.fixture
def photos(tmp_path):
    """Red and blue photographs of unequal sizes, the classes directly below."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "blue")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(20):
            height, width = rng.integers(34, 60, 2)
            image = rng.integers(0, 100, (height, width, 3))
            image[..., 2 * label] += 120
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{index}.jpg")
    return tmp_path / "photos"


def run(monkeypatch, capsys, command, *flags):
    with jax.numpy_dtype_promotion("standard"):
        status = commands.exit_status(monkeypatch, command.main, *flags)
    return status, *capsys.readouterr()


SMALL = (
    *("--search-channels", 2, "--search-cells", 3, "--search-epochs", 1),
    *("--channels", 2, "--cells", 3, "--train-epochs", 2, "--num-candidates", 2),
)


def test_the_whole_way(tmp_path, photos, monkeypatch, capsys):
    folder = tmp_path / "run"
    flags = "--data-dir", photos, "--workdir", folder, "--batch-size", 8, *SMALL
    status, output, errors = run(monkeypatch, capsys, image_classifier, *flags)
    assert status == 0, errors
    assert "--image-size 32: nine tenths of the images have" in output
    assert "--batch-size 8: as given" in output
    summary = json.loads((folder / "summary.json").read_text())
    names = "found", "random", "residual"
    assert [row["name"] for row in summary["networks"]] == list(names)
    assert (folder / "report.html").exists()
    for name in names:
        trained = networks.load(folder / name / networks.FILE_NAME)
        assert trained.class_names == ("blue", "red")
        assert trained.image_format.image_shape == (32, 32, 3)

    # The printed command, on the test images: as accurate as the report says.
    assert f"predict.py {folder / 'found' / networks.FILE_NAME} IMAGES" in output
    flags = folder / "found" / networks.FILE_NAME, photos / "red", "--format", "csv"
    status, output, _ = run(monkeypatch, capsys, predict, *flags)
    assert status == 0
    assert len(list(csv.DictReader(io.StringIO(output)))) == 20


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--time-budget", "30"], "--time-budget is '30'; expected a positive number"),
        (["--time-budget", "0m"], "--time-budget is '0m'"),
        (["--channels", "8"], "some of --channels, --cells, --train-epochs are given"),
        (["--search-epochs", "8"], "some of --search-channels, --search-cells"),
        ([], "data set 'folder' needs data_dir, the folder that holds"),
    ],
)
def test_wrong_flags(tmp_path, monkeypatch, capsys, flags, words):
    result = run(
        monkeypatch, capsys, image_classifier, "--workdir", tmp_path / "run", *flags
    )
    commands.assert_refused(result, words)


def test_too_little_time(tmp_path, photos, monkeypatch, capsys):
    from jaxnas.studies import image_classification as study

    monkeypatch.setattr(study, "search_seconds", lambda *_: 1.0)
    flags = "--data-dir", photos, "--workdir", tmp_path / "run", "--time-budget", "9s"
    status, _, errors = run(monkeypatch, capsys, image_classifier, *flags)
    assert status == 2
    assert "error: --time-budget is 9s: an epoch takes" in errors
    assert "expected time for at least 3 epochs" in errors


@pytest.mark.parametrize("flip", ["yes", "no"])
def test_mirroring_as_given(flip):
    config = image_classifier.Photographs(dataset="digits", flip=flip)
    settings = image_classifier.propose(config, "cpu")
    assert settings.images.flip == (flip == "yes")
    assert f"--flip {flip}: as given" in settings.reasons


def test_digits_are_not_mirrored():
    config = image_classifier.Photographs(dataset="digits")
    settings = image_classifier.propose(config, "cpu")
    assert not settings.images.flip
    assert settings.images.image_size == 8
