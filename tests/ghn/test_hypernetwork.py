"""Graph hypernetworks: what the weights of an architecture depend on, and what not."""

import functools
import inspect
import io
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import genotypes, ghn, ops, spaces, supernets, train, weights
from jaxnas.ghn import decoder
from jaxnas.types import NodeAssignment

BLOCK = genotypes.DagGenotype(
    ("sep_conv_3x3", "conv_1x1", "skip_connect", "max_pool_3x3"),
    ((0, 1), (0,), (1, 2), (2, 3)),
)
SMALL: Any = {"hidden_size": 6, "num_steps": 2, "decoder_size": 5}


def make_net(num_nodes=6, max_nodes=None, channels=2, num_blocks=3):
    space = spaces.ghn_dag(num_nodes, max_nodes=max_nodes)
    return supernets.dag(space, channels, num_blocks, 3)


def make_small_net():
    """Few operations, so that the network itself is compiled quickly."""
    ops = ("sep_conv_3x3", "conv_1x1", "max_pool_3x3", "skip_connect")
    return supernets.dag(spaces.ghn_dag(6, ops=ops), 2, 3, 3)


def make_macro_net(num_layers=4, skips: Any = "concat"):
    """Few operations here as well."""
    ops = ("conv_3x3", "sep_conv_5x5", "max_pool_3x3")
    return supernets.macro(spaces.MacroSpace(num_layers, ops), 2, 3, skips=skips)


def is_assignment(leaf):
    return leaf is None or isinstance(leaf, NodeAssignment)


def assignments_of(net, arch):
    """The assignment of every array, in order."""
    assert net.graph_spec is not None
    found = jax.device_get(jax.jit(net.graph_spec.assignments)(arch))
    return jax.tree.leaves(found, is_leaf=is_assignment)


def entries(net, arch, generated):
    """Every used entry: (array, block, node, source block and node) -> its values."""
    assignments = assignments_of(net, arch)
    found = {}
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(generated))
    for (path, leaf), assignment in zip(leaves, assignments, strict=True):
        if assignment is None:
            continue
        for index in map(tuple, np.argwhere(assignment.is_used)):
            source = None if assignment.source is None else (*assignment.source[index],)
            where = (*assignment.node[index],)
            found[jax.tree_util.keystr(path), where, source] = leaf[index]
    return found


def generate(net, arch, seed=0, **options):
    provider = ghn.hypernetwork(net, **SMALL, **options)
    params = jax.jit(provider.init)(jax.random.key(seed))
    return jax.device_get(jax.jit(provider.apply)(params, arch))


def relabel(genotype, new):
    """Give node v the number new[v]; inputs keep theirs."""
    old = sorted(range(2 + len(genotype.ops)), key=lambda v: new[v])[2:]
    return genotypes.DagGenotype(
        tuple(genotype.ops[v - 2] for v in old),
        tuple(tuple(sorted(new[u] for u in genotype.inputs[v - 2])) for v in old),
    )


def orders(genotype):
    """All ways to number the nodes anew that keep edges pointing upwards."""
    nodes = range(2, 2 + len(genotype.ops))
    for numbers in itertools.permutations(nodes):
        new = {0: 0, 1: 1, **dict(zip(nodes, numbers, strict=True))}
        if all(new[u] < new[v] for v in nodes for u in genotype.inputs[v - 2]):
            yield new


OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "forward": {"propagation": "forward"},
    "synchronous": {"propagation": "synchronous"},
    "own-functions-per-block": {"share_blocks": False},
    "embeddings-once": {"pass_embeddings": "once"},
    "isolated-blocks": {"pass_embeddings": "none"},
    "ghn-2": {"virtual_edges": 50, "layer_norm": True, "fan_in_scaling": True},
}
all_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@all_options
def test_numbering_the_nodes_anew_permutes_the_weights(x64, options):
    net = make_small_net()
    provider = ghn.hypernetwork(net, **SMALL, **options)
    params = jax.jit(provider.init)(jax.random.key(0))
    apply = jax.jit(provider.apply)
    arch = net.space.encode(BLOCK)
    before = entries(net, arch, apply(params, arch))
    num_orders = 0
    for new in orders(BLOCK):
        arch = net.space.encode(relabel(BLOCK, new))
        after = entries(net, arch, apply(params, arch))
        assert len(after) == len(before)

        def renamed(place, new=new):
            # The head's only node is no node of the block.
            return place and (place[0], new[place[1]] if place[0] < 3 else place[1])

        for (path, node, source), values in before.items():
            found = after[path, renamed(node), renamed(source)]
            np.testing.assert_allclose(found, values, rtol=1e-9, atol=1e-12)
        num_orders += 1
    assert num_orders > 3


