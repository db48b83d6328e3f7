"""The space of convolutional autoencoders for inpainting.

Akimoto et al. (2019), section 3.3, after Suganuma et al. (2018): the encoder is a chain
of nodes, chosen from a grid of one row in which every node reads one of those shortly
before it, and the decoder is its mirror image. Decisions are in the order of the
official code.
"""

import dataclasses
import itertools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import genotypes
from jaxnas._checks import check_integer, is_integer
from jaxnas.spaces import _base
from jaxnas.types import Arch, Key

KERNELS = genotypes.AUTOENCODER_KERNELS
"""Kernels to choose from; their order gives each its number."""

Encoding = Literal["categorical", "mixed"]


class Choices(NamedTuple):
    """What an architecture says of every node, whatever its encoding.

    Node i has the number `i + 1`, the image the number 0.

    Attributes:
      kernel: int32 `[num_nodes]`, index of `KERNELS`.
      channels: int32 `[num_nodes]`.
      skip: int32 `[num_nodes]`, 1 for a node of stride 1 with a skip, 0 for stride 2.
      source: int32 `[num_nodes]`, number of what a node reads.
      output: int32 scalar, number of the node whose output is the code.
    """

    kernel: jax.Array
    channels: jax.Array
    skip: jax.Array
    source: jax.Array
    output: jax.Array


