"""The supernet of blocks equals a network of one block; and says what belongs where."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import trace
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnas import genotypes, ops, spaces, supernets
from jaxnas.types import NodeAssignment

CHANNELS, CLASSES, IMAGES = 2, 3, 4
FEW_OPS = ("max_pool_3x3", "conv_1x1", "skip_connect")
LABELS = np.arange(IMAGES) % CLASSES


# The reference: library convolutions, one architecture, plain autodiff ---------------


def convolve(x, kernel, *, dilation=1, groups=1):
    padding = [(dilation * (size // 2),) * 2 for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def pool(x, initial, function):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, initial, function, (1, 3, 3, 1), (1,) * 4, padding)


def normalize(x):
    mean, variance = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)


def operation(name, x, weights):
    if name == "skip_connect":
        return x
    if name == "max_pool_3x3":
        return pool(x, -jnp.inf, lax.max)
    if name == "avg_pool_3x3":
        return pool(x, 0.0, lax.add) / pool(jnp.ones_like(x), 0.0, lax.add)
    if name == "conv_1x1":
        return normalize(convolve(jax.nn.relu(x), weights["kernel"][None, None]))
    if name == "conv_7x1_1x7":
        x = convolve(jax.nn.relu(x), weights["kernel_1x7"])
        return normalize(convolve(x, weights["kernel_7x1"]))
    dilation = 2 if name.startswith("dil") else 1
    pairs = zip(weights["depthwise"], weights["pointwise"], strict=True)
    for depthwise, pointwise in pairs:
        depthwise, groups = depthwise[:, :, None], x.shape[-1]
        x = convolve(jax.nn.relu(x), depthwise, dilation=dilation, groups=groups)
        x = normalize(convolve(x, pointwise[None, None]))
    return x


def bottleneck(leaves, kernels, stride):
    x = jax.nn.relu(jnp.concatenate(leaves, -1))[:, ::stride, ::stride]
    return normalize(convolve(x, jnp.concatenate(kernels)[None, None]))


def reference(max_nodes, num_blocks, node_input, weights, genotype, images):
    leaves = genotypes.dag_leaves(genotype)
    starts = [0, num_blocks // 3, 2 * num_blocks // 3]
    stem = weights["stem"]
    x = normalize(convolve(images, stem["kernel"]))
    x = x * stem["scale"][None, None, None] + stem["offset"][None, None, None]
    outputs = {-2: [x], -1: [x]}
    for block in range(num_blocks):
        number = sum(block >= start for start in starts) - 1
        stage, position = weights["stages"][number], block - starts[number]
        nodes = []
        for node in range(2):
            source = block - 1 - node
            if position > node:
                kernels = stage[f"input_{node}"][position - 1 - node]
            else:
                name = f"{('first', 'second')[position]}_{node}"
                kernels = stage["entry"][name]
            rows = [0] if source < 0 else [leaf - 2 for leaf in leaves]
            assert len(kernels) == (1 if source < 0 else max_nodes - 2)
            # Whatever is read has the resolution of its own stage.
            stride = 2 ** sum(max(source, 0) < start <= block for start in starts)
            chosen = [kernels[row] for row in rows]
            nodes.append(bottleneck(outputs[source], chosen, stride))
        pairs = zip(genotype.ops, genotype.inputs, strict=True)
        for row, (name, inputs) in enumerate(pairs):
            table = stage["nodes"][name]
            own = {key: leaf[position, row] for key, leaf in table.items()}
            read = [nodes[i] for i in inputs]
            if node_input == "sum":
                read = [sum(read)]
            nodes.append(sum(operation(name, x, own) for x in read))
        outputs[block] = [nodes[leaf] for leaf in leaves]
    kernels = [weights["head"][leaf - 2] for leaf in leaves]
    x = jax.nn.relu(bottleneck(outputs[num_blocks - 1], kernels, 1)).mean((1, 2))
    return x @ weights["classifier"]["kernel"] + weights["classifier"]["bias"][None]


# The supernets under test -------------------------------------------------------------


def compiled(function):
    return jax.jit(function)


def graph_spec_of(net):
    assert net.graph_spec is not None
    return net.graph_spec


class Net:
    """A small supernet with weights; what is compiled of it counts its traces."""

    def __init__(self, space, num_blocks, node_input):
        self.space, self.num_blocks, self.node_input = space, num_blocks, node_input
        self.net = supernets.dag(
            space, CHANNELS, num_blocks, CLASSES, node_input=node_input
        )
        with jax.enable_x64(True):
            key, noise_key, image_key = jax.random.split(jax.random.key(0), 3)
            weights, restore = ravel_pytree(compiled(self.net.init)(key))
            # So that no scale is 1 and no offset 0.
            weights += 0.3 * jax.random.uniform(noise_key, weights.shape)
            self.weights = restore(weights)
            self.images = jax.random.normal(image_key, (IMAGES, 8, 8, 3))
        self.num_traces = 0
        self._logits = compiled(self._apply)
        self._gradient = compiled(lambda w, arch: gradient(self._apply, w, arch))

    def _apply(self, weights, arch):
        self.num_traces += 1
        return self.net.apply(weights, arch, self.images, train=True)

    def logits(self, genotype):
        return self._logits(self.weights, self.space.encode(genotype))

    def gradient(self, genotype):
        """Logits and the gradient of the weights."""
        return self._gradient(self.weights, self.space.encode(genotype))

    def reference(self, genotype):
        """The same function of weights alone, for one architecture."""
        return lambda weights, arch=None: reference(
            self.space.max_nodes,
            self.num_blocks,
            self.node_input,
            weights,
            genotype,
            self.images,
        )


def gradient(apply, weights, arch=None):
    def loss(weights):
        logits = apply(weights, arch)
        picked = jax.nn.log_softmax(logits)[jnp.arange(IMAGES), LABELS]
        return -picked.mean(), logits

    gradient, logits = jax.grad(loss, has_aux=True)(weights)
    return logits, gradient


# All operations; 2, 3 and 3 blocks in the stages.
FULL = spaces.ghn_dag(7)
# Quicker to compile; with room for a node that is not there.
FEW = spaces.DagSpace(5, 6, 0.4, FEW_OPS)


@pytest.fixture(scope="module")
def full():
    return Net(FULL, 8, "each")


@pytest.fixture(scope="module")
def few():
    return Net(FEW, 7, "sum")


def block(*nodes):
    """The block of (operation, *inputs) for each node from node 2 on."""
    op, inputs = zip(*[(op, tuple(inputs)) for op, *inputs in nodes], strict=True)
    return genotypes.DagGenotype(op, inputs)


# Between them every operation; node 0, node 1 and both; one leaf and many.
BLOCKS = {
    "all inputs": block(
        ("conv_1x1", 0, 1),
        ("sep_conv_3x3", 0, 1, 2),
        ("max_pool_3x3", 0, 1, 2, 3),
        ("dil_conv_5x5", 1, 3, 4),
        ("conv_7x1_1x7", 0, 2, 4, 5),
    ),
    "all leaves": block(
        ("sep_conv_5x5", 0),
        ("avg_pool_3x3", 1),
        ("dil_conv_3x3", 0, 1),
        ("skip_connect", 1),
        ("conv_1x1", 0),
    ),
    "without node 0": block(
        ("dil_conv_3x3", 1),
        ("sep_conv_5x5", 1, 2),
        ("skip_connect", 2),
        ("avg_pool_3x3", 4),
        ("max_pool_3x3", 1, 4),
    ),
    "without node 1": block(
        ("conv_7x1_1x7", 0),
        ("sep_conv_3x3", 0, 2),
        ("dil_conv_5x5", 0),
        ("max_pool_3x3", 3),
        ("skip_connect", 0, 5),
    ),
}
FEW_BLOCKS = {
    "both": block(("conv_1x1", 0, 1), ("skip_connect", 1), ("max_pool_3x3", 0, 3)),
    "without node 0": block(("skip_connect", 1), ("conv_1x1", 1, 2), ("conv_1x1", 2)),
    "without node 1": block(
        ("max_pool_3x3", 0), ("conv_1x1", 0, 2), ("conv_1x1", 0, 2, 3)
    ),
}


def assert_logits_equal(net, genotype):
    actual = net.logits(genotype)
    chex.assert_shape(actual, (IMAGES, CLASSES))
    expected = compiled(net.reference(genotype))(net.weights)
    np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-10)


def assert_gradients_equal(net, genotype):
    expected = compiled(lambda weights: gradient(net.reference(genotype), weights))
    chex.assert_trees_all_close(
        net.gradient(genotype), expected(net.weights), rtol=1e-7, atol=1e-10
    )


@pytest.mark.parametrize("genotype", BLOCKS.values(), ids=BLOCKS)
def test_values_equal_the_reference(x64, full, genotype):
    assert_logits_equal(full, genotype)


@pytest.mark.parametrize("genotype", FEW_BLOCKS.values(), ids=FEW_BLOCKS)
def test_gradients_equal_the_reference(x64, few, genotype):
    assert_gradients_equal(few, genotype)


# Stages of 1, 1 and 1 blocks, and of 1, 2 and 2.
@pytest.mark.parametrize(("num_blocks", "name"), [(3, "without node 0"), (5, "both")])
def test_gradients_equal_the_reference_for_other_depths(x64, num_blocks, name):
    assert_gradients_equal(Net(FEW, num_blocks, "each"), FEW_BLOCKS[name])


# Stages of 1, 1 and 2 blocks, and of 2, 2 and 2.
@pytest.mark.parametrize(("num_blocks", "node_input"), [(4, "sum"), (6, "each")])
def test_values_equal_the_reference_for_other_depths(x64, num_blocks, node_input):
    net = Net(FEW, num_blocks, node_input)
    for name in ("both", "without node 0"):
        assert_logits_equal(net, FEW_BLOCKS[name])


def test_one_compilation_serves_all_architectures(x64):
    net = Net(FEW, 3, "each")
    results = []
    for seed in range(20):
        genotype = FEW.decode(FEW.sample(jax.random.key(seed)))
        results.append(np.asarray(net.logits(genotype)))
    assert net.num_traces == 1
    assert np.isfinite(results).all()
    assert len({result.tobytes() for result in results}) > 15


def test_four_devices_equal_one(x64, few):
    def apply(weights, arch, images):
        return few.net.apply(weights, arch, images, batch_axis="devices")

    shards = few.images.reshape(4, IMAGES // 4, *few.images.shape[1:])
    genotype = FEW_BLOCKS["both"]
    logits = jax.pmap(apply, "devices", in_axes=(None, None, 0))(
        few.weights, FEW.encode(genotype), shards
    )
    expected = few.gradient(genotype)[0]
    np.testing.assert_allclose(
        logits.reshape(IMAGES, CLASSES), expected, rtol=1e-9, atol=1e-11
    )


def test_room_for_more_nodes_changes_nothing(x64):
    roomy = Net(spaces.DagSpace(5, 8, 0.4, FEW_OPS), 4, "each")
    tight = Net(spaces.DagSpace(5, 5, 0.4, FEW_OPS), 4, "each")
    # The weights of the nodes that are there come first.
    tight.weights = jax.tree.map(
        lambda leaf, like: leaf[tuple(slice(size) for size in like.shape)],
        roomy.weights,
        tight.weights,
    )
    for genotype in FEW_BLOCKS.values():
        np.testing.assert_allclose(
            tight.logits(genotype), roomy.logits(genotype), rtol=1e-12
        )


# Where the weights belong -------------------------------------------------------------


def is_assignment(leaf):
    return leaf is None or isinstance(leaf, NodeAssignment)


def is_spec(leaf):
    return isinstance(leaf, ops.WeightSpec)


@pytest.mark.parametrize("genotype", FEW_BLOCKS.values(), ids=FEW_BLOCKS)
def test_the_used_weights_are_those_with_a_gradient(x64, few, genotype):
    assignments = graph_spec_of(few.net).assignments(FEW.encode(genotype))
    flat_assignments = jax.tree.leaves(assignments, is_leaf=is_assignment)
    flat_gradients = jax.tree_util.tree_leaves_with_path(few.gradient(genotype)[1])
    for assignment, (path, leaf) in zip(flat_assignments, flat_gradients, strict=True):
        if assignment is None:
            assert leaf.any(), path
        else:
            has_gradient = leaf.any(tuple(range(assignment.is_used.ndim, leaf.ndim)))
            np.testing.assert_array_equal(has_gradient, assignment.is_used, str(path))


def test_graph():
    net = supernets.dag(FEW, CHANNELS, 3)
    graph = jax.jit(graph_spec_of(net).graph)(FEW.encode(FEW_BLOCKS["without node 0"]))
    # Operations in the order of FEW_OPS, after the input; node 5 is not there.
    node_features = [0, 0, 3, 2, 2]
    edges = [(1, 2), (1, 3), (2, 3), (2, 4)]
    assert graph_spec_of(net).feature_sizes == (4,)
    chex.assert_shape(graph.node_features, (4, 6, 1))
    chex.assert_shape(graph.adjacency, (4, 6, 6))
    for number in range(3):
        assert graph.node_features[number, :5, 0].tolist() == node_features
        assert [(u, v) for u, v in np.argwhere(graph.adjacency[number])] == edges
        assert graph.node_mask[number].tolist() == [False, *[True] * 4, False]
    # The head is node 0 of one more block.
    assert not graph.node_features[3].any() and not graph.adjacency[3].any()
    assert graph.node_mask[3].tolist() == [True, *[False] * 5]


# Of four blocks the stages have 1, 1 and 2.
@pytest.mark.parametrize(
    ("place", "reader", "source"),
    [
        (("stages", 0, "entry", "first_0"), (0, 0), None),
        (("stages", 0, "entry", "first_1"), (0, 1), None),
        (("stages", 1, "entry", "first_0"), (1, 0), 0),
        (("stages", 1, "entry", "first_1"), (1, 1), None),
        (("stages", 2, "entry", "first_0"), (2, 0), 1),
        (("stages", 2, "entry", "first_1"), (2, 1), 0),
        (("stages", 2, "entry", "second_1"), (3, 1), 1),
        (("stages", 2, "input_0"), (3, 0), 2),
        (("head",), (4, 0), 3),
    ],
)
def test_bottlenecks_belong_to_the_edges_between_blocks(place, reader, source):
    net = supernets.dag(FEW, CHANNELS, 4)
    assignments = graph_spec_of(net).assignments(FEW.encode(FEW_BLOCKS["both"]))
    specs = graph_spec_of(net).specs
    for key in place:
        assignments, specs = assignments[key], specs[key]
    num_rows = 1 if source is None else 4
    stack = (1, num_rows) if place[-1] == "input_0" else (num_rows,)
    assert specs.shape[:-2] == stack
    np.testing.assert_array_equal(
        assignments.node, np.broadcast_to(reader, (*stack, 2))
    )
    if source is None:
        assert assignments.source is None and assignments.is_used.all()
    else:
        expected = [(source, node) for node in range(2, 6)]
        np.testing.assert_array_equal(assignments.source.reshape(-1, 2), expected)
        # The leaves are nodes 2 and 4.
        assert assignments.is_used.reshape(-1).tolist() == [True, False, True, False]


def test_weights_of_nodes_belong_to_them():
    net = supernets.dag(FEW, CHANNELS, 4)
    assignments = graph_spec_of(net).assignments(
        FEW.encode(FEW_BLOCKS["without node 0"])
    )
    assignment = assignments["stages"][2]["nodes"]["conv_1x1"]["kernel"]
    expected = [[(block, node) for node in range(2, 6)] for block in (2, 3)]
    np.testing.assert_array_equal(assignment.node, expected)
    assert assignment.source is None
    # Nodes 3 and 4; and nobody reads block 2, the one before the last.
    assert assignment.is_used.tolist() == [[False] * 4, [False, True, True, False]]


def test_parameters_of_the_published_block():
    space = spaces.ghn_dag()
    net = supernets.dag(space, 32, 18, 10)
    assignments = graph_spec_of(net).assignments(space.encode(genotypes.named("GHN")))
    num_used = sum(
        np.prod(spec.shape[assignment.is_used.ndim :]) * int(assignment.is_used.sum())
        if isinstance(assignment, NodeAssignment)
        else np.prod(spec.shape)
        for assignment, spec in zip(
            jax.tree.leaves(assignments, is_leaf=is_assignment),
            jax.tree.leaves(graph_spec_of(net).specs, is_leaf=is_spec),
            strict=True,
        )
    )
    # 3x3 seven times and 5x5 once, both applied twice.
    nodes = sum(6 * 2 * (8 * c * c + (7 * 9 + 25) * c) for c in (32, 64, 128))
    # In tiles of C x C; a block reads two times four leaves, but the stem, which has
    # one, and the four of half as many channels before a reduction: 8, 8, 8, 8 inside,
    # then (1 + 1) + (4 + 1) for the first two blocks or (2 + 2) + (4 + 2).
    bottlenecks = (32 + 7) * 32**2 + (32 + 10) * (64**2 + 128**2)
    head = 4 * 128**2
    stem, classifier = 27 * 32 + 2 * 32, 128 * 10 + 10
    assert num_used == nodes + bottlenecks + head + stem + classifier
    assert num_used == 3_268_778


# Sizes and errors ---------------------------------------------------------------------


@pytest.mark.parametrize("node_input", ["each", "sum"])
@pytest.mark.parametrize(("num_nodes", "num_blocks"), [(3, 3), (4, 7)])
def test_output_shape(num_nodes, num_blocks, node_input):
    space = spaces.ghn_dag(num_nodes)
    net = supernets.dag(
        space, 2, num_blocks, 7, node_input=node_input, image_channels=1
    )
    logits = trace(net, (2, 4, 8, 1))
    chex.assert_shape(logits, (2, 7))
    chex.assert_type(logits, jnp.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_blocks": 2}, "num_blocks is 2; two reductions need at least 3"),
        ({"channels": 3}, "channels is 3; expected a positive even number"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"image_channels": 0}, "image_channels is 0; expected at least 1"),
        ({"node_input": "all"}, "node_input is 'all'; expected 'each' or 'sum'"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 or more, below 1"),
    ],
)
def test_refuses_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        supernets.dag(FEW, **options)


@pytest.mark.parametrize(
    ("decisions", "shape", "options", "message"),
    [
        (18, (2, 6, 8, 3), {}, r"images have shape \(2, 6, 8, 3\); .* divisible by 4"),
        (12, (2, 8, 8, 3), {}, r"arch has shape \(12,\); expected \(18,\)"),
        (18, (2, 8, 8, 3), {"train": True}, "key is None; training with dropout needs"),
    ],
)
def test_refuses_wrong_inputs(decisions, shape, options, message):
    net = supernets.dag(FEW, CHANNELS, 3, dropout=0.5)
    with pytest.raises(ValueError, match=message):
        trace(net, shape, decisions, **options)
