"""The anytime supernet equals a network of one architecture; graph, sizes, errors."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import trace
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnas import genotypes, ghn, spaces, supernets
from jaxnas.types import NodeAssignment

CHANNELS, CLASSES, IMAGES = 2, 3, 4
SPACE = spaces.anytime((4, 3, 2), (2, 1, 1), min_nodes=(2, 1, 1))
LABELS = np.arange(IMAGES) % CLASSES

# Every operation, and every scale that a block may have; then small blocks.
LARGE = genotypes.AnytimeGenotype(
    ops=(
        ("conv_3x3", "conv_5x5", "max_pool_3x3", "conv_1x1"),
        ("avg_pool_3x3", "conv_3x3", "conv_5x5"),
        ("conv_3x3", "max_pool_3x3"),
    ),
    inputs=(((0,), (0, 1), (0, 2), (1, 2, 4)), ((0, 1), (2,), (1, 3)), ((0,), (1, 2))),
    scales=((0, 1, 2, 2), (1, 1, 2), (2, 2)),
    exits=((4, 5), (4,), (3,)),
)
LEAVES = genotypes.AnytimeGenotype(
    ops=(
        ("conv_5x5", "avg_pool_3x3", "conv_1x1", "conv_3x3"),
        ("conv_1x1", "max_pool_3x3", "conv_3x3"),
        ("conv_5x5", "conv_1x1"),
    ),
    inputs=(((1,), (0,), (1,), (2,)), ((0,), (1,), (0, 1)), ((0, 1), (2,))),
    scales=((2, 0, 1, 2), (2, 1, 2), (2, 2)),
    exits=((2, 5), (4,), (3,)),
)
SMALL = genotypes.AnytimeGenotype(
    ops=(("conv_3x3", "conv_1x1"), ("conv_5x5",), ("conv_3x3",)),
    inputs=(((0,), (1, 2)), ((0,),), ((1,),)),
    scales=((2, 2), (2,), (2,)),
    exits=((2, 3), (2,), (2,)),
)
GENOTYPES = {"large": LARGE, "leaves": LEAVES, "small": SMALL}


# The reference: library convolutions, one architecture, plain autodiff --------------


def convolve(x, kernel):
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pool(x, initial, function):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, initial, function, (1, 3, 3, 1), (1,) * 4, padding)


def activate(x):
    mean, variance = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    return jax.nn.relu((x - mean) / jnp.sqrt(variance + 1e-5))


def resample(x, height):
    """Average or repeat pixels until the image has this height."""
    factor = x.shape[1] // height
    if factor > 1:
        return pool_blocks(x, factor)
    return jnp.kron(x, jnp.ones((1, height // x.shape[1], height // x.shape[1], 1)))


def pool_blocks(x, factor):
    window = (1, factor, factor, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / factor**2


def operation(name, x, weights):
    if name == "max_pool_3x3":
        return pool(x, -jnp.inf, lax.max)
    if name == "avg_pool_3x3":
        return pool(x, 0.0, lax.add) / pool(jnp.ones_like(x), 0.0, lax.add)
    kernel = weights["kernel"]
    return convolve(x, kernel[None, None] if name == "conv_1x1" else kernel)


def reference(genotype, weights, images):
    def bottleneck(inputs, kernels, height):
        x = jnp.concatenate([resample(x, height) for x in inputs], -1)
        return activate(convolve(x, jnp.concatenate(kernels)[None, None]))

    stem = weights["stem"]
    x = convolve(images, stem["kernel"])
    mean, variance = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    x = (x - mean) / jnp.sqrt(variance + 1e-5)
    x = x * stem["scale"][None, None, None] + stem["offset"][None, None, None]
    outputs, logits = [{0: jax.nn.relu(x)}] * 2, []
    for block, lists in enumerate(zip(*genotype, strict=True)):
        own = weights["blocks"][block]
        nodes = [
            bottleneck(
                outputs[-1 - node].values(),
                [own[f"input_{node}"][row] for row in outputs[-1 - node]],
                images.shape[1] >> block,
            )
            for node in range(2)
        ]
        first_edge = 0
        for node, (op, read, scale) in enumerate(zip(*lists[:3], strict=True), start=2):
            kernels = [own["edges"][first_edge + source] for source in read]
            height = images.shape[1] >> scale
            x = bottleneck([nodes[source] for source in read], kernels, height)
            row = jax.tree.map(lambda leaf, n=node: leaf[n - 2], own["nodes"][op])
            nodes.append(activate(operation(op, x, row)))
            first_edge += node
        for exit_number, node in enumerate(lists[3]):
            exits = jax.tree.map(lambda leaf, e=exit_number: leaf[e], own["exits"])
            features = nodes[node].mean((1, 2))
            logits.append(features @ exits["kernel"] + exits["bias"][None])
        read = {source for inputs in lists[1] for source in inputs}
        leaves = {i - 2: x for i, x in enumerate(nodes) if i > 1 and i not in read}
        outputs.append(leaves)
    return jnp.stack(logits)


# The tests ---------------------------------------------------------------------------


def loss_of(logits):
    return -jax.nn.log_softmax(logits)[:, jnp.arange(IMAGES), LABELS].mean()


@pytest.fixture(scope="module")
def net():
    return supernets.anytime(SPACE, CHANNELS, CLASSES)


@pytest.fixture(scope="module")
def data(net):
    """Weights in double precision and a batch of images."""
    with jax.enable_x64(True):
        key, noise_key, image_key = jax.random.split(jax.random.key(0), 3)
        weights, restore = ravel_pytree(jax.jit(net.init)(key))
        # So that no scale is 1 and no offset 0.
        weights += 0.3 * jax.random.uniform(noise_key, weights.shape)
        return restore(weights), jax.random.normal(image_key, (IMAGES, 8, 8, 3))


@pytest.fixture(scope="module")
def gradient(net, data):
    """`arch -> (logits, gradient)`; compiled, which it may be only once."""

    @jax.jit
    @chex.assert_max_traces(1)
    def compiled(weights, arch, images):
        def loss(weights):
            logits = net.apply(weights, arch, images, train=True)
            return loss_of(logits), logits

        gradient, logits = jax.grad(loss, has_aux=True)(weights)
        return logits, gradient

    return lambda arch: compiled(data[0], arch, data[1])


@pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)
def test_values_and_gradients_equal_the_reference(x64, gradient, data, genotype):
    logits, actual = gradient(SPACE.encode(genotype))

    def loss(weights):
        logits = reference(genotype, weights, data[1])
        return loss_of(logits), logits

    compiled = jax.jit(jax.grad(loss, has_aux=True))
    expected, expected_logits = compiled(data[0])
    chex.assert_shape(logits, (4, IMAGES, CLASSES))
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-9, atol=1e-11)
    chex.assert_trees_all_close(actual, expected, rtol=1e-8, atol=1e-11)


def test_one_compilation_serves_all_architectures(x64, gradient):
    keys = jax.random.split(jax.random.key(0), 5)
    logits = [gradient(arch)[0] for arch in jax.jit(jax.vmap(SPACE.sample))(keys)]
    assert np.isfinite(logits).all()
    assert len({float(leaf.sum()) for leaf in logits}) == 5


@pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)
def test_what_the_sites_call_used_has_a_gradient(x64, net, gradient, genotype):
    arch = SPACE.encode(genotype)
    assert net.graph_spec is not None
    assignments = net.graph_spec.assignments(arch)
    _, actual = gradient(arch)

    def check(path, assignment, leaf, spec):
        assert leaf.shape == spec.shape
        if assignment is None:
            assert leaf.any()
            return
        own = assignment.is_used.ndim
        assert assignment.node.shape == (*leaf.shape[:own], 2)
        assert (
            assignment.source is None
            or assignment.source.shape == assignment.node.shape
        )
        found = leaf.any(tuple(range(own, leaf.ndim)))
        np.testing.assert_array_equal(
            found, assignment.is_used, jax.tree_util.keystr(path)
        )

    jax.tree_util.tree_map_with_path(
        check,
        assignments,
        actual,
        net.graph_spec.specs,
        is_leaf=lambda leaf: leaf is None or isinstance(leaf, NodeAssignment),
    )


def test_the_graph_of_an_architecture(net):
    assert net.graph_spec is not None
    assert net.graph_spec.feature_sizes == (6, 3, 2)
    graph = net.graph_spec.graph(SPACE.encode(SMALL))
    chex.assert_shape(graph.node_features, (3, 6, 3))
    chex.assert_shape(graph.adjacency, (3, 6, 6))
    np.testing.assert_array_equal(
        graph.node_mask.astype(int),
        [[1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0]],
    )
    expected = [[[0, 2], [1, 3], [2, 3]], [[0, 2]], [[1, 2]]]
    for adjacency, edges in zip(graph.adjacency, expected, strict=True):
        assert np.argwhere(adjacency).tolist() == edges
    np.testing.assert_array_equal(
        graph.node_features[0, :4], [[0, 0, 0]] * 2 + [[2, 2, 1], [1, 2, 1]]
    )
    np.testing.assert_array_equal(
        graph.node_features[1, :3], [[0, 1, 0]] * 2 + [[3, 2, 1]]
    )


def test_a_hypernetwork_writes_its_weights(net):
    provider = ghn.hypernetwork(net, 4, 1, decoder_size=4)
    params = jax.eval_shape(provider.init, jax.random.key(0))
    arch = jax.ShapeDtypeStruct((len(SPACE.cardinalities),), jnp.int32)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(provider.apply, params, arch),
        jax.eval_shape(net.init, jax.random.key(0)),
    )


def test_shares_of_a_batch_equal_the_whole(x64, net, gradient, data):
    weights, images = data
    arch = SPACE.encode(LARGE)
    shares = images.reshape(2, IMAGES // 2, *images.shape[1:])
    apply = jax.vmap(
        functools.partial(net.apply, batch_axis="devices"),
        in_axes=(None, None, 0),
        out_axes=1,
        axis_name="devices",
    )
    logits = jax.jit(apply)(weights, arch, shares)
    expected = gradient(arch)[0]
    actual = logits.reshape(expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


def test_sizes_of_the_published_space():
    net = supernets.anytime(spaces.anytime(), 16)
    weights = jax.eval_shape(net.init, jax.random.key(0))
    first, second, third = weights["blocks"]
    # Node v may read v others: 2 + ... + 25 edges, and so on.
    for block, num_edges, width in (
        (first, 324, 16),
        (second, 152, 32),
        (third, 44, 64),
    ):
        assert block["edges"].shape == (num_edges, width, width)
    assert first["nodes"]["conv_5x5"]["kernel"].shape == (24, 5, 5, 16, 16)
    assert third["input_0"].shape == (16, 32, 64)
    assert third["input_1"].shape == (24, 16, 64)
    assert second["input_1"].shape == (1, 16, 32)
    arch = jax.ShapeDtypeStruct((664,), jnp.int32)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    logits = jax.eval_shape(net.apply, weights, arch, images)
    chex.assert_shape(logits, (10, 2, 10))
    chex.assert_type(logits, jnp.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 3}, "channels is 3; expected a positive even number"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"image_channels": 0}, "image_channels is 0; expected at least 1"),
    ],
)
def test_refuses_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        supernets.anytime(SPACE, **options)


@pytest.mark.parametrize(
    ("decisions", "shape", "message"),
    [
        (0, (2, 6, 8, 3), r"images have shape \(2, 6, 8, 3\); .* divisible by 4"),
        (1, (2, 8, 8, 3), r"arch has shape \(\d+,\); expected \(\d+,\)"),
    ],
)
def test_refuses_wrong_inputs(net, decisions, shape, message):
    with pytest.raises(ValueError, match=message):
        trace(net, shape, len(SPACE.cardinalities) + decisions)
