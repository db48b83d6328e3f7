"""Parameters and FLOPs of networks, and channels for a parameter budget."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Cost(NamedTuple):
    """Size of a network.

    Attributes:
      num_params: trainable parameters, an auxiliary head's included.
      flops: floating-point operations of one image's evaluation; a multiplication
        and an addition are two.
    """

    num_params: int
    flops: float


@functools.singledispatch
def count_params(
    network: nn.Module, image_shape: tuple[int, int, int] = (0, 0, 0)
) -> int:
    """Count the trainable parameters of a network.

    Nodes without a path to the output count, as in the official codes, but for those
    that no exit of `anytime` needs. For a network of this package it is a sum that
    takes milliseconds; for any other one, or for a class that is not registered with
    `count_params.register`, the initialization is traced, and nothing computed but
    shapes.

    Args:
      network: the network.
      image_shape: `(height, width, channels)` of its images, if it takes images.

    Returns:
      The count, an auxiliary head included, without running statistics.

    Raises:
      ValueError: if the images are too small for an auxiliary head.
    """
    params = _shapes(network, image_shape, train=True)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def cost(network: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    """Count the parameters of a network, and XLA's own count of its operations.

    Args:
      network: any network called as `network(images, train=)`. One with a field
        `unroll`, such as those of `micro` and `dag`, is counted with it set, for the
        count of a loop does not say how often it runs.
      image_shape: `(height, width, channels)`.

    Returns:
      Both counts; nothing is computed but shapes.

    Raises:
      ValueError: as `count_params` does.
    """
    num_params = count_params(network, image_shape)
    # Of a loop, which is traced sooner; the variables are the same.
    variables = _shapes(network, image_shape, train=False)
    if hasattr(network, "unroll"):
        network = network.clone(unroll=True)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    evaluate = jax.jit(functools.partial(network.apply, train=False))
    analysis = evaluate.lower(variables, image).cost_analysis() or {}
    return Cost(num_params, float(analysis["flops"]))


def channels_for_budget(
    make_network: Callable[[int], nn.Module],
    params_limit: int,
    image_shape: tuple[int, int, int],
) -> int:
    """The most channels with which a network has at most `params_limit` parameters.

    An auxiliary head is not counted (ASNG-NAS, official `main_classification.py`).

    Args:
      make_network: `channels -> network`, from 1 channel on.
      params_limit: upper limit of `count_params`, which must grow with the channels.
      image_shape: `(height, width, channels)`.

    Returns:
      Channels, at least 1.

    Raises:
      ValueError: if even one channel has more parameters, or the number of parameters
        does not grow with the channels.
    """

    def count(channels: int) -> int:
        network = make_network(channels)
        if getattr(network, "auxiliary", False):
            network = network.clone(auxiliary=False)
        return count_params(network, image_shape)

    channels = _largest(count, params_limit, "params_limit", "parameters")
    # Networks from elsewhere may grow in another way than `_largest` assumes.
    while count(channels) > params_limit:
        channels -= 1
    while count(channels + 1) <= params_limit:
        channels += 1
    return channels


def channels_for_flops(
    make_network: Callable[[int], nn.Module],
    flops_limit: float,
    image_shape: tuple[int, int, int],
) -> int:
    """The most channels with which an image takes at most `flops_limit` operations.

    Args:
      make_network: `channels -> network`, from 1 channel on.
      flops_limit: upper limit of `Cost.flops`; the 600 million multiplications with
        additions of the mobile setting of ImageNet are 1.2e9.
      image_shape: `(height, width, channels)`.

    Returns:
      Channels, at least 1.

    Raises:
      ValueError: if even one channel takes more operations, or their number does not
        grow with the channels.
    """
    return _largest(
        lambda channels: cost(make_network(channels), image_shape).flops,
        flops_limit,
        "flops_limit",
        "operations an image",
    )


def _largest(
    count: Callable[[int], float], limit: float, limit_name: str, what: str
) -> int:
    """The largest argument, from 1 on, with a count within the limit."""
    # Every layer of this package has C_in * C_out, C or constant parameters, and
    # operations: a polynomial of degree 2.
    one = count(1)
    if one > limit:
        raise ValueError(
            f"{limit_name} is {limit}; with a single channel the network already has "
            f"{one} {what}"
        )
    two, three = count(2), count(3)
    curvature = three - 2 * two + one

    def polynomial(channels: int) -> float:
        n = channels - 1
        return one + n * (two - one) + n * (n - 1) // 2 * curvature

    if not one < two < three:
        raise ValueError(
            f"the networks have {one}, {two} and {three} {what} with 1, 2 and 3 "
            "channels; expected more with more channels"
        )
    channels = 1
    while polynomial(channels + 1) <= limit and two - one + channels * curvature > 0:
        channels += 1
    return channels


def _shapes(
    network: nn.Module, image_shape: tuple[int, int, int], *, train: bool
) -> Any:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(network.init, train=train)
    return jax.eval_shape(init, jax.random.key(0), image)
