"""The commands that train language models, cut down to their compilation."""

import json
import pathlib
import re
import shlex

import ptb_search
import ptb_train
import pytest
import session
import texts
from commands import assert_refused, exit_status, run
from helpers import visible
from pages import check_report

from jaxnas import data, genotypes, metrics

SIZES = (
    *("--hidden-size", 4, "--batch-size", 4, "--window", 5, "--max-tokens", 200),
    *("--drop-inputs", 0.25, "--max-norm", 9, "--epochs", 1),
)
SEARCH = (
    *("--num-nodes", 3, "--searcher-steps", 1, "--archs-per-step", 2),
    *("--num-candidates", 3, "--screening-tokens", 20),
)
SCRATCH = ("--scratch-random", 2, "--scratch-epochs", 1)
GENOTYPE = pathlib.Path("genotype.json")
SEARCH_MAIN, TRAIN_MAIN = ptb_search.main, ptb_train.main


@pytest.fixture(scope="module")
def finished(tmp_path_factory, variables):
    """The folder of a search, and what was printed."""
    workdir = tmp_path_factory.mktemp("ptb") / "run [1]"
    flags = (*SIZES, *SEARCH, *SCRATCH, "--workdir", workdir)
    return workdir, run(variables, "ptb_search", *flags)


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory, variables):
    """The folder of the training that a search's printed command starts."""
    _, (_, output, _) = finished
    (line,) = re.findall(r"^  python launch/ptb_train\.py (.*)$", output, re.M)
    workdir = tmp_path_factory.mktemp("ptb_train")
    flags = (*shlex.split(line), "--epochs", 2, "--workdir", workdir)
    return workdir, flags, run(variables, "ptb_train", *flags)


def test_a_search_ends_with_a_comparison(finished):
    workdir, (status, output, errors) = finished
    assert status == 0, errors
    assert visible(workdir) == {
        *("config.json", "metrics.jsonl", "genotype.json", "scratch.json"),
        *("report.html", "checkpoints", "networks", "trained.jsonl", "ranking.jsonl"),
    }
    genotype = genotypes.load(workdir / "genotype.json")
    assert len(genotype.activations) == 3
    assert f"found: {genotypes.to_text(genotype)}\n" in output
    first_line = output.splitlines()[0]
    assert "a made-up language" in first_line and "200 + 200 + 200 tokens" in first_line
    assert "61 words" in first_line and str(workdir) in first_line
    content = json.loads((workdir / "scratch.json").read_text())
    assert len(content["random"]) == 2
    value, low, high = content["difference"]
    assert f"difference {value:+.2f} [{low:+.2f}, {high:+.2f}]" in output
    assert metrics.read(workdir / "metrics.jsonl")[-1]["validation/perplexity"] > 1
    check_report(workdir / "report.html")


def test_a_search_goes_on_with_more_cells_and_seeds(finished, variables):
    workdir, _ = finished
    before = json.loads((workdir / "scratch.json").read_text())
    more = ("--scratch-random", 3, "--scratch-seeds", 2)
    flags = (*SIZES, *SEARCH, *SCRATCH, *more, "--workdir", workdir)
    status, output, errors = run(variables, "ptb_search", *flags)
    assert status == 0, errors
    assert "(2 seeds)" in output and "3 random cells" in output
    after = json.loads((workdir / "scratch.json").read_text())
    assert after["found"]["test"][:1] == before["found"]["test"]
    for old, new in zip(before["random"], after["random"], strict=False):
        assert new["test"][:1] == old["test"]


def test_other_texts_are_refused(finished, variables):
    workdir, _ = finished
    sizes = [201 if value == 200 else value for value in SIZES]
    flags = (*sizes, *SEARCH, *SCRATCH, "--workdir", workdir)
    result = run(variables, "ptb_search", *flags)
    assert_refused(result, "max_tokens (there 200, now 201)", "texts (there '200 + 200")


