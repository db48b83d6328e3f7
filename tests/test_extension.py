"""A searcher, a family and a data set from outside of the package: CONTRIBUTING's."""

import json
import pathlib
import re
import sys
import types
import xml.etree.ElementTree as ElementTree
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT
from pages import check_report

from jaxnas import data, genotypes, metrics, networks, optim, report, studies, train
from jaxnas.data import loading
from jaxnas.report import drawing

GUIDE = ROOT / "CONTRIBUTING.md"


def run_blocks(path: pathlib.Path) -> Any:
    """What the Python blocks of a document define, as a module."""
    text = path.read_text("utf-8")
    module = types.ModuleType("contributing")
    sys.modules["contributing"] = module  # where data classes look names up
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        # Errors then tell the line of the document.
        code = "\n" * text.count("\n", 0, block.start(1)) + block[1]
        exec(compile(code, path.name, "exec"), vars(module))
    return module


toy = run_blocks(GUIDE)
SPACE = toy.ChainSpace(3)
CHAIN = toy.ChainGenotype(("tanh", "relu", "identity"))
BUDGET = studies.TrainingBudget(num_epochs=2, learning_rate=0.1, num_seeds=1)


@pytest.fixture(scope="module")
def images():
    return studies.study_images(
        toy.load_stripes(),
        num_validation=80,
        batch_size=20,
        crop_padding=0,
        flip=False,
    )


def network_of(genotype):
    return toy.ChainNetwork(genotype, 8, 2)


def test_the_searcher_climbs():
    target = jnp.array([2, 0, 1, 1, 0], jnp.int32)
    searcher = toy.hill_climbing([3, 2, 4, 2, 1])

    def step(state, key):
        archs = searcher.ask(state, key, 4)
        losses = (archs != target[None]).sum(1).astype(jnp.float32)
        state, metrics = searcher.tell(state, archs, losses)
        return state, metrics["climbing_loss"]

    state = searcher.init(jax.random.key(0))
    assert searcher.ask(state, jax.random.key(1), 3).shape == (3, 5)
    state, losses = jax.lax.scan(step, state, jax.random.split(jax.random.key(2), 40))
    np.testing.assert_array_equal(searcher.mode(state), target)
    assert losses[0] > 0 and losses[-1] == 0 and (jnp.diff(losses) <= 0).all()
    unknown = jnp.full(2, jnp.nan)
    kept, _ = searcher.tell(state, jnp.zeros((2, 5), jnp.int32), unknown)
    np.testing.assert_array_equal(kept.arch, target)


def test_the_genotype_is_stored_and_found_again(tmp_path):
    path = tmp_path / "genotype.json"
    genotypes.save(path, CHAIN)
    assert json.loads(path.read_text()) == {
        "type": "chain",
        "activations": ["tanh", "relu", "identity"],
    }
    found = genotypes.load(path)
    assert found == CHAIN and type(found) is toy.ChainGenotype
    path.write_text(genotypes.to_text(CHAIN))
    assert genotypes.load(path) == CHAIN
    path.write_text(genotypes.to_json(CHAIN).replace("tanh", "sinh"))
    with pytest.raises(ValueError, match="layer 0: 'sinh' is not an activation"):
        genotypes.load(path)
    with pytest.raises(ValueError, match=r"type is 'lace'; expected one of .*, chain"):
        genotypes.from_json('{"type": "lace"}')


def test_a_notebook_may_register_its_genotype_again():
    text = genotypes.to_json(CHAIN)
    again = run_blocks(GUIDE)
    assert type(genotypes.from_json(text)) is again.ChainGenotype
    assert genotypes.to_json(CHAIN) == text
    genotypes.register("chain", toy.ChainGenotype, toy.check_chain)
    assert genotypes.from_json(text) == CHAIN


def test_the_space_is_checked():
    arch = SPACE.encode(CHAIN)
    np.testing.assert_array_equal(arch, [1, 0, 2])
    assert SPACE.decode(arch) == CHAIN and SPACE.num_architectures == 27
    with pytest.raises(ValueError, match=r"decision 1 \(of 3\): 3 is not in 0..2"):
        SPACE.decode([0, 3, 0])
    with pytest.raises(ValueError, match=r"shape .* for a ChainSpace of 3 decisions"):
        SPACE.decode([0])


