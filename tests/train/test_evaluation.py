"""Evaluation on a whole split: every image once, weights made once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_steps import NET, PROVIDER, TASK

from jaxnas import data, spaces, supernets, train, weights
from jaxnas.train import batches
from jaxnas.types import WeightProvider

ARCH = jnp.array([2, 1], jnp.int32)


def split(num):
    rng = np.random.default_rng(num)
    return data.Split(
        rng.integers(256, size=(num, 2, 2, 3), dtype=np.uint8),
        rng.integers(3, size=num, dtype=np.int32),
    )


def normalize(key, images):
    del key
    return images.astype(float) / 128 - 1


def make(net=NET, provider=PROVIDER, **options):
    pipeline = train.InputPipeline(8, normalize, normalize)._replace(**options)
    return train.make_eval_fn(net, provider, TASK, pipeline)


def scaled():
    """Weights that depend on the architecture."""

    def apply(params, arch):
        scale = (arch[0] + 1).astype(float)
        return jax.tree.map(lambda leaf: leaf * scale, params)

    return WeightProvider(NET.init, apply)


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("num_images", [16, 21])
def test_every_image_counts_once(num_images, num_devices):
    params, images = NET.init(jax.random.key(0)), split(num_images)
    evaluate = make(provider=scaled(), devices=jax.devices()[:num_devices])
    found = evaluate(params, ARCH, images)

    weights = jax.tree.map(lambda leaf: 3 * leaf, params)
    logits = []
    order = batches.evaluation_order(num_images)
    for start in range(0, num_images, 8):
        # Batch statistics are those of full batches, the last one begins anew.
        index = order[np.arange(start, start + 8) % num_images]
        batch = normalize(None, jnp.asarray(images.images[index]))
        logits.append(NET.apply(weights, ARCH, batch, train=False))
    logits = jnp.concatenate(logits)[:num_images]
    labels = images.labels[order]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    assert found.keys() == {"loss", "accuracy"}
    assert all(isinstance(value, float) for value in found.values())
    assert found["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    accuracy = np.mean(np.asarray(logits).argmax(1) == labels)
    assert found["accuracy"] == pytest.approx(accuracy, rel=1e-5)


def test_images_sorted_by_class_are_judged_like_shuffled_ones():
    """A supernet normalizes by the batch; sorted, a batch would be of one class."""
    digits = data.load("digits")

    def normalized(key, images):
        del key
        return data.normalize(images, digits.mean, digits.std)

    net = supernets.micro(spaces.enas_micro(1), 4, 3, 10, image_channels=1)
    arch = jnp.array([0, 1, 3, 3, 0, 1, 3, 3], jnp.int32)  # separable convolutions
    steps = 3 * (digits.train.num_images // 64)
    fit = train.make_standalone_train_fn(
        net,
        train.classification(),
        optax.sgd(0.1, 0.9),
        digits.train,
        train.InputPipeline(64, normalized, normalized),
        snapshot_steps=[steps],
    )
    (snapshot,) = fit(arch, jax.random.key(0))
    evaluate = train.make_eval_fn(
        net,
        weights.shared(net),
        train.classification(),
        train.InputPipeline(32, normalized, normalized),
    )

    def accuracy(order):
        split = data.Split(digits.test.images[order], digits.test.labels[order])
        return evaluate(snapshot.weights, arch, split)["accuracy"]

    by_class = np.argsort(digits.test.labels, kind="stable")
    num = len(by_class)
    shuffled = accuracy(np.random.default_rng(1).permutation(num))
    assert shuffled > 0.8
    assert accuracy(by_class) == pytest.approx(shuffled, abs=0.03)
    # What it would be without the permutation: the test can fail.
    undone = np.empty(num, int)
    undone[batches.evaluation_order(num)] = by_class
    assert accuracy(undone) < shuffled - 0.2


def test_weights_are_made_once_for_all_images():
    made, traced = [], []

    def apply(params, arch):
        jax.debug.callback(lambda arch: made.append(arch.tolist()), arch)
        return params

    def counting(*args, **options):
        traced.append(options)
        return NET.apply(*args, **options)

    evaluate = make(NET._replace(apply=counting), WeightProvider(NET.init, apply))
    params = NET.init(jax.random.key(0))
    for arch, num in (([0, 1], 30), ([1, 0], 17), ([1, 0], 8)):
        evaluate(params, jnp.array(arch, jnp.int32), split(num))
    jax.effects_barrier()
    assert made == [[0, 1], [1, 0], [1, 0]]
    # Neither another architecture nor another number of images compiles again.
    assert len(traced) == 1


def test_params_may_lie_on_other_devices():
    params, images = NET.init(jax.random.key(0)), split(8)
    here, there = (
        make(devices=[device])(params, ARCH, images)
        for device in (jax.devices()[0], jax.devices()[3])
    )
    assert here == there


def test_wrong_inputs():
    with pytest.raises(ValueError, match="batch_size of 6 cannot be divided among 4"):
        make(batch_size=6, devices=jax.devices()[:4])
    evaluate, params = make(), NET.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"arch has shape \[1, 2\]; expected \[2\]"):
        evaluate(params, ARCH[None], split(8))
    with pytest.raises(ValueError, match=r"arch has shape \[3\]; expected \[2\]"):
        evaluate(params, jnp.zeros(3, jnp.int32), split(8))
    with pytest.raises(ValueError, match="split has no images; expected at least one"):
        evaluate(params, ARCH, split(0))