def test_the_printed_command_runs(finished, trained):
    searched, _ = finished
    workdir, flags, (status, output, errors) = trained
    assert status == 0, errors
    assert flags[:2] == ("--preset", "quick")
    config = json.loads((workdir / "config.json").read_text())["config"]
    given = {"hidden_size": 4, "batch_size": 4, "window": 5, "max_tokens": 200}
    given |= {"drop_inputs": 0.25, "max_norm": 9.0, "dataset": "grammar"}
    assert {name: config[name] for name in given} == given
    genotype = genotypes.load(workdir / "genotype.json")
    assert genotype == genotypes.load(searched / "genotype.json")
    # Embeddings of 61 words, a first matrix of 8 x 8, two others of 4 x 8.
    assert f"{61 * 4 + 64 + 2 * 32} parameters" in output
    result = json.loads((workdir / "result.json").read_text())
    found = re.search(r"validation text (.*), test text (.*); each read in one", output)
    assert found is not None
    values = [f"{result['perplexity'][name]:.2f}" for name in ("validation", "test")]
    assert list(found.groups()) == values
    log = metrics.read(workdir / "metrics.jsonl")
    best = min(log[1:], key=lambda line: line["validation/loss"])
    assert result["epoch"] == best["epoch"]
    assert f"after epoch {best['epoch']} of 2" in output
    assert len((workdir / "sample.txt").read_text().split()) <= 100
    page = check_report(workdir / "report.html")
    assert page.table("perplexity")[1]["perplexity"] == values[1]


def test_a_finished_training_says_the_same_again(trained, variables):
    workdir, flags, (_, output, _) = trained
    before = (workdir / "result.json").read_bytes()
    status, again, errors = run(variables, "ptb_train", *flags)
    assert status == 0, errors
    start = "\nperplexity: "
    assert again.partition(start)[2] == output.partition(start)[2]
    assert (workdir / "result.json").read_bytes() == before


@pytest.mark.parametrize("preset", ["enas-lm-ptb", "darts-ptb"])
def test_presets_of_the_space_of_darts_run(variables, tmp_path, preset):
    flags = (*SIZES, *SEARCH, "--no-random-windows", "--dataset", "grammar")
    searched = tmp_path / "search"
    status, output, errors = run(
        variables, "ptb_search", "--preset", preset, *flags, "--workdir", searched
    )
    assert status == 0, errors
    genotype = genotypes.load(searched / "genotype.json")
    assert genotype.averaged == "later_nodes" and len(genotype.activations) == 4
    (line,) = re.findall(r"^  python launch/ptb_train\.py (.*)$", output, re.M)
    assert f"--preset {preset}" in line
    flags = ("--epochs", 1, "--workdir", tmp_path / "train", "--no-random-windows")
    status, output, errors = run(variables, "ptb_train", *shlex.split(line), *flags)
    assert status == 0, errors
    assert "perplexity: validation text" in output


def test_own_texts_and_random_search(variables, tmp_path):
    for name, words in (("train", 99), ("valid", 40), ("test", 40)):
        text = " ".join(["a", "b", "c"] * words)
        (tmp_path / f"{name}.txt").write_text(f"{text}\n")
    own = ("--dataset", "text", "--data-dir", tmp_path)
    flags = (*own, *SIZES, "--scratch-random", 0, "--num-nodes", 3, "random")
    options = (
        *("--searcher-steps", 0, "--num-candidates", 3, "--screening-tokens", 0),
        *("--random-windows", "--weights-of", "activation"),
    )
    result = run(
        variables, "ptb_search", *flags, *options, "--workdir", tmp_path / "run"
    )
    status, output, errors = result
    assert status == 0, errors
    assert "nothing is known of its worth" in output
    assert f"--dataset text --data-dir {tmp_path}" in output
    check_report(tmp_path / "run" / "report.html")
    # The run knows its texts, wherever they are.
    (tmp_path / "test.txt").write_text("a b c\n" * 30)
    result = run(
        variables, "ptb_search", *flags, *options, "--workdir", tmp_path / "run"
    )
    assert_refused(result, "holds a run with another configuration: texts (there ")


def command(preset, num_tokens=900_000, argv=()):
    _, config = session.parse(
        ptb_search.PRESETS, None, ["--preset", preset, *map(str, argv)]
    )
    return ptb_search.training_command(preset, config, GENOTYPE, num_tokens)


