"""Networks that are told what their edges read, beside those that know it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import genotypes, networks
from jaxnas.genotypes import Genotype

NORMAL = (
    *(("sep_conv_3x3", 0), ("skip_connect", 1)),
    *(("skip_connect", 2), ("avg_pool_3x3", 0)),
    *(("dil_conv_3x3", 3), ("max_pool_3x3", 1)),
)
REDUCE = (
    *(("skip_connect", 0), ("max_pool_3x3", 1)),
    *(("skip_connect", 1), ("sep_conv_3x3", 2)),
    *(("skip_connect", 2), ("avg_pool_3x3", 3)),
)
BASE = Genotype(NORMAL, (2, 3, 4), REDUCE, (2, 3, 4))
# Eight cells, of which one stands in a scan.
make = functools.partial(networks.micro, channels=2, num_cells=8, num_classes=3)


def images():
    return jax.random.normal(jax.random.key(0), (4, 8, 8, 1))


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(network, variables, images, sources):
    """Of a training step; also the logits of an evaluation."""
    options = {} if sources is None else {"sources": sources}

    def loss(params):
        outputs, updated = network.apply(
            variables | {"params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            **options,
        )
        return jnp.square(outputs - 1).sum(), updated["batch_stats"]

    (value, batch_stats), gradient = jax.value_and_grad(loss, has_aux=True)(
        variables["params"]
    )
    variables = variables | {"batch_stats": batch_stats}
    logits = network.apply(variables, images, train=False, **options)
    return value, batch_stats, gradient, logits


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def chosen(tree, structure):
    """The leaves of a tree that another one has, too."""
    leaves = by_path(tree)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: leaves[jax.tree_util.keystr(path)], structure
    )


@functools.cache
def told_variables():
    sources = networks.edge_sources(BASE)
    return jax.jit(
        lambda: make(BASE).init(
            jax.random.key(1), images()[:1], train=True, sources=sources
        )
    )()


@pytest.mark.parametrize("seed", [None, 1, 2, 5])
def test_sources_that_are_told(seed):
    variant = BASE if seed is None else genotypes.random_connections(BASE, seed)
    told = told_variables()
    found = loss_and_gradient(
        make(BASE), told, images(), networks.edge_sources(variant)
    )
    network = make(variant)
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(1), images()[:1], train=True)
    )
    known = chosen(told, shapes)
    expected = loss_and_gradient(network, known, images(), None)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[3], expected[3], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found[1:3], expected[1:3], strict=True):
        theirs = by_path(theirs)
        for path, leaf in by_path(ours).items():
            if path in theirs:
                np.testing.assert_allclose(leaf, theirs[path], rtol=1e-3, atol=1e-4)
    # What only the told network has are reductions of identities that read nodes.
    gradient = by_path(found[2])
    idle = gradient.keys() - by_path(expected[2]).keys()
    assert all("skip_connect" in path for path in idle)
    assert not any(gradient[path].any() for path in idle)


def test_initial_weights_are_those_of_the_network_that_knows():
    known = jax.jit(
        lambda: make(BASE).init(jax.random.key(1), images()[:1], train=True)
    )()
    told = chosen(told_variables(), known)
    for path, leaf in by_path(known).items():
        np.testing.assert_array_equal(leaf, by_path(told)[path])


def test_one_compilation_serves_all_sources():
    def evaluate(sources):
        nonlocal num_traces
        num_traces += 1
        return make(BASE).apply(
            told_variables(), images(), train=False, sources=sources
        )

    num_traces = 0
    compiled = jax.jit(evaluate)
    outputs = [
        compiled(networks.edge_sources(genotypes.random_connections(BASE, seed)))
        for seed in range(3)
    ]
    assert num_traces == 1
    assert not np.allclose(outputs[0], outputs[1])
    assert not np.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("settings", "prob", "message"),
    [
        ({"skeleton": "enas"}, None, "found 'enas'"),
        ({"cell_output": "projection"}, None, "'projection'"),
        ({}, 0.1, "drop path on"),
    ],
)
def test_where_sources_do_not_go(settings, prob, message):
    network = make(BASE, **settings)
    sources = networks.edge_sources(BASE)
    with pytest.raises(ValueError, match=message):
        network.init(
            jax.random.key(0),
            images()[:1],
            train=True,
            sources=sources,
            drop_path_prob=prob,
        )


@pytest.mark.parametrize(("stride", "side"), [(1, 8), (2, 4)])
def test_a_strided_stem_halves_the_images(stride, side):
    network = make(BASE, stem_stride=stride)

    def output_of_stem():
        _, state = network.init_with_output(
            jax.random.key(0),
            images(),
            train=True,
            capture_intermediates=lambda module, _: module.name == "stem",
            mutable=["params", "batch_stats", "intermediates"],
        )
        return state["intermediates"]["stem"]["__call__"][0]

    assert jax.eval_shape(output_of_stem).shape == (4, side, side, 6)


def test_a_stride_is_positive():
    with pytest.raises(ValueError, match="stem_stride is 0"):
        make(BASE, stem_stride=0)
