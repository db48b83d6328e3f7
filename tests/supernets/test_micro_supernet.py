"""The micro supernet equals a network of one architecture; and what that costs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import trace
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnas import spaces, supernets
from jaxnas.supernets.micro_supernet import Skeleton

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


def normalize(x):
    mean = x.mean((0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)


def pool(x, initial, function, stride):
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, initial, function, window, strides, padding)


def affine(x, weights):
    """The learned scale and offset after a normalization, if there are any."""
    if "scale" not in weights:
        return x
    scale, offset = weights["scale"], weights["offset"]
    return x * scale[None, None, None] + offset[None, None, None]


def shrink_or_project(x, kernel):
    """Convolution and normalization; `kernel` is `[C, D]` or `[2, C, D / 2]`."""
    if kernel.ndim == 2:
        return normalize(convolve(x, kernel[None, None]))
    halves = (
        convolve(x, kernel[0][None, None], 2),
        convolve(x[:, 1:, 1:], kernel[1][None, None], 2),
    )
    return normalize(jnp.concatenate(halves, -1))


def operation(name, x, weights, stride, counts_padding=True):
    if name == "skip_connect":
        if stride == 1:
            return x
        return shrink_or_project(jax.nn.relu(x), weights["kernel"])
    if name == "avg_pool_3x3":
        ones = jnp.ones_like(x)
        counts = 9 if counts_padding else pool(ones, 0.0, lax.add, stride)
        return pool(x, 0.0, lax.add, stride) / counts
    if name == "max_pool_3x3":
        return pool(x, -jnp.inf, lax.max, stride)
    for layer, step in enumerate((stride, 1)):
        own = at(weights, layer)
        x = convolve(jax.nn.relu(x), own["depthwise"][:, :, None], step, x.shape[-1])
        x = normalize(convolve(x, own["pointwise"][None, None]))
        x = affine(x, own)
    return x


def at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def stages_and_cells(weights, num_cells):
    """Number and weights of the stage of each cell, and its number in there."""
    borders = [0, num_cells // 3, 2 * num_cells // 3, num_cells]
    for number, stage in enumerate(weights["stages"]):
        for k in range(borders[number + 1] - borders[number]):
            yield number, stage, k


def asng_cells(weights, num_cells):
    """Weights of each cell, and whether it reduces, in the order of the network.

    Yields `(reduces, preprocess_0, preprocess_1, tables, output)`, where `tables`
    holds the operations on cell inputs and those on nodes, each with the function
    from (node, source) to a row.
    """
    for number, stage, k in stages_and_cells(weights, num_cells):
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


def asng_output(space, num_cells, weights, cells, x):
    """What the cells yield, all of whose inputs are preprocessed."""
    outputs = [x, x]
    for reduces, before, last, tables, output in asng_cells(weights, num_cells):
        states = [
            shrink_or_project(jax.nn.relu(outputs[-2]), before),
            shrink_or_project(jax.nn.relu(outputs[-1]), last),
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
        outputs.append(shrink_or_project(jax.nn.relu(joined), kernel))
    return outputs[-1]


def enas_output(space, num_cells, weights, cells, x):
    """What the cells yield, whose inputs are calibrated where their shapes differ."""

    def calibrate(x, weights):
        return affine(shrink_or_project(x, weights["kernel"]), weights)

    num_rows = space.num_nodes * (space.num_nodes + 3) // 2
    before = last = x
    for number, stage, k in stages_and_cells(weights, num_cells):
        inputs, reduces = stage["inputs"], number > 0 and k == 0
        if reduces:
            assert len(inputs) == 2
            before, last = last, calibrate(last, inputs[1])
            next_before = last
            states = [calibrate(jax.nn.relu(before), inputs[0]), last]
        else:
            next_before = last
            states = [before, last]
            # The two inputs of the first cell and one of the second are the stem.
            if number == 0 and k < 2:
                states[0] = calibrate(jax.nn.relu(before), inputs[2 if k else 0])
            if number == 0 and k < 1:
                states[1] = calibrate(jax.nn.relu(last), inputs[1])
        for n, (*sources, op_1, op_2) in enumerate(cells[int(reduces)]):
            node = 0.0
            for side, (source, op) in enumerate(
                zip(sources, (op_1, op_2), strict=True)
            ):
                row = side * num_rows + n * (n + 3) // 2 + source
                edge = at(at(stage["edges"][space.ops[op]], k), row)
                node += operation(space.ops[op], states[source], edge, 1, False)
            states.append(node)
        read = {source for *sources, _, _ in cells[int(reduces)] for source in sources}
        loose = [i for i in range(len(states)) if i not in read]
        joined = jnp.concatenate([states[i] for i in loose], -1)
        output = at(stage["output"], k)
        kernel = jnp.concatenate([output["kernel"][i] for i in loose])
        y = shrink_or_project(jax.nn.relu(joined), kernel)
        before, last = next_before, affine(y, output)
    return jax.nn.relu(last)


def reference(skeleton, space, num_cells, weights, arch, images):
    cells = np.asarray(arch).reshape(2, space.num_nodes, 4).tolist()
    stem, classifier = weights["stem"], weights["classifier"]
    x = affine(normalize(convolve(images, stem["kernel"])), stem)
    output = {"asng": asng_output, "enas": enas_output}[skeleton]
    x = output(space, num_cells, weights, cells, x)
    logits = x.mean((1, 2)) @ classifier["kernel"]
    return logits + classifier["bias"][None] if "bias" in classifier else logits


# The tests ---------------------------------------------------------------------------


def make(num_cells, space=SPACE, skeleton: Skeleton = "asng"):
    """A small supernet, its weights (in double precision) and a batch of images."""
    net = supernets.micro(space, CHANNELS, num_cells, CLASSES, skeleton=skeleton)
    with jax.enable_x64(True):
        key, noise_key, image_key = jax.random.split(jax.random.key(0), 3)
        weights, restore = ravel_pytree(jax.jit(net.init)(key))
        # Constants, the scales of 1 and offsets of 0, become random too.
        noise = jax.random.uniform(noise_key, weights.shape)
        weights += jnp.where((weights == 0) | (weights == 1), noise, 0)
        images = jax.random.normal(image_key, (IMAGES, 8, 8, 3))
        return net, restore(weights), images


def loss_of(logits, labels):
    return -jax.nn.log_softmax(logits)[jnp.arange(labels.size), labels].mean()


LABELS = np.arange(IMAGES) % CLASSES


class Step:
    """A compiled training step that counts how often it is traced."""

    def __init__(self, num_cells, space=SPACE, skeleton: Skeleton = "asng"):
        self.net, self.weights, self.images = make(num_cells, space, skeleton)
        self.num_cells, self.space, self.skeleton = num_cells, space, skeleton
        self.num_traces = 0
        self.compiled = jax.jit(self._step)

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

    def reference(self, arch):
        """Logits and gradients by the reference."""

        def loss(weights):
            logits = reference(
                self.skeleton, self.space, self.num_cells, weights, arch, self.images
            )
            return loss_of(logits, LABELS), logits

        gradient, logits = jax.grad(loss, has_aux=True)(self.weights)
        return logits, gradient


@pytest.fixture(scope="module")
def step():
    return Step(num_cells=5)


def random_arch(seed, space=SPACE):
    sizes = np.array(space.cardinalities)
    return np.random.default_rng(seed).integers(0, sizes).astype(np.int32)


def assert_equals_the_reference(step, arch):
    _, _, logits, gradient = step(arch)
    expected_logits, expected_gradient = step.reference(arch)
    chex.assert_shape(logits, (IMAGES, CLASSES))
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-9, atol=1e-11)
    chex.assert_trees_all_close(gradient, expected_gradient, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_values_and_gradients_equal_the_reference(x64, step, seed):
    assert_equals_the_reference(step, random_arch(seed))


# One cell a stage has no `second` cell; three cells use every preprocessing. In the
# skeleton of ENAS, four cells have no second cell that reads the stem.
@pytest.mark.parametrize(
    ("skeleton", "num_cells"), [("asng", 3), ("asng", 8), ("enas", 4), ("enas", 8)]
)
def test_values_equal_the_reference_for_other_depths(x64, skeleton, num_cells):
    space = spaces.MicroSpace(2, ("avg_pool_3x3", "sep_conv_3x3", "skip_connect"))
    net, weights, images = make(num_cells, space, skeleton)
    apply = jax.jit(net.apply)
    for seed in range(2):
        arch = random_arch(seed, space)
        np.testing.assert_allclose(
            apply(weights, arch, images),
            reference(skeleton, space, num_cells, weights, arch, images),
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


# The skeleton of ENAS ----------------------------------------------------------------

# In another order than usual, and quicker to compile than all.
ENAS_SPACE = spaces.MicroSpace(
    3, ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "avg_pool_3x3")
)
# No node of the normal cell reads input 0, none of the other input 1.
ENAS_ARCH = (
    *((1, 1, 0, 3), (1, 2, 0, 1), (2, 2, 2, 0)),
    *((0, 0, 0, 0), (0, 2, 3, 0), (3, 3, 1, 0)),
)
ENAS_ENDS = ([0, 3, 4], [1, 4])


@pytest.fixture(scope="module")
def enas():
    return Step(num_cells=6, space=ENAS_SPACE, skeleton="enas")


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(np.array(ENAS_ARCH).reshape(-1), id="by hand"),
        *(pytest.param(random_arch(seed, ENAS_SPACE), id=str(seed)) for seed in (0, 1)),
    ],
)
def test_enas_values_and_gradients_equal_the_reference(x64, enas, arch):
    assert_equals_the_reference(enas, arch)
    assert enas.num_traces == 1


def swapped(cells):
    """The same cells with the two edges of every node swapped."""
    return np.asarray(cells).reshape(-1, 4)[:, [1, 0, 3, 2]]


def test_the_edges_of_a_node_have_their_own_weights(x64, enas, step):
    logits = enas(ENAS_ARCH)[2]
    assert np.abs(enas(swapped(ENAS_ARCH))[2] - logits).max() > 1e-3
    # Not so in the skeleton of ASNG-NAS.
    expected = step(BY_HAND)[2]
    np.testing.assert_allclose(step(swapped(BY_HAND))[2], expected, rtol=1e-9)


def test_only_sampled_weights_of_enas_have_a_gradient(x64, enas):
    num_rows = 9  # node n has n + 2 inputs
    cells = np.reshape(ENAS_ARCH, (2, 3, 4)).tolist()
    gradient = enas(ENAS_ARCH)[3]
    for number, stage, k in stages_and_cells(gradient, 6):
        kind = int(number > 0 and k == 0)
        sampled = np.zeros((len(ENAS_SPACE.ops), 2 * num_rows), bool)
        for n, (input_1, input_2, op_1, op_2) in enumerate(cells[kind]):
            sampled[op_1, n * (n + 3) // 2 + input_1] = True
            sampled[op_2, n * (n + 3) // 2 + input_2 + num_rows] = True
        for name, leaves in stage["edges"].items():
            expected = sampled[ENAS_SPACE.ops.index(name)]
            for weight, leaf in leaves.items():
                used = leaf[k].any(tuple(range(1, leaf.ndim - 1)))
                np.testing.assert_array_equal(used, expected, f"{name} {weight}")
        joined = stage["output"]["kernel"][k].any((1, 2))
        assert np.flatnonzero(joined).tolist() == ENAS_ENDS[kind]


def test_enas_normalizes_over_all_devices(x64, enas):
    def apply(images):
        arch = jnp.array(ENAS_ARCH, jnp.int32).reshape(-1)
        return enas.net.apply(enas.weights, arch, images, batch_axis="devices")

    shards = enas.images.reshape(2, IMAGES // 2, *enas.images.shape[1:])
    sharded = jax.jit(jax.vmap(apply, axis_name="devices"))
    np.testing.assert_allclose(
        sharded(shards).reshape(IMAGES, CLASSES), enas(ENAS_ARCH)[2], rtol=1e-9
    )


def test_parameter_totals_of_the_published_enas_search():
    net = supernets.micro(spaces.enas_micro(5), 20, 8, 10, skeleton="enas")
    weights = jax.eval_shape(net.init, jax.random.key(0))

    def total(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    cells = []
    for number, stage, k in stages_and_cells(weights, 8):
        stacked = {"edges": stage["edges"], "output": stage["output"]}
        num_cells = {leaf.shape[0] for leaf in jax.tree.leaves(stacked)}
        assert num_cells == {2 if number == 0 else 3}
        # The first cell calibrates two inputs, the second that of the stem, if any.
        inputs = stage["inputs"][:2] if k == 0 else stage["inputs"][1 + k : 2 + k]
        cells.append(total(stacked) // num_cells.pop() + total(inputs))
    assert cells == [
        *(130_120, 128_880),
        *(390_640, 388_880, 388_880),
        *(1_318_880, 1_312_160, 1_312_160),
    ]
    assert total(weights["stem"]) == 1_740
    assert total(weights["classifier"]) == 800
    assert total(weights) == 5_373_140


# Sizes and errors ---------------------------------------------------------------------


@pytest.mark.parametrize("skeleton", ["asng", "enas"])
@pytest.mark.parametrize("num_nodes", [1, 4])
@pytest.mark.parametrize("num_cells", [3, 4, 6])
def test_output_shape(skeleton, num_nodes, num_cells):
    space = spaces.enas_micro(num_nodes)
    net = supernets.micro(space, 2, num_cells, 7, skeleton=skeleton, image_channels=1)
    logits = trace(net, (2, 4, 8, 1), 8 * num_nodes)
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
        ({"skeleton": "darts"}, "skeleton is 'darts'; expected 'asng' or 'enas'"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 or more, below 1"),
        ({"dropout": -0.1}, "dropout is -0.1; expected 0 or more, below 1"),
    ],
)
def test_refuses_wrong_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        supernets.micro(SPACE, **options)


@pytest.mark.parametrize(
    ("decisions", "shape", "message"),
    [
        (24, (2, 7, 8, 3), "height and width must be divisible by 4"),
        (24, (2, 8, 6, 3), "height and width must be divisible by 4"),
        (24, (2, 10, 10, 3), "height and width must be divisible by 4"),
        (24, (8, 8, 3), r"images have shape \(8, 8, 3\); expected \[B, H, W, C\]"),
        (40, (2, 8, 8, 3), r"arch has shape \(40,\); expected \(24,\)"),
    ],
)
@pytest.mark.parametrize("skeleton", ["asng", "enas"])
def test_refuses_wrong_inputs(skeleton, decisions, shape, message):
    net = supernets.micro(SPACE, CHANNELS, 3, CLASSES, skeleton=skeleton)
    with pytest.raises(ValueError, match=message):
        trace(net, shape, decisions)


@pytest.mark.parametrize("skeleton", ["asng", "enas"])
def test_training_with_dropout_needs_a_key(skeleton):
    net = supernets.micro(SPACE, CHANNELS, 3, CLASSES, skeleton=skeleton, dropout=0.1)
    trace(net, (2, 8, 8, 3), 24)
    with pytest.raises(ValueError, match="key is None; training with dropout needs"):
        trace(net, (2, 8, 8, 3), 24, train=True)