def test_the_printed_command_is_the_training_presets():
    start = "python launch/ptb_train.py --preset"
    for preset in ("quick", "enas-ptb", "enas-lm-ptb", "darts-ptb"):
        assert command(preset) == f"{start} {preset} --genotype genotype.json"
    assert command("random-ptb") == f"{start} enas-ptb --genotype genotype.json"


def test_the_printed_command_takes_over_what_was_given():
    argv = ("--hidden-size", 128, "--data-dir", "a b", "--drop-states", 0.5)
    assert command("enas-ptb", argv=argv).endswith(
        " --data-dir 'a b' --hidden-size 128 --drop-states 0.5"
    )
    argv = ("--dataset", "wikitext2", "--max-norm", "9")
    assert command("darts-ptb", argv=argv).endswith(
        " --dataset wikitext2 --max-norm 9.0"
    )
    # Rows of 40 words hold windows of 35, but not those of up to 50.
    argv = ("--batch-size", 64)
    assert command("enas-ptb", 40 * 64, argv).endswith("genotype.json")
    argv = ("--batch-size", 64, "--no-random-windows")
    assert command("darts-ptb", 40 * 64, argv).endswith(f"--batch-size {40 * 64 // 51}")


CELL = genotypes.RecurrentGenotype(("tanh", "relu"), (0,))


@pytest.mark.parametrize(
    ("main", "flags", "words"),
    [
        (SEARCH_MAIN, ["--dataset", "enwik8"], "unknown text 'enwik8', expected one"),
        (SEARCH_MAIN, ["--dataset", "ptb"], "text 'ptb' needs data_dir"),
        (
            SEARCH_MAIN,
            ["--dataset", "ptb", "--data-dir", "none"],
            "none holds neither ptb.train.txt, ptb.valid.txt, ptb.test.txt nor simple-",
        ),
        (SEARCH_MAIN, ["--scratch-random", 1], "--scratch-random is 1; expected 0, or"),
        (
            SEARCH_MAIN,
            ["--batch-size", 2000, "--screening-tokens", 0],
            "training text: the text has 27729 tokens, which are 13 in each of 2000",
        ),
        (
            SEARCH_MAIN,
            ["--batch-size", 200, "--screening-tokens", 0],
            "validation text: the text has 3518 tokens, which are 17 in each of 200",
        ),
        (SEARCH_MAIN, ["--max-tokens", 1], "training text: the text has 1 tokens"),
        (SEARCH_MAIN, ["--max-tokens", 0], "--max-tokens is 0; expected at least 1"),
        (
            SEARCH_MAIN,
            ["--screening-tokens", 32],
            "--screening-tokens is 32; expected 0, or more than the 32 of --batch-size",
        ),
        (SEARCH_MAIN, ["--drop-states", 1], "dropout of states is 1.0; expected 0 or"),
        (SEARCH_MAIN, ["--max-norm", 0], "--max-norm is 0.0; expected a positive"),
        (SEARCH_MAIN, ["--decay", 0], "--decay is 0.0; expected a positive number"),
        (
            SEARCH_MAIN,
            ["--slowness-penalty", "inf"],
            "slowness_penalty is inf; expected 0 or more",
        ),
        (SEARCH_MAIN, ["--num-nodes", 0], "--num-nodes is 0; expected at least 1"),
        (SEARCH_MAIN, ["--hidden-size", 2.5], "2.5"),
        (SEARCH_MAIN, ["--devices", 3, "--batch-size", 4], "devices"),
        (SEARCH_MAIN, ["asng"], "Unrecognized options: asng"),
        (TRAIN_MAIN, [], "--genotype is missing: expected a file"),
        (
            TRAIN_MAIN,
            ["--genotype", "none"],
            "neither a file nor one of ENAS_RECURRENT",
        ),
        (
            TRAIN_MAIN,
            ["--genotype", "DARTS_V2"],
            "--genotype DARTS_V2 is a Genotype; expected a RecurrentGenotype",
        ),
        (TRAIN_MAIN, ["--genotype", "0 1 0"], "(node 1, source): 1 is not in"),
        (TRAIN_MAIN, ["--genotype", "4"], "--genotype 4 is no recurrent cell: integ"),
        (
            TRAIN_MAIN,
            ["--genotype", "0", "--validation-batch-size", 3518],
            "the validation text has 3518 tokens; expected more than 3518, the rows",
        ),
    ],
)
def test_wrong_input(monkeypatch, capsys, tmp_path, main, flags, words):
    workdir = tmp_path / "run"
    status = exit_status(monkeypatch, main, *flags, "--workdir", workdir)
    assert_refused((status, *capsys.readouterr()), words)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("sources", "activations", "words"),
    [
        ([1], ["tanh", "relu"], "node 1: source 1 is not an earlier node"),
        ([0], ["tanh", "gelu"], "gelu"),
    ],
)
def test_wrong_cells(monkeypatch, capsys, tmp_path, sources, activations, words):
    path = tmp_path / "cell.json"
    genotypes.save(path, CELL)
    content = json.loads(path.read_text())
    content |= {"sources": sources, "activations": activations}
    path.write_text(json.dumps(content))
    flags = ("--genotype", path, "--workdir", tmp_path / "run")
    status = exit_status(monkeypatch, TRAIN_MAIN, *flags)
    assert_refused((status, *capsys.readouterr()), str(path), words)


