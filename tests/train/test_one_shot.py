"""One-shot search with a tiny supernet: it learns, repeats and resumes."""

import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import read_log, signal_at_every_update
from toy_search import assert_equal_on_four_devices, digest, load, perceptron, run

from jaxnas import data, search, train
from jaxnas.types import Supernet


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return run(workdir), read_log(workdir)


def test_metrics_of_the_parameters_are_logged(tmp_path):
    def epoch_metrics(params):
        return {"largest": float(jnp.abs(params["output"]).max())}

    result = run(tmp_path, num_epochs=1, test=None, epoch_metrics=epoch_metrics)
    first, last = read_log(tmp_path)
    assert last["largest"] == epoch_metrics(result.state.weights.params)["largest"]
    assert first["largest"] not in (0, last["largest"])


def test_loss_falls_and_everything_is_logged(uninterrupted):
    result, log = uninterrupted
    assert [entry["step"] for entry in log] == [0, 4, 8, 12]
    assert [entry["epoch"] for entry in log] == [0, 1, 2, 3]
    for part in ("train", "validation"):
        losses = [entry[f"{part}/loss"] for entry in log[1:]]
        assert losses[-1] < losses[0]
        assert all(0 <= entry[f"{part}/accuracy"] <= 1 for entry in log[1:])
    assert {"test/loss", "test/accuracy"} <= set(log[0])
    # A searcher that has been told nothing has nothing to tell.
    assert "theta_max_mean" not in log[0] and 0 < log[1]["theta_max_mean"] <= 1
    chex.assert_shape(result.arch, (2,))
    np.testing.assert_array_equal(result.arch, result.state.searcher.theta.argmax(1))
    assert int(result.state.step) == 12


def test_evaluate_with_the_final_weights(uninterrupted):
    result, log = uninterrupted
    digits, _ = load()
    test, _ = data.split(digits.test, 40)
    found = result.evaluate(result.arch, test)
    assert found["loss"] == log[-1]["test/loss"]

    images = data.normalize(jnp.asarray(test.images), digits.mean, digits.std)
    params = result.state.weights.params
    logits = perceptron().apply(params, result.arch, images, train=False)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, test.labels)
    # 40 images in batches of 16: what fills up the last batch does not count.
    assert found["loss"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert found["accuracy"] == pytest.approx(
        float((logits.argmax(1) == test.labels).mean())
    )


def test_the_same_seed_gives_the_same_state(uninterrupted):
    result, _ = uninterrupted
    assert digest(run().state) == digest(result.state)
    other = run(seed=1).state
    for one, another in zip(
        jax.tree.leaves((other.weights, other.searcher.theta)),
        jax.tree.leaves((result.state.weights, result.state.searcher.theta)),
        strict=True,
    ):
        assert not np.array_equal(one, another)


def test_a_finished_search_is_not_repeated(tmp_path, uninterrupted):
    result, log = uninterrupted
    run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again = run(tmp_path)
    assert digest(again.state) == digest(result.state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert read_log(tmp_path) == log


def test_interrupted_within_epochs_and_resumed(tmp_path, uninterrupted, monkeypatch):
    result, log = uninterrupted
    # A process starts with a call of one step, so these stop after steps 1 and 2.
    with signal_at_every_update(monkeypatch, signal.SIGINT):
        for step in (1, 2):
            with pytest.raises(train.Interrupted, match="SIGINT"):
                run(tmp_path)
            assert (tmp_path / "checkpoints" / str(step)).is_dir()
    assert digest(run(tmp_path).state) == digest(result.state)
    assert read_log(tmp_path) == log


def test_four_devices_equal_one(uninterrupted):
    result, _ = uninterrupted
    four = run(devices=jax.devices()[:4])
    assert_equal_on_four_devices(four.state, result.state)
    test, _ = data.split(load()[0].test, 40)
    assert four.evaluate(four.arch, test) == pytest.approx(
        result.evaluate(result.arch, test), rel=1e-5
    )


def test_resumed_on_other_devices(tmp_path, uninterrupted):
    result, log = uninterrupted
    run(tmp_path, num_epochs=1, devices=jax.devices()[:2])
    resumed = run(tmp_path, num_epochs=3)
    chex.assert_trees_all_close(
        resumed.state.weights, result.state.weights, rtol=1e-5, atol=1e-5
    )
    assert [entry["step"] for entry in read_log(tmp_path)] == [e["step"] for e in log]


def test_divergence_is_noticed(tmp_path):
    def spoil(key, images):
        return jnp.full(images.shape, jnp.inf)

    with pytest.raises(train.Diverged, match="train/loss is nan by step 1"):
        run(tmp_path, augment=spoil)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("phases", [{}, {"searcher_steps": 3, "batch_per_arch": True}])
def test_a_validation_loss_that_is_not_finite_is_counted(tmp_path, phases):
    """An architecture may overflow in evaluation: that is not the weights' fault."""
    net = perceptron()

    def apply(weights, arch, inputs, *, train, **options):
        outputs = net.apply(weights, arch, inputs, train=train, **options)
        return outputs if train else jnp.where(arch[0] == 2, jnp.inf, 1.0) * outputs

    options = {"net": net._replace(apply=apply), "num_search_archs": 4, **phases}
    result = run(tmp_path, num_epochs=2, test=None, **options)
    assert int(result.state.step) > 0
    lines = read_log(tmp_path)[1:]
    assert sum(line["validation/num_not_finite"] for line in lines) > 0
    for line in lines:
        assert np.isfinite(line["validation/loss"])
        assert 0 < line["validation/accuracy"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 65}, "batch_size is 65, but one of the splits has only 64"),
        (
            {"batch_size": 18, "devices": jax.devices()[:4]},
            "batch_size of 18 cannot be divided among 4 devices",
        ),
    ],
)
def test_wrong_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_an_epoch_is_that_of_the_smaller_split():
    _, (first, second) = load()
    assert train.search_schedule(train.SearchSplits(first, second), 16) == (4, None)
    assert train.search_schedule(train.SearchSplits(second, first), 64) == (1, None)
    with pytest.raises(ValueError, match="batch_size is 65"):
        train.search_schedule(train.SearchSplits(second, first), 65)


