"""Training one network from scratch: it learns, repeats, resumes, shares batches."""

import functools
import signal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import read_log, signal_at_every_update, take

from jaxnas import data, networks, parallel, train
from jaxnas.genotypes import Genotype
from jaxnas.networks.micro_network import CellOutput
from jaxnas.train import batches, from_scratch

# One node a cell: what takes time is to compile.
GENOTYPE = Genotype(
    normal=(("sep_conv_3x3", 1), ("skip_connect", 0)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("sep_conv_3x3", 1)),
    reduce_concat=(2,),
)


@functools.cache
def network(cell_output: CellOutput = "concat", batch_axis: str | None = None):
    return networks.micro(
        GENOTYPE, 4, 3, 10, cell_output=cell_output, batch_axis=batch_axis
    )


@functools.cache
def digits():
    return data.load("digits")


def run(workdir=None, *, net=None, seed=0, num_images=200, **options):
    def normalize(key, images):
        del key
        return data.normalize(images, digits().mean, digits().std)

    pipeline = take(
        train.InputPipeline,
        options,
        batch_size=40,
        augment=normalize,
        normalize=normalize,
    )
    return train.train_from_scratch(
        network() if net is None else net,
        train.classification(),
        optax.sgd(0.05, momentum=0.9),
        data.split(digits().train, num_images)[0],
        pipeline,
        key=jax.random.key(seed),
        **{
            "num_epochs": 2,
            "test": data.split(digits().test, 50)[0],
            "workdir": workdir,
            "save_seconds": 0.0,
            **options,
        },
    )


def arrays(state: train.TrainState):
    return state._replace(key=jax.random.key_data(state.key))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return run(workdir), read_log(workdir)


def test_loss_falls_and_everything_is_logged(uninterrupted):
    result, log = uninterrupted
    assert [entry["step"] for entry in log] == [0, 5, 10]
    assert log[2]["train/loss"] < log[1]["train/loss"]
    assert log[2]["train/accuracy"] > log[1]["train/accuracy"]
    assert result.test == {
        name: log[-1][f"test/{name}"] for name in ("loss", "accuracy")
    }
    assert int(result.state.step) == 10


def test_evaluation_uses_running_statistics(uninterrupted):
    result, _ = uninterrupted
    step = jax.jit(
        from_scratch.network_evaluation_step(network(), train.classification())
    )
    images, labels = data.split(digits().test, 50)[0]
    images = data.normalize(jnp.asarray(images), digits().mean, digits().std)
    variables = result.state.params, result.state.batch_stats
    one_by_one = [
        step(*variables, {"image": images[i : i + 1], "label": labels[i : i + 1]})
        for i in range(50)
    ]
    # The same as in batches of 40, the last one filled up.
    for name, mean in result.test.items():
        values = [float(entry[name]) for entry in one_by_one]
        assert np.mean(values) == pytest.approx(mean, rel=1e-4)