def test_an_empty_text(monkeypatch, capsys, tmp_path):
    for name, text in (("train", "a b"), ("valid", ""), ("test", "a")):
        (tmp_path / f"{name}.txt").write_text(text)
    flags = ("--dataset", "text", "--data-dir", tmp_path)
    status = exit_status(monkeypatch, SEARCH_MAIN, *flags)
    assert_refused((status, *capsys.readouterr()), "valid.txt is empty; expected a")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ENAS_RECURRENT", genotypes.named("ENAS_RECURRENT")),
        ("0 0 1", CELL),
        ("[0, 0, 1]", CELL),
    ],
)
def test_cells_by_name_and_integers(given, expected):
    assert ptb_train.find_cell(given) == expected


def test_cells_by_file(tmp_path):
    genotypes.save(tmp_path / "1", CELL)
    assert ptb_train.find_cell(str(tmp_path / "1")) == CELL


def test_texts_are_known_by_their_content(tmp_path):
    whole = data.load_text("grammar")
    first = texts.load(texts.Texts(max_tokens=7))
    assert [text.size for text in first[1:4]] == [7, 7, 7]
    assert first.vocabulary == whole.vocabulary
    assert texts.identity(first)["texts"].startswith("7 + 7 + 7 tokens, 61 words, SHA")
    changed = first._replace(test=first.test[::-1])
    assert texts.identity(changed) != texts.identity(first)


# Values of the presets, by source -----------------------------------------------------

