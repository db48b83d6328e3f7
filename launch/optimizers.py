"""The flags and the optax chain of commands that train weights."""

import dataclasses
from typing import TYPE_CHECKING

from session import Count, Rate, Size, UsageError, check_ascending

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class Cosine:
    """One cosine from the learning rate to 0.

    Attributes:
      by_epoch: constant within an epoch, as on CIFAR-10.
    """

    by_epoch: bool = True

    def __call__(self, peak: float, num_epochs: int, steps: int) -> "optax.Schedule":
        """The schedule for a number of epochs of so many steps."""
        from jaxnas import optim

        if not self.by_epoch:
            return optim.cosine_by_epoch(peak, num_epochs * steps, 1)
        return optim.cosine_by_epoch(peak, num_epochs, steps)


@dataclasses.dataclass(frozen=True)
class Restarts:
    """ENAS's cosine with warm restarts after 10, 30, 70, ... epochs.

    Attributes:
      min_learning_rate: learning rate before each warm restart.
      by_epoch: constant within an epoch, as in the official code.
    """

    min_learning_rate: Rate = 0.001
    by_epoch: bool = False

    def __call__(self, peak: float, num_epochs: int, steps: int) -> "optax.Schedule":
        """The schedule for a number of epochs of so many steps."""
        from jaxnas import optim

        lowest = self.min_learning_rate
        if self.by_epoch:
            return optim.warm_restarts_by_epoch(peak, lowest, 10, 2, num_epochs, steps)
        return optim.warm_restarts(peak, lowest, 10 * steps, 2, num_epochs * steps)


@dataclasses.dataclass(frozen=True)
class Exponential:
    """A decay after every epoch.

    Attributes:
      decay: ratio of the learning rates after and before a decay.
    """

    decay: Rate = 0.97

    def __call__(self, peak: float, num_epochs: int, steps: int) -> "optax.Schedule":
        """The schedule for a number of epochs of so many steps."""
        from jaxnas import optim

        return optim.exponential_by_epoch(peak, positive_decay(self.decay), steps)


@dataclasses.dataclass(frozen=True)
class Steps:
    """A decay at some epochs.

    Attributes:
      decay: ratio of the learning rates after and before a decay.
      decay_at: epochs of a decay, ascending.
    """

    decay: Rate = 0.97
    decay_at: tuple[int, ...] = ()

    def __call__(self, peak: float, num_epochs: int, steps: int) -> "optax.Schedule":
        """The schedule for a number of epochs of so many steps."""
        from jaxnas import optim

        boundaries = check_ascending("--decay-at", self.decay_at)
        return optim.step_decay(
            peak, positive_decay(self.decay), list(boundaries), steps
        )


def positive_decay(decay: float) -> float:
    """The ratio of two learning rates, which is not 0."""
    if decay == 0:
        raise UsageError("--decay is 0.0; expected a positive number")
    return decay


@dataclasses.dataclass(frozen=True)
class _Momentum:
    """SGD whose step is a mean of gradients.

    Attributes:
      momentum: decay of the mean of the gradients.
      weight_decay: of all weights, twice the factor of an L2 penalty.
    """

    momentum: Rate = 0.9
    weight_decay: Rate = 3e-4

    def __call__(
        self, schedule: "optax.ScalarOrSchedule", clip_norm: float | None
    ) -> "optax.GradientTransformation":
        """The optax chain with a schedule and a limit of the gradient's norm."""
        from jaxnas import optim

        return optim.sgd(
            schedule,
            momentum=self.momentum,
            nesterov=isinstance(self, Nesterov),
            weight_decay=self.weight_decay,
            clip_norm=clip_norm,
        )


@dataclasses.dataclass(frozen=True)
class Sgd(_Momentum):
    """Plain SGD with momentum."""


@dataclasses.dataclass(frozen=True)
class Nesterov(_Momentum):
    """SGD with Nesterov's momentum."""


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam, without weight decay."""

    def __call__(
        self, schedule: "optax.Schedule", clip_norm: float | None
    ) -> "optax.GradientTransformation":
        """The optax chain with a schedule and a limit of the gradient's norm."""
        from jaxnas import optim

        return optim.adam(schedule, clip_norm=clip_norm)


@dataclasses.dataclass(frozen=True)
class Training:
    """Training of the weights; the defaults are ASNG-NAS's and DARTS's.

    Attributes:
      epochs: passes through the training images.
      batch_size: images in a batch.
      learning_rate: first learning rate of the schedule.
      warmup_epochs: epochs, of all, in which the learning rate first rises.
      clip_norm: limit of the gradient's global norm; 0 for none.
    """

    epochs: Count = 600
    batch_size: Count = 80
    learning_rate: Rate = 0.025
    warmup_epochs: Size = 0
    clip_norm: Rate = 5.0
    optimizer: Sgd | Nesterov | Adam = Sgd()
    schedule: Cosine | Restarts | Exponential | Steps = Cosine()


def make_optimizer(
    config: Training, steps_per_epoch: int
) -> "optax.GradientTransformation":
    """The optax chain of the settings; the warm-up is part of the epochs."""
    from jaxnas import optim

    epochs = config.epochs - config.warmup_epochs
    if epochs < 1:
        raise UsageError(
            f"--warmup-epochs is {config.warmup_epochs}; expected less than the "
            f"{config.epochs} of --epochs"
        )
    schedule = optim.warm_up(
        config.schedule(config.learning_rate, epochs, steps_per_epoch),
        config.warmup_epochs,
        steps_per_epoch,
    )
    return config.optimizer(schedule, config.clip_norm or None)
