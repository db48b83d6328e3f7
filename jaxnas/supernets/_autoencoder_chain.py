"""The forward and the backward pass of a traced chain and its mirror image.

How many nodes a chain has, which weights they use, how many channels and how many
pixels they have, all is data. What is computed is yet only that of the chain: every
loop runs as often as the chain says.

Feature maps stand one after the other in one array of pixels, the arena `[pixels, c]`.
One of more than c channels is several blocks of pixels, so that one of few channels
takes no more than it needs, and a convolution is a loop over pairs of blocks. A chain
goes through the levels, heights and widths of feature maps, in order; each has loops of
its own, whose shapes are static.

Derivatives are written by hand: a loop of traced length has none, and here gradients of
feature maps take the place of these, and gradients of weights are written in place.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.supernets import _block_convs
from jaxnas.types import Weights

# What stays in the cache of a processor while it is worked on.
_BYTES_OF_PIXELS = 2**20


# Without code for negative indices, which would be most of the program.
_slice = functools.partial(lax.dynamic_slice, allow_negative_indices=False)
_update = functools.partial(lax.dynamic_update_slice, allow_negative_indices=False)


class Chain(NamedTuple):
    """The nodes of a chain, the one that reads the image first, and others after them.

    Attributes:
      row: int32 `[max_nodes]`, row of the weights of each node.
      kernel: int32 `[max_nodes]`, index of its kernel's size.
      channels: int32 `[max_nodes]`.
      skip: int32 `[max_nodes]`, 1 for a node of stride 1 with a skip, 0 for stride 2.
      length: int32 scalar, the number of nodes, at least 1.
    """

    row: jax.Array
    kernel: jax.Array
    channels: jax.Array
    skip: jax.Array
    length: jax.Array


class _Map(NamedTuple):
    """Blocks of a feature map.

    Attributes:
      pixels: `[num_pixels, c]`, the arena or an image.
      start: int32 scalar, its first pixel.
      blocks: int32 scalar, their number.
    """

    pixels: jax.Array
    start: Any
    blocks: Any


class _Layer(NamedTuple):
    """A convolution from a large feature map to a small one, or its transpose.

    Attributes:
      weights: `[rows, taps, C, D]`, C channels of the large map and D of the small one.
      row: int32 scalar.
      first_tap: int32 scalar, where the kernel begins.
      size: int32 scalar, height and width of the kernel.
      stride: 1 or 2.
      large: `(batch, height, width, c)`, shape of a block of the large map.
      small: the same of the small map.
    """

    weights: jax.Array
    row: Any
    first_tap: Any
    size: Any
    stride: int
    large: tuple[int, ...]
    small: tuple[int, ...]

    def starts(self, tap: Any, i: Any, j: Any) -> tuple[jax.Array, ...]:
        """Where the weights of a tap between two blocks begin."""
        first = self.first_tap + tap
        starts = self.row, first, i * self.large[-1], j * self.small[-1]
        return tuple(jnp.asarray(start, jnp.int32) for start in starts)

    def kernel(self, i: Any, j: Any) -> _block_convs.Kernel:
        """The kernel between two blocks."""
        sides = self.large[-1], self.small[-1]

        def of_tap(tap: Any) -> jax.Array:
            starts = self.starts(tap, i, j)
            return _slice(self.weights, starts, (1, 1, *sides))[0, 0]

        return of_tap

    @property
    def num_chunks(self) -> int:
        """The number of equal parts of a batch whose pixels stay in the cache."""
        batch, height, width, _ = self.small
        channels = max(self.large[-1], self.small[-1])
        image = height * width * channels * self.weights.dtype.itemsize
        least = min(max(batch * image // _BYTES_OF_PIXELS, 1), batch)
        return next(n for n in range(least, batch + 1) if batch % n == 0)


def _pixels(shape: tuple[int, ...]) -> int:
    batch, height, width, _ = shape
    return batch * height * width


def _read(
    source: _Map,
    block: Any,
    shape: tuple[int, ...],
    chunk: Any = 0,
    num_chunks: int = 1,
) -> jax.Array:
    """One chunk of the batch of a block, `[batch / num_chunks, height, width, c]`."""
    batch, *sides = shape
    size = _pixels(shape) // num_chunks
    start = source.start + block * _pixels(shape) + chunk * size
    zero = jnp.zeros((), jnp.int32)
    pixels = _slice(source.pixels, (start, zero), (size, shape[-1]))
    return pixels.reshape(batch // num_chunks, *sides)


def _write(target: _Map, block: Any, value: jax.Array) -> jax.Array:
    """The pixels of a map with those of one block replaced."""
    start = target.start + block * _pixels(value.shape)
    zero = jnp.zeros((), jnp.int32)
    return _update(target.pixels, value.reshape(-1, value.shape[-1]), (start, zero))


def _sum_blocks(
    layer: _Layer,
    source: _Map,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    product: Callable[[jax.Array, Any], jax.Array],
) -> jax.Array:
    """A block of a map as the sum over products of the blocks of another."""
    before, after = shapes
    num = layer.num_chunks

    def of_chunk(chunk):
        def add(block, total):
            return total + product(_read(source, block, before, chunk, num), block)

        zeros = jnp.zeros((after[0] // num, *after[1:]), layer.weights.dtype)
        return lax.fori_loop(0, source.blocks, add, zeros)

    if num == 1:
        return of_chunk(0)
    chunks = lax.map(of_chunk, jnp.arange(num, dtype=jnp.int32))
    return chunks.reshape(after)


def _conv(layer: _Layer, large: _Map, j: Any) -> jax.Array:
    """A block of the small map."""

    def product(x, i):
        return _block_convs.conv(x, layer.kernel(i, j), layer.size, layer.stride)

    return _sum_blocks(layer, large, (layer.large, layer.small), product)


def _transposed_conv(layer: _Layer, small: _Map, i: Any) -> jax.Array:
    """A block of the large map."""

    def product(y, j):
        kernel = layer.kernel(i, j)
        return _block_convs.transposed_conv(y, kernel, layer.size, layer.stride)

    return _sum_blocks(layer, small, (layer.small, layer.large), product)


def _write_gradient(
    layer: _Layer, large: _Map, small: _Map, gradient: jax.Array
) -> jax.Array:
    """The gradient of the weights, with that of a layer's kernel written into it.

    A chain uses a row of weights once, so that zeros may be written after the kernel.
    """
    num = layer.num_chunks
    room = min(layer.weights.shape[1], _block_convs.MAX_TAPS)

    def of_blocks(i, j):
        def add(chunk, total):
            x = _read(large, i, layer.large, chunk, num)
            y = _read(small, j, layer.small, chunk, num)
            return total + _block_convs.kernel_gradient(x, y, layer.size, layer.stride)

        channels = layer.large[-1], layer.small[-1]
        zeros = jnp.zeros((_block_convs.MAX_TAPS, *channels), layer.weights.dtype)
        return lax.fori_loop(0, num, add, zeros)

    def of_row(i, gradient):
        def write(j, gradient):
            taps = of_blocks(i, j)[None, :room]
            return _update(gradient, taps, layer.starts(0, i, j))

        return lax.fori_loop(0, small.blocks, write, gradient)

    return lax.fori_loop(0, large.blocks, of_row, gradient)


class _Node(NamedTuple):
    """Where everything of a node is, int32 `[max_nodes]`, or scalars of one node.

    Attributes:
      row: row of its weights.
      first_tap: where its kernel begins.
      size: height and width of the kernel.
      channels: of its outputs.
      skip: 1 for a node of stride 1 with a skip, 0 for stride 2.
      blocks: of its outputs.
      encoder: pixel where its output in the encoder begins.
      decoder: pixel where its output in the decoder begins.
      source: where its input in the encoder begins, unless that is an image.
      source_blocks: blocks of this input.
      source_skip: `skip` of the node before.
      source_decoder: where the output of the node before in the decoder begins.
      code: where its input in the decoder begins.
      code_blocks: blocks of this input.
      is_last: 1 for the last node of the chain.
    """

    row: jax.Array
    first_tap: jax.Array
    size: jax.Array
    channels: jax.Array
    skip: jax.Array
    blocks: jax.Array
    encoder: jax.Array
    decoder: jax.Array
    source: jax.Array
    source_blocks: jax.Array
    source_skip: jax.Array
    source_decoder: jax.Array
    code: jax.Array
    code_blocks: jax.Array
    is_last: jax.Array


class _Layout(NamedTuple):
    """Where everything of a chain is.

    Attributes:
      nodes: int32 `[max_nodes, fields of _Node]`.
      starts: int32 `[num_levels + 1]`, the first node that reads each level.
      ends: int32 `[num_levels]`, the node of stride 2 that reads the level.
    """

    nodes: jax.Array
    starts: jax.Array
    ends: jax.Array

    def node(self, i: Any) -> _Node:
        zero = jnp.zeros((), jnp.int32)
        start = jnp.asarray(i, jnp.int32), zero
        fields = _slice(self.nodes, start, (1, self.nodes.shape[1]))
        return _Node(*(fields[0, field] for field in range(fields.shape[1])))


def sides_of_levels(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of images, and all that halving both leads to."""
    sides = [(height, width)]
    while height % 2 == 0 and width % 2 == 0:
        height, width = height // 2, width // 2
        sides.append((height, width))
    return sides


