"""Which networks the training command makes, and what it refuses."""

import json

import cifar_train
import commands
import jax
import numpy as np
import optimizers
import pytest
import session
from commands import assert_refused
from PIL import Image
from presets.cifar_train import PRESETS

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
    with jax.numpy_dtype_promotion("standard"):
        return commands.exit_status(monkeypatch, cifar_train.main, *flags)


def configured(preset, *flags):
    """The settings of a preset and some flags."""
    return session.parse(PRESETS, None, ["--preset", preset, *map(str, flags)])[1]


def test_the_stem_may_halve_images():
    config = configured("quick", "--stem-stride", 2, "--channels", 4)
    assert make(config, CELLS).stem_stride == 2


# The numbers of parameters that the docstrings of the presets tell.
@pytest.mark.parametrize(
    ("preset", "genotype", "flags", "expected"),
    [
        ("enas-micro-cifar10", "ENAS_MICRO", [], 4_389_220),
        ("enas-micro-cifar10", "ENAS_MICRO", ["--no-auxiliary"], 3_894_372),
        ("enas-macro-cifar10", "ENAS_MACRO", [], 30_947_424),
        ("enas-macro-cifar10", "ENAS_MACRO", ["--no-separable"], 42_559_392),
    ],
)
def test_networks_of_enas(preset, genotype, flags, expected):
    config = configured(preset, *flags)
    genotype = genotypes.named(genotype)
    cifar_train.check_network(config, genotype)
    network = make(config, genotype)
    assert networks.count_params(network, (32, 32, 3)) == expected
    if isinstance(network, networks.MicroNetwork):
        assert (network.skeleton, network.dropout) == ("enas", 0.2)
        assert network.auxiliary == (not flags)
    else:
        assert network.dropout == 0.5


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
    flags = ("--params-limit", limit, "--channels")
    config = configured(preset, *flags, "None")
    cifar_train.check_network(config, genotype)
    network = make(config, genotype)
    wider = make(configured(preset, *flags, network.channels + 1), genotype)
    sizes = [networks.cost(n, (32, 32, 3)).num_params for n in (network, wider)]
    assert sizes[0] <= limit < sizes[1]


def test_network_of_ghn():
    config = configured("ghn-cifar10")
    genotype = genotypes.named("GHN")
    cifar_train.check_network(config, genotype)
    network = make(config, genotype)
    assert isinstance(network, networks.DagNetwork)
    assert (network.channels, network.num_blocks, network.skeleton) == (32, 18, "cifar")
    # As the docstring of the preset tells.
    count = networks.count_params(network, (32, 32, 3))
    assert f"{count / 1e6:.2f} M" in PRESETS["ghn-cifar10"].about


