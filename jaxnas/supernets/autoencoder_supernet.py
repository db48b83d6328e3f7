"""The supernet of convolutional autoencoders (ASNG-NAS, inpainting)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas import ops
from jaxnas._checks import check_sizes
from jaxnas.ops import WeightSpec
from jaxnas.spaces.autoencoder import KERNELS, AutoencoderSpace
from jaxnas.supernets import _autoencoder_chain
from jaxnas.types import Arch, Key, Supernet, Weights

_TAP_SIZES = np.repeat(KERNELS, np.square(KERNELS))  # of the kernel of each tap


def autoencoder(
    space: AutoencoderSpace, image_channels: int = 3, *, block: int | None = None
) -> Supernet:
    """Make the supernet of a space of convolutional autoencoders.

    In the encoder every active node is a convolution and a ReLU, with a skip and stride
    1 or without one and with stride 2. The decoder runs the nodes backwards as
    transposed convolutions of the same kernel, channels and stride; the output of the
    node's encoder is added before the ReLU if it has a skip. A 3x3 convolution makes
    the image. There are no biases and no normalization. A node of stride 2 whose input
    has odd height or width, such as 1, is passed over.

    Every (node, kernel, skip) has weights of its own, of the most channels in and out.
    A node with fewer uses the first of them. For the published space and images of 3
    channels these are 183.5 million parameters, 734 MB in float32, and as much again
    for the gradient and for each moment of an optimizer. A training step also holds
    two feature maps for every node of the grid, at the size of the images and with the
    most channels: 2.7 GB for batch 16 of 64x64.

    Args:
      space: from `jaxnas.spaces.inpainting`.
      image_channels: channels of the images, at most the most channels of a node.
      block: channels that are computed at a time, a divisor of the most channels. A
        node costs as much as one whose channels are rounded up to multiples of it. The
        default is the least multiple of the greatest common divisor of the space's
        channels that is 32 or more, or else the most channels: smaller products keep
        no processor busy.

    Returns:
      A `Supernet`; `apply` takes float images `[B, H, W, image_channels]`, `H` and `W`
      even, and returns images of the same shape, whose values have no bounds.

    Raises:
      ValueError: if a number is out of range.

    Source: Akimoto et al. 2019, section 3.3, official `inpainting_cat/cae_model.py` and
    `common/operations.py`, which convolve with all channels and then drop some. Initial
    weights are PyTorch's default, as there.
    """
    widest = space.channels[-1]
    check_sizes(image_channels=image_channels)
    if image_channels > widest:
        raise ValueError(
            f"image_channels is {image_channels}; expected at most {widest}, the most "
            "channels of a node"
        )
    block = _block_of(space.channels) if block is None else block
    if block < 1 or widest % block:
        raise ValueError(f"block is {block}; expected a divisor of {widest}")

    bank = WeightSpec((space.num_nodes, 2, _TAP_SIZES.size, widest, widest), widest)
    # PyTorch takes the outputs of a transposed convolution for its inputs.
    output = WeightSpec((9, image_channels, widest), 9 * image_channels)
    specs = {"encoder": bank, "decoder": bank, "output": output}

    def init(key: Key) -> Weights:
        weights = ops.init(key, specs)
        scale = jnp.asarray(1 / _TAP_SIZES, weights["output"].dtype)
        for name in ("encoder", "decoder"):
            weights[name] *= scale[None, None, :, None, None]
        return weights

    def apply(
        weights: Weights,
        arch: Arch,
        images: jax.Array,
        *,
        train: bool = False,
        key: Key | None = None,
        batch_axis: str | None = None,
    ) -> jax.Array:
        del train, key, batch_axis  # no dropout, no statistics of the batch
        _check_inputs(space, image_channels, arch, images)
        sides = _autoencoder_chain.sides_of_levels(*images.shape[1:3])
        rows = {
            name: weights[name].reshape(-1, *weights[name].shape[2:])
            for name in ("encoder", "decoder")
        }
        return _autoencoder_chain.run(
            rows | {"output": weights["output"]},
            _chain_of(space, arch, len(sides) - 1),
            images,
            sizes=KERNELS,
            block=block,
        )

    return Supernet(space, init, apply)


def _block_of(channels: tuple[int, ...]) -> int:
    """The default number of channels that are computed at a time."""
    divisor, widest = math.gcd(*channels), channels[-1]
    sizes = (size for size in range(divisor, widest, divisor) if widest % size == 0)
    return next((size for size in sizes if size >= 32), widest)


def _check_inputs(
    space: AutoencoderSpace, image_channels: int, arch: Arch, images: jax.Array
) -> None:
    if (
        images.ndim != 4
        or images.shape[1] % 2
        or images.shape[2] % 2
        or images.shape[3] != image_channels
    ):
        raise ValueError(
            f"images have shape {images.shape}; expected [B, H, W, {image_channels}], "
            "image height and width must be even"
        )
    if arch.shape != (space.num_decisions,):
        raise ValueError(
            f"arch has shape {arch.shape}; expected ({space.num_decisions},)"
        )


def _chain_of(
    space: AutoencoderSpace, arch: Arch, max_halvings: int
) -> _autoencoder_chain.Chain:
    """The nodes that are active and not passed over, first."""
    choices = space.choices(arch)
    numbers = jnp.arange(1, space.num_nodes + 1, dtype=jnp.int32)

    def visit(wanted, number_and_source):
        number, source = number_and_source
        is_active = number == wanted
        return jnp.where(is_active, source, wanted), is_active

    _, is_active = lax.scan(
        visit, choices.output, (numbers, choices.source), reverse=True
    )
    halves = is_active & (choices.skip == 0)
    runs = is_active & ~(halves & (jnp.cumsum(halves) > max_halvings))
    order = jnp.argsort(~runs, stable=True)
    return _autoencoder_chain.Chain(
        row=(2 * (numbers - 1) + choices.skip)[order],
        kernel=choices.kernel[order],
        channels=choices.channels[order],
        skip=choices.skip[order],
        length=runs.sum(dtype=jnp.int32),
    )
