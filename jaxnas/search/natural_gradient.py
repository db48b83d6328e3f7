"""Stochastic natural gradient over categorical distributions (ASNG).

Akimoto et al. 2019, "Adaptive Stochastic Natural Gradient Method for One-Shot Neural
Architecture Search", Algorithm 1. Every decision is an independent categorical
variable; the parameters `theta` are its probabilities, in which the natural gradient
of the log-likelihood is simply `one_hot(choice) - theta`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.search.uniform import check_cardinalities
from jaxnas.types import Arch, Key, Losses, Metrics, Searcher


class AsngState(NamedTuple):
    """The distribution and what adapts its step size; names as in the paper.

    Attributes:
      theta: probabilities `[num_decisions, max_cardinality]`, zero past a decision's
        last category.
      s: accumulated normalised gradient `[n_theta]`, where `n_theta` is the number of
        free parameters, `sum(cardinalities - 1)`.
      gamma: scalar, how far `s` has left its start at zero.
      Delta: scalar; the trust region has radius `init_delta / Delta`.
    """

    theta: jax.Array
    s: jax.Array
    gamma: jax.Array
    Delta: jax.Array


def utility(losses: Losses) -> tuple[jax.Array, jax.Array]:
    """Weights by rank: positive for the best quarter, negative for the worst.

    Equal losses share the mean of their weights; losses are equal if they differ by
    less than 1e-14 of their size. NaN counts as infinity, which ranks last. Unlike in
    the official code, losses of zero, below zero, or infinity can be equal too.

    Args:
      losses: `[num]`.

    Returns:
      `(weights, order)`: `weights[j]` belongs to `losses[order[j]]`.
    """
    num = losses.shape[0]
    num_best = math.ceil(0.25 * num)
    by_rank = np.zeros(num)
    by_rank[:num_best] = 1 / num_best
    by_rank[num - num_best :] = -1 / num_best

    losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
    order = jnp.argsort(losses)
    ranked = losses[order]
    better, worse = ranked[:-1], ranked[1:]
    # The difference of two infinities is not a number, hence both conditions.
    tied = (worse == better) | (worse - better < 1e-14 * jnp.abs(better))
    group = jnp.concatenate([jnp.zeros(1, bool), ~tied]).cumsum()
    member = (group[:, None] == group[None, :]).astype(losses.dtype)
    weights = member @ jnp.asarray(by_rank, losses.dtype) / member.sum(1)
    return weights, order


def asng(
    cardinalities: Sequence[int],
    alpha: float = 1.5,
    init_delta: float = 1.0,
    *,
    max_Delta: float = math.inf,
) -> Searcher:
    """Adaptive stochastic natural gradient.

    Args:
      cardinalities: number of categories of each decision.
      alpha: signal-to-noise threshold above which the trust region grows; noise
        alone has a ratio of 1.
      init_delta: first radius of the trust region, in the Fisher norm.
      max_Delta: upper limit of `Delta`, which bounds how far the radius can shrink.

    Returns:
      A `Searcher` whose state is an `AsngState`. `tell` needs two or more
      architectures; it leaves the state unchanged if all of them are equal or have
      equal losses.

    Raises:
      ValueError: if a parameter is out of range, or if the smallest probabilities that
        keep the distribution from degenerating do not fit: with `n` decisions of more
        than one category, each needs `1 / (n * (cardinality - 1))` for every category.

    Source: paper, Algorithm 1; official `categorical_asng.py`.
    """
    cardinalities = check_cardinalities(cardinalities)
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; expected a positive number")
    categories = np.array(cardinalities)
    n_theta = int((categories - 1).sum())
    num_open = int((categories > 1).sum())
    if not 0 < init_delta < 2 * math.sqrt(max(n_theta, 1)):
        raise ValueError(
            f"init_delta is {init_delta}; expected a number between 0 and "
            f"{2 * math.sqrt(max(n_theta, 1)):.3g}"
        )
    if not max_Delta > 0:
        raise ValueError(f"max_Delta is {max_Delta}; expected a positive number")
    for decision, cardinality in enumerate(cardinalities):
        if cardinality > 1 and num_open * (cardinality - 1) <= cardinality:
            raise ValueError(
                f"decision {decision} has {cardinality} categories, and {num_open} "
                f"decision(s) have more than one: the smallest probabilities would add "
                f"up to 1 or more; expected more than "
                f"{cardinality / (cardinality - 1):.3g} such decisions"
            )

    index = np.arange(categories.max())[None]
    valid = index < categories[:, None]
    # The last category of a decision is not free: it is what the others leave.
    rows, columns = np.nonzero(index < categories[:, None] - 1)
    last = categories - 1
    with np.errstate(divide="ignore"):
        theta_min = np.where(categories > 1, 1 / (num_open * (categories - 1)), 0.0)

    def init(key: Key) -> AsngState:
        del key
        theta = jnp.asarray(np.where(valid, 1 / categories[:, None], 0.0), float)
        zero = jnp.zeros((), theta.dtype)
        return AsngState(theta, jnp.zeros(n_theta, theta.dtype), zero, zero + 1)

    def ask(state: AsngState, key: Key, num: int) -> Arch:
        uniform = jax.random.uniform(
            key, (num, len(cardinalities), 1), state.theta.dtype
        )
        chosen = (jnp.cumsum(state.theta, axis=1)[None] <= uniform).sum(2)
        # Rounding can leave the last sum a little below 1.
        return jnp.minimum(chosen, jnp.asarray(last)[None]).astype(jnp.int32)

    def restrict(theta):
        """Raise probabilities to their minimum and rescale what lies above it."""
        low = jnp.asarray(theta_min, theta.dtype)[:, None]
        theta = jnp.where(valid, jnp.maximum(theta, low), 0.0)
        total = theta.sum(1, keepdims=True)
        room = total - low * jnp.asarray(categories, theta.dtype)[:, None]
        excess = jnp.where(room > 0, (total - 1) / jnp.where(room > 0, room, 1), 0.0)
        theta = jnp.where(valid, theta - excess * (theta - low), 0.0)
        return theta / theta.sum(1, keepdims=True)

    def tell(
        state: AsngState, archs: Arch, losses: Losses
    ) -> tuple[AsngState, Metrics]:
        theta, s, gamma, Delta = state
        delta = init_delta / Delta
        beta = delta / math.sqrt(n_theta)

        weights, order = utility(losses.astype(theta.dtype))
        one_hot = jax.nn.one_hot(archs[order], theta.shape[1], dtype=theta.dtype)
        gradient = (weights[:, None, None] * (one_hot - theta[None])).mean(0)

        # The square root of the Fisher matrix turns the natural gradient into a
        # vector whose Euclidean norm is the Fisher norm of the step.
        root = jnp.sqrt(theta)
        root_last = root[np.arange(len(cardinalities)), last][:, None]
        free = jnp.where(index < last[:, None], gradient, 0.0).sum(1, keepdims=True)
        scale = free / (jnp.square(root_last) + root_last)
        whitened = gradient / jnp.where(valid, root, 1) + root * scale
        whitened = whitened[rows, columns]
        # The weights add up to zero, so that architectures may cancel: all are equal,
        # or the best are equal to the worst. Rounding would be all that is left then.
        votes = jnp.abs((weights[:, None, None] * one_hot).sum(0)).max()
        informative = (votes > 1e-6) & (archs != archs[:1]).any()
        norm = jnp.where(informative, jnp.linalg.norm(whitened), 1)

        new_theta = restrict(theta + delta * gradient / norm)
        new_s = (1 - beta) * s + jnp.sqrt(beta * (2 - beta)) * whitened / norm
        new_gamma = jnp.square(1 - beta) * gamma + beta * (2 - beta)
        new_Delta = jnp.minimum(
            Delta * jnp.exp(beta * (new_gamma - jnp.square(new_s).sum() / alpha)),
            max_Delta,
        )
        state = jax.tree.map(
            lambda new, old: jnp.where(informative, new, old),
            AsngState(new_theta, new_s, new_gamma, new_Delta),
            state,
        )
        return state, {
            "theta_max_mean": state.theta.max(1).mean(),
            "delta": init_delta / state.Delta,
            "signal_to_noise": jnp.square(state.s).sum()
            / jnp.where(state.gamma > 0, state.gamma, 1),
        }

    def mode(state: AsngState) -> Arch:
        return jnp.argmax(state.theta, axis=1).astype(jnp.int32)

    return Searcher(init, ask, tell, mode)
