"""Inpainting: masks, metrics, and that it searches, trains and evaluates."""

import functools
import signal
import types

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import read_log, signal_at_every_update
from jax import lax
from toy_search import digest

from jaxnas import data, parallel, search, train, weights
from jaxnas.train import batches
from jaxnas.types import Supernet

SIZE = 12
TASK = train.inpainting("half")

loss = jax.jit(TASK.loss)


# Masks ----------------------------------------------------------------------------


def masks(task, num, height=8, width=10):
    """What the task makes of white images, a channel of each."""
    images = jnp.ones((num, height, width, 3), jnp.float32)
    keys = jax.random.split(jax.random.key(0), num)
    batch = task.prepare(keys, {"image": images, "weight": images[:, 0, 0, 0]})
    chex.assert_trees_all_equal(batch["target"], images)
    assert batch.keys() == {"image", "target", "weight"}
    shown = np.asarray(batch["image"])
    np.testing.assert_array_equal(shown, shown[..., :1].repeat(3, axis=-1))
    return shown[..., 0]


@pytest.mark.parametrize("sides", [(8, 10), (64, 64), (9, 7)])
def test_the_mask_center(sides):
    height, width = sides
    expected = np.ones(sides)
    expected[
        int(height * 0.25) : int(height * 0.75), int(width * 0.25) : int(width * 0.75)
    ] = 0
    for found in masks(train.inpainting("center"), 3, *sides):
        np.testing.assert_array_equal(found, expected)


def test_the_mask_pixel():
    found = masks(train.inpainting("pixel"), 200)
    assert set(found.ravel()) == {0, 1}
    # 16,000 draws: five standard deviations.
    assert found.mean() == pytest.approx(0.2, abs=0.016)
    assert len(np.unique(found, axis=0)) == 200


def test_the_mask_half():
    found = masks(train.inpainting("half"), 400, 5, 6)
    halves, counts = np.unique(found, axis=0, return_counts=True)
    expected = np.ones((4, 5, 6))
    expected[0, :, :3] = expected[1, :, 3:] = expected[2, :2] = expected[3, 2:] = 0
    assert {half.tobytes() for half in halves} == {
        half.astype(np.float32).tobytes() for half in expected
    }
    assert counts.min() > 57  # five standard deviations below 100


def test_kept_pixels_are_scaled_only_if_asked():
    plain = masks(train.inpainting("pixel"), 100)
    scaled = masks(train.inpainting("pixel", scale_kept=True), 100)
    np.testing.assert_array_equal(plain == 0, scaled == 0)
    kept = scaled[scaled > 0]
    assert 0.8 <= kept.min() < 0.81 and 0.99 < kept.max() < 1
    assert kept.mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        ("centre", {}, "mask is 'centre'; expected one of center, pixel, half"),
        ("half", {"scale_kept": True}, "is True; expected False with the mask 'half'"),
    ],
)
def test_wrong_masks(mask, options, message):
    with pytest.raises(ValueError, match=message):
        train.inpainting(mask, **options)


# Metrics --------------------------------------------------------------------------


def image_pairs():
    random = np.random.RandomState(0)
    y, x = np.mgrid[:24, :20] / 24
    smooth = np.stack([x, y, x * y], -1)
    noise = random.uniform(size=(24, 20, 3))
    yield noise, random.uniform(size=(24, 20, 3))
    yield smooth, smooth + 0.1 * random.standard_normal(smooth.shape)
    yield smooth, smooth * (random.uniform(size=(24, 20, 1)) > 0.8)
    yield (
        np.full((24, 20, 3), 0.9),
        0.9 - 0.01 * random.uniform(size=(24, 20, 3)),
    )
    yield np.zeros((24, 20, 3)), np.full((24, 20, 3), 0.01)
    yield noise, noise
    yield noise, noise * 3 - 1  # clipped
    yield noise[:11, :11, :1], smooth[:11, :11, :1]


# Of scikit-image 0.26.0, `structural_similarity(original, clipped, data_range=1,
# gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1)`.
SIMILARITIES = (
    *(-0.025902215496958512, 0.43898826207111186, 0.04121123562162907),
    *(0.9909205136490811, 0.5, 1.0, 0.8668980951623855, 0.04301272092468684),
)


@pytest.mark.parametrize(
    ("pair", "expected"), list(zip(image_pairs(), SIMILARITIES, strict=True))
)
def test_similarity_is_that_of_scikit_image(pair, expected):
    original, restored = (jnp.asarray(image[None], jnp.float32) for image in pair)
    _, metrics = loss(restored, {"target": original})
    assert float(metrics["ssim"]) == pytest.approx(expected, abs=1e-5)


