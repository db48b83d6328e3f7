"""The controller of the recurrent space."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas import spaces
from jaxnas.search.controllers import _base
from jaxnas.search.controllers.sequence import make_controller
from jaxnas.search.controllers.settings import ControllerSettings


class RecurrentController(_base.Controller):
    """For each node its source and activation.

    The choice of a source is fed back as its anchor over 0.1 plus its distance. Where
    node 0 has no choice, its anchor is zero.

    Attributes:
      num_nodes: nodes of the cell.
      num_activations: activations to choose from.
      chooses_first: whether node 0 chooses its activation.
    """

    num_nodes: int
    num_activations: int
    chooses_first: bool = True
    priors: ClassVar[tuple[str, ...]] = ("recency", "tied_head")

    @nn.compact
    def __call__(self, choose: _base.Choose, x: jax.Array) -> _base.Episode:
        """Take all decisions, one row of `x` `[num_decisions, ...]` for each."""
        size = self.settings.hidden_size
        first_state, step = self.lstm()
        attention = self.attention()
        start = self.uniform("start", size)
        embedding = self.uniform("embedding", self.num_activations, size)
        if self.settings.tied_head:
            head = embedding.T
        else:
            head = self.uniform("head", size, self.num_activations)
        num_anchors = max(self.num_nodes - 1, 1)  # no node reads the last one

        def node(carry, inputs):
            state, x_in, memory = carry
            j, x = inputs
            state = step(state, x_in)
            sources = jnp.arange(num_anchors, dtype=jnp.int32)
            scores = attention.score(memory.keys, state[1])
            prior = self.settings.recency * jnp.square(j - sources).astype(start.dtype)
            logits = self.squash(scores, op=False) - prior
            source = _base.decide(choose, logits, x[0], sources < j)
            distance = (j - source.choice).astype(start.dtype)
            anchor = memory.anchors[source.choice]
            x_in = jnp.where(j == 0, start, anchor / (0.1 + distance))
            memory = attention.remember(memory, j, state[1])

            state = step(state, x_in)
            logits = self.squash(state[1] @ head, op=True)
            activation = _base.decide(choose, logits, x[1])
            x_in = embedding[activation.choice]
            return (state, x_in, memory), _base.stack([source, activation])

        # Node 0 has no source; it gets one like the others, which is then left out.
        num_padded = 1 if self.chooses_first else 0
        table = jnp.concatenate([jnp.zeros_like(x[:num_padded]), x])
        table = table.reshape(-1, 2, *x.shape[1:])
        anchors = keys = jnp.zeros((num_anchors, size), start.dtype)
        carry = (first_state, start, _base.Memory(anchors, keys))
        nodes = jnp.arange(self.num_nodes, dtype=jnp.int32)[-len(table) :]
        _, decisions = jax.lax.scan(node, carry, (nodes, table))
        return _base.Episode(*(v.reshape(-1)[num_padded:] for v in decisions))


@make_controller.register
def _(
    space: spaces.RecurrentSpace, settings: ControllerSettings
) -> RecurrentController:
    return RecurrentController(
        settings,
        num_nodes=space.num_nodes,
        num_activations=len(space.activations),
        chooses_first=space.chooses_first,
    )
