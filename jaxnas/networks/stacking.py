"""Which axes of a network's parameters stack arrays of the same kind."""

import re
from typing import Any

import jax

from jaxnas.types import Params

_SCANNED = re.compile(r"_\d+_to_\d+")
# Axes of one array, filters last: `[k, k, C]` is as large as a stack of matrices.
_AXES = {"depthwise": {3: 3, 4: 3}}
_AXES_OF_OTHERS = {1: 1, 2: 2, 3: 2, 4: 4}


def num_batch_dims(params: Params) -> Any:
    """Count the leading axes of each parameter that stack independent arrays.

    Alike cells or blocks are computed by a scan, whose parameters are stacked, as are
    the two layers of a separable convolution and the halves of a factorized reduction.

    Args:
      params: parameters of a network of this package.

    Returns:
      A pytree of the same structure; what `jaxnas.analysis.random_plane` takes.
    """

    def count(path: Any, leaf: Any) -> int:
        *modules, name = (str(entry.key) for entry in path)
        num_scans = sum(_SCANNED.search(module) is not None for module in modules)
        axes = _AXES.get(name, _AXES_OF_OTHERS)[leaf.ndim - num_scans]
        return leaf.ndim - axes

    return jax.tree_util.tree_map_with_path(count, params)