def random_images(num, size=SIZE):
    random = np.random.default_rng(num)
    return random.uniform(size=(num, size, size, 3)).astype(np.float32)


def test_errors_are_those_of_numpy():
    original, restored = random_images(5), random_images(6)[:5] * 1.5 - 0.25
    value, metrics = loss(jnp.asarray(restored), {"target": original})
    assert metrics.keys() == {"loss", "psnr", "ssim"}
    np.testing.assert_allclose(value, np.square(restored - original).mean(), rtol=1e-5)
    assert value == metrics["loss"]
    errors = np.square(np.clip(restored, 0, 1) - original).mean((1, 2, 3))
    # The mean of all images' ratios, not the ratio of the mean error.
    np.testing.assert_allclose(
        metrics["psnr"], (-10 * np.log10(errors)).mean(), rtol=1e-5
    )


def test_a_perfect_image_has_a_finite_ratio():
    original = jnp.asarray(random_images(2))
    restored = original.at[1].add(0.1)
    _, metrics = loss(original, {"target": original})
    assert metrics == {"loss": 0, "psnr": 100, "ssim": 1}
    found = train.psnr(restored, original)
    np.testing.assert_allclose(found, [100, 20], rtol=1e-5)
    gradient = jax.grad(lambda x: TASK.loss(x, {"target": original})[0])(original)
    np.testing.assert_array_equal(gradient, 0)


def test_padding_does_not_count():
    original, restored = jnp.asarray(random_images(5)), jnp.asarray(random_images(6))
    weight = jnp.array([1, 1, 1, 0, 0], jnp.float32)
    padded = loss(restored[:5], {"target": original, "weight": weight})
    alone = loss(restored[:3], {"target": original[:3]})
    chex.assert_trees_all_close(padded, alone, rtol=1e-5)


def test_wrong_shapes():
    images = jnp.zeros((2, 12, 10, 3))
    with pytest.raises(ValueError, match=r"are 10x12 pixels; expected at least 11x11"):
        TASK.loss(images, {"target": images})
    with pytest.raises(
        ValueError, match=r"have shape \(2, 12\); expected .* 12, 10, 3"
    ):
        TASK.loss(images[:, :, 0, 0], {"target": images})
    with pytest.raises(ValueError, match=r"shape \(\(2,\), \(3,\)\); expected that of"):
        TASK.loss((jnp.zeros(2), jnp.zeros(3)), {"target": images})


# Training -------------------------------------------------------------------------


def convolution() -> Supernet:
    """A convolution; an architecture chooses what is done to its result."""

    def init(key):
        return 0.1 * jax.random.normal(key, (3, 3, 3, 3))

    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        del train, key, batch_axis
        dimensions = "NHWC", "HWIO", "NHWC"
        x = lax.conv_general_dilated(
            inputs, weights, (1, 1), "SAME", dimension_numbers=dimensions
        )
        return lax.switch(arch[0], [jnp.tanh, jax.nn.relu, lambda x: 0 * x], x)

    space = types.SimpleNamespace(cardinalities=(3, 3), num_architectures=9)
    return Supernet(space, init, apply)


class Convolution(nn.Module):
    """A network without running statistics."""

    @nn.compact
    def __call__(self, images, *, train):
        del train
        return nn.Conv(3, (3, 3), use_bias=False)(images)


@functools.cache
def splits():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (59, SIZE, SIZE, 3), dtype=np.uint8)
    pixels[:, ::2] = 255 - pixels[:, 1::2]  # so that there is something to restore
    images = data.Split(pixels, np.zeros(59, np.int32))
    first, rest = data.split(images, 24)
    validation, test = data.split(rest, 24)
    return first, validation, test


def unit(key, images):
    del key
    return data.normalize(images, (0,) * 3, (1,) * 3)


def pipeline(num_devices=1, batch_size=8):
    return train.InputPipeline(batch_size, unit, unit, jax.devices()[:num_devices])


