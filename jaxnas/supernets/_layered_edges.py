"""Edges whose operations are chains of layers, for GPUs.

All edges of all architectures that may run at the same time are one call of a kernel
(`_layer_kernels.py`), which branches inside. The definition of what is computed is the
loop of `edges.evaluate`, of which only the order of sums differs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.ops.layers import Chain, Layer, LayerWeights
from jaxnas.supernets import _layer_kernels as kernels
from jaxnas.supernets._layer_kernels import Call, Images, Normal
from jaxnas.supernets.edges import Edges, LayeredOps
from jaxnas.types import Weights

_KINDS = {
    "sum": kernels.SUM,
    "mean": kernels.SUM,
    "mean_inside": kernels.MEAN_INSIDE,
    "max": kernels.MAX,
}
# An array of consecutive numbers would be computed each time instead of being constant.
_NO_SEQUENCE = -1


class _LayerArrays(NamedTuple):
    """Weights of one layer of all edges.

    Attributes:
      taps: `[E, taps, C]`.
      matrix: `[E, C, C]`.
      scale: `[E, C]`; `None` if no operation has learned scales.
      offset: as `scale`.
    """

    taps: jax.Array
    matrix: jax.Array
    scale: jax.Array | None
    offset: jax.Array | None


class _LayerResults(NamedTuple):
    """What one layer of a group of edges yields.

    Attributes:
      values: before the normalization, `[G, pixels, C]`.
      normal: how they are normalized.
      windows: what the product is taken of, if it is kept.
    """

    values: jax.Array
    normal: Normal
    windows: jax.Array | None = None


def _flat_chains(ops: LayeredOps) -> list[Chain | None]:
    """The chains of all operations, as many of each; `None` where there is none."""
    padding: list[Chain | None] = [None] * ops.chains_per_edge
    return [
        chain
        for chains in ops.chains
        for chain in [*chains, *padding][: ops.chains_per_edge]
    ]


def _numbers_of(chain: Chain | None, num_layers: int) -> list[int]:
    """What the kernels read of a chain; where edges are is filled in later."""
    numbers = [0] * kernels.layer_column(num_layers, 0)
    if chain is None:
        return numbers
    numbers[kernels.EXISTS], numbers[kernels.NUM_LAYERS] = 1, len(chain)
    for place, layer in enumerate(chain):
        start = kernels.layer_column(place, 0)
        normalizes = layer.product and layer.normalizes
        numbers[start : start + len(kernels.LAYER_COLUMNS)] = [
            *(layer.size, layer.dilation, layer.shift, _KINDS[layer.taps]),
            *map(int, (layer.relu, layer.product, normalizes)),
        ]
    return numbers


def _spread(ops: LayeredOps, values: jax.Array) -> jax.Array:
    """What the chains of edges have, from what edges `[A, edges]` have: `[E]`."""
    return jnp.repeat(values, ops.chains_per_edge, axis=1).reshape(-1)


def _chain_numbers(ops: LayeredOps, edges: Edges) -> jax.Array:
    """Number of each edge's chain among those of all operations, int32 `[E]`."""
    copies = ops.chains_per_edge
    first = _spread(ops, edges.op) * copies
    return first + jnp.arange(first.size, dtype=jnp.int32) % copies


def _edge_numbers(
    ops: LayeredOps,
    edges: Edges,
    exists: jax.Array,
    num_states: int,
    num_sources: int,
) -> jax.Array:
    """What the kernels read of all edges, int32 `[E, columns]`."""
    table = np.array(
        [_numbers_of(chain, ops.num_layers) for chain in _flat_chains(ops)], np.int32
    )
    arch = jnp.arange(edges.op.shape[0], dtype=jnp.int32)[:, None]
    numbers = jnp.asarray(table)[_chain_numbers(ops, edges)]
    column = np.arange(table.shape[1])[None, :]
    for place, values in (
        (kernels.SOURCE, edges.source + arch * num_sources),
        (kernels.TARGET, edges.target + arch * num_states),
        (kernels.EXISTS, exists.astype(jnp.int32)),
    ):
        values = _spread(ops, values)[:, None]
        if place == kernels.EXISTS:
            values = values * numbers
        numbers = jnp.where(column == place, values, numbers)
    return numbers


@jax.custom_vjp
def _take(leaf: jax.Array, rows: jax.Array) -> jax.Array:
    """Rows of a leaf; another one instead of those that it has not."""
    return leaf.at[rows].get(mode="clip")


