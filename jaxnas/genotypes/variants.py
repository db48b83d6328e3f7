"""Variants of a genotype: other connections, or other operations, but not both.

Shu et al. (2020) compare published cells with such variants, to tell what the
connections alone do to training. Width and depth are those of `analysis.cell_width`
and `analysis.cell_depth`.
"""

from collections.abc import Sequence

import numpy as np

from jaxnas._checks import is_integer
from jaxnas.genotypes.cells import Edge, Genotype, check_cells

# In the order of the official code, which the draws index.
_RANDOM_OPS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)

_Sources = Sequence[tuple[int, int]]


def random_connections(genotype: Genotype, seed: int) -> Genotype:
    """Draw the source of every edge of both cells uniformly from the earlier nodes.

    Operations and concats stay. Both edges of a node may read the same source, and
    nodes outside the concat may be left without a path to the output, which
    `analysis.dead_nodes` tells.

    Args:
      genotype: the genotype.
      seed: an integer from 0 to 2**32 - 1, for NumPy's legacy generator; 1 to 10 give
        the official variants CONN1 to CONN10. Genotypes with as many nodes get the
        same connections from the same seed.

    Returns:
      The variant.

    Raises:
      ValueError: if the genotype is invalid or not one of two cells, or the seed is
        out of range.

    Source: Shu et al. (2020), appendix A.2; `random_conn` in the official genotypes.py.
    """
    genotype = check_cells(genotype)
    rng = _random_state(seed)
    cells = (genotype.normal, genotype.reduce)
    connected: tuple[list[Edge], list[Edge]] = ([], [])
    # The cells take turns in one stream.
    for i in range(max(map(len, cells))):
        for pairs, edges in zip(cells, connected, strict=True):
            if i < len(pairs):
                op, _ = pairs[i]
                edges.append((op, rng.choice(2 + i // 2, 1).item()))
    normal, reduce = map(tuple, connected)
    return genotype._replace(normal=normal, reduce=reduce)


def random_operations(genotype: Genotype, seed: int) -> Genotype:
    """Draw the operation of every edge of both cells uniformly from seven.

    They are the operations of DARTS without `none`. Connections and concats stay, and
    with them width and depth.

    Args:
      genotype: the genotype.
      seed: an integer from 0 to 2**32 - 1, for NumPy's legacy generator; 1 to 10 give
        the official variants OPS1 to OPS10.

    Returns:
      The variant.

    Raises:
      ValueError: if the genotype is invalid or not one of two cells, or the seed is
        out of range.

    Source: Shu et al. (2020), appendix A.2; `random_ops` in the official genotypes.py.
    """
    genotype = check_cells(genotype)
    rng = _random_state(seed)

    def draw(pairs: tuple[Edge, ...]) -> tuple[Edge, ...]:
        choices = rng.choice(len(_RANDOM_OPS), len(pairs))
        return tuple(
            (_RANDOM_OPS[choice], source)
            for choice, (_, source) in zip(choices, pairs, strict=True)
        )

    return genotype._replace(normal=draw(genotype.normal), reduce=draw(genotype.reduce))


def widest_shallowest(genotype: Genotype, *, keep_concat: bool = False) -> Genotype:
    """Let every edge of both cells read an input of the cell.

    Edges that read an input stay. An edge that reads a node gets the input that the
    other edge into its node does not read; if both read nodes, the first gets input
    0. With n nodes the cells then have width nc and depth 2, as the official variants
    ADAPT have.

    Args:
      genotype: the genotype.
      keep_concat: keep the concats, as the official code does. Inner nodes that are
        not in them lose their readers and are dead: the cells of NASNet, AmoebaNet
        and ENAS count 5c, but their outputs see 3c in some. `analysis.dead_nodes`
        names them. By default the concats become all nodes.

    Returns:
      The variant, with the operations of the genotype.

    Raises:
      ValueError: if the genotype is invalid or not one of two cells.

    Source: Shu et al. (2020), section 5 (adapted topologies).
    """
    genotype = check_cells(genotype)
    normal, reduce = map(_inputs_only, (genotype.normal, genotype.reduce))
    return _connect(genotype, normal, reduce, keep_concat=keep_concat)


def narrowest_deepest(genotype: Genotype, *, keep_concat: bool = False) -> Genotype:
    """Make both cells a chain: each node reads nothing but the node before it.

    Node 2 reads inputs 0 and 1, node k reads node k-1 with both of its edges. With n
    nodes the cells then have width 1c and depth n+1.

    Args:
      genotype: the genotype.
      keep_concat: keep the concats. The depth is smaller if the last node is not in
        one, and the nodes behind the last one that is are dead. By default the
        concats become all nodes.

    Returns:
      The variant, with the operations of the genotype.

    Raises:
      ValueError: if the genotype is invalid or not one of two cells.
    """
    genotype = check_cells(genotype)
    normal, reduce = (
        _sources(len(pairs) // 2, 2, 1 + len(pairs) // 2)
        for pairs in (genotype.normal, genotype.reduce)
    )
    return _connect(genotype, normal, reduce, keep_concat=keep_concat)


def connection_variants(
    genotype: Genotype, *, keep_reduce: bool = False
) -> dict[tuple[float, int], Genotype]:
    """Make one variant for every width and depth that a normal cell can have.

    They reach from `narrowest_deepest` to the connections of `widest_shallowest`:
    16 variants for 4 nodes, 27 for 5. Operations stay in their order. The connections
    depend only on the width, the depth and the number of nodes: nodes 2 to `depth`
    are a chain, and every other node reads node 2. Of the edges that the width asks
    for, node 2 reads inputs 0 and 1, then the nodes from 3 on get input 0 one by one,
    then those behind the chain input 1. The concats become all nodes, so that no node
    is dead and all variants have as many output channels.

    Args:
      genotype: the genotype.
      keep_reduce: leave the reduction cell as it is. By default it gets the
        connections of the normal cell and so has the same width and depth.

    Returns:
      Variants by `(width in c, depth)`, ascending by width, then depth.

    Raises:
      ValueError: if the genotype is invalid or not one of two cells, or the reduction
        cell shall change but has another number of nodes than the normal cell.
    """
    genotype = check_cells(genotype)
    num_nodes = len(genotype.normal) // 2
    if not keep_reduce and len(genotype.reduce) != len(genotype.normal):
        raise ValueError(
            f"the reduction cell has {len(genotype.reduce) // 2} nodes; expected "
            f"{num_nodes} as in the normal cell, or keep_reduce"
        )
    # A cell of depth 2 has no choice. A deeper one has depth - 2 chain nodes that may
    # read one input; all nodes behind the chain may read two.
    attainable = [(2 * num_nodes, 2)] + [
        (num_edges, depth)
        for depth in range(3, num_nodes + 2)
        for num_edges in range(2, 2 * num_nodes - depth + 3)
    ]
    variants = {}
    for num_edges, depth in sorted(attainable):
        sources = _sources(num_nodes, num_edges, depth)
        variant = _connect(genotype, sources, None if keep_reduce else sources)
        variants[num_edges / 2, depth] = variant
    return variants


def _random_state(seed: int) -> np.random.RandomState:
    if not is_integer(seed) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; expected an integer from 0 to {2**32 - 1}")
    return np.random.RandomState(seed)


def _inputs_only(pairs: Sequence[Edge]) -> _Sources:
    sources = []
    for (_, first), (_, second) in zip(pairs[::2], pairs[1::2], strict=True):
        if first > 1:
            first = 1 - second if second < 2 else 0
        sources.append((first, second if second < 2 else 1 - first))
    return sources


def _sources(num_nodes: int, num_input_edges: int, depth: int) -> _Sources:
    """Connect nodes as `connection_variants` says."""
    num_once = min(num_input_edges - 2, num_nodes - 1)
    num_twice = num_input_edges - 2 - num_once
    sources = [(0, 1)]
    for node in range(3, num_nodes + 2):
        inner = node - 1 if node <= depth else 2
        if depth < node <= depth + num_twice:
            sources.append((0, 1))
        elif node < 3 + num_once:
            sources.append((0, inner))
        else:
            sources.append((inner, inner))
    return sources


def _connect(
    genotype: Genotype,
    normal: _Sources,
    reduce: _Sources | None,
    *,
    keep_concat: bool = False,
) -> Genotype:
    """Replace the sources of the cells; None leaves the reduction cell as it is."""

    def connect(
        pairs: tuple[Edge, ...], concat: tuple[int, ...], sources: _Sources
    ) -> tuple[tuple[Edge, ...], tuple[int, ...]]:
        flat = [source for both in sources for source in both]
        edges = tuple((op, source) for (op, _), source in zip(pairs, flat, strict=True))
        return edges, concat if keep_concat else tuple(range(2, 2 + len(sources)))

    normal_cell = connect(genotype.normal, genotype.normal_concat, normal)
    reduce_cell = (genotype.reduce, genotype.reduce_concat)
    if reduce is not None:
        reduce_cell = connect(*reduce_cell, reduce)
    return Genotype(*normal_cell, *reduce_cell)
