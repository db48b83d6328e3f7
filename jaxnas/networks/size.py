"""How large a network is, and how large it may be made."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas.genotypes import Genotype, MacroGenotype
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
    if isinstance(network, MicroNetwork):
        # The count of a loop would not say how often it runs.
        network = network.clone(unroll=True)
    variables = _shapes(network, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    evaluate = jax.jit(functools.partial(network.apply, train=False))
    analysis = evaluate.lower(variables, image).cost_analysis() or {}
    return Cost(_num_params(variables), float(analysis["flops"]))


def count_params(
    genotype: Genotype | MacroGenotype,
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
    """Number of trainable parameters of the network `micro` or `macro` makes.

    Nothing is computed but shapes. Nodes without a path to the output count, as in
    the official codes.

    Args:
      genotype: two cells, or a macro genotype.
      channels: as for `micro` and `macro`.
      num_cells: as for `micro`; of no effect on a macro genotype.
      num_classes: as for `micro` and `macro`.
      auxiliary: whether to count the auxiliary head of cells.
      cell_output: as for `micro`; of no effect on a macro genotype.
      image_channels: channels of the images.
      skeleton: as for `micro`; of no effect on a macro genotype.
      separable: as for `macro`; of no effect on cells.

    Returns:
      The count, without running statistics.

    Raises:
      ValueError: as `micro` and `macro` do, and for the auxiliary head of a macro
        genotype, which has none.
    """
    network: MicroNetwork | MacroNetwork
    if isinstance(genotype, MacroGenotype):
        if auxiliary:
            raise ValueError("auxiliary is True; a macro network has no auxiliary head")
        network = macro(genotype, channels, num_classes, separable=separable)
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
    genotype: Genotype | MacroGenotype,
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
      genotype: two cells, or a macro genotype.
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

    # Every layer has C_in * C_out, C or constant parameters: a polynomial of degree 2.
    one, two, three = count(1), count(2), count(3)
    curvature = three - 2 * two + one

    def polynomial(channels: int) -> int:
        n = channels - 1
        return one + n * (two - one) + n * (n - 1) // 2 * curvature

    if one > params_limit:
        raise ValueError(
            f"params_limit is {params_limit}; with a single channel the network "
            f"already has {one} parameters"
        )
    channels = 1
    while polynomial(channels + 1) <= params_limit:
        channels += 1
    return channels


def _shapes(network: nn.Module, image_shape: tuple[int, int, int]) -> Any:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(network.init, train=True)
    return jax.eval_shape(init, jax.random.key(0), image)


def _num_params(variables: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
