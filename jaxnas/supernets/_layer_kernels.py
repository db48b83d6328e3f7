"""Kernels for GPUs that run one layer of many edges at once.

A kernel has a program for each edge (or state) and tile of pixels. What an edge does is
data: a program reads the numbers of its edge, and branches. Images are rows of pixels,
`[images, B * H * W, C]`. Sums over pixels are written tile by tile and added up
outside, so that results do not depend on the order in which programs run.

They are written for Triton; JAX 0.12 says that it will remove that backend of Pallas.

The edges of all architectures are numbered one after the other. A call is about a group
of them, `[G, ...]` below, of each architecture; other arrays are of all edges,
`[E, ...]`. An edge that does not exist writes nothing.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

# Columns of the numbers of an edge: of the edge, and then of each of its layers.
EDGE_COLUMNS = EXISTS, SOURCE, TARGET, NUM_LAYERS = range(4)
LAYER_COLUMNS = SIZE, DILATION, SHIFT, TAPS, RELU, PRODUCT, NORMALIZES = range(7)


def layer_column(layer: int, column: int) -> int:
    """Where a number of a layer is among those of an edge."""
    return len(EDGE_COLUMNS) + layer * len(LAYER_COLUMNS) + column


# What is done over the taps.
SUM, MEAN_INSIDE, MAX = range(3)

_TILE_ELEMENTS = 4096
_MOST_TILE_PIXELS = 128
_SMALLEST_PRODUCT = 16  # the least side of a matrix that tensor cores multiply


class Images(NamedTuple):
    """Sizes of the images that a layer reads and writes.

    Attributes:
      batch: number of images.
      height: of what is read.
      width: of what is read.
      channels: of both.
      stride: pixels of what is read for one of what is written.
    """

    batch: int
    height: int
    width: int
    channels: int
    stride: int = 1

    @property
    def output(self) -> "Images":
        """Sizes of what is written, as if it were read at stride 1."""
        height, width = -(-self.height // self.stride), -(-self.width // self.stride)
        return Images(self.batch, height, width, self.channels)

    @property
    def num_pixels(self) -> int:
        """Pixels of what is read, of all images."""
        return self.batch * self.height * self.width

    @property
    def padded_channels(self) -> int:
        """Channels that a program works on."""
        return max(_SMALLEST_PRODUCT, int(pl.next_power_of_2(self.channels)))

    @property
    def tile(self) -> int:
        """Pixels that a program works on."""
        pixels = _TILE_ELEMENTS // self.padded_channels
        return max(_SMALLEST_PRODUCT, min(_MOST_TILE_PIXELS, pixels))

    @property
    def num_tiles(self) -> int:
        """Tiles of all pixels of what is read."""
        return -(-self.num_pixels // self.tile)


class Call(NamedTuple):
    """What a call of a kernel is about.

    The first edge and the first target are numbers that kernels read instead, so that
    one compiled kernel serves all groups of a cell.

    Attributes:
      images: what the layer reads and writes.
      num_archs: number of architectures.
      num_edges: edges of one architecture in all.
      size: edges of one architecture in the group.
      num_states: states of one architecture.
      epsilon: of the normalizations.
      dtype: of what is computed.
      interpret: run kernels by ordinary operations.
    """

    images: Images
    num_archs: int
    num_edges: int
    size: int
    num_states: int
    epsilon: float
    dtype: Any
    interpret: bool

    def run(
        self,
        kernel: Callable[..., None],
        num: int,
        num_tiles: int,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        **settings: Any,
    ) -> dict[str, jax.Array]:
        """Run a kernel.

        Args:
          kernel: of references to the inputs and outputs, by name, and this call.
          num: edges or states of each architecture.
          num_tiles: tiles of pixels.
          inputs: arrays, or trees of them.
          outputs: shapes; or arrays, which are changed in place where a program writes.
          settings: of the kernel.

        Returns:
          The outputs.

        Raises:
          ValueError: if an array has more elements than the kernels can count.
        """
        leaves, tree = jax.tree.flatten(dict(inputs))
        most = max(array.size for array in (*leaves, *outputs.values()))
        if most > np.iinfo(np.int32).max:
            raise ValueError(
                f"an array of {most} elements is too large for kernels; run fewer "
                "architectures at once, or smaller batches"
            )
        changed = {
            place: value
            for place, value in enumerate(outputs.values())
            if isinstance(value, jax.Array)
        }

        def body(*references):
            ins = jax.tree.unflatten(tree, references[: len(leaves)])
            outs = references[len(leaves) + len(changed) :]
            kernel(self, **ins, **dict(zip(outputs, outs, strict=True)), **settings)

        results = pl.pallas_call(
            body,
            grid=(num_tiles, num, self.num_archs),
            out_shape=[
                jax.ShapeDtypeStruct(v.shape, v.dtype) for v in outputs.values()
            ],
            input_output_aliases={
                len(leaves) + number: place for number, place in enumerate(changed)
            },
            compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
            interpret=self.interpret,
            name=kernel.__name__,
        )(*leaves, *changed.values())
        return dict(zip(outputs, results, strict=True))

    def edge(self, first: Any) -> tuple[Any, Any]:
        """Number of a program's edge among all, and among those of the group."""
        arch, place = pl.program_id(2), pl.program_id(1)
        return arch * self.num_edges + first[0] + place, arch * self.size + place

    def state(self, first: Any) -> Any:
        """Number of the state that a program is about."""
        return pl.program_id(2) * self.num_states + first[1] + pl.program_id(1)

    def means(self, tile: "_Tile", sums: Any, place: Any) -> tuple[Any, Any]:
        """Means over all pixels of what is written, `[1, C]`, from two sums."""
        share = 1 / self.images.output.num_pixels
        first, second = (tile.read_channels(sums, place, i) for i in (0, 1))
        return first * share, second * share

    def product(self, a: Any, b: Any) -> Any:
        """Multiply matrices nearly as exactly as in float32, on tensor cores."""
        if self.interpret:
            return jnp.dot(a, b, precision=lax.Precision.HIGHEST)
        return plgpu.dot(a, b, precision=lax.DotAlgorithmPreset.TF32_TF32_F32_X3)


