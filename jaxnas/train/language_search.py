"""One-shot search for a recurrent cell: weights and searcher learn in turn from a text.

Pham et al. 2018, section 2.1: an epoch reads the training text once and updates the
weights; then the searcher is updated by perplexities on windows of the validation text.
"""

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
from jaxnas.train.one_shot import SearchSchedule
from jaxnas.train.tasks import Objective
from jaxnas.types import Arch, Device, Key, Metrics, Searcher, Supernet


class LanguageSearchState(NamedTuple):
    """Everything a search has learned, and where it is.

    Attributes:
      step: int32 scalar, steps done.
      key: the run's PRNG key; every step folds its number into it.
      reader: the shared weights, their optimizer and the states.
      searcher: state of the searcher.
      epoch_metrics: means over the steps of the current epoch.
      searcher_metrics: metrics of the last `tell`.
    """

    step: jax.Array
    key: Key
    reader: ReaderState
    searcher: Any
    epoch_metrics: Metrics
    searcher_metrics: Metrics


class LanguageSearchSettings(NamedTuple):
    """Settings of a search for a recurrent cell.

    Attributes:
      num_epochs: length of the search.
      reading: how the weights learn.
      searcher_steps: updates of the searcher at the end of each epoch, possibly none.
      num_search_archs: architectures in one update of the searcher, each evaluated on
        a window of its own, at random, of all rows of the validation text.
      objective: what the searcher minimizes.
    """

    num_epochs: int
    reading: ReadingSettings = ReadingSettings()
    searcher_steps: int = 200
    num_search_archs: int = 10
    objective: Objective = language.inverse_perplexity()


class LanguageSearchResult(NamedTuple):
    """Result of a search.

    Attributes:
      state: the final state.
      arch: int32 `[num_decisions]`, the searcher's most likely architecture.
    """

    state: LanguageSearchState
    arch: Arch


class _Texts(NamedTuple):
    """The rows that weights and searcher learn from, int32 `[batch_size, length]`."""

    train: Any
    validation: Any


class _Parts(NamedTuple):
    """Parts of the steps of a search."""

    net: Supernet
    searcher: Searcher
    optimizer: optax.GradientTransformation
    schedule: SearchSchedule
    settings: LanguageSearchSettings
    batch_axis: str | None
    num_devices: int

    def init(self, key: Key) -> LanguageSearchState:
        run_key, weights_key, searcher_key = jax.random.split(key, 3)
        searcher_state = self.searcher.init(searcher_key)
        num_archs = self.settings.num_search_archs
        archs = jax.eval_shape(
            lambda: self.searcher.ask(searcher_state, run_key, num_archs)
        )
        losses = jax.ShapeDtypeStruct((num_archs,), float)
        _, info = jax.eval_shape(self.searcher.tell, searcher_state, archs, losses)
        zero = jnp.zeros((), float)
        names = ["train/loss", "train/perplexity", "train/num_skipped"]
        if self.schedule.searcher_steps:
            names += [
                f"validation/{n}" for n in ("loss", "perplexity", "num_not_finite")
            ]
        state = LanguageSearchState(
            jnp.int32(0),
            run_key,
            language.init_reader(
                self.net.init(weights_key),
                self.optimizer,
                self.settings.reading.batch_size,
            ),
            searcher_state,
            dict.fromkeys(names, zero),
            jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), info),
        )
        return epochs.strongly_typed(state)

    def weight_step(self) -> Callable[..., tuple[LanguageSearchState, None]]:
        """Make one optimizer step on the weights, with one sampled architecture."""
        read = language.reading_step(
            self.net.apply,
            self.optimizer,
            self.settings.reading,
            batch_axis=self.batch_axis,
            num_devices=self.num_devices,
        )

        def step(state: LanguageSearchState, orders: None, texts: _Texts):
            del orders
            position = state.step % self.schedule.steps_per_epoch
            ask_key, read_key = jax.random.split(
                jax.random.fold_in(state.key, state.step)
            )
            (arch,) = self.searcher.ask(state.searcher, ask_key, 1)
            reader, metrics = read(state.reader, arch, texts.train, position, read_key)
            means = language.mean_of_taken(state.epoch_metrics, metrics, position)
            return state._replace(reader=reader, epoch_metrics=means), None

        return step

    def searcher_step(self) -> Callable[..., tuple[LanguageSearchState, None]]:
        """Make one update of the searcher."""
        settings, window = self.settings, self.settings.reading.window
        loss_of = language.window_loss(
            self.net.apply, batch_axis=self.batch_axis, num_devices=self.num_devices
        )

        def step(state: LanguageSearchState, orders: None, texts: _Texts):
            del orders
            position = state.step % self.schedule.steps_per_epoch
            position -= self.schedule.first_searcher_step
            ask_key, window_key = jax.random.split(
                jax.random.fold_in(state.key, state.step)
            )
            archs = self.searcher.ask(
                state.searcher, ask_key, settings.num_search_archs
            )
            starts = jax.random.randint(
                window_key,
                archs.shape[:1],
                0,
                texts.validation.shape[1] - window,
                jnp.int32,
            )

            def evaluate(arch_and_start):
                arch, start = arch_and_start
                words = lax.dynamic_slice_in_dim(
                    texts.validation, start, window + 1, axis=1
                )
                return loss_of(state.reader.params, arch, words)

            metrics = {"loss": lax.map(evaluate, (archs, starts))}
            searcher, info = self.searcher.tell(
                state.searcher, archs, settings.objective(metrics)
            )
            means = epochs.mean_of_finite(
                state.epoch_metrics, metrics, position, "validation/"
            )
            means["validation/perplexity"] = jnp.exp(means["validation/loss"])
            state = state._replace(
                searcher=searcher, epoch_metrics=means, searcher_metrics=info
            )
            return state, None

        return step


