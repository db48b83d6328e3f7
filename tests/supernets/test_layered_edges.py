"""Kernels for layers of many edges equal the loop over edges.

Without a GPU they run by ordinary operations, and are lowered for one.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import ops
from jaxnas.supernets import _micro_asng, _micro_cells, _platforms
from jaxnas.supernets.edges import EdgeGroup, Edges, evaluate

NAMES = (
    *("none", "skip_connect", "avg_pool_3x3", "max_pool_3x3", "conv_1x1"),
    *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3"),
)


@pytest.fixture
def interpreted(monkeypatch):
    """Run kernels by ordinary operations, among arrays that hold anything at first."""
    monkeypatch.setenv("JAXNAS_GPU_KERNELS", "interpret")
    monkeypatch.setattr(jnp, "empty", lambda *args: jnp.full(args[0], jnp.nan, args[1]))


def operations_of(*, affine=False, count_include_pad=False):
    primitives = ops.primitives(count_include_pad=count_include_pad)
    return {
        name: ops.with_affine_norms(primitives[name]) if affine else primitives[name]
        for name in NAMES
    }


def random_table(operations, channels, num_rows, stride, rng, *leading):
    specs = _micro_cells.table_specs(operations, channels, (*leading, num_rows), stride)
    return jax.tree.map(
        lambda spec: jnp.asarray(rng.standard_normal(spec.shape)),
        specs,
        is_leaf=lambda leaf: isinstance(leaf, ops.WeightSpec),
    )


def assert_kernels_equal_the_loop(run, args, request, rtol=1e-10, atol=1e-10):
    """Values and gradients of a function of float arguments."""

    def pulled_back(*args):
        value, pull_back = jax.vjp(run, *args)
        direction = np.random.default_rng(9).standard_normal(value.shape)
        return value, pull_back(jnp.asarray(direction, value.dtype))

    expected = jax.jit(pulled_back)(*args)
    request.getfixturevalue("interpreted")
    actual = jax.jit(lambda *args: pulled_back(*args))(*args)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(actual, expected, rtol=rtol, atol=atol)


def test_cells_of_two_architectures_that_share_weights(x64, request):
    """Each architecture has half of the operations, among images with an odd side."""
    rng = np.random.default_rng(0)
    operations, norm = operations_of(), ops.BatchNorm()
    table = random_table(operations, 3, _micro_cells.num_rows(2), 1, rng)
    inputs = jnp.asarray(rng.standard_normal((2, 2, 2, 5, 4, 3)))
    cells = jnp.array(
        [[[0, 1, 3, 7], [2, 2, 6, 1]], [[1, 1, 2, 5], [0, 2, 4, 0]]], jnp.int32
    )

    def run(table, inputs):
        return jax.vmap(
            lambda cell, inputs: _micro_cells.run_cell(
                operations, table, cell, inputs, norm, row_per_side=False
            )
        )(cells, inputs)

    assert_kernels_equal_the_loop(run, (table, inputs), request)


def test_cells_with_weights_of_their_own_and_learned_scales(x64, request):
    rng = np.random.default_rng(1)
    operations, norm = operations_of(affine=True), ops.BatchNorm(epsilon=1e-3)
    rows = 2 * _micro_cells.num_rows(1)
    table = random_table(operations, 2, rows, 1, rng, 2)
    inputs = jnp.asarray(rng.standard_normal((2, 2, 2, 3, 3, 2)))
    cells = jnp.array([[[0, 1, 6, 7]], [[1, 1, 5, 4]]], jnp.int32)

    def run(table, inputs):
        return jax.vmap(
            lambda cell, table, inputs: _micro_cells.run_cell(
                operations, table, cell, inputs, norm, row_per_side=True
            )
        )(cells, table, inputs)

    assert_kernels_equal_the_loop(run, (table, inputs), request)


@pytest.mark.parametrize("count_include_pad", [False, True])
def test_edges_of_stride_2(x64, request, count_include_pad):
    """Among them one that does not exist, and one of an operation of two chains."""
    rng = np.random.default_rng(2)
    operations = operations_of(count_include_pad=count_include_pad)
    num = len(operations)
    table = random_table(operations, 4, num, 2, rng)
    number = jnp.arange(num, dtype=jnp.int32)
    listed = Edges(number % 2, number % 3, number, number, jnp.int32(0))
    norm = ops.BatchNorm()

    def run(table, states, sources):
        return evaluate(
            _micro_cells.edge_ops(operations, 2, norm),
            states,
            table,
            listed,
            sources,
            chosen=number != 5,
            layered=_micro_cells.layered_ops(
                operations, 2, norm, [EdgeGroup(num, 0, 3)]
            ),
        )

    states = jnp.asarray(rng.standard_normal((3, 2, 3, 2, 4)))
    sources = jnp.asarray(rng.standard_normal((2, 2, 6, 4, 4)))
    assert_kernels_equal_the_loop(run, (table, states, sources), request)


def test_shares_of_a_batch(x64, request):
    """Two devices have the statistics and gradients of one with the whole batch."""
    rng = np.random.default_rng(3)
    operations = {"conv_1x1": operations_of(affine=True)["conv_1x1"]}
    table = random_table(operations, 2, 2, 1, rng)
    inputs = jnp.asarray(rng.standard_normal((2, 4, 2, 2, 2)))
    cell = jnp.array([[0, 1, 0, 0]], jnp.int32)
    weighting = jnp.asarray(rng.standard_normal((4, 2, 2, 2)))

    def loss(table, inputs, weighting, batch_axis):
        states = _micro_cells.run_cell(
            operations,
            table,
            cell,
            inputs,
            ops.BatchNorm(batch_axis),
            row_per_side=False,
        )
        return (jnp.sin(states[-1]) * weighting).mean()

    expected = jax.value_and_grad(loss, (0, 1))(table, inputs, weighting, None)
    request.getfixturevalue("interpreted")

    def share(table, inputs, weighting):
        value, (of_table, of_inputs) = jax.value_and_grad(loss, (0, 1))(
            table, inputs, weighting, "batch"
        )
        return jax.lax.pmean((value, of_table), "batch"), of_inputs / 2

    halves = inputs.reshape(2, 2, 2, 2, 2, 2)
    (value, of_table), of_inputs = jax.pmap(
        share, "batch", in_axes=(None, 1, 0), out_axes=(None, 1)
    )(table, halves, weighting.reshape(2, 2, 2, 2, 2))
    chex.assert_trees_all_close((value, of_table), (expected[0], expected[1][0]))
    chex.assert_trees_all_close(of_inputs.reshape(inputs.shape), expected[1][1])


def test_reduction_cells(x64, request):
    """Edges of both strides, and loose ends."""
    rng = np.random.default_rng(4)
    operations = operations_of()
    weights = {
        "from_inputs": random_table(operations, 2, 4, 2, rng),
        "from_nodes": random_table(operations, 2, 1, 1, rng),
        "output": jnp.asarray(rng.standard_normal((2, 2, 2))),
    }
    inputs = jnp.asarray(rng.standard_normal((2, 2, 4, 4, 2)))
    cell = jnp.array([[1, 0, 1, 5], [2, 0, 6, 3]], jnp.int32)

    def run(weights, inputs):
        return _micro_asng._reduction_cell(
            weights, weights["output"], operations, cell, inputs, ops.BatchNorm()
        )

    assert_kernels_equal_the_loop(run, (weights, inputs), request)


def test_single_precision(request):
    rng = np.random.default_rng(5)
    operations = operations_of()
    table = random_table(operations, 2, 2, 1, rng)
    inputs = jnp.asarray(rng.standard_normal((2, 2, 4, 4, 2)), jnp.float32)
    cell = jnp.array([[0, 1, 5, 7]], jnp.int32)

    def run(table, inputs):
        return _micro_cells.run_cell(
            operations, table, cell, inputs, ops.BatchNorm(), row_per_side=False
        )

    table = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), table)
    assert_kernels_equal_the_loop(run, (table, inputs), request, rtol=1e-4, atol=1e-4)


def test_groups_must_be_of_all_edges(interpreted):
    operations, norm = {"conv_1x1": operations_of()["conv_1x1"]}, ops.BatchNorm()
    table = random_table(operations, 2, 1, 1, np.random.default_rng(0))
    column = jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match="groups of edges have not 2 edges together"):
        evaluate(
            _micro_cells.edge_ops(operations, 1, norm),
            jnp.zeros((2, 1, 2, 2, 2)),
            table,
            Edges(column, column + 1, column, column, jnp.int32(2)),
            layered=_micro_cells.layered_ops(operations, 1, norm, [EdgeGroup(1, 1)]),
        )


def test_a_mode_that_is_unknown(monkeypatch):
    monkeypatch.setenv("JAXNAS_GPU_KERNELS", "yes")
    with pytest.raises(ValueError, match="is 'yes'; expected '0', '1' or 'interpret'"):
        _platforms.uses_kernels()


# JAX 0.12 still has it; a version without it needs other kernels.
@pytest.mark.filterwarnings("default:The Pallas Triton backend is deprecated")
def test_programs_hold_the_loop_for_a_cpu_and_kernels_for_a_gpu(monkeypatch):
    monkeypatch.setattr(_platforms, "_has_gpu", lambda: True)
    operations = operations_of()
    table = random_table(operations, 2, 2, 1, np.random.default_rng(0))
    inputs = jnp.zeros((2, 2, 4, 4, 2))
    cell = jnp.zeros((1, 4), jnp.int32)

    def loss(table, cell, inputs):
        return _micro_cells.run_cell(
            operations, table, cell, inputs, ops.BatchNorm(), row_per_side=False
        ).sum()

    def num_kernels(platform):
        # A new function, since a program would be found again.
        traced = jax.jit(lambda *args: jax.grad(loss)(*args)).trace(table, cell, inputs)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return text.count("__gpu$xla.gpu.triton")

    monkeypatch.delenv("JAXNAS_GPU_KERNELS", raising=False)
    assert num_kernels("cuda") == 0
    monkeypatch.setenv("JAXNAS_GPU_KERNELS", "1")
    assert num_kernels("cpu") == 0
    assert num_kernels("cuda") > 5
