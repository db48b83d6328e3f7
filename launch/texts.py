"""The flags and functions of commands that train language models."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from optimizers import Adam, positive_decay
from session import Count, Rate, Size

if TYPE_CHECKING:
    import optax

    from jaxnas import data, train
    from jaxnas.ops import RecurrentDropout


@dataclasses.dataclass(frozen=True)
class Texts:
    """Which texts there are.

    Attributes:
      dataset: grammar, a made-up language that needs no files; ptb, Penn Treebank;
        wikitext2, WikiText-2; or text, your own train.txt, valid.txt and test.txt.
      data_dir: folder of the files.
      max_tokens: use only the first tokens of each text; the vocabulary stays whole.
    """

    dataset: str = "grammar"
    data_dir: str | None = None
    max_tokens: Count | None = None


@dataclasses.dataclass(frozen=True)
class Model:
    """The language model around a recurrent cell; dropout is for training only.

    Attributes:
      hidden_size: features of the state and of the embedded words.
      drop_words: probability of dropout of a word of the vocabulary, in each row.
      drop_inputs: of a feature of the embedded words.
      drop_states: of a feature of the state and of what every node reads.
      drop_outputs: of a feature of the state before the logits.
      max_norm: largest norm of a state, to which larger ones are scaled down (default:
        no limit).
    """

    hidden_size: Count = 748
    drop_words: Rate = 0.0
    drop_inputs: Rate = 0.0
    drop_states: Rate = 0.0
    drop_outputs: Rate = 0.0
    max_norm: Rate | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of supernets and networks, checked."""
        dropout = self.dropout()
        dropout.check()
        if self.max_norm == 0:
            raise ValueError("--max-norm is 0.0; expected a positive number")
        return {
            "hidden_size": self.hidden_size,
            "dropout": dropout,
            "max_norm": self.max_norm,
        }

    def dropout(self) -> "RecurrentDropout":
        """Probabilities of dropout."""
        from jaxnas.ops import RecurrentDropout

        return RecurrentDropout(
            self.drop_words, self.drop_inputs, self.drop_states, self.drop_outputs
        )


@dataclasses.dataclass(frozen=True)
class Sgd:
    """SGD without momentum.

    Attributes:
      weight_decay: of all weights, twice the factor of an L2 penalty.
    """

    weight_decay: Rate = 0.0

    def __call__(
        self, schedule: "optax.ScalarOrSchedule", clip_norm: float | None
    ) -> "optax.GradientTransformation":
        """The optax chain with a schedule and a limit of the gradient's norm."""
        from jaxnas import optim

        return optim.sgd(
            schedule,
            momentum=0.0,
            weight_decay=self.weight_decay,
            clip_norm=clip_norm,
        )


@dataclasses.dataclass(frozen=True)
class Training:
    """Training of the weights; losses are means over words.

    Attributes:
      epochs: passes through the training text.
      batch_size: rows that the text is cut into.
      window: words of each row in a step, through which the gradient goes back.
      random_windows: let the lengths of windows vary, and the learning rate with them.
      activation_penalty: weight of the mean square of the states after dropout.
      slowness_penalty: weight of the mean square of the states' changes.
      learning_rate: first learning rate.
      decay: ratio of the learning rates of an epoch and the one before (1: constant).
      decay_from: the first epoch (from 0) after which it decays.
      clip_norm: limit of the gradient's global norm; 0 for none.
    """

    epochs: Count = 150
    batch_size: Count = 64
    window: Count = 35
    random_windows: bool = False
    activation_penalty: Rate = 0.0
    slowness_penalty: Rate = 0.0
    learning_rate: Rate = 20.0
    decay: Rate = 0.96
    decay_from: Size = 15
    clip_norm: Rate = 0.25
    optimizer: Sgd | Adam = Sgd()

    def reading(self) -> "train.ReadingSettings":
        """How a model reads the training text, checked."""
        from jaxnas import train

        reading = train.ReadingSettings(
            self.batch_size,
            self.window,
            self.random_windows,
            self.activation_penalty,
            self.slowness_penalty,
        )
        reading.check()
        return reading

    def make_optimizer(
        self, steps_per_epoch: int, learning_rate: float | None = None
    ) -> "optax.GradientTransformation":
        """The optax chain, possibly with another first learning rate."""
        from jaxnas import optim

        schedule = optim.exponential_by_epoch(
            self.learning_rate if learning_rate is None else learning_rate,
            positive_decay(self.decay),
            steps_per_epoch,
            first_epoch=self.decay_from,
        )
        return self.optimizer(schedule, self.clip_norm or None)


PTB = Texts(dataset="ptb")
QUICK_MODEL = Model(hidden_size=64, max_norm=8.0)
QUICK_TRAINING = Training(
    epochs=15,
    batch_size=32,
    window=20,
    learning_rate=0.005,
    decay=0.8,
    decay_from=3,
    optimizer=Adam(),
)
# As for AWD-LSTM: a constant learning rate, windows of random lengths.
AWD_TRAINING = Training(random_windows=True, decay=1.0, decay_from=0)
# Of DARTS and enas_lm: embedded words and inputs together, 1 - 0.8 * 0.25.
DARTS_MODEL = Model(drop_inputs=0.8, drop_states=0.25, drop_outputs=0.75)


def load(config: Texts) -> "data.TextDataset":
    """Load the texts of the settings."""
    from jaxnas import data

    texts = data.load_text(config.dataset, config.data_dir)
    if config.max_tokens is None:
        return texts
    return data.first_tokens(texts, config.max_tokens)


def identity(texts: "data.TextDataset") -> dict[str, str]:
    """What a run knows its texts by, wherever they lie."""
    from jaxnas import data

    sizes = " + ".join(str(text.size) for text in texts[1:4])
    digest = data.text_digest(texts)[:16]
    return {"texts": f"{sizes} tokens, {texts.num_words} words, SHA-256 {digest}"}


def check_read(
    texts: "data.TextDataset", reading: "train.ReadingSettings", eval_batch_size: int
) -> int:
    """Check that all texts can be read.

    Args:
      texts: the texts.
      reading: how the training text is read.
      eval_batch_size: rows of the validation text when it is evaluated.

    Returns:
      Steps of a pass through the training text.

    Raises:
      ValueError: if a text is too short, saying which.
    """
    steps = _named("training", lambda: reading.steps_per_epoch(texts.train.size))
    for name, text, rows in (
        ("validation", texts.validation, eval_batch_size),
        ("test", texts.test, 1),
    ):
        if text.size <= rows:
            raise ValueError(
                f"the {name} text has {text.size} tokens; expected more than {rows}, "
                "the rows it is evaluated in"
            )
    return steps


def check_searched(texts: "data.TextDataset", reading: "train.ReadingSettings") -> None:
    """Check that a searcher finds windows in the validation text."""
    fixed = reading._replace(random_windows=False)
    _named("validation", lambda: fixed.steps_per_epoch(texts.validation.size))


def _named(name: str, call: Callable[[], int]) -> int:
    try:
        return call()
    except ValueError as error:
        raise ValueError(f"{name} text: {error}") from error