@dataclasses.dataclass(frozen=True)
class AutoencoderSpace(_base.Space):
    """Chains through a grid of nodes, each with a kernel, channels and maybe a skip.

    Node i reads one of the `level_back` numbers before its own, `i + 1`: the image (0)
    or an earlier node. The code is the output of one of the last `level_back` nodes.
    Only nodes on the way from the image to the code are active. A node either has
    stride 1 and a skip, or stride 2.

    A categorical architecture is int32 `[3 * num_nodes + 3]`: for each node
    `(operation, channels, input)`, then the three of the output, of which only the
    input is free. Operations are 1x1 with a skip, 1x1 of stride 2, 3x3 with a skip and
    so on. A mixed architecture is a float vector `[4 * num_nodes + 1]`: for each node
    `(skip, input)`, then the input of the output, as whole numbers; then for each node
    `(kernel, channels)`, any numbers, which `choices` clips to `integers` and rounds.
    An input is numbered from the earliest one on.

    Attributes:
      num_nodes: nodes of the grid.
      level_back: how far before itself a node may read, at most `num_nodes`.
      channels: numbers of channels to choose from, ascending; a mixed architecture has
        any from the first to the last.
      encoding: `"categorical"` or `"mixed"`.
    """

    num_nodes: int = 20
    level_back: int = 5
    channels: tuple[int, ...] = (64, 128, 256)
    encoding: Encoding = "categorical"

    def __post_init__(self) -> None:
        check_integer("level_back", self.level_back)
        check_integer("num_nodes", self.num_nodes, least=self.level_back)
        if self.encoding not in ("categorical", "mixed"):
            raise ValueError(
                f"encoding is {self.encoding!r}; expected 'categorical' or 'mixed'"
            )
        widths = self.channels
        least = 2 if self.encoding == "mixed" else 1
        if (
            len(widths) < least
            or not all(is_integer(width) and width >= 1 for width in widths)
            or list(widths) != sorted(set(widths))
        ):
            raise ValueError(
                f"channels is {widths!r}; expected {least} or more ascending integers"
            )

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each categorical decision."""
        inputs = [min(i + 1, self.level_back) for i in range(self.num_nodes)]
        if self.encoding == "mixed":
            return (*(size for k in inputs for size in (2, k)), self.level_back)
        operations = 2 * len(KERNELS)
        nodes = [(operations, len(self.channels), k) for k in inputs]
        return (*(size for node in nodes for size in node), 1, 1, self.level_back)

    @property
    def integers(self) -> tuple[tuple[int, int], ...]:
        """Inclusive bounds of each ordered integer; none in the categorical encoding.

        They follow the categorical decisions: for each node the number of its kernel,
        from 1 on, and its channels.
        """
        if self.encoding == "categorical":
            return ()
        node = (1, len(KERNELS)), (self.channels[0], self.channels[-1])
        return node * self.num_nodes

    @property
    def num_decisions(self) -> int:
        """Length of an architecture vector."""
        return len(self.cardinalities) + len(self.integers)

    @property
    def num_architectures(self) -> int:
        """Number of distinct vectors of integers; many are the same chain."""
        ranges = [high - low + 1 for low, high in self.integers]
        return math.prod(self.cardinalities) * math.prod(ranges)

    def sample(self, key: Key) -> Arch:
        """Draw categories and integers uniformly; works inside `jax.jit`.

        Args:
          key: random key, consumed.

        Returns:
          int32 `[num_decisions]`, or floats that are whole numbers in the mixed
          encoding.
        """
        if self.encoding == "categorical":
            return super().sample(key)
        bounds = [*((0, size - 1) for size in self.cardinalities), *self.integers]
        low, high = jnp.asarray(bounds, jnp.int32).T
        drawn = jax.random.randint(key, low.shape, low, high + 1, jnp.int32)
        return drawn.astype(float)

    def choices(self, arch: Arch) -> Choices:
        """Read an architecture in either encoding; works inside `jax.jit`.

        Args:
          arch: `[num_decisions]`, which is not checked. Integers of the mixed encoding
            are clipped to their bounds and rounded, halves to even numbers.

        Returns:
          What it says of every node.
        """
        num = self.num_nodes
        if self.encoding == "categorical":
            operation, width, source = arch[: 3 * num].reshape(num, 3).T
            kernel, skip = operation // 2, 1 - operation % 2
            channels = jnp.asarray(self.channels, jnp.int32)[width]
        else:
            split = len(self.cardinalities)
            low, high = jnp.asarray(self.integers, arch.dtype).T
            integers = jnp.round(jnp.clip(arch[split:], low, high))
            kernel, channels = integers.astype(jnp.int32).reshape(num, 2).T
            kernel = kernel - 1
            arch = arch[:split].astype(jnp.int32)
            skip, source = arch[:-1].reshape(num, 2).T
        # The number of the earliest input of each node and of the output.
        first = jnp.arange(1, num + 2, dtype=jnp.int32) - self.level_back
        first = jnp.maximum(first, 0)
        return Choices(
            kernel, channels, skip, source + first[:-1], arch[-1] + first[-1]
        )

    def check(self, arch: Any) -> np.ndarray:
        """Check an architecture vector.

        Args:
          arch: `num_decisions` numbers: a list, a NumPy or a JAX array.

        Returns:
          The same numbers, a NumPy array: int32, or float64 in the mixed encoding.

        Raises:
          ValueError: naming the decision that is out of range, no integer or, for an
            integer of the mixed encoding, no finite number.
        """
        if self.encoding == "categorical":
            return super().check(arch)
        values = np.asarray(arch, dtype=object)
        if values.shape != (self.num_decisions,):
            raise ValueError(
                f"the architecture has shape {list(values.shape)}; expected "
                f"{[self.num_decisions]} for {self._whole}"
            )
        numbers = np.array([self._number(i, value) for i, value in enumerate(values)])
        split = len(self.cardinalities)
        # Float vectors hold categories as whole numbers.
        whole = [int(n) if n.is_integer() else n for n in numbers[:split].tolist()]
        super().check(whole)
        return numbers

    def _number(self, decision: int, value: Any) -> float:
        try:
            number = math.nan if isinstance(value, str | bytes | bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"decision {decision} ({self._place(decision)}): {value!r} is not a "
                "finite number"
            )
        return number

    def decode(self, arch: Any) -> genotypes.AutoencoderGenotype:
        """Turn an architecture vector into the genotype of its active nodes.

        Args:
          arch: `num_decisions` numbers: a list, a NumPy or a JAX array.

        Returns:
          The genotype.

        Raises:
          ValueError: as `check` does.
        """
        choices = self.choices(jnp.asarray(self.check(arch)))
        kernel, channels, skip, source = (leaf.tolist() for leaf in choices[:-1])
        active, number = [], int(choices.output)
        while number > 0:
            active.append(number - 1)
            number = source[number - 1]
        active.reverse()
        return genotypes.AutoencoderGenotype(
            kernels=tuple(KERNELS[kernel[i]] for i in active),
            channels=tuple(channels[i] for i in active),
            strides=tuple(2 - skip[i] for i in active),
            skips=tuple(bool(skip[i]) for i in active),
        )

    def encode(self, genotype: genotypes.AutoencoderGenotype) -> Arch:
        """Turn a genotype of this space into an architecture vector.

        Many vectors are the same chain. This one has its nodes as early in the grid as
        can be; the other nodes have 1x1 kernels, the fewest channels and skips.

        Args:
          genotype: a chain over the channels of the space. Every node has stride 1 and
            a skip, or stride 2; the output's kernel is 3x3.

        Returns:
          `[num_decisions]`, int32 or float, which `decode` turns back into the
          genotype.

        Raises:
          ValueError: if the genotype is not in the space, naming the node.
        """
        genotype = genotypes.check_autoencoder(genotype)
        nodes = list(zip(*genotype[:-1], strict=True))
        for i, node in enumerate(nodes):
            self._check_node(i, *node)
        if genotype.output_kernel != 3:
            raise ValueError(
                f"output_kernel is {genotype.output_kernel}; expected 3 in the space"
            )
        code, back = self.num_nodes + 1, self.level_back
        least, length = math.ceil(code / back) - 1, len(nodes)
        if not least <= length <= self.num_nodes:
            raise ValueError(
                f"found {length} nodes; expected {least} to {self.num_nodes}"
            )
        numbers = [max(i, code - (length + 1 - i) * back) for i in range(length + 2)]
        is_mixed = self.encoding == "mixed"
        # Of the nodes that are not active and, in the last place, of the output.
        kernel, width, source = np.zeros((3, code), np.int32)
        skip = np.ones(code, np.int32)
        width += self.channels[0] if is_mixed else 0
        for number, (size, channels, _, has_skip) in zip(
            numbers[1:], nodes, strict=False
        ):
            at = number - 1
            kernel[at], skip[at] = KERNELS.index(size), has_skip
            width[at] = channels if is_mixed else self.channels.index(channels)
        for before, number in itertools.pairwise(numbers):
            source[number - 1] = before - max(number - back, 0)
        if not is_mixed:
            operation = 2 * kernel + 1 - skip
            return jnp.asarray(np.stack([operation, width, source], 1).reshape(-1))
        categories = np.stack([skip, source], 1).reshape(-1)
        integers = np.stack([kernel + 1, width], 1)[:-1].reshape(-1)
        # The output has an input only.
        arch = [*categories[:-2], categories[-1], *integers]
        return jnp.asarray(arch, float)

    def _check_node(self, node: int, kernel: int, width: int, stride: int, skip: bool):
        del kernel  # every one is in the space
        if stride == 1 and not skip:
            raise ValueError(
                f"node {node}: found stride 1 without a skip; expected one in the space"
            )
        low, high = self.channels[0], self.channels[-1]
        if self.encoding == "mixed":
            if not low <= width <= high:
                raise ValueError(
                    f"node {node}: found {width} channels; expected {low} to {high}"
                )
        elif width not in self.channels:
            raise ValueError(
                f"node {node}: found {width} channels; expected one of "
                f"{', '.join(map(str, self.channels))}"
            )

    @property
    def _whole(self) -> str:
        return f"{self.num_nodes} nodes"

    def _place(self, decision: int) -> str:
        index = decision - len(self.cardinalities)
        if index >= 0:
            node, names = index // 2, ("kernel", "channels")
        elif self.encoding == "mixed":
            node, names = decision // 2, ("skip", "input")
            index = decision if node < self.num_nodes else -1
        else:
            node, names = decision // 3, ("operation", "channels", "input")
            index = decision
        place = f"node {node}" if node < self.num_nodes else "output"
        return f"{place}, {names[index % len(names)]}"


def inpainting(encoding: Encoding = "categorical") -> AutoencoderSpace:
    """Make the space in which ASNG-NAS searches autoencoders for inpainting.

    A grid of 20 nodes that read up to 5 back, with 64, 128 or 256 channels, or any
    number from 64 to 256. An architecture drawn uniformly has 4 to 20 active nodes, 6.7
    in the mean.

    Args:
      encoding: `"categorical"`: 63 decisions, whose distribution has 214 parameters;
        `"mixed"`: 41 decisions and 40 ordered integers, 94 parameters and two for each
        integer, 174 in all.

    Returns:
      The space.

    Raises:
      ValueError: if the encoding is unknown.

    Source: Akimoto et al. 2019, section 3.3, official `inpainting_cat/cae_model.py` and
    `inpainting_int/cae_model.py`.
    """
    return AutoencoderSpace(encoding=encoding)
