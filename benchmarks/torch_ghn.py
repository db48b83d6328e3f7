"""A graph hypernetwork and its network in eager PyTorch, which the benchmarks time.

A loop over blocks, phases and nodes along the edges that exist; weights are written
for what the architecture uses only, those of one shape together. The mathematics are
those of `jaxnas.ghn` and `jaxnas.supernets.dag` with their defaults (Zhang et al. 2019,
sections 3 and 4).
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OPS = (
    "skip_connect",
    "conv_1x1",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
    "max_pool_3x3",
    "avg_pool_3x3",
)
"""The operations, in the order of the embeddings."""

Place = tuple[int, int, str | int]
"""Block, node, and the name of an array of weights; or block, input node (0 or 1) and
the leaf that its 1x1 convolution reads, `STEM` for the stem."""

STEM = -1

Weights = dict[Place, Tensor]
"""Convolution kernels, as `F.conv2d` takes them; separable ones have a leading axis."""


class Block(NamedTuple):
    """The graph of a block.

    Attributes:
      ops: operation of each node from node 2 on.
      inputs: nodes that each node reads; none for nodes 0 and 1.
      outputs: nodes that read each node.
      leaves: nodes from node 2 on that no node reads.
    """

    ops: Sequence[str]
    inputs: list[Sequence[int]]
    outputs: list[list[int]]
    leaves: list[int]


def make_block(ops: Sequence[str], inputs: Sequence[Sequence[int]]) -> Block:
    """Read the operations and inputs of the nodes from node 2 on."""
    reads = [(), (), *inputs]
    outputs = [
        [v for v in range(len(reads)) if u in reads[v]] for u in range(len(reads))
    ]
    leaves = [v for v in range(2, len(reads)) if not outputs[v]]
    return Block(ops, reads, outputs, leaves)


def _kernel_size(op: str) -> int:
    return int(op[-1])


def _node_shapes(op: str, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of an operation by name."""
    if op == "conv_1x1":
        return {"kernel": (width, width, 1, 1)}
    if op == "conv_7x1_1x7":
        return {
            "kernel_1x7": (width, width, 1, 7),
            "kernel_7x1": (width, width, 7, 1),
        }
    if "conv" in op:
        num_layers, size = (2 if op.startswith("sep") else 1), _kernel_size(op)
        return {
            "depthwise": (num_layers, width, 1, size, size),
            "pointwise": (num_layers, width, width, 1, 1),
        }
    return {}


