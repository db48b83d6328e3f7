"""Settings of the ENAS controller: the paper's and those of the official scripts."""

import math
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import optax

from jaxnas import optim, spaces
from jaxnas._checks import check_integer
from jaxnas.types import SearchSpace


class ControllerSettings(NamedTuple):
    """Settings of the controller and of the policy gradient.

    The defaults are the paper's for convolutional networks; see `paper_settings` for
    others. The optimizer is not among them: `reinforce` takes it as an argument.

    Attributes:
      hidden_size: units of the LSTM, also the size of its embeddings.
      tanh_constant: logits are `tanh_constant * tanh(logits / temperature)`.
      temperature: divides logits before the tanh.
      op_tanh_reduction: divides `tanh_constant` where an operation is chosen, which
        in a plain sequence is every decision.
      entropy_weight: weight of the entropy of an architecture's decisions.
      entropy: "reward" adds the entropy to the reward, as a constant; "bonus"
        differentiates it.
      baseline_decay: decay of the moving average of rewards.
      baseline_start: its first value; `None` is the mean of the first rewards told.
      skip_weight: weight of the penalty on skip probabilities (macro space).
      skip_target: probability of a skip that has no penalty (macro space).
      separable_bias: first value of the trainable bias of separable convolutions
        (micro space).
      separable_offset: added to the logits of separable convolutions and subtracted
        from the others, in the normal cell only (micro space).
      recency: subtracted from the logit of a previous node, times the square of its
        distance (recurrent space).
      init_range: parameters start uniform between its negative and itself.
      tied_head: logits of activations are products with their embeddings (recurrent
        space).
    """

    hidden_size: int = 100
    tanh_constant: float = 2.5
    temperature: float = 5.0
    op_tanh_reduction: float = 1.0
    entropy_weight: float = 0.1
    entropy: Literal["reward", "bonus"] = "reward"
    baseline_decay: float = 0.99
    baseline_start: float | None = None
    skip_weight: float = 0.8
    skip_target: float = 0.4
    separable_bias: float = 0.0
    separable_offset: float = 0.0
    recency: float = 0.0
    init_range: float = 0.1
    tied_head: bool = False


def paper_settings(space: SearchSpace | Sequence[int]) -> ControllerSettings:
    """Settings of the paper.

    Args:
      space: the space to be searched.

    Returns:
      The defaults, with entropy weight 1e-4 for a recurrent space. The paper has 0.1
      for convolutional networks, which other spaces get too.

    Source: Pham et al. 2018, sections 3.1 and 3.2.
    """
    if isinstance(space, spaces.RecurrentSpace):
        return ControllerSettings(entropy_weight=1e-4)
    return ControllerSettings()


def paper_optimizer(*, learning_rate: float = 3.5e-4) -> optax.GradientTransformation:
    """Optimizer of the paper: Adam.

    Args:
      learning_rate: its learning rate, constant.

    Returns:
      An optax transformation.

    Raises:
      ValueError: if the learning rate is not a positive number.

    Source: Pham et al. 2018, sections 2.2, 3.1 and 3.2.
    """
    return optax.adam(_checked_rate(learning_rate))


def official_settings(space: SearchSpace | Sequence[int]) -> ControllerSettings:
    """Settings of the official scripts, where they differ from the paper.

    Args:
      space: a macro, micro or recurrent space.

    Returns:
      Its settings: 64 units for convolutional networks, entropy weights of 1e-4
      (recurrent space: 1e-3), a baseline that starts at 0, and preferences set by hand
      (separable convolutions in the micro space, recent nodes in the recurrent one).
      A recurrent space whose first activation is fixed has those of the corrected
      language model. `official_optimizer` belongs to them.

    Raises:
      ValueError: if the scripts have no such space.

    Source: `cifar10_macro_search.sh`, `cifar10_micro_search.sh`, `ptb_search.sh` and
    the controllers they run; `enas_lm/src/controller.py` of google-research.
    """
    common = ControllerSettings(
        hidden_size=64, temperature=1.0, entropy_weight=1e-4, baseline_start=0.0
    )
    match space:
        case spaces.MacroSpace():
            return common._replace(tanh_constant=1.5)
        case spaces.MicroSpace():
            return common._replace(
                tanh_constant=1.10,
                op_tanh_reduction=2.5,
                separable_bias=10.0,
                separable_offset=0.25,
            )
        case spaces.RecurrentSpace(first_activation=None):
            return common._replace(
                hidden_size=100, temperature=5.0, entropy_weight=1e-3, recency=1 / 6
            )
        case spaces.RecurrentSpace():
            return common._replace(
                tanh_constant=2.25,
                temperature=5.0,
                entropy_weight=1e-5,
                baseline_decay=0.999,
                recency=1 / 6,
                init_range=0.01,
                tied_head=True,
            )
    raise ValueError(_not_in_the_scripts(space))


