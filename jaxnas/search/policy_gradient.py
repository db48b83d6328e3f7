"""REINFORCE: an LSTM controller trained by the policy gradient.

Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing",
section 2.2 and appendix A.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas.search import controllers
from jaxnas.search.controllers import ControllerSettings, Episode
from jaxnas.types import Arch, Key, Losses, Metrics, Params, Searcher, SearchSpace


class ReinforceState(NamedTuple):
    """The controller and what its training carries on.

    Attributes:
      params: parameters of the controller.
      opt_state: of the optimizer.
      baseline: scalar, moving average of the rewards.
      num_rewards: int32 scalar, finite rewards told so far.
    """

    params: Params
    opt_state: optax.OptState
    baseline: jax.Array
    num_rewards: jax.Array


def moving_baseline(
    start: jax.Array, rewards: jax.Array, valid: jax.Array, decay: float
) -> jax.Array:
    """Average rewards exponentially, one after the other.

    Args:
      start: scalar, the baseline so far.
      rewards: `[num]`.
      valid: bool `[num]`; other rewards leave the baseline as it is.
      decay: weight of the baseline so far, against that of a reward.

    Returns:
      `[num]`, the baseline after each reward.
    """

    def update(baseline, told):
        reward, valid = told
        moved = baseline - (1 - decay) * (baseline - reward)
        baseline = jnp.where(valid, moved, baseline)
        return baseline, baseline

    return jax.lax.scan(update, start, (rewards, valid))[1]


class _Finite(NamedTuple):
    """Rewards that are finite, and which ones are.

    Attributes:
      rewards: `[num]`, zero in place of those that are not finite.
      valid: bool `[num]`.
      num_finite: int32 scalar, how many are.
      weights: `[num]`, `weights @ v` is the mean of `v` over the finite ones.
    """

    rewards: jax.Array
    valid: jax.Array
    num_finite: jax.Array
    weights: jax.Array


def _finite(rewards: jax.Array) -> _Finite:
    valid = jnp.isfinite(rewards)
    num_finite = valid.sum(dtype=jnp.int32)
    at_least_one = jnp.maximum(num_finite, 1).astype(rewards.dtype)
    return _Finite(
        jnp.where(valid, rewards, 0.0),
        valid,
        num_finite,
        valid.astype(rewards.dtype) / at_least_one,
    )


def reinforce(
    space: SearchSpace | Sequence[int],
    *,
    optimizer: optax.GradientTransformation | None = None,
    settings: ControllerSettings | None = None,
) -> Searcher:
    """The policy gradient on an LSTM controller.

    The reward of an architecture is 1 minus its loss, which is the accuracy if the
    loss is an error rate. `tell` takes one step of the optimizer on the mean gradient
    of `-log p(arch) * (reward - baseline)` over the architectures; it computes their
    probabilities anew, so that they need not come from `ask`.

    Where the paper, the official code or its switches differ:
      Entropy is that of all decisions, and joins the reward as a constant (official);
        `ControllerSettings.entropy` can make it a differentiated bonus.
      The baseline is updated with each reward in turn, before it is subtracted
        (official). It starts at 0 with the settings of the scripts, and otherwise at
        the mean of the first rewards, since the paper does not say.
      The penalty on skips is differentiated directly (official), and smallest where
        skips have the target's probability (paper); see `MacroController`.

    Args:
      space: a macro, micro or recurrent space, any other space, or cardinalities; see
        `controllers.make_controller`.
      optimizer: of the parameters of the controller; `paper_optimizer()` by default.
        The official scripts have `official_optimizer(space)`.
      settings: of the controller and the policy gradient; `paper_settings(space)` by
        default. The official scripts have `official_settings(space)`.

    Returns:
      A `Searcher` whose state is a `ReinforceState`. An architecture whose loss is not
      finite takes no part in the update; if none is left, the state stays as it was.
      Metrics of `tell`: `reward`, `log_prob`, `entropy` and, in the macro space,
      `skip_penalty`, which are means over the architectures (rewards: over the finite
      ones), and `baseline`.

    Raises:
      ValueError: if a setting is out of range or does not suit the space, or there is
        no decision, or one without a category.

    Source: paper, section 2.2; official `general_controller.py`.
    """
    if settings is None:
        settings = controllers.paper_settings(space)
    if optimizer is None:
        optimizer = controllers.paper_optimizer()
    policy = controllers.policy(space, settings)

    def init(key: Key) -> ReinforceState:
        params = policy.init(key)
        return ReinforceState(
            params,
            optimizer.init(params),
            jnp.full((), settings.baseline_start or 0.0, float),
            jnp.zeros((), jnp.int32),
        )

    def ask(state: ReinforceState, key: Key, num: int) -> Arch:
        return policy.sample(state.params, key, num).arch

    def baselines(state: ReinforceState, R: jax.Array, finite: _Finite) -> jax.Array:
        """The moving average of the rewards, after each one."""
        start = state.baseline
        if settings.baseline_start is None:
            start = jnp.where(state.num_rewards == 0, finite.weights @ R, start)
        return moving_baseline(start, R, finite.valid, settings.baseline_decay)

    def regularized(
        loss: jax.Array, episodes: Episode, weights: jax.Array
    ) -> jax.Array:
        """Objective: the loss of the policy with penalties on probabilities."""
        if settings.entropy == "bonus":
            loss -= settings.entropy_weight * (weights @ episodes.entropies.sum(1))
        if episodes.skip_penalty is not None:
            loss += settings.skip_weight * (weights @ episodes.skip_penalty)
        return loss

    def tell(
        state: ReinforceState, archs: Arch, losses: Losses
    ) -> tuple[ReinforceState, Metrics]:
        if losses.shape != archs.shape[:1]:
            raise ValueError(
                f"losses has shape {list(losses.shape)}; expected one loss for each of "
                f"{len(archs)} architectures"
            )
        finite = _finite(1 - losses.astype(state.baseline.dtype))

        def objective(theta: Params) -> tuple[jax.Array, tuple[jax.Array, Episode]]:
            episodes = policy.score(theta, archs)
            log_pi = episodes.log_probs.sum(1)
            R = finite.rewards
            if settings.entropy == "reward":
                entropies = jax.lax.stop_gradient(episodes.entropies.sum(1))
                R += settings.entropy_weight * entropies
            b = baselines(state, R, finite)
            loss = -finite.weights @ (log_pi * (R - b))
            return regularized(loss, episodes, finite.weights), (b[-1], episodes)

        gradient, (baseline, episodes) = jax.grad(objective, has_aux=True)(state.params)
        # Adam's bias correction raises a float to an integer power.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(
                gradient, state.opt_state, state.params
            )
        new = ReinforceState(
            optax.apply_updates(state.params, updates),
            opt_state,
            baseline,
            state.num_rewards + finite.num_finite,
        )
        state = jax.tree.map(
            lambda n, o: jnp.where(finite.num_finite > 0, n, o), new, state
        )
        return state, metrics(state, finite, episodes)

    def metrics(state: ReinforceState, finite: _Finite, episodes: Episode) -> Metrics:
        means = {
            # Without a finite reward their mean is 0 / 0, not a number.
            "reward": finite.rewards.sum()
            / finite.num_finite.astype(finite.rewards.dtype),
            "baseline": state.baseline,
            "log_prob": episodes.log_probs.sum(1).mean(),
            "entropy": episodes.entropies.sum(1).mean(),
        }
        if episodes.skip_penalty is not None:
            means["skip_penalty"] = episodes.skip_penalty.mean()
        return means

    def mode(state: ReinforceState) -> Arch:
        return policy.mode(state.params)

    # Callers that do not compile need this: `lax.scan` compiles the loops of the
    # controller anew in every call, since they are new functions each time.
    return Searcher(
        jax.jit(init),
        jax.jit(ask, static_argnames="num"),
        jax.jit(tell),
        jax.jit(mode),
    )