def run(
    weights: Weights,
    chain: Chain,
    images: jax.Array,
    *,
    sizes: tuple[int, ...],
    block: int,
) -> jax.Array:
    """Encode and decode images.

    Args:
      weights: `encoder` and `decoder`, `[rows, taps, max_channels, max_channels]`, and
        `output`, `[9, image_channels, max_channels]`, all with the channels of the
        larger feature map first. Chains of one program may use a row for one node only.
      chain: nodes, of which those of stride 2 all find even height and width.
      images: `[B, H, W, image_channels]`, H and W even.
      sizes: ascending sizes of kernels, whose taps stand one after the other.
      block: channels of a block, a divisor of `max_channels`.

    Returns:
      Images of the same shape.
    """
    max_blocks = weights["encoder"].shape[-1] // block
    program = _Program(sizes, block, max_blocks, images.shape, chain.row.shape[0])

    def evaluate(weights: Weights, images: jax.Array, chain: Chain) -> jax.Array:
        return program.forward(weights, images, chain, keeps_all=False)[0]

    def forward(weights: Weights, images: jax.Array, chain: Chain) -> Any:
        outputs, arena = program.forward(weights, images, chain, keeps_all=True)
        return outputs, (arena, weights, images, chain)

    def backward(residuals: Any, gradient: jax.Array) -> Any:
        arena, weights, images, chain = residuals
        return (*program.backward(arena, weights, images, chain, gradient), None)

    evaluate_chain = jax.custom_vjp(evaluate)
    evaluate_chain.defvjp(forward, backward)
    return evaluate_chain(weights, images, chain)


