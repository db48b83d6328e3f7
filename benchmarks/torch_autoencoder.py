"""The supernet of autoencoders in eager PyTorch, which the benchmarks compare with.

Every (node, kernel, skip) has a convolution and a transposed one of all channels. A
forward pass runs only the active nodes, with the channels that they have: slices of the
weights, where the official code computes all channels and drops some.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNELS = (1, 3, 5)


class Autoencoder(nn.Module):
    """The supernet over NCHW images, in the categorical encoding.

    Args:
      num_nodes: nodes of the grid.
      level_back: how far back a node may read.
      channels: numbers of channels to choose from.
      image_channels: channels of the images.
      channels_last: keep activations and weights in the NHWC memory format.
    """

    def __init__(
        self,
        num_nodes: int = 20,
        level_back: int = 5,
        channels: Sequence[int] = (64, 128, 256),
        image_channels: int = 3,
        channels_last: bool = False,
    ):
        super().__init__()
        self.num_nodes, self.level_back = num_nodes, level_back
        self.channels = tuple(channels)
        self.memory_format = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        widest = self.channels[-1]
        self.weights = nn.ParameterDict(
            {
                f"{part}_{node}_{skip}_{size}": self._kernel(widest, widest, size)
                for part in ("encoder", "decoder")
                for node in range(num_nodes)
                for skip in (0, 1)
                for size in KERNELS
            }
        )
        self.output = self._kernel(widest, image_channels, 3)

    def _kernel(self, small: int, large: int, size: int) -> nn.Parameter:
        """From `large` channels to `small` ones or, transposed, back."""
        kernel = torch.empty(small, large, size, size)
        nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        return nn.Parameter(kernel.contiguous(memory_format=self.memory_format))

    def active(self, arch: Sequence[int]) -> list[int]:
        """The active nodes, the one that reads the image first."""
        number = self.num_nodes + 1 - self.level_back + arch[-1]
        nodes = []
        while number > 0:
            nodes.append(number - 1)
            number = max(number - self.level_back, 0) + arch[3 * (number - 1) + 2]
        return nodes[::-1]

    def forward(self, images: Tensor, arch: Sequence[int]) -> Tensor:
        """Map `[B, C, H, W]` to restored images, for an architecture of integers."""
        x, nodes = images, []
        for node in self.active(arch):
            operation, width = arch[3 * node : 3 * node + 2]
            size, skip = KERNELS[operation // 2], 1 - operation % 2
            stride, channels = 2 - skip, self.channels[width]
            if stride == 2 and 1 in x.shape[2:]:
                continue
            kernel = self.weights[f"encoder_{node}_{skip}_{size}"]
            kernel = kernel[:channels, : x.shape[1]]
            if not nodes:  # PyTorch 2.13 crashes in the gradient of 3 channels in NHWC
                kernel = kernel.contiguous()
            x = F.relu(F.conv2d(x, kernel, stride=stride, padding=size // 2))
            x = x.contiguous(memory_format=self.memory_format)
            nodes.append((node, size, skip, channels, x))
        for node, size, skip, channels, encoded in reversed(nodes):
            kernel = self.weights[f"decoder_{node}_{skip}_{size}"]
            x = F.conv_transpose2d(
                x,
                kernel[: x.shape[1], :channels],
                stride=2 - skip,
                padding=size // 2,
                output_padding=1 - skip,
            )
            x = F.relu(x + encoded if skip else x)
        return F.conv_transpose2d(x, self.output[: x.shape[1]], padding=1)


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Plain SGD, of every parameter."""
    return torch.optim.SGD(model.parameters(), 0.025)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    arch: Sequence[int],
) -> float:
    """Update all weights once on the mean squared error, and wait for it."""
    optimizer.zero_grad(set_to_none=False)
    for parameter in model.parameters():  # optimizers skip those without a gradient
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    loss = F.mse_loss(model(images, arch), images)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.inference_mode()
def eval_step(model: nn.Module, images: Tensor, arch: Sequence[int]) -> float:
    """The mean squared error of one architecture."""
    return F.mse_loss(model(images, arch), images).item()