def _take_fwd(leaf, rows):
    return _take(leaf, rows), (rows, leaf[:, :0])


def _take_bwd(residuals, g):
    # A sum in a fixed order: a scatter on a GPU adds in any.
    rows, empty = residuals
    is_row = rows[None, :] == jnp.arange(empty.shape[0], dtype=rows.dtype)[:, None]
    is_row = is_row.reshape(*is_row.shape, *(1 for _ in g.shape[1:]))
    return jnp.where(is_row, g[None], jnp.zeros((), g.dtype)).sum(1), None


_take.defvjp(_take_fwd, _take_bwd)


def _layer_arrays(
    ops: LayeredOps, weights: Weights, edges: Edges, channels: int, dtype: Any
) -> list[_LayerArrays]:
    """Weights of each layer of all edges, anything where it has none.

    Leaves of the weights are `[num_archs, rows, ...]`, or `[1, rows, ...]` where all
    architectures share them.
    """
    row = jnp.repeat(edges.row, ops.chains_per_edge, axis=1)

    def rows_of(leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] == 1:
            return _take(leaf[0], row.reshape(-1))
        return jax.vmap(_take)(leaf, row).reshape(-1, *leaf.shape[2:])

    rows = jax.tree.map(rows_of, weights)
    chain = _chain_numbers(ops, edges)
    arrays = []
    for number in range(ops.num_layers):
        layers = [
            chain[number] if chain is not None and number < len(chain) else None
            for chain in _flat_chains(ops)
        ]
        found = {
            index: _weights_of(layer, rows, chain.size, channels, dtype)
            for index, layer in enumerate(layers)
            if layer is not None
        }
        num_taps = max(layer.size**2 for layer in layers if layer is not None)
        taps = jnp.zeros((chain.size, num_taps, channels), dtype)
        matrix = jnp.zeros((chain.size, channels, channels), dtype)
        total = _LayerArrays(taps, matrix, None, None)
        for index, own in found.items():
            total = _choose(chain == index, own, total)
        arrays.append(total)
    return arrays


def _weights_of(
    layer: Layer, rows: Weights, num: int, channels: int, dtype: Any
) -> LayerWeights:
    """A layer's weights with a leading axis, and with taps of one if it has none."""
    found = LayerWeights()
    if jax.tree.leaves(rows):
        found = jax.vmap(layer.weights)(rows)
    if found.taps is None:
        share = 1 / layer.size**2 if layer.taps in ("mean", "mean_inside") else 1
        taps = jnp.full((num, layer.size**2, channels), share, dtype)
        found = found._replace(taps=taps)
    return found


def _choose(chosen: jax.Array, own: LayerWeights, total: _LayerArrays) -> _LayerArrays:
    """Put a layer's weights in the place of those of the chosen edges."""

    def put(new: jax.Array, old: jax.Array | None) -> jax.Array:
        if old is None:
            return new
        if new.shape[1] < old.shape[1]:  # fewer taps than others
            new = jnp.pad(new, ((0, 0), (0, old.shape[1] - new.shape[1]), (0, 0)))
        return jnp.where(chosen.reshape(-1, *(1 for _ in old.shape[1:])), new, old)

    weights = own._asdict().items()
    return total._replace(
        **{
            name: put(new, getattr(total, name))
            for name, new in weights
            if new is not None
        }
    )