class _Program:
    """Both passes over images of one shape, for chains of at most so many nodes."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        block: int,
        max_blocks: int,
        images: tuple[int, ...],
        max_nodes: int,
    ):
        self.sizes, self.max_blocks, self.max_nodes = sizes, max_blocks, max_nodes
        self.images = images
        batch, height, width, _ = images
        self.shapes = [
            (batch, *sides, block) for sides in sides_of_levels(height, width)
        ]

    def layout(self, chain: Chain, *, keeps_all: bool) -> _Layout:
        """Where everything is; decoders may do with room for two feature maps."""
        index = jnp.arange(self.max_nodes, dtype=jnp.int32)
        exists = index < chain.length
        halves = (exists & (chain.skip == 0)).astype(jnp.int32)
        after = jnp.cumsum(halves, dtype=jnp.int32)
        before = after - halves
        levels = jnp.arange(len(self.shapes) + 1, dtype=jnp.int32)[:, None]
        is_above = exists[None] & (before[None] < levels)
        stays = exists[None] & (before[None] == levels) & (halves[None] == 0)
        starts = is_above.sum(1, dtype=jnp.int32)
        ends = starts + stays.sum(1, dtype=jnp.int32)

        blocks = (chain.channels - 1) // self.shapes[0][-1] + 1
        pixels = jnp.asarray([_pixels(shape) for shape in self.shapes], jnp.int32)
        sizes = jnp.where(exists, blocks * pixels[after], 0)
        encoder = jnp.cumsum(sizes, dtype=jnp.int32) - sizes
        if keeps_all:
            sizes_up = jnp.where(exists, blocks * pixels[before], 0)
            decoder = jnp.cumsum(sizes_up, dtype=jnp.int32) - sizes_up
            decoder += sizes.sum(dtype=jnp.int32)
        else:
            largest = self.max_blocks * _pixels(self.shapes[0])
            decoder = (self.max_nodes + index % 2) * largest

        taps = np.square(self.sizes)
        first_taps = jnp.asarray(np.cumsum(taps) - taps, jnp.int32)
        is_last = index + 1 == chain.length
        nodes = _Node(
            chain.row,
            first_taps[chain.kernel],
            jnp.asarray(self.sizes, jnp.int32)[chain.kernel],
            chain.channels,
            chain.skip,
            blocks,
            encoder,
            decoder,
            source=jnp.roll(encoder, 1),
            source_blocks=jnp.roll(blocks, 1),
            source_skip=jnp.roll(chain.skip, 1),
            source_decoder=jnp.roll(decoder, 1),
            code=jnp.where(is_last, encoder, jnp.roll(decoder, -1)),
            code_blocks=jnp.where(is_last, blocks, jnp.roll(blocks, -1)),
            is_last=is_last.astype(jnp.int32),
        )
        return _Layout(jnp.stack(nodes, axis=1), starts, ends[:-1])

    def layer(self, weights: jax.Array, node: _Node, at: tuple[int, int]) -> _Layer:
        """The convolution of a node that is not the first, at its level and stride."""
        level, stride = at
        large, small = self.shapes[level], self.shapes[level + stride - 1]
        return _Layer(
            weights, node.row, node.first_tap, node.size, stride, large, small
        )

    def output(self, weights: jax.Array) -> _Layer:
        """The convolution whose transpose makes the images."""
        small = self.shapes[0]
        size = jnp.asarray(3, jnp.int32)
        return _Layer(weights[None], 0, 0, size, 1, self.images, small)

    def image_map(self, images: jax.Array) -> _Map:
        zero = jnp.zeros((), jnp.int32)
        return _Map(images.reshape(-1, images.shape[-1]), zero, zero + 1)

    def along(
        self,
        place: _Layout,
        step: Callable[[tuple[int, int], _Node, Any], Any],
        carry: Any,
        *,
        first: Callable[[tuple[int, int], _Node, Any], Any] | None = None,
        backwards: bool = False,
    ) -> Any:
        """Go through all nodes in order.

        Args:
          place: the layout.
          step: `((level, stride), node, carry) -> carry`.
          carry: what the steps hand on.
          first: the step of the first node, if another one.
          backwards: begin with the last node.

        Returns:
          The last carry.
        """
        last = len(self.shapes) - 1
        # Stride, level and nodes of each loop.
        loops: list[tuple[Any, tuple[int, int], Any, Any]] = []
        for level in range(last + 1):
            start, end = place.starts[level], place.ends[level]
            stops = [(1, start, end)]
            if level < last:
                stops.append((2, end, place.starts[level + 1]))
            for stride, low, high in stops:
                if level == 0 and first is not None:
                    one = jnp.ones((), jnp.int32)
                    until = jnp.where(low == 0, jnp.minimum(high, one), low)
                    loops.append((first, (level, stride), low, until))
                    low = until
                loops.append((step, (level, stride), low, high))
        for do, at, low, high in reversed(loops) if backwards else loops:

            def body(k, carry, do=do, at=at, low=low, high=high):
                i = low + high - 1 - k if backwards else k
                return do(at, place.node(i), carry)

            carry = lax.fori_loop(low, high, body, carry)
        return carry

    def activate(self, x: jax.Array, node: _Node, block: Any) -> jax.Array:
        """ReLU; zeros beyond the node's channels."""
        channel = block * x.shape[-1] + jnp.arange(x.shape[-1], dtype=jnp.int32)
        exists = channel < node.channels
        zero = jnp.zeros((), x.dtype)
        return jnp.where(exists[None, None, None], jnp.maximum(x, zero), zero)

    def forward(
        self, weights: Weights, images: jax.Array, chain: Chain, *, keeps_all: bool
    ) -> tuple[jax.Array, jax.Array]:
        """The outputs, and the arena; only with all feature maps it has derivatives."""
        place = self.layout(chain, keeps_all=keeps_all)
        num_maps = 2 * self.max_nodes if keeps_all else self.max_nodes + 2
        num_pixels = num_maps * self.max_blocks * _pixels(self.shapes[0])
        arena = jnp.zeros((num_pixels, self.shapes[0][-1]), images.dtype)

        def encode(layer, node, source, arena):
            def write(j, arena):
                x = self.activate(_conv(layer, source(arena), j), node, j)
                return _write(_Map(arena, node.encoder, node.blocks), j, x)

            return lax.fori_loop(0, node.blocks, write, arena)

        def encode_first(at, node, arena):
            layer = self.layer(weights["encoder"], node, at)
            layer = layer._replace(large=self.images)
            return encode(layer, node, lambda arena: self.image_map(images), arena)

        def encode_node(at, node, arena):
            layer = self.layer(weights["encoder"], node, at)

            def source(arena):
                return _Map(arena, node.source, node.source_blocks)

            return encode(layer, node, source, arena)

        def decode_node(at, node, arena):
            layer = self.layer(weights["decoder"], node, at)

            def write(j, arena):
                code = _Map(arena, node.code, node.code_blocks)
                x = _transposed_conv(layer, code, j)
                if at[1] == 1:
                    encoded = _Map(arena, node.encoder, node.blocks)
                    x += _read(encoded, j, layer.large)
                x = self.activate(x, node, j)
                return _write(_Map(arena, node.decoder, node.blocks), j, x)

            return lax.fori_loop(0, node.blocks, write, arena)

        arena = self.along(place, encode_node, arena, first=encode_first)
        arena = self.along(place, decode_node, arena, backwards=True)
        layer, node = self.output(weights["output"]), place.node(0)
        decoded = _Map(arena, node.decoder, node.blocks)
        return _transposed_conv(layer, decoded, 0), arena

    def backward(
        self,
        arena: jax.Array,
        weights: Weights,
        images: jax.Array,
        chain: Chain,
        gradient: jax.Array,
    ) -> tuple[Weights, jax.Array]:
        """Gradients of the weights and images.

        Gradients of feature maps, before their ReLUs, take the place of these.
        """
        place = self.layout(chain, keeps_all=True)
        image_map = self.image_map(images)
        zero = jnp.zeros((), images.dtype)

        def replace(start, blocks, shape, pull_back, arena):
            """Write the gradient of a map, given a block of it after the ReLU."""

            def write(j, arena):
                here = _Map(arena, start, blocks)
                is_positive = _read(here, j, shape) > zero
                return _write(
                    here, j, jnp.where(is_positive, pull_back(arena, j), zero)
                )

            return lax.fori_loop(0, blocks, write, arena)

        def through_output(carry):
            gradients, arena = carry
            layer, node = self.output(weights["output"]), place.node(0)
            outer = self.image_map(gradient)
            inner = _Map(arena, node.decoder, node.blocks)
            total = _write_gradient(layer, outer, inner, gradients["output"][None])

            def pull_back(arena, j):
                return _conv(layer, outer, j)

            arena = replace(node.decoder, node.blocks, layer.small, pull_back, arena)
            return gradients | {"output": total[0]}, arena

        def through_decoder(at, node, carry):
            gradients, arena = carry
            layer = self.layer(weights["decoder"], node, at)
            outer = _Map(arena, node.decoder, node.blocks)
            inner = _Map(arena, node.code, node.code_blocks)
            total = _write_gradient(layer, outer, inner, gradients["decoder"])

            def pull_back(arena, j):
                outer = _Map(arena, node.decoder, node.blocks)
                x = _conv(layer, outer, j)
                if at[1] == 1:  # the last node hands itself its skip
                    skipped = _read(outer, j, layer.large)
                    x += jnp.where(node.is_last == 1, skipped, zero)
                return x

            arena = replace(node.code, node.code_blocks, layer.small, pull_back, arena)
            return gradients | {"decoder": total}, arena

        def through_encoder(at, node, carry):
            gradients, arena = carry
            layer = self.layer(weights["encoder"], node, at)
            outer = _Map(arena, node.source, node.source_blocks)
            inner = _Map(arena, node.encoder, node.blocks)
            total = _write_gradient(layer, outer, inner, gradients["encoder"])

            def pull_back(arena, j):
                inner = _Map(arena, node.encoder, node.blocks)
                decoded = _Map(arena, node.source_decoder, node.source_blocks)
                skipped = _read(decoded, j, layer.large)
                x = _transposed_conv(layer, inner, j)
                return x + jnp.where(node.source_skip == 1, skipped, zero)

            start, blocks = node.source, node.source_blocks
            arena = replace(start, blocks, layer.large, pull_back, arena)
            return gradients | {"encoder": total}, arena

        def through_first(at, node, carry):
            gradients, arena = carry
            layer = self.layer(weights["encoder"], node, at)
            layer = layer._replace(large=self.images)
            inner = _Map(arena, node.encoder, node.blocks)
            total = _write_gradient(layer, image_map, inner, gradients["encoder"])
            return gradients | {"encoder": total}, arena

        def to_images(stride, node, total):
            layer = self.layer(weights["encoder"], node, (0, stride))
            layer = layer._replace(large=self.images)
            inner = _Map(arena, node.encoder, node.blocks)
            is_chosen = (node.skip == 2 - stride).astype(jnp.int32)
            return lax.fori_loop(
                0, is_chosen, lambda _, x: _transposed_conv(layer, inner, 0), total
            )

        carry = jax.tree.map(jnp.zeros_like, weights), arena
        carry = self.along(place, through_decoder, through_output(carry))
        gradients, arena = self.along(
            place, through_encoder, carry, first=through_first, backwards=True
        )
        # Apart from the rest, so that it is left out where it is not needed.
        image_gradient = jnp.zeros_like(images)
        for stride in (1, 2):
            image_gradient = to_images(stride, place.node(0), image_gradient)
        return gradients, image_gradient
