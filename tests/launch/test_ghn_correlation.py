"""The correlation study as a command, with a perceptron in place of its networks."""

import json
import signal

import ghn_correlation
import hypernetworks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import session
from commands import assert_refused, exit_status
from helpers import visible
from pages import check_report
from presets.ghn_correlation import PRESETS

from jaxnas import analysis, data, metrics, spaces, studies, train, weights
from jaxnas.studies import rank_correlation
from jaxnas.types import Supernet

FLAGS = (
    *("--num-nodes", 4, "--num-train-nodes", 3, "--num-architectures", 8),
    *("--max-images", 250, "--validation-images", 50, "--batch-size", 50),
    *("--standalone-epochs", 3, "--sgd-steps", 2, 5, 12, "--num-resamples", 20),
    *("--epochs", 2, "--one-shot-epochs", 2, "--halved-at", 1),
    *("--standalone-seeds", 2, "--ghn-seeds", 2),
)


def perceptron(num_nodes: int) -> Supernet:
    """One layer, whose inputs are the noisier, the higher the operation of node 2."""

    def init(key):
        return 0.1 * jax.random.normal(key, (64, 10), jnp.float32)

    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        del train, key, batch_axis
        x = inputs.reshape(inputs.shape[0], -1)
        noise = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
        return (x + 0.5 * arch[0].astype(x.dtype) * noise) @ weights

    return Supernet(spaces.ghn_dag(num_nodes), init, apply)


@pytest.fixture
def stand_ins(monkeypatch):
    """Networks that compile in no time; the numbers of nodes they were made for."""
    made = []

    def make_supernet(config, num_nodes, dataset):
        del config, dataset
        made.append(num_nodes)
        return perceptron(num_nodes)

    monkeypatch.setattr(ghn_correlation, "make_supernet", make_supernet)
    monkeypatch.setattr(
        hypernetworks, "make_hypernetwork", lambda config, net: weights.shared(net)
    )
    monkeypatch.setattr(
        hypernetworks,
        "make_block_metrics",
        lambda net, provider, space: lambda params: {"blocks/min_difference": 0.5},
    )
    # Adam mixes types; the command itself does not run under strict promotion.
    with jax.numpy_dtype_promotion("standard"):
        yield made


def run(monkeypatch, capsys, workdir, *flags):
    status = exit_status(
        monkeypatch, ghn_correlation.main, *FLAGS, "--workdir", workdir, *flags
    )
    return status, *capsys.readouterr()


PARTS = {"all": False, "top_half": True}


def assert_coefficients(found, expected):
    """Those of scores.json are those of `analysis`, with `None` for NaN."""
    for name, correlation in expected.items():
        values = {k: np.nan if v is None else v for k, v in found[name].items()}
        assert values == pytest.approx(correlation._asdict(), nan_ok=True)


def without_seconds(line):
    return {name: value for name, value in line.items() if "seconds" not in name}