def test_numbering_the_nodes_anew_changes_no_output(x64):
    net = make_small_net()
    provider = ghn.hypernetwork(net, **SMALL)
    params = jax.jit(provider.init)(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))

    @jax.jit
    def run(arch):
        generated = provider.apply(params, arch)
        return net.apply(generated, arch, images, train=False)

    expected = run(net.space.encode(BLOCK))
    for new in orders(BLOCK):
        found = run(net.space.encode(relabel(BLOCK, new)))
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


def test_absent_nodes_change_nothing(x64):
    small, large = make_net(6), make_net(6, max_nodes=9)
    arch, padded = (net.space.encode(BLOCK) for net in (small, large))
    assert padded.size > arch.size
    before = entries(small, arch, generate(small, arch))
    # Whatever the vector says the operation of an absent node is.
    for garbage in (padded, padded.at[-9].set(4)):
        after = entries(large, garbage, generate(large, garbage))
        assert after.keys() == before.keys()
        for place, values in before.items():
            np.testing.assert_allclose(after[place], values, rtol=1e-9, atol=1e-12)


def test_an_input_that_nobody_reads_changes_nothing(x64):
    """Blocks that read only the one before: what is two blocks back is not seen."""
    net = make_net(4, num_blocks=4)
    genotype = genotypes.DagGenotype(("sep_conv_3x3", "conv_1x1"), ((0,), (2,)))
    arch = net.space.encode(genotype)
    found = entries(net, arch, generate(net, arch))
    assert not any(node[1] == 1 for _, node, _ in found)


@pytest.mark.parametrize("pass_embeddings", ["every_phase", "once", "none"])
@pytest.mark.parametrize("share_blocks", [True, False])
def test_blocks_differ_because_embeddings_are_passed(pass_embeddings, share_blocks):
    net = make_net(num_blocks=6)  # two blocks in each stage
    arch = net.space.encode(BLOCK)
    options = {"pass_embeddings": pass_embeddings, "share_blocks": share_blocks}
    stage = generate(net, arch, **options)["stages"][0]["nodes"]["sep_conv_3x3"]
    first, second = stage["pointwise"][:, 0]
    assert (first != 0).any()
    are_alike = share_blocks and pass_embeddings == "none"
    assert bool((first == second).all()) == are_alike


@pytest.mark.parametrize("num_nodes", [7, 17])
def test_all_neighboring_blocks_of_a_deep_stack_differ(num_nodes):
    """With the settings of the paper; if embeddings pass once, most are alike."""
    net = make_net(num_nodes, num_blocks=18)
    archs = [net.space.sample(jax.random.key(seed)) for seed in range(8)]
    # Blocks that do not read the one before are every other one.
    assert net.graph_spec is not None
    archs = [a for a in archs if net.graph_spec.graph(a).node_mask[0, 0]][:3]

    def differences(**options):
        provider = ghn.hypernetwork(net, **options)
        params = jax.jit(provider.init)(jax.random.key(0))
        generate = jax.jit(provider.apply)
        return np.array(
            [ghn.block_differences(net, generate(params, a), a) for a in archs]
        )

    found = differences()
    assert found.shape == (3, 17)
    assert found.min() > 1e-3
    once = differences(pass_embeddings="once")
    assert once[:, 0].min() > 1e-5 and once[:, 3:].max() < 1e-5


