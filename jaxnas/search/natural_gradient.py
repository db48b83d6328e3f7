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

from jaxnas.search._cardinalities import cardinalities_of
from jaxnas.types import Arch, Key, Losses, Metrics, Searcher, SearchSpace


class AsngState(NamedTuple):
    """The distribution and what adapts its step size; names as in the paper.

    Attributes:
      theta: probabilities `[num_decisions, max_cardinality]`, zero past a decision's
        last category.
      s: accumulated normalized gradient `[n_theta]`, where `n_theta` is the number of
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


class _Categorical:
    """Independent categorical variables, padded to a common number of categories.

    All about paddings, last categories and smallest probabilities is here, so that the
    searcher can be written as in the paper. Arrays over categories are
    `[num_decisions, max_cardinality]`.
    """

    def __init__(self, cardinalities: Sequence[int]):
        self.sizes = sizes = np.array(cardinalities)
        index = np.arange(sizes.max())[None]
        self.valid = index < sizes[:, None]
        # The last category of a decision is not free: it is what the others leave.
        self.last = sizes - 1
        self.is_free = index < self.last[:, None]
        self.n_theta = int(self.is_free.sum())
        self.num_open = int((sizes > 1).sum())
        with np.errstate(divide="ignore"):
            self.theta_min = np.where(sizes > 1, 1 / (self.num_open * (sizes - 1)), 0.0)

    def check(self) -> None:
        """`ValueError` if the smallest probabilities of a decision do not fit."""
        for decision, size in enumerate(self.sizes.tolist()):
            if size > 1 and self.num_open * (size - 1) <= size:
                raise ValueError(
                    f"decision {decision} has {size} categories, and {self.num_open} "
                    f"decision(s) have more than one: the smallest probabilities would "
                    f"add up to 1 or more; expected more than {size / (size - 1):.3g} "
                    f"such decisions"
                )

    def uniform(self) -> jax.Array:
        return jnp.asarray(np.where(self.valid, 1 / self.sizes[:, None], 0.0), float)

    def sample(self, theta: jax.Array, key: Key, num: int) -> Arch:
        uniform = jax.random.uniform(key, (num, len(self.sizes), 1), theta.dtype)
        chosen = (jnp.cumsum(theta, axis=1)[None] <= uniform).sum(2)
        # Rounding can leave the last sum a little below 1.
        return jnp.minimum(chosen, jnp.asarray(self.last)[None]).astype(jnp.int32)

    def one_hot(self, archs: Arch, dtype: jnp.dtype) -> jax.Array:
        return jax.nn.one_hot(archs, self.valid.shape[1], dtype=dtype)

    def fisher_root(self, theta: jax.Array, gradient: jax.Array) -> jax.Array:
        """Multiply a natural gradient by the square root of the Fisher matrix.

        The result, `[n_theta]`, has as Euclidean norm the Fisher norm of the gradient.
        """
        root = jnp.sqrt(theta)
        root_last = root[np.arange(len(self.last)), self.last][:, None]
        free = jnp.where(self.is_free, gradient, 0.0).sum(1, keepdims=True)
        scale = free / (jnp.square(root_last) + root_last)
        product = gradient / jnp.where(self.valid, root, 1) + root * scale
        return product[np.nonzero(self.is_free)]

    def project(self, theta: jax.Array) -> jax.Array:
        """Raise probabilities to their minimum and rescale what lies above it."""
        low = jnp.asarray(self.theta_min, theta.dtype)[:, None]
        theta = jnp.where(self.valid, jnp.maximum(theta, low), 0.0)
        total = theta.sum(1, keepdims=True)
        room = total - low * jnp.asarray(self.sizes, theta.dtype)[:, None]
        excess = jnp.where(room > 0, (total - 1) / jnp.where(room > 0, room, 1), 0.0)
        theta = jnp.where(self.valid, theta - excess * (theta - low), 0.0)
        return theta / theta.sum(1, keepdims=True)


def _is_informative(archs: Arch, one_hot: jax.Array, weights: jax.Array) -> jax.Array:
    """Whether architectures and the weights of their losses give any gradient.

    The weights add up to zero, so that architectures may cancel: all are equal, or the
    best are equal to the worst. Rounding would be all that is left then.
    """
    votes = jnp.abs((weights[:, None, None] * one_hot).sum(0)).max()
    return (votes > 1e-6) & (archs != archs[:1]).any()


def asng(
    space: SearchSpace | Sequence[int],
    *,
    alpha: float = 1.5,
    init_delta: float = 1.0,
    max_Delta: float = math.inf,
) -> Searcher:
    """Adaptive stochastic natural gradient.

    Args:
      space: a search space in which every combination of categories is an
        architecture; or cardinalities, the number of categories of each decision.
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
    family = _Categorical(cardinalities_of(space))
    n_theta = family.n_theta
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; expected a positive number")
    if not 0 < init_delta < 2 * math.sqrt(max(n_theta, 1)):
        raise ValueError(
            f"init_delta is {init_delta}; expected a number between 0 and "
            f"{2 * math.sqrt(max(n_theta, 1)):.3g}"
        )
    if not max_Delta > 0:
        raise ValueError(f"max_Delta is {max_Delta}; expected a positive number")
    family.check()

    def init(key: Key) -> AsngState:
        del key
        theta = family.uniform()
        zero = jnp.zeros((), theta.dtype)
        return AsngState(theta, jnp.zeros(n_theta, theta.dtype), zero, zero + 1)

    def ask(state: AsngState, key: Key, num: int) -> Arch:
        return family.sample(state.theta, key, num)

    def update(state: AsngState, one_hot: jax.Array, u: jax.Array) -> AsngState:
        """One iteration of Algorithm 1, in its symbols; `u` are the utilities."""
        theta, s, gamma, Delta = state
        delta = init_delta / Delta
        beta = delta / math.sqrt(n_theta)
        G = (u[:, None, None] * (one_hot - theta[None])).mean(0)
        root_G = family.fisher_root(theta, G)
        norm_G = jnp.linalg.norm(root_G)
        norm_G = jnp.where(norm_G > 0, norm_G, 1)  # if 0, `tell` drops the update

        theta = family.project(theta + delta * G / norm_G)
        s = (1 - beta) * s + jnp.sqrt(beta * (2 - beta)) * root_G / norm_G
        gamma = jnp.square(1 - beta) * gamma + beta * (2 - beta)
        Delta = Delta * jnp.exp(beta * (gamma - jnp.square(s).sum() / alpha))
        return AsngState(theta, s, gamma, jnp.minimum(Delta, max_Delta))

    def tell(
        state: AsngState, archs: Arch, losses: Losses
    ) -> tuple[AsngState, Metrics]:
        u, order = utility(losses.astype(state.theta.dtype))
        one_hot = family.one_hot(archs[order], state.theta.dtype)
        informative = _is_informative(archs, one_hot, u)
        state = jax.tree.map(
            lambda new, old: jnp.where(informative, new, old),
            update(state, one_hot, u),
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
