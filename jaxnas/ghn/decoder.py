"""From the embeddings of nodes to the weights of a network.

Zhang et al. 2019, section 3.3 and appendix: a hidden layer that all nodes share, and an
output branch for each kind of weights. A small kernel is the center of a large one, a
narrow layer has the first channels of a wide one, and more channels than a branch has
repeat its tile.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from jaxnas.ghn.functions import linear, linear_specs
from jaxnas.ops import WeightSpec
from jaxnas.types import NodeAssignment, Params


class WeightArray(NamedTuple):
    """An array of the weights of a supernet.

    Attributes:
      name: the last part of its path.
      spec: its shape and scale.
      assignment: where it belongs in the graph; `None` if it is learned and not
        generated.
    """

    name: str
    spec: WeightSpec
    assignment: NodeAssignment | None


def weight_arrays(specs: Any, assignments: Any) -> list[WeightArray]:
    """All arrays of weights of a graph spec, in order."""
    leaves = jax.tree_util.tree_leaves_with_path(
        specs, is_leaf=lambda leaf: isinstance(leaf, WeightSpec)
    )
    places = jax.tree.leaves(
        assignments,
        is_leaf=lambda leaf: leaf is None or isinstance(leaf, NodeAssignment),
    )
    return [
        WeightArray(keystr(path[-1:], simple=True), spec, assignment)
        for (path, spec), assignment in zip(leaves, places, strict=True)
    ]


def _entry_shape(spec: WeightSpec, assignment: NodeAssignment) -> tuple[int, ...]:
    """The shape of what one node or edge has of an array of weights."""
    return spec.shape[assignment.is_used.ndim :]


def _branch(name: str, spec: WeightSpec, assignment: NodeAssignment) -> str:
    """Name of the branch that writes an array: edges share theirs."""
    kind = name if assignment.source is None else "edge"
    return f"{kind}_{len(_entry_shape(spec, assignment))}d"


def decoder_specs(
    arrays: list[WeightArray],
    size: int,
    hidden_size: int,
    tile: int | None,
) -> dict[str, Any]:
    """Specs of the decoder of some arrays.

    Args:
      arrays: from `weight_arrays`.
      size: of the embedding of a node.
      hidden_size: units of the hidden layers.
      tile: the most channels that a branch writes; as many as the widest layer has if
        `None`.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    has_edges = False
    for name, spec, assignment in arrays:
        if assignment is None:
            continue
        has_edges |= assignment.source is not None
        entry = _entry_shape(spec, assignment)
        axes = range(-len(entry), 0)
        limited = tuple(
            length if tile is None or axis in spec.spatial else min(length, tile)
            for axis, length in zip(axes, entry, strict=True)
        )
        branch = _branch(name, spec, assignment)
        largest = shapes.get(branch, limited)
        shapes[branch] = tuple(map(max, largest, limited))
    hidden = {"node_hidden": linear_specs(size, hidden_size)}
    if has_edges:
        hidden["edge_hidden"] = linear_specs(2 * size, hidden_size)
    branches = {
        name: linear_specs(hidden_size, *shape) for name, shape in shapes.items()
    }
    return {**hidden, "branches": branches}


def _fit(array: jax.Array, shape: tuple[int, ...], spatial: tuple[int, ...]):
    """Cut the last axes of an array to a shape: spatial ones from the center."""
    for axis, length in zip(range(-len(shape), 0), shape, strict=True):
        surplus = max(array.shape[axis] - length, 0)
        start = surplus // 2 if axis in spatial else 0
        stop = array.shape[axis] - (surplus - start)
        index = [slice(None)] * array.ndim
        index[axis] = slice(start, stop)
        array = array[tuple(index)]
    return array


def _tile(array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Repeat the last axes of an array as often as a shape needs, and cut them."""
    current = array.shape[array.ndim - len(shape) :]
    copies = [-(-wanted // given) for wanted, given in zip(shape, current, strict=True)]
    if max(copies, default=1) > 1:
        array = jnp.tile(array, (1,) * (array.ndim - len(shape)) + tuple(copies))
    return _fit(array, shape, ())


def _fan_in_scale(spec: WeightSpec) -> float:
    """Knyazev et al. 2021: the factor of He et al. where a ReLU follows a mixture."""
    sides = {spec.shape[axis] for axis in spec.spatial}
    mixes_channels = spec.spatial in ((), (-4, -3)) and len(sides) < 2
    return ((2 if mixes_channels else 1) / spec.fan_in) ** 0.5


def decode(
    params: Params,
    embeddings: jax.Array,
    arrays: list[WeightArray],
    learned: Params,
    *,
    fan_in_scaling: bool,
) -> list[jax.Array]:
    """Write all weights.

    Args:
      params: as specified by `decoder_specs`.
      embeddings: `[num_blocks, num_nodes, size]`.
      arrays: from `weight_arrays`.
      learned: list of the arrays that are not generated.
      fan_in_scaling: whether weights are scaled as random initial ones would be.

    Returns:
      The arrays, in order. What the architecture does not use is 0.
    """
    node_hidden = jax.nn.relu(linear(params["node_hidden"], embeddings))
    rest = iter(learned)

    # Arrays of one branch and of the same nodes are cut from one product: most nodes
    # are there once for each operation they might have.
    def product_of(
        name: str, spec: WeightSpec, assignment: NodeAssignment
    ) -> tuple[str, int, int]:
        return (
            _branch(name, spec, assignment),
            id(assignment.node),
            id(assignment.source),
        )

    shapes: dict[Any, tuple[int, ...]] = {}
    for name, spec, assignment in arrays:
        if assignment is not None:
            entry, product = (
                _entry_shape(spec, assignment),
                product_of(name, spec, assignment),
            )
            shapes[product] = tuple(map(max, shapes.get(product, entry), entry))
    products: dict[Any, jax.Array] = {}

    def multiply(name: str, spec: WeightSpec, assignment: NodeAssignment) -> jax.Array:
        block, node = assignment.node[..., 0], assignment.node[..., 1]
        if assignment.source is None:
            hidden = node_hidden[block, node]
        else:
            other = embeddings[assignment.source[..., 0], assignment.source[..., 1]]
            ends = jnp.concatenate([other, embeddings[block, node]], axis=-1)
            hidden = jax.nn.relu(linear(params["edge_hidden"], ends))
        shape = shapes[product_of(name, spec, assignment)]
        branch = params["branches"][_branch(name, spec, assignment)]
        branch = {
            part: _fit(leaf, shape, spec.spatial) for part, leaf in branch.items()
        }
        return linear(branch, hidden)

    def write(
        name: str, spec: WeightSpec, assignment: NodeAssignment | None
    ) -> jax.Array:
        if assignment is None:
            return next(rest)
        product, entry = (
            product_of(name, spec, assignment),
            _entry_shape(spec, assignment),
        )
        if product not in products:
            products[product] = multiply(name, spec, assignment)
        values = _tile(_fit(products[product], entry, spec.spatial), entry)
        if fan_in_scaling and spec.constant is None:
            values = values * _fan_in_scale(spec)
        if spec.constant is not None:
            values = values + spec.constant
        is_used = assignment.is_used.reshape(
            assignment.is_used.shape + (1,) * len(entry)
        )
        return jnp.where(is_used, values, jnp.zeros((), values.dtype))

    return [write(*array) for array in arrays]