def test_block_differences():
    """Of a network of 6 blocks, of which some weights are made by hand."""
    net = make_net(4, num_blocks=6)
    # The pooling has no weights, nor do unused operations count.
    block = genotypes.DagGenotype(("conv_1x1", "max_pool_3x3"), ((0,), (2,)))
    arch = net.space.encode(block)
    values = jax.tree.map(np.ones_like, jax.jit(net.init)(jax.random.key(0)))
    kernels = [values["stages"][s]["nodes"]["conv_1x1"]["kernel"] for s in range(3)]
    assert [k.shape for k in kernels] == [(2, 2, c, c) for c in (2, 4, 8)]
    kernels[0][1, 0] = 1.5  # block 1: 0.5 more than block 0
    kernels[1][0, 0] = 1.5
    kernels[1][0, 0, 2:] = 7.0  # channels that block 1 does not have
    kernels[1][1, 0] = 3.0  # block 3, as wide as block 2
    kernels[2][0, 0] = 3.0
    kernels[2][0, 1] = 9.0  # of the pooling node
    kernels[2][1, 0] = 0.0
    wide = np.array([[1.5] * 4] * 2 + [[7.0] * 4] * 2)
    expected = [
        *(0.5, 0),
        np.linalg.norm(3 - wide) / np.linalg.norm(wide),
        *(0, 1),
    ]
    found = ghn.block_differences(net, values, arch)
    np.testing.assert_allclose(found, expected)

    # Every other block matters where nobody reads the one before: 1, 3 and 5.
    block = genotypes.DagGenotype(("conv_1x1", "max_pool_3x3"), ((1,), (2,)))
    found = ghn.block_differences(net, values, net.space.encode(block))
    np.testing.assert_allclose(found, [1, 1])

    # Nothing but pooling: there is nothing to compare.
    block = genotypes.DagGenotype(("max_pool_3x3", "max_pool_3x3"), ((0,), (2,)))
    arch = net.space.encode(block)
    assert ghn.block_differences(net, values, arch).size == 0
    metrics = ghn.block_metrics(net, weights.shared(net), [arch])
    assert metrics(values) == {}


@pytest.mark.parametrize("skeleton", ["asng", "enas"])
def test_block_differences_of_cells(skeleton):
    net = supernets.micro(spaces.enas_micro(2), 2, 5, 3, skeleton=skeleton)
    arch = net.space.sample(jax.random.key(0))
    found = ghn.block_differences(net, generate(net, arch), arch)
    assert found.shape == (4,)
    assert (found[~np.isnan(found)] > 0).all() and not np.isnan(found).all()


def test_blocks_of_a_network_without_a_graph_spec():
    net = make_net()._replace(graph_spec=None)
    with pytest.raises(ValueError, match="the supernet has no graph spec"):
        ghn.block_differences(net, {}, jnp.zeros(3, jnp.int32))


def test_block_metrics():
    net = make_net(num_blocks=6)
    archs = [net.space.encode(BLOCK), net.space.sample(jax.random.key(1))]
    provider = ghn.hypernetwork(net, **SMALL)
    params = jax.jit(provider.init)(jax.random.key(0))
    make_weights = jax.jit(provider.apply)
    found = np.concatenate(
        [ghn.block_differences(net, make_weights(params, a), a) for a in archs]
    )
    metrics = ghn.block_metrics(net, provider, archs)(params)
    assert metrics == {
        "blocks/min_difference": pytest.approx(np.nanmin(found), rel=1e-4),
        "blocks/mean_difference": pytest.approx(np.nanmean(found), rel=1e-4),
    }


@pytest.mark.parametrize("name", ["paper", "own-functions-per-block", "ghn-2"])
def test_gradients_reach_every_parameter(name):
    net = make_net()
    provider = ghn.hypernetwork(net, **SMALL, **OPTIONS[name])
    params = jax.jit(provider.init)(jax.random.key(0))

    @jax.jit
    def gradient(params, arch):
        def loss(params):
            leaves = jax.tree.leaves(provider.apply(params, arch))
            return sum(jnp.sin(3 * leaf).sum() for leaf in leaves)

        return jax.grad(loss)(params)

    # All operations, and nodes far apart.
    total = jax.tree.map(np.zeros_like, params)
    for i in (0, 4, 5):
        named = genotypes.DAG_OPS[i : i + 4]
        genotype = genotypes.DagGenotype(named, ((0, 1), (0, 2), (3,), (1, 4)))
        one = jax.device_get(gradient(params, net.space.encode(genotype)))
        chex.assert_tree_all_finite(one)
        total = jax.tree.map(lambda t, g: t + np.abs(g), total, one)
    for path, leaf in jax.tree_util.tree_leaves_with_path(total):
        assert (leaf != 0).any(), jax.tree_util.keystr(path)