def _cut(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Cut the first axes to a shape, height and width, the last, at the center."""
    for axis, length in enumerate(shape):
        surplus = max(x.shape[axis] - length, 0)
        start = surplus // 2 if axis >= len(shape) - 2 else 0
        x = x.narrow(axis, start, x.shape[axis] - surplus)
    return x


class Hypernetwork(nn.Module):
    """Write the weights of networks whose blocks are graphs.

    Args:
      channels: channels of the first stage of the network.
      num_blocks: blocks of the network, at least 6.
      hidden_size: size of the embedding of a node.
      num_steps: phases of message passing in a block, each there and back.
      decoder_size: hidden units of the decoder.
      tile: the most channels that are generated; larger kernels repeat them. As many
        as the widest layer has if `None`.
    """

    def __init__(
        self,
        channels: int = 32,
        num_blocks: int = 18,
        hidden_size: int = 32,
        num_steps: int = 5,
        decoder_size: int = 64,
        tile: int | None = None,
    ):
        super().__init__()
        self.channels, self.num_blocks, self.num_steps = channels, num_blocks, num_steps
        self.types = nn.Embedding(1 + len(OPS), hidden_size)
        self.message = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
        )
        self.update = nn.GRUCell(hidden_size, hidden_size)
        # The gates of the cell have two biases; the second ones are to stay zero.
        is_free = torch.arange(3 * hidden_size) >= 2 * hidden_size
        with torch.no_grad():
            self.update.bias_hh.mul_(is_free)
        self.update.bias_hh.register_hook(lambda gradient: gradient * is_free)
        self.node_hidden = nn.Linear(hidden_size, decoder_size)
        self.edge_hidden = nn.Linear(2 * hidden_size, decoder_size)
        tile = 4 * channels if tile is None else tile
        first, widest = min(channels, tile), min(4 * channels, tile)
        self.tiles = {
            "depthwise": (2, widest, 1, 5, 5),
            "pointwise": (2, widest, widest, 1, 1),
            **_node_shapes("conv_1x1", widest),
            **_node_shapes("conv_7x1_1x7", widest),
            "edge": (widest, widest, 1, 1),
            **dict.fromkeys(("first_0", "first_1", "second_1"), (first, first, 1, 1)),
        }
        self.branches = nn.ModuleDict(
            {
                name: nn.Linear(decoder_size, torch.Size(shape).numel())
                for name, shape in self.tiles.items()
            }
        )

    def stage(self, block: int) -> int:
        """The stage of a block, 0 to 2; the head belongs to the last."""
        return sum(block >= i * self.num_blocks // 3 for i in (1, 2))

    def width(self, block: int) -> int:
        """Channels of a block; the stem, block -1, has those of the first."""
        return self.channels * 2 ** self.stage(block)

    def live_blocks(self, block: Block) -> list[int]:
        """The blocks that the logits depend on."""
        every = 1 if block.outputs[0] else 2
        return list(range(self.num_blocks - 1, -1, -every))[::-1]

    def propagate(
        self, states: list[Tensor], block: Block, passed: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """Let the nodes of one block send each other messages, there and back.

        Args:
          states: of each node, `[1, hidden_size]`.
          block: the graph.
          passed: what nodes 0 and 1 receive in addition whenever they are updated.

        Returns:
          The final states.
        """
        there = [
            (v, sources)
            for v, sources in enumerate(block.inputs)
            if v >= 2 or block.outputs[v]
        ]
        back = [(v, readers) for v, readers in enumerate(block.outputs) if readers]
        states = list(states)
        messages = list(self.message(torch.cat(states)).split(1))
        for node, others in (there + back[::-1]) * self.num_steps:
            received = [messages[other] for other in others]
            received += [passed[node]] if node < 2 else []
            message = functools.reduce(torch.add, received)
            states[node] = self.update(message, states[node])
            messages[node] = self.message(states[node])
        return states

    def embed(self, block: Block) -> Tensor:
        """Embed the nodes of all blocks, `[num_blocks + 1, num_nodes, hidden_size]`.

        The head is one more block, of which only node 0 counts.
        """
        types = torch.tensor([0, 0, *(1 + OPS.index(op) for op in block.ops)])
        initial = list(self.types(types).split(1))
        nothing = torch.zeros_like(initial[0])
        counted = [v for v in range(len(initial)) if v >= 2 or block.outputs[v]]
        before, embeddings = (nothing, nothing), []
        for _ in range(self.num_blocks):
            states = self.propagate(initial, block, before)
            mean = torch.cat([states[v] for v in counted]).mean(0, keepdim=True)
            before = (F.layer_norm(mean, mean.shape[1:]) + before[0].roll(1), before[0])
            embeddings.append(torch.cat(states))
        head = initial[0]
        for _ in range(self.num_steps):
            head = self.update(before[0], head)
        return torch.stack([*embeddings, torch.cat([head, *initial[1:]])])

    def places(self, block: Block) -> dict[tuple[str, tuple[int, ...]], list[Place]]:
        """All weights that are needed, by branch of the decoder and shape."""
        places = defaultdict(list)
        for b in [*self.live_blocks(block), self.num_blocks]:
            width, is_head = self.width(b), b == self.num_blocks
            for v in range(2):
                source = b - 1 - v
                if not (v == 0 if is_head else block.outputs[v]):
                    continue
                shape = (width, self.width(source), 1, 1)
                if source < 0:
                    branch = f"{('first', 'second')[b]}_{v}"
                    places[branch, shape].append((b, v, STEM))
                else:
                    places["edge", shape] += [(b, v, leaf) for leaf in block.leaves]
            for v, op in enumerate(() if is_head else block.ops, start=2):
                for name, shape in _node_shapes(op, width).items():
                    places[name, shape].append((b, v, name))
        return places

    def write(self, branch: str, shape: tuple[int, ...], hidden: Tensor) -> Tensor:
        """Write arrays of one shape from hidden units `[num, decoder_size]`."""
        linear, tile = self.branches[branch], self.tiles[branch]
        assert isinstance(linear, nn.Linear)
        weight = _cut(linear.weight.view(*tile, -1), shape)
        bias = _cut(linear.bias.view(tile), shape)
        values = F.linear(hidden, weight.flatten(0, -2), bias.flatten())
        values = values.view(-1, *bias.shape)
        copies = [-(-n // given) for n, given in zip(shape, bias.shape, strict=True)]
        if max(copies) > 1:
            values = _cut(values.repeat(1, *copies), (len(values), *shape))
        return values

    def forward(self, block: Block) -> Weights:
        """Write the weights that the architecture uses."""
        embeddings = self.embed(block)
        node_hidden = F.relu(self.node_hidden(embeddings))
        weights: Weights = {}
        for (branch, shape), places in self.places(block).items():
            blocks, nodes, leaves = map(list, zip(*places, strict=True))
            if branch == "edge":
                sources = [b - 1 - v for b, v in zip(blocks, nodes, strict=True)]
                ends = embeddings[sources, leaves], embeddings[blocks, nodes]
                hidden = F.relu(self.edge_hidden(torch.cat(ends, dim=1)))
            else:
                hidden = node_hidden[blocks, nodes]
            arrays = self.write(branch, shape, hidden).unbind()
            weights.update(zip(places, arrays, strict=True))
        return weights


def _norm(x: Tensor) -> Tensor:
    """Normalize with the statistics of the batch."""
    return F.batch_norm(x, None, None, training=True)


def _apply(op: str, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Apply an operation of a node to one of its inputs."""
    if op == "skip_connect":
        return x
    if op == "max_pool_3x3":
        return F.max_pool2d(x, 3, stride=1, padding=1)
    if op == "avg_pool_3x3":
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    if op == "conv_1x1":
        return _norm(F.conv2d(F.relu(x), weights["kernel"]))
    if op == "conv_7x1_1x7":
        x = F.conv2d(F.relu(x), weights["kernel_1x7"], padding=(0, 3))
        return _norm(F.conv2d(x, weights["kernel_7x1"], padding=(3, 0)))
    dilation = 2 if op.startswith("dil") else 1
    padding = dilation * (_kernel_size(op) // 2)
    for depthwise, pointwise in zip(
        weights["depthwise"], weights["pointwise"], strict=True
    ):
        x = F.conv2d(
            F.relu(x),
            depthwise,
            padding=padding,
            dilation=dilation,
            groups=len(depthwise),
        )
        x = _norm(F.conv2d(x, pointwise))
    return x


class DagNetwork(nn.Module):
    """The network over NCHW images, whose weights a hypernetwork writes.

    Args:
      channels: channels of the first stage.
      num_blocks: number of blocks, at least 6.
      num_classes: number of logits.
      tile: as for `Hypernetwork`.
      channels_last: keep activations in the NHWC memory format.
    """

    def __init__(
        self,
        channels: int = 32,
        num_blocks: int = 18,
        num_classes: int = 10,
        tile: int | None = None,
        channels_last: bool = False,
    ):
        super().__init__()
        self.memory_format = (
            torch.channels_last if channels_last else torch.contiguous_format
        )
        self.hypernetwork = Hypernetwork(channels, num_blocks, tile=tile)
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels, track_running_stats=False),
        )
        self.classifier = nn.Linear(4 * channels, num_classes)

    def forward(
        self, images: Tensor, arch: tuple[Sequence[str], Sequence[Sequence[int]]]
    ) -> Tensor:
        """Write the weights of one architecture and compute its logits.

        Args:
          images: float `[B, 3, H, W]`, H and W multiples of 4.
          arch: operations and inputs of the nodes from node 2 on.

        Returns:
          Logits `[B, num_classes]`.
        """
        block, ghn = make_block(*arch), self.hypernetwork
        weights = ghn(block)
        stem = self.stem(images.contiguous(memory_format=self.memory_format))
        leaves = {-2: [stem], -1: [stem]}

        def bottleneck(b: int, v: int) -> Tensor:
            """ReLU, 1x1 convolution of the leaves of a block, normalization."""
            source = b - 1 - v
            names = [STEM] if source < 0 else block.leaves
            kernel = torch.cat([weights[b, v, leaf] for leaf in names], dim=1)
            x = F.relu(torch.cat(leaves[source], dim=1))
            stride = 2 ** (ghn.stage(b) - ghn.stage(source))
            return _norm(F.conv2d(x, kernel, stride=stride))

        for b in ghn.live_blocks(block):
            states = {v: bottleneck(b, v) for v in range(2) if block.outputs[v]}
            for v, op in enumerate(block.ops, start=2):
                row = {
                    name: weights[b, v, name] for name in _node_shapes(op, ghn.width(b))
                }
                inputs = [_apply(op, states[u], row) for u in block.inputs[v]]
                states[v] = functools.reduce(torch.add, inputs)
            leaves[b] = [states[v] for v in block.leaves]
        x = F.relu(bottleneck(ghn.num_blocks, 0))
        return self.classifier(x.mean((2, 3)))


def make_optimizer(model: nn.Module) -> torch.optim.Adam:
    """Return the optimizer of the search: Adam."""
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
