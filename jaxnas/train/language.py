"""Language models in training: pure steps on windows of a text, and perplexity.

A text is cut into as many rows as a batch has. Every step reads the next window of all
rows, and begins with the states that the last one ended with: their gradient goes no
further back than the window.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxnas import ops
from jaxnas._checks import check_sizes
from jaxnas.train import batches
from jaxnas.types import Arch, Key, Metrics, Params

_LENGTH_STEP = 5  # of windows of random length
_LENGTH_SPREAD = 5.0  # their standard deviation, in words


class LanguageModel(Protocol):
    """A language model: `(params, arch, inputs, *, train, key, batch_axis) -> outputs`.

    That is `apply` of `supernets.recurrent`, and of a network after
    `language_model_of`, whose `arch` is `None`. Inputs are `(tokens, state)`, outputs
    an `ops.LanguageOutputs`. Parameters hold `embedding` `[num_words, hidden_size]`.
    """

    def __call__(
        self,
        params: Params,
        arch: Arch | None,
        inputs: tuple[jax.Array, jax.Array],
        *,
        train: bool = False,
        key: Key | None = None,
        batch_axis: str | None = None,
    ) -> Any:
        """Read `inputs`; dropout needs `train` and a `key`."""
        ...


def language_model_of(network: Any) -> LanguageModel:
    """A network, such as `networks.recurrent` makes it, as a `LanguageModel`."""

    def apply(params, arch, inputs, *, train=False, key=None, batch_axis=None):
        del arch
        rngs = None if key is None else {"dropout": key}
        return network.apply(
            {"params": params},
            inputs,
            train=train,
            batch_axis=batch_axis,
            rngs=rngs,
        )

    return apply


class ReadingSettings(NamedTuple):
    """How a language model reads a text while it learns.

    Attributes:
      batch_size: rows that the text is cut into.
      window: words of each row in a step, through which the gradient goes back.
      random_windows: whether the lengths of windows vary about `window`, and the
        learning rate with them, as for AWD-LSTM (Merity et al. 2018). A length is
        `window`, or with a probability of 5 % half of it, plus noise of a standard
        deviation of 5, at least 5 and at most `window + 20`. Here each of these
        differs from `window` by a multiple of 5, up to 15, for each is a program.
      activation_penalty: weight of the mean square of the states after dropout.
      slowness_penalty: weight of the mean square of the states' changes.
      max_skipped: a step whose gradient is not finite changes nothing but the states,
        which begin anew, and is counted; so many in a row end the training.
    """

    batch_size: int = 64
    window: int = 35
    random_windows: bool = False
    activation_penalty: float = 0.0
    slowness_penalty: float = 0.0
    max_skipped: int = 20

    def check(self) -> None:
        """Raise `ValueError` if a setting is out of range."""
        check_sizes(
            batch_size=self.batch_size,
            window=self.window,
            max_skipped=self.max_skipped,
        )
        for name in ("activation_penalty", "slowness_penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; expected 0 or more")

    def lengths(self) -> dict[int, float]:
        """The lengths of windows, ascending, and the probability of each."""
        if not self.random_windows:
            return {self.window: 1.0}
        first = self.window % _LENGTH_STEP or _LENGTH_STEP
        lengths = range(first, self.window + 16, _LENGTH_STEP)
        ends = [-math.inf, *(n + _LENGTH_STEP / 2 for n in lengths[:-1]), math.inf]

        def below(end: float) -> float:
            return sum(
                share * 0.5 * math.erfc((mean - end) / (_LENGTH_SPREAD * math.sqrt(2)))
                for share, mean in ((0.95, self.window), (0.05, self.window / 2))
            )

        probs = [below(b) - below(a) for a, b in itertools.pairwise(ends)]
        return dict(zip(lengths, probs, strict=True))

    def words_per_step(self) -> float:
        """Words of a batch, on average."""
        mean = sum(length * prob for length, prob in self.lengths().items())
        return self.batch_size * mean

    def steps_per_epoch(self, num_tokens: int) -> int:
        """Steps of one pass through a text.

        Raises:
          ValueError: if it has no whole window in each row.
        """
        longest, row = max(self.lengths()), num_tokens // self.batch_size
        if row <= longest:
            raise ValueError(
                f"the text has {num_tokens} tokens, which are {row} in each of "
                f"{self.batch_size} rows; expected more than a window of {longest} in "
                "each: a smaller batch_size or window, or a longer text"
            )
        return int((row - 1) * self.batch_size / self.words_per_step())


class ReaderState(NamedTuple):
    """A language model in training, and where it reads.

    Attributes:
      params: its parameters.
      opt_state: the optimizer's state, which counts steps that were not finite.
      hidden: `[batch_size, hidden_size]`, the states after the last window.
      position: int32 scalar, the first word of the next window in every row.
    """

    params: Params
    opt_state: optax.ApplyIfFiniteState
    hidden: jax.Array
    position: jax.Array


def text_rows(tokens: np.ndarray, batch_size: int) -> np.ndarray:
    """Cut a text into rows of one length; what is left over is dropped.

    Returns:
      int32 `[batch_size, num_tokens // batch_size]`.
    """
    length = tokens.size // batch_size
    return np.asarray(tokens[: batch_size * length]).reshape(batch_size, length)


def check_tokens(name: str, tokens: np.ndarray, num_words: int) -> None:
    """Check that a text has words of a vocabulary only.

    Args:
      name: of the text, for the error.
      tokens: int32 `[num_tokens]`.
      num_words: size of the vocabulary of the model.

    Raises:
      ValueError: if it does not, or is not a row of integers.
    """
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(
            f"the {name} has the shape {list(tokens.shape)} and the type "
            f"{tokens.dtype}; expected a row of integers"
        )
    for token in (tokens.min(initial=0), tokens.max(initial=0)):
        if not 0 <= token < num_words:
            raise ValueError(
                f"the {name} has a word of the number {token}; expected 0 to "
                f"{num_words - 1}, the vocabulary of the model"
            )


def init_reader(
    params: Params, optimizer: optax.GradientTransformation, batch_size: int
) -> ReaderState:
    """A reader at the beginning of a text."""
    embedding = params["embedding"]
    return ReaderState(
        params,
        cast(optax.ApplyIfFiniteState, _if_finite(optimizer).init(params)),
        jnp.zeros((batch_size, embedding.shape[1]), embedding.dtype),
        jnp.int32(0),
    )


def _if_finite(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
    # After as many errors in a row, it would apply what is not finite.
    return optax.apply_if_finite(
        optimizer, max_consecutive_errors=np.iinfo("int32").max
    )


def reading_step(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    settings: ReadingSettings,
    *,
    batch_axis: str | None = None,
    num_devices: int = 1,
) -> Callable[..., tuple[ReaderState, Metrics]]:
    """Make one optimizer step on the next window of a text.

    Args:
      model: the language model.
      optimizer: for its parameters; its updates are scaled by the length of a window
        over `settings.window`.
      settings: how it reads.
      batch_axis: mapped axis over which the rows are shared out, if any.
      num_devices: size of that axis.

    Returns:
      `(state, arch, rows, position, key) -> (state, metrics)` for int32 `rows`
      `[batch_size, num_tokens]` and the number of the step within its epoch; in step 0
      the text begins anew. Metrics are `loss`, nats per word, and bool `is_skipped` and
      `is_hopeless`, after too many steps in a row that were.
    """
    table = settings.lengths()
    lengths, probs = list(table), jnp.array(list(table.values()), float)
    safe_optimizer = _if_finite(optimizer)

    def step_of_length(length: int, state: ReaderState, arch, rows, key):
        start = jnp.where(state.position + length < rows.shape[1], state.position, 0)
        hidden = jnp.where(start == 0, 0, state.hidden)
        words = lax.dynamic_slice_in_dim(rows, start, length + 1, axis=1)
        batch = {"words": words, "hidden": hidden}
        local = batches.local_batch(batch, batch_axis, num_devices)

        def objective(params):
            outputs = model(
                params,
                arch,
                (local["words"][:, :-1], local["hidden"]),
                train=True,
                key=key,
                batch_axis=batch_axis,
            )
            loss = ops.cross_entropy(outputs.logits, local["words"][:, 1:]).mean()
            return loss + _penalties(outputs, settings), (loss, outputs.state)

        gradient, (loss, hidden) = jax.grad(objective, has_aux=True)(state.params)
        if batch_axis is not None:
            gradient, loss = lax.pmean((gradient, loss), batch_axis)
            hidden = lax.all_gather(hidden, batch_axis, tiled=True)
        # A loss that is not finite may have a gradient that is.
        gradient = jax.tree.map(
            lambda g: jnp.where(jnp.isfinite(loss), g, jnp.nan), gradient
        )
        # Adam's bias correction raises a float to an integer power.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = safe_optimizer.update(
                gradient, state.opt_state, state.params
            )
        opt_state = cast(optax.ApplyIfFiniteState, opt_state)
        if length != settings.window:
            updates = jax.tree.map(lambda u: u * (length / settings.window), updates)
        is_taken = opt_state.last_finite
        hidden = jnp.where(is_taken & jnp.isfinite(hidden).all(), hidden, 0)
        new = ReaderState(
            optax.apply_updates(state.params, updates),
            opt_state,
            hidden,
            start + length,
        )
        metrics = {
            "loss": loss,
            "is_skipped": ~is_taken,
            "is_hopeless": opt_state.notfinite_count >= settings.max_skipped,
        }
        return new, metrics

    def step(
        state: ReaderState,
        arch: Arch | None,
        rows: jax.Array,
        position: jax.Array,
        key: Key,
    ) -> tuple[ReaderState, Metrics]:
        state = state._replace(position=jnp.where(position == 0, 0, state.position))
        if len(lengths) == 1:
            return step_of_length(lengths[0], state, arch, rows, key)
        length_key, key = jax.random.split(key)
        number = jax.random.choice(length_key, len(lengths), p=probs)
        branches = [
            lambda *args, length=length: step_of_length(length, *args)
            for length in lengths
        ]
        return lax.switch(number, branches, state, arch, rows, key)

    return step


def _penalties(outputs: Any, settings: ReadingSettings) -> jax.Array | float:
    """Regularization of the states, as for AWD-LSTM."""
    penalty = 0.0
    if settings.activation_penalty:
        penalty += settings.activation_penalty * jnp.square(outputs.dropped).mean()
    if settings.slowness_penalty:
        changes = outputs.hidden[:, 1:] - outputs.hidden[:, :-1]
        penalty += settings.slowness_penalty * jnp.square(changes).mean()
    return penalty


def window_loss(
    model: LanguageModel, *, batch_axis: str | None = None, num_devices: int = 1
) -> Callable[[Params, Arch | None, jax.Array], jax.Array]:
    """Make the evaluation on one window, from zero states.

    Args:
      model: the language model.
      batch_axis: mapped axis over which the rows are shared out, if any.
      num_devices: size of that axis.

    Returns:
      `(params, arch, words) -> loss`, nats per word, for int32 `words` `[B, T + 1]`.
    """

    def loss(params: Params, arch: Arch | None, words: jax.Array) -> jax.Array:
        local = batches.local_batch({"words": words}, batch_axis, num_devices)
        words, size = local["words"], params["embedding"].shape[1]
        zeros = jnp.zeros((words.shape[0], size), params["embedding"].dtype)
        outputs = model(params, arch, (words[:, :-1], zeros))
        loss = ops.cross_entropy(outputs.logits, words[:, 1:]).mean()
        return loss if batch_axis is None else lax.pmean(loss, batch_axis)

    return loss


class TextWindows(NamedTuple):
    """A text for an evaluation, in windows that follow each other in every row.

    Attributes:
      words: int32 `[num_windows, B, T]`.
      targets: int32 of this shape, the word after each.
      weights: float32, 0 where the text is over.
    """

    words: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def evaluation_windows(tokens: np.ndarray, batch_size: int, window: int) -> TextWindows:
    """Cut a whole text into windows; see `make_language_eval_fn`."""
    num = tokens.size - 1
    per_row = -(-num // batch_size)
    num_windows = -(-per_row // window)
    place = np.arange(num_windows * window)
    index = np.arange(batch_size)[:, None] * per_row + place
    counts = (index < num) & (place < per_row)
    index = np.minimum(index, num - 1)

    def cut(x: np.ndarray) -> np.ndarray:
        return x.reshape(batch_size, num_windows, window).swapaxes(0, 1)

    return TextWindows(
        cut(tokens[index]), cut(tokens[index + 1]), cut(counts.astype(np.float32))
    )


def make_language_eval_fn(
    model: LanguageModel, *, batch_size: int = 1, window: int = 35
) -> Callable[..., dict[str, float]]:
    """Make the evaluation on a whole text.

    Every word but the first counts once. The text is read in `batch_size` rows, each
    from a zero state, so that more rows are faster and a little worse. The model does
    not learn from the text it reads ("dynamic evaluation").

    Args:
      model: the language model.
      batch_size: rows that the text is cut into; published perplexities have 1.
      window: words of each row in one product; of no influence but on the speed.

    Returns:
      `(params, tokens, arch=None) -> metrics`: `loss`, nats per word, and
      `perplexity`, its exponential. It is compiled once for texts of one length.

    Raises:
      ValueError: if a number is not positive; when evaluating, if the text has less
        than one word more than there are rows, or words that the model does not know.
    """
    check_sizes(batch_size=batch_size, window=window)
    total_loss = jax.jit(_text_loss(model))

    def evaluate(
        params: Params, tokens: np.ndarray, arch: Arch | None = None
    ) -> dict[str, float]:
        check_tokens("text", tokens, params["embedding"].shape[0])
        if tokens.size <= batch_size:
            raise ValueError(
                f"the text has {tokens.size} tokens; expected more than the batch of "
                f"{batch_size}"
            )
        windows = evaluation_windows(np.asarray(tokens), batch_size, window)
        host_arch = None if arch is None else np.asarray(arch)
        return with_perplexity(float(total_loss(params, host_arch, windows)))

    return evaluate


def _text_loss(
    model: LanguageModel,
) -> Callable[[Params, Arch | None, TextWindows], jax.Array]:
    """Make the pure part of `make_language_eval_fn`: the loss of a text in windows."""

    def loss(params: Params, arch: Arch | None, windows: TextWindows) -> jax.Array:
        embedding = params["embedding"]
        batch_size = windows.words.shape[1]
        hidden = jnp.zeros((batch_size, embedding.shape[1]), embedding.dtype)

        def read(hidden, window):
            words, targets, weights = window
            outputs = model(params, arch, (words, hidden))
            nats = ops.cross_entropy(outputs.logits, targets)
            return outputs.state, (nats * weights.astype(nats.dtype)).sum(1)

        _, sums = lax.scan(read, hidden, windows)
        return sums.sum() / jnp.asarray(windows.weights, sums.dtype).sum()

    return loss


def with_perplexity(loss: float) -> dict[str, float]:
    """A loss, nats per word, and its perplexity; infinite where it overflows."""
    perplexity = math.exp(loss) if loss < 700 else loss * math.inf
    return {"loss": loss, "perplexity": perplexity}


def inverse_perplexity(constant: float = 80.0) -> Callable[[Mapping[str, Any]], Any]:
    """The objective of ENAS: 1 minus its reward, `constant / perplexity`.

    Args:
      constant: of Zoph and Le (2017), by which rewards are of the order of 1.

    Returns:
      `metrics -> loss`, an `Objective`.
    """

    def objective(metrics: Mapping[str, Any]) -> Any:
        return 1 - constant * jnp.exp(-metrics["loss"])

    return objective


TRAIN_METRICS = ("train/loss", "train/perplexity", "train/num_skipped")
"""What `mean_of_taken` keeps."""


def mean_of_taken(
    epoch_metrics: Metrics, metrics: Metrics, position: jax.Array
) -> Metrics:
    """Add a step's loss to the mean over those steps of its epoch that were taken.

    Args:
      epoch_metrics: `TRAIN_METRICS`, and others, which stay as they are.
      metrics: of `reading_step`.
      position: number of this step within the epoch; 0 begins anew.

    Returns:
      The new metrics.
    """
    mean, before = epoch_metrics["train/loss"], epoch_metrics["train/num_skipped"]
    is_taken = ~metrics["is_skipped"]
    num_skipped = jnp.where(position == 0, 0, before) + (~is_taken).astype(mean.dtype)
    num_taken = (position + 1).astype(mean.dtype) - num_skipped
    moved = mean + (metrics["loss"] - mean) / jnp.maximum(num_taken, 1)
    new = jnp.where(num_taken <= 1, metrics["loss"], moved)
    mean = jnp.where(is_taken, new, mean)
    # The host ends a run whose loss is not finite.
    mean = jnp.where(metrics["is_hopeless"], jnp.nan, mean)
    return epoch_metrics | {
        "train/loss": mean,
        # A mean may be large but finite; the run goes on.
        "train/perplexity": jnp.exp(jnp.minimum(mean, 80)),
        "train/num_skipped": num_skipped,
    }