def assert_loss_reaches_every_parameter(net, genotype):
    provider = ghn.hypernetwork(net, **SMALL)
    params = jax.jit(provider.init)(jax.random.key(0))
    batch = {
        "image": jax.random.normal(jax.random.key(1), (4, 8, 8, 3)),
        "label": jnp.arange(4) % 3,
    }
    gradient = train.weight_gradient(net, provider, train.classification())
    archs = net.space.encode(genotype)[None]
    total, _ = jax.jit(gradient)(params, archs, batch, jax.random.key(2))
    total = jax.device_get(total)
    chex.assert_tree_all_finite(total)
    chex.assert_trees_all_equal_shapes_and_dtypes(total, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(total):
        assert (leaf != 0).any(), jax.tree_util.keystr(path)


def test_gradients_of_a_networks_loss_reach_every_parameter():
    assert_loss_reaches_every_parameter(make_small_net(), BLOCK)


def test_the_number_of_nodes_is_not_in_the_parameters():
    small, large = make_net(5), make_net(8)
    providers = [ghn.hypernetwork(net) for net in (small, large)]
    shapes = [jax.eval_shape(p.init, jax.random.key(0)) for p in providers]
    chex.assert_trees_all_equal_shapes_and_dtypes(*shapes)


def assert_zero_where_unused(net, arch, generated):
    assignments = assignments_of(net, arch)
    leaves = jax.tree.leaves(jax.device_get(generated))
    for leaf, assignment in zip(leaves, assignments, strict=True):
        if assignment is not None:
            axes = tuple(range(assignment.is_used.ndim, leaf.ndim))
            used = (leaf != 0).any(axis=axes)
            np.testing.assert_array_equal(used, assignment.is_used)


def test_weights_have_one_compilation_and_are_0_where_unused():
    net = make_net(8)
    provider = ghn.hypernetwork(net, **SMALL)
    params = jax.jit(provider.init)(jax.random.key(0))
    chex.clear_trace_counter()
    apply = jax.jit(chex.assert_max_traces(provider.apply, n=1))
    for seed in range(4):
        arch = net.space.sample(jax.random.key(seed))
        generated = apply(params, arch)
        chex.assert_trees_all_equal_shapes_and_dtypes(
            generated, jax.eval_shape(net.init, jax.random.key(0))
        )
        assert_zero_where_unused(net, arch, generated)


@pytest.mark.parametrize("skeleton", ["asng", "enas"])
def test_weights_of_cells(skeleton):
    net = supernets.micro(spaces.enas_micro(2), 2, 3, 3, skeleton=skeleton)
    first, second = (
        generate(net, net.space.sample(jax.random.key(seed))) for seed in (0, 1)
    )
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(first, second, shapes)
    chex.assert_tree_all_finite(first)
    arch = net.space.sample(jax.random.key(0))
    assert all((values != 0).any() for values in entries(net, arch, first).values())


@pytest.mark.parametrize("skips", ["concat", "add"])
def test_weights_of_macro_networks(skips):
    net = make_macro_net(skips=skips)
    arch = net.space.sample(jax.random.key(3))
    generated = generate(net, arch)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(generated, shapes)
    assert_zero_where_unused(net, arch, generated)
    # Layers differ, as do the sources that one of them joins.
    found = entries(net, arch, generated)
    scales = [values for (name, _, _), values in found.items() if "scale" in name]
    flat = np.stack([np.resize(values, 4) for values in scales])
    assert len(np.unique(flat, axis=0)) == len(scales)


def test_all_operations_and_joins_of_macro_networks_get_gradients():
    genotype = genotypes.MacroGenotype(
        ("conv_3x3", "sep_conv_5x5", "max_pool_3x3", "conv_3x3"),
        ((), (0,), (1,), (0, 2)),
    )
    assert_loss_reaches_every_parameter(make_macro_net(), genotype)


def test_a_hypernetwork_for_macro_networks_learns():
    """On architectures that are drawn anew in every step."""
    net = make_macro_net(skips="add")
    provider = ghn.hypernetwork(net, **SMALL)
    params = jax.jit(provider.init)(jax.random.key(0))
    optimizer = optax.sgd(0.1)
    step = jax.jit(train.weight_step(net, provider, train.classification(), optimizer))
    labels = jnp.arange(12) % 3
    batch = {
        "image": jax.random.normal(jax.random.key(2), (12, 8, 8, 3))
        + 2 * jax.nn.one_hot(labels, 3)[:, None, None],
        "label": labels,
    }
    state, losses = train.WeightState(params, optimizer.init(params)), []
    for i in range(80):
        archs = jax.vmap(net.space.sample)(jax.random.split(jax.random.key(i), 1))
        state, metrics = step(state, archs, batch, jax.random.key(i))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


# The decoder --------------------------------------------------------------------------


def decode_one(spec, base, *, tile=64, **options):
    """What a decoder writes that also knows a larger kernel of the same branch."""
    assignment = NodeAssignment(jnp.zeros((1, 2), jnp.int32), None, jnp.ones(1, bool))
    arrays: list[Any] = [
        decoder.WeightArray("kernel", s.stack(1), assignment) for s in (spec, base)
    ]
    specs = decoder.decoder_specs(arrays, 3, 4, tile)
    params = ops.init(jax.random.key(0), specs)
    embeddings = jax.random.normal(jax.random.key(1), (1, 1, 3))
    options = {"fan_in_scaling": False, **options}
    return [
        array[0] for array in decoder.decode(params, embeddings, arrays, [], **options)
    ]


def test_small_kernels_are_the_center_of_large_ones():
    small = ops.WeightSpec((3, 3, 2), 9, spatial=(-3, -2))
    large = ops.WeightSpec((5, 7, 4), 35, spatial=(-3, -2))
    cut, whole = decode_one(small, large)
    np.testing.assert_allclose(cut, whole[1:4, 2:5, :2], rtol=1e-6)


def test_more_channels_repeat_the_tile():
    wide, narrow = decode_one(
        ops.WeightSpec((5, 7), 5), ops.WeightSpec((2, 3), 2), tile=3
    )
    chex.assert_shape(wide, (5, 7))
    for i, j in np.ndindex(5, 7):
        assert wide[i, j] == wide[i % 3, j % 3]
    np.testing.assert_allclose(wide[:2, :3], narrow, rtol=1e-6)


def test_channels_of_the_widest_layer_are_no_copies():
    """128 channels, as in the last stage of the published network."""
    net = supernets.dag(spaces.ghn_dag(3), channels=32, num_blocks=3)
    arch = net.space.encode(genotypes.DagGenotype(("conv_1x1",), ((0,),)))

    def last_kernel(**options):
        stage = generate(net, arch, **options)["stages"][2]
        return np.asarray(stage["nodes"]["conv_1x1"]["kernel"][0, 0])

    kernel = last_kernel()
    assert kernel.shape == (128, 128)
    for axis in (0, 1):
        assert len(np.unique(kernel, axis=axis)) == 128
    tiled = last_kernel(tile=64)
    np.testing.assert_array_equal(tiled[:, :64], tiled[:, 64:])
    np.testing.assert_array_equal(tiled[:64], tiled[64:])


def test_constants_are_what_generated_values_are_added_to():
    scale, offset = decode_one(
        ops.WeightSpec((4,), 1, constant=1.0), ops.WeightSpec((4,), 1, constant=0.0)
    )
    np.testing.assert_allclose(scale, offset + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "fan_in", "spatial", "beta"),
    [
        ((8, 4), 8, (), 2),  # 1x1
        ((3, 3, 8, 4), 72, (-4, -3), 2),  # dense
        ((1, 7, 8, 4), 56, (-4, -3), 1),  # not square
        ((5, 5, 4), 25, (-3, -2), 1),  # depthwise
        ((2, 3, 3, 4), 9, (-3, -2), 1),  # two depthwise layers
    ],
)
def test_fan_in_scaling(shape, fan_in, spatial, beta):
    spec = ops.WeightSpec(shape, fan_in, spatial=spatial)
    plain, _ = decode_one(spec, spec)
    scaled, _ = decode_one(spec, spec, fan_in_scaling=True)
    np.testing.assert_allclose(scaled, plain * (beta / fan_in) ** 0.5, rtol=1e-6)


