"""Which programs run edges by kernels, and which by a loop.

The platform that a program is lowered for decides, not the machine's default.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


def kernel_mode() -> Literal["0", "1", "interpret"]:
    """What programs hold for layers of many edges, by `JAXNAS_GPU_KERNELS`.

    It is read from the environment while they are traced.

    Returns:
      `"0"`, the default: loops over edges. `"1"`: kernels in programs for NVIDIA GPUs,
      loops in others. `"interpret"`: kernels that run by ordinary operations on any
      device, slowly.

    Raises:
      ValueError: if it is anything else.
    """
    mode = os.environ.get("JAXNAS_GPU_KERNELS", "0")
    if mode not in ("0", "1", "interpret"):
        raise ValueError(
            f"JAXNAS_GPU_KERNELS is {mode!r}; expected '0', '1' or 'interpret'"
        )
    return mode


def uses_kernels() -> bool:
    """Whether some program of this process may hold kernels."""
    mode = kernel_mode()
    return mode == "interpret" or (mode == "1" and _has_gpu())


@functools.cache
def _has_gpu() -> bool:
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:
        return False


def _have_kernels(images):
    """Whether there are kernels for images of this type and so many channels."""
    if kernel_mode() == "interpret":
        return True
    return images.dtype in (jnp.float32, jnp.bfloat16) and images.shape[-1] <= 128


def by_platform(
    has_layers: bool,
    by_loop: Callable[..., Any],
    by_kernels: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    shares_weights: bool,
) -> Any:
    """Run one architecture by the loop or by kernels, as the platform has it.

    Under `jax.vmap`, kernels run all architectures, and the loop one after the other.

    Args:
      has_layers: whether the operations are chains of layers.
      by_loop: function of the arguments.
      by_kernels: the same of several architectures, with a leading axis on all
        arguments, which may be of length 1 for weights; and of `interpret`.
      args: two arrays or pytrees of images, weights, edges and which of them exist.
      shares_weights: whether several architectures may share them.

    Returns:
      What the functions return.
    """
    if not (has_layers and uses_kernels() and _have_kernels(args[0])):
        return by_loop(*args)

    def run_all(num, args):
        *inputs, edges, chosen = args
        exists = (
            jax.vmap(lambda edges: edges.exists)(edges) if chosen is None else chosen
        )

        def loop(*args):
            if num == 1:
                one = by_loop(*jax.tree.map(lambda leaf: leaf[0], args))
                return jax.tree.map(lambda leaf: leaf[None], one)
            whole = jax.tree.map(
                lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape[1:])), args
            )
            return lax.map(lambda args: by_loop(*args), whole)

        args = *inputs, edges, exists
        if kernel_mode() == "interpret":
            return by_kernels(*args, interpret=True)
        return lax.platform_dependent(*args, cuda=by_kernels, default=loop)

    @custom_vmap
    def run(*args):
        results = run_all(1, jax.tree.map(lambda leaf: leaf[None], args))
        return jax.tree.map(lambda leaf: leaf[0], results)

    @run.def_vmap
    def run_batched(num, is_batched, *args):
        def spread(leaf, is_batched):
            return leaf if is_batched else jnp.broadcast_to(leaf, (num, *leaf.shape))

        spread_args = list(jax.tree.map(spread, args, tuple(is_batched)))
        if shares_weights and not any(jax.tree.leaves(is_batched[2])):
            spread_args[2] = jax.tree.map(lambda leaf: leaf[None], args[2])
        results = run_all(num, spread_args)
        return results, jax.tree.map(lambda _: True, results)

    return run(*args)
