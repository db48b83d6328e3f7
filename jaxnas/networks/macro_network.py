"""The chain of layers with skip connections that is trained from scratch."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas import genotypes, ops
from jaxnas._checks import check_dropout, check_sizes
from jaxnas.genotypes import MacroGenotype
from jaxnas.networks import _counts, files, layers
from jaxnas.networks.layers import (
    Classifier,
    ConvNorm,
    FactorizedReduceNorm,
    Initializer,
    NewNorm,
    PointwiseNorm,
)
from jaxnas.networks.size import count_params

_KERNEL_SIZES = {
    "conv_3x3": 3,
    "sep_conv_3x3": 3,
    "conv_5x5": 5,
    "sep_conv_5x5": 5,
}


class _SeparableConvNorm(nn.Module):
    """Depthwise convolution, 1x1 convolution, normalization."""

    channels: int
    size: int
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1])
        spec = ops.WeightSpec(shape, self.size**2)
        x = ops.depthwise_conv(x, self.param("depthwise", self.initializer, spec))
        spec = ops.WeightSpec((x.shape[-1], self.channels), x.shape[-1])
        pointwise = self.param("pointwise", self.initializer, spec)
        return self.new_norm()(ops.pointwise_conv(x, pointwise))


class _Layer(nn.Module):
    """One layer: an operation on the last source, joined with the skips."""

    op: str
    skips: tuple[int, ...]
    channels: int
    separable: bool
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(self, sources: list[jax.Array]) -> jax.Array:
        def pointwise(x: jax.Array, name: str) -> jax.Array:
            layer = PointwiseNorm(
                self.channels, self.new_norm, self.initializer, name=name
            )
            return layer(jax.nn.relu(x))

        x = jax.nn.relu(pointwise(sources[-1], "before"))
        if self.op == "avg_pool_3x3":
            x = ops.avg_pool_3x3(x)
        elif self.op == "max_pool_3x3":
            x = ops.max_pool_3x3(x)
        else:
            is_separable = self.separable and self.op.startswith("sep_conv")
            conv = _SeparableConvNorm if is_separable else ConvNorm
            size = _KERNEL_SIZES[self.op]
            x = conv(
                self.channels, size, self.new_norm, self.initializer, name=self.op
            )(x)
        if len(sources) == 1:  # the first layer has nothing to join
            return x
        skipped = [sources[i] for i in self.skips]
        return pointwise(jnp.concatenate([*skipped, x], axis=-1), "join")


class MacroNetwork(nn.Module):
    """A chain of layers with skips; made by `macro`, which documents it."""

    genotype: MacroGenotype
    channels: int
    num_classes: int
    separable: bool
    dropout: float
    batch_axis: str | None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Return logits."""
        new_norm = layers.batch_norm(train=train, batch_axis=self.batch_axis)
        initializer = layers.init_he_normal
        third = len(self.genotype.ops) // 3
        channels = self.channels
        sources = [ConvNorm(channels, 3, new_norm, initializer, name="stem")(images)]
        for index, layer in enumerate(zip(*self.genotype, strict=True)):
            if index in (third, 2 * third):
                channels *= 2
                sources = [
                    FactorizedReduceNorm(
                        channels,
                        new_norm,
                        initializer,
                        name=f"reduce_before_layer_{index}_source_{i}",
                    )(source)
                    for i, source in enumerate(sources)
                ]
            sources.append(
                _Layer(
                    *layer,
                    channels,
                    self.separable,
                    new_norm,
                    initializer,
                    name=f"layer_{index}",
                )(sources)
            )
        classifier = Classifier(
            self.num_classes, False, self.dropout, initializer, name="classifier"
        )
        return classifier(sources[-1], train=train)


@count_params.register
def _(network: MacroNetwork, image_shape: tuple[int, int, int]) -> int:
    third = len(network.genotype.ops) // 3
    channels = network.channels
    total = _counts.conv_norm(3, image_shape[-1], channels)
    for index, (op, skips) in enumerate(zip(*network.genotype, strict=True)):
        if index in (third, 2 * third):
            # Of the stem's output and of those of all layers so far.
            total += (index + 1) * _counts.pointwise_norm(channels, 2 * channels)
            channels *= 2
        total += _counts.pointwise_norm(channels, channels)
        if op in _KERNEL_SIZES:
            size = _KERNEL_SIZES[op]
            if network.separable and op.startswith("sep_conv"):
                total += size**2 * channels
                total += _counts.pointwise_norm(channels, channels)
            else:
                total += _counts.conv_norm(size, channels, channels)
        if index > 0:
            total += _counts.pointwise_norm((len(skips) + 1) * channels, channels)
    return total + _counts.classifier(channels, network.num_classes, bias=False)


def macro(
    genotype: MacroGenotype,
    channels: int = 96,
    num_classes: int = 10,
    *,
    separable: bool = True,
    dropout: float = 0.5,
    batch_axis: str | None = None,
) -> MacroNetwork:
    """Make the network of a macro genotype, as ENAS trains it from scratch.

    A stem (3x3 convolution), the layers, global average pooling and a linear
    classifier without bias. A layer applies ReLU, 1x1 convolution, normalization, ReLU
    and its operation to the output just before, with another normalization after a
    convolution; then ReLU, 1x1 convolution and normalization join it with the
    concatenated skips. After the first and the second third of the layers, the stem's
    and all layers' outputs so far are halved with twice the channels, each by a
    factorized reduction of its own, whether or not a later layer reads it.

    Source: Pham et al. 2018, section 2.3, and `_fixed_layer` of the official
    `general_child.py`, which computes separable convolutions as dense ones and has no
    pools; here they are pools after the same 1x1 convolution, as in the search.

    Args:
      genotype: at least 3 layers.
      channels: channels of the first third of the layers.
      num_classes: size of the output.
      separable: whether separable convolutions are separable, or dense as in the
        official code.
      dropout: probability of dropping a feature before the classifier, in training.
      batch_axis: mapped axis over which the batch is sharded, if any; statistics of
        training batches are then taken over the whole batch.

    Returns:
      A Flax module over float images `[B, H, W, C]`, height and width divisible by 4,
      with collections `params` and `batch_stats` and, in training, the PRNG stream
      `dropout`.

    Raises:
      ValueError: if the genotype is malformed or a number is out of range.
    """
    genotype = genotypes.check_macro(genotype)
    if len(genotype.ops) < 3:
        raise ValueError(
            f"the genotype has {len(genotype.ops)} layers; two reductions need at "
            "least 3"
        )
    check_sizes(channels=channels, num_classes=num_classes)
    check_dropout(dropout)
    return MacroNetwork(genotype, channels, num_classes, separable, dropout, batch_axis)


files.register("macro", MacroNetwork, macro)