def test_a_study_and_how_it_goes_on(monkeypatch, capsys, tmp_path, stand_ins):
    workdir = tmp_path / "run"
    status, output, errors = run(monkeypatch, capsys, workdir)
    assert (status, errors) == (0, "")
    assert stand_ins == [4, 3]  # scored, and trained with
    assert visible(workdir) == {
        *("config.json", "scores.json", "report.html", "standalone", "one-shot", "ghn"),
    }
    check_report(workdir / "report.html")
    for name, logged in ("ghn", [0.5] * 3), ("one-shot", [None] * 3):
        log = metrics.read(workdir / name / "seed-0" / "metrics.jsonl")
        assert [line.get("blocks/min_difference") for line in log] == logged
    page = (workdir / "report.html").read_text()
    results = json.loads((workdir / "scores.json").read_text())
    names = ["SGD, 2 steps", "SGD, 5 steps", "SGD, all 12 steps", "One-shot", "GHN"]
    assert list(results["predictors"]) == names
    standalone = results["standalone"]
    accuracies = np.array(standalone["test_accuracy_by_seed"])
    assert accuracies.shape == (2, 8) and standalone["num_diverged"] == 0
    np.testing.assert_allclose(standalone["test_accuracy"], accuracies.mean(0))
    assert standalone["mean"] == pytest.approx(accuracies.mean())
    scores = {
        name: np.array(predictor["validation_accuracy_by_seed"])
        for name, predictor in results["predictors"].items()
    }
    for name, predictor in results["predictors"].items():
        assert name in output and name in page
        assert scores[name].shape == (2 if name == "GHN" else 1, 8)
        for part, only_top_half in PARTS.items():
            assert_coefficients(
                predictor[part],
                analysis.correlations(
                    scores[name],
                    standalone["test_accuracy"],
                    only_top_half=only_top_half,
                    num_resamples=20,
                ),
            )
        prepared = predictor["preparation_seconds"] is not None
        assert prepared == (name in ("One-shot", "GHN"))
        assert (predictor["weights_seconds"] is None) == (name == "One-shot")
    # The noise tells architectures apart.
    assert results["predictors"]["SGD, all 12 steps"]["all"]["spearman"]["value"] > 0.5
    # Every training has randomness of its own.
    assert all((runs[0] != runs[1]).any() for runs in (accuracies, scores["GHN"]))
    for part, only_top_half in PARTS.items():
        assert_coefficients(
            results["noise_ceiling"][part],
            analysis.noise_ceiling(
                accuracies, only_top_half=only_top_half, num_resamples=20
            ),
        )
        assert_coefficients(
            results["differences"]["GHN minus One-shot"][part],
            analysis.correlation_differences(
                scores["GHN"],
                scores["One-shot"],
                standalone["test_accuracy"],
                only_top_half=only_top_half,
                num_resamples=20,
            ),
        )
    assert len(results["differences"]) == 10  # of five predictors
    for text in (output, page):
        assert "Noise ceiling" in text and "GHN minus SGD, 2 steps" in text
        assert "One-shot minus SGD" not in text

    # What is there is not measured again; what was lost is, with the same result.
    log = workdir / "standalone" / "standalone-1.jsonl"
    before = metrics.read(log)
    log.write_bytes(b"\n".join(log.read_bytes().split(b"\n")[:7])[:-9])
    status, output, errors = run(monkeypatch, capsys, workdir, "--predictors", "sgd")
    assert (status, errors) == (0, "")
    assert output.count("trained, test accuracy") == 2  # of 8, with a half-written one
    after = metrics.read(log)
    assert after[:6] == before[:6]
    assert list(map(without_seconds, after)) == list(map(without_seconds, before))
    results = json.loads((workdir / "scores.json").read_text())
    assert list(results["predictors"]) == names[:3]

    # Studies of hypernetworks share the accuracies; the first architectures stay.
    other = (
        "--standalone-dir",
        workdir / "standalone",
        "--num-steps",
        2,
        "--predictors",
        "sgd",
    )
    status, output, errors = run(
        monkeypatch, capsys, tmp_path / "other", *other, "--num-architectures", 9
    )
    assert (status, errors) == (0, "")
    assert output.count("trained, test accuracy") == 2  # one with two seeds
    longer = json.loads((tmp_path / "other" / "scores.json").read_text())
    assert longer["architectures"][:8] == results["architectures"]
    assert longer["standalone"]["test_accuracy"][:8] == standalone["test_accuracy"]
    result = run(monkeypatch, capsys, tmp_path / "third", *other, "--momentum", 0.5)
    assert_refused(
        result, "standalone holds a run with another configuration: momentum"
    )

    log.write_text(log.read_text().replace('"arch"', '"architecture"'))
    status, _, errors = run(monkeypatch, capsys, workdir)
    assert status == 2 and "standalone-1.jsonl, line 1: has no architecture" in errors