class Normal(NamedTuple):
    """How the results of a layer are normalized.

    Attributes:
      sums: of the values and of their squares over all pixels, `[*, 2, C]`, of a
        group or of all edges.
      scale: what is learned after it, `[E, C]`, if something is.
      offset: as `scale`.
    """

    sums: Any
    scale: Any = None
    offset: Any = None

    def standard(self, tile: "_Tile", place: Any, call: Call) -> tuple[Any, Any]:
        """Factor and offset that normalize values."""
        mean, squares = call.means(tile, self.sums, place)
        variance = jnp.maximum(squares - mean * mean, jnp.zeros_like(mean))
        factor = lax.rsqrt(variance + jnp.full_like(mean, call.epsilon))
        return factor, -mean * factor

    def learned_scale(self, tile: "_Tile", edge: Any) -> Any:
        """What the normalized values are multiplied by."""
        if self.scale is None:
            return jnp.ones((1, tile.channel.size), tile.dtype)
        return tile.read_channels(self.scale, edge)

    def affine(
        self, tile: "_Tile", place: Any, edge: Any, normalizes: Any, call: Call
    ) -> tuple[Any, Any]:
        """Factor and offset that normalize and do what is learned, `[1, C]` each.

        They change nothing if the layer does not normalize.
        """
        factor, offset = self.standard(tile, place, call)
        if self.scale is not None:
            scale = self.learned_scale(tile, edge)
            learned = tile.read_channels(self.offset, edge)
            factor, offset = factor * scale, offset * scale + learned
        normalizes = jnp.broadcast_to(normalizes, factor.shape)
        return (
            jnp.where(normalizes, factor, jnp.ones_like(factor)),
            jnp.where(normalizes, offset, jnp.zeros_like(offset)),
        )


