"""Genotypes of networks that predict at any time: three blocks with exits.

The second space of Graph HyperNetworks (Zhang et al. 2019, appendix). As in the blocks
of `jaxnas.genotypes.dag`, nodes 0 and 1 are the outputs of the blocks i-1 and i-2, here
the stem where there is no such block. Every other node concatenates its inputs and
applies its operation, at a resolution of its own; at an exit the network may stop.
"""

from typing import Any, NamedTuple

from jaxnas._checks import is_integer
from jaxnas.genotypes import dag, kinds
from jaxnas.genotypes._values import is_list

ANYTIME_OPS = (
    "conv_1x1",
    "conv_3x3",
    "conv_5x5",
    "max_pool_3x3",
    "avg_pool_3x3",
)
"""Every operation of a node, in the order of the paper's appendix.

Convolutions are dense. There is no identity, for inputs are concatenated anyway.
"""

ANYTIME_BLOCKS = 3
"""Blocks of a network, and scales: scale s has 1/2**s of the images' height."""


class AnytimeGenotype(NamedTuple):
    """Three blocks, each with one entry for every node from node 2 on.

    Attributes:
      ops: operation of each node of each block, names of `ANYTIME_OPS`.
      inputs: nodes of the same block that each node reads, ascending, at least one.
      scales: scale of each node, in i..2 for block i: full, half or quarter height.
      exits: nodes of each block with an exit, ascending, at least one.
    """

    ops: tuple[tuple[str, ...], ...]
    inputs: tuple[tuple[tuple[int, ...], ...], ...]
    scales: tuple[tuple[int, ...], ...]
    exits: tuple[tuple[int, ...], ...]


def check_anytime(genotype: AnytimeGenotype) -> AnytimeGenotype:
    """Check the blocks and normalize their lists to tuples.

    Args:
      genotype: an `AnytimeGenotype` whose fields may be lists, tuples or ranges.

    Returns:
      The same genotype, made of tuples, strings and Python integers only.

    Raises:
      ValueError: naming the block and node at fault.
    """
    if not isinstance(genotype, AnytimeGenotype):
        raise ValueError(
            f"found a {type(genotype).__name__}; expected an AnytimeGenotype"
        )
    for name, blocks in genotype._asdict().items():
        if not is_list(blocks) or len(blocks) != ANYTIME_BLOCKS:
            raise ValueError(
                f"{name} is {blocks!r}; expected {ANYTIME_BLOCKS} lists, one a block"
            )
    blocks = [
        _check_block(block, *lists)
        for block, lists in enumerate(zip(*genotype, strict=True))
    ]
    return AnytimeGenotype(*zip(*blocks, strict=True))


kinds.register("anytime", AnytimeGenotype, check_anytime)


def _check_block(
    block: int, ops: Any, inputs: Any, scales: Any, exits: Any
) -> tuple[tuple[Any, ...], ...]:
    try:
        ops, inputs = dag.check_graph(ops, inputs, ANYTIME_OPS)
    except ValueError as error:
        raise ValueError(f"block {block}: {error}") from error
    if not is_list(scales) or len(scales) != len(ops):
        raise ValueError(
            f"block {block}: scales is {scales!r}; expected a list of {len(ops)}, one "
            "for every operation"
        )
    for node, scale in enumerate(scales, start=2):
        if not is_integer(scale) or not block <= scale < ANYTIME_BLOCKS:
            raise ValueError(
                f"block {block}, node {node}: {scale!r} is not a scale of this block; "
                f"expected an integer in {block}..{ANYTIME_BLOCKS - 1}"
            )
    if not is_list(exits) or not exits:
        raise ValueError(
            f"block {block}: exits is {exits!r}; expected a list of at least one node"
        )
    before = 1
    for node in exits:
        if not is_integer(node) or not before < node < 2 + len(ops):
            raise ValueError(
                f"block {block}: found {node!r} among the exits {list(exits)}; "
                f"expected ascending nodes in 2..{1 + len(ops)}"
            )
        before = node
    return ops, inputs, tuple(map(int, scales)), tuple(map(int, exits))