def test_networks_are_as_wide_as_the_operations_allow():
    limit = 600_000
    flags = ("dag-imagenet", "--num-cells", 4, "--no-auxiliary", "--flops-limit", limit)
    config = configured("ghn-cifar10", *flags, "--channels", "None")
    cifar_train.check_network(config, BLOCK)
    network = make(config, BLOCK)
    assert network.skeleton == "imagenet"
    channels = "--channels", network.channels + 1
    wider = make(configured("ghn-cifar10", *flags, *channels), BLOCK)
    flops = [networks.cost(n, (32, 32, 3)).flops for n in (network, wider)]
    assert flops[0] <= limit < flops[1]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], [0.8, 0.8, 0.682843, 0.682843, 0.4, 0.4, 0.117157, 0.117157]),
        (["--warmup-epochs", 2], [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4]),
        (
            ["exponential", "--decay", 0.5, "--warmup-epochs", 1],
            [0.4, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2],
        ),
        (
            ["restarts", "--by-epoch", "--min-learning-rate", 0],
            [0.8, 0.8, 0.780423, 0.780423, 0.723607, 0.723607, 0.635114, 0.635114],
        ),
        (
            ["steps", "--decay", 0.5, "--decay-at", 1, 3],
            [0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2],
        ),
    ],
)
def test_learning_rates(flags, expected):
    plain = ("--momentum", 0, "--weight-decay", 0)
    config = configured(
        *("ghn-cifar10", "--epochs", 4, "--learning-rate", 0.8, *plain, *flags)
    )
    optimizer = optimizers.make_optimizer(config.training, 2)
    weight, gradient = np.zeros(1, np.float32), np.ones(1, np.float32)
    state, rates = optimizer.init(weight), []
    for _ in range(8):
        update, state = optimizer.update(gradient, state, weight)
        rates.extend(-np.asarray(update))
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_no_limit_of_the_gradient(optimizer):
    config = configured("quick", optimizer, "--clip-norm", 0, "--weight-decay", 0)
    chain = optimizers.make_optimizer(config.training, 2)
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
        flags = session.flags(PRESETS[preset].config)
        assert flags["epochs"] == 10 * (2**num_periods - 1)
        assert (flags["learning_rate"], flags["min_learning_rate"]) == (0.05, 0.001)
        assert (flags["weight_decay"], flags["optimizer"]) == (2e-4, "nesterov")
    network = PRESETS["enas-micro-cifar10"].config.network
    assert network.drop_path == pytest.approx(1 - 0.6)
    assert network.drop_path_growth == "step"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--genotype", "ENAS_RECURRENT"],
            "ENAS_RECURRENT is a RecurrentGenotype; expected two cells, a macro",
        ),
        (
            ["--genotype", "ENAS_MACRO"],
            "ENAS_MACRO is a MacroGenotype, but the network is nasnet; expected macro",
        ),
        (
            ["--genotype", "ENAS", "--preset", "quick-enas-macro"],
            "ENAS is a Genotype, but the network is macro; expected nasnet or enas",
        ),
        (
            ["--genotype", "ENAS_MACRO", "macro", "--num-cells", 5],
            "Unrecognized or misplaced options: --num-cells",
        ),
        (
            ["--genotype", "ENAS_MACRO", "--preset", "quick-enas-macro", "--auxiliary"],
            "--auxiliary",
        ),
        (
            ["--genotype", "ENAS", "--preset", "quick-enas", "--no-separable"],
            "--no-separable",
        ),
        (
            ["--genotype", "ENAS", "enas"],
            "cell_output is 'projection'; expected 'concat' with skeleton 'enas'",
        ),
        (
            ["--genotype", "GHN"],
            "GHN is a DagGenotype, but the network is nasnet; expected dag or dag-im",
        ),
        (
            ["--genotype", "ENAS", "--preset", "quick-ghn"],
            "ENAS is a Genotype, but the network is dag; expected nasnet or enas",
        ),
        (
            ["--genotype", "GHN", "--preset", "quick-ghn", "--cell-output", "concat"],
            "Unrecognized or misplaced options: --cell-output",
        ),
        (
            ["--genotype", "GHN", "--preset", "quick-ghn", "--num-cells", 2],
            "num_blocks is 2; 2 reductions need at least 3",
        ),
        (
            ["--genotype", "ENAS", "nasnet", "--flops-limit", 9],
            "flops_limit is 9; with a single channel the network already has",
        ),
        (
            ["--genotype", "ENAS", "--decay", 0.9],
            "Unrecognized or misplaced options: --decay",
        ),
        (
            ["--genotype", "ENAS", "exponential", "--decay", 0],
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
def test_wrong_input(monkeypatch, capsys, tmp_path, flags, words):
    workdir = tmp_path / "run"
    status = exit_status(monkeypatch, *flags, "--workdir", workdir)
    assert_refused((status, *capsys.readouterr()), words)
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
        session.choice_name(PRESETS[preset].config.network),
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
    flags = ("--genotype", "GHN", "--preset", "quick-ghn", "dag-imagenet")
    assert exit_status(monkeypatch, *flags, "--channels", "None") == 2
    words = "network dag-imagenet needs --channels or --flops-limit to tell its width"
    assert words in capsys.readouterr().err