class _Tile(NamedTuple):
    """The pixels of a program, `[tile]` each, and their channels, `[C]`."""

    number: Any
    pixel: Any
    exists: Any
    image: Any
    row: Any
    column: Any
    channel: Any
    num_channels: int
    dtype: Any

    @classmethod
    def of(cls, images: Images, dtype: Any) -> "_Tile":
        """The tile of this program."""
        number = pl.program_id(0)
        pixel = number * images.tile + lax.iota(jnp.int32, images.tile)
        return cls(
            number,
            pixel,
            pixel < images.num_pixels,
            pixel // (images.height * images.width),
            pixel // images.width % images.height,
            pixel % images.width,
            lax.iota(jnp.int32, images.padded_channels),
            images.channels,
            dtype,
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.pixel.size, self.channel.size

    @property
    def zeros(self) -> Any:
        return jnp.zeros(self.shape, self.dtype)

    @property
    def channel_exists(self) -> Any:
        return self.channel < self.num_channels

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """Choose by one truth for the whole program."""
        return jnp.where(jnp.broadcast_to(condition, self.shape), a, b)

    def mask(self, pixels: Any) -> Any:
        """Which elements of `[tile, C]` are of those pixels."""
        mask = jnp.broadcast_to(pixels[:, None], self.shape)
        if self.num_channels == self.channel.size:
            return mask
        return mask & jnp.broadcast_to(self.channel_exists[None, :], self.shape)

    def read(self, ref: Any, index: Any, pixel: Any = None, exists: Any = None) -> Any:
        """Pixels of an image, `[tile, C]`; zeros where there are none."""
        pixel = self.pixel if pixel is None else pixel
        exists = self.exists if exists is None else exists
        value = plgpu.load(
            ref.at[index, jnp.where(exists, pixel, 0)[:, None], self.channel[None, :]],
            mask=self.mask(exists),
            other=jnp.zeros((), ref.dtype),
        )
        return value.astype(self.dtype)

    def read_if(self, condition: Any, ref: Any, index: Any) -> Any:
        """The program's pixels of an image, or zeros without reading."""
        wanted = self.exists & jnp.broadcast_to(condition, self.exists.shape)
        return self.read(ref, index, exists=wanted)

    def write(self, ref: Any, index: Any, value: Any) -> None:
        """Write the program's pixels of an image."""
        plgpu.store(
            ref.at[index, self.pixel[:, None], self.channel[None, :]],
            value.astype(ref.dtype),
            mask=self.mask(self.exists),
        )

    def read_channels(self, ref: Any, *index: Any) -> Any:
        """One number for each channel, `[1, C]`."""
        value = plgpu.load(
            ref.at[(*index, self.channel)],
            mask=self.channel_exists,
            other=jnp.zeros((), ref.dtype),
        )
        return value.astype(self.dtype)[None, :]

    def write_sum(self, ref: Any, *index: Any, value: Any) -> None:
        """Write the sum over pixels of `[tile, C]`."""
        total = value.sum(0).astype(ref.dtype)
        plgpu.store(ref.at[(*index, self.channel)], total, mask=self.channel_exists)

    def write_sums(self, ref: Any, place: Any, values: Any, factors: Any) -> None:
        """Write the sums of values, and of their products with factors."""
        self.write_sum(ref, place, self.number, 0, value=values)
        self.write_sum(ref, place, self.number, 1, value=values * factors)

    def _matrix_places(self, ref: Any, index: tuple[Any, ...]) -> tuple[Any, Any]:
        exists, shape = self.channel_exists, (self.channel.size,) * 2
        mask = jnp.broadcast_to(exists[:, None], shape)
        mask = mask & jnp.broadcast_to(exists[None, :], shape)
        return ref.at[(*index, self.channel[:, None], self.channel[None, :])], mask

    def read_matrix(self, ref: Any, *index: Any) -> Any:
        """A matrix `[C, C]`."""
        places, mask = self._matrix_places(ref, index)
        value = plgpu.load(places, mask=mask, other=jnp.zeros((), ref.dtype))
        return value.astype(self.dtype)

    def write_matrix(self, ref: Any, *index: Any, value: Any) -> None:
        """Write a matrix `[C, C]`."""
        places, mask = self._matrix_places(ref, index)
        plgpu.store(places, value.astype(ref.dtype), mask=mask)


class _Edge(NamedTuple):
    """The numbers of an edge, read from `[E, columns]`."""

    numbers: Any
    index: Any

    def get(self, column: int) -> Any:
        """One of its own numbers."""
        return self.numbers[self.index, column]

    def of_layer(self, layer: int, column: int) -> Any:
        """A number of one of its layers."""
        return self.get(layer_column(layer, column))

    def has_layer(self, layer: int) -> Any:
        """Whether it exists and has so many layers and one more."""
        return (self.get(EXISTS) > 0) & (self.get(NUM_LAYERS) > layer)

    def ends_with(self, layer: int) -> Any:
        """Whether this is its last layer."""
        return self.get(NUM_LAYERS) == layer + 1


def _inside(images: Images, row: Any, column: Any) -> Any:
    return (row >= 0) & (row < images.height) & (column >= 0) & (column < images.width)


def _share_inside(images: Images, tile: _Tile) -> Any:
    """What a mean of 9 pixels is multiplied by where some are padding, `[tile, 1]`."""

    def count(place: Any, size: int) -> Any:
        first = jnp.maximum(place * images.stride - 1, 0)
        last = jnp.minimum(place * images.stride + 1, size - 1)
        return (last - first + 1).astype(tile.dtype)

    inside = count(tile.row, images.height) * count(tile.column, images.width)
    return (jnp.full(inside.shape, 9, tile.dtype) / inside)[:, None]


def forward_layer(
    call: Call,
    *,
    layer: int,
    first: Any,
    numbers: Any,
    inputs: Any,
    before: Normal | None,
    taps: Any,
    matrix: Any,
    values: Any,
    sums: Any,
    windows: Any = None,
) -> None:
    """Run a layer up to its normalization, and begin the normalization.

    The first layer reads `inputs` by the edge's source, others `[G, pixels, C]`, which
    are normalized as they are read. Writes `values` `[G, pixels, C]`; the `sums`
    `[G, tiles, 2, C]` of them and of their squares; and for the backward pass `windows`
    `[G, pixels, C]`: what the product is taken of, or the tap that holds a maximum.
    """
    images = call.images
    index, place = call.edge(first)
    edge, tile = _Edge(numbers, index), _Tile.of(images.output, call.dtype)
    of_layer = functools.partial(edge.of_layer, layer)

    @pl.when(edge.has_layer(layer))
    def _run():
        size, dilation, shift = of_layer(SIZE), of_layer(DILATION), of_layer(SHIFT)
        is_max, has_product = of_layer(TAPS) == MAX, of_layer(PRODUCT) > 0
        lowest = jnp.full(tile.shape, -jnp.inf, tile.dtype)
        floor = tile.where(of_layer(RELU) > 0, tile.zeros, lowest)
        source, scale, offset = edge.get(SOURCE), None, None
        if before is not None:
            normalizes = edge.of_layer(layer - 1, NORMALIZES) > 0
            scale, offset = before.affine(tile, place, index, normalizes, call)
            source = place

        def add_tap(tap, carry):
            total, winner = carry
            down, right = (
                (i - size // 2) * dilation + shift for i in (tap // size, tap % size)
            )
            row = tile.row * images.stride + down
            column = tile.column * images.stride + right
            exists = tile.exists & _inside(images, row, column)
            pixel = (tile.image * images.height + row) * images.width + column
            x = tile.read(inputs, source, pixel, exists)
            if before is not None:
                x = x * scale + offset
            x, exists = jnp.maximum(x, floor), tile.mask(exists)
            larger = exists & jnp.broadcast_to(is_max, tile.shape) & (x > total)
            winner = jnp.where(larger, tap.astype(tile.dtype), winner)
            added = x * tile.read_channels(taps, index, tap)
            added = total + jnp.where(exists, added, tile.zeros)
            return tile.where(is_max, jnp.where(larger, x, total), added), winner

        start = tile.where(is_max, lowest, tile.zeros), tile.zeros
        u, winner = lax.fori_loop(0, size * size, add_tap, start)
        share = _share_inside(images, tile)
        u = tile.where(of_layer(TAPS) == MEAN_INSIDE, u * share, u)
        u = jnp.where(tile.mask(tile.exists), u, tile.zeros)
        if windows is not None:

            @pl.when(has_product | is_max)
            def _keep():
                tile.write(windows, place, tile.where(is_max, winner, u))

        v = call.product(u, tile.read_matrix(matrix, index))
        v = tile.where(has_product, v, u)
        tile.write(values, place, v)
        tile.write_sums(sums, place, v, v)


def combine(
    call: Call,
    *,
    first: Any,
    numbers: Any,
    sources: Any,
    layers: list[tuple[Any, Normal]],
    states: Any,
) -> None:
    """Add what the edges of a group yield to the states, `[*, pixels, C]`.

    `layers` are the values `[G, pixels, C]` of each and how they are normalized. An
    edge without layers passes its source on, which is a state if there are no
    `sources`.
    """
    tile, target = _Tile.of(call.images.output, call.dtype), call.state(first)
    arch, first_edge = pl.program_id(2), first[0]
    sources = states if sources is None else sources

    def add_edge(number, total):
        place = arch * call.size + number
        edge = _Edge(numbers, arch * call.num_edges + first_edge + number)
        adds = (edge.get(EXISTS) > 0) & (edge.get(TARGET) == target)
        passes = adds & (edge.get(NUM_LAYERS) == 0)
        total = total + tile.read_if(passes, sources, edge.get(SOURCE))
        for layer, (values, normal) in enumerate(layers):
            ends = adds & edge.ends_with(layer)
            v = tile.read_if(ends, values, place)
            normalizes = edge.of_layer(layer, NORMALIZES) > 0
            scale, offset = normal.affine(tile, place, edge.index, normalizes, call)
            total = total + tile.where(ends, v * scale + offset, tile.zeros)
        return total

    total = lax.fori_loop(0, call.size, add_edge, tile.read(states, target))
    tile.write(states, target, total)


def gather_gradient(
    call: Call,
    *,
    first: Any,
    numbers: Any,
    arriving: Any,
    reached: Any,
    gradient: Any,
) -> None:
    """Add what the edges that read a state or source pass back to its gradient.

    `arriving` `[E, pixels, C]` are the gradients of the edges' inputs; that of an edge
    without layers is the gradient of its target, among `reached`. Without these, the
    gradients are those of states: they contain the targets' and what did not come by
    edges.
    """
    tile, state = _Tile.of(call.images, call.dtype), call.state(first)
    total = tile.read(gradient, state) if reached is None else tile.zeros
    reached = gradient if reached is None else reached
    arch = pl.program_id(2)

    def add_edge(number, total):
        edge = _Edge(numbers, arch * call.num_edges + number)
        adds = (edge.get(EXISTS) > 0) & (edge.get(SOURCE) == state)
        has_layers = edge.get(NUM_LAYERS) > 0
        total = total + tile.read_if(adds & has_layers, arriving, edge.index)
        passes = adds & (edge.get(NUM_LAYERS) == 0)
        return total + tile.read_if(passes, reached, edge.get(TARGET))

    total = lax.fori_loop(0, call.num_edges, add_edge, total)
    tile.write(gradient, state, total)


def sum_gradients(
    call: Call,
    *,
    first: Any,
    numbers: Any,
    gradient: Any,
    layers: list[tuple[Any, Normal]],
    sums: Any,
) -> None:
    """Sum the gradients of what edges yield, for their last normalizations.

    `layers` are the values `[E, pixels, C]` of each and how they are normalized. Writes
    the sums `[G, tiles, 2, C]` of the gradients and of their products with the
    normalized values.
    """
    index, place = call.edge(first)
    edge, tile = _Edge(numbers, index), _Tile.of(call.images.output, call.dtype)

    @pl.when(edge.has_layer(0))
    def _run():
        g = tile.read(gradient, edge.get(TARGET))
        normalized = tile.zeros
        for layer, (values, normal) in enumerate(layers):
            v = tile.read_if(edge.ends_with(layer), values, index)
            factor, offset = normal.standard(tile, index, call)
            v = v * factor + offset
            normalized = tile.where(edge.ends_with(layer), v, normalized)
        tile.write_sums(sums, place, g, normalized)


def product_backward(
    call: Call,
    *,
    layer: int,
    first: Any,
    numbers: Any,
    gradient: Any,
    last_sums: Any,
    inner: Any,
    inner_sums: Any,
    values: Any,
    normal: Normal,
    windows: Any,
    matrix: Any,
    matrix_sums: Any,
    window_gradient: Any,
) -> None:
    """Go back through a normalization, a product and the mean of what is inside.

    The gradient of the layer's result is that of the edge's target, if the layer is the
    edge's last, and `inner` `[G, pixels, C]` otherwise. The sums `[G, 2, C]` are those
    of the gradient and of its product with the normalized values. Writes the sums
    over pixels of the gradient of the matrix, `[E, tiles, C, C]`, and the gradient of
    the windows, `[G, pixels, C]`.
    """
    index, place = call.edge(first)
    edge, tile = _Edge(numbers, index), _Tile.of(call.images.output, call.dtype)

    @pl.when(edge.has_layer(layer))
    def _run():
        is_last = edge.ends_with(layer)
        g = tile.read_if(is_last, gradient, edge.get(TARGET))
        mean, slope = call.means(tile, last_sums, place)
        if inner is not None:
            g = g + tile.read_if(~is_last, inner, place)
            of_inner = call.means(tile, inner_sums, place)
            is_last = jnp.broadcast_to(is_last, mean.shape)
            mean = jnp.where(is_last, mean, of_inner[0])
            slope = jnp.where(is_last, slope, of_inner[1])
        factor, offset = normal.standard(tile, index, call)
        v = tile.read_if(edge.of_layer(layer, NORMALIZES) > 0, values, index)
        through = factor * normal.learned_scale(tile, index)
        through = through * (g - mean - (v * factor + offset) * slope)
        g = tile.where(edge.of_layer(layer, NORMALIZES) > 0, through, g)
        g = jnp.where(tile.mask(tile.exists), g, tile.zeros)
        has_product = edge.of_layer(layer, PRODUCT) > 0
        is_mean = edge.of_layer(layer, TAPS) == MEAN_INSIDE
        pooled = tile.where(is_mean, g * _share_inside(call.images, tile), g)
        du = call.product(g, tile.read_matrix(matrix, index).T)
        tile.write(window_gradient, place, tile.where(has_product, du, pooled))

        @pl.when(has_product)
        def _sum():
            total = call.product(tile.read(windows, index).T, g)
            tile.write_matrix(matrix_sums, index, tile.number, value=total)


def window_backward(
    call: Call,
    *,
    layer: int,
    first: Any,
    numbers: Any,
    inputs: Any,
    before: Normal | None,
    window_gradient: Any,
    windows: Any,
    taps: Any,
    input_gradient: Any,
    taps_sums: Any = None,
    sums: Any = None,
) -> None:
    """Go back through the taps and the ReLU of a layer.

    Writes the gradient of the layer's input, `[E, pixels, C]` for the first layer and
    `[G, pixels, C]` for others, for which `sums` `[G, tiles, 2, C]` begin the way
    through the normalization before; and the sums over pixels of the gradient of the
    taps, `[E, tiles, taps, C]`.
    """
    images, written = call.images, call.images.output
    index, place = call.edge(first)
    edge, tile = _Edge(numbers, index), _Tile.of(images, call.dtype)
    of_layer = functools.partial(edge.of_layer, layer)

    @pl.when(edge.has_layer(layer))
    def _run():
        size, dilation, shift = of_layer(SIZE), of_layer(DILATION), of_layer(SHIFT)
        is_max, relu = of_layer(TAPS) == MAX, of_layer(RELU) > 0
        if before is None:
            x = v = tile.read(inputs, edge.get(SOURCE))
        else:
            v = tile.read(inputs, index)
            normalizes = edge.of_layer(layer - 1, NORMALIZES) > 0
            scale, offset = before.affine(tile, index, index, normalizes, call)
            x = v * scale + offset
        x = jnp.where(tile.mask(tile.exists), x, tile.zeros)
        z = tile.where(relu, jnp.maximum(x, tile.zeros), x)

        def add_tap(tap, total):
            down, right = (
                seen - (i - size // 2) * dilation - shift
                for seen, i in ((tile.row, tap // size), (tile.column, tap % size))
            )
            # The output pixel that sees this one through the tap, if there is one.
            row, column = down // images.stride, right // images.stride
            exists = tile.exists & _inside(written, row, column)
            exists = exists & (down == row * images.stride)
            exists = exists & (right == column * images.stride)
            pixel = (tile.image * written.height + row) * written.width + column
            g = tile.read(window_gradient, place, pixel, exists)
            chosen = exists & jnp.broadcast_to(is_max, exists.shape)
            won = tile.read(windows, index, pixel, chosen) == tap.astype(tile.dtype)
            if taps_sums is not None:
                tile.write_sum(taps_sums, index, tile.number, tap, value=z * g)
            weighted = g * tile.read_channels(taps, index, tap)
            return total + tile.where(is_max, jnp.where(won, g, tile.zeros), weighted)

        total = lax.fori_loop(0, size * size, add_tap, tile.zeros)
        off = jnp.broadcast_to(relu, tile.shape) & ~(x > tile.zeros)
        total = jnp.where(off, tile.zeros, total)
        tile.write(input_gradient, index if before is None else place, total)
        if before is not None:
            factor, offset = before.standard(tile, index, call)
            tile.write_sums(sums, place, total, v * factor + offset)
