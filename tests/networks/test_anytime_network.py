"""The anytime network is the supernet's function; its costs, exits and evaluation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas import analysis, data, genotypes, networks, ops, spaces, supernets, train

SPACE = spaces.anytime((4, 3, 2), (2, 1, 1), min_nodes=(2, 1, 1))
# Every operation, and every scale that a block may have; then fewer nodes. In the
# first, node 3 of block 0 and node 4 of block 2 are leaves, and no exit needs node 4.
LARGE = genotypes.AnytimeGenotype(
    ops=(
        ("conv_3x3", "conv_5x5", "max_pool_3x3", "conv_1x1"),
        ("avg_pool_3x3", "conv_3x3", "conv_5x5"),
        ("conv_3x3", "max_pool_3x3", "conv_5x5"),
    ),
    inputs=(
        ((0,), (0, 1), (0, 2), (1, 2, 4)),
        ((0, 1), (2,), (1, 3)),
        ((0,), (1, 2), (2,)),
    ),
    scales=((0, 1, 2, 2), (1, 1, 2), (2, 2, 2)),
    exits=((4, 5), (4,), (3,)),
)
FIRST_EXITS = LARGE._replace(exits=((4, 5), (4,), (2,)))
IN_SPACE = LARGE._replace(
    ops=(*LARGE.ops[:2], LARGE.ops[2][:2]),
    inputs=(*LARGE.inputs[:2], LARGE.inputs[2][:2]),
    scales=(*LARGE.scales[:2], LARGE.scales[2][:2]),
)
SMALL = genotypes.AnytimeGenotype(
    ops=(("conv_3x3", "conv_1x1"), ("conv_5x5",), ("avg_pool_3x3",)),
    inputs=(((0,), (1, 2)), ((0,),), ((1,),)),
    scales=((2, 2), (2,), (2,)),
    exits=((2, 3), (2,), (2,)),
)
CHANNELS, CLASSES = 2, 3


@functools.cache
def images(batch_size=4):
    return jax.random.normal(jax.random.key(1), (batch_size, 8, 8, 3))


@functools.cache
def shared_weights():
    """A supernet and weights of it, whose stem's scale is not 1."""
    net = supernets.anytime(SPACE, CHANNELS, CLASSES)
    weights = jax.jit(net.init)(jax.random.key(0))
    stem = weights["stem"]
    stem |= {"scale": stem["scale"] + 0.5, "offset": stem["offset"] + 0.1}
    return net, weights


@functools.partial(jax.jit, static_argnums=0)
def apply_training(network, variables, images):
    return network.apply(variables, images, train=True, mutable=["batch_stats"])


@functools.partial(jax.jit, static_argnums=0)
def evaluate(network, variables, images):
    return network.apply(variables, images, train=False)


@functools.partial(jax.jit, static_argnums=0)
def init(network, images):
    return network.init(jax.random.key(0), images, train=True)


def shapes(network, image_shape=(8, 8, 3)):
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(network.init, train=True)
    return jax.eval_shape(init, jax.random.key(0), image)["params"]


@pytest.mark.parametrize("genotype", [IN_SPACE, SMALL], ids=["large", "small"])
def test_with_batch_statistics_it_is_the_supernet(genotype):
    net, weights = shared_weights()
    expected = jax.jit(net.apply)(weights, SPACE.encode(genotype), images())
    network = networks.anytime(genotype, CHANNELS, CLASSES)
    params = networks.params_from_supernet(network, weights)
    statistics = init(network, images())["batch_stats"]
    variables = {"params": params, "batch_stats": statistics}
    logits, _ = apply_training(network, variables, images())
    chex.assert_shape(logits, (4, 4, CLASSES))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_scales_and_offsets_are_learned_but_the_weights_correspond():
    _, weights = shared_weights()
    network = networks.anytime(IN_SPACE, CHANNELS, CLASSES)
    params = networks.params_from_supernet(network, weights)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, shapes(network))
    node = params["block_0_node_5"]
    # Reads nodes 1, 2 and 4; its kernels are the supernet's.
    assert node["bottleneck"]["kernel"].shape == (3 * CHANNELS, CHANNELS)
    own = weights["blocks"][0]["nodes"]["conv_1x1"]["kernel"][3]
    np.testing.assert_array_equal(node["conv_1x1"]["kernel"], own)
    norms = {"BatchNorm_0": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}
    chex.assert_trees_all_equal(
        params["block_0_node_4"], params["block_0_node_4"] | norms
    )


