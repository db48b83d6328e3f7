"""The controller of the micro space."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import spaces
from jaxnas.search.controllers import _base
from jaxnas.search.controllers.sequence import make_controller
from jaxnas.search.controllers.settings import ControllerSettings


class MicroController(_base.Controller):
    """Two inputs and two operations for each node.

    The reduction cell continues from the state that the normal cell ends with. The
    two inputs of a cell have keys to be attended to, but zeros as anchors.

    Attributes:
      num_nodes: nodes of a cell.
      ops: names of the operations, of which `sep_conv_*` can be preferred.
    """

    num_nodes: int
    ops: tuple[str, ...]
    priors: ClassVar[tuple[str, ...]] = ("separable_bias", "separable_offset")

    @nn.compact
    def __call__(self, choose: _base.Choose, x: jax.Array) -> _base.Episode:
        """Take all decisions, one row of `x` `[num_decisions, ...]` for each."""
        size, settings = self.settings.hidden_size, self.settings
        separable = np.array([op.startswith("sep_conv") for op in self.ops])
        first_state, step = self.lstm()
        attention = self.attention()
        start = self.uniform("start", size)
        embedding = self.uniform("embedding", len(self.ops), size)
        head = self.uniform("head", size, len(self.ops))
        bias = self.param(
            "bias", lambda key: jnp.asarray(separable * settings.separable_bias, float)
        )
        offset = np.where(separable, 1, -1) * settings.separable_offset
        offsets = jnp.asarray([offset, np.zeros_like(offset)], start.dtype)
        num_anchors = self.num_nodes + 1  # no node comes after the last one

        def cell(state, inputs):
            x, offset = inputs

            def node(carry, inputs):
                state, memory = carry
                i, x = inputs
                earlier = jnp.arange(num_anchors, dtype=jnp.int32) < i
                x_in, decisions = start, []
                for side in (0, 1):
                    state = step(state, x_in)
                    scores = attention.score(memory.keys, state[1])
                    logits = self.squash(scores, op=False)
                    decisions.append(_base.decide(choose, logits, x[side], earlier))
                    x_in = memory.anchors[decisions[-1].choice]
                for side in (2, 3):
                    state = step(state, x_in)
                    logits = self.squash(state[1] @ head + bias, op=True) + offset
                    decisions.append(_base.decide(choose, logits, x[side]))
                    x_in = embedding[decisions[-1].choice]
                state = step(state, x_in)
                memory = attention.remember(memory, i, state[1])
                return (state, memory), _base.stack(decisions)

            anchors = keys = jnp.zeros((num_anchors, size), start.dtype)
            for i in (0, 1):
                state = step(state, start)
                keys = keys.at[i].set(attention.to_keys(state[1]))
            nodes = jnp.arange(2, 2 + self.num_nodes, dtype=jnp.int32)
            carry = (state, _base.Memory(anchors, keys))
            (state, _), decisions = jax.lax.scan(node, carry, (nodes, x))
            return state, decisions

        table = x.reshape(2, self.num_nodes, 4, *x.shape[1:])
        _, decisions = jax.lax.scan(cell, first_state, (table, offsets))
        return _base.Episode(*(v.reshape(-1) for v in decisions))


@make_controller.register
def _(space: spaces.MicroSpace, settings: ControllerSettings) -> MicroController:
    return MicroController(settings, num_nodes=space.num_nodes, ops=space.ops)
