"""The micro supernet equals a network of one architecture; and what that costs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas import spaces, supernets

SPACE = spaces.enas_micro(3)
CHANNELS, CLASSES, IMAGES = 4, 3, 4

# Per node (input_1, input_2, op_1, op_2). In both cells node 0 joins the cell's
# inputs, so that every cell has an influence on the output.
BY_HAND = (
    *((0, 1, 3, 4), (0, 2, 3, 0), (2, 2, 4, 4)),
    *((1, 0, 3, 3), (1, 2, 4, 3), (0, 1, 0, 2)),
)


# The reference: library convolutions, one architecture, plain autodiff --------------


def convolve(x, kernel, stride=1, groups=1):
    padding = [(kernel.shape[0] // 2,) * 2, (kernel.shape[1] // 2,) * 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def normalise(x):
    mean = x.mean((0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)


def pool(x, initial, function, stride):
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, initial, function, window, strides, padding)


def shrink_or_project(x, kernel):
    """ReLU, convolution and normalisation; `kernel` is `[C, D]` or `[2, C, D / 2]`."""
    x = jax.nn.relu(x)
    if kernel.ndim == 2:
        return normalise(convolve(x, kernel[None, None]))
    halves = (
        convolve(x, kernel[0][None, None], 2),
        convolve(x[:, 1:, 1:], kernel[1][None, None], 2),
    )
    return normalise(jnp.concatenate(halves, -1))


def operation(name, x, weights, stride):
    if name == "skip_connect":
        return x if stride == 1 else shrink_or_project(x, weights["kernel"])
    if name == "avg_pool_3x3":
        return pool(x, 0.0, lax.add, stride) / 9
    if name == "max_pool_3x3":
        return pool(x, -jnp.inf, lax.max, stride)
    for layer, step in enumerate((stride, 1)):
        depthwise = weights["depthwise"][layer][:, :, None]
        x = convolve(jax.nn.relu(x), depthwise, step, x.shape[-1])
        x = normalise(convolve(x, weights["pointwise"][layer][None, None]))
    return x


def at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def cell_weights(weights, num_cells):
    """Weights of each cell, and whether it reduces, in the order of the network.

    Yields `(reduces, preprocess_0, preprocess_1, tables, output)`, where `tables`
    holds the operations on cell inputs and those on nodes, each with the function
    from (node, source) to a row.
    """
    borders = [0, num_cells // 3, 2 * num_cells // 3, num_cells]

    for number, stage in enumerate(weights["stages"]):
        for k in range(borders[number + 1] - borders[number]):
            if k == 0:
                before = stage["first"]["preprocess_0"]
                last = stage["first"]["preprocess_1"]
            else:
                last = stage["preprocess_1"][k - 1]
                before = (
                    stage["second"]["preprocess_0"]
                    if k == 1
                    else stage["preprocess_0"][k - 2]
                )
            reduces = number > 0 and k == 0
            if reduces:
                tables = (
                    (stage["reduction"]["from_inputs"], lambda n, j: 2 * n + j),
                    (
                        stage["reduction"]["from_nodes"],
                        lambda n, j: n * (n - 1) // 2 + j - 2,
                    ),
                )
            else:
                table = at(stage["normal"], k - (number > 0))
                tables = ((table, lambda n, j: n * (n + 3) // 2 + j),) * 2
            yield reduces, before, last, tables, stage["output"][k]


def reference(space, num_cells, weights, arch, images):
    cells = np.asarray(arch).reshape(2, space.num_nodes, 4).tolist()
    stem = weights["stem"]
    x = normalise(convolve(images, stem["kernel"]))
    outputs = [x * stem["scale"][None, None, None] + stem["offset"][None, None, None]] * 2
    for reduces, before, last, tables, output in cell_weights(weights, num_cells):
        states = [
            shrink_or_project(outputs[-2], before),
            shrink_or_project(outputs[-1], last),
        ]
        read = set()
        for n, (*sources, op_1, op_2) in enumerate(cells[int(reduces)]):
            node = []
            for source, op in zip(sources, (op_1, op_2), strict=True):
                name, (table, row) = space.ops[op], tables[int(source >= 2)]
                edge = at(table[name], row(n, source))
                stride = 2 if reduces and source < 2 else 1
                node.append(operation(name, states[source], edge, stride))
            states.append(node[0] + node[1])
            read |= set(sources)
        loose = [n for n in range(space.num_nodes) if n + 2 not in read]
        joined = jnp.concatenate([states[n + 2] for n in loose], -1)
        kernel = jnp.concatenate([output[n] for n in loose])
        outputs.append(shrink_or_project(joined, kernel))
    classifier = weights["classifier"]
    logits = outputs[-1].mean((1, 2)) @ classifier["kernel"]
    return logits + classifier["bias"][None]


# The tests ---------------------------------------------------------------------------


def make(num_cells, space=SPACE, seed=0):
    """A small supernet, its weights (in double precision) and a batch of images."""
    net = supernets.micro(space, CHANNELS, num_cells, CLASSES)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), 4)
        weights = jax.jit(net.init)(keys[0])
        for name, key in zip(("scale", "offset"), keys[1:3], strict=True):
            weights["stem"][name] += jax.random.uniform(key, (3 * CHANNELS,))
        images = jax.random.normal(keys[3], (IMAGES, 8, 8, 3))
    return net, weights, images


def loss_of(logits, labels):
    return -jax.nn.log_softmax(logits)[jnp.arange(labels.size), labels].mean()


LABELS = np.arange(IMAGES) % CLASSES


class Step:
    """A compiled training step that counts how often it is traced."""

    def __init__(self, num_cells):
        self.net, self.weights, self.images = make(num_cells)
        self.num_traces = 0
        # Compiling takes most of the time of these tests: a third less like this.
        options = {"xla_backend_optimization_level": 0}
        self.compiled = jax.jit(self._step, compiler_options=options)

    def loss(self, weights, arch, images, labels, batch_axis=None):
        logits = self.net.apply(
            weights, arch, images, train=True, batch_axis=batch_axis
        )
        return loss_of(logits, labels), logits

    def _step(self, weights, arch, images, labels):
        self.num_traces += 1
        (loss, logits), gradient = jax.value_and_grad(self.loss, has_aux=True)(
            weights, arch, images, labels
        )
        updated = jax.tree.map(lambda w, g: w - 0.01 * g, weights, gradient)
        return updated, loss, logits, gradient

    def __call__(self, arch, weights=None, images=None):
        return self.compiled(
            self.weights if weights is None else weights,
            jnp.asarray(arch, jnp.int32).reshape(-1),
            self.images if images is None else images,
            LABELS,
        )


@pytest.fixture(scope="module")
def step():
    return Step(num_cells=5)


def random_arch(seed, space=SPACE):
    sizes = np.array(space.cardinalities)
    return np.random.default_rng(seed).integers(0, sizes).astype(np.int32)


@pytest.mark.parametrize("seed", range(4))
def test_values_and_gradients_equal_the_reference(x64, step, seed):
    arch = random_arch(seed)
    _, _, logits, gradient = step(arch)

    def loss(weights):
        logits = reference(SPACE, 5, weights, arch, step.images)
        return loss_of(logits, LABELS), logits

    expected_gradient, expected_logits = jax.grad(loss, has_aux=True)(step.weights)
    chex.assert_shape(logits, (IMAGES, CLASSES))
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-9, atol=1e-11)
    chex.assert_trees_all_close(gradient, expected_gradient, rtol=1e-8, atol=1e-11)


# One cell a stage has no `second` cell; three cells use every preprocessing.
@pytest.mark.parametrize("num_cells", [3, 8])
def test_values_equal_the_reference_for_other_depths(x64, num_cells):
    space = spaces.enas_micro(2)
    net, weights, images = make(num_cells, space)
    apply = jax.jit(net.apply)
    for seed in range(2):
        arch = random_arch(seed, space)
        np.testing.assert_allclose(
            apply(weights, arch, images),
            reference(space, num_cells, weights, arch, images),
            rtol=1e-9,
            atol=1e-11,
        )


def test_one_compilation_serves_all_architectures(x64, step):
    weights, losses = step.weights, []
    for seed in range(50):
        weights, loss, _, _ = step(random_arch(100 + seed), weights)
        losses.append(float(loss))
    assert step.num_traces == 1
    assert np.isfinite(losses).all()
    assert len(set(losses)) == 50


def test_training_one_architecture_lowers_its_loss(x64, step):
    weights, losses = step.weights, []
    for _ in range(20):
        weights, loss, _, _ = step(BY_HAND, weights)
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]


def test_only_sampled_weights_have_a_gradient(x64, step):
    _, _, _, gradient = step(BY_HAND)
    # Rows: from inputs 2 * node + source; from nodes (1, 2), (2, 2), (2, 3); in normal
    # cells (0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), ... (2, 3).
    sampled = {
        ("normal", "sep_conv_3x3"): {0, 2},
        ("normal", "sep_conv_5x5"): {1, 7},
        ("from_inputs", "sep_conv_3x3"): {0, 1},
        ("from_inputs", "sep_conv_5x5"): {3},
        ("from_inputs", "skip_connect"): {4},
        ("from_nodes", "sep_conv_3x3"): {0},
    }

    def assert_rows(place, table, axes):
        for op, leaves in table.items():
            for leaf in leaves.values():
                used = leaf.any(tuple(range(axes, leaf.ndim)))
                rows = np.zeros(leaf.shape[axes - 1], bool)
                rows[list(sampled.get((place, op), ()))] = True
                expected = np.broadcast_to(rows, leaf.shape[:axes])
                np.testing.assert_array_equal(used, expected, f"{place} {op}")

    for stage in gradient["stages"]:
        assert_rows("normal", stage["normal"], 2)
        for place, table in stage.get("reduction", {}).items():
            assert_rows(place, table, 1)
        # Which nodes nothing reads: 1 and 2 in the normal, 1 and 2 in the other cell.
        loose = stage["output"].any((2, 3))
        np.testing.assert_array_equal(loose, [[False, True, True]] * len(loose))


def test_an_output_depends_on_the_other_images(x64, step):
    first, other = step.images[:1], -2 * step.images[1:]
    logits = step(BY_HAND)[2]
    changed = step(BY_HAND, images=jnp.concatenate([first, other]))[2]
    assert not np.allclose(logits[0], changed[0], rtol=1e-2)
    # But not on where in the batch they are.
    rolled = step(BY_HAND, images=jnp.roll(step.images, 1, 0))[2]
    np.testing.assert_allclose(rolled, jnp.roll(logits, 1, 0), rtol=1e-9)


def test_four_devices_equal_one(x64, step):
    def apply(weights, arch, images):
        return step.net.apply(weights, arch, images, batch_axis="devices")

    arch = np.array(BY_HAND, np.int32).reshape(-1)
    shards = step.images.reshape(4, IMAGES // 4, *step.images.shape[1:])
    logits = jax.pmap(apply, "devices", in_axes=(None, None, 0))(
        step.weights, arch, shards
    )
    np.testing.assert_allclose(
        logits.reshape(IMAGES, CLASSES), step(BY_HAND)[2], rtol=1e-9, atol=1e-11
    )


def test_parameter_total_of_the_published_search():
    net = supernets.micro(spaces.enas_micro(5), 16, 8, 10)
    weights = jax.eval_shape(net.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 1_863_162


@pytest.mark.parametrize("num_nodes", [1, 4])
@pytest.mark.parametrize("num_cells", [3, 4, 6])
def test_output_shape(num_nodes, num_cells):
    space = spaces.enas_micro(num_nodes)
    net = supernets.micro(space, 2, num_cells, 7, image_channels=1)
    weights = jax.eval_shape(net.init, jax.random.key(0))
    arch = jax.ShapeDtypeStruct((8 * num_nodes,), jnp.int32)
    images = jax.ShapeDtypeStruct((2, 4, 8, 1), jnp.float32)
    logits = jax.eval_shape(net.apply, weights, arch, images)
    chex.assert_shape(logits, (2, 7))
    chex.assert_type(logits, jnp.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cells": 2}, "num_cells is 2; two reductions need at least 3"),
        ({"channels": 3}, "channels is 3; expected a positive even number"),
        ({"channels": 0}, "channels is 0; expected a positive even number"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"image_channels": 0}, "image_channels is 0; expected at least 1"),
    ],
)
def test_refuses_wrong_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        supernets.micro(SPACE, **options)


@pytest.mark.parametrize("size", [(7, 8), (8, 6), (10, 10)])
@pytest.mark.parametrize("num_cells", [3, 8])
def test_refuses_images_that_cannot_be_halved_twice(size, num_cells):
    net = supernets.micro(SPACE, CHANNELS, num_cells, CLASSES)
    weights = jax.eval_shape(net.init, jax.random.key(0))
    arch = jax.ShapeDtypeStruct((24,), jnp.int32)
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    with pytest.raises(ValueError, match="height and width must be divisible by 4"):
        jax.eval_shape(net.apply, weights, arch, images)
