"""A network of cells in eager PyTorch, which the benchmarks compare with.

The network is that of DARTS (Liu et al. 2019) with running statistics, as
`jaxnas.networks.micro` makes it by default. A row of a loss surface is measured as the
official code of Li et al. (2018) does, and gradients one image after the other.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
import torch_micro
from torch import Tensor, nn

from jaxnas.genotypes import Edge, Genotype


class FactorizedReduce(torch_micro.FactorizedReduce):
    """ReLU and two 1x1 convolutions, one pixel apart, with running statistics."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__(in_channels, channels)
        self.norm = nn.BatchNorm2d(channels)


def _pointwise(in_channels: int, channels: int) -> nn.Sequential:
    """ReLU, 1x1 convolution, normalization."""
    return nn.Sequential(
        OrderedDict(
            relu=nn.ReLU(),
            conv=nn.Conv2d(in_channels, channels, 1, bias=False),
            norm=nn.BatchNorm2d(channels),
        )
    )


def _separable(
    channels: int, size: int, stride: int, num_layers: int, dilation: int
) -> nn.Sequential:
    """ReLU, depthwise, pointwise, normalization; the first layer has the stride."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(num_layers):
        layers[f"relu_{i}"] = nn.ReLU()
        layers[f"depthwise_{i}"] = nn.Conv2d(
            channels,
            channels,
            size,
            stride=stride if i == 0 else 1,
            padding=dilation * (size // 2),
            dilation=dilation,
            groups=channels,
            bias=False,
        )
        layers[f"pointwise_{i}"] = nn.Conv2d(channels, channels, 1, bias=False)
        layers[f"norm_{i}"] = nn.BatchNorm2d(channels)
    return nn.Sequential(layers)


def _make_edge(op: str, channels: int, stride: int) -> nn.Module:
    if op == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if op == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    if op == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if op.startswith("sep_conv"):
        return _separable(channels, int(op[-1]), stride, num_layers=2, dilation=1)
    if op.startswith("dil_conv"):
        return _separable(channels, int(op[-1]), stride, num_layers=1, dilation=2)
    raise ValueError(f"operation {op!r} is none of this network's")


class Cell(nn.Module):
    """Nodes that each add two operations on the cell inputs or earlier nodes.

    Args:
      pairs: operation and source of each edge, two for a node.
      concat: the nodes that are concatenated to the output.
      in_channels: channels of the two inputs, the last but one and the last cell.
      channels: channels of every node.
      reduction: whether operations on the cell inputs halve the resolution.
      after_reduction: whether the last but one cell has twice the resolution of the
        last.
    """

    def __init__(
        self,
        pairs: Sequence[Edge],
        concat: Sequence[int],
        in_channels: tuple[int, int],
        channels: int,
        reduction: bool,
        after_reduction: bool,
    ):
        super().__init__()
        self.sources, self.concat = [source for _, source in pairs], concat
        adapt = FactorizedReduce if after_reduction else _pointwise
        self.preprocess = nn.ModuleList(
            [adapt(in_channels[0], channels), _pointwise(in_channels[1], channels)]
        )
        self.edges = nn.ModuleList(
            _make_edge(op, channels, stride=2 if reduction and source < 2 else 1)
            for op, source in pairs
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Map `[B, in_channels, H, W]` to `[B, len(concat) * channels, H, W]`.

        `H` and `W` are halved by a reduction cell.
        """
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        for first in range(0, len(self.edges), 2):
            left, right = (
                self.edges[edge](states[self.sources[edge]])
                for edge in (first, first + 1)
            )
            states.append(left + right)
        return torch.cat([states[n] for n in self.concat], dim=1)


class CellNetwork(nn.Module):
    """The network over NCHW images, without auxiliary head and drop path.

    Cells `num_cells // 3` and `2 * num_cells // 3` are reduction cells; they halve the
    resolution and double the channels.

    Args:
      genotype: the two cells; of convolutions, separable and dilated ones.
      channels: channels of the first cells, before concatenation.
      num_cells: number of cells, at least 3.
      num_classes: number of logits.
      image_channels: channels of the images.
      channels_last: keep weights and activations in the NHWC memory format.

    Raises:
      ValueError: if the genotype has an operation that is not supported.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int = 36,
        num_cells: int = 20,
        num_classes: int = 10,
        image_channels: int = 3,
        channels_last: bool = False,
    ):
        super().__init__()
        self.memory_format = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        stem_channels = 3 * channels
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(image_channels, stem_channels, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(stem_channels),
            )
        )
        reductions = (num_cells // 3, 2 * num_cells // 3)
        cells, in_channels = [], (stem_channels, stem_channels)
        for index in range(num_cells):
            reduction = index in reductions
            channels *= 2 if reduction else 1
            pairs = genotype.reduce if reduction else genotype.normal
            concat = genotype.reduce_concat if reduction else genotype.normal_concat
            after_reduction = index - 1 in reductions
            cells.append(
                Cell(pairs, concat, in_channels, channels, reduction, after_reduction)
            )
            in_channels = (in_channels[1], len(concat) * channels)
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(in_channels[1], num_classes)
        # `Module.to` does take the format alone; its overloads require a tensor first.
        self.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to logits `[B, num_classes]`; H and W multiples of 4."""
        before = last = self.stem(images.contiguous(memory_format=self.memory_format))
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(last.mean((2, 3)))


class OneArchitecture(nn.Module):
    """A network of one architecture, called as a supernet is.

    Args:
      network: of images alone.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, arch: Sequence[int]) -> Tensor:
        """Map images to what the network makes of them; `arch` is empty."""
        del arch
        return self.network(images)


@torch.no_grad()
def measure_row(
    model: nn.Module,
    plane: Sequence[Sequence[Tensor]],
    batches: Sequence[tuple[Tensor, Tensor]],
    alphas: Iterable[float],
    beta: float,
) -> list[float]:
    """Measure the loss at each point of a row, batch after batch.

    Args:
      model: in evaluation mode; its parameters are replaced.
      plane: the center and two directions, in the order of the model's parameters.
      batches: images and labels, of equal size.
      alphas: places along the first direction.
      beta: the place along the second one.

    Returns:
      The mean cross entropies.

    Source: Li et al. (2018), official net_plotter.py, `set_weights`, and evaluation.py.
    """
    losses = []
    for alpha in alphas:
        for parameter, w, x, y in zip(model.parameters(), *plane, strict=True):
            parameter.data = w + alpha * x + beta * y
        total = 0.0
        for images, labels in batches:
            total += F.cross_entropy(model(images), labels).item()
        losses.append(total / len(batches))
    return losses


def gradient_variance(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Measure the variance of the gradient, one image after the other.

    Args:
      model: in evaluation mode; the gradients of its parameters are overwritten.
      images: float32 `[num, C, H, W]`.
      labels: int64 `[num]`.

    Returns:
      The mean squared norm of a gradient less that of the mean gradient.
    """
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    squares = torch.zeros(())
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(image), label).backward()
        for parameter, summed in zip(parameters, total, strict=True):
            gradient = parameter.grad
            assert gradient is not None  # every parameter takes part
            squares += gradient.square().sum()
            summed += gradient
    num = len(images)
    square_of_total = torch.stack([summed.square().sum() for summed in total]).sum()
    return ((squares - square_of_total / num) / num).item()
