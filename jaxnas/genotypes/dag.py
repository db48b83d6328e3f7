"""Genotypes of blocks: directed acyclic graphs of operations.

The space of Graph HyperNetworks (Zhang et al. 2019, appendix). Nodes 0 and 1 are the
outputs of the blocks i-1 and i-2. Every other node applies its operation to each of
its inputs and adds the results up; the block's output joins the leaves, the nodes that
no other node reads. Every node therefore has a path to the output, except for nodes 0
and 1 where nobody reads them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnas._checks import is_integer
from jaxnas.genotypes import kinds
from jaxnas.genotypes._values import is_list

DAG_OPS = (
    "skip_connect",
    "conv_1x1",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
    "max_pool_3x3",
    "avg_pool_3x3",
)
"""Every operation of a node, in the order of the paper's appendix.

The appendix lists these nine; the body of the paper speaks of eight.
"""


class DagGenotype(NamedTuple):
    """A block, whose nodes each have an operation and read any earlier nodes.

    Attributes:
      ops: operation of each node from node 2 on, names of `DAG_OPS`.
      inputs: nodes that each node from node 2 on reads, ascending, at least one;
        those of node n are in 0..n-1.
    """

    ops: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]


def check_dag(genotype: DagGenotype) -> DagGenotype:
    """Check a block and normalize its lists to tuples.

    Args:
      genotype: a `DagGenotype` whose fields may be lists, tuples or ranges.

    Returns:
      The same genotype, made of tuples, strings and Python integers only.

    Raises:
      ValueError: naming the node and input at fault.
    """
    if not isinstance(genotype, DagGenotype):
        raise ValueError(f"found a {type(genotype).__name__}; expected a DagGenotype")
    return DagGenotype(*check_graph(*genotype, DAG_OPS))


kinds.register("dag", DagGenotype, check_dag)


def check_graph(
    ops: Any, inputs: Any, known: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Check the operations and inputs of the nodes from node 2 on.

    Args:
      ops: operation of each node.
      inputs: earlier nodes that each node reads.
      known: names of all operations.

    Returns:
      Both as tuples.

    Raises:
      ValueError: naming the node and input at fault.
    """
    if not is_list(ops):
        raise ValueError(f"{ops!r} is not a list of operations")
    if not ops:
        raise ValueError("no operation; expected one for every node from node 2 on")
    for node, op in enumerate(ops, start=2):
        if op not in known:
            raise ValueError(
                f"node {node}: {op!r} is not an operation; expected one of "
                f"{', '.join(known)}"
            )
    if not is_list(inputs):
        raise ValueError(f"{inputs!r} is not a list of inputs")
    if len(inputs) != len(ops):
        raise ValueError(
            f"found the inputs of {len(inputs)} nodes; expected those of {len(ops)}, "
            "one list for every operation"
        )
    checked = (_check_inputs(node, read) for node, read in enumerate(inputs, start=2))
    return tuple(map(str, ops)), tuple(checked)


def _check_inputs(node: int, inputs: Any) -> tuple[int, ...]:
    place = f"node {node}, inputs"
    if not is_list(inputs):
        raise ValueError(f"{place}: {inputs!r} is not a list of nodes")
    if not inputs:
        raise ValueError(f"{place}: no node; expected some of 0 to {node - 1}")
    checked: list[int] = []
    for source in inputs:
        if not is_integer(source):
            raise ValueError(f"{place}: node {source!r} is not an integer")
        if not 0 <= source < node:
            raise ValueError(
                f"{place}: {source} is not an earlier node; expected some of 0 to "
                f"{node - 1}"
            )
        if checked and source <= checked[-1]:
            raise ValueError(
                f"{place}: found node {source} after {checked[-1]}; expected "
                "ascending nodes"
            )
        checked.append(int(source))
    return tuple(checked)


def dag_leaves(genotype: DagGenotype) -> tuple[int, ...]:
    """Find the leaves of a block, which its output joins.

    Args:
      genotype: the block.

    Returns:
      The nodes from node 2 on that no other node reads, in ascending order; the last
      node is always one of them. Nodes 0 and 1 are never leaves.
    """
    read = {source for inputs in genotype.inputs for source in inputs}
    nodes = range(2, 2 + len(genotype.ops))
    return tuple(node for node in nodes if node not in read)
