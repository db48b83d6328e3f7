"""The controller of the macro space."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import spaces
from jaxnas.search.controllers import _base
from jaxnas.search.controllers.sequence import make_controller
from jaxnas.search.controllers.settings import ControllerSettings


class MacroController(_base.Controller):
    """For each layer an operation, then its skips.

    An anchor stands for each source that a skip can come from: the start embedding
    for the stem, then the hidden state of each layer. In the official code anchor i
    is that of layer i, whose output is source i + 1.

    The skip penalty is the mean over layers 1 and on of the sum over their skips of
    KL(skip probability || target). The official code takes the KL divergence of
    another probability, which is smallest at a skip probability of 0.308.

    Attributes:
      num_layers: layers of the space.
      num_ops: operations to choose from.
    """

    num_layers: int
    num_ops: int

    @nn.compact
    def __call__(self, choose: _base.Choose, x: jax.Array) -> _base.Episode:
        """Take all decisions, one row of `x` `[num_decisions, ...]` for each."""
        size = self.settings.hidden_size
        first_state, step = self.lstm()
        attention = self.attention()
        start = self.uniform("start", size)
        embedding = self.uniform("embedding", self.num_ops, size)
        head = self.uniform("head", size, self.num_ops)
        target = self.settings.skip_target
        log_target = jnp.asarray([math.log(1 - target), math.log(target)], start.dtype)

        # The decisions of layer k fill the first k + 1 columns of row k.
        num_sources = self.num_layers
        rows, columns = np.nonzero(np.tri(self.num_layers, 1 + num_sources))
        shape = (self.num_layers, 1 + num_sources, *x.shape[1:])
        table = jnp.zeros(shape, x.dtype).at[rows, columns].set(x)

        def layer(carry, inputs):
            state, x_in, memory = carry
            k, x = inputs
            state = step(state, x_in)
            logits = self.squash(state[1] @ head, op=True)
            op = _base.decide(choose, logits, x[0])

            state = step(state, embedding[op.choice])
            scores = attention.score(memory.keys, state[1])
            logits = jnp.stack([-scores, scores], axis=-1)
            logits = self.squash(logits, op=False)
            skips = _base.decide(choose, logits, x[1:])
            reachable = jnp.arange(num_sources, dtype=jnp.int32) < k
            divergence = -skips.entropy - jax.nn.softmax(logits) @ log_target
            penalty = jnp.where(reachable, divergence, 0.0).sum()

            skipped = jnp.where(reachable, skips.choice, 0).astype(start.dtype)
            mean = skipped @ memory.anchors / (1 + skipped.sum())
            x_in = jnp.where(k == 0, start, mean)
            memory = attention.remember(memory, k + 1, state[1])
            row = jax.tree.map(
                lambda one, more: jnp.concatenate([one[None], more]), op, skips
            )
            return (state, x_in, memory), (row, penalty)

        anchors = jnp.zeros((num_sources, size), start.dtype).at[0].set(start)
        memory = _base.Memory(anchors, attention.to_keys(anchors))
        layers = jnp.arange(self.num_layers, dtype=jnp.int32)
        _, (decisions, penalties) = jax.lax.scan(
            layer, (first_state, start, memory), (layers, table)
        )
        episode = _base.Episode(*(v[rows, columns] for v in decisions))
        penalty = penalties.sum() / max(self.num_layers - 1, 1)
        return episode._replace(skip_penalty=penalty)


@make_controller.register
def _(space: spaces.MacroSpace, settings: ControllerSettings) -> MacroController:
    return MacroController(
        settings, num_layers=space.num_layers, num_ops=len(space.ops)
    )
