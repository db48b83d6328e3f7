"""The network of blocks of any graph that is trained from scratch."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas import genotypes, ops
from jaxnas._checks import check_dropout, check_sizes
from jaxnas.genotypes import DagGenotype
from jaxnas.networks import _counts, files, layers
from jaxnas.networks.layers import (
    AuxiliaryHead,
    Classifier,
    ConvNorm,
    Initializer,
    NewNorm,
    PointwiseNorm,
)
from jaxnas.networks.size import count_params

DagSkeleton = Literal["cifar", "imagenet"]
NodeInput = Literal["joint", "each", "sum"]


class _Block(nn.Module):
    """A block: its inputs, each made of one earlier output, its nodes, its leaves."""

    genotype: DagGenotype
    channels: int
    strides: tuple[int, int]
    node_input: NodeInput
    separately: bool
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(
        self, outputs: tuple[jax.Array, jax.Array], drop_path_prob: jax.Array | None
    ) -> jax.Array:
        """Compute the output from those of the blocks i-1 and i-2."""
        primitives = ops.primitives()
        read = {source for inputs in self.genotype.inputs for source in inputs}
        states: dict[int, jax.Array] = {}
        for node, (x, stride) in enumerate(zip(outputs, self.strides, strict=True)):
            if node in read:
                bottleneck = PointwiseNorm(
                    self.channels, self.new_norm, self.initializer, name=f"input_{node}"
                )
                states[node] = bottleneck(jax.nn.relu(x[:, ::stride, ::stride]))
        for node, (name, inputs) in enumerate(
            zip(*self.genotype, strict=True), start=2
        ):
            op = layers.OpModule(
                primitives[name],
                1,
                self.new_norm,
                self.initializer,
                name=f"node_{node}_{name}",
            )
            terms = self._apply_to_each(op, inputs, [states[u] for u in inputs])
            if drop_path_prob is not None and name != "skip_connect":
                key = self.make_rng("drop_path")
                images = terms.reshape(-1, *terms.shape[2:])
                dropped = layers.drop_path(key, images, drop_path_prob)
                terms = dropped.reshape(terms.shape)
            states[node] = terms.sum(0)
        leaves = [states[node] for node in genotypes.dag_leaves(self.genotype)]
        return jnp.concatenate(leaves, axis=-1)

    def _apply_to_each(
        self, op: layers.OpModule, sources: tuple[int, ...], inputs: list[jax.Array]
    ) -> jax.Array:
        """Terms `[num_terms, B, H, W, C]` of a node, results of its operation."""
        if self.node_input == "sum":
            return op(functools.reduce(jnp.add, inputs))[None]
        if self.node_input == "each":
            named = zip(sources, inputs, strict=True)
            return jnp.stack([op(x, norms_of=f"from_{u}") for u, x in named])
        if self.separately:
            return jnp.stack([op(x) for x in inputs])
        # As one batch, so that the normalization has one pair of statistics for all
        # inputs, which the running ones can follow: with statistics of each input
        # alone, no running pair would do in evaluation what was done in training.
        y = op(jnp.concatenate(inputs))
        return y.reshape(len(inputs), -1, *y.shape[1:])


class DagNetwork(nn.Module):
    """A network of equal blocks; made by `dag`, which documents it."""

    genotype: DagGenotype
    channels: int
    num_blocks: int
    num_classes: int
    skeleton: DagSkeleton
    node_input: NodeInput
    last_bottleneck: bool
    auxiliary: bool
    dropout: float
    batch_axis: str | None
    unroll: bool

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        drop_path_prob: jax.Array | None = None,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Return logits, and in training with an auxiliary head its logits too."""
        new_norm = layers.batch_norm(train=train, batch_axis=self.batch_axis)
        on_imagenet = self.skeleton == "imagenet"
        reductions = _reductions(self.skeleton, self.num_blocks)
        prob = drop_path_prob if train else None

        def new_block(name: str, index: int) -> _Block:
            # An input is to be reduced as often as there were reductions since.
            first, second = (
                2 ** sum(index - distance < r <= index for r in reductions)
                for distance in (1, 2)
            )
            doublings = sum(0 < r <= index for r in reductions)
            return _Block(
                self.genotype,
                self.channels * 2**doublings,
                (first, second),
                self.node_input,
                self.unroll and not train,
                new_norm,
                ops.init,
                name=name,
            )

        def run(block: _Block, outputs, prob):
            return (block(outputs, prob), outputs[0]), None

        def scan_blocks(block: _Block, outputs, num: int):
            """Run `num` blocks of one shape as a scan, which keeps programs small."""
            scan = nn.scan(
                run,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True, "drop_path": True},
                length=num,
                unroll=num if self.unroll else 1,
            )
            probs = None if prob is None else jnp.full(num, prob)
            return scan(block, outputs, probs)[0]

        stem = ConvNorm(
            self.channels, 3, new_norm, ops.init, 2 if on_imagenet else 1, name="stem"
        )
        x = stem(images)
        outputs, auxiliary_logits = (x, x), None
        starts = sorted({0, *reductions})
        for start, end in zip(starts, (*starts[1:], self.num_blocks), strict=True):
            # From the third block of a stage on, both inputs are of the stage.
            for index in range(start, min(start + 2, end)):
                outputs, _ = run(new_block(f"block_{index}", index), outputs, prob)
                # The head is made even in evaluation: initialization must make it.
                if self.auxiliary and index == reductions[-1]:
                    head = AuxiliaryHead(
                        self.num_classes,
                        stride=2 if on_imagenet else 3,
                        padding="VALID",
                        bias=True,
                        new_norm=new_norm,
                        initializer=ops.init,
                        name="auxiliary",
                    )
                    if train:
                        auxiliary_logits = head(outputs[0])
            if end > start + 2:
                index = start + 2
                block = new_block(f"blocks_{index}_to_{end - 1}", index)
                outputs = scan_blocks(block, outputs, end - index)
        classifier = Classifier(
            self.num_classes, True, self.dropout, ops.init, name="classifier"
        )
        x = jax.nn.relu(outputs[0])
        if self.last_bottleneck:
            width = self.channels * 2 ** sum(r > 0 for r in reductions)
            bottleneck = PointwiseNorm(width, new_norm, ops.init, name="bottleneck")
            x = jax.nn.relu(bottleneck(x))
        logits = classifier(x, train=train)
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)


