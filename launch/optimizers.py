"""The flags and the optax chain of commands that train weights."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from command_line import option

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Flags of the optimiser; the defaults are ASNG-NAS's and DARTS's."""

    epochs: int = option(600, "passes through the training images", minimum=1)
    batch_size: int = option(80, "images in a batch", minimum=1)
    learning_rate: float = option(
        0.025, "first learning rate of the schedule", minimum=0
    )
    min_learning_rate: float = option(
        0.001, "learning rate before each warm restart", minimum=0
    )
    schedule: Literal["cosine", "restarts"] = option(
        "cosine",
        "of the learning rate: one cosine, or ENAS's cosine with warm restarts",
    )
    optimizer: Literal["sgd", "nesterov", "adam"] = option(
        "sgd", "plain SGD with momentum, Nesterov, or Adam"
    )
    momentum: float = option(0.9, "of SGD", minimum=0)
    weight_decay: float = option(3e-4, "L2 penalty on all weights, SGD only", minimum=0)
    clip_norm: float = option(5.0, "limit of the gradient's global norm", minimum=0)


def make_optimizer(
    config: OptimizerConfig, steps_per_epoch: int
) -> "optax.GradientTransformation":
    """The optax chain of a configuration."""
    from jaxnas import optim

    if config.schedule == "restarts":
        schedule = optim.warm_restarts(
            config.learning_rate,
            config.min_learning_rate,
            10 * steps_per_epoch,
            2,
            config.epochs * steps_per_epoch,
        )
    else:
        schedule = optim.cosine_by_epoch(
            config.learning_rate, config.epochs, steps_per_epoch
        )
    if config.optimizer == "adam":
        return optim.adam(schedule, clip_norm=config.clip_norm)
    return optim.sgd(
        schedule,
        momentum=config.momentum,
        nesterov=config.optimizer == "nesterov",
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )
