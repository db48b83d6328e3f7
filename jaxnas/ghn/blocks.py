"""Differences between the blocks that a hypernetwork generates."""

import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxnas.types import Arch, NodeAssignment, Params, Supernet, WeightProvider, Weights


def block_differences(net: Supernet, weights: Weights, arch: Arch) -> np.ndarray:
    """Relative differences between the weights of neighboring blocks.

    Nodes of two blocks are compared if they have equal numbers and features and are
    used in both: all of their weights but those of edges. Of a wider layer, as after a
    reduction, the first channels count, which are those that the decoder writes alike.

    Args:
      net: the supernet; it must have a graph spec.
      weights: generated weights, those of `provider.apply(params, arch)`.
      arch: the architecture.

    Returns:
      float64 `[num_blocks - 1]` for the blocks that the architecture uses: the norm of
      the difference over the norm of the first of two neighbors' weights; 1e-7 is
      rounding. NaN where there is nothing to compare.

    Raises:
      ValueError: if the supernet has no graph spec.
    """
    graph_spec = net.graph_spec
    if graph_spec is None:
        raise ValueError("the supernet has no graph spec, so its blocks are unknown")
    node_features = np.asarray(jax.jit(graph_spec.graph)(arch).node_features)
    assignments = jax.tree.leaves(
        jax.device_get(jax.jit(graph_spec.assignments)(arch)),
        is_leaf=lambda leaf: leaf is None or isinstance(leaf, NodeAssignment),
    )
    # By node, name and number of axes, as the decoder has its branches.
    blocks: dict[int, dict[tuple[int, str, int], np.ndarray]] = {}
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    for (path, leaf), assignment in zip(leaves, assignments, strict=True):
        if assignment is None or assignment.source is not None:
            continue
        name = jax.tree_util.keystr(path[-1:], simple=True)
        values, nodes = np.asarray(leaf, np.float64), assignment.node
        for index in map(tuple, np.argwhere(assignment.is_used)):
            block, node = map(int, nodes[index])
            entry = values[index]
            blocks.setdefault(block, {})[node, name, entry.ndim] = entry
    numbers = sorted(blocks)

    def difference(first: int, second: int) -> float:
        total = size = 0.0
        for key in blocks[first].keys() & blocks[second].keys():
            if (node_features[first, key[0]] == node_features[second, key[0]]).all():
                pair = blocks[first][key], blocks[second][key]
                shape = np.minimum(*(values.shape for values in pair))
                a, b = (values[tuple(map(slice, shape))] for values in pair)
                total += np.square(b - a).sum()
                size += np.square(a).sum()
        return float(np.sqrt(total / size)) if size > 0 else float("nan")

    return np.array([difference(*pair) for pair in itertools.pairwise(numbers)])


def block_metrics(
    net: Supernet, provider: WeightProvider, archs: Sequence[Arch]
) -> Callable[[Params], dict[str, float]]:
    """Make metrics of how well a hypernetwork tells blocks apart, for `train.search`.

    Args:
      net: the supernet; it must have a graph spec.
      provider: a hypernetwork for it.
      archs: architectures to look at.

    Returns:
      `params -> metrics`: `blocks/min_difference` and `blocks/mean_difference`, of
      `block_differences` over all pairs of neighboring blocks of all architectures.
      Without any pair to compare there are no metrics.
    """
    generate = jax.jit(provider.apply)

    def metrics(params: Params) -> dict[str, float]:
        found = [block_differences(net, generate(params, arch), arch) for arch in archs]
        differences = np.concatenate(found)
        differences = differences[~np.isnan(differences)]
        if differences.size == 0:
            return {}
        return {
            "blocks/min_difference": float(differences.min()),
            "blocks/mean_difference": float(differences.mean()),
        }

    return metrics