def test_one_image_at_a_time():
    network = networks.anytime(SMALL, CHANNELS, CLASSES)
    variables = init(network, images())
    # Statistics of other images.
    _, updated = apply_training(network, variables, 2 * images(8) + 1)
    variables |= updated
    together = evaluate(network, variables, images())
    alone = [evaluate(network, variables, image[None]) for image in images()]
    np.testing.assert_allclose(
        together, jnp.concatenate(alone, axis=1), rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(together, apply_training(network, variables, images())[0])


def test_shares_of_a_batch_equal_the_whole():
    network = networks.anytime(SMALL, CHANNELS, CLASSES)
    variables = init(network, images())
    expected, statistics = apply_training(network, variables, images())
    sharded = functools.partial(
        network.clone(batch_axis="devices").apply, train=True, mutable=["batch_stats"]
    )
    apply = jax.vmap(sharded, (None, 0), (1, None), axis_name="devices")
    shares = images().reshape(2, 2, *images().shape[1:])
    logits, updated = jax.jit(apply)(variables, shares)
    logits = logits.reshape(expected.shape)
    chex.assert_trees_all_close(
        (logits, updated), (expected, statistics), rtol=1e-4, atol=1e-4
    )


# Costs -------------------------------------------------------------------------------


def multiply_adds(jaxpr) -> int:
    """Those of all matrix products and convolutions of a program, loops included."""
    total = 0
    for equation in jaxpr.eqns:
        kind, parameters = equation.primitive.name, equation.params
        operands = [variable.aval.shape for variable in equation.invars]
        results = int(np.prod(equation.outvars[0].aval.shape))
        if kind == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            total += results * int(np.prod([operands[0][axis] for axis in contracted]))
        elif kind == "conv_general_dilated":
            _, kernel = operands
            total += results * int(np.prod(kernel[:-1]))
        else:
            inner = [
                multiply_adds(getattr(leaf, "jaxpr", leaf))
                for leaf in jax.tree.leaves(list(parameters.values()))
                if hasattr(getattr(leaf, "jaxpr", leaf), "eqns")
            ]
            # One branch runs, that of the device.
            once = max(inner, default=0) if kind == "cond" else sum(inner)
            total += parameters.get("length", 1) * once
    return total


def multiply_adds_of(network, image_shape):
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(
        functools.partial(network.init, train=True), jax.random.key(0), image
    )
    evaluate = functools.partial(network.apply, train=False)
    return multiply_adds(jax.make_jaxpr(evaluate)(variables, image).jaxpr)


@pytest.mark.parametrize("genotype", [LARGE, SMALL], ids=["large", "small"])
def test_every_exit_costs_what_the_analysis_says(genotype):
    shape = (16, 16, 1)
    expected = analysis.exit_costs(genotype, 4, 10, shape)
    network = networks.anytime(genotype, 4, 10)
    costs = [
        multiply_adds_of(network.clone(num_exits=n), shape)
        for n in range(1, expected.size + 1)
    ]
    np.testing.assert_array_equal(costs, expected)
    assert multiply_adds_of(network, shape) == expected[-1]


def test_operations_of_the_compiled_network_are_those_of_the_exits():
    shape = (16, 16, 3)
    network = networks.anytime(LARGE, 32, 10)
    flops = networks.cost(network, shape).flops
    # A multiplication and an addition are two; pools and normalization come on top.
    expected = 2 * analysis.exit_costs(LARGE, 32, 10, shape)
    assert expected[-1] < flops < 1.1 * expected[-1]
    first = networks.cost(network.clone(num_exits=1), shape).flops
    assert expected[0] < first < 1.1 * expected[0]


def test_what_no_exit_needs_is_not_made():
    params = shapes(networks.anytime(LARGE, CHANNELS, CLASSES))
    assert "block_2_node_3" in params and "block_2_node_4" not in params
    fewer = shapes(networks.anytime(FIRST_EXITS, CHANNELS, CLASSES))
    assert set(params) - set(fewer) == {"block_2_node_3", "block_2_input_1"}
    # Nobody reads node 0 of the last block, nor hence the leaves of the block before.
    unread = SMALL._replace(inputs=(*SMALL.inputs[:2], ((1,),)))
    assert "block_2_input_0" not in shapes(networks.anytime(unread, 2, 3))


def test_parameters_by_hand():
    def conv(size, channels_in, channels):
        return size**2 * channels_in * channels + 2 * channels

    c = 4
    total = conv(3, 3, c)  # the stem
    # Both inputs, a 3x3 convolution of node 0, and a 1x1 convolution of nodes 1 and 2.
    total += 2 * conv(1, c, c) + conv(1, c, c) + conv(3, c, c)
    total += conv(1, 2 * c, c) + conv(1, c, c)
    total += 2 * (c * 10 + 10)
    # Input 0, of the only leaf, and a 5x5 convolution of it.
    total += conv(1, c, 2 * c) + conv(1, 2 * c, 2 * c) + conv(5, 2 * c, 2 * c)
    total += 2 * c * 10 + 10
    # Input 1, of the leaf two blocks before, and a pool of it with its scale.
    total += conv(1, c, 4 * c) + conv(1, 4 * c, 4 * c) + 2 * 4 * c
    total += 4 * c * 10 + 10
    network = functools.partial(networks.anytime, SMALL)
    assert networks.count_params(network(c), (8, 8, 3)) == total
    assert networks.cost(network(c), (8, 8, 3)).num_params == total
    largest = functools.partial(
        networks.channels_for_budget, network, image_shape=(8, 8, 3)
    )
    assert (largest(total - 1), largest(total)) == (c - 1, c)


def test_fewer_exits_use_the_same_variables():
    network = networks.anytime(SMALL, CHANNELS, CLASSES)
    variables = init(network, images())
    logits = evaluate(network, variables, images())
    first = evaluate(network.clone(num_exits=2), variables, images())
    np.testing.assert_allclose(first, logits[:2], rtol=1e-5, atol=1e-6)


# Training and evaluation -------------------------------------------------------------


@functools.cache
def digits():
    return data.load("digits")


def normalize(key, images):
    del key
    return data.normalize(images, digits().mean, digits().std)


def train_from_scratch(variables=None):
    return train.train_from_scratch(
        networks.anytime(SMALL, 4, 10),
        train.multi_exit_classification(),
        optax.sgd(optax.linear_schedule(0.1, 0.0, 128), momentum=0.9),
        digits().train,
        train.InputPipeline(99, normalize, normalize),
        key=jax.random.key(0),
        variables=variables,
        num_epochs=8,
        test=data.split(digits().test, 198)[0],
    )


@pytest.fixture(scope="module")
def trained():
    """A network with exits, the result of a short training, test images."""
    test = data.split(digits().test, 198)[0]
    return networks.anytime(SMALL, 4, 10), train_from_scratch(), test


def test_it_learns_and_its_accuracy_does_not_depend_on_the_batch(trained):
    network, result, test = trained
    accuracies = train.exit_accuracies(result.test)
    assert len(accuracies) == 4 and min(accuracies) > 0.3
    in_order = np.argsort(test.labels, kind="stable")
    by_class = data.Split(test.images[in_order], test.labels[in_order])
    for split, batch_size in ((test, 99), (test, 1), (by_class, 99)):
        evaluate = train.make_network_eval_fn(
            network,
            train.multi_exit_classification(),
            normalize=normalize,
            batch_size=batch_size,
        )
        found = evaluate(result.state.params, result.state.batch_stats, split)
        assert found == pytest.approx(result.test, rel=1e-5)


def test_parameters_without_statistics_get_them_and_are_trained_on(trained):
    network, result, test = trained
    params = result.state.params
    estimate = train.statistics_estimator(network, normalize=normalize, batch_size=99)
    variables = {"params": params, "batch_stats": estimate(params, digits().train)}
    evaluate = train.make_network_eval_fn(
        network,
        train.multi_exit_classification(),
        normalize=normalize,
        batch_size=99,
    )
    found = evaluate(**variables, split=test)
    assert found["accuracy"] == pytest.approx(result.test["accuracy"], abs=0.1)
    none = jax.tree.map(jnp.ones_like, variables["batch_stats"])
    assert found["accuracy"] > evaluate(params, none, test)["accuracy"] + 0.2
    after = train_from_scratch(variables)
    assert (
        after.test["loss"] < found["loss"] and after.test["loss"] < result.test["loss"]
    )
    # They were not overwritten.
    assert evaluate(**variables, split=test) == found


def test_statistics_are_the_averages_over_batches():
    network = networks.anytime(SMALL, 4, 10)
    variables = init(network, jnp.zeros((1, 8, 8, 1)))
    split = data.split(digits().train, 70)[0]
    estimate = train.statistics_estimator(network, normalize=normalize, batch_size=30)
    found = estimate(variables["params"], split)["stem"]["BatchNorm_0"]
    order = np.random.default_rng(0).permutation(70)[:60].reshape(2, 30)
    kernel = variables["params"]["stem"]["kernel"]
    batches = [
        ops.conv(normalize(None, jnp.asarray(split.images[batch])), kernel, (1, 1))
        for batch in order
    ]
    mean = np.mean([batch.mean((0, 1, 2)) for batch in batches], axis=0)
    var = np.mean([batch.var((0, 1, 2)) for batch in batches], axis=0)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], var, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="batch_size is 30, but there are only 20 im"):
        estimate(variables["params"], data.split(split, 20)[0])


# Wrong input -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("genotype", "settings", "message"),
    [
        (SMALL, {"channels": 0}, "channels is 0; expected at least 1"),
        (SMALL, {"num_classes": 0}, "num_classes is 0; expected at least 1"),
        (SMALL, {"num_exits": 0}, "num_exits is 0; expected 1 to 4"),
        (SMALL, {"num_exits": 5}, "num_exits is 5; expected 1 to 4"),
        (genotypes.named("GHN"), {}, "found a DagGenotype; expected an AnytimeGen"),
    ],
)
def test_wrong_arguments(genotype, settings, message):
    with pytest.raises(ValueError, match=message):
        networks.anytime(genotype, **settings)


def test_wrong_images():
    with pytest.raises(ValueError, match=r"\(1, 6, 8, 3\); .* divisible by 4"):
        shapes(networks.anytime(SMALL), (6, 8, 3))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (networks.anytime(SMALL, 4, CLASSES), r"of .* have shape .*; expected \(.*"),
        (networks.macro(genotypes.named("ENAS_MACRO")), "found a MacroNetwork; exp"),
    ],
)
def test_weights_of_another_network(network, message):
    _, weights = shared_weights()
    with pytest.raises(ValueError, match=message):
        networks.params_from_supernet(network, weights)