def search_language(
    net: Supernet,
    searcher: Searcher,
    optimizer: optax.GradientTransformation,
    train: np.ndarray,
    validation: np.ndarray,
    settings: LanguageSearchSettings,
    *,
    key: Key,
    devices: Sequence[Device] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    save_seconds: float = 30.0,
    description: str = "search",
) -> LanguageSearchResult:
    """Search for a recurrent cell, for `settings.num_epochs` epochs.

    A step of the weights samples one architecture and learns from the next window of
    the training text; states are carried from one window to the next, whatever
    architecture made them. Perplexities of the log are exponentials of mean losses;
    those of validation windows are of the architectures that the searcher sampled.
    With a `workdir` the search logs and saves there, and continues from the newest
    checkpoint it finds.

    Args:
      net: the supernet, as `supernets.recurrent` makes it.
      searcher: what proposes architectures.
      optimizer: for the weights.
      train: int32 `[num_tokens]`, what the weights learn from.
      validation: int32 `[num_tokens]`, what architectures are evaluated on.
      settings: how weights and searcher learn.
      key: determines everything random.
      devices: what shares out the rows; the first device if `None`.
      workdir: folder of the run.
      save_seconds: least time between two checkpoints.
      description: one word for the progress line.

    Returns:
      The final state and the most likely architecture.

    Raises:
      ValueError: if a setting is out of range, a text too short for its rows or of
        words that the supernet does not know, or the devices cannot share the rows.
      Diverged: if too many steps in a row were not finite.
      Interrupted: after a signal; the state has been saved.
    """
    reading = settings.reading
    reading.check()
    check_sizes(
        num_epochs=settings.num_epochs, num_search_archs=settings.num_search_archs
    )
    if settings.searcher_steps < 0:
        raise ValueError(
            f"searcher_steps is {settings.searcher_steps}; expected 0 or more"
        )
    devices = parallel.local_devices(1) if devices is None else list(devices)
    parallel.per_device_size(reading.batch_size, len(devices), "batch_size")
    schedule = SearchSchedule(
        reading.steps_per_epoch(train.size), settings.searcher_steps
    )
    if settings.searcher_steps:
        reading._replace(random_windows=False).steps_per_epoch(validation.size)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    for name, text in (("training text", train), ("validation text", validation)):
        language.check_tokens(name, text, shapes["embedding"].shape[0])
    parts = _Parts(
        net,
        searcher,
        optimizer,
        schedule,
        settings,
        parallel.batch_axis(devices),
        len(devices),
    )
    texts = parallel.device_put(
        _Texts(
            language.text_rows(train, reading.batch_size),
            language.text_rows(validation, reading.batch_size),
        ),
        devices,
    )
    steps = [parts.weight_step()]
    if settings.searcher_steps:
        steps.append(parts.searcher_step())
    programs = [
        parallel.replicated(
            epochs.repeat(step, lambda texts: None), devices, donate_argnums=0
        )
        for step in steps
    ]
    state = parallel.device_put(jax.jit(parts.init)(key), devices)
    for program in programs[1:]:  # compile before time is measured
        state = program(state, texts, jnp.int32(0))

    def advance(state: LanguageSearchState, num_steps: int) -> LanguageSearchState:
        phase, left = schedule.phase(int(state.step))
        return programs[phase](state, texts, jnp.int32(min(num_steps, left)))

    def tokens_per_step(step: int) -> int:
        phase, _ = schedule.phase(step)
        if phase == 0:
            return round(reading.words_per_step())
        return reading.batch_size * reading.window * settings.num_search_archs

    def end_epoch(state: LanguageSearchState) -> dict[str, float]:
        has_been_told = int(state.step) > 0 and settings.searcher_steps > 0
        info = state.searcher_metrics if has_been_told else {}
        return {name: float(value) for name, value in info.items()}

    state = loop.run(
        advance,
        state,
        num_epochs=settings.num_epochs,
        steps_per_epoch=schedule.steps_per_epoch,
        items_per_step=tokens_per_step,
        end_epoch=end_epoch,
        description=description,
        unit="tokens",
        workdir=workdir,
        save_seconds=save_seconds,
    )
    return LanguageSearchResult(state, searcher.mode(state.searcher))
