"""A search for a recurrent cell and a training that compile at once, on a text."""

import functools

import jax
import numpy as np
import optax
from helpers import take

from jaxnas import data, networks, ops, optim, search, spaces, supernets, train
from jaxnas.genotypes import RecurrentGenotype

NUM_WORDS, SIZE = 7, 12
DROPOUT = ops.RecurrentDropout(0.05, 0.1, 0.1, 0.2)
GENOTYPE = RecurrentGenotype(("tanh", "relu"), (0,))


@functools.cache
def texts() -> data.TextDataset:
    """Texts in which a word follows from the one before, but for some noise."""
    rng = np.random.default_rng(0)

    def text(length: int) -> np.ndarray:
        noise = rng.random(length) < 0.3
        words = np.zeros(length, np.int32)
        for i in range(1, length):
            follows = (3 * words[i - 1] + 1) % NUM_WORDS
            words[i] = rng.integers(NUM_WORDS) if noise[i] else follows
        return words

    vocabulary = ("<eos>", *"abcdef")
    return data.TextDataset(
        "toy", text(640), text(160), text(120), vocabulary, "a made-up text"
    )


def optimizer() -> optax.GradientTransformation:
    return optim.adam(0.02, clip_norm=0.25)


def run_search(workdir=None, **options):
    """Search two nodes for two epochs of 12 steps of the weights and 3 others."""
    reading = take(train.ReadingSettings, options, batch_size=8, window=6)
    settings = take(
        train.LanguageSearchSettings,
        options,
        num_epochs=2,
        reading=reading,
        searcher_steps=3,
        num_search_archs=2,
    )
    space = spaces.enas_recurrent(2)
    return train.search_language(
        options.pop("net", None)
        or supernets.recurrent(space, NUM_WORDS, SIZE, dropout=DROPOUT),
        options.pop("searcher", None) or search.asng(space),
        optimizer(),
        options.pop("train", texts().train),
        options.pop("validation", texts().validation),
        settings,
        key=jax.random.key(0),
        workdir=workdir,
        **options,
    )


def run_training(workdir=None, *, seed=0, **options):
    """Train two nodes for four epochs of 12 steps."""
    reading = take(train.ReadingSettings, options, batch_size=8, window=6)
    settings = take(
        train.LanguageTrainingSettings,
        options,
        num_epochs=4,
        reading=reading,
        patience=0,
        eval_batch_size=4,
    )
    run = train.make_language_train_fn(
        options.pop("network", None)
        or networks.recurrent(GENOTYPE, NUM_WORDS, SIZE, dropout=DROPOUT),
        options.pop("optimizer", None) or optimizer(),
        options.pop("train", texts().train),
        options.pop("validation", texts().validation),
        settings,
        **options,
    )
    return run(jax.random.key(seed), workdir=workdir)
