"""Graph specs: what a supernet says of its weights is true of the network it runs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import ops, spaces, supernets
from jaxnas.types import GraphSpec, NodeAssignment, Supernet


def is_assignment(leaf):
    return leaf is None or isinstance(leaf, NodeAssignment)


def is_spec(leaf):
    return isinstance(leaf, ops.WeightSpec)


# Few operations, for the macro networks take longest to compile.
MACRO_OPS = ("max_pool_3x3", "sep_conv_5x5", "conv_3x3")

# A new supernet with a graph spec is one more row.
NETS = {
    "micro-asng": lambda: supernets.micro(spaces.enas_micro(2), 2, 5, 3),
    "micro-asng-3-cells": lambda: supernets.micro(spaces.enas_micro(1), 2, 3, 3),
    "micro-enas": lambda: supernets.micro(
        spaces.enas_micro(2), 2, 5, 3, skeleton="enas"
    ),
    "macro-concat": lambda: supernets.macro(spaces.MacroSpace(6, MACRO_OPS), 4, 3),
    "macro-add": lambda: supernets.macro(
        spaces.MacroSpace(4, MACRO_OPS), 4, 3, skips="add"
    ),
    "dag": lambda: supernets.dag(spaces.ghn_dag(4, max_nodes=6), 2, 5, 3),
    "anytime": lambda: supernets.anytime(
        spaces.anytime((3, 2, 2), (1, 1, 1)), channels=2, num_classes=3
    ),
}
all_nets = pytest.mark.parametrize("name", NETS)


def graph_spec(net: Supernet) -> GraphSpec:
    assert net.graph_spec is not None
    return net.graph_spec


def sample(net, seed):
    return net.space.sample(jax.random.key(seed))


@all_nets
def test_specs_are_those_of_the_weights(name):
    net = NETS[name]()
    weights = jax.eval_shape(net.init, jax.random.key(0))
    specs = graph_spec(net).specs
    shapes = jax.tree.map(lambda spec: spec.shape, specs, is_leaf=is_spec)
    expected = jax.tree.map(lambda leaf: leaf.shape, weights)
    assert shapes == expected


@all_nets
def test_graph(name):
    net = NETS[name]()
    graph = jax.jit(graph_spec(net).graph)(sample(net, 0))
    num_blocks, num_nodes = graph.node_mask.shape
    sizes = graph_spec(net).feature_sizes
    chex.assert_shape(graph.node_features, (num_blocks, num_nodes, len(sizes)))
    chex.assert_shape(graph.adjacency, (num_blocks, num_nodes, num_nodes))
    chex.assert_type([*graph], [jnp.int32, bool, bool])
    assert (np.asarray(graph.node_features) >= 0).all()
    assert (np.asarray(graph.node_features) < np.array(sizes)).all()
    edges = np.argwhere(np.asarray(graph.adjacency))
    assert (edges[:, 1] < edges[:, 2]).all()
    assert graph.node_mask[edges[:, 0], edges[:, 1]].all()
    assert graph.node_mask[edges[:, 0], edges[:, 2]].all()
    # What is present and no input reads something.
    assert (graph.adjacency.any(1) == graph.node_mask)[:, 2:].all()


@all_nets
def test_sites_fit_the_weights(name):
    net = NETS[name]()
    arch = sample(net, 0)
    graph = graph_spec(net).graph(arch)
    assignments = jax.jit(graph_spec(net).assignments)(arch)
    assert jax.tree.structure(assignments, is_leaf=is_assignment) == jax.tree.structure(
        graph_spec(net).specs, is_leaf=is_spec
    )
    specs = jax.tree.leaves(graph_spec(net).specs, is_leaf=is_spec)
    for spec, assignment in zip(
        specs, jax.tree.leaves(assignments, is_leaf=is_assignment), strict=True
    ):
        if assignment is None:
            continue
        stack = spec.shape[: assignment.is_used.ndim]
        chex.assert_shape(assignment.is_used, stack)
        for place in (assignment.node, assignment.source):
            if place is None:
                continue
            chex.assert_shape(place, (*stack, 2))
            assert (place >= 0).all()
            assert (np.asarray(place) < graph.node_mask.shape).all()
            # What is used belongs to what is there.
            present = graph.node_mask[place[..., 0], place[..., 1]]
            assert (present | ~assignment.is_used).all()


# Tests of the other supernets say so of theirs.
@pytest.mark.parametrize(
    "name", ["micro-asng", "micro-enas", "macro-concat", "macro-add"]
)
def test_what_is_used_is_what_has_a_gradient(name):
    net = NETS[name]()
    weights = net.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

    @jax.jit
    def gradient(weights, arch):
        def loss(weights):
            logits = net.apply(weights, arch, images, train=False)
            return (logits * jnp.arange(12.0).reshape(4, 3)).sum()

        return jax.grad(loss)(weights)

    num_whole = 0
    for seed in range(8):
        arch = sample(net, seed)
        # Blocks whose outputs nobody reads are of no use at all.
        is_whole = bool(graph_spec(net).graph(arch).node_mask[:-1, :2].all())
        assignments = jax.tree.leaves(
            graph_spec(net).assignments(arch), is_leaf=is_assignment
        )
        leaves = jax.tree.leaves(gradient(weights, arch))
        for leaf, assignment in zip(leaves, assignments, strict=True):
            if assignment is None:
                assert (leaf != 0).any()
                continue
            axes = tuple(range(assignment.is_used.ndim, leaf.ndim))
            has_gradient = (leaf != 0).any(axis=axes)
            assert not (has_gradient & ~assignment.is_used).any()
            if is_whole:
                np.testing.assert_array_equal(has_gradient, assignment.is_used)
        num_whole += is_whole
    assert num_whole > 0
