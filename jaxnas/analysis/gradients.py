"""Variance of the gradients of single examples (Shu et al. 2020, section 4.2)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnas._checks import check_sizes
from jaxnas.analysis.landscape import Measure
from jaxnas.types import Batch, Metrics, Params


def gradient_variance(
    loss: Callable[[Params, Any, Batch], jax.Array],
    *,
    batch_size: int = 1,
    chunk_size: int = 16,
) -> Measure:
    """Make the variance of the gradient, all parameters taken as one vector.

    That is `E_i ||g_i - E_j g_j||^2`, where `g_i` is the gradient of the i-th batch's
    mean loss: a sum over the parameters, not a mean. It is accumulated from exact sums
    of squared deviations within chunks, so that it does not suffer from cancellation.

    Args:
      loss: `(params, constants, batch) -> loss`, the mean over a batch of
        `batch_size` examples, whose leaves are `[batch_size, ...]`. It must treat
        examples one by one: normalization has to use running statistics.
      batch_size: examples of one gradient. The paper's definition is by single
        examples; gradients of larger batches vary less, by their size.
      chunk_size: gradients that are held in memory at the same time, each as large as
        all parameters.

    Returns:
      `(params, constants, examples) -> metrics` for examples `[num, ...]`:
      `gradient_variance`; `squared_gradient_norm` of the mean gradient; `loss`, the
      mean. Examples that do not fill a last batch are left out.

    Raises:
      ValueError: if a size is not positive; when measuring, if there are fewer
        examples than two batches.

    Source: Shu et al. (2020), section 4.2, after Ghadimi and Lan (2013). Figures of the
    paper show its square root. Whether a gradient there is of one example or of a
    batch is not published.
    """
    check_sizes(batch_size=batch_size, chunk_size=chunk_size)

    def measure(params: Params, constants: Any, examples: Batch) -> Metrics:
        num = min(array.shape[0] for array in examples.values()) // batch_size
        if num < 2:
            raise ValueError(
                f"there are {num} batches of {batch_size} examples; expected 2 or more"
            )
        num_chunks = -(-num // chunk_size)
        # Chunks of equal size, as full as possible.
        size = -(-num // num_chunks)
        index = jnp.arange(num_chunks * size).reshape(num_chunks, size)
        batches = {
            name: array[: num * batch_size].reshape(num, batch_size, *array.shape[1:])
            for name, array in examples.items()
        }
        value_and_grad = jax.vmap(
            jax.value_and_grad(lambda p, batch: loss(p, constants, batch)),
            in_axes=(None, 0),
        )

        def add_chunk(totals, index):
            count, loss_sum, mean, deviation = totals
            chunk = {name: array[index % num] for name, array in batches.items()}
            is_new = index < num
            losses, gradients = value_and_grad(params, chunk)
            weight = is_new.astype(losses.dtype)
            num_new = weight.sum()
            total = count + num_new

            def chunk_mean(g):
                return jnp.tensordot(weight, g, 1) / num_new

            def squared_deviation(g, m):
                squares = jnp.square(g - m[None]).reshape(size, -1).sum(1)
                return weight @ squares

            means = jax.tree.map(chunk_mean, gradients)
            within = _tree_sum(jax.tree.map(squared_deviation, gradients, means))
            differences = jax.tree.map(jnp.subtract, means, mean)
            share = num_new / total
            between = _squared_norm(differences) * (count * share)
            mean = jax.tree.map(lambda m, d: m + d * share, mean, differences)
            deviation = deviation + within + between
            return (total, loss_sum + weight @ losses, mean, deviation), None

        zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(params)))
        start = (zero, zero, jax.tree.map(jnp.zeros_like, params), zero)
        (_, loss_sum, mean, deviation), _ = lax.scan(add_chunk, start, index)
        return {
            "gradient_variance": deviation / num,
            "squared_gradient_norm": _squared_norm(mean),
            "loss": loss_sum / num,
        }

    return measure


def _tree_sum(tree: Any) -> jax.Array:
    return jnp.stack(jax.tree.leaves(tree)).sum()


def _squared_norm(tree: Any) -> jax.Array:
    return _tree_sum(jax.tree.map(lambda x: jnp.square(x).sum(), tree))