class Unnormalized(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        del train
        return nn.Dense(10)(images.reshape(images.shape[0], -1))


def test_a_network_without_normalization_learns_and_continues(tmp_path):
    once = run(tmp_path, net=Unnormalized(), num_epochs=1)
    assert once.state.batch_stats == {}
    twice = run(tmp_path, net=Unnormalized(), num_epochs=2)
    assert int(twice.state.step) == 10
    assert twice.test is not None and once.test is not None
    assert twice.test["loss"] < once.test["loss"]


def test_a_network_with_projections_learns():
    state = run(net=network("projection"), num_epochs=3, test=None).state
    assert float(state.epoch_metrics["train/loss"]) < 2.0


def test_interrupted_within_an_epoch_and_resumed(tmp_path, uninterrupted, monkeypatch):
    result, log = uninterrupted
    interrupts = signal_at_every_update(monkeypatch, signal.SIGTERM)
    with interrupts, pytest.raises(train.Interrupted, match="SIGTERM"):
        run(tmp_path)
    # A process starts with a call of one step.
    assert (tmp_path / "checkpoints" / "1").is_dir()
    resumed = run(tmp_path)
    chex.assert_trees_all_equal(arrays(resumed.state), arrays(result.state))
    assert resumed.test == result.test
    assert read_log(tmp_path) == log


def test_four_devices_equal_one():
    # Two steps: rounding errors grow in training.
    options = {"num_epochs": 1, "num_images": 80, "test": None}
    one = run(**options).state
    four = run(
        net=network(batch_axis=parallel.BATCH_AXIS),
        devices=jax.devices()[:4],
        **options,
    ).state
    assert int(four.step) == 2
    parallel.assert_replicated(four)
    for part in ("params", "batch_stats", "epoch_metrics"):
        chex.assert_trees_all_close(
            getattr(four, part), getattr(one, part), rtol=1e-4, atol=1e-4
        )


class Linear(nn.Module):
    """A linear layer that drops whole logits, and adds up with what probability."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, *, train, drop_path_prob=None):
        total = self.variable("batch_stats", "prob", lambda: jnp.float32(0))
        logits = nn.Dense(10)(images.reshape(images.shape[0], -1))
        if train and drop_path_prob is not None:
            total.value = total.value + jnp.asarray(drop_path_prob)
            kept = jax.random.uniform(self.make_rng("drop_path"), logits.shape)
            logits = jnp.where(kept >= drop_path_prob, logits, 0)
        return nn.Dropout(self.dropout)(logits, deterministic=not train)


@pytest.mark.parametrize(
    ("growth", "num_epochs", "total"),
    [
        ("epoch", 1, 0.0),
        ("epoch", 4, 0.4 * 5 * (1 + 2 + 3) / 4),
        ("step", 1, 0.4 * (1 + 2 + 3 + 4 + 5) / 5),
        ("step", 2, 0.4 * 55 / 10),
    ],
)
def test_probability_of_drop_path_grows(growth, num_epochs, total):
    # It is 0 in the initialization; five steps an epoch follow.
    result = run(
        net=Linear(),
        num_epochs=num_epochs,
        drop_path=train.DropPath(0.4, growth),
    )
    assert float(result.state.batch_stats["prob"]) == pytest.approx(total)


class Plain(nn.Module):
    """A network that knows of no drop path."""

    @nn.compact
    def __call__(self, images, *, train):
        return Linear()(images, train=train)


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (Linear(), {"drop_path": train.DropPath(0.5)}),
        (Linear(dropout=0.5), {}),
    ],
)
def test_what_is_dropped_depends_on_the_key(net, options):
    def kernel(net, seed, num_devices=1, **options):
        options["devices"] = jax.devices()[:num_devices]
        params = run(net=net, seed=seed, **options).state.params
        return jax.tree.leaves(params)[1]

    dropped = kernel(net, 0, **options)
    np.testing.assert_array_equal(kernel(net, 0, **options), dropped)
    assert not np.allclose(kernel(net, 1, **options), dropped, atol=1e-3)
    whole = kernel(Linear(), 0)
    assert not np.allclose(whole, dropped, atol=1e-3)
    # Every device drops others; where nothing is dropped all compute the same.
    np.testing.assert_allclose(kernel(Linear(), 0, 2), whole, atol=1e-5)
    assert not np.allclose(kernel(net, 0, 2, **options), dropped, atol=1e-3)


def test_a_network_without_drop_path():
    state = run(net=Plain()).state
    assert float(state.batch_stats["Linear_0"]["prob"]) == 0


def test_the_last_network_is_evaluated_once(tmp_path, monkeypatch):
    evaluations = []
    mean_metrics = batches.mean_metrics

    def evaluate(*args):
        evaluations.append(mean_metrics(*args))
        return evaluations[-1]

    monkeypatch.setattr(batches, "mean_metrics", evaluate)
    result = run(tmp_path, net=Linear())
    assert len(evaluations) == 1 + 2  # before training, and after each epoch
    assert result.test == evaluations[-1]
    # A finished run has only this to do.
    assert run(tmp_path, net=Linear()).test == result.test
    assert len(evaluations) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"drop_path": train.DropPath(1.0)},
            "max_prob of drop_path is 1.0; expected 0 or more",
        ),
        (
            {"drop_path": train.DropPath(-0.1)},
            "max_prob of drop_path is -0.1; expected",
        ),
        (
            {"drop_path": train.DropPath(0.5)._replace(growth="batch")},
            "growth of drop_path is 'batch'; expected 'epoch' or 'step'",
        ),
        ({"batch_size": 201}, "batch_size is 201, but there are only 200 images"),
        (
            {"batch_size": 42, "devices": jax.devices()[:4]},
            "batch_size of 42 cannot be divided among 4 devices",
        ),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_one_program_trains_networks_that_differ_in_what_they_are_told():
    num_traces = 0

    def normalize(key, images):
        nonlocal num_traces
        del key
        num_traces += 1
        return data.normalize(images, digits().mean, digits().std)

    split, _ = data.split(digits().train, 100)
    pipeline = train.InputPipeline(50, normalize, normalize)
    parts = network(), train.classification(), optax.sgd(0.05), split, pipeline
    run = train.make_train_fn(*parts, num_epochs=1)
    variant = GENOTYPE._replace(normal=GENOTYPE.normal[::-1])
    assert {source for _, source in variant.normal} == {0, 1}
    first, again, other = (
        run(
            jax.random.key(0),
            options={"sources": networks.edge_sources(genotype)},
        ).state.params
        for genotype in (GENOTYPE, GENOTYPE, variant)
    )
    traces_of_three = num_traces
    run(jax.random.key(1), options={"sources": networks.edge_sources(GENOTYPE)})
    assert num_traces == traces_of_three
    chex.assert_trees_all_equal(first, again)
    kernel = first["classifier"]["kernel"]
    assert not np.array_equal(kernel, other["classifier"]["kernel"])
    told = train.train_from_scratch(
        *parts, key=jax.random.key(0), num_epochs=1
    ).state.params
    chex.assert_trees_all_close(first, told, rtol=1e-3, atol=1e-4)
