"""REINFORCE: an LSTM controller trained by the policy gradient.

Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing",
section 2.2 and appendix A.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnas import optim
from jaxnas.search import controller_settings, controllers
from jaxnas.search.controller_settings import Settings, paper, script
from jaxnas.types import Arch, Key, Losses, Metrics, Params, Searcher, SearchSpace

__all__ = ["ReinforceState", "Settings", "paper", "reinforce", "script"]


class ReinforceState(NamedTuple):
    """The controller and what its training carries on.

    Attributes:
      params: parameters of the controller.
      opt_state: of Adam.
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


def reinforce(
    space: SearchSpace | Sequence[int],
    settings: Settings | Literal["paper", "script"] = "paper",
) -> Searcher:
    """The policy gradient on an LSTM controller.

    The reward of an architecture is 1 minus its loss, which is the accuracy if the
    loss is an error rate. `tell` takes one step of Adam on the mean gradient of
    `-log p(arch) * (reward - baseline)` over the architectures; it computes their
    probabilities anew, so that they need not come from `ask`.

    Where the paper, the official code or its switches differ:
      Entropy is that of all decisions, and joins the reward as a constant (official);
        `Settings.entropy` can make it a differentiated bonus.
      The baseline is updated with each reward in turn, before it is subtracted
        (official). It starts at 0 with the settings of the scripts, and otherwise at
        the mean of the first rewards, since the paper does not say.
      The penalty on skips is differentiated directly (official), and smallest where
        skips have the target's probability (paper); see `MacroController`.

    Args:
      space: a macro, micro or recurrent space, any other space, or cardinalities.
      settings: `Settings`, or the name of a preset: `paper(space)` or `script(space)`.

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
    if settings == "paper":
        settings = paper(space)
    elif settings == "script":
        settings = script(space)
    settings = controller_settings.check(settings, space)
    policy = controllers.policy(space, settings)
    make_adam = optim.tensorflow_adam if settings.tensorflow_adam else optax.adam
    adam = make_adam(settings.learning_rate, settings.b1, eps=settings.eps)

    def init(key: Key) -> ReinforceState:
        params = policy.init(key)
        return ReinforceState(
            params,
            adam.init(params),
            jnp.full((), settings.baseline_start or 0.0, float),
            jnp.zeros((), jnp.int32),
        )

    def ask(state: ReinforceState, key: Key, num: int) -> Arch:
        return policy.sample(state.params, key, num).arch

    def tell(
        state: ReinforceState, archs: Arch, losses: Losses
    ) -> tuple[ReinforceState, Metrics]:
        if losses.shape != archs.shape[:1]:
            raise ValueError(
                f"losses has shape {list(losses.shape)}; expected one loss for each of "
                f"{len(archs)} architectures"
            )
        rewards = 1 - losses.astype(state.baseline.dtype)
        valid = jnp.isfinite(rewards)
        num_valid = valid.sum(dtype=jnp.int32)
        rewards = jnp.where(valid, rewards, 0.0)
        share = valid.astype(rewards.dtype) / jnp.maximum(num_valid, 1).astype(
            rewards.dtype
        )

        def objective(params):
            episodes = policy.score(params, archs)
            log_probs = episodes.log_probs.sum(1)
            entropies = episodes.entropies.sum(1)
            told = rewards
            if settings.entropy == "reward":
                told += settings.entropy_weight * jax.lax.stop_gradient(entropies)
            start = state.baseline
            if settings.baseline_start is None:
                start = jnp.where(state.num_rewards == 0, share @ told, start)
            baselines = moving_baseline(start, told, valid, settings.baseline_decay)

            loss = -share @ (log_probs * (told - baselines))
            metrics = {"log_prob": log_probs.mean(), "entropy": entropies.mean()}
            if settings.entropy == "bonus":
                loss -= settings.entropy_weight * (share @ entropies)
            if episodes.skip_penalty is not None:
                loss += settings.skip_weight * (share @ episodes.skip_penalty)
                metrics["skip_penalty"] = episodes.skip_penalty.mean()
            return loss, (baselines[-1], metrics)

        gradient, (baseline, metrics) = jax.grad(objective, has_aux=True)(state.params)
        # Adam's bias correction raises a float to an integer power.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = adam.update(gradient, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        new = ReinforceState(params, opt_state, baseline, state.num_rewards + num_valid)
        state = jax.tree.map(lambda n, o: jnp.where(num_valid > 0, n, o), new, state)
        # Without a finite reward their mean is 0 / 0, not a number.
        mean = rewards.sum() / num_valid.astype(rewards.dtype)
        return state, {"reward": mean, "baseline": state.baseline, **metrics}

    def mode(state: ReinforceState) -> Arch:
        return policy.mode(state.params)

    # Compiled once for callers that do not compile: a scan is traced at every call.
    return Searcher(
        jax.jit(init),
        jax.jit(ask, static_argnames="num"),
        jax.jit(tell),
        jax.jit(mode),
    )
