"""The convolutional autoencoder that is trained from scratch."""

import flax.linen as nn
import jax

from jaxnas import genotypes, ops
from jaxnas.genotypes import AutoencoderGenotype
from jaxnas.networks import files
from jaxnas.networks.size import count_params


class AutoencoderNetwork(nn.Module):
    """A chain and its mirror image; made by `autoencoder`, which documents it."""

    genotype: AutoencoderGenotype

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Return images of the same shape."""
        del train  # no dropout, no normalization

        def kernel(name: str, size: int, large: int, small: int, fan: int) -> jax.Array:
            """From a feature map of `large` channels to one of `small`, or back."""
            spec = ops.WeightSpec((size, size, large, small), size**2 * fan)
            return self.param(name, ops.init, spec)

        height, width, channels = images.shape[1:]
        nodes = _nodes_that_run(self.genotype, height, width)
        x, encoded = images, []
        for i in nodes:
            size, own, stride, _ = _node(self.genotype, i)
            weights = kernel(f"encoder_{i}", size, x.shape[-1], own, x.shape[-1])
            x = jax.nn.relu(ops.conv(x, weights, (stride, stride)))
            encoded.append(x)
        for i, skipped in zip(reversed(nodes), reversed(encoded), strict=True):
            size, own, stride, has_skip = _node(self.genotype, i)
            # PyTorch takes the outputs of a transposed convolution for its inputs.
            weights = kernel(f"decoder_{i}", size, own, x.shape[-1], own)
            x = ops.transposed_conv(x, weights, (stride, stride))
            x = jax.nn.relu(x + skipped if has_skip else x)
        size = self.genotype.output_kernel
        weights = kernel("output", size, channels, x.shape[-1], channels)
        return ops.transposed_conv(x, weights, (1, 1))


def _node(genotype: AutoencoderGenotype, i: int) -> tuple[int, int, int, bool]:
    kernels, channels, strides, skips, _ = genotype
    return kernels[i], channels[i], strides[i], skips[i]


def _nodes_that_run(
    genotype: AutoencoderGenotype, height: int, width: int
) -> list[int]:
    """Indices of the nodes that are not passed over."""
    if height % 2 or width % 2:
        raise ValueError(
            f"images of {height}x{width} cannot be halved; image height and width must "
            "be even"
        )
    nodes = []
    for i, stride in enumerate(genotype.strides):
        if stride == 2:
            if height % 2 or width % 2:
                continue
            height, width = height // 2, width // 2
        nodes.append(i)
    return nodes


@count_params.register
def _(network: AutoencoderNetwork, image_shape: tuple[int, int, int]) -> int:
    height, width, image_channels = image_shape
    genotype = network.genotype
    nodes = _nodes_that_run(genotype, height, width)
    sizes = [genotype.kernels[i] ** 2 for i in nodes]
    channels = [genotype.channels[i] for i in nodes]
    before, after = [image_channels, *channels], [*channels[1:], channels[-1]]
    pairs = zip(sizes, channels, before, after, strict=False)
    total = sum(size * own * (read + code) for size, own, read, code in pairs)
    return total + genotype.output_kernel**2 * image_channels * channels[0]


def autoencoder(genotype: AutoencoderGenotype) -> AutoencoderNetwork:
    """Make the network of an autoencoder's genotype, as ASNG-NAS trains it.

    It is the function of the supernet, with weights of the active nodes only, and of
    their channels only: in the encoder convolutions and ReLUs, then in the decoder
    their transposes in reverse, of equal kernels, channels and strides. The decoder
    adds the outputs of nodes with skips before its ReLU. Nodes of stride 2 whose input
    has odd height or width are passed over and have no weights.

    Source: Akimoto et al. 2019, section 3.3, official `inpainting_cat/cae_model.py`,
    where the channels of nodes that are passed over still cut the next node's input.
    The official code of E-CAE (Suganuma et al. 2018), whose genotypes are named ones,
    has convolutions for transposed ones of stride 1, which are the same functions, and
    applies one more ReLU before a skip is added.

    Args:
      genotype: the genotype.

    Returns:
      A Flax module over float images `[B, H, W, C]`, height and width even, which
      returns images of the same shape, without bounds. It has parameters only: no
      running statistics. Initial weights are PyTorch's default, as in the official
      code.

    Raises:
      ValueError: if the genotype is malformed; when called, if a side is odd.
    """
    return AutoencoderNetwork(genotypes.check_autoencoder(genotype))


files.register("autoencoder", AutoencoderNetwork, autoencoder)
