"""The commands that use a trained network: predict and export."""

import csv
import io
import json
import re

import cifar_train
import commands
import export
import jax
import numpy as np
import predict
import pytest
from commands import assert_refused
from PIL import Image
from trained import trained

from jaxnas import data, genotypes, networks
from jaxnas.genotypes import MacroGenotype

RNG = np.random.default_rng(0)


def run(monkeypatch, capsys, command, *flags):
    with jax.numpy_dtype_promotion("standard"):
        status = commands.exit_status(monkeypatch, command.main, *flags)
    output, errors = capsys.readouterr()
    return status, output, errors


@pytest.fixture
def model(tmp_path):
    networks.save(tmp_path / "network.safetensors", trained())
    return tmp_path / "network.safetensors"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(5):
        image = RNG.integers(0, 256, (12, 9 + index, 3)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


def expected_of(model, photos):
    found = networks.load(model)
    paths, _ = data.find_images([photos])
    (batch,) = data.read_images(paths, found.image_format, batch_size=5)
    return paths, networks.make_predict_fn(found, batch_size=5)(batch.images)


def test_formats(monkeypatch, capsys, model, photos):
    paths, probabilities = expected_of(model, photos)
    names = np.array(trained().class_names)
    best = probabilities.argsort(axis=1)[:, ::-1]

    flags = (model, photos, "--batch-size", 2)
    status, output, errors = run(monkeypatch, capsys, predict, *flags)
    assert (status, errors) == (0, "")
    assert output.splitlines() == [
        f"{path}: {names[order[0]]} {row[order[0]]:.2%}"
        for path, row, order in zip(paths, probabilities, best, strict=True)
    ]

    flags = (model.parent, *paths[:2], "--format", "csv", "--top", 2)
    status, output, _ = run(monkeypatch, capsys, predict, *flags)
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [(row["image"], row["rank"], row["class"]) for row in rows] == [
        (str(paths[i]), str(rank + 1), names[best[i, rank]])
        for i in range(2)
        for rank in range(2)
    ]
    assert float(rows[0]["probability"]) == pytest.approx(
        probabilities[0].max(), abs=1e-6
    )

    flags = (model, photos, "--format", "json", "--top", 9)
    entries = json.loads(run(monkeypatch, capsys, predict, *flags)[1])
    assert [entry["image"] for entry in entries] == [*map(str, paths)]
    for entry, order in zip(entries, best, strict=True):
        assert [found["class"] for found in entry["classes"]] == [*names[order]]
        assert sum(found["probability"] for found in entry["classes"]) == (
            pytest.approx(1, abs=1e-6)
        )


def test_corrupt_images(monkeypatch, capsys, model, photos):
    corrupt = photos / "2.png"
    corrupt.write_bytes(b"")
    (photos / "notes.txt").write_text("text")
    result = run(monkeypatch, capsys, predict, model, photos)
    assert_refused(result, f"error: {corrupt} cannot be read: it is empty")
    flags = (model, photos, "--skip-corrupt")
    status, output, errors = run(monkeypatch, capsys, predict, *flags)
    assert (status, errors) == (0, "skipped: 1 .txt, 1 corrupt\n")
    assert output.count("\n") == 4 and str(corrupt) not in output
    result = run(monkeypatch, capsys, predict, model, corrupt, "--skip-corrupt")
    assert_refused(result, f"{corrupt} and all other images are corrupt")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("no.safetensors", "x"), "file no.safetensors cannot be read: No such file"),
        ((".", "x"), "file network.safetensors cannot be read: No such file"),
        (("MODEL",), "IMAGES is empty; expected files or folders"),
        (("MODEL", "no/such"), "no/such cannot be read: there is no such file"),
        (("MODEL", "x", "--top", 0), "--top is 0; expected at least 1"),
        (("MODEL", "x", "--batch-size", 0), "--batch-size is 0; expected at least 1"),
        (("MODEL", "x", "--format", "xml"), "xml"),
    ],
)
def test_wrong_input(monkeypatch, capsys, tmp_path, model, flags, words):
    monkeypatch.chdir(tmp_path / "..")
    flags = [str(model) if flag == "MODEL" else flag for flag in flags]
    assert_refused(run(monkeypatch, capsys, predict, *flags), words)


def test_a_program_is_written_beside_the_network(monkeypatch, capsys, model):
    flags = (model.parent, "--platforms", "cpu")
    status, output, errors = run(monkeypatch, capsys, export, *flags)
    path = model.with_suffix(".stablehlo")
    assert (status, output, errors) == (0, f"wrote {path}\n", "")
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert program.platforms == ("cpu",)
    result = run(monkeypatch, capsys, export, model, "--platforms", "gpu")
    assert_refused(result, "platforms are gpu; expected some of cpu, cuda, tpu, rocm")


def write_photos(root):
    """Two classes that can be told apart, and some that are on the wrong side."""
    for split in ("train", "test"):
        for label, name in enumerate(("dark", "light")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(10):
                is_light = label ^ (index % 5 == 0)
                image = RNG.integers(0, 200, (10, 12, 3)) + 55 * is_light
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{index}.png")


def test_predictions_are_as_good_as_the_training_said(monkeypatch, capsys, tmp_path):
    write_photos(tmp_path / "data")
    genotype = MacroGenotype(("avg_pool_3x3",) * 3, ((), (0,), ()))
    genotypes.save(tmp_path / "found.json", genotype)
    status, output, errors = run(
        *(monkeypatch, capsys, cifar_train, "--preset", "quick-enas-macro"),
        *("--genotype", tmp_path / "found.json", "--workdir", tmp_path / "run"),
        *("--dataset", "folder", "--data-dir", tmp_path / "data", "--image-size", 8),
        *("--channels", 2, "--epochs", 3, "--batch-size", 10, "--dropout", 0),
    )
    assert status == 0, errors
    network = tmp_path / "run" / "network.safetensors"
    assert f"network: {network}\n" in output
    reported = re.search(r"test accuracy (\S+)%,", output)
    assert reported is not None
    flags = (network, tmp_path / "data" / "test", "--format", "json")
    entries = json.loads(run(monkeypatch, capsys, predict, *flags)[1])
    right = [f"/{e['classes'][0]['class']}/" in e["image"] for e in entries]
    assert len(right) == 20
    assert f"{np.mean(right):.2%}" == f"{reported[1]}%"
    found = networks.load(network)
    assert found.test["accuracy"] == pytest.approx(np.mean(right))
    assert found.class_names == ("dark", "light")
    dataset = data.load("folder", tmp_path / "data", image_size=8)
    best = networks.predict(found, dataset.test).argmax(1)
    assert (best == dataset.test.labels).tolist() == right
