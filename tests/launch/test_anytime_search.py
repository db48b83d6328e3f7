"""The anytime command, cut down to its compilation."""

import json

import anytime_search
import pytest
from commands import assert_refused, exit_status, run
from pages import check_report

from jaxnas import analysis, genotypes, metrics

TINY = (
    *("--num-nodes", "2", "1", "1", "--min-nodes", "1", "1", "1"),
    *("--num-exits", "1", "1", "1"),
    *("--channels", "2", "--max-images", "32", "--validation-images", "8"),
    *("--batch-size", "8", "--epochs", "1", "--hidden-size", "4", "--num-steps", "1"),
    *("--num-candidates", "3", "--num-random", "1", "--final-epochs", "1"),
    *("--budget", "30000", "--final-seeds", "2"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, variables):
    """The folder of a run, and what was printed."""
    workdir = tmp_path_factory.mktemp("anytime") / "run"
    return workdir, run(variables, "anytime_search", *TINY, "--workdir", workdir)


def test_a_search_ends_with_a_trained_network(finished):
    workdir, (status, output, errors) = finished
    assert status == 0, errors
    genotype = genotypes.load(workdir / "genotype.json")
    assert genotypes.to_text(genotype) in output
    check_report(workdir / "report.html")
    found, random = json.loads((workdir / "networks.json").read_text())
    assert (found["name"], random["name"]) == ("found", "random 1")
    assert genotypes.from_json(json.dumps(found["genotype"])) == genotype
    assert found["flops"] == list(analysis.exit_costs(genotype, 2, 10, (8, 8, 1)))
    assert len(random["predicted"]) == len(random["flops"]) == 3
    assert [len(accuracies) for accuracies in random["trained"]] == [3, 3]
    assert "found trained, seed 1: test accuracy" in output


def test_trainings_are_kept_by_architecture_and_seed(finished):
    workdir, _ = finished
    rows = json.loads((workdir / "networks.json").read_text())
    folders = {
        genotypes.load(folder / "genotype.json"): folder
        for folder in (workdir / "networks").iterdir()
    }
    assert len(folders) == 2
    for row in rows:
        folder = folders[genotypes.from_json(json.dumps(row["genotype"]))]
        for seed, accuracies in enumerate(row["trained"]):
            assert (folder / f"seed_{seed}" / "checkpoints").is_dir()
            last = metrics.read(folder / f"seed_{seed}" / "metrics.jsonl")[-1]
            found = [last[f"test/exit_{i}_accuracy"] for i in range(3)]
            assert found == accuracies
    assert not (workdir / "networks" / "found").exists()


def test_the_best_candidate_is_found(finished):
    workdir, (_, output, _) = finished
    lines = metrics.read(workdir / "candidates.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert {f"exit_{i}_accuracy" for i in range(3)} < set(lines[0])
    assert "predicted area of 3 candidates" in output


def test_the_same_command_has_nothing_left_to_do(finished, variables):
    workdir, (_, output, _) = finished
    before = (workdir / "networks.json").read_text()
    flags = (*TINY, "--workdir", workdir)
    status, again, errors = run(variables, "anytime_search", *flags)
    assert status == 0, errors
    assert "trained, seed" not in again
    assert again.partition("\nfound:")[2] == output.partition("\nfound:")[2]
    assert (workdir / "networks.json").read_text() == before


def test_a_finished_training_is_not_repeated(finished, variables):
    workdir, _ = finished
    before = (workdir / "networks.json").read_text()
    (workdir / "trained.jsonl").unlink()
    flags = (*TINY, "--workdir", workdir)
    status, output, errors = run(variables, "anytime_search", *flags)
    assert status == 0, errors
    assert "random 1 trained, seed 1" in output and "epoch 1/1" not in output
    assert (workdir / "networks.json").read_text() == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--num-nodes", "6", "4"), ("--num-nodes", "Expected 3 values")),
        (("--num-exits", "2", "x", "2"), ("--num-exits",)),
        (("--min-nodes", "1", "2", "2"), ("min_nodes of block 0 is 1",)),
        (("--density", "0"), ("density is 0.0",)),
        (("--channels", "3"), ("channels is 3",)),
        (("--validation-images", "1500"), ("--validation-images is 1500",)),
    ],
)
def test_wrong_settings(monkeypatch, capsys, tmp_path, flags, words):
    flags = (*flags, "--workdir", tmp_path / "run")
    status = exit_status(monkeypatch, anytime_search.main, *flags)
    assert_refused((status, *capsys.readouterr()), *words)


@pytest.mark.parametrize("preset", anytime_search.PRESETS)
def test_presets_describe_spaces(preset):
    config = anytime_search.PRESETS[preset].config
    sizes = (config.num_nodes, config.min_nodes, config.num_exits)
    for largest, least, exits in zip(*sizes, strict=True):
        assert exits <= least <= largest
