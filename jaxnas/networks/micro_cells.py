"""The cells of `networks.micro`: equal nodes, with different things around them.

A cell takes the outputs of the two cells before it. In a reduction cell, edges from
these two have stride 2.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxnas import genotypes, ops
from jaxnas.networks import _counts, layers
from jaxnas.networks.layers import (
    FactorizedReduceNorm,
    Initializer,
    NewNorm,
    PointwiseNorm,
)

CellOutput = Literal["concat", "projection"]

_NUM_INPUTS = 2


class NasnetCell(nn.Module):
    """A cell of NASNet, DARTS and ASNG-NAS; see `micro` for the kinds of output."""

    pairs: tuple[genotypes.Edge, ...]
    concat: tuple[int, ...]
    channels: int
    reduction: bool
    shrink_first_input: bool
    cell_output: CellOutput
    count_include_pad: bool
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(
        self,
        inputs: tuple[jax.Array, jax.Array],
        drop_path_prob: jax.Array | None,
        sources: jax.Array | None = None,
    ) -> jax.Array:
        """Compute the output from those of the cells k-2 and k-1.

        `sources`, int32 `[num_edges]`, stand in for those of the pairs.
        """
        states = []
        for i, x in enumerate(inputs):
            shrink = self.shrink_first_input and i == 0
            preprocess = (FactorizedReduceNorm if shrink else PointwiseNorm)(
                self.channels, self.new_norm, self.initializer, name=f"preprocess_{i}"
            )
            states.append(preprocess(jax.nn.relu(x)))
        states = _add_nodes(
            self,
            states,
            ops.primitives(count_include_pad=self.count_include_pad),
            drop_path_prob,
            is_dropped=lambda name, stride: name != "skip_connect" or stride > 1,
            # As in the supernet that ends its cells with a projection.
            share_equal_edges=self.cell_output == "projection",
            sources=sources,
        )
        nodes = jnp.concatenate([states[n] for n in self.concat], axis=-1)
        if self.cell_output == "concat":
            return nodes
        projection = PointwiseNorm(
            self.channels, self.new_norm, self.initializer, name="projection"
        )
        return projection(jax.nn.relu(nodes))


def num_nasnet_params(
    pairs: Sequence[genotypes.Edge],
    concat: Sequence[int],
    channels: int,
    inputs: Sequence[int],
    *,
    reduction: bool,
    cell_output: CellOutput,
) -> tuple[int, int]:
    """Number of parameters of a `NasnetCell`, and of the channels of its output.

    `inputs` are the numbers of channels of what the cell reads.
    """
    projects = cell_output == "projection"
    total = sum(_counts.pointwise_norm(width, channels) for width in inputs)
    total += _num_edge_params(
        pairs, channels, reduction=reduction, share_equal_edges=projects
    )
    if projects:
        return total + _counts.pointwise_norm(
            len(concat) * channels, channels
        ), channels
    return total, len(concat) * channels


class EnasCell(nn.Module):
    """A cell of ENAS's stand-alone network (official `micro_child.py`, `_fixed_layer`).

    An input is preprocessed where its size or channels are not the cell's, and the
    second one once more in any case. Unused inputs are part of the output.
    """

    pairs: tuple[genotypes.Edge, ...]
    concat: tuple[int, ...]
    channels: int
    reduction: bool
    count_include_pad: bool
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(
        self, inputs: tuple[jax.Array, jax.Array], drop_path_prob: jax.Array | None
    ) -> jax.Array:
        """Compute the output from those of the cells k-2 and k-1."""

        def pointwise(x: jax.Array, name: str) -> jax.Array:
            return PointwiseNorm(
                self.channels, self.new_norm, self.initializer, name=name
            )(x)

        def halve(x: jax.Array, name: str) -> jax.Array:
            return FactorizedReduceNorm(
                self.channels, self.new_norm, self.initializer, name=name
            )(x)

        states = []
        for i, x in enumerate(inputs):
            if x.shape[1:3] != inputs[1].shape[1:3]:
                x = halve(jax.nn.relu(x), f"preprocess_{i}")
            elif x.shape[-1] != self.channels:
                x = pointwise(jax.nn.relu(x), f"preprocess_{i}")
            states.append(x)
        states[1] = pointwise(jax.nn.relu(states[1]), "base")
        states = _add_nodes(
            self,
            states,
            _enas_primitives(self.count_include_pad),
            drop_path_prob,
            is_dropped=lambda name, stride: name != "skip_connect",
        )
        read = {source for _, source in self.pairs}
        unused = [i for i in range(_NUM_INPUTS) if i not in read]
        if self.reduction:
            for i in unused:
                states[i] = halve(states[i], f"unused_{i}")
        return jnp.concatenate([states[i] for i in (*unused, *self.concat)], axis=-1)


def num_enas_params(
    pairs: Sequence[genotypes.Edge],
    concat: Sequence[int],
    channels: int,
    inputs: Sequence[int],
    *,
    reduction: bool,
    shrink_first_input: bool,
) -> tuple[int, int]:
    """The same of an `EnasCell`."""
    total = _counts.pointwise_norm(channels, channels)  # the base
    for i, width in enumerate(inputs):
        if width != channels or (shrink_first_input and i == 0):
            total += _counts.pointwise_norm(width, channels)
    total += _num_edge_params(pairs, channels, reduction=reduction)
    read = {source for _, source in pairs}
    num_unused = sum(i not in read for i in range(_NUM_INPUTS))
    if reduction:
        total += num_unused * _counts.pointwise_norm(channels, channels)
    return total, (num_unused + len(concat)) * channels


def _num_edge_params(
    pairs: Sequence[genotypes.Edge],
    channels: int,
    *,
    reduction: bool,
    share_equal_edges: bool = False,
) -> int:
    """Number of parameters of all edges; the arguments are those of `_add_nodes`."""
    total = 0
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        edges = {first, second} if share_equal_edges else (first, second)
        for name, source in edges:
            stride = 2 if reduction and source < _NUM_INPUTS else 1
            total += _counts.operation(name, channels, stride)
    return total


def _enas_primitives(count_include_pad: bool) -> dict[str, ops.Op]:
    """The primitives, with an identity that has no ReLU where its stride is 2."""

    def identity(x, weights, stride, norm):
        return x if stride == 1 else norm(ops.factorized_reduce(x, weights["kernel"]))

    primitives = ops.primitives(count_include_pad=count_include_pad)
    skip = primitives["skip_connect"]._replace(apply=identity)
    return {**primitives, "skip_connect": skip}


def _add_nodes(
    cell: NasnetCell | EnasCell,
    inputs: list[jax.Array],
    primitives: dict[str, ops.Op],
    drop_path_prob: jax.Array | None,
    *,
    is_dropped: Callable[[str, int], bool],
    share_equal_edges: bool = False,
    sources: jax.Array | None = None,
) -> list[jax.Array]:
    """Compute the nodes of a cell, each the sum of its two edges.

    Args:
      cell: the module, in whose scope the edges get their weights.
      inputs: the two preprocessed inputs.
      primitives: the operations by name.
      drop_path_prob: probability of dropping an edge, if any are dropped.
      is_dropped: `(name, stride)` -> whether drop path applies to such an edge.
      share_equal_edges: whether equal edges of a node have the same weights.
      sources: int32 `[num_edges]` instead of those of the pairs; no edge is dropped.

    Returns:
      The inputs, then the nodes.
    """
    states = list(inputs)
    for first in range(0, len(cell.pairs), 2):
        node, terms = first // 2 + _NUM_INPUTS, []
        modules: dict[Any, nn.Module] = {}
        for side, (name, source) in enumerate(cell.pairs[first : first + 2]):
            is_strided = source < _NUM_INPUTS or sources is not None
            stride = 2 if cell.reduction and is_strided else 1
            slot = (name, source) if share_equal_edges else side
            if slot not in modules:
                modules[slot] = layers.OpModule(
                    primitives[name],
                    stride,
                    cell.new_norm,
                    cell.initializer,
                    name=f"node_{node}_edge_{side}_{name}",
                )
            if sources is not None:
                traced = sources[first + side]
                terms.append(_edge_from(cell, modules[slot], states, traced))
                continue
            y = modules[slot](states[source])
            if drop_path_prob is not None and is_dropped(name, stride):
                y = layers.drop_path(cell.make_rng("drop_path"), y, drop_path_prob)
            terms.append(y)
        states.append(terms[0] + terms[1])
    return states


def _edge_from(
    cell: NasnetCell | EnasCell,
    edge: nn.Module,
    states: list[jax.Array],
    source: jax.Array,
) -> jax.Array:
    """Apply an edge to the state of a traced number.

    In a reduction cell that is one of two sizes, and the edge of one of two strides.
    """
    if not cell.reduction:
        return edge(lax.select_n(source, *states))
    inputs, nodes = states[:_NUM_INPUTS], states[_NUM_INPUTS:]
    strided = lax.select_n(jnp.minimum(source, 1), *inputs)
    if not nodes or cell.is_initializing():
        return edge(strided)
    unstrided = lax.select_n(jnp.maximum(source - _NUM_INPUTS, 0), *nodes)
    return nn.cond(
        source < _NUM_INPUTS,
        lambda edge, strided, _: edge(strided),
        lambda edge, _, unstrided: edge(unstrided, stride=1),
        edge,
        strided,
        unstrided,
    )
