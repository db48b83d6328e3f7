"""The ENAS micro supernet in eager PyTorch, which the benchmarks compare with.

Each cell holds one module per (node, input, operation), and a forward pass runs only
those its architecture names. The network and the step are those of ASNG-NAS (Akimoto
et al., 2019, section 3.2) without the auxiliary head.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_OPS = 5
"""Identity, average pooling, maximum pooling, separable 3x3, separable 5x5."""


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    """Normalize with the statistics of the batch, in training and in evaluation."""
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


def _pointwise(in_channels: int, channels: int) -> nn.Sequential:
    """ReLU, 1x1 convolution, batch normalization."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, channels, 1, bias=False),
        _batch_norm(channels),
    )


def _separable(channels: int, kernel_size: int, stride: int) -> nn.Sequential:
    """Twice ReLU, depthwise, pointwise, normalization; the first has the stride."""
    layers: list[nn.Module] = []
    for step in (stride, 1):
        layers += [
            nn.ReLU(),
            nn.Conv2d(
                channels,
                channels,
                kernel_size,
                stride=step,
                padding=kernel_size // 2,
                groups=channels,
                bias=False,
            ),
            nn.Conv2d(channels, channels, 1, bias=False),
            _batch_norm(channels),
        ]
    return nn.Sequential(*layers)


class FactorizedReduce(nn.Module):
    """Halve the resolution with two 1x1 convolutions, one pixel apart."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        half = channels // 2
        self.even = nn.Conv2d(in_channels, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, channels - half, 1, stride=2, bias=False)
        self.norm = _batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_channels, H, W]` to `[B, channels, H/2, W/2]`; even H and W."""
        x = F.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


class LooseEnds(nn.Module):
    """ReLU, 1x1 convolution and normalization of the nodes nobody reads.

    The weight has one block of columns per node, and those of the given nodes are used.
    """

    def __init__(self, channels: int, num_nodes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, num_nodes * channels, 1, 1))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.norm = _batch_norm(channels)

    def forward(self, nodes: Sequence[Tensor], loose: Sequence[int]) -> Tensor:
        """Map the `loose` ones of `nodes` `[B, C, H, W]` to `[B, C, H, W]`."""
        blocks = self.weight.split(self.weight.shape[0], dim=1)
        weight = torch.cat([blocks[n] for n in loose], dim=1)
        x = torch.cat([nodes[n] for n in loose], dim=1)
        return self.norm(F.conv2d(F.relu(x), weight))


def _ops(channels: int, stride: int) -> nn.ModuleList:
    """All operations of one edge, in the order of the encoding."""
    identity = nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    return nn.ModuleList(
        [
            identity,
            nn.AvgPool2d(3, stride, padding=1, count_include_pad=True),
            nn.MaxPool2d(3, stride, padding=1),
            _separable(channels, 3, stride),
            _separable(channels, 5, stride),
        ]
    )