@pytest.mark.usefixtures("stand_ins")
def test_results_belong_to_architectures(monkeypatch, capsys, tmp_path):
    """A study of the same architectures in another order has the same results."""
    flags = ("--standalone-seeds", 1, "--predictors", "sgd", "--sgd-steps", 2)
    results = []
    sample = studies.sample_distinct
    for order in (1, -1):
        monkeypatch.setattr(
            studies, "sample_distinct", lambda *args, o=order: sample(*args)[::o]
        )
        workdir = tmp_path / str(order)
        status, output, errors = run(monkeypatch, capsys, workdir, *flags)
        assert (status, errors) == (0, "")
        found = json.loads((workdir / "scores.json").read_text())
        results.append(found)
        assert found["noise_ceiling"] is None
        assert "There is no noise ceiling" in " ".join(output.split())
        assert "Noise ceiling:" not in output
        # Weights on the way are gone.
        assert visible(workdir / "standalone") == {
            *("config.json", "standalone-0.jsonl", "sgd-2.jsonl")
        }
    first, second = results
    assert first["architectures"] == second["architectures"][::-1]
    assert (
        first["standalone"]["test_accuracy"]
        == second["standalone"]["test_accuracy"][::-1]
    )
    (first,), (second,) = (
        found["predictors"]["SGD, 2 steps"]["validation_accuracy_by_seed"]
        for found in results
    )
    assert first == second[::-1]


@pytest.mark.usefixtures("stand_ins")
def test_scores_of_sgd_do_not_come_from_it(monkeypatch, capsys, tmp_path):
    """The whole training of SGD ends elsewhere than the one it is compared with."""
    evaluated = []
    make_eval_fn = train.make_eval_fn

    def recording(*args, **options):
        evaluate = make_eval_fn(*args, **options)

        def record(weights, arch, split):
            evaluated.append((arch.tobytes(), np.asarray(weights)))
            return evaluate(weights, arch, split)

        return record

    monkeypatch.setattr(train, "make_eval_fn", recording)
    flags = ("--predictors", "sgd", "--sgd-steps", 12)
    status, _, errors = run(monkeypatch, capsys, tmp_path / "run", *flags)
    assert (status, errors) == (0, "")
    for arch in {arch for arch, _ in evaluated}:
        of_arch = [weights for a, weights in evaluated if a == arch]
        distinct = {weights.tobytes() for weights in of_arch}
        assert len(distinct) == 3  # two seeds alone, one training of SGD


@pytest.mark.usefixtures("stand_ins")
def test_an_interrupted_training_continues(monkeypatch, capsys, tmp_path):
    flags = ("--standalone-seeds", 1, "--predictors", "sgd", "--sgd-steps", 2)
    status, _, errors = run(monkeypatch, capsys, tmp_path / "whole", *flags)
    assert (status, errors) == (0, "")
    whole = json.loads((tmp_path / "whole" / "scores.json").read_text())

    update, steps = metrics.Progress.update, []

    def interrupt(self, step, **options):
        update(self, step, **options)
        steps.append(step)
        if steps == [1, 4]:  # the first of three epochs is over
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(metrics.Progress, "update", interrupt)
    workdir = tmp_path / "parts"
    status, _, errors = run(monkeypatch, capsys, workdir, *flags)
    assert status == 130 and "run the same command again" in errors
    (folder,) = (workdir / "standalone").glob("training-*")
    assert (folder / "checkpoints").is_dir()
    status, _, errors = run(monkeypatch, capsys, workdir, *flags)
    assert (status, errors) == (0, "")
    assert steps[2] > 4  # goes on within the training
    parts = json.loads((workdir / "scores.json").read_text())
    assert parts["standalone"] == whole["standalone"]


