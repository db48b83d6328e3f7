"""The network with exits that is trained from scratch."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas import genotypes, ops
from jaxnas._checks import check_sizes
from jaxnas.genotypes import AnytimeGenotype, DagGenotype
from jaxnas.networks import _counts, files, layers
from jaxnas.networks.layers import (
    Classifier,
    ConvNorm,
    Initializer,
    NewNorm,
    PointwiseNorm,
)
from jaxnas.networks.size import count_params


class _Node(nn.Module):
    """A node: a bottleneck of its concatenated inputs, and its operation."""

    op: str
    channels: int
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(self, inputs: list[jax.Array]) -> jax.Array:
        """Images `[B, H, W, C]` of one scale to `[B, H, W, channels]`."""
        bottleneck = PointwiseNorm(
            self.channels, self.new_norm, self.initializer, name="bottleneck"
        )
        x = jax.nn.relu(bottleneck(jnp.concatenate(inputs, axis=-1)))
        if self.op == "max_pool_3x3":
            y = self.new_norm()(ops.max_pool_3x3(x))
        elif self.op == "avg_pool_3x3":
            y = self.new_norm()(ops.avg_pool_3x3(x))
        elif self.op == "conv_1x1":
            y = PointwiseNorm(
                self.channels, self.new_norm, self.initializer, name=self.op
            )(x)
        else:
            size = int(self.op[-1])
            conv = ConvNorm(
                self.channels, size, self.new_norm, self.initializer, name=self.op
            )
            y = conv(x)
        return jax.nn.relu(y)


class AnytimeNetwork(nn.Module):
    """A network with exits; made by `anytime`, which documents it."""

    genotype: AnytimeGenotype
    channels: int
    num_classes: int
    num_exits: int | None
    batch_axis: str | None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Return the logits of the exits, `[num_exits, B, num_classes]`."""
        if images.ndim != 4 or images.shape[1] % 4 or images.shape[2] % 4:
            raise ValueError(
                f"images have shape {images.shape}; expected [B, H, W, C], image "
                "height and width must be divisible by 4"
            )
        new_norm = layers.batch_norm(train=train, batch_axis=self.batch_axis)
        widths = [self.channels << block for block in range(genotypes.ANYTIME_BLOCKS)]
        stem = ConvNorm(self.channels, 3, new_norm, ops.init, name="stem")
        stem_image = jax.nn.relu(stem(images))

        # Nodes are computed when they are first read, so that what no exit needs is
        # not made; block -1 is the stem.

        @functools.cache
        def output(block: int, node: int) -> jax.Array:
            if block < 0:
                return stem_image
            width = widths[block]
            if node >= 2:
                op = self.genotype.ops[block][node - 2]
                scale = self.genotype.scales[block][node - 2]
                read = self.genotype.inputs[block][node - 2]
                module = _Node(
                    op, width, new_norm, ops.init, name=f"block_{block}_node_{node}"
                )
                return module([resampled(block, other, scale) for other in read])
            source = max(block - 1 - node, -1)
            read = _leaves(self.genotype, source)
            inputs = [resampled(source, leaf, block) for leaf in read]
            bottleneck = PointwiseNorm(
                width, new_norm, ops.init, name=f"block_{block}_input_{node}"
            )
            return jax.nn.relu(bottleneck(jnp.concatenate(inputs, axis=-1)))

        @functools.cache
        def resampled(block: int, node: int, scale: int) -> jax.Array:
            if block >= 0 and node >= 2:
                own = self.genotype.scales[block][node - 2]
            else:
                own = max(block, 0)
            if scale > own:
                return ops.downsample(resampled(block, node, scale - 1))
            if scale < own:
                return ops.upsample(resampled(block, node, scale + 1))
            return output(block, node)

        logits = [
            Classifier(self.num_classes, True, 0.0, ops.init, name=f"exit_{i}")(
                output(*place), train=train
            )
            for i, place in enumerate(_exits(self.genotype)[: self.num_exits])
        ]
        return jnp.stack(logits)


