"""A plain residual network, the baseline that needs no search."""

import flax.linen as nn
import jax

from jaxnas._checks import check_dropout, check_sizes
from jaxnas.networks import _counts, files, layers
from jaxnas.networks.layers import (
    Classifier,
    ConvNorm,
    Initializer,
    NewNorm,
    PointwiseNorm,
)
from jaxnas.networks.size import count_params

_NUM_STAGES = 3


class _Block(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    channels: int
    stride: int
    new_norm: NewNorm
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of_all = self.channels, 3, self.new_norm, self.initializer
        y = jax.nn.relu(ConvNorm(*of_all, stride=self.stride, name="conv_1")(x))
        y = ConvNorm(*of_all, name="conv_2")(y)
        if y.shape != x.shape:
            shortcut = PointwiseNorm(
                self.channels, self.new_norm, self.initializer, name="shortcut"
            )
            x = shortcut(x[:, :: self.stride, :: self.stride])
        return jax.nn.relu(x + y)


class ResidualNetwork(nn.Module):
    """A plain residual network; made by `residual`, which documents it."""

    channels: int
    num_blocks: int
    num_classes: int
    dropout: float
    batch_axis: str | None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Return logits."""
        new_norm = layers.batch_norm(train=train, batch_axis=self.batch_axis)
        initializer = layers.init_he_normal
        x = ConvNorm(self.channels, 3, new_norm, initializer, name="stem")(images)
        x = jax.nn.relu(x)
        for stage in range(_NUM_STAGES):
            for block in range(self.num_blocks):
                x = _Block(
                    self.channels * 2**stage,
                    2 if stage > 0 and block == 0 else 1,
                    new_norm,
                    initializer,
                    name=f"stage_{stage}_block_{block}",
                )(x)
        classifier = Classifier(
            self.num_classes, True, self.dropout, initializer, name="classifier"
        )
        return classifier(x, train=train)


@count_params.register
def _(network: ResidualNetwork, image_shape: tuple[int, int, int]) -> int:
    before = network.channels
    total = _counts.conv_norm(3, image_shape[-1], before)
    for stage in range(_NUM_STAGES):
        channels = network.channels * 2**stage
        if channels != before:
            total += _counts.pointwise_norm(before, channels)
        total += _counts.conv_norm(3, before, channels)
        total += (2 * network.num_blocks - 1) * _counts.conv_norm(3, channels, channels)
        before = channels
    return total + _counts.classifier(before, network.num_classes, bias=True)


def residual(
    channels: int = 16,
    num_blocks: int = 3,
    num_classes: int = 10,
    *,
    dropout: float = 0.0,
    batch_axis: str | None = None,
) -> ResidualNetwork:
    """Make a plain residual network, to compare a found network with.

    A 3x3 convolution, three stages of blocks, the second and third of which halve the
    images and double the channels, global average pooling and a linear classifier. A
    block adds two 3x3 convolutions, each normalized, to its input, or to a 1x1
    convolution of it where the shape changes.

    Source: He et al. 2016, section 4.2; with projections instead of padded identities
    where the shape changes. Depths of 20, 32, 44 and 56 have 3, 5, 7 and 9 blocks.

    Args:
      channels: channels of the first stage.
      num_blocks: blocks of each stage.
      num_classes: size of the output.
      dropout: probability of dropping a feature before the classifier, in training.
      batch_axis: mapped axis over which the batch is sharded, if any; statistics of
        training batches are then taken over the whole batch.

    Returns:
      A Flax module over float images `[B, H, W, C]` with collections `params` and
      `batch_stats` and, in training, the PRNG stream `dropout`.

    Raises:
      ValueError: if a number is out of range.
    """
    check_sizes(channels=channels, num_blocks=num_blocks, num_classes=num_classes)
    check_dropout(dropout)
    return ResidualNetwork(channels, num_blocks, num_classes, dropout, batch_axis)


files.register("residual", ResidualNetwork, residual)