def run_search(workdir=None, num_devices=1):
    first, validation, test = splits()
    net = convolution()
    return train.search(
        net,
        weights.shared(net),
        search.asng(net.space),
        TASK,
        optax.sgd(0.5),
        train.SearchSplits(first, validation),
        pipeline(num_devices),
        train.SearchSettings(num_epochs=3),
        key=jax.random.key(0),
        test=test,
        workdir=workdir,
        save_seconds=0.0,
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("searched")
    return run_search(workdir), read_log(workdir)


def test_a_search(searched):
    result, log = searched
    assert log[-1]["train/loss"] < log[1]["train/loss"]
    names = {
        f"{part}/{name}"
        for part in ("train", "validation", "test")
        for name in ("loss", "psnr", "ssim")
    }
    assert names <= log[-1].keys()
    assert result.evaluate(result.arch, splits()[2])["loss"] == log[-1]["test/loss"]


def test_a_search_on_two_devices_equals_one(searched):
    two = run_search(num_devices=2)
    parallel.assert_replicated(two.state)
    chex.assert_trees_all_close(
        two.state._replace(key=0),
        searched[0].state._replace(key=0),
        rtol=1e-5,
        atol=1e-5,
    )
    (_, _, test), arch = splits(), jnp.array([0, 0], jnp.int32)
    found, expected = (run.evaluate(arch, test) for run in (two, searched[0]))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_evaluation_counts_every_image_once(num_devices):
    """11 images in batches of 4, or one at a time, whatever their order: the same."""
    net, arch = convolution(), jnp.array([0, 0], jnp.int32)
    params, test = net.init(jax.random.key(1)), splits()[2]
    evaluate = train.make_eval_fn(
        net, weights.shared(net), TASK, pipeline(num_devices, batch_size=4)
    )
    found = evaluate(params, arch, test)
    assert found == evaluate(params, arch, test)

    @jax.jit
    def measure(batch):
        batch = batches.prepared_for_evaluation(batch, unit, TASK)
        outputs = net.apply(params, arch, batch["image"], train=False)
        return TASK.loss(outputs, batch)[1]

    lines = [measure(batch) for batch in batches.evaluation_batches(test, 1)]
    assert len(lines) == 11
    for name, value in found.items():
        mean = np.mean([line[name] for line in lines])
        assert value == pytest.approx(mean, rel=1e-5)


def test_every_step_draws_other_masks_and_two_evaluations_do_not():
    _, _, test = splits()
    split = jax.tree.map(jnp.asarray, test)
    task = train.inpainting("pixel")

    @jax.jit
    def image(epoch, position):
        key = jax.random.key(3)
        order = batches.epoch_order(key, 11, epoch)
        batch = batches.shuffled(key, split, order, position, 4, unit, task)
        return batch["image"][..., 0]

    def kept(*place):
        return np.asarray(image(*place) > 0).tobytes()

    places = [(0, 0), (0, 1), (1, 0)]
    assert len({kept(*place) for place in places}) == 3
    assert kept(1, 0) == kept(1, 0)

    @jax.jit
    def prepare(batch):
        return batches.prepared_for_evaluation(batch, unit, task)["image"]

    def evaluated(batch_size):
        found = map(prepare, batches.evaluation_batches(test, batch_size))
        return np.concatenate(list(found))[:11]

    np.testing.assert_array_equal(evaluated(4), evaluated(11))
    assert len(np.unique(evaluated(4)[..., 0] > 0, axis=0)) == 11


def run_from_scratch(workdir=None, num_devices=1):
    first, _, test = splits()
    return train.train_from_scratch(
        Convolution(),
        TASK,
        optax.sgd(0.5),
        first,
        pipeline(num_devices),
        key=jax.random.key(0),
        num_epochs=3,
        test=test,
        workdir=workdir,
        save_seconds=0.0,
    )


def test_a_network_without_statistics_is_trained_from_scratch(tmp_path, monkeypatch):
    interrupts = signal_at_every_update(monkeypatch, signal.SIGTERM)
    with interrupts, pytest.raises(train.Interrupted):
        run_from_scratch(tmp_path)
    one, two = run_from_scratch(tmp_path), run_from_scratch(num_devices=2)
    log = read_log(tmp_path)
    assert log[-1]["train/loss"] < log[1]["train/loss"]
    assert one.test.keys() == {"loss", "psnr", "ssim"}
    chex.assert_trees_all_close(
        (two.state.params, two.state.epoch_metrics),
        (one.state.params, one.state.epoch_metrics),
        rtol=1e-4,
        atol=1e-5,
    )
    assert two.test == pytest.approx(one.test, rel=1e-4)
    whole = run_from_scratch().state
    assert digest(whole) == digest(one.state)


def test_architectures_are_trained_within_the_supernet():
    first, _, test = splits()
    net = convolution()
    lines = train.train_standalone(
        net,
        TASK,
        optax.sgd(0.5),
        first,
        test,
        [jnp.array([choice, 0], jnp.int32) for choice in (0, 2)],
        pipeline(),
        key=jax.random.key(0),
        num_seeds=1,
        num_steps=9,
    )
    learned, black = (of_arch[0] for of_arch in lines)
    assert learned["psnr"] > black["psnr"] and learned["ssim"] > black["ssim"]