def test_weight_penalty(x64):
    net = make_net()
    arch = net.space.encode(BLOCK)
    plain, penalized = (
        ghn.hypernetwork(net, **SMALL, weight_penalty=penalty) for penalty in (0, 0.3)
    )
    params = jax.jit(plain.init)(jax.random.key(0))

    def loss(provider, penalty, params):
        generated = provider.apply(params, arch)
        value = sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(generated))
        common = jax.tree.leaves((generated["stem"], generated["classifier"]))
        squares = [
            sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(some))
            for some in (generated, common)
        ]
        return value + penalty / 2 * (squares[0] - squares[1])

    first, second = (
        jax.jit(jax.value_and_grad(functools.partial(loss, provider, penalty)))
        for provider, penalty in ((penalized, 0.0), (plain, 0.3))
    )
    (value, gradient), (with_penalty, expected) = first(params), second(params)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert value < with_penalty  # the loss that is shown is without it


# As a library -------------------------------------------------------------------------


def some_params(provider):
    """Of the right shapes; nothing is compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(provider.init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes
    )


def test_save_and_load(tmp_path):
    small, large = (ghn.hypernetwork(make_net(n), **SMALL) for n in (5, 8))
    params = some_params(small)
    path = tmp_path / "ghn.npz"
    ghn.save(path, params, small)
    for provider in (small, large):
        chex.assert_trees_all_equal(ghn.load(path, provider), params)
    assert [p.name for p in tmp_path.iterdir()] == ["ghn.npz"]


def test_a_file_serves_macro_networks_of_any_depth(tmp_path):
    nets = [make_macro_net(num_layers) for num_layers in (4, 6)]
    small, large = (ghn.hypernetwork(net, **SMALL) for net in nets)
    params, path = some_params(small), tmp_path / "ghn.npz"
    ghn.save(path, params, small)
    for provider, net in zip((small, large), nets, strict=True):
        loaded = ghn.load(path, provider)
        chex.assert_trees_all_equal(loaded, params)
        arch = net.space.sample(jax.random.key(0))
        generated = jax.jit(provider.apply)(loaded, arch)
        chex.assert_tree_all_finite(generated)
        shapes = jax.eval_shape(net.init, jax.random.key(0))
        chex.assert_trees_all_equal_shapes_and_dtypes(generated, shapes)


def test_settings_of_a_file_make_its_hypernetwork_again(tmp_path):
    net, path = make_net(), tmp_path / "ghn.npz"
    options: Any = SMALL | {
        "propagation": "synchronous",
        "tile": 1,
        "pass_embeddings": "once",
        "share_blocks": False,
        "fan_in_scaling": True,
        "virtual_edges": 3,
        "layer_norm": True,
        "weight_penalty": 0.5,
    }
    provider = ghn.hypernetwork(net, **options)
    params = some_params(provider)
    ghn.save(path, params, provider)
    settings = ghn.load_settings(path)
    assert settings["hypernetwork"] == options
    # Nothing that can be set is left out.
    arguments = inspect.signature(ghn.hypernetwork).parameters
    assert {"net", *settings["hypernetwork"]} == {*arguments}
    assert settings["supernet"] == {
        "supernet": "dag",
        "ops": list(genotypes.DAG_OPS),
        "channels": 2,
        "num_blocks": 3,
        "num_classes": 3,
        "image_channels": 3,
        "node_input": "each",
    }
    again = ghn.hypernetwork(net, **settings["hypernetwork"])
    chex.assert_trees_all_equal(ghn.load(path, again), params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # The first three change shapes of parameters; the others do not.
        ({"hidden_size": 8}, "hidden_size is 6; expected 8$"),
        ({"virtual_edges": 2}, "virtual_edges is null; expected 2$"),
        ({"share_blocks": False}, "share_blocks is true; expected false$"),
        ({"num_steps": 3}, "num_steps is 2; expected 3$"),
        (
            {"propagation": "forward", "pass_embeddings": "once"},
            'pass_embeddings is "every_phase"; expected "once", propagation is '
            '"forward_backward"; expected "forward"$',
        ),
        ({"fan_in_scaling": True}, "fan_in_scaling is false; expected true$"),
        ({"layer_norm": True}, "layer_norm is false; expected true$"),
        ({"tile": 100}, "tile is null; expected 100$"),
    ],
)
def test_a_file_of_another_hypernetwork(tmp_path, options, message):
    net, path = make_net(), tmp_path / "ghn.npz"
    provider = ghn.hypernetwork(net, **SMALL)
    ghn.save(path, some_params(provider), provider)
    with pytest.raises(
        ValueError, match=f"ghn.npz was made with other settings: {message}"
    ):
        ghn.load(path, ghn.hypernetwork(net, **SMALL | options))


OPS = ("sep_conv_3x3", "conv_1x1", "max_pool_3x3")
NETS: dict[str, Any] = {
    "dag": {"channels": 4, "num_blocks": 6, "num_classes": 3},
    "micro": {"channels": 4, "num_cells": 6, "num_classes": 3},
    "anytime": {"channels": 4, "num_classes": 3},
    "macro": {"channels": 4, "num_classes": 3},
}
SPACES = {
    "dag": functools.partial(spaces.ghn_dag, 4, ops=OPS),
    "micro": functools.partial(spaces.enas_micro, 2),
    "anytime": functools.partial(spaces.anytime, (4, 3, 3), (1, 1, 1)),
    "macro": functools.partial(spaces.enas_macro, 3),
}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("dag", {"num_blocks": 9}, "num_blocks is 6; expected 9$"),
        ("dag", {"channels": 2}, "channels is 4; expected 2$"),
        ("dag", {"num_classes": 2}, "num_classes is 3; expected 2$"),
        ("dag", {"image_channels": 1}, "image_channels is 3; expected 1$"),
        ("dag", {"node_input": "sum"}, 'node_input is "each"; expected "sum"$'),
        ("micro", {"num_cells": 5}, "num_cells is 6; expected 5$"),
        ("micro", {"skeleton": "enas"}, 'layout is "asng"; expected "enas"$'),
        ("anytime", {"channels": 2}, "channels is 4; expected 2$"),
        ("macro", {"channels": 2}, "channels is 4; expected 2$"),
        ("macro", {"skips": "add"}, 'skips is "concat"; expected "add"$'),
    ],
)
def test_a_file_for_another_network(tmp_path, kind, options, message):
    path, make = tmp_path / "ghn.npz", getattr(supernets, kind)
    net, other = (make(SPACES[kind](), **NETS[kind] | o) for o in ({}, options))
    provider = ghn.hypernetwork(net, **SMALL)
    ghn.save(path, some_params(provider), provider)
    with pytest.raises(ValueError, match=f"other settings: {message}"):
        ghn.load(path, ghn.hypernetwork(other, **SMALL))


def test_a_file_for_another_order_of_operations(tmp_path):
    path = tmp_path / "ghn.npz"
    net, other = (
        supernets.dag(spaces.ghn_dag(4, ops=ops), **NETS["dag"])
        for ops in (OPS, OPS[::-1])
    )
    provider = ghn.hypernetwork(net, **SMALL)
    ghn.save(path, some_params(provider), provider)
    message = (
        r'ops is \["sep_conv_3x3", "conv_1x1", "max_pool_3x3"\]; expected '
        r'\["max_pool_3x3", "conv_1x1", "sep_conv_3x3"\]$'
    )
    with pytest.raises(ValueError, match=message):
        ghn.load(path, ghn.hypernetwork(other, **SMALL))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "has no settings"),
        ("{", "has damaged settings: .*Expecting property name"),
        ("[]", "has damaged settings: expected those of a hypernetwork and"),
        ('{"hypernetwork": {}}', "has damaged settings: expected those"),
        ('{"hypernetwork": 1, "supernet": {}}', "has damaged settings: expected those"),
        ('{"hypernetwork": {}, "supernet": {}}', "channels is missing; expected 2"),
    ],
)
def test_a_file_with_damaged_settings(tmp_path, settings, message):
    path = tmp_path / "ghn.npz"
    provider = ghn.hypernetwork(make_net(), **SMALL)
    ghn.save(path, some_params(provider), provider)
    with np.load(path) as archive:
        arrays = dict(archive)
    del arrays["settings.json"]
    if settings is not None:
        arrays["settings.json"] = np.array(settings)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"ghn.npz .*{message}"):
        ghn.load(path, provider)
    if "missing" not in message:
        with pytest.raises(ValueError, match=message):
            ghn.load_settings(path)


def test_a_file_with_other_parameters(tmp_path):
    path = tmp_path / "ghn.npz"
    provider = ghn.hypernetwork(make_net(), **SMALL)
    params = some_params(provider)
    ghn.save(path, params, provider)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["graph/attributes/0"] = np.zeros((2, 6))
    np.savez(path, **arrays)
    message = r"other parameters: graph/attributes/0 is \(2, 6\); expected \(10, 6\)"
    with pytest.raises(ValueError, match=message):
        ghn.load(path, provider)
    other = ghn.hypernetwork(make_net(), **SMALL | {"hidden_size": 8})
    with pytest.raises(ValueError, match="params has other parameters: "):
        ghn.save(path, params, other)
    with pytest.raises(ValueError, match="the provider has no settings; expected a"):
        ghn.save(path, params, weights.shared(make_net()))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "has a graph/attributes/0 that is not finite"),
        (1e300, "has a graph/attributes/0 that is not finite"),
        (1j, "'graph/attributes/0' is of type '<c16'"),
        (True, "graph/attributes/0 is bool; expected float32"),
        (1, "graph/attributes/0 is int64; expected float32"),
    ],
)
def test_parameters_are_finite_numbers(tmp_path, value, message):
    path = tmp_path / "ghn.npz"
    provider = ghn.hypernetwork(make_net(), **SMALL)
    ghn.save(path, some_params(provider), provider)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["graph/attributes/0"] = np.full((10, 6), value)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message):
        ghn.load(path, provider)
    arrays["graph/attributes/0"] = np.full((10, 6), 0.5, np.float64)
    np.savez(path, **arrays)
    params = ghn.load(path, provider)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def npy_file():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 damaged", b"\x80\x04.", npy_file()]
)
def test_loading_what_is_no_hypernetwork(tmp_path, content):
    path = tmp_path / "ghn.npz"
    path.write_bytes(content)
    provider = ghn.hypernetwork(make_net())
    for load in (ghn.load_settings, lambda path: ghn.load(path, provider)):
        with pytest.raises(ValueError, match="is not a file of a hypernetwork"):
            load(path)


def test_adding_noise():
    generated = {
        "tiled": jnp.tile(jnp.array([[1.0, -2.0]]), (3, 2)),
        "unused": jnp.zeros(2),
    }
    noisy = ghn.add_noise(jax.random.key(0), generated, scale=0.01)
    assert (noisy["unused"] == 0).all()
    difference = noisy["tiled"] - generated["tiled"]
    assert np.unique(difference).size == difference.size
    assert (jnp.abs(difference) < 0.1).all()


def test_generated_weights_can_be_trained():
    net = make_small_net()
    provider = ghn.hypernetwork(net, **SMALL)
    arch = net.space.encode(BLOCK)
    params = jax.jit(provider.init)(jax.random.key(0))
    start = ghn.add_noise(jax.random.key(1), jax.jit(provider.apply)(params, arch))
    optimizer = optax.sgd(0.05)
    step = jax.jit(
        train.weight_step(net, weights.shared(net), train.classification(), optimizer)
    )
    batch = {
        "image": jax.random.normal(jax.random.key(2), (6, 8, 8, 3)),
        "label": jnp.array([0, 1, 2, 0, 1, 2]),
    }
    state, losses = train.WeightState(start, optimizer.init(start)), []
    for i in range(8):
        state, metrics = step(state, arch[None], batch, jax.random.key(i))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"propagation": "backward"}, "propagation is 'backward'; expected one of"),
        ({"pass_embeddings": True}, "pass_embeddings is True; expected one of every"),
        ({"hidden_size": 0}, "hidden_size is 0; expected at least 1"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"tile": 0}, "tile is 0"),
        ({"virtual_edges": 0}, "virtual_edges is 0"),
        ({"weight_penalty": -1.0}, "weight_penalty is -1.0; expected 0 or more"),
        ({"weight_penalty": float("nan")}, "weight_penalty is nan"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ghn.hypernetwork(make_net(), **options)


def test_a_supernet_without_a_graph_spec():
    net = make_net()._replace(graph_spec=None)
    with pytest.raises(ValueError, match="the supernet has no graph spec"):
        ghn.hypernetwork(net)
