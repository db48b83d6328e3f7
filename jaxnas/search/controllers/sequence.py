"""The controller of any list of decisions, and the dispatch to all the others."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.search._cardinalities import cardinalities_of
from jaxnas.search.controllers import _base
from jaxnas.search.controllers.settings import ControllerSettings


class SequenceController(_base.Controller):
    """One decision after the other; each has a head and embeddings of its own.

    Attributes:
      cardinalities: number of categories of each decision.
    """

    cardinalities: tuple[int, ...]

    @nn.compact
    def __call__(self, choose: _base.Choose, x: jax.Array) -> _base.Episode:
        """Take all decisions, one row of `x` `[num_decisions, ...]` for each."""
        size = self.settings.hidden_size
        num, most = len(self.cardinalities), max(self.cardinalities)
        first_state, step = self.lstm()
        start = self.uniform("start", size)
        embeddings = self.uniform("embeddings", num, most, size)
        heads = self.uniform("heads", num, size, most)
        valid = np.arange(most)[None] < np.array(self.cardinalities)[:, None]

        def take(carry, inputs):
            state, x_in = carry
            x, valid, head, embedding = inputs
            state = step(state, x_in)
            logits = self.squash(state[1] @ head, op=True)
            decision = _base.decide(choose, logits, x, valid)
            return (state, embedding[decision.choice]), decision

        inputs = (x, jnp.asarray(valid), heads, embeddings)
        _, decisions = jax.lax.scan(take, (first_state, start), inputs)
        return _base.Episode(*decisions)


@functools.singledispatch
def make_controller(space: Any, settings: ControllerSettings) -> _base.Controller:
    """Make the controller of a space, chosen by the class of the space.

    A space from outside the package registers a subclass of `Controller`:

        @search.controllers.make_controller.register
        def _(space: MySpace, settings: search.ControllerSettings):
            return MyController(settings, num_nodes=space.num_nodes)

    Args:
      space: a search space or a sequence of cardinalities.
      settings: of the controller.

    Returns:
      What is registered for the class of the space, or for the nearest class that it
      inherits from; otherwise a `SequenceController`.

    Raises:
      ValueError: if there is no decision, or one without a category.
    """
    return SequenceController(settings, cardinalities_of(space))
