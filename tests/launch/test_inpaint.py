"""The commands that restore images, cut down to their compilation."""

import json
import pathlib
import re
import shlex
import time

import inpaint_search
import inpaint_train
import optimizers
import pytest
from commands import assert_refused, exit_status, run, start
from helpers import visible
from pages import check_report

from jaxnas import genotypes, metrics

TINY = (
    *("--image-size", 12, "--max-images", 32, "--batch-size", 8, "--epochs", 1),
    *("--num-nodes", 2, "--level-back", 2, "--channels", 2, 4),
    *("--scratch-random", 2, "--scratch-epochs", 1, "--scratch-seeds", 1),
)
GENOTYPE = pathlib.Path("genotype.json")
SEARCH, TRAIN = inpaint_search.main, inpaint_train.main


@pytest.fixture(scope="module")
def finished(tmp_path_factory, variables):
    """The folder of a run, and what was printed."""
    workdir = tmp_path_factory.mktemp("inpaint") / "run [1]"
    return workdir, run(variables, "inpaint_search", *TINY, "--workdir", workdir)


def test_a_search_ends_with_a_comparison(finished):
    workdir, (status, output, errors) = finished
    assert status == 0, errors
    assert visible(workdir) == {
        *("config.json", "metrics.jsonl", "genotype.json", "scratch.json"),
        *("report.html", "checkpoints", "networks", "trained.jsonl"),
    }
    genotype = genotypes.load(workdir / "genotype.json")
    assert genotypes.to_text(genotype) in output
    assert "digits, first 1500 train and last 297 test, resized to 12x12" in output
    assert "2 random autoencoders" in output
    content = json.loads((workdir / "scratch.json").read_text())
    assert len(content["random"]) == 2
    assert metrics.read(workdir / "metrics.jsonl")[-1]["test/psnr"] > 0
    check_report(workdir / "report.html")


def test_the_same_command_again_ends_the_same_way(finished, variables):
    workdir, (_, output, _) = finished
    before = (workdir / "scratch.json").read_bytes()
    again = run(variables, "inpaint_search", *TINY, "--workdir", workdir)
    assert again[0] == 0, again[2]
    assert (workdir / "scratch.json").read_bytes() == before
    assert again[1].partition("\nfound:")[2] == output.partition("\nfound:")[2]


def test_a_killed_search_ends_the_same_way(finished, variables, tmp_path):
    workdir, _ = finished
    flags = (*TINY, "--workdir", tmp_path / "run")
    # In the search, and in a training from scratch.
    for place in ("metrics.jsonl", "networks/*/seed_0/metrics.jsonl"):
        process = start(variables, "inpaint_search", *flags)
        while not [*(tmp_path / "run").glob(place)]:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.communicate()
    status, _, errors = run(variables, "inpaint_search", *flags)
    assert status == 0, errors
    for name in ("genotype.json", "scratch.json", "trained.jsonl"):
        expected = (workdir / name).read_bytes()
        assert (tmp_path / "run" / name).read_bytes() == expected


def test_the_printed_command_runs(finished, variables, tmp_path):
    workdir, (_, output, _) = finished
    (line,) = re.findall(r"^  python launch/inpaint_train\.py (.*)$", output, re.M)
    flags = shlex.split(line)
    assert flags[:2] == ["--preset", "quick"]
    short = ("--epochs", 1, "--decay-at", 1, "--max-images", 16, "--workdir", tmp_path)
    status, output, errors = run(variables, "inpaint_train", *flags, *short)
    assert status == 0, errors
    assert "resized to 12x12" in output
    log = metrics.read(tmp_path / "metrics.jsonl")
    assert f"test PSNR {log[-1]['test/psnr']:.2f} dB" in output
    assert genotypes.load(tmp_path / "genotype.json") == (
        genotypes.load(workdir / "genotype.json")
    )
    check_report(tmp_path / "report.html")


def test_the_mask_is_part_of_the_printed_command():
    config = inpaint_search.PRESETS["random-celeba-pixel"].config
    for preset, mask in (("quick", "center"), ("asng-celeba-half", "half")):
        given = inpaint_search.PRESETS[preset].config
        command = inpaint_search.training_command(preset, given, GENOTYPE, 1000)
        assert f"--preset {preset} " in command and "--mask" not in command
        assert given.missing.mask == mask
    command = inpaint_search.training_command("quick", config, GENOTYPE, 1000)
    assert "--mask pixel" in command and "--dataset celeba_ecae" in command