class Cell(nn.Module):
    """Nodes that each add two operations on the cell inputs or earlier nodes.

    Args:
      in_channels: channels of the two inputs, the last but one and the last cell.
      channels: channels of every node and of the output.
      num_nodes: number of nodes.
      reduction: whether operations on the cell inputs halve the resolution.
      after_reduction: whether the last but one cell has twice the resolution of the
        last.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        channels: int,
        num_nodes: int,
        reduction: bool,
        after_reduction: bool,
    ):
        super().__init__()
        adapt = FactorizedReduce if after_reduction else _pointwise
        self.preprocess = nn.ModuleList(
            [adapt(in_channels[0], channels), _pointwise(in_channels[1], channels)]
        )
        self.ops = nn.ModuleList(
            nn.ModuleList(
                _ops(channels, stride=2 if reduction and source < 2 else 1)
                for source in range(node + 2)
            )
            for node in range(num_nodes)
        )
        self.loose_ends = LooseEnds(channels, num_nodes)

    def forward(self, before: Tensor, last: Tensor, arch: Sequence[int]) -> Tensor:
        """Run the operations `arch` names, four values per node.

        Args:
          before: output of the last cell but one, `[B, in_channels[0], H, W]`.
          last: output of the last cell, `[B, in_channels[1], H, W]`.
          arch: `(input_1, input_2, op_1, op_2)` of every node, one after the other.

        Returns:
          `[B, channels, H, W]`, or half of `H` and `W` for a reduction cell.
        """
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        read = set()
        for node, ops in enumerate(self.ops):
            in_1, in_2, op_1, op_2 = arch[4 * node : 4 * node + 4]
            states.append(
                ops[in_1][op_1](states[in_1])  # pyright: ignore[reportIndexIssue]
                + ops[in_2][op_2](states[in_2])  # pyright: ignore[reportIndexIssue]
            )
            read |= {in_1, in_2}
        nodes = states[2:]
        loose = [node for node in range(len(nodes)) if node + 2 not in read]
        return self.loose_ends(nodes, loose)


class MicroSupernet(nn.Module):
    """The ENAS micro supernet over NCHW images, without the auxiliary head.

    Cells `num_cells // 3` and `2 * num_cells // 3` are reduction cells; they halve the
    resolution and double the channels.

    Args:
      channels: channels of the first cells.
      num_cells: number of cells.
      num_classes: number of logits.
      num_nodes: nodes per cell.
      channels_last: keep weights and activations in the NHWC memory format.

    Source: Akimoto et al., 2019, section 3.2.
    """

    def __init__(
        self,
        channels: int = 16,
        num_cells: int = 8,
        num_classes: int = 10,
        num_nodes: int = 5,
        channels_last: bool = False,
    ):
        super().__init__()
        self.num_nodes = num_nodes
        self.memory_format = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        stem_channels = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem_channels, track_running_stats=False),
        )
        self.reductions = sorted({num_cells // 3, 2 * num_cells // 3})
        cells = []
        in_channels = (stem_channels, stem_channels)
        for index in range(num_cells):
            reduction = index in self.reductions
            channels *= 2 if reduction else 1
            after_reduction = index - 1 in self.reductions
            cells.append(
                Cell(in_channels, channels, num_nodes, reduction, after_reduction)
            )
            in_channels = (in_channels[1], channels)
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(channels, num_classes)
        # `Module.to` does take the format alone; its overloads require a tensor first.
        self.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor, arch: Sequence[int]) -> Tensor:
        """Compute the logits of one architecture.

        Args:
          images: float32 `[B, 3, H, W]`; every reduction cell must find even H and W.
          arch: `(input_1, input_2, op_1, op_2)` of every node, the normal cell before
            the reduction cell, `8 * num_nodes` values. Inputs 0 and 1 are the outputs
            of the last cell but one and of the last cell, input `n + 2` is node `n`.

        Returns:
          Logits, float32 `[B, num_classes]`.

        Raises:
          ValueError: if the images or the architecture do not fit the network.
        """
        self._check(images, arch)
        half = 4 * self.num_nodes
        normal, reduction = arch[:half], arch[half:]
        before = last = self.stem(images.contiguous(memory_format=self.memory_format))
        for index, cell in enumerate(self.cells):
            cell_arch = reduction if index in self.reductions else normal
            before, last = last, cell(before, last, cell_arch)
        return self.classifier(last.mean((2, 3)))

    def _check(self, images: Tensor, arch: Sequence[int]) -> None:
        """Raise ValueError if an input does not fit the network."""
        multiple = 2 ** len(self.reductions)
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != 3 or any(n % multiple for n in shape[2:]):
            raise ValueError(
                f"images have shape {shape}, expected [B, 3, H, W] with H and W "
                f"multiples of {multiple}."
            )
        if len(arch) != 8 * self.num_nodes:
            raise ValueError(
                f"arch has {len(arch)} values, expected {8 * self.num_nodes}: "
                f"4 for each of {self.num_nodes} nodes of two cells."
            )
        for position, value in enumerate(arch):
            node, field = position // 4 % self.num_nodes, position % 4
            bound = node + 2 if field < 2 else NUM_OPS
            if not 0 <= value < bound:
                raise ValueError(
                    f"arch[{position}] is {value}, expected an integer from 0 to "
                    f"{bound - 1}."
                )


def make_optimizer(model: nn.Module) -> torch.optim.SGD:
    """Return the optimizer of the search: SGD with momentum and weight decay."""
    return torch.optim.SGD(
        model.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4, fused=True
    )


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    archs: Sequence[Any],
) -> Tensor:
    """Update the weights once on the mean loss of several architectures.

    Every parameter is updated: one that no architecture used has a zero gradient, and
    weight decay and momentum still act on it.

    Args:
      model: the supernet; changed in place.
      optimizer: updates the parameters of `model`; changed in place.
      images: float32 `[B, 3, H, W]`.
      labels: int64 `[B]`.
      archs: the architectures, each as `MicroSupernet` takes it.

    Returns:
      The mean cross entropy over images and architectures, before the update; a scalar
      on the device, which nothing has waited for.

    Raises:
      ValueError: if there is no architecture, or as `MicroSupernet` does.
    """
    if not archs:
        raise ValueError("archs is empty, expected at least one architecture.")
    parameters = list(model.parameters())
    optimizer.zero_grad(set_to_none=False)
    for parameter in parameters:  # Optimizers skip parameters without a gradient.
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    losses = [F.cross_entropy(model(images, arch), labels) for arch in archs]
    loss = torch.stack(losses).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, max_norm=5.0, foreach=True)
    optimizer.step()
    return loss.detach()


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    archs: Sequence[Any],
) -> float:
    """Do `update`, and wait for the loss."""
    return update(model, optimizer, images, labels, archs).item()


@torch.inference_mode()
def eval_step(
    model: nn.Module, images: Tensor, labels: Tensor, arch: Sequence[int]
) -> tuple[float, float]:
    """Evaluate one architecture, normalizing with the statistics of this batch.

    Args:
      model: the supernet.
      images: float32 `[B, 3, H, W]`.
      labels: int64 `[B]`.
      arch: the architecture, as `MicroSupernet` takes it.

    Returns:
      Mean cross entropy, and the fraction of images classified correctly.

    Raises:
      ValueError: as `MicroSupernet` does.
    """
    logits = model(images, arch)
    loss = F.cross_entropy(logits, labels)
    accuracy = (logits.argmax(1) == labels).float().mean()
    return loss.item(), accuracy.item()
