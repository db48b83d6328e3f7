"""A controller as pure functions: sampling, scoring and greedy decoding."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.search._cardinalities import cardinalities_of, check_no_integers
from jaxnas.search.controllers._base import Choose, Episode
from jaxnas.search.controllers.sequence import make_controller
from jaxnas.search.controllers.settings import ControllerSettings, check
from jaxnas.types import Arch, Key, Params, SearchSpace


class Policy(NamedTuple):
    """A distribution over architectures, as pure functions of its parameters.

    Attributes:
      init: `key -> params`.
      sample: `(params, key, num) -> episodes`.
      score: `(params, archs) -> episodes`, for int `[num, num_decisions]` in range.
      mode: `params -> arch`, the most likely choice at every decision in turn. It may
        be far from typical: of skips with a probability of 0.4 each, it takes none.
    """

    init: Callable[[Key], Params]
    sample: Callable[[Params, Key, int], Episode]
    score: Callable[[Params, Arch], Episode]
    mode: Callable[[Params], Arch]


def policy(space: SearchSpace | Sequence[int], settings: ControllerSettings) -> Policy:
    """Make the policy of the controller of a space; see `make_controller`.

    Args:
      space: a macro, micro or recurrent space, which have controllers of their own;
        any other space or sequence of cardinalities is a plain sequence of decisions.
      settings: of the controller.

    Returns:
      A `Policy`, not compiled: every call traces the loops of the controller anew.
      Parameters are uniform within `settings.init_range`, except for the bias of the
      micro space.

    Raises:
      ValueError: if a setting is out of range or does not suit the space, or there is
        no decision, or one without a category.

    Source: official `general_controller.py`, `micro_controller.py`,
    `ptb_enas_controller.py`.
    """
    check_no_integers("reinforce", space)
    cardinalities = cardinalities_of(space)
    num_decisions, most = len(cardinalities), max(cardinalities)
    controller = make_controller(space, settings)
    check(settings, controller.priors)

    def apply(params: Params, choose: Choose, x: jax.Array) -> Episode:
        episode = controller.apply({"params": params}, choose, x)
        assert isinstance(episode, Episode)
        return episode

    def init(key: Key) -> Params:
        zeros = jnp.zeros(num_decisions, jnp.int32)
        return controller.init(key, _given, zeros)["params"]

    def sample(params: Params, key: Key, num: int) -> Episode:
        if num < 1:
            raise ValueError(f"num is {num}; expected at least 1 architecture")
        noise = jax.random.gumbel(key, (num, num_decisions, most), float)
        return jax.vmap(lambda x: apply(params, _most_likely, x))(noise)

    def score(params: Params, archs: Arch) -> Episode:
        _check_archs(archs, num_decisions)
        choices = archs.astype(jnp.int32)
        return jax.vmap(lambda x: apply(params, _given, x))(choices)

    def mode(params: Params) -> Arch:
        return apply(params, _most_likely, jnp.zeros((num_decisions, most))).arch

    return Policy(init, sample, score, mode)


def _most_likely(logits: jax.Array, noise: jax.Array) -> jax.Array:
    """With Gumbel noise this is a sample, without noise the mode."""
    noisy = logits + noise[..., : logits.shape[-1]]
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32)


def _given(logits: jax.Array, choice: jax.Array) -> jax.Array:
    del logits
    return choice


def _check_archs(archs: Arch, num_decisions: int) -> None:
    if archs.ndim != 2 or not len(archs) or archs.shape[1] != num_decisions:
        raise ValueError(
            f"archs has shape {list(archs.shape)}; expected [num, {num_decisions}]"
        )
    if not jnp.issubdtype(archs.dtype, jnp.integer):
        raise ValueError(f"archs has type {archs.dtype}; expected integers")