def test_the_network_is_counted_and_fitted():
    network = network_of(CHAIN)
    traced = networks.count_params.dispatch(object)(network, (8, 8, 1))
    assert networks.count_params(network, (8, 8, 1)) == traced
    assert networks.cost(network, (8, 8, 1)).num_params == traced

    def of_width(width):
        return toy.ChainNetwork(CHAIN, width, 2)

    assert networks.channels_for_budget(of_width, traced, (8, 8, 1)) == 8
    assert networks.channels_for_budget(of_width, traced - 1, (8, 8, 1)) == 7


def test_search_ranking_and_training(images, tmp_path):
    net = toy.chain_supernet(SPACE, 64, 2)
    study = studies.search(
        net,
        toy.hill_climbing(SPACE.cardinalities),
        optim.sgd(optim.cosine_by_epoch(0.1, 3, 4)),
        images,
        studies.SearchSettings(num_epochs=3),
        studies.Selection(
            select="trained",
            num_candidates=4,
            num_screening_images=None,
            top_k=BUDGET,
            num_random=2,
            scratch=BUDGET,
            num_scratch_random=2,
        ),
        key=jax.random.key(0),
        make_network=network_of,
        workdir=tmp_path,
    )
    losses = [candidate.loss for candidate in study.top]
    assert losses == sorted(losses) and np.isfinite(losses).all()
    assert study.found.num_params == networks.count_params(
        network_of(study.found.genotype), (8, 8, 1)
    )
    assert study.scratch is not None and np.shape(study.scratch.random) == (2, 1)
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert "climbing_loss" in lines

    found = genotypes.load(tmp_path / "genotype.json")
    assert type(found) is toy.ChainGenotype and found == study.found.genotype
    rows = json.loads((tmp_path / "candidates.json").read_text())
    listed = [genotypes.from_json(json.dumps(row["genotype"])) for row in rows]
    assert listed == [candidate.genotype for candidate in study.top]

    report.search_report(
        tmp_path / "report.html",
        title="Chains",
        summary={"data": images.dataset.source},
        config={},
        history=metrics.read(tmp_path / "metrics.jsonl"),
        drawing=drawing.genotype_svg(found, title="Found chain"),
        found=study.found,
        top=study.top,
        random=study.random,
        scratch=study.scratch,
        uniform_level=1 / 3,
    )
    check_report(tmp_path / "report.html")

    result = train.train_from_scratch(
        network_of(found),
        train.classification(),
        optim.sgd(optim.cosine_by_epoch(0.1, 4, 8)),
        images.dataset.train,
        images.pipeline,
        key=jax.random.key(1),
        num_epochs=4,
        test=images.dataset.test,
    )
    assert result.test["accuracy"] > 0.9


def test_the_data_set_is_one_row(monkeypatch):
    monkeypatch.setitem(loading.DATASETS, "stripes", lambda _: toy.load_stripes())
    dataset = loading.load("stripes")
    assert dataset.name == "stripes" and dataset.train.image_shape == (8, 8, 1)
    with pytest.raises(ValueError, match=r"image_size is for .* got 9 for 'stripes'"):
        loading.load("stripes", image_size=9)


def test_the_drawing_shows_its_layers():
    assert "sinh" not in drawing.genotype_dot(CHAIN, title="Chain")
    root = ElementTree.fromstring(drawing.genotype_svg(CHAIN, title="Chain"))
    assert {"images", *CHAIN.activations} <= set(root.itertext())


def test_a_trained_network_of_another_package_returns(tmp_path):
    network = network_of(CHAIN)
    variables = jax.eval_shape(
        lambda key: network.init(key, jnp.zeros((1, 8, 8, 1)), train=True),
        jax.random.key(0),
    )
    variables = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), variables)
    stripes = toy.load_stripes()
    saved = networks.TrainedNetwork(
        network, variables, data.image_format(stripes), stripes.class_names
    )
    networks.save(tmp_path / "network.safetensors", saved)
    found = networks.load(tmp_path / "network.safetensors")
    # The blocks may have been run once more since, with a class of their own.
    assert repr(found.network) == repr(network)
    others = {"network": network, "variables": {}}
    assert found._replace(**others) == saved._replace(**others)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
