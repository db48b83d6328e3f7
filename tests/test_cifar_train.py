"""Which networks the training command makes, and what it refuses."""

import dataclasses
import json

import cifar_train
import command_line
import jax
import numpy as np
import optimizers
import pytest
from PIL import Image
from presets import cifar_train as presets

from jaxnas import genotypes, metrics, networks
from jaxnas.genotypes import DagGenotype, Genotype, MacroGenotype

CELLS = Genotype(
    normal=(("skip_connect", 1), ("skip_connect", 0)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("skip_connect", 1)),
    reduce_concat=(2,),
)
MACRO = MacroGenotype(("avg_pool_3x3",) * 3, ((), (0,), ()))
BLOCK = DagGenotype(("conv_1x1", "max_pool_3x3"), ((0,), (0, 1)))


def make(config, genotype, num_classes=10):
    return cifar_train.make_network(
        config, genotype, num_classes, image_shape=(32, 32, 3), batch_axis=None
    )


def exit_status(monkeypatch, *flags):
    """How the command would leave its process, which has JAX's own defaults."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr("sys.argv", ["cifar_train", *map(str, flags)])
    with jax.numpy_dtype_promotion("standard"), pytest.raises(SystemExit) as exit_:
        command_line.run(cifar_train.main)
    return exit_.value.code


def test_the_stem_may_halve_images():
    config = dataclasses.replace(presets.quick(), stem_stride=2, channels=4)
    assert make(config, CELLS).stem_stride == 2
    with pytest.raises(ValueError, match="stem_stride 2 has no effect"):
        macro = presets.enas_macro_cifar10()
        cifar_train.check_flags(dataclasses.replace(macro, stem_stride=2), MACRO)


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
    count = networks.count_params(network, (32, 32, 3))
    assert count == expected
    assert network.dropout == {"enas": 0.2, "macro": 0.5}[config.network]
    if isinstance(network, networks.MicroNetwork):
        assert (network.skeleton, network.auxiliary) == ("enas", config.auxiliary)


@pytest.mark.parametrize(
    ("preset", "genotype"),
    [
        ("quick", CELLS),
        ("quick-enas", CELLS),
        ("quick-enas-macro", MACRO),
        ("quick-ghn", BLOCK),
    ],
)
def test_networks_are_as_wide_as_the_limit_allows(preset, genotype):
    limit = 3_000
    config = dataclasses.replace(
        presets.PRESETS[preset](), params_limit=limit, channels=None
    )
    cifar_train.check_flags(config, genotype)
    network = make(config, genotype)
    wider = make(dataclasses.replace(config, channels=network.channels + 1), genotype)
    sizes = [networks.cost(n, (32, 32, 3)).num_params for n in (network, wider)]
    assert sizes[0] <= limit < sizes[1]


def test_network_of_ghn():
    config = presets.ghn_cifar10()
    genotype = genotypes.named("GHN")
    cifar_train.check_flags(config, genotype)
    network = make(config, genotype)
    assert isinstance(network, networks.DagNetwork)
    assert (network.channels, network.num_blocks, network.skeleton) == (32, 18, "cifar")
    # As the docstring of the preset tells.
    count = networks.count_params(network, (32, 32, 3))
    assert f"{count / 1e6:.2f} M" in str(presets.ghn_cifar10.__doc__)


def test_networks_are_as_wide_as_the_operations_allow():
    limit = 600_000
    config = dataclasses.replace(
        presets.ghn_cifar10(),
        network="dag-imagenet",
        channels=None,
        num_cells=4,
        auxiliary=False,
        flops_limit=limit,
    )
    cifar_train.check_flags(config, BLOCK)
    network = make(config, BLOCK)
    assert network.skeleton == "imagenet"
    wider = make(dataclasses.replace(config, channels=network.channels + 1), BLOCK)
    flops = [networks.cost(n, (32, 32, 3)).flops for n in (network, wider)]
    assert flops[0] <= limit < flops[1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.8, 0.8, 0.682843, 0.682843, 0.4, 0.4, 0.117157, 0.117157]),
        ({"warmup_epochs": 2}, [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4]),
        (
            {"schedule": "exponential", "decay": 0.5, "warmup_epochs": 1},
            [0.4, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2],
        ),
        (
            {"schedule": "restarts-by-epoch", "min_learning_rate": 0.0},
            [0.8, 0.8, 0.780423, 0.780423, 0.723607, 0.723607, 0.635114, 0.635114],
        ),
        (
            {"schedule": "steps", "decay": 0.5, "decay_at": "1,3"},
            [0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2],
        ),
    ],
)
def test_learning_rates(changes, expected):
    config = dataclasses.replace(
        presets.ghn_cifar10(),
        epochs=4,
        learning_rate=0.8,
        momentum=0.0,
        weight_decay=0.0,
        **changes,
    )
    cifar_train.check_flags(config, BLOCK)
    optimizer = optimizers.make_optimizer(config, 2)
    weight, gradient = np.zeros(1, np.float32), np.ones(1, np.float32)
    state, rates = optimizer.init(weight), []
    for _ in range(8):
        update, state = optimizer.update(gradient, state, weight)
        rates.extend(-np.asarray(update))
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_no_limit_of_the_gradient(optimizer):
    config = dataclasses.replace(
        presets.quick(), clip_norm=0.0, optimizer=optimizer, weight_decay=0.0
    )
    chain = optimizers.make_optimizer(config, 2)
    weight = np.zeros(1, np.float32)
    small, large = (
        np.asarray(
            chain.update(np.full(1, g, np.float32), chain.init(weight), weight)[0]
        )
        for g in (1.0, 100.0)
    )
    np.testing.assert_allclose(large, 100 * small, rtol=1e-6)


def test_schedules_of_enas():
    # The periods end with the training, at the lowest rate: 10 + 20 + 40 + ... epochs.
    for preset, num_periods in [("enas-micro-cifar10", 6), ("enas-macro-cifar10", 5)]:
        config = presets.PRESETS[preset]()
        assert config.epochs == 10 * (2**num_periods - 1)
        assert (config.learning_rate, config.min_learning_rate) == (0.05, 0.001)
        assert (config.weight_decay, config.optimizer) == (2e-4, "nesterov")
    assert presets.enas_micro_cifar10().drop_path == pytest.approx(1 - 0.6)
    assert presets.enas_micro_cifar10().drop_path_growth == "step"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--genotype", "ENAS_RECURRENT"],
            "ENAS_RECURRENT is a RecurrentGenotype; expected two cells, a macro",
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
        (
            ["--genotype", "GHN"],
            "GHN is a block, but --network is nasnet; expected dag or dag-imagenet",
        ),
        (
            ["--genotype", "ENAS", "--preset", "quick-ghn"],
            "ENAS has two cells, but --network is dag; expected nasnet or enas",
        ),
        (
            ["--genotype", "GHN", "--preset", "quick-ghn", "--cell-output", "concat"],
            "the setting cell_output concat has no effect with --network dag",
        ),
        (
            ["--genotype", "GHN", "--preset", "quick-ghn", "--num-cells", 2],
            "num_blocks is 2; 2 reductions need at least 3",
        ),
        (
            ["--genotype", "ENAS", "--network", "nasnet", "--flops-limit", 9],
            "flops_limit is 9; with a single channel the network already has",
        ),
        (
            ["--genotype", "ENAS", "--decay", 0.9],
            "--decay is 0.9, but --schedule is cosine; expected exponential",
        ),
        (
            ["--genotype", "ENAS", "--schedule", "exponential", "--decay", 0],
            "--decay is 0.0; expected a positive number",
        ),
        (
            ["--genotype", "ENAS", "--warmup-epochs", 100],
            "--warmup-epochs is 100; expected less than the 100 of --epochs",
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
        ("quick-ghn", BLOCK, ()),
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
    assert (config["channels"], config["network"]) == (
        2,
        presets.PRESETS[preset]().network,
    )
    assert [entry["epoch"] for entry in metrics.read(workdir / "metrics.jsonl")] == [
        0,
        1,
    ]
    assert "after the last of 1 epochs" in output
    assert (workdir / "report.html").read_text().count("<svg") >= 2


def write_images(root):
    for index in range(12):
        split, name = ("train", "val")[index % 3 == 2], ("ant", "bee")[index % 2]
        path = root / split / name / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), (20 * index, 0, 0)).save(path)


def test_a_run_on_images_that_are_read_while_training(monkeypatch, capsys, tmp_path):
    genotypes.save(tmp_path / "found.json", BLOCK)
    write_images(tmp_path / "data")
    flags = (
        *("--preset", "ghn-imagenet", "--genotype", tmp_path / "found.json"),
        *("--data-dir", tmp_path / "data", "--workdir", tmp_path / "run"),
        *("--image-size", 16, "--channels", 2, "--num-cells", 4, "--no-auxiliary"),
        *("--batch-size", 4, "--epochs", 1),
    )
    image = tmp_path / "data" / "val" / "bee" / "5.jpg"
    contents = image.read_bytes()
    image.write_bytes(b"")
    assert exit_status(monkeypatch, *flags) == 2
    assert capsys.readouterr().err.startswith(f"error: {image} cannot be read: ")
    image.write_bytes(contents)
    status = exit_status(monkeypatch, *flags)
    output, errors = capsys.readouterr()
    assert status == 0, errors
    assert "train and val, cut to 16x16 while they are read" in output
    assert "after the last of 1 epochs" in output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--dataset imagenet needs --data-dir, a folder with train/CLASS"),
        (("--data-dir", "no/such"), "no/such holds neither images in train/CLASS"),
        (("--max-images", 9, "--data-dir", "x"), "--max-images is 9, which has no eff"),
    ],
)
def test_wrong_input_for_imagenet(monkeypatch, capsys, flags, words):
    flags = ("--preset", "ghn-imagenet", "--genotype", "GHN", *flags)
    assert exit_status(monkeypatch, *flags) == 2
    assert words in capsys.readouterr().err


def test_a_network_for_large_images_needs_its_width(monkeypatch, capsys):
    flags = ("--genotype", "GHN", "--preset", "quick-ghn", "--network", "dag-imagenet")
    with monkeypatch.context() as patch:
        patch.setitem(
            presets.PRESETS,
            "quick-ghn",
            lambda: dataclasses.replace(presets.quick_ghn(), channels=None),
        )
        assert exit_status(patch, *flags) == 2
    words = "--network dag-imagenet needs --channels or --flops-limit to tell its width"
    assert words in capsys.readouterr().err
