"""A search for the recurrent cell of a language model, and what it is worth.

Pham et al. 2018, section 2.1 and 2.2: weights and searcher learn from a text, the best
of many sampled cells by validation perplexity is the result, and it is trained from
scratch. Here random cells of its space are, too.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxnas import _files, analysis, data, genotypes, metrics, train
from jaxnas.data.text import END
from jaxnas.networks import count_params
from jaxnas.studies.architecture_search import random_architectures
from jaxnas.studies.network_training import network_folder
from jaxnas.train import LanguageModel
from jaxnas.types import Device, Key, Params, Searcher, Supernet


class LanguageTraining(NamedTuple):
    """Training from scratch of the language models that a study compares.

    Attributes:
      make_network: `genotype -> network`, such as `networks.recurrent` makes.
      optimizer: for its parameters.
      settings: how it learns.
      key: determines everything random, together with the number of the seed.
      num_seeds: trainings of each network.
      eval_batch_size: rows that a text is cut into for the final perplexities;
        published ones have 1.
    """

    make_network: Callable[[Any], Any]
    optimizer: optax.GradientTransformation
    settings: train.LanguageTrainingSettings
    key: Key
    num_seeds: int = 1
    eval_batch_size: int = 1


class StudiedLanguageModel(NamedTuple):
    """A recurrent cell and what is known about it.

    Attributes:
      name: how reports call it.
      genotype: the cell.
      num_params: number of parameters of its language model, 0 if none was trained.
      validation: `[num_seeds]`, perplexity of the validation text after each training
        from scratch.
      test: `[num_seeds]`, of the test text.
    """

    name: str
    genotype: genotypes.RecurrentGenotype
    num_params: int
    validation: Sequence[float]
    test: Sequence[float]


class LanguageStudy(NamedTuple):
    """The result of a search for a recurrent cell.

    Attributes:
      found: the found cell.
      searched: its `loss` and `perplexity` on the validation text with the weights of
        the search, which only rank architectures.
      candidates: the best candidates by that perplexity, best first.
      random: random cells of the same space.
      num_epochs: length of the trainings from scratch, 0 if there were none.
      difference: mean test perplexity of the found cell minus that of the random ones;
        below 0 if the found one is better.
      sample: words that the found cell's first language model writes.
      params: trained weights of the supernet.
    """

    found: StudiedLanguageModel
    searched: Mapping[str, float]
    candidates: list[train.Ranked]
    random: list[StudiedLanguageModel]
    num_epochs: int
    difference: analysis.Difference | None
    sample: str
    params: Params


def language(
    net: Supernet,
    searcher: Searcher,
    optimizer: optax.GradientTransformation,
    texts: data.TextDataset,
    settings: train.LanguageSearchSettings,
    training: LanguageTraining | None,
    *,
    key: Key,
    num_candidates: int = 100,
    num_screening_tokens: int | None = 10_000,
    num_random: int = 8,
    devices: Sequence[Device] | None = None,
    workdir: str | os.PathLike[str],
) -> LanguageStudy:
    """Search for a recurrent cell, and compare it with random ones.

    The result is the best by validation perplexity, with the weights of the search, of
    the most likely cell and of candidates that the searcher samples. With
    `search.random_search` as the searcher, this is random search with shared weights
    (Li and Talwalkar 2019).

    Args:
      net: the supernet, as `supernets.recurrent` makes it.
      searcher: what proposes its architectures.
      optimizer: for its weights.
      texts: training, validation and test text.
      settings: how weights and searcher learn.
      training: training of the found cell and of the random ones; none if `None`, and
        then nothing tells what the found one is worth.
      key: determines everything random in the search.
      num_candidates: cells that the searcher samples in the end.
      num_screening_tokens: first words of the validation text, by which all candidates
        are ranked before the best ten are ranked by all of it; all if `None`.
      num_random: random cells, at least 2.
      devices: what shares out the rows of a batch; the first device if `None`.
      workdir: folder of the run, with which an interrupted one continues. It gets
        `genotype.json`, `scratch.json`, the logs and checkpoints of the search, and
        below `networks/` a folder for each training.

    Returns:
      The result.

    Raises:
      ValueError: if `num_random` is less than 2, or as `train.search_language` does.
      Diverged: if too many steps in a row were not finite.
      Interrupted: after a signal; the state has been saved.
    """
    if training is not None and num_random < 2:
        raise ValueError(f"num_random is {num_random}; expected at least 2")
    folder = pathlib.Path(workdir)
    search_key, ask_key, random_key = jax.random.split(key, 3)
    result = train.search_language(
        net,
        searcher,
        optimizer,
        texts.train,
        texts.validation,
        settings,
        key=search_key,
        devices=devices,
        workdir=folder,
    )
    params = result.state.reader.params
    ranked = _ranked(
        net,
        params,
        [result.arch, *searcher.ask(result.state.searcher, ask_key, num_candidates)],
        texts.validation,
        settings.reading,
        num_screening_tokens,
        folder,
    )
    found = ranked[0]
    genotypes.save(folder / "genotype.json", net.space.decode(found.arch))
    archs = [found.arch]
    if training is not None:
        archs += random_architectures(net.space, random_key, num_random)
    names = ["found", *(f"random {i}" for i in range(1, len(archs)))]
    trained = _train_all(net, archs, names, training, texts, devices, folder)
    studied = [
        StudiedLanguageModel(
            name,
            net.space.decode(arch),
            _num_params(training, net.space.decode(arch)),
            *perplexities,
        )
        for name, arch, perplexities in zip(names, archs, trained, strict=True)
    ]
    difference, num_epochs, sample = None, 0, ""
    if training is not None:
        difference = analysis.difference_from_random(
            studied[0].test, [other.test for other in studied[1:]]
        )
        num_epochs = training.settings.num_epochs
        sample_path = _model_folder(folder, studied[0].genotype) / "sample.txt"
        sample = sample_path.read_text(encoding="utf-8")
        content = {
            "num_epochs": num_epochs,
            "found": _row(studied[0]),
            "random": [_row(other) for other in studied[1:]],
            "difference": difference,
        }
        _files.write_json(folder / "scratch.json", content, indent=1)
    return LanguageStudy(
        studied[0],
        found.metrics,
        ranked,
        studied[1:],
        num_epochs,
        difference,
        sample,
        params,
    )


def train_language_model(
    training: LanguageTraining,
    texts: data.TextDataset,
    genotype: genotypes.RecurrentGenotype,
    *,
    seed: int = 0,
    devices: Sequence[Device] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    description: str = "train",
) -> tuple[train.LanguageTrainResult, dict[str, float]]:
    """Train one language model from scratch, and measure its perplexities.

    Args:
      training: how.
      texts: training, validation and test text.
      genotype: the recurrent cell.
      seed: number of the training.
      devices: what shares out the rows of a batch; the first device if `None`.
      workdir: folder of the run.
      description: first words of the progress line.

    Returns:
      The result, and the perplexities `validation` and `test` of its parameters.

    Raises:
      ValueError: as `train.make_language_train_fn` does.
      Diverged: if too many steps in a row were not finite.
      Interrupted: after a signal; the state has been saved.
    """
    run = _make_training(training, texts, genotype, devices)
    return run(seed, workdir, description)


def _make_training(
    training: LanguageTraining,
    texts: data.TextDataset,
    genotype: genotypes.RecurrentGenotype,
    devices: Sequence[Device] | None,
) -> Callable[..., tuple[train.LanguageTrainResult, dict[str, float]]]:
    """Make `(seed, workdir, description) -> results`, compiled once for all seeds."""
    network = training.make_network(genotype)
    train_network = train.make_language_train_fn(
        network,
        training.optimizer,
        texts.train,
        texts.validation,
        training.settings,
        devices=devices,
    )
    evaluate = train.make_language_eval_fn(
        train.language_model_of(network),
        batch_size=training.eval_batch_size,
        window=training.settings.reading.window,
    )
    measured = {"validation": texts.validation, "test": texts.test}

    def run(
        seed: int, workdir: str | os.PathLike[str] | None, description: str
    ) -> tuple[train.LanguageTrainResult, dict[str, float]]:
        key = jax.random.fold_in(training.key, seed)
        result = train_network(key, workdir=workdir, description=description)
        perplexities = {
            name: evaluate(result.params, text)["perplexity"]
            for name, text in measured.items()
        }
        return result, perplexities

    return run


def sample_text(
    model: LanguageModel,
    params: Params,
    vocabulary: Sequence[str],
    *,
    key: Key,
    num_words: int = 100,
    temperature: float = 1.0,
    prompt: Sequence[str] = (END,),
) -> str:
    """Let a language model write.

    Args:
      model: the language model.
      params: its parameters.
      vocabulary: the words, in the order of their numbers.
      key: determines what it writes.
      num_words: how many words, ends of lines included.
      temperature: what logits are divided by; below 1 for likelier words.
      prompt: words that it reads before, from a zero state.

    Returns:
      The words, with spaces between them, and lines where it ends them.

    Raises:
      ValueError: if a number is not positive, or a word of the prompt unknown or none
        is given.
    """
    if num_words < 1 or not temperature > 0:
        raise ValueError(
            f"num_words is {num_words} and temperature is {temperature}; expected "
            "positive numbers"
        )
    numbers = {word: number for number, word in enumerate(vocabulary)}
    unknown = [word for word in prompt if word not in numbers]
    if unknown or not prompt:
        found = f"the word {unknown[0]!r}" if unknown else "no word"
        raise ValueError(f"prompt has {found}; expected words of the vocabulary")

    @jax.jit
    def write(params: Params, words: jax.Array, key: Key) -> jax.Array:
        embedding = params["embedding"]
        hidden = jnp.zeros((1, embedding.shape[1]), embedding.dtype)
        outputs = model(params, None, (words[None], hidden))

        def write_one(carry, key):
            logits, hidden = carry
            word = jax.random.categorical(key, logits / temperature)
            word = word.astype(jnp.int32)
            outputs = model(params, None, (word[None, None], hidden))
            return (outputs.logits[0, -1], outputs.state), word

        carry = (outputs.logits[0, -1], outputs.state)
        return lax.scan(write_one, carry, jax.random.split(key, num_words))[1]

    words = np.array([numbers[word] for word in prompt], np.int32)
    written = [vocabulary[int(i)] for i in np.asarray(write(params, words, key))]
    lines = " ".join(written).split(END)
    return "\n".join(line.strip() for line in lines)


def _ranked(
    net: Supernet,
    params: Params,
    archs: Sequence[Any],
    validation: np.ndarray,
    reading: train.ReadingSettings,
    num_screening_tokens: int | None,
    folder: pathlib.Path,
) -> list[train.Ranked]:
    """Rank candidates by validation perplexity with the weights of the search."""
    print("ranking candidates by the validation text", flush=True)
    evaluate = train.make_language_eval_fn(
        net.apply, batch_size=reading.batch_size, window=reading.window
    )

    def by_text(text: np.ndarray) -> Callable[[Any], dict[str, float]]:
        return lambda arch: evaluate(params, text, arch)

    screen = None
    if num_screening_tokens is not None and num_screening_tokens < validation.size:
        screen = by_text(validation[:num_screening_tokens])
    return train.rank_by(by_text(validation), archs, screen=screen, workdir=folder)


def _model_folder(
    folder: pathlib.Path, genotype: genotypes.RecurrentGenotype
) -> pathlib.Path:
    return network_folder(folder / "networks", genotype)


def _num_params(
    training: LanguageTraining | None, genotype: genotypes.RecurrentGenotype
) -> int:
    if training is None:
        return 0
    return count_params(training.make_network(genotype))


def _train_all(
    net: Supernet,
    archs: Sequence[Any],
    names: Sequence[str],
    training: LanguageTraining | None,
    texts: data.TextDataset,
    devices: Sequence[Device] | None,
    folder: pathlib.Path,
) -> list[tuple[list[float], list[float]]]:
    """Train from scratch; validation and test perplexities of every architecture."""
    if training is None:
        return [([], []) for _ in archs]

    def measure(i: int) -> dict[str, float]:
        genotype = net.space.decode(archs[i])
        place, measured = _model_folder(folder, genotype), {}
        run = _make_training(training, texts, genotype, devices)
        for seed in range(training.num_seeds):
            name = names[i] if training.num_seeds == 1 else f"{names[i]}, seed {seed}"
            result, perplexities = run(seed, place / f"seed_{seed}", name)
            print(
                f"{names[i]} trained, seed {seed}: perplexity of the validation text "
                f"{perplexities['validation']:.2f}, of the test text "
                f"{perplexities['test']:.2f}",
                flush=True,
            )
            for split, value in perplexities.items():
                measured[f"seed_{seed}/{split}"] = value
            if names[i] == "found" and seed == 0:
                _write_sample(training, texts, genotype, result.params, place)
        return measured

    by_split = [
        [f"seed_{seed}/{split}" for seed in range(training.num_seeds)]
        for split in ("validation", "test")
    ]
    lines = metrics.measure_missing(
        folder / "trained.jsonl",
        archs,
        measure,
        needs=[name for names in by_split for name in names],
    )
    return [
        ([line[n] for n in by_split[0]], [line[n] for n in by_split[1]])
        for line in lines
    ]


def _write_sample(
    training: LanguageTraining,
    texts: data.TextDataset,
    genotype: genotypes.RecurrentGenotype,
    params: Params,
    place: pathlib.Path,
) -> None:
    model = train.language_model_of(training.make_network(genotype))
    text = sample_text(model, params, texts.vocabulary, key=training.key)
    _files.write_text(place / "sample.txt", text)


def _row(model: StudiedLanguageModel) -> dict[str, Any]:
    return model._asdict() | {"genotype": genotypes.to_dict(model.genotype)}