def test_another_space_searcher_and_selection(variables, tmp_path):
    words = "mixed", "sng", "best", "--num-candidates", 4
    flags = (*words, *TINY, "--scratch-random", 0, "--mask", "pixel", "--scale-kept")
    result = run(variables, "inpaint_search", *flags, "--workdir", tmp_path / "run")
    status, output, errors = result
    assert status == 0, errors
    assert "nothing is known of its worth" in output
    assert "--mask pixel --scale-kept" in output
    assert 1 <= len(metrics.read(tmp_path / "run" / "ranking.jsonl")) <= 5


@pytest.mark.parametrize(
    ("main", "flags", "words"),
    [
        (SEARCH, ["--image-size", 13], "images are 13x13 pixels; expected even sides"),
        (SEARCH, ["--dataset", "digits", "--image-size", 8], "images are 8x8 pixels"),
        (SEARCH, ["--mask", "left"], "invalid choice 'left'"),
        (SEARCH, ["--scale-kept"], "scale_kept is True; expected False with the mask"),
        (SEARCH, ["--scratch-random", 1], "--scratch-random is 1; expected 0, or 2"),
        (SEARCH, ["--scratch-decay-at", 3, 3], "--scratch-decay-at is 3 3; expected"),
        (SEARCH, ["--num-archs", 1], "--num-archs is 1; ASNG compares 2 or more"),
        (SEARCH, ["mixed", "--num-archs", 3], "--num-archs is 3; expected an even"),
        (
            SEARCH,
            ["mixed", "best", "--num-candidates", 3],
            "--num-candidates is 3; expected an even number",
        ),
        (SEARCH, ["mixed", "adam-sng"], "40 ordered integers; expected none for adam"),
        (SEARCH, ["--channels", 8, 4], "channels is (8, 4)"),
        (SEARCH, ["--level-back", 9], "num_nodes is 6"),
        (SEARCH, ["random", "--stop-when-converged", 0.9], "no probabilities that"),
        (SEARCH, ["reinforce"], "Unrecognized options: reinforce"),
        (TRAIN, [], "--genotype is missing: expected a file"),
        (TRAIN, ["--genotype", "none"], "neither a file nor one of ECAE_CELEBA"),
        (TRAIN, ["--genotype", "DARTS_V2"], "DARTS_V2 is a Genotype; expected an Auto"),
        (TRAIN, ["--genotype", "ECAE_SVHN", "--image-size", 10], "images are 10x10"),
        (TRAIN, ["--genotype", "ECAE_SVHN", "--batch-size", 2000], "only 1500 images"),
    ],
)
def test_wrong_input(monkeypatch, capsys, tmp_path, main, flags, words):
    workdir = tmp_path / "run"
    status = exit_status(monkeypatch, main, *flags, "--workdir", workdir)
    assert_refused((status, *capsys.readouterr()), words)
    assert not workdir.exists()


@pytest.mark.parametrize("mask", ["center", "pixel", "half"])
def test_presets_are_as_published(mask):
    searches, trainings = inpaint_search.PRESETS, inpaint_train.PRESETS
    found = searches[f"asng-celeba-{mask}"].config
    assert found.missing.mask == trainings[f"asng-celeba-{mask}"].config.missing.mask
    dataset = found.images.dataset
    assert dataset == trainings[f"asng-celeba-{mask}"].config.images.dataset
    # 100,000 images, of which the search takes one half.
    training = trainings[f"asng-celeba-{mask}"].config.training
    steps = 100_000 // training.batch_size
    assert training.epochs * steps == 500_000
    assert isinstance(training.schedule, optimizers.Steps)
    assert [e * steps for e in training.schedule.decay_at] == [200_000, 400_000]
    assert found.training.epochs * (50_000 // found.training.batch_size) == 50_000
    # Official main_inpainting_cat.py and train.py.
    assert (training.optimizer, training.learning_rate) == (optimizers.Adam(), 1e-3)
    assert training.schedule.decay == 0.1
    search = found.training
    assert search.optimizer == optimizers.Sgd(momentum=0.9, weight_decay=0.0)
    assert search.schedule == optimizers.Cosine(by_epoch=False)
    assert search.learning_rate == 0.025
    for one in (training, search):
        assert (one.batch_size, one.clip_norm, one.warmup_epochs) == (16, 5.0, 0)
    given = found.images
    assert (given.crop_padding, given.cutout, given.flip) == (0, 0, True)
    space = found.space
    assert (space.num_nodes, space.level_back) == (20, 5)
    assert space.channels == (64, 128, 256)
    names = (f"asng-celeba-{mask}-mixed", f"random-celeba-{mask}")
    kinds = [
        f"{type(config.space).__name__} {type(config.searcher).__name__}"
        for config in (found, *(searches[name].config for name in names))
    ]
    assert kinds == ["Categorical Asng", "Mixed Asng", "Categorical Random"]