def _reductions(skeleton: DagSkeleton, num_blocks: int) -> tuple[int, ...]:
    """Blocks, counted from 0, that halve the image."""
    if skeleton == "cifar":
        return num_blocks // 3, 2 * num_blocks // 3
    rest = num_blocks - 1
    return 0, 1, 1 + rest // 3, 1 + 2 * rest // 3


@count_params.register
def _(network: DagNetwork, image_shape: tuple[int, int, int]) -> int:
    height, width, image_channels = image_shape
    on_imagenet = network.skeleton == "imagenet"
    reductions = _reductions(network.skeleton, network.num_blocks)
    if network.auxiliary:
        shrinkage = 2 ** (on_imagenet + len(reductions))
        sides = (-(-side // shrinkage) for side in (height, width))
        layers.check_auxiliary(*sides, stride=2 if on_imagenet else 3)
    channels = network.channels
    read = {source for inputs in network.genotype.inputs for source in inputs}
    num_leaves = len(genotypes.dag_leaves(network.genotype))
    inputs = (channels, channels)
    total = _counts.conv_norm(3, image_channels, channels)
    for index in range(network.num_blocks):
        channels = network.channels * 2 ** sum(0 < r <= index for r in reductions)
        for node, channels_in in enumerate(inputs):
            if node in read:
                total += _counts.pointwise_norm(channels_in, channels)
        for name, sources in zip(*network.genotype, strict=True):
            num_norms = len(sources) if network.node_input == "each" else 1
            total += _counts.operation(name, channels, 1, num_norms)
        inputs = (num_leaves * channels, inputs[0])
        if network.auxiliary and index == reductions[-1]:
            total += _counts.auxiliary_head(inputs[0], network.num_classes, bias=True)
    features = inputs[0]
    if network.last_bottleneck:
        total += _counts.pointwise_norm(features, channels)
        features = channels
    return total + _counts.classifier(features, network.num_classes, bias=True)


def dag(
    genotype: DagGenotype,
    channels: int = 32,
    num_blocks: int = 18,
    num_classes: int = 10,
    *,
    skeleton: DagSkeleton = "cifar",
    node_input: NodeInput = "joint",
    last_bottleneck: bool = False,
    auxiliary: bool = False,
    dropout: float = 0.0,
    batch_axis: str | None = None,
    unroll: bool = False,
) -> DagNetwork:
    """Make the network of a block, as Graph HyperNetworks train it from scratch.

    A stem (3x3 convolution, normalization), `num_blocks` blocks, ReLU, global average
    pooling and a linear classifier. Nodes 0 and 1 of a block apply ReLU, a 1x1
    convolution and normalization to the outputs of the blocks i-1 and i-2 (of the stem
    where there is none), with a stride where these are larger; inputs that no node
    reads are not made. Any other node applies its operation, with the same weights, to
    each of its inputs and adds up; the output is the concatenation of the leaves.
    Initialize the network with `train=True`, so that an auxiliary head gets its
    parameters.

    The skeleton `"cifar"` halves the image and doubles the channels after the first and
    after the second third of the blocks (after blocks 6 and 12 of 18). `"imagenet"` has
    a stem of stride 2, and halves the image in the first block, in the second, and
    after the first and the second third of the others: of 14 blocks in the blocks 1, 2,
    6 and 10. It doubles the channels in all of these but the first.

    Source: Zhang et al. 2019, section 3 (equation 7) and appendix. The paper does not
    say whether the blocks on ImageNet are counted from one, as chosen here after its
    count on CIFAR-10, nor where their channels double: here as on CIFAR-10, so that
    blocks of all sizes take about as many operations. Nor does it say how nodes
    normalize (here as in DARTS, with statistics over all inputs of a node) and where
    exactly at two thirds of the network the auxiliary head is (here, as in NASNet,
    after the block of the last reduction). Drop path zeroes the result of an operation
    other than the identity for one input and example, with the same probability in all
    blocks.

    Without `node_input` and `last_bottleneck` it differs from `supernets.dag` in two
    points: the supernet normalizes each input of a node on its own, and has one more
    bottleneck, since the leaves that a classifier would read are not always as many.
    With them it computes the same function, but for running statistics and learned
    scales; see `params_from_supernet`.

    Args:
      genotype: the block.
      channels: channels of the nodes before any doubling.
      num_blocks: at least 3, on ImageNet 4.
      num_classes: size of the output.
      skeleton: `"cifar"` or `"imagenet"`, what is around the blocks.
      node_input: `"joint"`: a node applies its operation to each of its inputs and adds
        up, with statistics over all of them; `"each"`: likewise, with a normalization
        for each input (statistics, scale and offset); `"sum"`: it applies it once, to
        the sum of its inputs. `supernets.dag` has the last two.
      last_bottleneck: put a 1x1 convolution to as many channels as the last block's
        nodes have, normalization and another ReLU before the pooling, as in
        `supernets.dag`.
      auxiliary: add a second classifier after the last reduction (training only; it
        needs 8x8 pixels, of images of 32x32, or 7x7 on ImageNet, of 224x224).
      dropout: probability of dropping a feature before the classifier, in training.
      batch_axis: mapped axis over which the batch is sharded, if any; statistics of
        training batches are then taken over the whole batch.
      unroll: compile every block on its own instead of as a scan over alike blocks;
        and in evaluation, where it is the same, every input of a node.

    Returns:
      A Flax module over float images `[B, H, W, C]`, with collections `params` and
      `batch_stats` and, in training, the PRNG streams `drop_path` and `dropout`.

    Raises:
      ValueError: if the genotype is malformed or a number is out of range.
    """
    if skeleton not in ("cifar", "imagenet"):
        raise ValueError(f"skeleton is {skeleton!r}; expected 'cifar' or 'imagenet'")
    if node_input not in ("joint", "each", "sum"):
        raise ValueError(
            f"node_input is {node_input!r}; expected 'joint', 'each' or 'sum'"
        )
    num_reductions, least = (2, 3) if skeleton == "cifar" else (4, 4)
    if num_blocks < least:
        raise ValueError(
            f"num_blocks is {num_blocks}; {num_reductions} reductions need at least "
            f"{least}"
        )
    check_sizes(channels=channels, num_classes=num_classes)
    check_dropout(dropout)
    return DagNetwork(
        genotype=genotypes.check_dag(genotype),
        channels=channels,
        num_blocks=num_blocks,
        num_classes=num_classes,
        skeleton=skeleton,
        node_input=node_input,
        last_bottleneck=last_bottleneck,
        auxiliary=auxiliary,
        dropout=dropout,
        batch_axis=batch_axis,
        unroll=unroll,
    )


files.register("dag", DagNetwork, dag)
