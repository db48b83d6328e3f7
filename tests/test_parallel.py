"""One pure function on one device and on four virtual ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnas import parallel

NUM_DEVICES = [1, 4]


def step_of(num_devices, axis_name=parallel.BATCH_AXIS):
    """A state that adds up the mean of each batch; a device reads its own rows."""

    def step(state, batch):
        if num_devices > 1:
            size = batch.shape[0] // num_devices
            start = lax.axis_index(axis_name) * size
            batch = lax.dynamic_slice_in_dim(batch, start, size)
        mean = batch.mean(0)
        if num_devices > 1:
            mean = lax.pmean(mean, axis_name)
        return {"sum": state["sum"] + mean, "step": state["step"] + 1}

    return step


def start():
    return {"sum": jnp.zeros(3), "step": jnp.int32(0)}


@pytest.mark.parametrize("axis_name", [parallel.BATCH_AXIS, "other"])
@pytest.mark.parametrize("num_devices", NUM_DEVICES)
def test_replicated_computes_the_same_on_any_number_of_devices(num_devices, axis_name):
    devices = parallel.local_devices(num_devices)
    step = parallel.replicated(
        step_of(num_devices, axis_name), devices, axis_name=axis_name
    )
    state = parallel.device_put(start(), devices, axis_name=axis_name)
    batches = np.random.default_rng(0).normal(size=(3, 8, 3)).astype(np.float32)
    for batch in batches:
        state = step(state, batch)
    np.testing.assert_allclose(state["sum"], batches.mean(1).sum(0), rtol=1e-5)
    assert state["step"] == 3
    assert state["sum"].shape == (3,) and state["sum"].devices() == set(devices)
    parallel.assert_replicated(state)


@pytest.mark.parametrize("num_devices", NUM_DEVICES)
def test_a_placed_state_lies_where_the_step_leaves_it(num_devices):
    devices = parallel.local_devices(num_devices)
    placed = parallel.device_put(start(), devices)
    result = parallel.replicated(step_of(num_devices), devices)(placed, np.ones((8, 3)))
    for name, leaf in result.items():
        assert leaf.sharding.is_equivalent_to(placed[name].sharding, leaf.ndim)
        assert leaf.is_fully_replicated
        assert leaf.sharding.device_set == set(devices)


@pytest.mark.parametrize("num_devices", NUM_DEVICES)
def test_place_keeps_values_of_any_leaf(num_devices):
    devices = parallel.local_devices(num_devices)[-1:] * (num_devices == 1)
    devices = devices or parallel.local_devices(num_devices)
    tree = {"key": jax.random.key(3), "host": np.arange(4), "scalar": jnp.int32(2)}
    placed = parallel.device_put(tree, devices)
    np.testing.assert_array_equal(placed["host"], np.arange(4))
    assert placed["scalar"] == 2
    np.testing.assert_array_equal(
        jax.random.key_data(placed["key"]), jax.random.key_data(jax.random.key(3))
    )
    assert all(leaf.devices() == set(devices) for leaf in jax.tree.leaves(placed))
    parallel.assert_replicated(placed)


@pytest.mark.parametrize("num_devices", NUM_DEVICES)
def test_replicated_gives_away_the_memory_of_donated_arguments(num_devices):
    devices = parallel.local_devices(num_devices)
    step = parallel.replicated(step_of(num_devices), devices, donate_argnums=0)
    state = parallel.device_put(start(), devices)
    batch = parallel.device_put(jnp.ones((8, 3)), devices)
    step(state, batch)
    assert state["sum"].is_deleted() and not batch.is_deleted()


def test_local_devices():
    assert parallel.local_devices() == jax.local_devices()
    assert len(jax.local_devices()) == 4
    assert parallel.local_devices(2) == jax.local_devices()[:2]


@pytest.mark.parametrize("num", [0, -1, 5])
def test_local_devices_refuses_what_is_not_there(num):
    message = rf"{num} devices asked for; this machine has 4 \(cpu\)"
    with pytest.raises(ValueError, match=message):
        parallel.local_devices(num)


def test_share():
    assert parallel.per_device_size(64, 4, "batch_size") == 16
    assert parallel.per_device_size(6, 1, "batch_size") == 6
    with pytest.raises(
        ValueError, match="batch_size of 6 cannot be divided among 4 devices"
    ):
        parallel.per_device_size(6, 4, "batch_size")


def from_copies(copies):
    """An array that claims to be the same on all devices."""
    devices = parallel.local_devices(len(copies))
    sharding = NamedSharding(Mesh(np.array(devices), ("batch",)), PartitionSpec())
    arrays = [
        jax.device_put(np.asarray(copy, np.float32), device)
        for copy, device in zip(copies, devices, strict=True)
    ]
    return jax.make_array_from_single_device_arrays(arrays[0].shape, sharding, arrays)


def test_assert_replicated_accepts_equal_bits():
    parallel.assert_replicated({"nan": from_copies([[np.nan, 1]] * 4)})
    parallel.assert_replicated({"one device": jnp.ones(2), "key": jax.random.key(0)})


@pytest.mark.parametrize(
    "copies",
    [
        pytest.param([[1, 2], [1, 2], [1, 2], [1, 2.0000002]], id="last bit"),
        pytest.param([[0.0], [0.0], [-0.0], [0.0]], id="sign of zero"),
    ],
)
def test_assert_replicated_finds_the_leaf_that_differs(copies):
    tree = {"good": from_copies([[1, 2]] * 4), "bad": [from_copies(copies)]}
    message = r"\['bad'\]\[0\] is not equal on all devices"
    with pytest.raises(ValueError, match=message):
        parallel.assert_replicated(tree)
