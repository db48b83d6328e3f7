"""Recurrent language models in eager PyTorch, which the benchmarks compare with.

Python loops run over time and nodes. Each pair of nodes has a matrix of its own, and a
step touches only those of its architecture: the others have no gradient, and plain SGD
leaves them as they are.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
}


def cell(
    x: Tensor,
    state: Tensor,
    mask: Tensor | None,
    first: Tensor,
    matrices: Sequence[Tensor],
    activations: Sequence[str],
    sources: Sequence[int],
) -> Tensor:
    """The new state `[B, H]`, the mean of the loose ends.

    Args:
      x: embedded words `[B, H]`.
      state: `[B, H]`.
      mask: `[B, H]`, of dropout, for what goes into products; none if `None`.
      first: `[2H, 2H]`, of the node that reads word and state.
      matrices: `[H, 2H]`, of the other nodes.
      activations: of all nodes.
      sources: of the nodes after the first.
    """

    def masked(read: Tensor) -> Tensor:
        return read if mask is None else read * mask

    def highway(read: Tensor, product: Tensor, activation: str) -> Tensor:
        inner, gate = product.chunk(2, dim=-1)
        return read + gate.sigmoid() * (ACTIVATIONS[activation](inner) - read)

    product = torch.cat([x, masked(state)], dim=-1) @ first
    states = [highway(state, product, activations[0])]
    for matrix, source, activation in zip(
        matrices, sources, activations[1:], strict=True
    ):
        read = states[source]
        states.append(highway(read, masked(read) @ matrix, activation))
    loose = [state for i, state in enumerate(states) if i not in sources]
    return torch.stack(loose).mean(0)


class _LanguageModel(nn.Module):
    """Words, time and dropout around a cell, with the embedding as output matrix."""

    def __init__(
        self,
        num_matrices: int,
        num_words: int,
        hidden_size: int,
        dropout: Sequence[float],
    ):
        super().__init__()
        size = hidden_size
        limit = 0.1 if size <= 300 else 0.05 if size <= 400 else 0.04

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-limit, limit))

        self.embedding = weight(num_words, size)
        self.first = weight(2 * size, 2 * size)
        self.nodes = nn.ParameterList(
            weight(size, 2 * size) for _ in range(num_matrices)
        )
        self.dropout = tuple(dropout)
        self.cell = cell

    def _mask(self, prob: float, *shape: int) -> Tensor | None:
        if not self.training or prob == 0:
            return None
        kept = torch.empty(shape, dtype=self.first.dtype, device=self.first.device)
        return kept.bernoulli_(1 - prob).div_(1 - prob)

    def run(
        self,
        inputs: tuple[Tensor, Tensor],
        rows: Sequence[int],
        activations: Sequence[str],
        sources: Sequence[int],
    ) -> Tensor:
        """Map tokens `[B, T]` and a state `[B, H]` to logits `[B, T, num_words]`."""
        tokens, state = inputs
        num_words, size = self.embedding.shape
        batch_size, num_steps = tokens.shape
        of_words, of_inputs, of_states, of_outputs = self.dropout
        x = F.embedding(tokens, self.embedding)
        words = self._mask(of_words, batch_size, num_words)
        if words is not None:
            x = x * words.gather(1, tokens)[..., None]
        mask = self._mask(of_inputs, batch_size, 1, size)
        if mask is not None:
            x = x * mask
        mask = self._mask(of_states, batch_size, size)
        matrices, hidden = [self.nodes[row] for row in rows], []
        for step in range(num_steps):
            state = self.cell(
                x[:, step], state, mask, self.first, matrices, activations, sources
            )
            hidden.append(state)
        outputs = torch.stack(hidden, dim=1)
        mask = self._mask(of_outputs, batch_size, 1, size)
        if mask is not None:
            outputs = outputs * mask
        return outputs @ self.embedding.T


class RecurrentSupernet(_LanguageModel):
    """The supernet, with a matrix for each pair of nodes.

    Args:
      num_nodes: nodes of the cell.
      num_words: size of the vocabulary.
      hidden_size: features of the state and of the embedding.
      dropout: probabilities for words, inputs, states and outputs.
    """

    def __init__(
        self,
        num_nodes: int,
        num_words: int,
        hidden_size: int,
        dropout: Sequence[float] = (0, 0, 0, 0),
    ):
        num_pairs = num_nodes * (num_nodes - 1) // 2
        super().__init__(num_pairs, num_words, hidden_size, dropout)

    def forward(self, inputs: tuple[Tensor, Tensor], arch: Sequence[int]) -> Tensor:
        """Logits of an architecture of integers."""
        names, sources = list(ACTIVATIONS), arch[1::2]
        rows = [j * (j - 1) // 2 + source for j, source in enumerate(sources, start=1)]
        return self.run(inputs, rows, [names[i] for i in arch[::2]], sources)


class RecurrentNetwork(_LanguageModel):
    """The network of one genotype.

    Args:
      activations: of all nodes.
      sources: of the nodes after the first.
      num_words: size of the vocabulary.
      hidden_size: features of the state and of the embedding.
      dropout: probabilities for words, inputs, states and outputs.
      compiled: compile the cell by `torch.compile`; the loop over time stays.
    """

    def __init__(
        self,
        activations: Sequence[str],
        sources: Sequence[int],
        num_words: int,
        hidden_size: int,
        dropout: Sequence[float] = (0, 0, 0, 0),
        compiled: bool = False,
    ):
        super().__init__(len(sources), num_words, hidden_size, dropout)
        self.activations, self.sources = tuple(activations), tuple(sources)
        if compiled:
            self.cell = torch.compile(cell, fullgraph=True, dynamic=False)

    def forward(self, inputs: tuple[Tensor, Tensor], arch: Sequence[int]) -> Tensor:
        """Logits; there is no architecture to choose."""
        del arch
        return self.run(
            inputs, range(len(self.sources)), self.activations, self.sources
        )


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Plain SGD with the learning rate of the paper."""
    return torch.optim.SGD(model.parameters(), 20.0)


def gradient(
    model: nn.Module,
    inputs: tuple[Tensor, Tensor],
    targets: Tensor,
    arch: Sequence[int],
) -> Tensor:
    """Leave the gradient of the mean cross entropy over all words in the parameters.

    Args:
      model: a supernet or network.
      inputs: int64 tokens `[B, T]` and the state `[B, H]`.
      targets: int64 `[B, T]`, the word after each.
      arch: integers, for a supernet.

    Returns:
      The mean cross entropy, a scalar on the device.
    """
    model.zero_grad()
    logits = model(inputs, arch)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    return loss.detach()


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: tuple[Tensor, Tensor],
    targets: Tensor,
    arch: Sequence[int],
) -> Tensor:
    """Train for one step, with the gradient clipped to the norm 0.25."""
    loss = gradient(model, inputs, targets, arch)
    nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    optimizer.step()
    return loss
