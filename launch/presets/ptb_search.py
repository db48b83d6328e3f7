"""Presets of `ptb_search.py`."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from searchers import Random, Reinforce
from session import Count, Preset, Presets, Rate, Run, Size
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

if TYPE_CHECKING:
    from jaxnas.spaces import RecurrentSpace


@dataclasses.dataclass(frozen=True)
class Enas:
    """The first node chooses its activation; the state is the mean of the loose ends.

    Attributes:
      num_nodes: nodes of a cell.
    """

    num_nodes: Count = 12

    def __call__(self) -> "RecurrentSpace":
        """The search space."""
        from jaxnas import spaces

        return spaces.enas_recurrent(self.num_nodes)


@dataclasses.dataclass(frozen=True)
class Darts:
    """The first node has tanh; the state is the mean of all others.

    Attributes:
      num_nodes: nodes of a cell after the first.
    """

    num_nodes: Count = 8

    def __call__(self) -> "RecurrentSpace":
        """The search space."""
        from jaxnas import spaces

        return spaces.darts_recurrent(self.num_nodes)


@dataclasses.dataclass(frozen=True)
class Scratch:
    """Trainings from scratch that the found cell is compared by.

    Sizes, dropout and training are those of the search but for what is here.

    Attributes:
      scratch_random: random cells that are trained from scratch beside the found one
        (0: no such comparison).
      scratch_seeds: of those trainings, for each of them.
      scratch_epochs: length of those trainings.
      scratch_learning_rate: first learning rate (default: as in the search).
      scratch_patience: weights are averaged from when the validation loss exceeds the
        lowest of the epochs before the last so many (default: never).
    """

    scratch_random: Size = 0
    scratch_seeds: Count = 1
    scratch_epochs: Count = 150
    scratch_learning_rate: Rate | None = None
    scratch_patience: Size | None = 5


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a search for recurrent cells.

    Attributes:
      weights_of: what has weights of its own: each pair of nodes (pair), each
        activation at each pair (activation), or each node (node).
      searcher_steps: updates of the searcher after each epoch.
      archs_per_step: cells in one of them, each evaluated on a window of its own.
      num_candidates: cells that the searcher samples in the end.
      screening_tokens: first words of the validation text that all candidates are
        ranked by, and then the best 10 by all of it (0: all candidates by all of it).
    """

    weights_of: Literal["pair", "activation", "node"] = "pair"
    searcher_steps: Size = 200
    archs_per_step: Count = 10
    num_candidates: Count = 100
    screening_tokens: Size = 10_000
    space: Enas | Darts = Enas()
    searcher: Reinforce | Random = Reinforce()
    scratch: Scratch = Scratch()
    model: Model = Model(hidden_size=1000, max_norm=25.0)
    training: Training = Training(optimizer=Sgd(weight_decay=2e-7))
    texts: Texts = PTB
    run: Run = Run()


ENAS = Config()
QUICK = Config(
    searcher_steps=10,
    archs_per_step=5,
    screening_tokens=1000,
    space=Enas(num_nodes=6),
    scratch=Scratch(scratch_random=4, scratch_epochs=6),
    model=QUICK_MODEL,
    training=dataclasses.replace(QUICK_TRAINING, epochs=8),
    texts=Texts(),
)
ENAS_LM = Config(
    weights_of="activation",
    searcher_steps=25,
    space=Darts(num_nodes=9),
    searcher=Reinforce(controller="script"),
    model=dataclasses.replace(DARTS_MODEL, hidden_size=200, drop_words=0.1),
    training=dataclasses.replace(
        AWD_TRAINING,
        epochs=600,
        batch_size=128,
        slowness_penalty=1.0,
        clip_norm=0.1,
    ),
)
DARTS = Config(
    weights_of="node",
    searcher_steps=1,
    num_candidates=1000,
    space=Darts(),
    searcher=Random(),
    model=dataclasses.replace(DARTS_MODEL, hidden_size=300),
    training=dataclasses.replace(
        AWD_TRAINING,
        epochs=50,
        batch_size=256,
        slowness_penalty=1e-3,
        optimizer=Sgd(weight_decay=5e-7),
    ),
)

PRESETS: Presets[Config] = {
    "quick": Preset(
        """ENAS on a made-up language, with a comparison from scratch.

    A demonstration for a laptop CPU: cells of 6 nodes and 64 features, found and 4
    random ones trained from scratch for 6 epochs. Expected test perplexity (seed 0):
    found 7.92, random 8.01 to 8.30, difference -0.19 [-0.67, +0.28]: none shows; no
    model can have much below 7.56. Cost: 1 min 40 s on 2 CPU cores with empty caches.
    """,
        QUICK,
    ),
    "enas-ptb": Preset(
        """ENAS on Penn Treebank with the settings of the paper (Pham et al. 2018).

    12 nodes, weights of each pair of nodes, 150 epochs of SGD with the learning rate
    20, times 0.96 after each epoch from 15 on, the limit 0.25 of the gradient's norm
    and the penalty 1e-7 * sum(w ** 2), whose gradient is the weight decay 2e-7; 2000
    cells for the controller after each epoch. Losses are means over words here; if the
    paper's is the sum over 35 steps of the official script, its limit of the gradient's
    norm acts more. Not established: hidden size and dropout of the paper's search; 1000
    features, and the limit 25 of the norm of a state against explosions, are those of
    the reimplementation carpedm20/ENAS-pytorch, and there is no dropout. Published test
    perplexity after training: 56.3, which Li and Talwalkar (2019, table 2) "could not
    reproduce": 58.6 with this cell in the code of DARTS. --scratch-random 8 compares
    with random cells. Not run to its end.
    """,
        ENAS,
    ),
    "enas-lm-ptb": Preset(
        """The corrected code of ENAS's authors for language models, enas_lm.

    The official language model of ENAS was withdrawn for it. 9 nodes after the first,
    weights of each activation at each pair of nodes, 200 features, 600 epochs, 25 x 10
    cells for its controller after each epoch. Its dropout of embedded words (0.2) and
    of inputs (0.75) are one here, 1 - 0.8 * 0.25. Its penalty on fourth powers of some
    weights is left out. Published test perplexity after training, by its README: 56.1
    +- 0.1 on TPU, 57.3 +- 0.1 on GPU. Not run to its end.
    """,
        ENAS_LM,
    ),
    "darts-ptb": Preset(
        """Random search with shared weights in DARTS's space (Li and Talwalkar 2019).

    8 nodes after the first, each with one matrix whatever it reads, 300 features, 50
    epochs; the best of 1000 cells. The one update after an epoch only measures. Its
    dropout of embedded words (0.2) and of inputs (0.75) are one here, 1 - 0.8 * 0.25.
    Its windows are 35 or 17 words; here lengths vary as in training. Published
    perplexity after training (table 2): validation 57.8, test 55.5; a second run test
    56.5. Not run to its end.
    """,
        DARTS,
    ),
    "random-ptb": Preset(
        """Weights trained with uniformly drawn cells; the best of 1000.

    The baseline of enas-ptb, without its controller: the one update after an epoch only
    measures. Not run to its end.
    """,
        dataclasses.replace(
            ENAS, searcher=Random(), searcher_steps=1, num_candidates=1000
        ),
    ),
}
