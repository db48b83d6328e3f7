"""A study of recurrent cells: what it finds, keeps, compares and writes."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import visible
from toy_language import GENOTYPE, NUM_WORDS, SIZE, optimizer, texts

from jaxnas import genotypes, networks, ops, search, spaces, studies, supernets, train

SPACE = spaces.enas_recurrent(2)
READING = train.ReadingSettings(batch_size=8, window=6)


def make_network(genotype):
    return networks.recurrent(genotype, NUM_WORDS, SIZE)


def training(num_seeds=2):
    settings = train.LanguageTrainingSettings(2, READING, patience=0, eval_batch_size=4)
    key = jax.random.key(7)
    return studies.LanguageTraining(make_network, optimizer(), settings, key, num_seeds)


def run(folder, *, trained=training, make=search.asng, **options):
    return studies.language(
        supernets.recurrent(SPACE, NUM_WORDS, SIZE),
        make(SPACE),
        optimizer(),
        texts(),
        train.LanguageSearchSettings(1, READING, searcher_steps=3, num_search_archs=2),
        trained(),
        key=jax.random.key(3),
        workdir=folder,
        **{"num_candidates": 12, "num_random": 2, **options},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, run(folder)


def test_the_best_candidate_is_found(finished):
    folder, study = finished
    perplexities = [entry.metrics["perplexity"] for entry in study.candidates]
    assert perplexities == sorted(perplexities)
    assert study.searched == study.candidates[0].metrics
    assert study.found.genotype == SPACE.decode(study.candidates[0].arch)
    assert genotypes.load(folder / "genotype.json") == study.found.genotype
    net = supernets.recurrent(SPACE, NUM_WORDS, SIZE)
    evaluate = train.make_language_eval_fn(net.apply, batch_size=8, window=6)
    for entry in study.candidates:
        metrics = evaluate(study.params, texts().validation, entry.arch)
        assert metrics["loss"] == pytest.approx(entry.metrics["loss"], rel=1e-5)


def test_found_and_random_cells_are_trained_from_scratch(finished):
    folder, study = finished
    assert [model.name for model in study.random] == ["random 1", "random 2"]
    assert study.num_epochs == 2
    model = study.random[1]
    result, perplexities = studies.train_language_model(
        training(), texts(), model.genotype, seed=1
    )
    assert perplexities == {"validation": model.validation[1], "test": model.test[1]}
    assert perplexities["validation"] < NUM_WORDS
    # Rows of one text and of four differ in the words that nothing stands before.
    assert math.log(perplexities["validation"]) == pytest.approx(
        result.validation_loss, abs=0.1
    )
    others = np.mean([other.test for other in study.random])
    assert study.difference is not None
    assert study.difference.value == pytest.approx(np.mean(study.found.test) - others)
    weights = jax.tree.leaves(result.params)
    assert model.num_params == sum(leaf.size for leaf in weights)
    content = json.loads((folder / "scratch.json").read_text())
    assert content["found"]["test"] == list(study.found.test)
    assert content["num_epochs"] == 2 and len(content["random"]) == 2


def test_a_finished_study_is_read_again(finished):
    folder, study = finished
    before = visible(folder)
    again = run(folder)
    assert again.found == study.found and again.random == study.random
    assert again.sample == study.sample != ""
    assert visible(folder) == before


def test_more_seeds_and_more_random_cells_may_follow(finished):
    folder, study = finished
    again = run(folder, trained=lambda: training(3), num_random=3)
    assert again.found.test[:2] == study.found.test
    assert [len(other.test) for other in again.random] == [3, 3, 3]


def test_without_trainings_nothing_is_compared(tmp_path):
    study = run(
        tmp_path,
        trained=lambda: None,
        num_random=0,
        make=search.random_search,
        num_screening_tokens=60,
        num_candidates=30,
    )
    assert study.random == [] and study.difference is None and study.sample == ""
    assert study.found.test == [] and study.num_epochs == study.found.num_params == 0
    assert not (tmp_path / "scratch.json").exists()
    # All distinct candidates are screened, the best ten ranked.
    assert len((tmp_path / "screening.jsonl").read_text().splitlines()) > 10
    assert len((tmp_path / "ranking.jsonl").read_text().splitlines()) == 10


def test_too_few_random_cells(tmp_path):
    with pytest.raises(ValueError, match="num_random is 1; expected at least 2"):
        run(tmp_path, num_random=1)


def successor(params, arch, inputs, *, train=False, key=None, batch_axis=None):
    """A model that knows the next word: the one with the next number."""
    del arch, train, key, batch_axis
    tokens, state = inputs
    logits = 50 * jax.nn.one_hot((tokens + 1) % NUM_WORDS, NUM_WORDS)
    return ops.LanguageOutputs(logits, state, state[:, None], state[:, None])


PARAMS = {"embedding": jnp.zeros((NUM_WORDS, 1), jnp.float32)}


def write(model=successor, params=PARAMS, **options):
    return studies.sample_text(
        model, params, texts().vocabulary, key=jax.random.key(0), **options
    )


def test_a_sample_follows_the_model():
    assert write(num_words=9) == "a b c d e f\na b"
    assert write(num_words=3, prompt=["a", "d"]) == "e f\n"


def test_a_lower_temperature_makes_likelier_words():
    network = make_network(GENOTYPE)
    inputs = (jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, SIZE), jnp.float32))
    params = network.init(jax.random.key(0), inputs, train=False)["params"]
    params = jax.tree.map(lambda x: 3 * x, params)
    model = train.language_model_of(network)

    def distinct(temperature):
        text = write(model, params, num_words=200, temperature=temperature)
        return len(set(text.split()))

    assert distinct(1e-3) < distinct(1.0) == NUM_WORDS - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_words": 0}, "num_words is 0"),
        ({"temperature": 0.0}, "temperature is 0.0; expected positive numbers"),
        ({"prompt": ["a", "zebra"]}, "prompt has the word 'zebra'; expected words of"),
        ({"prompt": []}, "prompt has no word"),
    ],
)
def test_wrong_samples(options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        write(**options)