def _exits(genotype: AnytimeGenotype) -> list[tuple[int, int]]:
    """Block and node of each exit, in order."""
    return [
        (block, node) for block, nodes in enumerate(genotype.exits) for node in nodes
    ]


@count_params.register
def _(network: AnytimeNetwork, image_shape: tuple[int, int, int]) -> int:
    genotype = network.genotype
    total = _counts.conv_norm(3, image_shape[-1], network.channels)
    exits = _exits(genotype)[: network.num_exits]
    counted = {(-1, 0)}  # the stem
    needed = list(exits)
    while needed:
        block, node = needed.pop()
        if (block, node) in counted:
            continue
        counted.add((block, node))
        channels = network.channels << block
        if node >= 2:
            read = [(block, other) for other in genotype.inputs[block][node - 2]]
            op = genotype.ops[block][node - 2]
            total += _counts.pointwise_norm(len(read) * channels, channels)
            if op.startswith("conv"):
                total += _counts.conv_norm(int(op[-1]), channels, channels)
            else:
                total += _counts.norm(channels)
        else:
            source = max(block - 1 - node, -1)
            read = [(source, leaf) for leaf in _leaves(genotype, source)]
            channels_in = len(read) * (network.channels << max(source, 0))
            total += _counts.pointwise_norm(channels_in, channels)
        needed += read
    for block, _ in exits:
        channels = network.channels << block
        total += _counts.classifier(channels, network.num_classes, bias=True)
    return total


def _leaves(genotype: AnytimeGenotype, block: int) -> tuple[int, ...]:
    """Leaves of a block; block -1 is the stem, whose only node is its only leaf."""
    if block < 0:
        return (0,)
    graph = DagGenotype(genotype.ops[block], genotype.inputs[block])
    return genotypes.dag_leaves(graph)


def anytime(
    genotype: AnytimeGenotype,
    channels: int = 16,
    num_classes: int = 10,
    *,
    num_exits: int | None = None,
    batch_axis: str | None = None,
) -> AnytimeNetwork:
    """Make the network of three blocks with exits, for training from scratch.

    The function of `supernets.anytime` for one architecture, with a learned scale and
    offset after each normalization, and with running statistics in evaluation, so that
    an image's logits do not depend on the images beside it.

    A stem (3x3 convolution, normalization, ReLU) and three blocks, each with twice the
    channels of the one before. A node resamples its inputs to its own scale (averages
    of 2x2 or 4x4 pixels down, repeated pixels up), concatenates them, and applies a
    bottleneck (1x1 convolution) and its operation, each followed by normalization and
    ReLU. Nodes 0 and 1 of a block are bottlenecks of the leaves of the two blocks
    before it, at the finest scale of the block; of the stem where there is no such
    block. An exit averages its node over all pixels and applies a linear classifier.
    What no exit needs is not made.

    Source: Zhang et al. 2019, section on anytime prediction and appendix; what the
    paper leaves open is as in `supernets.anytime`.

    Args:
      genotype: the three blocks.
      channels: channels of the first block.
      num_classes: size of the output.
      num_exits: how many exits to compute, from the first on; all of them if `None`.
        Only what these need is computed: `network.clone(num_exits=1)` answers soonest,
        with the same variables. `analysis.exit_costs` tells what each one costs.
      batch_axis: mapped axis over which the batch is sharded, if any; statistics of
        training batches are then taken over the whole batch.

    Returns:
      A Flax module over float images `[B, H, W, C]`, height and width divisible by 4,
      with collections `params` and `batch_stats`. It returns the logits
      `[num_exits, B, num_classes]` of all exits, in the order of the nodes they are at
      and hence of what it costs to get there.

    Raises:
      ValueError: if the genotype is malformed or a number is out of range.
    """
    genotype = genotypes.check_anytime(genotype)
    check_sizes(channels=channels, num_classes=num_classes)
    most = len(_exits(genotype))
    if num_exits is not None and not 1 <= num_exits <= most:
        raise ValueError(f"num_exits is {num_exits}; expected 1 to {most}")
    return AnytimeNetwork(genotype, channels, num_classes, num_exits, batch_axis)


files.register("anytime", AnytimeNetwork, anytime)
