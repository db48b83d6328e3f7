"""Running one pure step on many devices."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnas.types import Device

BATCH_AXIS = "batch"
ARCH_AXIS = "arch"


def local_devices(num: int | None = None) -> list[Device]:
    """The first `num` devices of this process (all, if `None`).

    Raises:
      ValueError: if there are fewer.
    """
    devices = jax.local_devices()
    if num is None:
        return devices
    if not 1 <= num <= len(devices):
        raise ValueError(
            f"{num} devices asked for; this machine has {len(devices)} "
            f"({devices[0].platform})"
        )
    return devices[:num]


def batch_axis(devices: Sequence[Device]) -> str | None:
    """Name of the axis over which these devices share a batch; one shares nothing."""
    return BATCH_AXIS if len(devices) > 1 else None


def replicated(
    function: Callable[..., Any],
    devices: Sequence[Device],
    *,
    axis_name: str = BATCH_AXIS,
    donate_argnums: int | tuple[int, ...] = (),
) -> Callable[..., Any]:
    """Compile a pure function for one device (`jit`) or for many (`pmap`).

    Every device gets all arguments whole and does its share by
    `jax.lax.axis_index(axis_name)`; the function must make its results equal on all
    devices (by `jax.lax.pmean`, say). Arguments and results have no device axis, so
    that the same state runs on one device and on many.

    Args:
      function: pure; on one device no axis is defined.
      devices: where to run.
      axis_name: name of the device axis.
      donate_argnums: arguments whose memory may be reused.

    Returns:
      The compiled function.
    """
    if len(devices) == 1:
        return jax.jit(function, donate_argnums=donate_argnums)
    # `pmap` needs an argument that is mapped; this one is not used.
    index = np.arange(len(devices))
    first = (donate_argnums,) if isinstance(donate_argnums, int) else donate_argnums

    @functools.cache
    def compiled(num_args: int) -> Callable[..., Any]:
        return jax.pmap(
            lambda _, *args: function(*args),
            axis_name=axis_name,
            in_axes=(0, *[None] * num_args),  # type: ignore[arg-type]
            out_axes=None,
            devices=devices,
            donate_argnums=tuple(1 + number for number in first),
        )

    return lambda *args: compiled(len(args))(index, *args)


def device_put(
    tree: Any, devices: Sequence[Device], *, axis_name: str = BATCH_AXIS
) -> Any:
    """Put a pytree where `replicated` leaves its results: whole, on every device.

    A state that starts elsewhere would make the second step compile again.
    """
    if len(devices) == 1:
        return jax.device_put(tree, devices[0])
    mesh = Mesh(np.array(devices), (axis_name,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def per_device_size(total: int, num_devices: int, what: str) -> int:
    """Size of one device's share of `total`; `ValueError` unless it is whole."""
    if total % num_devices:
        raise ValueError(
            f"{what} of {total} cannot be divided among {num_devices} devices"
        )
    return total // num_devices


def assert_replicated(tree: Any) -> None:
    """Raise `ValueError` if an array differs between its devices, bit by bit."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        first, *others = (np.asarray(s.data) for s in leaf.addressable_shards)
        if any(first.tobytes() != other.tobytes() for other in others):
            raise ValueError(
                f"{jax.tree_util.keystr(path)} is not equal on all devices"
            )