DROP = ("drop_words", "drop_inputs", "drop_states", "drop_outputs")
DARTS_DROPS = (1 - (1 - 0.2) * (1 - 0.75), 0.25, 0.75)
SGD = {"optimizer": "sgd", "learning_rate": 20.0, "window": 35, "dataset": "ptb"}
PUBLISHED = {
    ("search", "enas-ptb"): [
        (
            "Pham et al. 2018, section 3.1; its settings in carpedm20/ENAS-pytorch",
            {
                **SGD,
                **{"space": "enas", "num_nodes": 12, "weights_of": "pair"},
                **{"epochs": 150, "batch_size": 64, "decay": 0.96, "decay_from": 15},
                **{"clip_norm": 0.25, "weight_decay": 2 * 1e-7, "hidden_size": 1000},
                **{"searcher": "reinforce", "controller": "paper"},
                **{"random_windows": False, "max_norm": 25.0},
            },
        ),
    ],
    ("search", "random-ptb"): [
        (
            "as enas-ptb",
            {**SGD, "searcher": "random", "num_nodes": 12, "hidden_size": 1000},
        ),
    ],
    ("search", "enas-lm-ptb"): [
        (
            "enas_lm, src/child.py, src/controller.py",
            {
                **SGD,
                **{"space": "darts", "num_nodes": 9, "weights_of": "activation"},
                **{"hidden_size": 200, "batch_size": 128, "epochs": 600, "decay": 1.0},
                **{"clip_norm": 0.1, "random_windows": True, "slowness_penalty": 1.0},
                **{"activation_penalty": 0.0, "searcher_steps": 25},
                **{"archs_per_step": 10, "controller": "script"},
                **dict(zip(DROP, (0.1, *DARTS_DROPS), strict=True)),
            },
        ),
    ],
    ("search", "darts-ptb"): [
        (
            "liamcli/randomNAS_release, darts_wrapper_discrete.py; 1000 candidates in "
            "random_weight_share.py; Li and Talwalkar 2019, table 3",
            {
                **SGD,
                **{"space": "darts", "num_nodes": 8, "weights_of": "node"},
                **{"hidden_size": 300, "batch_size": 256, "epochs": 50, "decay": 1.0},
                **{"clip_norm": 0.25, "weight_decay": 5e-7, "random_windows": True},
                **{"slowness_penalty": 1e-3, "searcher": "random"},
                "num_candidates": 1000,
                **dict(zip(DROP, (0.0, *DARTS_DROPS), strict=True)),
            },
        ),
    ],
    ("train", "enas-ptb"): [
        (
            "ptb_final.sh; penalties in the units of a mean loss",
            {
                **SGD,
                **{"hidden_size": 748, "batch_size": 64, "epochs": 2000},
                **{"decay": 0.9991, "decay_from": 14, "clip_norm": 0.25},
                **{"weight_decay": 2 * 5e-7, "random_windows": False},
                **{"slowness_penalty": round(1e-3 * 34 * 748 / 35, 2)},
                **{"patience": None, "drop_words": 1 - 0.79, "drop_inputs": 1 - 0.25},
                **{"drop_states": 1 - 0.75, "drop_outputs": 1 - 0.24},
            },
        ),
    ],
    ("train", "enas-lm-ptb"): [
        (
            "enas_lm, src/fixed.py, src/fixed_lib.py",
            {
                **SGD,
                **{"hidden_size": 800, "batch_size": 64, "epochs": 3000, "decay": 1.0},
                **{"clip_norm": 0.25, "random_windows": True, "patience": 10},
                **{"activation_penalty": 0.7, "slowness_penalty": 0.0},
                **{"weight_decay": 2 * 8e-7, "drop_words": 0.125},
                **{"drop_inputs": 1 - (1 - 0.175) * (1 - 0.725)},
                **{"drop_states": 0.225, "drop_outputs": 0.75},
            },
        ),
    ],
    ("train", "darts-ptb"): [
        (
            "quark0/darts, rnn/train.py; randomNAS_release for words and epochs",
            {
                **SGD,
                **{"hidden_size": 850, "batch_size": 64, "epochs": 3600, "decay": 1.0},
                **{"clip_norm": 0.25, "weight_decay": 8e-7, "random_windows": True},
                **{"slowness_penalty": 1e-3, "activation_penalty": 0.0, "patience": 5},
                **dict(zip(DROP, (0.1, *DARTS_DROPS), strict=True)),
            },
        ),
    ],
}
PRESETS = {"search": ptb_search.PRESETS, "train": ptb_train.PRESETS}


def test_every_published_preset_has_a_row():
    names = {(c, n) for c, presets in PRESETS.items() for n in presets if n != "quick"}
    assert set(PUBLISHED) == names


@pytest.mark.parametrize(("which", "preset"), PUBLISHED)
def test_values_are_those_of_their_source(which, preset):
    config = session.flags(PRESETS[which][preset].config)
    for source, values in PUBLISHED[which, preset]:
        assert {name: config[name] for name in values} == pytest.approx(values), source
    assert "Not run to its end" in " ".join(PRESETS[which][preset].about.split())


def test_the_paper_has_2000_cells_for_the_controller_in_an_epoch():
    config = ptb_search.PRESETS["enas-ptb"].config
    assert config.searcher_steps * config.archs_per_step == 2000
