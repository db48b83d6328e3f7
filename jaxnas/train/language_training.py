"""Training of a language model from scratch, with averaged weights in the end."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxnas import parallel
from jaxnas._checks import check_sizes
from jaxnas.train import epochs, language, loop
from jaxnas.train.language import ReaderState, ReadingSettings
from jaxnas.types import Device, Key, Metrics, Params


class Averaging(NamedTuple):
    """The mean of the parameters over steps (averaged SGD).

    Attributes:
      num_steps: int32 scalar, steps averaged over; 0 before it has begun.
      params: their mean.
    """

    num_steps: jax.Array
    params: Params


class LanguageTrainState(NamedTuple):
    """Everything a training has learned, and where it is.

    Attributes:
      step: int32 scalar, steps done.
      key: the run's PRNG key; every step folds its number into it.
      reader: parameters, their optimizer and the states.
      averaging: the mean of the parameters.
      best: what had the lowest validation loss after an epoch.
      losses: `[num_epochs]`, validation loss after each epoch, infinite before.
      epoch_metrics: means over the steps of the current epoch, and the validation loss
        after the last.
    """

    step: jax.Array
    key: Key
    reader: ReaderState
    averaging: Averaging
    best: Params
    losses: jax.Array
    epoch_metrics: Metrics


class LanguageTrainingSettings(NamedTuple):
    """Settings of a training from scratch.

    Attributes:
      num_epochs: passes through the training text.
      reading: how the model learns.
      patience: the weights are averaged from when the validation loss exceeds the
        lowest of the epochs before the last `patience` ones (Merity et al. 2018,
        "NT-AvSGD"); `None`: never.
      eval_batch_size: rows of the validation text after each epoch.
    """

    num_epochs: int
    reading: ReadingSettings = ReadingSettings()
    patience: int | None = 5
    eval_batch_size: int = 10


class LanguageTrainResult(NamedTuple):
    """Result of a training.

    Attributes:
      state: the final state.
      params: the parameters after the epoch with the lowest validation loss: averaged
        ones, if they were by then.
      validation_loss: that loss, nats per word, as measured while training.
      epoch: that epoch, from 1.
    """

    state: LanguageTrainState
    params: Params
    validation_loss: float
    epoch: int


def make_language_train_fn(
    network: Any,
    optimizer: optax.GradientTransformation,
    train: np.ndarray,
    validation: np.ndarray,
    settings: LanguageTrainingSettings,
    *,
    devices: Sequence[Device] | None = None,
    save_seconds: float = 30.0,
) -> Callable[..., LanguageTrainResult]:
    """Make the training of a language model from scratch.

    The result is the model with the lowest validation loss after an epoch; the test
    text takes no part.

    Args:
      network: as `networks.recurrent` makes it.
      optimizer: for its parameters.
      train: int32 `[num_tokens]`.
      validation: int32 `[num_tokens]`.
      settings: how it learns.
      devices: what shares out the rows; the first device if `None`.
      save_seconds: least time between two checkpoints.

    Returns:
      `(key, *, workdir=None, description="train") -> result`. The key determines
      everything random; with a `workdir`, the folder of the run, an interrupted
      training continues. It raises `Diverged` if too many steps in a row were not
      finite, and `Interrupted` after a signal, when the state has been saved.

    Raises:
      ValueError: if a setting is out of range, a text too short for its rows or of
        words that the network does not know, or the devices cannot share the rows.
    """
    reading = settings.reading
    reading.check()
    check_sizes(
        num_epochs=settings.num_epochs, eval_batch_size=settings.eval_batch_size
    )
    if settings.patience is not None and settings.patience < 0:
        raise ValueError(f"patience is {settings.patience}; expected 0 or more")
    if validation.size <= settings.eval_batch_size:
        raise ValueError(
            f"the validation text has {validation.size} tokens; expected more than "
            f"eval_batch_size, which is {settings.eval_batch_size}"
        )
    devices = parallel.local_devices(1) if devices is None else list(devices)
    parallel.per_device_size(reading.batch_size, len(devices), "batch_size")
    steps_per_epoch = reading.steps_per_epoch(train.size)
    model = language.language_model_of(network)
    read = language.reading_step(
        model,
        optimizer,
        reading,
        batch_axis=parallel.batch_axis(devices),
        num_devices=len(devices),
    )

    def init(key: Key) -> LanguageTrainState:
        run_key, params_key = jax.random.split(key)
        tokens = jnp.zeros((1, 1), jnp.int32)
        hidden = jnp.zeros((1, network.hidden_size), float)
        params = network.init(params_key, (tokens, hidden), train=False)["params"]
        zero = jnp.zeros((), float)
        names = (*language.TRAIN_METRICS, "validation/loss", "validation/perplexity")
        state = LanguageTrainState(
            jnp.int32(0),
            run_key,
            language.init_reader(params, optimizer, reading.batch_size),
            Averaging(jnp.int32(0), jax.tree.map(jnp.zeros_like, params)),
            params,
            jnp.full(settings.num_epochs, jnp.inf, float),
            dict.fromkeys(names, zero),
        )
        return epochs.strongly_typed(state)

    def step(state: LanguageTrainState, orders: None, rows: jax.Array):
        del orders
        position = state.step % steps_per_epoch
        key = jax.random.fold_in(state.key, state.step)
        reader, metrics = read(state.reader, None, rows, position, key)
        means = language.mean_of_taken(state.epoch_metrics, metrics, position)
        averaging = _averaged(state.averaging, reader.params)
        state = state._replace(reader=reader, averaging=averaging, epoch_metrics=means)
        return state, None

    def judge(state: LanguageTrainState, loss: jax.Array) -> LanguageTrainState:
        """What follows from the validation loss after an epoch."""
        last, averaging = state.reader.params, state.averaging
        params = _where(averaging.num_steps > 0, averaging.params, last)
        loss = jnp.where(jnp.isfinite(loss), loss, jnp.inf)
        epoch = state.step // steps_per_epoch - 1
        if settings.patience is not None:
            epochs_before = jnp.arange(settings.num_epochs) < epoch - settings.patience
            lowest = jnp.where(epochs_before, state.losses, jnp.inf).min()
            begins = (averaging.num_steps == 0) & (loss > lowest)
            averaging = Averaging(
                jnp.where(begins, 1, averaging.num_steps),
                _where(begins, last, averaging.params),
            )
        measured = {"validation/loss": loss, "validation/perplexity": jnp.exp(loss)}
        return state._replace(
            averaging=averaging,
            best=_where(loss < state.losses.min(), params, state.best),
            losses=state.losses.at[epoch].set(loss),
            epoch_metrics=state.epoch_metrics | measured,
        )

    shapes = jax.eval_shape(init, jax.random.key(0)).reader.params
    for name, text in (("training text", train), ("validation text", validation)):
        language.check_tokens(name, text, shapes["embedding"].shape[0])
    advance = parallel.replicated(
        epochs.repeat(step, lambda rows: None), devices, donate_argnums=0
    )
    judge_on = parallel.replicated(judge, devices, donate_argnums=0)
    rows = parallel.device_put(language.text_rows(train, reading.batch_size), devices)
    init = jax.jit(init)
    evaluate = language.make_language_eval_fn(
        model, batch_size=settings.eval_batch_size, window=reading.window
    )

    def advance_by(state: LanguageTrainState, num_steps: int) -> LanguageTrainState:
        state = advance(state, rows, jnp.int32(num_steps))
        if int(state.step) % steps_per_epoch:
            return state
        is_averaged = int(state.averaging.num_steps) > 0
        params = state.averaging.params if is_averaged else state.reader.params
        loss = evaluate(params, validation)["loss"]
        return judge_on(state, jnp.asarray(loss, state.losses.dtype))

    def end_epoch(state: LanguageTrainState) -> dict[str, float]:
        if int(state.step) > 0:
            return {"averaged_steps": float(state.averaging.num_steps)}
        untrained = evaluate(state.reader.params, validation)
        return {f"validation/{name}": value for name, value in untrained.items()}

    def run(
        key: Key,
        *,
        workdir: str | os.PathLike[str] | None = None,
        description: str = "train",
    ) -> LanguageTrainResult:
        state = loop.run(
            advance_by,
            parallel.device_put(init(key), devices),
            num_epochs=settings.num_epochs,
            steps_per_epoch=steps_per_epoch,
            items_per_step=lambda step: round(reading.words_per_step()),
            end_epoch=end_epoch,
            description=description,
            unit="tokens",
            workdir=workdir,
            save_seconds=save_seconds,
        )
        losses = np.asarray(state.losses)
        epoch = int(losses.argmin())
        return LanguageTrainResult(state, state.best, float(losses[epoch]), epoch + 1)

    return run


def _averaged(averaging: Averaging, params: Params) -> Averaging:
    """Add the parameters after a step to their mean, once it has begun."""

    def add(averaging: Averaging) -> Averaging:
        num_steps = averaging.num_steps + 1
        means = jax.tree.map(
            lambda mean, new: mean + (new - mean) / num_steps.astype(mean.dtype),
            averaging.params,
            params,
        )
        return Averaging(num_steps, means)

    has_begun = averaging.num_steps > 0
    return lax.cond(has_begun, add, lambda averaging: averaging, averaging)


def _where(condition: jax.Array, params: Params, others: Params) -> Params:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), params, others)
