"""The ENAS macro supernet in eager PyTorch, which the benchmarks compare with.

Each layer holds one module per operation, and a forward pass runs only the one its
architecture names, and joins only the sources it selects. The network is that of
Pham et al. (2018), section 2.3, normalized with the statistics of the batch.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OPS = (
    "conv_3x3",
    "sep_conv_3x3",
    "conv_5x5",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
"""The operations, in the order of the encoding."""


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    """Normalize with the statistics of the batch; learned scale and offset."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def _conv(channels: int, kernel_size: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        channels,
        kernel_size,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
    )


def _operation(name: str, channels: int) -> nn.Sequential:
    """A 1x1 convolution, then the operation; separable ones are applied once."""

    def normalized(*convs: nn.Module) -> list[nn.Module]:
        return [*convs, _batch_norm(channels), nn.ReLU(inplace=True)]

    entry = normalized(_conv(channels, 1))
    if name == "avg_pool_3x3":
        pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        return nn.Sequential(*entry, pool)
    if name == "max_pool_3x3":
        return nn.Sequential(*entry, nn.MaxPool2d(3, stride=1, padding=1))
    kernel_size = 5 if name.endswith("5x5") else 3
    if name.startswith("sep_"):
        depthwise = _conv(channels, kernel_size, groups=channels)
        return nn.Sequential(*entry, *normalized(depthwise, _conv(channels, 1)))
    return nn.Sequential(*entry, *normalized(_conv(channels, kernel_size)))


class FactorizedReduce(nn.Module):
    """Halve the resolution with two 1x1 convolutions, one pixel apart."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.even = nn.Conv2d(channels, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels, half, 1, stride=2, bias=False)
        self.norm = _batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C, H/2, W/2]`; even H and W."""
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


class Concatenate(nn.Module):
    """ReLU, 1x1 convolution and normalization of the sources of a layer.

    The weight has one block of columns per source that the layer could join, and those
    of the sources at hand are used.
    """

    def __init__(self, channels: int, num_sources: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, num_sources * channels, 1, 1))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.norm = _batch_norm(channels)

    def forward(self, sources: Sequence[Tensor], indices: Sequence[int]) -> Tensor:
        """Join sources `[B, C, H, W]`, which own the blocks `indices`."""
        blocks = self.weight.split(self.weight.shape[0], dim=1)
        weight = torch.cat([blocks[i] for i in indices], dim=1)
        x = F.relu(torch.cat(list(sources), dim=1), inplace=True)
        return self.norm(F.conv2d(x, weight))


class Add(nn.Module):
    """Normalization of the sum of the sources of a layer."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = _batch_norm(channels)

    def forward(self, sources: Sequence[Tensor], indices: Sequence[int]) -> Tensor:
        """Join sources `[B, C, H, W]`; all are equal, whatever their indices."""
        del indices
        return self.norm(sum(sources[1:], start=sources[0]))


class MacroSupernet(nn.Module):
    """The ENAS macro supernet over NCHW images.

    After the first and the second third of the layers, the stem's and all layers'
    outputs so far are halved, each by a factorized reduction of its own.

    Args:
      num_layers: number of layers, 3 or more.
      channels: channels of all layers, even.
      num_classes: number of logits.
      skips: `"concat"` (the paper) or `"add"` (the official search).
      channels_last: keep weights and activations in the NHWC memory format.

    Source: Pham et al., 2018, section 2.3, and the official `general_child.py`.
    """

    def __init__(
        self,
        num_layers: int = 12,
        channels: int = 36,
        num_classes: int = 10,
        skips: Literal["concat", "add"] = "concat",
        channels_last: bool = False,
    ):
        super().__init__()
        self.num_layers = num_layers
        self.memory_format = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1, bias=False), _batch_norm(channels)
        )
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: _operation(name, channels) for name in OPS})
            for _ in range(num_layers)
        )
        # The first layer has nothing to join.
        self.joints = nn.ModuleList(
            Concatenate(channels, k + 1) if skips == "concat" else Add(channels)
            for k in range(1, num_layers)
        )
        third = num_layers // 3
        self.reductions = nn.ModuleDict(
            {
                str(k): nn.ModuleList(FactorizedReduce(channels) for _ in range(k + 1))
                for k in (third, 2 * third)
            }
        )
        self.classifier = nn.Linear(channels, num_classes, bias=False)
        # `Module.to` does take the format alone; its overloads require a tensor first.
        self.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor, arch: Sequence[int]) -> Tensor:
        """Compute the logits of one architecture.

        Args:
          images: float `[B, 3, H, W]`, H and W multiples of 4.
          arch: for each layer k its operation, then k flags: whether it joins source
            i. Source 0 is the stem, source i the output of layer i - 1.

        Returns:
          Logits `[B, num_classes]`.

        Raises:
          ValueError: if the images or the architecture do not fit the network.
        """
        self._check(images, arch)
        x = self.stem(images.contiguous(memory_format=self.memory_format))
        sources = [x]
        start = 0
        for k, operations in enumerate(self.layers):
            if str(k) in self.reductions:
                reductions = self.reductions[str(k)].children()
                sources = [
                    reduce(source)
                    for reduce, source in zip(reductions, sources, strict=True)
                ]
            op, *skips = arch[start : start + k + 1]
            start += k + 1
            x = operations[OPS[op]](sources[-1])  # pyright: ignore[reportIndexIssue]
            if k > 0:
                joined = [i for i, flag in enumerate(skips) if flag]
                x = self.joints[k - 1]([*(sources[i] for i in joined), x], [*joined, k])
            sources.append(x)
        return self.classifier(x.mean((2, 3)))

    def _check(self, images: Tensor, arch: Sequence[int]) -> None:
        """Raise ValueError if an input does not fit the network."""
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != 3 or any(n % 4 for n in shape[2:]):
            raise ValueError(
                f"images have shape {shape}, expected [B, 3, H, W] with H and W "
                "multiples of 4."
            )
        bounds = [
            bound for k in range(self.num_layers) for bound in (len(OPS), *[2] * k)
        ]
        if len(arch) != len(bounds):
            raise ValueError(
                f"arch has {len(arch)} values, expected {len(bounds)}: 1 + k for each "
                f"layer k of {self.num_layers}."
            )
        for position, (value, bound) in enumerate(zip(arch, bounds, strict=True)):
            if not 0 <= value < bound:
                raise ValueError(
                    f"arch[{position}] is {value}, expected an integer from 0 to "
                    f"{bound - 1}."
                )


def make_optimizer(model: nn.Module) -> torch.optim.SGD:
    """Return the optimizer of the search: SGD with Nesterov momentum."""
    return torch.optim.SGD(
        model.parameters(),
        lr=0.05,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
        fused=True,
    )
