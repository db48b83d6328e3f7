"""The supernet of blocks that are any graph, with shared weights, in eager PyTorch.

The network is that of `torch_ghn`, and a forward pass runs only the nodes and edges of
its architecture; its weights are parameters instead of the output of a hypernetwork.
"""

import itertools
import math

import torch
import torch_ghn
from torch import nn


class SharedWeights(torch_ghn.Hypernetwork):
    """One set of weights for all architectures, where a network asks a hypernetwork.

    Args:
      channels: channels of the first stage of the network.
      num_blocks: blocks of the network, at least 6.
      num_nodes: nodes of a block, its two inputs included.
    """

    def __init__(self, channels: int, num_blocks: int, num_nodes: int):
        nn.Module.__init__(self)  # without the parameters of a hypernetwork
        self.channels, self.num_blocks = channels, num_blocks
        self.tensors: dict[tuple[int | str, ...], nn.Parameter] = {}
        nodes = range(2, num_nodes)
        for b, v in itertools.product(range(num_blocks + 1), range(2)):
            if b == num_blocks and v == 1:
                continue  # the head has one input
            source = b - 1 - v
            shape = self.width(b), self.width(source), 1, 1
            for leaf in [torch_ghn.STEM] if source < 0 else nodes:
                self._add((b, v, leaf), shape)
        for b, v, op in itertools.product(range(num_blocks), nodes, torch_ghn.OPS):
            for name, shape in torch_ghn._node_shapes(op, self.width(b)).items():
                self._add((b, v, op, name), shape)

    def _add(self, place: tuple[int | str, ...], shape: tuple[int, ...]) -> None:
        parameter = nn.Parameter(torch.empty(shape))
        # The last four axes are those of a kernel.
        nn.init.kaiming_uniform_(parameter.flatten(0, -4), a=math.sqrt(5))
        self.tensors[place] = parameter
        self.register_parameter("_".join(map(str, place)), parameter)

    def forward(self, block: torch_ghn.Block) -> torch_ghn.Weights:
        """Select the weights that the architecture uses."""
        blocks, weights = range(self.num_blocks), {}
        for b, v in [*itertools.product(blocks, range(2)), (self.num_blocks, 0)]:
            for leaf in [torch_ghn.STEM] if b - 1 - v < 0 else block.leaves:
                weights[b, v, leaf] = self.tensors[b, v, leaf]
        for b, (v, op) in itertools.product(blocks, enumerate(block.ops, start=2)):
            for name in torch_ghn._node_shapes(op, 1):
                weights[b, v, name] = self.tensors[b, v, op, name]
        return weights


class DagSupernet(torch_ghn.DagNetwork):
    """The supernet over NCHW images; see `torch_ghn.DagNetwork` for its arguments.

    Args:
      channels: channels of the first stage.
      num_blocks: number of blocks, at least 6.
      num_nodes: nodes of a block, its two inputs included.
      num_classes: number of logits.
      channels_last: keep activations in the NHWC memory format.
    """

    def __init__(
        self,
        channels: int = 32,
        num_blocks: int = 18,
        num_nodes: int = 7,
        num_classes: int = 10,
        channels_last: bool = False,
    ):
        super().__init__(channels, num_blocks, num_classes, 1, channels_last)
        self.hypernetwork = SharedWeights(channels, num_blocks, num_nodes)