# Ranking ----------------------------------------------------------------------------

SPLIT = data.Split(np.zeros((30, 1, 1, 1), np.uint8), np.zeros(30, np.int32))


def evaluate_by(loss, calls):
    def evaluate(arch, split):
        calls.append((int(arch[0]), len(split.labels)))
        return {"loss": loss(int(arch[0]), len(split.labels))}

    return evaluate


def archs(*values):
    return [jnp.array([value, 0], jnp.int32) for value in values]


def test_rank_sorts_and_drops_copies():
    losses, calls = {3: 0.5, 1: 0.2, 4: float("nan"), 2: 0.2, 0: 9.0}, []
    ranked = train.rank(
        evaluate_by(lambda arch, _: losses[arch], calls),
        archs(4, 3, 1, 3, 2, 1, 0),
        SPLIT,
    )
    # Equal losses in the order given; what is not finite last.
    assert [(int(r.arch[0]), r.position) for r in ranked] == [
        *((1, 2), (2, 4), (3, 1), (0, 6), (4, 0))
    ]
    assert ranked[0].metrics == {"loss": 0.2}
    assert isinstance(ranked[0].arch, np.ndarray)
    assert sorted(calls) == [(arch, 30) for arch in range(5)]


def test_an_interrupted_ranking_continues(tmp_path, capsys):
    calls, killed = [], []

    def loss(arch, num):
        if (arch, num) == (3, 30) and not killed:
            killed.append(arch)
            raise KeyboardInterrupt
        return float(arch)

    def rank(**changes):
        return train.rank(
            evaluate_by(loss, calls),
            archs(5, 4, 3, 2, 1),
            SPLIT,
            num_screening_images=10,
            num_best=3,
            **changes,
        )

    with pytest.raises(KeyboardInterrupt):
        rank(workdir=tmp_path)
    assert calls[5:] == [(1, 30), (2, 30), (3, 30)]
    ranked = rank(workdir=tmp_path)
    assert calls[8:] == [(3, 30)]
    shown = capsys.readouterr().out
    assert shown.count("screening 5/5") == 1 and shown.count("ranking 3/3") == 1
    calls.clear()
    whole = rank()
    assert [entry.metrics for entry in whole] == [entry.metrics for entry in ranked]
    assert [entry.position for entry in whole] == [4, 3, 2]


