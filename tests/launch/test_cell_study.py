"""The study of cells as a command, with cells that compile fast."""

import functools
import json

import cell_study
import numpy as np
import pytest
from commands import assert_refused, exit_status
from helpers import visible
from pages import check_report
from presets.cell_study import PRESETS

from jaxnas import analysis, data, genotypes, metrics, studies
from jaxnas.genotypes import Genotype

CELL = Genotype(
    normal=(
        *(("skip_connect", 0), ("max_pool_3x3", 1)),
        *(("skip_connect", 2), ("avg_pool_3x3", 1)),
    ),
    normal_concat=(2, 3),
    reduce=(
        *(("max_pool_3x3", 0), ("skip_connect", 1)),
        *(("skip_connect", 1), ("max_pool_3x3", 2)),
    ),
    reduce_concat=(2, 3),
)
FLAGS = (
    *("--channels", 2, "--num-cells", 3, "--max-images", 150, "--batch-size", 50),
    *("--epochs", 2, "--resolution", 3, "--landscape-images", 20),
    *("--gradient-images", 6, "--gradient-chunk", 4),
)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """A file with a genotype."""
    file = tmp_path_factory.mktemp("genotypes") / "cell.json"
    genotypes.save(file, CELL)
    return file


def run(monkeypatch, capsys, cell, workdir, *flags):
    status = exit_status(
        monkeypatch,
        cell_study.main,
        *(*FLAGS, "--genotype", cell, "--workdir", workdir, *flags),
    )
    return status, *capsys.readouterr()


def test_a_study_part_by_part(monkeypatch, capsys, tmp_path, cell):
    workdir = tmp_path / "run"
    flags = ("--variants", "widest", "narrowest", "--num-seeds", 2, "--num-surfaces", 1)
    part = functools.partial(run, monkeypatch, capsys, cell, workdir)

    status, output, errors = part("topology", *flags)
    assert (status, errors) == (0, "")
    assert visible(workdir) == {
        *("config.json", "genotypes", "study.json", "report.html"),
    }
    names = {"cell", "widest", "narrowest"}
    assert {path.stem for path in (workdir / "genotypes").iterdir()} == names
    widest = genotypes.load(workdir / "genotypes" / "widest.json")
    assert widest == genotypes.widest_shallowest(CELL)
    study = json.loads((workdir / "study.json").read_text())
    assert {name: (row["width"], row["depth"]) for name, row in study.items()} == {
        "cell": (1.5, 3),
        "widest": (2.0, 2),
        "narrowest": (1.0, 3),
    }

    status, output, errors = part("landscape", *flags)
    assert (status, errors) == (0, "")
    log = "trainings/cell/learning_rate_0.05/seed_0/metrics.jsonl"
    trained = [line["epoch"] for line in metrics.read(workdir / log)]
    assert trained == [0, 1, 2]
    assert not (workdir / log.replace("seed_0", "seed_1")).exists()

    status, output, errors = part(*("convergence", *flags))
    assert (status, errors) == (0, "")
    assert "cell 0.05 seed 1" in output
    assert "cell 0.05 seed 0" not in output  # is there already

    status, output, errors = part("variance", *flags)
    assert (status, errors) == (0, "")
    assert "epoch" not in output
    study = json.loads((workdir / "study.json").read_text())
    for name in names:
        row = study[name]
        assert len(row["learning_rate_0.05/final_test_accuracy"]) == 2
        assert row["learning_rate_0.05/diverged"] == [0, 0]
        assert 0 < row["basin_share"][0] <= 1
        assert row["gradient_deviation_at_center"][0] > 0
    check_report(workdir / "report.html")
    text = (workdir / "report.html").read_text()
    for title in ("Topology", "Convergence", "Loss landscape", "Gradient variance"):
        assert f"<h2>{title}</h2>" in text

    (file,) = workdir.glob("surfaces/landscape*/cell_seed_0.npz")
    surface = analysis.load_surface(file)
    assert surface.values["loss"].shape == (3, 3)

    before = (workdir / "study.json").read_bytes()
    status, output, errors = part("all", *flags)
    assert (status, errors) == (0, "")
    assert "rows" not in output and "epoch" not in output
    assert (workdir / "study.json").read_bytes() == before


def test_the_center_has_the_loss_of_the_training(monkeypatch, capsys, tmp_path, cell):
    workdir = tmp_path / "run"
    flags = (
        *("--variants", "--num-seeds", 1, "--landscape-images", 297),
        "--no-share-program",
    )
    status, _, errors = run(monkeypatch, capsys, cell, workdir, "landscape", *flags)
    assert (status, errors) == (0, "")
    (log,) = workdir.glob("trainings/*/*/*/metrics.jsonl")
    (file,) = workdir.glob("surfaces/*/cell_seed_0.npz")
    trained, surface = metrics.read(log)[-1], analysis.load_surface(file)
    for name in ("loss", "accuracy"):
        found = surface.at_center(name)
        np.testing.assert_allclose(found, trained[f"test/{name}"], rtol=1e-6)