class _Evaluation(NamedTuple):
    """Everything that the calls of one evaluation have in common.

    Attributes:
      ops: the operations.
      images: what the first layer reads and writes.
      num_archs: number of architectures.
      num_states: of one architecture.
      num_sources: of one architecture.
      num_edges: chains of all edges of one architecture.
      dtype: of what is computed.
      interpret: run kernels by ordinary operations.
      numbers: what the kernels read of all edges, int32 `[E, columns]`.
      arrays: weights of each layer of all edges.
    """

    ops: LayeredOps
    images: Images
    num_archs: int
    num_states: int
    num_sources: int
    num_edges: int
    dtype: Any
    interpret: bool
    numbers: jax.Array
    arrays: list[_LayerArrays]

    @classmethod
    def make(
        cls,
        ops: LayeredOps,
        inputs: jax.Array,
        num_states: int,
        edges: Edges,
        exists: jax.Array,
        arrays: list[_LayerArrays],
        interpret: bool,
    ) -> "_Evaluation":
        num_archs, num_sources, batch, height, width, channels = inputs.shape
        num_edges = edges.op.shape[1]
        if sum(group.num_edges for group in ops.groups) != num_edges:
            raise ValueError(f"groups of edges have not {num_edges} edges together")
        return cls(
            ops,
            Images(batch, height, width, channels, ops.stride),
            num_archs,
            num_states,
            num_sources,
            num_edges * ops.chains_per_edge,
            np.promote_types(inputs.dtype, jnp.float32),
            interpret,
            _edge_numbers(ops, edges, exists, num_states, num_sources),
            arrays,
        )

    def images_of(self, layer: int) -> Images:
        """What a layer reads and writes."""
        return self.images if layer == 0 else self.images.output

    def call(self, layer: int, size: int, num_states: int | None = None) -> Call:
        """A call about so many edges of each architecture."""
        return Call(
            self.images_of(layer),
            self.num_archs,
            self.num_edges,
            size,
            self.num_states if num_states is None else num_states,
            self.ops.epsilon,
            self.dtype,
            self.interpret,
        )

    def common(self, first_edge: int, first_state: int = 0) -> dict[str, Any]:
        """What every kernel reads."""
        first = np.array([first_edge, first_state, _NO_SEQUENCE], np.int32)
        return {"first": jnp.asarray(first), "numbers": self.numbers}

    def image_shape(self, size: int, images: Images, dtype: Any) -> Any:
        """Shape of images of a group."""
        shape = (self.num_archs * size, images.num_pixels, images.channels)
        return jax.ShapeDtypeStruct(shape, dtype)

    def sums_shape(self, size: int, images: Images) -> Any:
        """Shape of two sums over each tile of images of a group."""
        shape = (self.num_archs * size, images.num_tiles, 2, images.channels)
        return jax.ShapeDtypeStruct(shape, self.dtype)

    def over_devices(self, sums: jax.Array) -> jax.Array:
        """Mean over devices of sums over pixels; each divides by its own number."""
        if self.ops.batch_axis is None:
            return sums
        return lax.pmean(sums, self.ops.batch_axis)

    def run_layers(
        self, first: int, size: int, inputs: jax.Array, *, keep_windows: bool
    ) -> list[_LayerResults]:
        """Run all layers of a group of edges."""
        results: list[_LayerResults] = []
        for layer, weights in enumerate(self.arrays):
            written = self.images.output
            values = self.image_shape(size, written, inputs.dtype)
            outputs = {"values": values, "sums": self.sums_shape(size, written)}
            if keep_windows:
                outputs["windows"] = values
            outputs = self.call(layer, size).run(
                kernels.forward_layer,
                size,
                written.num_tiles,
                self.common(first)
                | {
                    "inputs": results[-1].values if results else inputs,
                    "before": results[-1].normal if results else None,
                    "taps": weights.taps,
                    "matrix": weights.matrix,
                },
                outputs,
                layer=layer,
            )
            sums = self.over_devices(outputs["sums"].sum(1))
            normal = Normal(sums, weights.scale, weights.offset)
            results.append(
                _LayerResults(outputs["values"], normal, outputs.get("windows"))
            )
        return results


def _pixels(x: jax.Array) -> jax.Array:
    """`[A, states, B, H, W, C]` as `[A * states, pixels, C]`."""
    return x.reshape(x.shape[0] * x.shape[1], -1, x.shape[-1])


