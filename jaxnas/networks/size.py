"""How large a network is, and how large it may be made."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.genotypes import (
    AnytimeGenotype,
    DagGenotype,
    Genotype,
    MacroGenotype,
)
from jaxnas.networks.anytime_network import AnytimeNetwork, anytime
from jaxnas.networks.dag_network import DagNetwork, dag
from jaxnas.networks.macro_network import MacroNetwork, macro
from jaxnas.networks.micro_cells import CellOutput
from jaxnas.networks.micro_network import MicroNetwork, Skeleton, micro


class Cost(NamedTuple):
    """Size of a network.

    Attributes:
      num_params: trainable parameters, an auxiliary head's included.
      flops: floating-point operations of one image's evaluation; a multiplication
        and an addition are two.
    """

    num_params: int
    flops: float


def cost(network: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    """Count the parameters of a network, and XLA's own count of its operations.

    Args:
      network: any network of this package.
      image_shape: `(height, width, channels)`.

    Returns:
      Both counts; nothing is computed but shapes.
    """
    if isinstance(network, MicroNetwork | DagNetwork):
        # The count of a loop would not say how often it runs.
        network = network.clone(unroll=True)
    variables = _shapes(network, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    evaluate = jax.jit(functools.partial(network.apply, train=False))
    analysis = evaluate.lower(variables, image).cost_analysis() or {}
    return Cost(_num_params(variables), float(analysis["flops"]))


def count_params(
    genotype: Genotype | MacroGenotype | DagGenotype | AnytimeGenotype,
    channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    auxiliary: bool = False,
    cell_output: CellOutput = "concat",
    image_channels: int = 3,
    *,
    skeleton: Skeleton = "nasnet",
    separable: bool = True,
) -> int:
    """Number of trainable parameters of the network that a genotype's function makes.

    This is `micro`, `macro`, `dag` or `anytime`. Nothing is computed but shapes. Nodes
    without a path to the output count, as in the official codes, but for those that no
    exit of `anytime` needs.

    Args:
      genotype: two cells, a macro genotype, a block, or three blocks with exits.
      channels: as for the function that makes the network.
      num_cells: as for `micro`, or `num_blocks` of `dag`; of no effect on other
        genotypes.
      num_classes: as for the function that makes the network.
      auxiliary: whether to count the auxiliary head of cells or blocks.
      cell_output: as for `micro`; of effect on cells only.
      image_channels: channels of the images.
      skeleton: as for `micro`; of effect on cells only. Blocks are those on CIFAR.
      separable: as for `macro`; of effect on a macro genotype only.

    Returns:
      The count, without running statistics.

    Raises:
      ValueError: as these functions do, and for the auxiliary head of a macro genotype
        or one with exits, which have none.
    """
    network: MicroNetwork | MacroNetwork | DagNetwork | AnytimeNetwork
    if auxiliary and isinstance(genotype, MacroGenotype | AnytimeGenotype):
        what = "a macro" if isinstance(genotype, MacroGenotype) else "an anytime"
        raise ValueError(f"auxiliary is True; {what} network has no auxiliary head")
    if isinstance(genotype, AnytimeGenotype):
        network = anytime(genotype, channels, num_classes)
    elif isinstance(genotype, MacroGenotype):
        network = macro(genotype, channels, num_classes, separable=separable)
    elif isinstance(genotype, DagGenotype):
        network = dag(genotype, channels, num_cells, num_classes, auxiliary=auxiliary)
    else:
        network = micro(
            genotype,
            channels,
            num_cells,
            num_classes,
            skeleton=skeleton,
            auxiliary=auxiliary,
            cell_output=cell_output,
        )
    return _num_params(_shapes(network, (32, 32, image_channels)))


def largest_channels(
    genotype: Genotype | MacroGenotype | DagGenotype | AnytimeGenotype,
    params_limit: int,
    num_cells: int = 20,
    num_classes: int = 10,
    cell_output: CellOutput = "concat",
    image_channels: int = 3,
    *,
    skeleton: Skeleton = "nasnet",
    separable: bool = True,
) -> int:
    """The most channels with which a network has at most `params_limit` parameters.

    The auxiliary head is not counted (ASNG-NAS, official `main_classification.py`).

    Args:
      genotype: two cells, a macro genotype, a block, or three blocks with exits.
      params_limit: upper limit of `count_params`.
      num_cells: as for `count_params`.
      num_classes: as for `count_params`.
      cell_output: as for `count_params`.
      image_channels: channels of the images.
      skeleton: as for `count_params`.
      separable: as for `count_params`.

    Returns:
      Channels, at least 1.

    Raises:
      ValueError: if even one channel has more parameters.
    """

    def count(channels: int) -> int:
        return count_params(
            genotype,
            channels,
            num_cells,
            num_classes,
            cell_output=cell_output,
            image_channels=image_channels,
            skeleton=skeleton,
            separable=separable,
        )

    return _largest(count, params_limit, "params_limit", "parameters")


def largest_channels_for_flops(
    make_network: Callable[[int], nn.Module],
    flops_limit: float,
    image_shape: tuple[int, int, int],
) -> int:
    """The most channels with which an image takes at most `flops_limit` operations.

    Args:
      make_network: `channels -> network`, any of this package.
      flops_limit: upper limit of `Cost.flops`; the 600 million multiplications with
        additions of the mobile setting of ImageNet are 1.2e9.
      image_shape: `(height, width, channels)`.

    Returns:
      Channels, at least 1.

    Raises:
      ValueError: if even one channel takes more operations.
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
    # Every layer has C_in * C_out, C or constant parameters, and operations: a
    # polynomial of degree 2.
    one, two, three = count(1), count(2), count(3)
    curvature = three - 2 * two + one

    def polynomial(channels: int) -> float:
        n = channels - 1
        return one + n * (two - one) + n * (n - 1) // 2 * curvature

    if one > limit:
        raise ValueError(
            f"{limit_name} is {limit}; with a single channel the network already has "
            f"{one} {what}"
        )
    channels = 1
    while polynomial(channels + 1) <= limit:
        channels += 1
    return channels


def _shapes(network: nn.Module, image_shape: tuple[int, int, int]) -> Any:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(network.init, train=True)
    return jax.eval_shape(init, jax.random.key(0), image)


def _num_params(variables: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