def test_trainings_that_diverge_are_told(monkeypatch, capsys, tmp_path, cell):
    workdir = tmp_path / "run"
    flags = (
        *("--variants", "--learning-rates", "1e30", "0.05", "--num-seeds", 1),
        *("--clip-norm", "1e30"),
    )
    status, output, errors = run(monkeypatch, capsys, cell, workdir, "all", *flags)
    assert (status, errors) == (0, "")
    assert "cell, seed 0: diverged" in output
    row = json.loads((workdir / "study.json").read_text())["cell"]
    assert row["learning_rate_1e+30/diverged"] == [1]
    assert row["learning_rate_1e+30/mean_test_loss"] == []
    assert row["learning_rate_0.05/diverged"] == [0]
    assert "basin_share" not in row  # no surface of a network that is not there
    status, output, errors = run(monkeypatch, capsys, cell, workdir, "all", *flags)
    assert (status, errors) == (0, "") and "epoch" not in output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["shape"], "invalid choice 'shape' for argument 'study'"),
        (["--genotype", "no/such"], "no/such is neither a file nor one of"),
        (["--genotype", "ENAS_MACRO"], "is a MacroGenotype; expected two cells"),
        (["--variants", "conn0-x"], "--variants has conn0-x; expected conn1"),
        (["--variants", "conn4-2"], "--variants has conn4-2; expected ascending"),
        (["--variants", "widest", "widest"], "--variants lists widest twice"),
        (["--variants", "1.5c-2"], "cells of 4 nodes are 1c-3, 1c-4"),
        (["--learning-rates", 0.1, 0], "expected different positive numbers"),
        (["--learning-rates", 0.1, 0.1], "expected different positive numbers"),
        (["--resolution", 4], "resolution is 4; expected an odd number"),
        (["--radius", 0], "radius is 0.0; expected a positive number"),
        (
            ["--batch-size", 1600],
            "--batch-size is 1600, but there are only 1500 images",
        ),
        (["--num-cells", 2], "--num-cells is 2; expected at least 3"),
        (["--drop-path", 0.1], "--share-program does not go with --drop-path"),
        (["--devices", 3], "batch_size of 50 cannot be divided among 3"),
    ],
)
def test_wrong_input_is_one_line(monkeypatch, capsys, tmp_path, flags, words):
    workdir = tmp_path / "run"
    status = exit_status(monkeypatch, cell_study.main, *flags, "--workdir", workdir)
    assert_refused((status, *capsys.readouterr()), words)
    assert not workdir.exists()


def test_a_name_stays_with_its_genotype(monkeypatch, capsys, tmp_path, cell):
    file, workdir = tmp_path / "mine.json", tmp_path / "run"
    part = functools.partial(run, monkeypatch, capsys, cell, workdir, "topology")
    genotypes.save(file, genotypes.widest_shallowest(CELL))
    assert part("--variants", file)[0] == 0
    assert part("--variants", file, "narrowest")[0] == 0
    genotypes.save(file, genotypes.narrowest_deepest(CELL))
    assert_refused(part("--variants", file), "mine.json is another genotype")


def test_variants_by_name(tmp_path):
    darts = genotypes.named("DARTS_V2")
    file = tmp_path / "mine.json"
    genotypes.save(file, genotypes.named("SNAS_MILD"))
    words = "conn2-3", "ops1", "widest", "narrowest", "adapt", "2.5c-4", str(file)
    found = cell_study.architectures.find_variants(darts, words)
    assert list(found) == [
        *("conn2", "conn3", "ops1", "widest", "narrowest", "adapt", "2.5c-4", "mine")
    ]
    assert found["conn3"] == genotypes.random_connections(darts, 3)
    assert found["ops1"] == genotypes.random_operations(darts, 1)
    assert analysis.cell_width(found["2.5c-4"], "normal") == 2.5
    assert analysis.cell_depth(found["2.5c-4"], "normal") == 4
    assert found["mine"] == genotypes.named("SNAS_MILD")
    shapes = cell_study.architectures.find_variants(darts, ["shapes"])
    assert len(shapes) == 16 and shapes["2.5c-4"] == found["2.5c-4"]


def test_cells_share_programs_if_only_connections_differ():
    cells = {
        "original": genotypes.named("NASNet"),
        "conn": genotypes.random_connections(genotypes.named("NASNet"), 1),
        "ops": genotypes.random_operations(genotypes.named("NASNet"), 1),
        "widest": genotypes.widest_shallowest(genotypes.named("NASNet")),
    }
    programs = studies.assign_programs(cells)
    assert programs["conn"] == cells["original"]
    assert programs["ops"] == cells["ops"]
    # Its concat has all nodes, that of NASNet's reduction cell has not.
    assert programs["widest"] == cells["widest"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_variants_that_are_there(name):
    config = PRESETS[name].config
    genotype = genotypes.named(config.genotype)
    variants = cell_study.architectures.find_variants(genotype, config.variants)
    assert config.genotype not in variants
    if name.startswith("shu-cifar"):
        widths = [analysis.cell_width(v, "normal") for v in variants.values()]
        assert widths == [2.0] * 3 + [2.5] * 3 + [3.0] * 3 + [3.5] * 3
        assert config.learning_rates[0] == 0.025
    if name.startswith("shu"):
        assert config.training.epochs in (600, 300)
        assert config.training.batch_size == 80
        assert (config.channels, config.num_cells) == (36, 20)


def test_a_sample_is_of_all_classes():
    labels = np.repeat(np.arange(10, dtype=np.int32), 100)
    images = labels.astype(np.uint8)[:, None, None, None]
    split = data.Split(images, labels)
    found = studies.sample_images(split, 200, 0)
    assert found["label"].size == 200 and set(found["label"]) == set(range(10))
    np.testing.assert_array_equal(found["image"][:, 0, 0, 0], found["label"])
    # All of them come in random order too: variance may be of gradients of batches.
    for num in (None, 1000, 5000):
        everything = studies.sample_images(split, num, 0)
        np.testing.assert_array_equal(np.sort(everything["label"]), labels)
        assert (everything["label"] != labels).any()
