"""How long a network takes on this device, and how much memory."""

import functools
import statistics
import time
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas._checks import check_sizes

_LEAST_SECONDS = 0.3  # that all repetitions take


class Speed(NamedTuple):
    """The evaluation of a batch of images.

    Attributes:
      batch_size: images in it.
      milliseconds: that it takes, the median of repetitions.
      peak_bytes: memory that the compiler reserves, parameters and images included;
        `None` if it does not say.
    """

    batch_size: int
    milliseconds: float
    peak_bytes: int | None


def measure_speed(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    batch_size: int,
    *,
    num_repeats: int = 10,
) -> Speed:
    """Measure the evaluation of a batch on the default device, without compilation.

    Args:
      network: any network called as `network(images, train=)`; it is run with random
        parameters, which make no difference.
      image_shape: `(height, width, channels)`.
      batch_size: images in the batch.
      num_repeats: least number of repetitions; there are more of quick ones.

    Returns:
      The median time, and the memory.

    Raises:
      ValueError: if a number is not positive.
    """
    check_sizes(batch_size=batch_size, num_repeats=num_repeats)
    images = jnp.zeros((batch_size, *image_shape), jnp.float32)
    init = jax.jit(functools.partial(network.init, train=False))
    variables = init(jax.random.key(0), images[:1])
    evaluate = jax.jit(functools.partial(network.apply, train=False))
    compiled = evaluate.lower(variables, images).compile()
    jax.block_until_ready(compiled(variables, images))
    times: list[float] = []
    while len(times) < num_repeats or sum(times) < _LEAST_SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(compiled(variables, images))
        times.append(time.perf_counter() - start)
    memory = compiled.memory_analysis()
    peak = None
    if memory is not None:
        peak = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
        )
    return Speed(batch_size, 1e3 * statistics.median(times), peak)