def test_all_candidates_may_be_ranked_by_all_images():
    calls = []
    train.rank(
        evaluate_by(lambda arch, _: float(arch), calls),
        archs(3, 2, 1),
        SPLIT,
        num_screening_images=None,
        num_best=1,
    )
    assert calls == [(3, 30), (2, 30), (1, 30)]


def test_rank_screens_with_few_images():
    calls = []

    def loss(arch, num):
        # The few images and all images disagree about the best.
        return float(arch) if num == 10 else -float(arch)

    ranked = train.rank(
        evaluate_by(loss, calls),
        archs(5, 4, 3, 2, 1),
        SPLIT,
        num_screening_images=10,
        num_best=2,
    )
    assert [int(entry.arch[0]) for entry in ranked] == [2, 1]
    assert [entry.position for entry in ranked] == [3, 4]
    assert sorted(calls) == [
        *((1, 10), (1, 30), (2, 10), (2, 30)),
        (3, 10),
        (4, 10),
        (5, 10),
    ]


@pytest.mark.parametrize(("num_best", "num_screening_images"), [(3, 10), (2, 30)])
def test_rank_without_need_to_screen(num_best, num_screening_images):
    calls = []
    ranked = train.rank(
        evaluate_by(lambda arch, _: float(arch), calls),
        archs(3, 2, 1),
        SPLIT,
        num_screening_images=num_screening_images,
        num_best=num_best,
    )
    assert [int(entry.arch[0]) for entry in ranked] == [1, 2, 3][:num_best]
    assert calls == [(3, 30), (2, 30), (1, 30)]


# The end by convergence, and ordered integers ---------------------------------------


def test_a_search_stops_when_it_has_converged(tmp_path, uninterrupted):
    _, log = uninterrupted
    reached = [line["theta_max_mean"] for line in log[1:]]
    first = reached.index(max(reached[:2])) + 1
    threshold = reached[first - 1]
    result = run(tmp_path, stop_when_converged=threshold)
    assert int(result.state.step) == 4 * first
    assert read_log(tmp_path) == log[: first + 1]
    # The same again is over; another threshold lets it go on as if it had not stopped.
    again = run(tmp_path, stop_when_converged=threshold)
    assert digest(again.state) == digest(result.state)
    assert read_log(tmp_path) == log[: first + 1]
    run(tmp_path, stop_when_converged=1.0)
    assert read_log(tmp_path) == log


@pytest.mark.parametrize(
    ("threshold", "make", "message"),
    [
        (0.0, search.asng, "stop_when_converged is 0.0; expected above 0, at most 1"),
        (np.nan, search.asng, "stop_when_converged is nan; expected above 0"),
        (0.9, search.random_search, "for a searcher without the metric theta_max_mean"),
    ],
)
def test_wrong_thresholds_of_convergence(threshold, make, message):
    with pytest.raises(ValueError, match=message):
        run(stop_when_converged=threshold, searcher=make((3, 3)))


def test_a_search_with_ordered_integers():
    net, applied = perceptron(), []

    def apply(weights, arch, images, **options):
        applied.append(arch)
        whole = jnp.clip(jnp.round(arch), 0, 2).astype(jnp.int32)
        return net.apply(weights, whole, images, **options)

    mixed = Supernet(net.space, net.init, apply)
    searcher = search.asng((), integers=[(0, 2), (0, 2)])
    result = run(net=mixed, searcher=searcher, num_epochs=1, test=None)
    assert all(arch.dtype == jnp.float32 for arch in applied)
    assert 0 < result.state.searcher_metrics["std_mean"] <= 1
    np.testing.assert_array_equal(result.arch, result.state.searcher.theta.normal.mean)
    assert not np.array_equal(result.arch, [1, 1])
