"""The supernet of autoencoders equals a network of one architecture in NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import trace

from jaxnas import spaces, supernets, train
from jaxnas import weights as providers
from jaxnas.spaces import AutoencoderSpace
from jaxnas.supernets import _autoencoder_chain
from jaxnas.types import Task

ENCODINGS = "categorical", "mixed"
every_encoding = pytest.mark.parametrize("encoding", ENCODINGS)
IMAGES = np.random.default_rng(0).standard_normal((3, 4, 8, 3))
TAPS = {1: slice(0, 1), 3: slice(1, 10), 5: slice(10, 35)}


def small_space(encoding: Any = "categorical", num_nodes: int = 8):
    # In the mixed encoding, blocks of 2 channels hold numbers that are odd.
    return AutoencoderSpace(num_nodes, 3, (2, 4, 6), encoding)


# The reference: NumPy, one architecture ----------------------------------------------


def convolve(x, kernel, stride):
    """The sum of one product for each pixel of the output and tap of the kernel."""
    size = len(kernel)
    batch, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    y = np.zeros((batch, height // stride, width // stride, kernel.shape[-1]))
    for row, column in np.ndindex(y.shape[1:3]):
        for i, j in np.ndindex(size, size):
            pixel = padded[:, stride * row + i, stride * column + j]
            y[:, row, column] += pixel @ kernel[i, j]
    return y


def convolve_backwards(y, kernel, stride):
    """What `convolve` reads is written."""
    size, (batch, height, width, _) = len(kernel), y.shape
    shape = batch, stride * height + size, stride * width + size, kernel.shape[2]
    padded = np.zeros(shape)
    for row, column in np.ndindex(height, width):
        for i, j in np.ndindex(size, size):
            pixel = y[:, row, column] @ kernel[i, j].T
            padded[:, stride * row + i, stride * column + j] += pixel
    start = size // 2
    return padded[:, start : start + stride * height, start : start + stride * width]


def active_nodes(space, arch):
    choices = space.choices(jnp.asarray(arch))
    number, nodes = int(choices.output), []
    while number > 0:
        nodes.append(number - 1)
        number = int(choices.source[number - 1])
    return nodes[::-1]


def nodes_that_run(space, arch, height, width):
    """Node, kernel, channels, stride and skip of each that is not passed over."""
    genotype = space.decode(arch)
    found = []
    nodes = zip(active_nodes(space, arch), *genotype[:-1], strict=True)
    for node, kernel, channels, stride, skip in nodes:
        if stride == 2:
            if 1 in (height, width):
                continue
            height, width = height // 2, width // 2
        found.append((node, kernel, channels, stride, skip))
    return found


def relu(x):
    return np.maximum(x, 0)


def reference(space, weights, arch, images):
    def kernel(name, node, size, skip, large, small):
        taps = weights[name][node, int(skip), TAPS[size], :large, :small]
        return taps.reshape(size, size, large, small)

    x, maps = images, []
    nodes = nodes_that_run(space, arch, *images.shape[1:3])
    for node, size, channels, stride, skip in nodes:
        own = kernel("encoder", node, size, skip, x.shape[-1], channels)
        x = relu(convolve(x, own, stride))
        maps.append(x)
    for (node, size, channels, stride, skip), encoded in zip(
        nodes[::-1], maps[::-1], strict=True
    ):
        own = kernel("decoder", node, size, skip, channels, x.shape[-1])
        x = convolve_backwards(x, own, stride)
        x = relu(x + encoded if skip else x)
    output = weights["output"][:, :, : x.shape[-1]]
    return convolve_backwards(x, output.reshape(3, 3, *output.shape[1:]), 1)


# The tests ---------------------------------------------------------------------------


class Gradient:
    """Compiled outputs and gradients of a supernet, which count their traces."""

    def __init__(self, space, images, **options):
        self.space, self.images = space, images
        self.net = supernets.autoencoder(space, images.shape[-1], **options)
        self.targets = np.random.default_rng(1).standard_normal(images.shape)
        with jax.enable_x64(True):
            weights = jax.jit(self.net.init)(jax.random.key(0))
            # So that signals do not fade.
            self.weights = {k: 2 * np.asarray(v, float) for k, v in weights.items()}
        self.num_traces = 0
        self.compiled = jax.jit(self._gradient)

    def loss(self, outputs):
        return (outputs * self.targets).sum() + 0.1 * (outputs**2).sum()

    def _gradient(self, weights, arch, images):
        self.num_traces += 1

        def loss(weights, images):
            outputs = self.net.apply(weights, arch, images, train=True)
            return self.loss(outputs), outputs

        gradients, outputs = jax.grad(loss, (0, 1), has_aux=True)(weights, images)
        return outputs, *gradients

    def __call__(self, arch, weights=None):
        weights = self.weights if weights is None else weights
        return self.compiled(weights, jnp.asarray(arch), self.images)

    def archs(self, num, seed=0):
        rng = np.random.default_rng(seed)
        keys = jax.random.split(jax.random.key(seed), num)
        archs = np.asarray(jax.vmap(self.space.sample)(keys)).copy()
        if self.space.integers:  # as a searcher draws them
            split = len(self.space.cardinalities)
            noise = rng.normal(0, 1, archs[:, split:].shape)
            archs[:, split:] += noise.astype(np.float32)
        return archs


@functools.cache
def small(encoding):
    return Gradient(small_space(encoding), IMAGES)


def check_against_reference(gradient, arch, found, name):
    """Outputs equal, and so does the slope of the loss in the direction of an array."""
    outputs, slopes, image_slopes = found
    space, inputs = gradient.space, gradient.weights | {"images": gradient.images}
    expected = reference(space, gradient.weights, arch, gradient.images)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12 * scale)

    direction = np.random.default_rng(2).standard_normal(inputs[name].shape)
    ends = []
    for step in (1e-6, -1e-6):
        moved = inputs | {name: inputs[name] + step * direction}
        outputs = reference(space, moved, arch, moved["images"])
        ends.append(gradient.loss(outputs))
    slope = ((slopes | {"images": image_slopes})[name] * direction).sum()
    quotient = (ends[0] - ends[1]) / 2e-6
    rounding = 1e-8 * abs(ends[0])
    assert float(slope) == pytest.approx(quotient, rel=1e-5, abs=rounding)


ARRAYS = "encoder", "decoder", "output", "images"


@every_encoding
def test_outputs_and_gradients_equal_the_reference(x64, encoding):
    gradient = small(encoding)
    lengths, passed_over = set(), 0
    for i, arch in enumerate(gradient.archs(20)):
        check_against_reference(gradient, arch, gradient(arch), ARRAYS[i % 4])
        nodes = nodes_that_run(gradient.space, arch, *IMAGES.shape[1:3])
        lengths.add(len(nodes))
        passed_over += len(active_nodes(gradient.space, arch)) - len(nodes)
    assert len(lengths) > 2 and passed_over > 0
    assert gradient.num_traces == 1  # one compilation serves them all


@every_encoding
def test_only_reached_weights_are_read_and_have_a_gradient(x64, encoding):
    gradient = small(encoding)
    for arch in gradient.archs(4, seed=1):
        outputs, slopes, _ = gradient(arch)
        nodes = nodes_that_run(gradient.space, arch, *IMAGES.shape[1:3])
        is_reached = np.zeros((8, 2, 35), bool)
        for node, size, _, _, skip in nodes:
            is_reached[node, int(skip), TAPS[size]] = True
        poisoned = dict(gradient.weights)
        for name in ("encoder", "decoder"):
            poisoned[name] = np.where(
                is_reached[..., None, None], gradient.weights[name], np.nan
            )
            own = np.asarray(slopes[name])
            assert not own[~is_reached].any() and own.any()
        others = gradient(arch, poisoned)
        np.testing.assert_array_equal(others[0], outputs)
        for name, slope in others[1].items():
            np.testing.assert_array_equal(slope, slopes[name])
        assert gradient.num_traces == 1


@every_encoding
def test_channels_that_a_node_does_not_have_get_no_gradient(x64, encoding):
    gradient = small(encoding)
    arch = gradient.archs(1, seed=2)[0]
    slopes = gradient(arch)[1]
    before = 3
    for node, size, channels, _, skip in nodes_that_run(gradient.space, arch, 4, 8):
        own = np.asarray(slopes["encoder"])[node, int(skip), TAPS[size]]
        assert not own[:, before:].any() and not own[:, :, channels:].any()
        before = channels


@pytest.mark.parametrize("block", [None, 6])
def test_evaluation_and_larger_blocks_are_the_same(x64, block):
    gradient = small("mixed")
    net = supernets.autoencoder(gradient.space, block=block)
    evaluate = jax.jit(net.apply)
    for arch in gradient.archs(3, seed=3):
        found = evaluate(gradient.weights, arch, IMAGES)
        np.testing.assert_allclose(found, gradient(arch)[0], rtol=1e-9, atol=1e-12)


TINY = np.random.default_rng(0).standard_normal((4, 2, 2, 1))


def test_chunks_of_a_batch(x64, monkeypatch):
    monkeypatch.setattr(_autoencoder_chain, "_BYTES_OF_PIXELS", 2 * 2 * 2 * 8)
    gradient = Gradient(small_space(), TINY)
    for arch, name in zip(gradient.archs(4), ARRAYS, strict=True):
        check_against_reference(gradient, arch, gradient(arch), name)


def test_architectures_at_once(x64):
    gradient = Gradient(small_space("mixed", num_nodes=4), TINY)
    archs = gradient.archs(4)
    at_once = jax.jit(jax.vmap(gradient._gradient, (None, 0, None)))
    found = at_once(gradient.weights, archs, TINY)
    for i, (arch, name) in enumerate(zip(archs, ARRAYS, strict=True)):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        check_against_reference(gradient, arch, one, name)


def squared_error(outputs, batch):
    loss = ((outputs - batch["image"]) ** 2).mean()
    return loss, {"loss": loss}


def test_steps_of_training_on_one_and_on_two_devices():
    space = small_space("mixed", num_nodes=4)
    net = supernets.autoencoder(space, 1)
    batch = {"image": TINY.astype(np.float32)}
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(1), 2))
    task, provider = Task(squared_error), providers.shared(net)
    params = jax.jit(net.init)(jax.random.key(0))
    gradient = jax.jit(train.weight_gradient(net, provider, task))
    slopes, metrics = gradient(params, archs, batch, jax.random.key(0))
    losses = jax.jit(train.evaluation_step(net, provider, task))(params, archs, batch)
    assert losses["loss"].shape == (2,)
    np.testing.assert_allclose(losses["loss"].mean(), metrics["loss"], rtol=1e-5)
    shared = jax.pmap(
        train.weight_gradient(net, provider, task, batch_axis="devices"),
        axis_name="devices",
        in_axes=(None, None, 0, None),
        out_axes=None,
        devices=jax.devices()[:2],
    )
    halves = {"image": batch["image"].reshape(2, 2, 2, 2, 1)}
    others, _ = shared(params, archs, halves, jax.random.key(0))
    for name, slope in slopes.items():
        np.testing.assert_allclose(others[name], slope, rtol=1e-4, atol=1e-7)


# Sizes and errors --------------------------------------------------------------------


@every_encoding
def test_the_published_number_of_weights(encoding):
    net = supernets.autoencoder(spaces.inpainting(encoding))
    weights = jax.eval_shape(net.init, jax.random.key(0))
    # Of 20 nodes, each with kernels of 1, 9 and 25 taps twice, and back; of the output.
    assert {name: leaf.size for name, leaf in weights.items()} == {
        "encoder": 20 * 2 * 35 * 256**2,
        "decoder": 20 * 2 * 35 * 256**2,
        "output": 9 * 3 * 256,
    }
    assert sum(leaf.size for leaf in weights.values()) == 183_507_712
    outputs = trace(net, (16, 64, 64, 3), net.space.num_decisions)
    assert outputs.shape == (16, 64, 64, 3) and outputs.dtype == jnp.float32


def test_initial_weights_have_the_range_of_pytorch():
    net = supernets.autoencoder(small_space())
    weights = jax.jit(net.init)(jax.random.key(0))
    for name in ("encoder", "decoder"):
        for size, taps in TAPS.items():
            largest = np.abs(weights[name][:, :, taps]).max()
            bound = 1 / np.sqrt(6 * size**2)
            assert 0.95 * bound < largest <= bound
    # A transposed convolution to 3 channels.
    bound = 1 / np.sqrt(3 * 9)
    assert 0.9 * bound < np.abs(weights["output"]).max() <= bound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_channels": 0}, "image_channels is 0; expected at least 1"),
        ({"image_channels": 7}, "image_channels is 7; expected at most 6, the most"),
        ({"block": 4}, "block is 4; expected a divisor of 6"),
        ({"block": 0}, "block is 0; expected a divisor of 6"),
    ],
)
def test_refuses_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        supernets.autoencoder(small_space(), **options)


@pytest.mark.parametrize(
    ("num_decisions", "shape", "message"),
    [
        (27, (2, 7, 8, 3), r"images have shape \(2, 7, 8, 3\); .* must be even"),
        (27, (2, 8, 8, 1), r"images have shape \(2, 8, 8, 1\); expected \[B, H, W, 3"),
        (27, (8, 8, 3), r"images have shape \(8, 8, 3\); expected \[B, H, W, 3\]"),
        (33, (2, 8, 8, 3), r"arch has shape \(33,\); expected \(27,\)"),
    ],
)
def test_refuses_wrong_inputs(num_decisions, shape, message):
    net = supernets.autoencoder(small_space())
    with pytest.raises(ValueError, match=message):
        trace(net, shape, num_decisions)
