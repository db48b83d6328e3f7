"""The flags and the optax chain of commands that train weights."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from command_line import WrongInput, ascending, option

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
    schedule: Literal[
        "cosine", "restarts", "restarts-by-epoch", "exponential", "steps"
    ] = option(
        "cosine",
        "of the learning rate: one cosine, ENAS's cosine with warm restarts (by-epoch: "
        "constant within an epoch, as in its code), or a decay by --decay after every "
        "epoch or at --decay-at",
    )
    decay: float = option(
        0.97, "ratio of the learning rates after and before a decay", minimum=0
    )
    decay_at: str = option("", "steps: epochs of a decay, ascending, with commas")
    warmup_epochs: int = option(
        0, "epochs, of all, in which the learning rate first rises", minimum=0
    )
    optimizer: Literal["sgd", "nesterov", "adam"] = option(
        "sgd", "plain SGD with momentum, Nesterov, or Adam"
    )
    momentum: float = option(0.9, "of SGD", minimum=0)
    weight_decay: float = option(
        3e-4, "of all weights, twice the factor of an L2 penalty; SGD only", minimum=0
    )
    clip_norm: float = option(
        5.0, "limit of the gradient's global norm; 0 for none", minimum=0
    )


def make_optimizer(
    config: OptimizerConfig, steps_per_epoch: int
) -> "optax.GradientTransformation":
    """The optax chain of a configuration."""
    from jaxnas import optim

    schedule = optim.warm_up(
        make_schedule(config, steps_per_epoch), config.warmup_epochs, steps_per_epoch
    )
    if config.optimizer == "adam":
        return optim.adam(schedule, clip_norm=config.clip_norm or None)
    return optim.sgd(
        schedule,
        momentum=config.momentum,
        nesterov=config.optimizer == "nesterov",
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm or None,
    )


def make_schedule(config: OptimizerConfig, steps_per_epoch: int) -> "optax.Schedule":
    """The learning rates after the warm-up, which is part of the epochs."""
    from jaxnas import optim

    epochs = config.epochs - config.warmup_epochs
    if epochs < 1:
        raise WrongInput(
            f"--warmup-epochs is {config.warmup_epochs}; expected less than the "
            f"{config.epochs} of --epochs"
        )
    if config.schedule == "restarts":
        return optim.warm_restarts(
            config.learning_rate,
            config.min_learning_rate,
            10 * steps_per_epoch,
            2,
            epochs * steps_per_epoch,
        )
    if config.schedule == "restarts-by-epoch":
        return optim.warm_restarts_by_epoch(
            config.learning_rate,
            config.min_learning_rate,
            10,
            2,
            epochs,
            steps_per_epoch,
        )
    if config.schedule in ("exponential", "steps") and config.decay == 0:
        raise WrongInput("--decay is 0.0; expected a positive number")
    if config.schedule == "steps":
        boundaries = ascending("--decay-at", config.decay_at)
        return optim.step_decay(
            config.learning_rate, config.decay, boundaries, steps_per_epoch
        )
    if config.schedule == "exponential":
        return optim.exponential_by_epoch(
            config.learning_rate, config.decay, steps_per_epoch
        )
    return optim.cosine_by_epoch(config.learning_rate, epochs, steps_per_epoch)
