"""Genotypes of convolutional autoencoders: a chain of nodes and its mirror image.

The space of E-CAE (Suganuma et al. 2018) and ASNG-NAS (Akimoto et al. 2019, section
3.3). The encoder runs the nodes from the image to the code, the decoder runs them
backwards, each as a transposed convolution. A node with a skip hands its output in the
encoder to its place in the decoder, where it is added.
"""

from typing import Any, NamedTuple

from jaxnas._checks import is_integer
from jaxnas.genotypes import kinds
from jaxnas.genotypes._values import is_list

AUTOENCODER_KERNELS = (1, 3, 5)
"""Every size of a kernel."""


class AutoencoderGenotype(NamedTuple):
    """The nodes of a chain, the one that reads the image first.

    Attributes:
      kernels: height and width of the kernels of each node, of `AUTOENCODER_KERNELS`.
      channels: channels of each node, in the encoder and in the decoder.
      strides: 1, or 2 for a node that halves height and width.
      skips: whether a node, of stride 1, has a skip.
      output_kernel: height and width of the kernel that makes the image.
    """

    kernels: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    skips: tuple[bool, ...]
    output_kernel: int = 3


def check_autoencoder(genotype: AutoencoderGenotype) -> AutoencoderGenotype:
    """Check the genotype of an autoencoder and normalize its lists to tuples.

    Args:
      genotype: an `AutoencoderGenotype` whose fields may be lists, tuples or ranges.

    Returns:
      The same genotype, made of tuples, Booleans and Python integers only.

    Raises:
      ValueError: naming the node at fault.
    """
    if not isinstance(genotype, AutoencoderGenotype):
        raise ValueError(
            f"found a {type(genotype).__name__}; expected an AutoencoderGenotype"
        )
    *lists, output_kernel = genotype
    for name, values in zip(genotype._fields[:-1], lists, strict=True):
        if not is_list(values):
            raise ValueError(f"{name} is {values!r}; expected a list")
        if len(values) != len(genotype.kernels):
            raise ValueError(
                f"found the {name} of {len(values)} nodes; expected those of "
                f"{len(genotype.kernels)}, one for every kernel"
            )
    if not genotype.kernels:
        raise ValueError("kernels is empty; expected one for every node")
    nodes = [_check_node(i, *node) for i, node in enumerate(zip(*lists, strict=True))]
    kernels, channels, strides, skips = zip(*nodes, strict=True)
    return AutoencoderGenotype(
        kernels,
        channels,
        strides,
        skips,
        _one_of("output_kernel", output_kernel, AUTOENCODER_KERNELS),
    )


kinds.register("autoencoder", AutoencoderGenotype, check_autoencoder)


def _check_node(
    node: int, kernel: Any, channels: Any, stride: Any, skip: Any
) -> tuple[int, int, int, bool]:
    kernel = _one_of(f"node {node}: the kernel", kernel, AUTOENCODER_KERNELS)
    if not is_integer(channels) or channels < 1:
        raise ValueError(
            f"node {node}: channels is {channels!r}; expected an integer of at least 1"
        )
    stride = _one_of(f"node {node}: the stride", stride, (1, 2))
    if not isinstance(skip, bool):
        raise ValueError(f"node {node}: skip is {skip!r}; expected true or false")
    if skip and stride == 2:
        raise ValueError(
            f"node {node}: found a skip at stride 2; expected one at stride 1 only"
        )
    return kernel, int(channels), stride, skip


def _one_of(name: str, value: Any, known: tuple[int, ...]) -> int:
    if not is_integer(value) or value not in known:
        raise ValueError(
            f"{name} is {value!r}; expected one of {', '.join(map(str, known))}"
        )
    return int(value)