def official_optimizer(
    space: SearchSpace | Sequence[int], *, learning_rate: float | None = None
) -> optax.GradientTransformation:
    """Optimizer of the official scripts: TensorFlow's Adam.

    Args:
      space: a macro, micro or recurrent space.
      learning_rate: its learning rate, constant; `None` is that of the scripts, 3.5e-3
        for the micro space, 5e-5 for a recurrent space whose first activation is fixed
        and 1e-3 for the others.

    Returns:
      `optim.tensorflow_adam` without first moment and with epsilon 1e-3, or with its
      defaults for a recurrent space whose first activation is fixed.

    Raises:
      ValueError: if the scripts have no such space, or the learning rate is not a
        positive number.

    Source: as `official_settings`; `src/utils.py`.
    """
    options = {"b1": 0.0, "eps": 1e-3}
    match space:
        case spaces.MicroSpace():
            rate = 3.5e-3
        case spaces.MacroSpace() | spaces.RecurrentSpace(first_activation=None):
            rate = 1e-3
        case spaces.RecurrentSpace():
            rate, options = 5e-5, {}
        case _:
            raise ValueError(_not_in_the_scripts(space))
    rate = _checked_rate(rate if learning_rate is None else learning_rate)
    return optim.tensorflow_adam(rate, **options)


def _not_in_the_scripts(space: SearchSpace | Sequence[int]) -> str:
    return (
        f"the official scripts do not search {type(space).__name__}; expected a "
        "MacroSpace, MicroSpace or RecurrentSpace"
    )


def _checked_rate(learning_rate: float) -> float:
    if not 0 < learning_rate < math.inf:
        raise ValueError(
            f"learning_rate is {learning_rate}; expected a positive number"
        )
    return learning_rate


# Written as what is allowed, so that NaN is refused too.
_RANGES = {
    "tanh_constant": (lambda v: 0 < v < math.inf, "a positive number"),
    "temperature": (lambda v: 0 < v < math.inf, "a positive number"),
    "op_tanh_reduction": (lambda v: 0 < v < math.inf, "a positive number"),
    "entropy_weight": (lambda v: 0 <= v < math.inf, "a number of at least 0"),
    "baseline_decay": (lambda v: 0 <= v < 1, "a number of at least 0 and below 1"),
    "skip_weight": (lambda v: 0 <= v < math.inf, "a number of at least 0"),
    "skip_target": (lambda v: 0 < v < 1, "a number between 0 and 1"),
    "separable_bias": (math.isfinite, "a finite number"),
    "separable_offset": (math.isfinite, "a finite number"),
    "recency": (lambda v: 0 <= v < math.inf, "a number of at least 0"),
    "init_range": (lambda v: 0 < v < math.inf, "a positive number"),
    "tied_head": (lambda v: isinstance(v, bool), "True or False"),
}
_PRIORS = {
    "separable_bias": "MicroSpace",
    "separable_offset": "MicroSpace",
    "recency": "RecurrentSpace",
    "tied_head": "RecurrentSpace",
}


def check(settings: ControllerSettings, priors: Collection[str]) -> None:
    """Check settings, alone and for a controller.

    Args:
      settings: the settings.
      priors: `Controller.priors`, names of the priors that the controller reads.

    Raises:
      ValueError: if a value is out of range, or a prior is set that the controller
        does not read.
    """
    if not isinstance(settings, ControllerSettings):
        raise ValueError(f"settings is {settings!r}; expected ControllerSettings")
    check_integer("hidden_size", settings.hidden_size)
    for name, (allowed, expected) in _RANGES.items():
        value = getattr(settings, name)
        if not allowed(value):
            raise ValueError(f"{name} is {value}; expected {expected}")
    start = settings.baseline_start
    if start is not None and not math.isfinite(start):
        raise ValueError(f"baseline_start is {start}; expected a finite number or None")
    if settings.entropy not in ("reward", "bonus"):
        raise ValueError(
            f"entropy is {settings.entropy!r}; expected 'reward' or 'bonus'"
        )
    for name, space in _PRIORS.items():
        value = getattr(settings, name)
        if value and name not in priors:
            default = ControllerSettings._field_defaults[name]
            raise ValueError(
                f"{name} is {value}; expected {default}, because only a {space} has it"
            )
