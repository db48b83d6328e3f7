"""Stochastic natural gradients of distributions of architectures: ASNG, SNG and Adam.

Akimoto et al. 2019, "Adaptive Stochastic Natural Gradient Method for One-Shot Neural
Architecture Search", Algorithm 1, and the baselines of its section 3.1. The parameters
`theta` of a distribution are expectations, in which the natural gradient of the
log-likelihood is simply `statistics(arch) - theta`; see `_distributions`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.search._cardinalities import cardinalities_of, check_no_integers
from jaxnas.search._distributions import Categorical, Distribution, Mixed
from jaxnas.types import Arch, Key, Losses, Metrics, Searcher, SearchSpace

Bounds = Sequence[tuple[int, int]]


class AsngState(NamedTuple):
    """The distribution and what adapts its step size; names as in the paper.

    Attributes:
      theta: probabilities `[num_decisions, max_cardinality]`, zero past a decision's
        last category; with integers a `MixedTheta` of them and of a mean and a variance
        for each integer, `[num_integers]`.
      s: accumulated normalized gradient `[n_theta]`, where `n_theta` is the number of
        free parameters, `sum(cardinalities - 1) + 2 * num_integers`.
      gamma: scalar, how far `s` has left its start at zero.
      Delta: scalar; the trust region has radius `init_delta / Delta`.
    """

    theta: Any
    s: jax.Array
    gamma: jax.Array
    Delta: jax.Array


class SngState(NamedTuple):
    """The distribution.

    Attributes:
      theta: as in `AsngState`.
    """

    theta: Any


class AdamState(NamedTuple):
    """The distribution and the moments of its normalized gradients.

    Attributes:
      theta: probabilities `[num_decisions, max_cardinality]`.
      moments: state of Adam.
    """

    theta: jax.Array
    moments: optax.OptState


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
    space: SearchSpace | Sequence[int],
    *,
    integers: Bounds | None = None,
    alpha: float = 1.5,
    init_delta: float = 1.0,
    max_Delta: float = math.inf,
    range_restriction: bool = True,
) -> Searcher:
    """Adaptive stochastic natural gradient.

    Args:
      space: a search space in which every combination of categories is an
        architecture; or cardinalities, the number of categories of each decision.
      integers: smallest and largest value of each ordered integer; those of the space
        if `None`. They follow the categories in an architecture, which is then a float
        vector: the categories, and draws from normal distributions as they are. What is
        built of it clips them to their bounds and rounds half to even.
      alpha: signal-to-noise threshold above which the trust region grows; noise
        alone has a ratio of 1.
      init_delta: first radius of the trust region, in the Fisher norm.
      max_Delta: upper limit of `Delta`, which bounds how far the radius can shrink.
      range_restriction: whether no category becomes so rare that it is hardly drawn
        again; otherwise probabilities only stay clear of 0.

    Returns:
      A `Searcher` whose state is an `AsngState`. `tell` needs two or more
      architectures; it leaves the state unchanged if all of them are equal or have
      equal losses. With integers, `ask` draws pairs of architectures whose integers lie
      on both sides of the means, and needs an even number; `mode` has the means.
      Metrics of `tell`: `theta_max_mean`, the mean over the categorical decisions of
      the largest probability; `entropy`, their sum of entropies, in nats; `std_mean`,
      the mean over the integers of the standard deviation, relative to the first one;
      `delta`, the radius; and `signal_to_noise`.

    Raises:
      ValueError: if a parameter is out of range, or if the smallest probabilities that
        keep the distribution from degenerating do not fit: with `n` decisions of more
        than one category, each needs `1 / (n * (cardinality - 1))` for every category.

    Source: paper, Algorithm 1; official `categorical_asng.py` and `asng_int.py`.
    """
    family = _family(space, integers, range_restriction)
    n_theta = family.n_theta
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; expected a positive number")
    _check_radius("init_delta", init_delta, n_theta)
    if not max_Delta > 0:
        raise ValueError(f"max_Delta is {max_Delta}; expected a positive number")

    def init(theta: Any) -> AsngState:
        zero = jnp.zeros((), float)
        return AsngState(theta, jnp.zeros(n_theta, float), zero, zero + 1)

    def update(state: AsngState, archs: Arch, u: jax.Array) -> AsngState:
        theta, s, gamma, Delta = state
        delta = init_delta / Delta
        beta = delta / math.sqrt(n_theta)
        G = family.gradient(theta, archs, u)
        root_G = family.fisher_root(theta, G)
        norm_G = _norm(root_G)

        theta = family.move(theta, _scaled(G, delta, norm_G + family.norm_offset))
        s = (1 - beta) * s + jnp.sqrt(beta * (2 - beta)) * root_G / norm_G
        gamma = jnp.square(1 - beta) * gamma + beta * (2 - beta)
        Delta = Delta * jnp.exp(beta * (gamma - jnp.square(s).sum() / alpha))
        return AsngState(theta, s, gamma, jnp.minimum(Delta, max_Delta))

    def metrics(state: AsngState) -> Metrics:
        return {
            "delta": init_delta / state.Delta,
            "signal_to_noise": jnp.square(state.s).sum()
            / jnp.where(state.gamma > 0, state.gamma, 1),
        }

    return _searcher(family, init, update, metrics)


def sng(
    space: SearchSpace | Sequence[int],
    *,
    integers: Bounds | None = None,
    delta: float | None = None,
    range_restriction: bool = True,
) -> Searcher:
    """Stochastic natural gradient with steps of one length.

    Args:
      space: as for `asng`.
      integers: as for `asng`.
      delta: length of each step, in the Fisher norm; one over the root of the number of
        free parameters if `None`.
      range_restriction: as for `asng`.

    Returns:
      A `Searcher` whose state is an `SngState`; `ask`, `tell` and `mode` as those of
      `asng`, without the metrics `delta` and `signal_to_noise`.

    Raises:
      ValueError: as `asng` does.

    Source: paper, section 3.1; official `sng.py`.
    """
    family = _family(space, integers, range_restriction)
    radius = max(family.n_theta, 1) ** -0.5 if delta is None else delta
    _check_radius("delta", radius, family.n_theta)

    def update(state: SngState, archs: Arch, u: jax.Array) -> SngState:
        G = family.gradient(state.theta, archs, u)
        norm_G = _norm(family.fisher_root(state.theta, G))
        return SngState(family.move(state.theta, _scaled(G, radius, norm_G + 1e-8)))

    return _searcher(family, SngState, update, lambda state: {})


def adam_sng(
    space: SearchSpace | Sequence[int],
    *,
    learning_rate: float | None = None,
    range_restriction: bool = True,
) -> Searcher:
    """Adam on the stochastic natural gradient of categorical distributions.

    Args:
      space: as for `asng`.
      learning_rate: of Adam, which steps about as far in each probability; one over the
        number of free parameters if `None`.
      range_restriction: as for `asng`.

    Returns:
      A `Searcher` whose state is an `AdamState`; `ask`, `tell` and `mode` as those of
      `asng`, without the metrics `delta` and `signal_to_noise`.

    Raises:
      ValueError: as `asng` does, or if the space has ordered integers.

    Source: paper, section 3.1; official `adam.py`.
    """
    check_no_integers("adam_sng", space)
    family = _family(space, (), range_restriction)
    rate = 1 / max(family.n_theta, 1) if learning_rate is None else learning_rate
    if not 0 < rate < math.inf:
        raise ValueError(f"learning_rate is {rate}; expected a positive number")
    adam = optax.scale_by_adam()

    def init(theta: jax.Array) -> AdamState:
        return AdamState(theta, adam.init(theta))

    def update(state: AdamState, archs: Arch, u: jax.Array) -> AdamState:
        theta, moments = state
        G = family.gradient(theta, archs, u)
        norm_G = _norm(family.fisher_root(theta, G))
        # Adam's bias correction raises a float to an integer power.
        with jax.numpy_dtype_promotion("standard"):
            step, moments = adam.update(G / (norm_G + 1e-9), moments)
        return AdamState(family.move(theta, _scaled(step, rate, 1)), moments)

    return _searcher(family, init, update, lambda state: {})


def _family(
    space: SearchSpace | Sequence[int],
    integers: Bounds | None,
    range_restriction: bool,
) -> Distribution:
    bounds: Bounds = getattr(space, "integers", ()) if integers is None else integers
    cardinalities = cardinalities_of(space, may_be_empty=len(bounds) > 0)
    family = Categorical(cardinalities, range_restriction=range_restriction)
    return Mixed(family, bounds) if len(bounds) else family


def _check_radius(name: str, radius: float, n_theta: int) -> None:
    largest = 2 * math.sqrt(max(n_theta, 1))
    if not 0 < radius < largest:
        raise ValueError(
            f"{name} is {radius}; expected a number between 0 and {largest:.3g}"
        )


def _norm(root_G: jax.Array) -> jax.Array:
    norm = jnp.linalg.norm(root_G)
    return jnp.where(norm > 0, norm, 1)  # if 0, `tell` drops the update


def _scaled(G: Any, length: Any, norm: Any) -> Any:
    return jax.tree.map(lambda g: length * g / norm, G)


def _searcher(
    family: Distribution,
    init: Callable[[Any], Any],
    update: Callable[[Any, Arch, jax.Array], Any],
    metrics: Callable[[Any], Metrics],
) -> Searcher:
    """Make a searcher of the state of a distribution.

    Args:
      family: the distribution.
      init: `theta -> state`; the state has a `theta`.
      update: `(state, archs, u) -> state`, where `u` are the utilities of `archs`.
      metrics: `state -> metrics`, besides those of the distribution.

    Returns:
      The searcher, which drops updates where there is nothing to learn.
    """

    def first(key: Key) -> Any:
        del key
        return init(family.uniform())

    def ask(state: Any, key: Key, num: int) -> Arch:
        return family.sample(state.theta, key, num)

    def tell(state: Any, archs: Arch, losses: Losses) -> tuple[Any, Metrics]:
        u, order = utility(losses.astype(jax.tree.leaves(state.theta)[0].dtype))
        archs = archs[order]
        informative = family.is_informative(archs, u)
        state = jax.tree.map(
            lambda new, old: jnp.where(informative, new, old),
            update(state, archs, u),
            state,
        )
        return state, family.convergence(state.theta) | metrics(state)

    def mode(state: Any) -> Arch:
        return family.mode(state.theta)

    return Searcher(first, ask, tell, mode)
