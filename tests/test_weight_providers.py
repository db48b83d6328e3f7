"""Weight providers: whatever the source, the weights are the supernet's own."""

import types

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxnas import spaces, supernets, weights
from jaxnas.types import Supernet

# A new provider is one more row.
PROVIDERS = [pytest.param(weights.shared, id="shared")]
all_providers = pytest.mark.parametrize("make", PROVIDERS)


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

    return Supernet(types.SimpleNamespace(cardinalities=(3, 2)), init, apply)


ARCHS = jnp.array([[a, b] for a in range(3) for b in range(2)], jnp.int32)


@all_providers
@pytest.mark.parametrize(
    "net",
    [
        pytest.param(linear(), id="linear"),
        pytest.param(supernets.micro(spaces.enas_micro(1), 2, 3, 4), id="micro-asng"),
        pytest.param(
            supernets.micro(spaces.enas_micro(1), 2, 3, 4, layout="enas"),
            id="micro-enas",
        ),
        pytest.param(supernets.macro(spaces.enas_macro(3), 2, 4), id="macro-concat"),
        pytest.param(
            supernets.macro(spaces.enas_macro(3), 2, 4, skips="add"), id="macro-add"
        ),
        pytest.param(supernets.dag(spaces.ghn_dag(3), 2, 3, 4), id="dag-each"),
        pytest.param(
            supernets.dag(spaces.ghn_dag(3, max_nodes=4), 2, 3, 4, node_input="sum"),
            id="dag-sum",
        ),
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
    params = provider.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (2, 4))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def outputs(params, arch):
        return net.apply(provider.apply(params, arch), arch, inputs, train=True)

    chex.clear_trace_counter()
    results = [outputs(params, arch) for arch in ARCHS]
    for arch, result in zip(ARCHS, results, strict=True):
        expected = net.apply(provider.apply(params, arch), arch, inputs, train=True)
        chex.assert_trees_all_close(result, expected, rtol=1e-5, atol=1e-6)
        assert sum(bool((result == other).all()) for other in results) == 1


@all_providers
def test_gradients_reach_every_parameter(make):
    net = linear()
    provider = make(net)
    params = provider.init(jax.random.key(0))
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
