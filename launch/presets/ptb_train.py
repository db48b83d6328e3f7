"""Presets of `ptb_train.py`."""

import dataclasses

from session import Count, Preset, Presets, Run, Size
from texts import (
    AWD_TRAINING,
    DARTS_MODEL,
    PTB,
    QUICK_MODEL,
    QUICK_TRAINING,
    Model,
    Sgd,
    Texts,
    Training,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of training one recurrent cell from scratch.

    Attributes:
      genotype: file (JSON), the name of a published cell, or the integers of an ENAS
        script.
      patience: weights are averaged from when the validation loss exceeds the lowest of
        the epochs before the last so many (default: as --preset says; None: never).
      validation_batch_size: rows of the validation text after each epoch.
      sample_words: words that the trained model writes.
    """

    genotype: str = ""
    patience: Size | None = None
    validation_batch_size: Count = 10
    sample_words: Count = 100
    model: Model = Model(
        drop_words=0.21, drop_inputs=0.75, drop_states=0.25, drop_outputs=0.76
    )
    training: Training = Training(
        epochs=2000,
        slowness_penalty=0.73,
        decay=0.9991,
        decay_from=14,
        optimizer=Sgd(weight_decay=1e-6),
    )
    texts: Texts = PTB
    run: Run = Run()


ENAS = Config()
QUICK = Config(
    patience=5,
    model=QUICK_MODEL,
    training=QUICK_TRAINING,
    texts=Texts(),
)
ENAS_LM = Config(
    patience=10,
    model=Model(
        hidden_size=800,
        drop_words=0.125,
        drop_inputs=0.773125,
        drop_states=0.225,
        drop_outputs=0.75,
    ),
    training=dataclasses.replace(
        AWD_TRAINING,
        epochs=3000,
        activation_penalty=0.7,
        optimizer=Sgd(weight_decay=1.6e-6),
    ),
)
DARTS = Config(
    patience=5,
    model=dataclasses.replace(DARTS_MODEL, hidden_size=850, drop_words=0.1),
    training=dataclasses.replace(
        AWD_TRAINING,
        epochs=3600,
        slowness_penalty=1e-3,
        optimizer=Sgd(weight_decay=8e-7),
    ),
)

PRESETS: Presets[Config] = {
    "quick": Preset(
        """A small language model of a made-up language, for a laptop CPU.

    Expected: test perplexity of 7.77 with the cell that the search's quick preset finds
    (seed 0). Cost: half a minute of CPU time.
    """,
        QUICK,
    ),
    "enas-ptb": Preset(
        """A cell on Penn Treebank as the official script ptb_final.sh of ENAS trains.

    748 features, 2000 epochs of SGD with the learning rate 20, times 0.9991 after each
    epoch from 14 on. The script's loss is the sum over 35 steps, here it is the mean
    over words: its learning rate, limit of the gradient's norm (0.25) and L2 penalty
    (5e-7 * sum(w ** 2), whose gradient is the weight decay 1e-6) are taken as they
    stand, so that the limit acts less here. Its slowness penalty, 1e-3 times a sum over
    34 changes of 748 features, is 0.73 times their mean beside a mean loss. The
    genotype ENAS_RECURRENT is its. Published test perplexity: 56.3; its authors
    withdrew this language model as wrong. Not run to its end.
    """,
        ENAS,
    ),
    "enas-lm-ptb": Preset(
        """A cell on Penn Treebank as enas_lm, the corrected code of ENAS's authors.

    800 features, 3000 epochs of SGD with the learning rate 20, random windows, averaged
    weights. Its dropout of embedded words (0.175) and of inputs (0.725) are one here,
    1 - 0.825 * 0.275. The genotype ENAS_LM_RECURRENT is its. Published test perplexity,
    by its README: 56.1 +- 0.1 on TPU, 57.3 +- 0.1 on GPU; DARTS's cell in the same code
    58.1, AWD-LSTM 58.21. Not run to its end.
    """,
        ENAS_LM,
    ),
    "darts-ptb": Preset(
        """A cell on Penn Treebank as DARTS and Li and Talwalkar (2019) train it.

    850 features, 3600 epochs of SGD with the learning rate 20, random windows, averaged
    weights. Their dropout of embedded words (0.2) and of inputs (0.75) are one here,
    1 - 0.8 * 0.25. The genotypes DARTS_V1_RECURRENT, DARTS_V2_RECURRENT and
    ENAS_RECURRENT are theirs. Published perplexities, validation and test (Li and
    Talwalkar, table 2): ENAS's cell 60.8 and 58.6, DARTS of second order 58.1 and 55.7;
    validation after 300 epochs, best and mean of 4 trainings (table 3): 63.4 and 65.1
    for DARTS's cell. Not run to its end.
    """,
        DARTS,
    ),
}
