"""Which networks the training command makes, and what it refuses."""

import dataclasses
import json

import cifar_train
import command_line
import jax
import pytest
from presets import cifar_train as presets

from jaxnas import genotypes, metrics, networks
from jaxnas.genotypes import Genotype, MacroGenotype

CELLS = Genotype(
    normal=(("skip_connect", 1), ("skip_connect", 0)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("skip_connect", 1)),
    reduce_concat=(2,),
)
MACRO = MacroGenotype(("avg_pool_3x3",) * 3, ((), (0,), ()))


def make(config, genotype, num_classes=10):
    return cifar_train.make_network(
        config, genotype, num_classes, image_channels=3, batch_axis=None
    )


def exit_status(monkeypatch, *flags):
    """How the command would leave its process, which has JAX's own defaults."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr("sys.argv", ["cifar_train", *map(str, flags)])
    with jax.numpy_dtype_promotion("standard"), pytest.raises(SystemExit) as exit_:
        command_line.run(cifar_train.main)
    return exit_.value.code


# The numbers of parameters that the docstrings of the presets tell.
@pytest.mark.parametrize(
    ("preset", "genotype", "changes", "expected"),
    [
        ("enas-micro-cifar10", "ENAS_MICRO", {}, 4_389_220),
        ("enas-micro-cifar10", "ENAS_MICRO", {"auxiliary": False}, 3_894_372),
        ("enas-macro-cifar10", "ENAS_MACRO", {}, 30_947_424),
        ("enas-macro-cifar10", "ENAS_MACRO", {"separable": False}, 42_559_392),
    ],
)
def test_networks_of_enas(preset, genotype, changes, expected):
    config = dataclasses.replace(presets.PRESETS[preset](), **changes)
    genotype = genotypes.named(genotype)
    cifar_train.check_flags(config, genotype)
    network = make(config, genotype)
    count = networks.count_params(
        genotype,
        network.channels,
        config.num_cells,
        auxiliary=config.auxiliary,
        skeleton="enas",
        separable=config.separable,
    )
    assert count == expected
    assert network.dropout == {"enas": 0.2, "macro": 0.5}[config.network]
    if isinstance(network, networks.MicroNetwork):
        assert (network.skeleton, network.auxiliary) == ("enas", config.auxiliary)


@pytest.mark.parametrize(
    ("preset", "genotype"),
    [("quick", CELLS), ("quick-enas", CELLS), ("quick-enas-macro", MACRO)],
)
def test_networks_are_as_wide_as_the_limit_allows(preset, genotype):
    limit = 3_000
    config = dataclasses.replace(presets.PRESETS[preset](), params_limit=limit)
    cifar_train.check_flags(config, genotype)
    network = make(config, genotype)
    wider = make(dataclasses.replace(config, channels=network.channels + 1), genotype)
    sizes = [networks.cost(n, (32, 32, 3)).num_params for n in (network, wider)]
    assert sizes[0] <= limit < sizes[1]


def test_schedules_of_enas():
    # The periods end with the training, at the lowest rate: 10 + 20 + 40 + ... epochs.
    for preset, num_periods in [("enas-micro-cifar10", 6), ("enas-macro-cifar10", 5)]:
        config = presets.PRESETS[preset]()
        assert config.epochs == 10 * (2**num_periods - 1)
        assert (config.learning_rate, config.min_learning_rate) == (0.05, 0.001)
        assert (config.weight_decay, config.optimizer) == (1e-4, "nesterov")
    assert presets.enas_micro_cifar10().drop_path == pytest.approx(1 - 0.6)
    assert presets.enas_micro_cifar10().drop_path_growth == "step"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--genotype", "ENAS_RECURRENT"],
            "ENAS_RECURRENT is a RecurrentGenotype; expected two cells or a macro",
        ),
        (
            ["--genotype", "ENAS_MACRO"],
            "ENAS_MACRO is a macro genotype, but --network is nasnet; expected macro",
        ),
        (
            ["--genotype", "ENAS", "--preset", "quick-enas-macro"],
            "ENAS has two cells, but --network is macro; expected nasnet or enas",
        ),
        (
            ["--genotype", "ENAS_MACRO", "--network", "macro"],
            "the setting num_cells 5, drop_path 0.2 has no effect with --network macro",
        ),
        (
            ["--genotype", "ENAS_MACRO", "--preset", "quick-enas-macro", "--auxiliary"],
            "the setting auxiliary True has no effect with --network macro",
        ),
        (
            ["--genotype", "ENAS", "--preset", "quick-enas", "--no-separable"],
            "the setting separable False has no effect with --network enas",
        ),
        (
            ["--genotype", "ENAS", "--network", "enas"],
            "cell_output is 'projection'; expected 'concat' with skeleton 'enas'",
        ),
        (["--genotype", "ENAS", "--drop-path", 1], "--drop-path is 1.0; expected less"),
        (["--genotype", "ENAS", "--dropout", 1], "dropout is 1.0; expected 0 or more"),
        (
            ["--genotype", "ENAS", "--batch-size", 1501],
            "--batch-size is 1501, but there are only 1500 images",
        ),
    ],
)
def test_wrong_input_is_one_line(monkeypatch, capsys, tmp_path, flags, words):
    workdir = tmp_path / "run"
    assert exit_status(monkeypatch, *flags, "--workdir", workdir) == 2
    output, errors = capsys.readouterr()
    assert not output and errors.startswith("error: ") and errors.count("\n") == 1
    assert words in errors
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("preset", "genotype", "flags"),
    [
        ("quick-enas", CELLS, ("--num-cells", 3)),
        ("quick-enas-macro", MACRO, ()),
    ],
)
def test_a_run_of_each_kind(monkeypatch, capsys, tmp_path, preset, genotype, flags):
    path, workdir = tmp_path / "found.json", tmp_path / "run"
    genotypes.save(path, genotype)
    status = exit_status(
        monkeypatch,
        *("--preset", preset, "--genotype", path, "--workdir", workdir, *flags),
        *("--channels", 2, "--epochs", 1, "--max-images", 100),
    )
    output, errors = capsys.readouterr()
    assert status == 0, errors
    assert genotypes.load(workdir / "genotype.json") == genotype
    config = json.loads((workdir / "config.json").read_text())["config"]
    assert (config["channels"], config["network"]) == (2, preset.split("-")[-1])
    assert [entry["epoch"] for entry in metrics.read(workdir / "metrics.jsonl")] == [
        0,
        1,
    ]
    assert "after the last of 1 epochs" in output
    assert (workdir / "report.html").read_text().count("<svg") >= 2