def test_what_is_not_finite_is_the_worst():
    lines = [{"loss": x, "accuracy": x} for x in (0.5, float("nan"), float("inf"))]
    found = rank_correlation._accuracies([lines], "accuracy")
    assert found.tolist() == [[0.5, 0.0, 0.0]]
    assert rank_correlation._count_diverged([lines, lines], "loss") == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--predictors", "sgd", "smash"], "invalid choice 'smash' for argument"),
        (
            ["--predictors", "ghn", "ghn"],
            "--predictors is 'ghn ghn'; expected one or more",
        ),
        (["--predictors"], "--predictors is ''"),
        (["--num-architectures", 7], "--num-architectures is 7; expected at least 8"),
        (
            ["--num-nodes", 3, "--num-architectures", 28],
            "--num-architectures is 28, but the space has only 27",
        ),
        (["--validation-images", 250], "--validation-images is 250, but there are"),
        (["--batch-size", 51], "51, but one of the splits has only 50 images"),
        (["--sgd-steps", 5, 2], "--sgd-steps is 5 2; expected ascending positive"),
        (["--sgd-steps", 5, "many"], "--sgd-steps"),
        (["--sgd-steps", 5, 13], "--sgd-steps is '5 13'; expected one or more, at mo"),
        (["--sgd-steps"], "--sgd-steps is ''; expected one or more, at most 12"),
        (["--standalone-seeds", 0], "--standalone-seeds is 0; expected at least 1"),
        (["--halved-at", 0], "--halved-at is 0; expected ascending"),
        (["--devices", 3], "batch_size of 50 cannot be divided among 3 devices"),
        (["--propagation", "backward"], "invalid choice 'backward'"),
        (["--virtual-edges", 0], "--virtual-edges is 0; expected at least 1"),
        (["--tile", 0], "--tile is 0; expected at least 1"),
        (["--pass-embeddings", "twice"], "invalid choice 'twice'"),
        (["--weight-penalty", "-1"], "--weight-penalty is -1.0"),
        (["--num-train-nodes", 2], "--num-train-nodes is 2; expected at least 3"),
    ],
)
@pytest.mark.usefixtures("stand_ins")
def test_wrong_input(monkeypatch, capsys, tmp_path, flags, words):
    assert_refused(run(monkeypatch, capsys, tmp_path / "run", *flags), words)
    assert not (tmp_path / "run").exists()


def test_networks_and_hypernetworks_of_a_configuration():
    _, config = session.parse(
        PRESETS,
        None,
        [
            *("--channels", "2", "--num-blocks", "3", "--hidden-size", "4"),
            *("--layer-norm", "--no-share-blocks", "--virtual-edges", "3"),
            *("--tile", "3", "--decoder-size", "5", "--pass-embeddings", "once"),
        ],
    )
    dataset = data.load("digits")
    nets = [ghn_correlation.make_supernet(config, n, dataset) for n in (3, 5)]
    assert [net.space.num_nodes for net in nets] == [3, 5]
    small, large = (
        jax.eval_shape(
            hypernetworks.make_hypernetwork(config.hypernetwork, net).init,
            jax.random.key(0),
        )
        for net in nets
    )
    provider = hypernetworks.make_hypernetwork(config.hypernetwork, nets[0])
    assert provider.settings is not None
    assert provider.settings["hypernetwork"]["pass_embeddings"] == "once"
    decoder = small["decoder"]
    assert decoder["node_hidden"]["kernel"].shape == (4, 5)
    assert decoder["branches"]["edge_2d"]["kernel"].shape == (5, 3, 3)
    # One hypernetwork for both.
    assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, large)
    shared = jax.eval_shape(
        hypernetworks.make_hypernetwork(
            PRESETS["quick"].config.hypernetwork, nets[0]
        ).init,
        jax.random.key(0),
    )
    (size,) = {a.shape[1] for a in shared["graph"]["attributes"]}
    assert size == 32
    # No channel is a copy: 2, doubled twice.
    assert shared["decoder"]["branches"]["edge_2d"]["kernel"].shape == (64, 8, 8)


def test_presets():
    _, paper = session.parse(PRESETS, None, ["--preset", "ghn-cifar10"])
    assert (paper.num_architectures, paper.standalone_epochs, paper.epochs) == (
        100,
        50,
        200,
    )
    assert (paper.channels, paper.num_blocks, paper.batch_size) == (32, 18, 64)
    assert (paper.num_nodes, paper.num_train_nodes) == (17, 7)
    assert (paper.learning_rate, paper.halved_at) == (1e-3, (100, 150))
    assert (paper.sgd_steps, paper.images.cutout) == ((10, 100, 200, 1000), 0)
    assert paper.hypernetwork.num_steps == 5
    name, quick = session.parse(PRESETS, None, [])
    assert (name, quick.images.dataset, quick.num_nodes) == ("quick", "digits", 17)
    assert (paper.standalone_seeds, quick.standalone_seeds) == (1, 2)