def forward(
    ops: LayeredOps,
    states: jax.Array,
    sources: jax.Array | None,
    weights: Weights,
    edges: Edges,
    exists: jax.Array,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Run all edges.

    Args:
      ops: the operations.
      states: `[num_archs, num_states, B, H, W, C]`.
      sources: where edges read from, if not from the states.
      weights: leaves `[num_archs, rows, ...]`, or `[1, rows, ...]` where all
        architectures share them.
      edges: `[num_archs, num_edges]` each.
      exists: which of them exist, bool `[num_archs, num_edges]`.
      interpret: run kernels by ordinary operations, on any device.

    Returns:
      The final states.
    """
    inputs = states if sources is None else sources
    arrays = _layer_arrays(ops, weights, edges, inputs.shape[-1], inputs.dtype)
    run = _Evaluation.make(
        ops, inputs, states.shape[1], edges, exists, arrays, interpret
    )
    buffer, read = _pixels(states), None if sources is None else _pixels(sources)
    first = 0
    for group in ops.groups:
        size = group.num_edges * ops.chains_per_edge
        layers = run.run_layers(
            first, size, buffer if read is None else read, keep_windows=False
        )
        buffer = run.call(1, size).run(
            kernels.combine,
            group.num_targets,
            run.images.output.num_tiles,
            run.common(first, group.first_target)
            | {"sources": read, "layers": [layer[:2] for layer in layers]},
            {"states": buffer},
        )["states"]
        first += size
    return buffer.reshape(states.shape)


def backward(
    ops: LayeredOps,
    inputs: jax.Array,
    weights: Weights,
    edges: Edges,
    exists: jax.Array,
    gradient: jax.Array,
    *,
    has_sources: bool,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array | None, Weights]:
    """Go back through all edges, which are run once more, all at once.

    Args:
      ops: the operations.
      inputs: the final states, or the sources if there are any.
      weights: as for `forward`.
      edges: as for `forward`.
      exists: as for `forward`.
      gradient: of the final states.
      has_sources: whether edges read from sources.
      interpret: as for `forward`.

    Returns:
      The gradients of the states, of the sources and of the weights, which are summed
      over architectures that share them.
    """
    arrays, pull_back = jax.vjp(
        lambda weights: _layer_arrays(
            ops, weights, edges, inputs.shape[-1], inputs.dtype
        ),
        weights,
    )
    run = _Evaluation.make(
        ops, inputs, gradient.shape[1], edges, exists, arrays, interpret
    )
    read = _pixels(inputs)
    layers = run.run_layers(0, run.num_edges, read, keep_windows=True)
    back = _Backward(run, layers, read)
    g = _pixels(gradient)
    arriving = jnp.empty((run.num_archs * run.num_edges, *read.shape[1:]), read.dtype)
    sums = [back.empty_sums(layer) for layer in range(len(arrays))]
    normal_sums, complete = [], set()
    first = run.num_edges
    for group in ops.groups[::-1]:
        size = group.num_edges * ops.chains_per_edge
        first -= size
        targets = range(group.first_target, group.first_target + group.num_targets)
        if complete & set(targets):
            raise ValueError(f"several groups of edges add to states of {targets}")
        if not has_sources and complete:
            g = back.gather(g, arriving, None, group.first_target, group.num_targets)
        complete |= set(targets)
        arriving, sums, of_group = back.group(g, arriving, sums, first, size)
        normal_sums.append(of_group)
    sources_gradient = None
    if has_sources:
        shape = jax.ShapeDtypeStruct(read.shape, read.dtype)
        sources_gradient = back.gather(shape, arriving, g, 0, run.num_sources)
        sources_gradient = sources_gradient.reshape(inputs.shape)
    else:
        for start, num in _runs(set(range(run.num_states)) - complete):
            g = back.gather(g, arriving, None, start, num)
    of_arrays = back.of_arrays(sums, normal_sums[::-1])
    return g.reshape(gradient.shape), sources_gradient, pull_back(of_arrays)[0]


def _runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Consecutive numbers, as the first one and how many."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and sum(runs[-1]) == number:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((number, 1))
    return runs


class _Backward(NamedTuple):
    """The backward pass.

    Attributes:
      run: what its calls have in common.
      layers: results of all edges.
      read: `[*, pixels, C]`, what the first layers read.
    """

    run: _Evaluation
    layers: list[_LayerResults]
    read: jax.Array

    def empty_sums(self, layer: int) -> tuple[jax.Array, jax.Array | None]:
        """Room for sums over tiles, of the gradients of matrices and of taps."""
        images = self.run.images_of(layer)
        num = self.run.num_archs * self.run.num_edges
        channels = images.channels
        matrix = (num, images.output.num_tiles, channels, channels)
        taps = (num, images.num_tiles, *self.run.arrays[layer].taps.shape[1:])
        has_taps = any(
            chain is not None and layer < len(chain) and chain[layer].has_taps
            for chain in _flat_chains(self.run.ops)
        )
        return (
            jnp.empty(matrix, self.run.dtype),
            jnp.empty(taps, self.run.dtype) if has_taps else None,
        )

    def gather(
        self,
        g: jax.Array | jax.ShapeDtypeStruct,
        arriving: jax.Array,
        reached: jax.Array | None,
        first_target: int,
        num_targets: int,
    ) -> jax.Array:
        """Complete the gradients of some states, or of sources."""
        call = self.run.call(0, 0, g.shape[0] // self.run.num_archs)
        return call.run(
            kernels.gather_gradient,
            num_targets,
            self.run.images.num_tiles,
            self.run.common(0, first_target)
            | {"arriving": arriving, "reached": reached},
            {"gradient": g},
        )["gradient"]

    def group(
        self,
        g: jax.Array,
        arriving: jax.Array,
        sums: list[tuple[jax.Array, jax.Array | None]],
        first: int,
        size: int,
    ) -> tuple[Any, Any, Any]:
        """Go back through all layers of a group of edges.

        Returns:
          `arriving` and `sums` as they become; and for each layer the sums over pixels,
          `[G, 2, C]`, of the gradients of its results and of their products with the
          normalized values: the last are those of edges that end in any layer, others
          those of edges that go on.
        """
        run, images = self.run, self.run.images.output
        common, sums_shape = run.common(first), run.sums_shape(size, images)
        if not self.layers:
            return arriving, sums, []
        last = (
            run.call(1, size)
            .run(
                kernels.sum_gradients,
                size,
                images.num_tiles,
                common
                | {"gradient": g, "layers": [layer[:2] for layer in self.layers]},
                {"sums": sums_shape},
            )["sums"]
            .sum(1)
        )
        sums, totals, inner = list(sums), [last], None
        for layer in range(len(self.layers) - 1, -1, -1):
            call, kept = run.call(layer, size), self.layers[layer]
            before = self.layers[layer - 1] if layer else None
            matrix_sums, taps_sums = sums[layer]
            outputs = call.run(
                kernels.product_backward,
                size,
                images.num_tiles,
                common
                | {
                    "gradient": g,
                    "last_sums": run.over_devices(last),
                    "inner": inner,
                    "inner_sums": None
                    if inner is None
                    else run.over_devices(totals[0]),
                    "values": kept.values,
                    "normal": kept.normal,
                    "windows": kept.windows,
                    "matrix": run.arrays[layer].matrix,
                },
                {
                    "matrix_sums": matrix_sums,
                    "window_gradient": run.image_shape(size, images, g.dtype),
                },
                layer=layer,
            )
            matrix_sums = outputs["matrix_sums"]
            changed = {"input_gradient": arriving}
            if before is not None:
                changed = {
                    "input_gradient": run.image_shape(size, images, g.dtype),
                    "sums": sums_shape,
                }
            if taps_sums is not None:
                changed["taps_sums"] = taps_sums
            outputs = call.run(
                kernels.window_backward,
                size,
                call.images.num_tiles,
                common
                | {
                    "inputs": self.read if before is None else before.values,
                    "before": None if before is None else before.normal,
                    "window_gradient": outputs["window_gradient"],
                    "windows": kept.windows,
                    "taps": run.arrays[layer].taps,
                },
                changed,
                layer=layer,
            )
            sums[layer] = matrix_sums, outputs.get("taps_sums")
            if before is None:
                arriving = outputs["input_gradient"]
            else:
                inner = outputs["input_gradient"]
                totals.insert(0, outputs["sums"].sum(1))
        return arriving, sums, totals

    def of_arrays(
        self,
        sums: list[tuple[jax.Array, jax.Array | None]],
        normal_sums: list[list[jax.Array]],
    ) -> list[_LayerArrays]:
        """Gradients of all layers' weights, from the sums of all groups."""

        def of_all_edges(*groups: jax.Array) -> jax.Array:
            parts = [x.reshape(self.run.num_archs, -1, *x.shape[1:]) for x in groups]
            return jnp.concatenate(parts, axis=1).reshape(-1, *groups[0].shape[1:])

        totals = [of_all_edges(*groups) for groups in zip(*normal_sums, strict=True)]
        numbers, result = self.run.numbers[:, :, None, None], []
        for layer, weights in enumerate(self.run.arrays):
            matrix, taps = sums[layer]
            length, offset, scale = numbers[:, kernels.NUM_LAYERS], None, None
            runs = (numbers[:, kernels.EXISTS] > 0) & (length > layer)
            if weights.scale is not None:
                total = jnp.where(length == layer + 1, totals[-1], totals[layer])
                column = kernels.layer_column(layer, kernels.NORMALIZES)
                total = jnp.where(runs & (numbers[:, column] > 0), total, 0)
                offset, scale = total[:, 0], total[:, 1]
            gradients = _LayerArrays(
                jnp.zeros_like(weights.taps)
                if taps is None
                else jnp.where(runs, taps.sum(1), 0),
                jnp.where(runs, matrix.sum(1), 0),
                scale,
                offset,
            )
            result.append(
                jax.tree.map(lambda g, w: g.astype(w.dtype), gradients, weights)
            )
        return result
