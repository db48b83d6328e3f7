"""The macro supernet equals a network of one architecture; and what that costs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import trace
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnas import spaces, supernets

LAYERS, CHANNELS, CLASSES, IMAGES = 6, 4, 3, 4
SPACE = spaces.enas_macro(LAYERS)
# Other operations in another order, and quicker to compile.
FEW_OPS = ("max_pool_3x3", "sep_conv_5x5", "conv_3x3")
LABELS = np.arange(IMAGES) % CLASSES


# The reference: library convolutions, one architecture, plain autodiff --------------


def convolve(x, kernel, stride=1, groups=1):
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def pool(x, initial, function):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, initial, function, (1, 3, 3, 1), (1,) * 4, padding)


def affine_norm(x, scale, offset):
    mean, variance = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    scale, offset = scale[None, None, None], offset[None, None, None]
    return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + offset


def operation(name, x, weights):
    def activate(x, norm):
        return jax.nn.relu(
            affine_norm(x, weights["scale"][norm], weights["offset"][norm])
        )

    x = activate(convolve(x, weights["entry"][None, None]), 0)
    if name == "avg_pool_3x3":
        return pool(x, 0.0, lax.add) / pool(jnp.ones_like(x), 0.0, lax.add)
    if name == "max_pool_3x3":
        return pool(x, -jnp.inf, lax.max)
    if name in ("conv_3x3", "conv_5x5"):
        return activate(convolve(x, weights["kernel"]), 1)
    x = convolve(x, weights["depthwise"][:, :, None], groups=x.shape[-1])
    return activate(convolve(x, weights["pointwise"][None, None]), 1)


def halve(x, weights):
    halves = (
        convolve(x, weights["kernel"][0][None, None], 2),
        convolve(x[:, 1:, 1:], weights["kernel"][1][None, None], 2),
    )
    x = jnp.concatenate(halves, -1)
    return affine_norm(x, weights["scale"], weights["offset"])


def join(weights, row, first_kernel, result, sources, chosen):
    """Join what layer k yields, source k to the kernels, with the chosen sources."""
    joined = [*(sources[i] for i in chosen), result]
    if "kernel" in weights:
        rows = [first_kernel + i for i in (*chosen, len(sources) - 1)]
        kernel = jnp.concatenate([weights["kernel"][row] for row in rows])
        x = jax.nn.relu(jnp.concatenate(joined, -1))
        x = convolve(x, kernel[None, None])
    else:
        x = sum(joined)
    return affine_norm(x, weights["scale"][row], weights["offset"][row])


def layers_of(arch):
    """The operation and the skips of every layer, as lists of integers."""
    arch, k = np.asarray(arch).tolist(), 0
    while arch:
        op, *bits = arch[: k + 1]
        yield op, [i for i, bit in enumerate(bits) if bit]
        arch, k = arch[k + 1 :], k + 1


def reference(space, weights, arch, images):
    third = space.num_layers // 3
    stem = weights["stem"]
    x = convolve(images, stem["kernel"])
    sources = [affine_norm(x, stem["scale"], stem["offset"])]
    for k, (op, chosen) in enumerate(layers_of(arch)):
        number = min(k // third, 2)
        stage, position = weights["stages"][number], k - number * third
        if number > 0 and position == 0:
            sources = [
                halve(x, jax.tree.map(lambda leaf, i=i: leaf[i], stage["reductions"]))
                for i, x in enumerate(sources)
            ]
            assert len(sources) == len(stage["reductions"]["scale"])
        name = space.ops[op]
        own = jax.tree.map(lambda leaf, n=position: leaf[n], stage["layers"][name])
        x = operation(name, sources[k], own)
        if k > 0:
            # The first layer of all joins nothing, and has no weights for it.
            before = range(max(number * third, 1), k)
            first_kernel = sum(j + 1 for j in before)
            x = join(stage["joints"], len(before), first_kernel, x, sources, chosen)
        sources.append(x)
    return sources[-1].mean((1, 2)) @ weights["classifier"]["kernel"]


# The tests ---------------------------------------------------------------------------


def vector(ops, joins=lambda k, i: False):
    """The architecture of these operations whose layer k joins source i."""
    layers = ([op, *(int(joins(k, i)) for i in range(k))] for k, op in enumerate(ops))
    return np.array([decision for layer in layers for decision in layer], np.int32)


# Every operation in every stage; no skips, all of them, and some.
ARCHS = {
    "no skips": vector([4, 5, 0, 1, 2, 3]),
    "all skips": vector([5, 4, 3, 2, 1, 0], lambda k, i: True),
    "stem only": vector([2, 3, 4, 5, 0, 1], lambda k, i: i == 0),
    "alternating": vector([3, 2, 5, 0, 5, 4], lambda k, i: (k + i) % 2 == 1),
    "one op": vector([1, 1, 1, 1, 1, 1], lambda k, i: i == k - 1),
}


def make(space, skips, **options):
    """A small supernet, its weights (in double precision) and a batch of images."""
    net = supernets.macro(space, CHANNELS, CLASSES, skips=skips, **options)
    with jax.enable_x64(True):
        key, noise_key, image_key = jax.random.split(jax.random.key(0), 3)
        weights, restore = ravel_pytree(jax.jit(net.init)(key))
        # So that no scale is 1 and no offset 0.
        weights += 0.3 * jax.random.uniform(noise_key, weights.shape)
        images = jax.random.normal(image_key, (IMAGES, 8, 8, 3))
        return net, restore(weights), images


def loss_of(logits):
    return -jax.nn.log_softmax(logits)[jnp.arange(IMAGES), LABELS].mean()


class Gradient:
    """Compiled logits and gradients of a supernet, which count their traces."""

    def __init__(self, skips):
        self.net, self.weights, self.images = make(SPACE, skips)
        self.num_traces = 0
        self.compiled = jax.jit(self._gradient)

    def _gradient(self, weights, arch):
        self.num_traces += 1

        def loss(weights):
            logits = self.net.apply(weights, arch, self.images, train=True)
            return loss_of(logits), logits

        gradient, logits = jax.grad(loss, has_aux=True)(weights)
        return logits, gradient

    def __call__(self, arch):
        return self.compiled(self.weights, jnp.asarray(arch))


@pytest.fixture(scope="module")
def concat():
    return Gradient("concat")


@pytest.fixture(scope="module")
def add():
    return Gradient("add")


@pytest.fixture(params=["concat", "add"])
def gradient(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("arch", ARCHS.values(), ids=ARCHS)
def test_values_and_gradients_equal_the_reference(x64, gradient, arch):
    logits, actual = gradient(arch)

    def loss(weights):
        logits = reference(SPACE, weights, arch, gradient.images)
        return loss_of(logits), logits

    expected, expected_logits = jax.grad(loss, has_aux=True)(gradient.weights)
    chex.assert_shape(logits, (IMAGES, CLASSES))
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-9, atol=1e-11)
    chex.assert_trees_all_close(actual, expected, rtol=1e-8, atol=1e-11)


# The first stage may have one layer, which joins nothing, and the last stage more.
@pytest.mark.parametrize(("num_layers", "skips"), [(3, "add"), (5, "concat")])
def test_values_equal_the_reference_for_other_depths(x64, num_layers, skips):
    space = spaces.MacroSpace(num_layers, FEW_OPS)
    net, weights, images = make(space, skips)
    apply = jax.jit(net.apply)
    for parity, ops in enumerate(([2, 1, 0, 1, 2], [1, 0, 2, 2, 1])):
        arch = vector(ops[:num_layers], lambda k, i, parity=parity: i % 2 == parity)
        np.testing.assert_allclose(
            apply(weights, arch, images),
            reference(space, weights, arch, images),
            rtol=1e-9,
            atol=1e-11,
        )


def test_every_decision_acts(x64, gradient):
    arch = ARCHS["alternating"]
    logits = [gradient(arch)[0]]
    for decision, size in enumerate(SPACE.cardinalities):
        for step in range(1, size):
            changed = arch.copy()
            changed[decision] = (arch[decision] + step) % size
            logits.append(gradient(changed)[0])
    # No two of these architectures agree: 6 * 5 other operations and 15 other skips.
    logits = np.stack(logits).reshape(1 + 30 + 15, -1)
    distances = np.abs(logits[:, None] - logits[None]).max(-1)
    assert distances[~np.eye(len(logits), dtype=bool)].min() > 1e-4


def test_one_compilation_serves_all_architectures(x64, gradient):
    sizes = np.array(SPACE.cardinalities)
    for seed in range(10):
        arch = np.random.default_rng(seed).integers(0, sizes).astype(np.int32)
        assert np.isfinite(gradient(arch)[0]).all()
    assert gradient.num_traces == 1


@pytest.mark.parametrize("name", ["stem only", "alternating"])
def test_only_sampled_weights_have_a_gradient(x64, gradient, name):
    layers = list(layers_of(ARCHS[name]))
    stages = gradient(ARCHS[name])[1]["stages"]
    for number, stage in enumerate(stages):
        numbers = (2 * number, 2 * number + 1)
        for op, leaves in stage["layers"].items():
            sampled = [SPACE.ops[layers[k][0]] == op for k in numbers]
            for leaf in leaves.values():
                used = leaf.any(tuple(range(1, leaf.ndim)))
                np.testing.assert_array_equal(used, sampled, f"{op} {numbers}")
        if "kernel" in stage["joints"]:
            joined = [
                source in layers[k][1] or source == k
                for k in numbers
                for source in range(k + 1)
                if k > 0
            ]
            used = stage["joints"]["kernel"].any((1, 2))
            np.testing.assert_array_equal(used, joined, f"joints {numbers}")
        # A source needs halving if this layer or a later one reads it.
        if number:
            later = range(2 * number, LAYERS)
            read = {i for k in later for i in (*layers[k][1], k)}
            used = stage["reductions"]["kernel"].any((1, 2, 3))
            expected = [i in read for i in range(2 * number + 1)]
            np.testing.assert_array_equal(used, expected, f"reductions {numbers}")


def test_four_devices_equal_one(x64, concat):
    def apply(weights, arch, images):
        return concat.net.apply(weights, arch, images, batch_axis="devices")

    arch = ARCHS["alternating"]
    shards = concat.images.reshape(4, IMAGES // 4, *concat.images.shape[1:])
    logits = jax.pmap(apply, "devices", in_axes=(None, None, 0))(
        concat.weights, arch, shards
    )
    np.testing.assert_allclose(
        logits.reshape(IMAGES, CLASSES), concat(arch)[0], rtol=1e-9, atol=1e-11
    )


# Dropout ------------------------------------------------------------------------------

DROPOUT = 0.3
DROPOUT_ARCH = vector([1, 2, 0], lambda k, i: True)


@pytest.fixture(scope="module")
def dropping():
    """A function of a key and options of `apply`, and the logits without dropout."""
    space = spaces.MacroSpace(3, FEW_OPS)
    net, weights, images = make(space, "add", dropout=DROPOUT)
    with jax.enable_x64(True):
        expected = reference(space, weights, DROPOUT_ARCH, images)

    def logits(key, **options):
        return net.apply(weights, DROPOUT_ARCH, images, key=key, **options)

    return logits, np.asarray(expected)


def test_dropout_keeps_the_mean(x64, dropping):
    logits, expected = dropping
    keys = jax.random.split(jax.random.key(0), 2000)
    train = jax.vmap(functools.partial(logits, train=True))
    dropped = np.asarray(jax.jit(train)(keys))
    assert not np.allclose(dropped[0], dropped[1])
    error = dropped.std(0) / np.sqrt(len(keys))
    assert (np.abs(dropped.mean(0) - expected) < 5 * error).all()
    # Each image drops on its own. With this probability it keeps all, scaled up.
    kept = np.isclose(dropped, expected / (1 - DROPOUT), rtol=1e-9).all(-1)
    probability = (1 - DROPOUT) ** CHANNELS
    error = np.sqrt(probability * (1 - probability) / len(keys))
    np.testing.assert_allclose(kept.mean(0), probability, atol=5 * error)
    np.testing.assert_allclose(kept.all(-1).mean(), probability**IMAGES, atol=0.01)


def test_nothing_is_dropped_in_evaluation(x64, dropping):
    logits, expected = dropping
    evaluate = jax.jit(logits)
    np.testing.assert_allclose(evaluate(jax.random.key(0)), expected, rtol=1e-9)


def test_every_device_drops_features_of_its_own(x64, dropping):
    logits, _ = dropping
    train = jax.vmap(
        functools.partial(logits, train=True, batch_axis="devices"),
        in_axes=None,
        axis_name="devices",
        axis_size=2,
    )
    first, second = jax.jit(train)(jax.random.key(0))
    assert not np.allclose(first, second)


def test_training_with_dropout_needs_a_key(x64, dropping):
    logits, _ = dropping
    with pytest.raises(ValueError, match="key is None; training with dropout needs"):
        jax.eval_shape(functools.partial(logits, train=True), None)


# Where the weights belong -------------------------------------------------------------

# Of four layers the stages have 1, 1 and 2. Nodes: 0 the stem, 2 layer 0, 3 and 4 the
# first reductions, 5 and 6 layer 1, 7 to 9 the second reductions, then two per layer.
SHALLOW = spaces.MacroSpace(4, FEW_OPS)
SKIPS = {(2, 0), (3, 2)}
SHALLOW_ARCH = vector([2, 1, 0, 1], lambda k, i: (k, i) in SKIPS)


@pytest.mark.parametrize("skips", ["concat", "add"])
def test_graph(skips):
    graph_spec = supernets.macro(SHALLOW, CHANNELS, skips=skips).graph_spec
    assert graph_spec is not None
    graph = jax.jit(graph_spec.graph)(SHALLOW_ARCH)
    join, reduction = 4, 5  # after the input and three operations
    kinds = [0, 0, 3, reduction, reduction, 2, join, *[reduction] * 3, 1, join, 2, join]
    assert graph.node_features[0, :, 0].tolist() == kinds
    assert graph_spec.feature_sizes == (6,)
    edges = [
        *((0, 2), (0, 3), (2, 4), (4, 5), (5, 6)),
        *((3, 7), (6, 9), (9, 10), (7, 11), (10, 11)),
        *((11, 12), (9, 13), (12, 13)),
    ]
    assert {(u, v) for u, v in np.argwhere(graph.adjacency[0])} == {*edges}
    # No layer after the second reduction reads source 1.
    assert np.flatnonzero(~np.asarray(graph.node_mask[0])).tolist() == [1, 8]


def test_assignments():
    graph_spec = supernets.macro(SHALLOW, CHANNELS).graph_spec
    assert graph_spec is not None
    stages = jax.jit(graph_spec.assignments)(SHALLOW_ARCH)["stages"]

    def nodes(places):
        assert (places[:, 0] == 0).all()  # there is one block
        return places[:, 1].tolist()

    for stage, numbers in ((1, [3, 4]), (2, [7, 8, 9])):
        assignment = stages[stage]["reductions"]["kernel"]
        assert nodes(assignment.node) == numbers and assignment.source is None
        assert assignment.is_used.tolist() == [number != 8 for number in numbers]
    layers = stages[2]["layers"]
    for name, is_used in zip(FEW_OPS, ((1, 0), (0, 1), (0, 0)), strict=True):
        assignment = layers[name]["entry"]
        assert nodes(assignment.node) == [10, 12] and assignment.source is None
        assert assignment.is_used.tolist() == [*map(bool, is_used)]
    kernel = stages[2]["joints"]["kernel"]
    used = np.flatnonzero(kernel.is_used)
    assert used.tolist() == [0, 2, 3 + 2, 3 + 3]
    assert nodes(kernel.source[used]) == [7, 10, 9, 12]
    assert nodes(kernel.node[used]) == [11, 11, 13, 13]
    scale = stages[2]["joints"]["scale"]
    assert nodes(scale.node) == [11, 13] and scale.source is None
    assert scale.is_used.all()


def test_operations_of_a_stage_share_their_nodes():
    graph_spec = supernets.macro(SHALLOW, CHANNELS).graph_spec
    assert graph_spec is not None
    layers = graph_spec.assignments(jnp.asarray(SHALLOW_ARCH))["stages"][2]["layers"]
    assignments = [assignment for op in layers.values() for assignment in op.values()]
    # Hypernetworks write the kernels of one node array by one product.
    assert all(assignment.node is assignments[0].node for assignment in assignments)


# Sizes and errors ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skips", "joints"),
    [
        # Scales and offsets of all layers but the first; for a concatenation also a
        # 36x36 kernel for each of the 2 + 3 + ... + 12 sources that layers may join.
        ("add", 11 * 72),
        ("concat", 11 * 72 + 36 * 36 * sum(range(2, 13))),
    ],
)
def test_parameter_totals_of_the_published_search(skips, joints):
    net = supernets.macro(spaces.enas_macro(12), 36, 10, skips=skips)
    weights = jax.eval_shape(net.init, jax.random.key(0))

    def total(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    def total_of(part):
        return sum(total(stage.get(part)) for stage in weights["stages"])

    assert total(weights["stem"]) == 1_044
    assert total_of("layers") == 676_512
    assert total_of("joints") == joints
    assert total_of("reductions") == 19_152
    assert total(weights["classifier"]) == 360
    assert total(weights) == 697_068 + joints
    assert total(weights) == {"add": 697_860, "concat": 797_652}[skips]


@pytest.mark.parametrize("num_layers", [3, 7])
def test_output_shape(num_layers):
    space = spaces.enas_macro(num_layers)
    net = supernets.macro(space, 2, 7, image_channels=1)
    logits = trace(net, (2, 4, 8, 1))
    chex.assert_shape(logits, (2, 7))
    chex.assert_type(logits, jnp.float32)


def test_refuses_fewer_than_three_layers():
    with pytest.raises(
        ValueError, match="has 2 layers; two reductions need at least 3"
    ):
        supernets.macro(spaces.enas_macro(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 3}, "channels is 3; expected a positive even number"),
        ({"channels": 0}, "channels is 0; expected a positive even number"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"image_channels": 0}, "image_channels is 0; expected at least 1"),
        ({"skips": "sum"}, "skips is 'sum'; expected 'concat' or 'add'"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 or more, below 1"),
        ({"dropout": -0.1}, "dropout is -0.1; expected 0 or more, below 1"),
    ],
)
def test_refuses_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        supernets.macro(SPACE, **options)


@pytest.mark.parametrize(
    ("decisions", "shape", "message"),
    [
        (21, (2, 6, 8, 3), r"images have shape \(2, 6, 8, 3\); .* divisible by 4"),
        (21, (2, 8, 10, 3), r"images have shape \(2, 8, 10, 3\); .* divisible by 4"),
        (21, (8, 8, 3), r"images have shape \(8, 8, 3\); expected \[B, H, W, C\]"),
        (78, (2, 8, 8, 3), r"arch has shape \(78,\); expected \(21,\)"),
    ],
)
def test_refuses_wrong_inputs(decisions, shape, message):
    net = supernets.macro(SPACE, CHANNELS, CLASSES)
    with pytest.raises(ValueError, match=message):
        trace(net, shape, decisions)
