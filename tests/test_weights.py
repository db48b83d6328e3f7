"""Weight providers: whatever the source, the weights are the supernet's own."""

import functools
import types

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxnas import ghn, ops, spaces, supernets, weights
from jaxnas.types import Graph, GraphSpec, NodeAssignment, Supernet

# A new provider is one more row.
PROVIDERS = {
    "shared": weights.shared,
    "ghn": functools.partial(
        ghn.hypernetwork, hidden_size=8, num_steps=1, decoder_size=8
    ),
}
all_providers = pytest.mark.parametrize("make", PROVIDERS.values(), ids=PROVIDERS)


def linear() -> Supernet:
    """Two decisions: which matrix comes first, and which bias follows."""

    def init(key):
        return {
            "matrix": jax.random.normal(key, (3, 4, 5)),
            "bias": [jnp.ones(5), -jnp.ones(5)],
        }

    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        del train, key, batch_axis
        bias = jnp.stack(weights["bias"])[arch[1]]
        return inputs @ weights["matrix"][arch[0]] + bias[None]

    def graph(arch):
        """One block: node 2, a matrix, reads an input; node 3, a bias, reads node 2."""
        return Graph(
            jnp.concatenate([jnp.zeros(2, jnp.int32), arch]).reshape(1, 4, 1),
            jnp.zeros((1, 4, 4), bool).at[0, [0, 2], [2, 3]].set(True),
            jnp.array([[True, False, True, True]]),
        )

    def sites(arch):
        matrices, bias = jnp.array([[0, 2]] * 3, jnp.int32), jnp.array([0, 3])
        return {
            "matrix": NodeAssignment(matrices, None, jnp.arange(3) == arch[0]),
            "bias": [NodeAssignment(bias, None, arch[1] == i) for i in range(2)],
        }

    specs = {
        "matrix": ops.WeightSpec((3, 4, 5), 4),
        "bias": [ops.WeightSpec((5,), 1)] * 2,
    }
    space = types.SimpleNamespace(cardinalities=(3, 2))
    return Supernet(space, init, apply, GraphSpec((3,), specs, graph, sites))


ARCHS = jnp.array([[a, b] for a in range(3) for b in range(2)], jnp.int32)


NETS = {
    "linear": linear(),
    "micro-asng": supernets.micro(spaces.enas_micro(1), 2, 3, 4),
    "micro-enas": supernets.micro(spaces.enas_micro(1), 2, 3, 4, skeleton="enas"),
    "macro-concat": supernets.macro(spaces.enas_macro(3), 2, 4),
    "macro-add": supernets.macro(spaces.enas_macro(3), 2, 4, skips="add"),
    "dag-each": supernets.dag(spaces.ghn_dag(3), 2, 3, 4),
    "dag-sum": supernets.dag(spaces.ghn_dag(3, max_nodes=4), 2, 3, 4, node_input="sum"),
}


@pytest.mark.parametrize(
    ("make", "net"),
    [
        pytest.param(make, net, id=f"{provider}-{name}")
        for provider, make in PROVIDERS.items()
        for name, net in NETS.items()
        if provider == "shared" or net.graph_spec is not None
    ],
)
def test_weights_have_the_structure_of_the_supernet(make, net):
    provider = make(net)
    expected = jax.eval_shape(net.init, jax.random.key(0))
    params = jax.eval_shape(provider.init, jax.random.key(0))
    arch = jax.ShapeDtypeStruct((len(net.space.cardinalities),), jnp.int32)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(provider.apply, params, arch), expected
    )


@all_providers
def test_parameters_depend_on_the_key_alone(make):
    provider = make(linear())
    first, again, other = (
        jax.jit(provider.init)(jax.random.key(seed)) for seed in (0, 0, 1)
    )
    chex.assert_tree_all_finite(first)
    chex.assert_trees_all_equal(first, again)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(first, other)


@all_providers
def test_one_compilation_serves_all_architectures(make):
    net = linear()
    provider = make(net)
    params = jax.jit(provider.init)(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (2, 4))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def outputs(params, arch):
        return net.apply(provider.apply(params, arch), arch, inputs, train=True)

    chex.clear_trace_counter()
    results = [outputs(params, arch) for arch in ARCHS]
    make_weights = jax.jit(provider.apply)
    for arch, result in zip(ARCHS, results, strict=True):
        expected = net.apply(make_weights(params, arch), arch, inputs, train=True)
        chex.assert_trees_all_close(result, expected, rtol=1e-5, atol=1e-6)
        assert sum(bool((result == other).all()) for other in results) == 1


@all_providers
def test_gradients_reach_every_parameter(make):
    net = linear()
    provider = make(net)
    params = jax.jit(provider.init)(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (2, 4))

    @jax.jit
    def loss(params):
        def loss_of(arch):
            weights = provider.apply(params, arch)
            return jnp.square(net.apply(weights, arch, inputs, train=True)).sum()

        return jax.lax.map(loss_of, ARCHS).sum()

    gradient = jax.grad(loss)(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, params)
    chex.assert_tree_all_finite(gradient)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


def test_shared_weights_are_the_parameters():
    net = linear()
    provider = weights.shared(net)
    params = provider.init(jax.random.key(0))
    chex.assert_trees_all_equal(params, net.init(jax.random.key(0)))
    for arch in ARCHS:
        chex.assert_trees_all_equal(provider.apply(params, arch), params)


def test_what_an_architecture_does_not_use_gets_no_gradient():
    net = linear()
    provider = weights.shared(net)

    def loss(params, arch):
        weights = provider.apply(params, arch)
        return net.apply(weights, arch, jnp.ones((2, 4)), train=True).sum()

    gradient = jax.grad(loss)(provider.init(jax.random.key(0)), ARCHS[3])  # (1, 1)
    assert [bool((row != 0).any()) for row in gradient["matrix"]] == [0, 1, 0]
    assert [bool((row != 0).any()) for row in gradient["bias"]] == [0, 1]
