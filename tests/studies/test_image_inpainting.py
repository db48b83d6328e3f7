"""The search for autoencoders as a function, with a supernet that compiles at once."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import visible

from jaxnas import (
    analysis,
    data,
    genotypes,
    networks,
    optim,
    search,
    spaces,
    studies,
    train,
)
from jaxnas.data import Split
from jaxnas.types import Supernet

SPACE = spaces.AutoencoderSpace(2, 2, (2, 4))
TASK = train.inpainting("center")
NUM_TEST = 12


def shades(space) -> Supernet:
    """Images, scaled and shifted by numbers that the first kernel and skip choose."""

    def init(key):
        return {"scale": jnp.ones(3), "shift": 0.1 * jax.random.normal(key, (2,))}

    def apply(weights, arch, images, *, train, key=None, batch_axis=None):
        del train, key, batch_axis
        choices = space.choices(arch)
        scale, shift = weights["scale"], weights["shift"]
        return images * scale[choices.kernel[0]] + shift[choices.skip[0]]

    return Supernet(space, init, apply)


def loaded() -> data.ImageDataset:
    digits = data.load("digits", image_size=12)
    parts = {"train": 32, "test": NUM_TEST}
    firsts = {
        name: Split(*(array[:num] for array in getattr(digits, name)))
        for name, num in parts.items()
    }
    return digits._replace(**firsts)


@pytest.fixture(scope="module")
def images():
    return prepared()


def prepared(**options):
    return studies.study_images(
        loaded(),
        num_validation=16,
        batch_size=8,
        crop_padding=0,
        flip=False,
        **{"normalize": False, **options},
    )


def training(num_seeds=2):
    return studies.NetworkTraining(
        networks.autoencoder, optim.sgd(0.05), 1, jax.random.key(7), num_seeds
    )


def run(images, folder, space=SPACE, *, make=search.asng, trained=training, **options):
    return studies.inpainting(
        shades(space),
        make(space),
        optim.sgd(0.1),
        TASK,
        images,
        studies.SearchSettings(num_epochs=1),
        trained(),
        key=jax.random.key(0),
        workdir=folder,
        **{"num_random": 2, **options},
    )


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpainting")
    return folder, run(images, folder)


def test_the_found_one_is_compared_with_random_ones(finished):
    folder, study = finished
    assert study.found.name == "found"
    assert [other.name for other in study.random] == ["random 1", "random 2"]
    assert genotypes.load(folder / "genotype.json") == study.found.genotype
    for autoencoder in (study.found, *study.random):
        network = networks.autoencoder(autoencoder.genotype)
        cost = networks.cost(network, (12, 12, 1))
        assert (autoencoder.num_params, autoencoder.flops) == cost
        assert len(autoencoder.values("psnr")) == 2
    for metric in ("psnr", "ssim", "loss"):
        assert study.differences[metric] == analysis.difference_from_random(
            study.found.values(metric),
            [other.values(metric) for other in study.random],
        )
    content = json.loads((folder / "scratch.json").read_text())
    assert content["found"]["trained"] == study.found.trained
    assert content["num_epochs"] == study.num_epochs == 1


def test_trainings_are_those_of_single_networks(images, finished):
    _, study = finished
    result = train.train_from_scratch(
        networks.autoencoder(study.random[1].genotype),
        TASK,
        optim.sgd(0.05),
        images.dataset.train,
        images.pipeline,
        key=jax.random.fold_in(jax.random.key(7), 1),
        num_epochs=1,
        test=images.dataset.test,
    )
    assert result.test == study.random[1].trained[1]


def test_a_finished_study_is_read_again(images, finished):
    folder, study = finished
    before = visible(folder)
    again = run(images, folder)
    assert again[:5] == study[:5]
    assert visible(folder) == before
    for kind, restorations in study.restorations.items():
        for array, other in zip(restorations, again.restorations[kind], strict=True):
            np.testing.assert_array_equal(array, other)


def test_more_seeds_may_follow(images, finished):
    folder, study = finished
    again = run(images, folder, trained=lambda: training(3))
    assert again.found.trained[:2] == study.found.trained
    assert len(again.random[0].trained) == 3


def test_without_trainings_nothing_is_compared(images, tmp_path):
    study = run(images, tmp_path, trained=lambda: None, num_random=0)
    assert study.random == [] and study.differences == {} == study.restorations
    assert study.found.trained == [] and study.num_epochs == 0
    assert study.searched.keys() == {"loss", "psnr", "ssim"}
    assert not (tmp_path / "scratch.json").exists()


@pytest.mark.parametrize("make", [search.asng, search.random_search])
def test_the_best_candidate_of_a_mixed_space(images, tmp_path, make):
    space = spaces.AutoencoderSpace(2, 2, (2, 4), "mixed")
    study = run(
        images,
        tmp_path,
        space,
        make=make,
        trained=lambda: None,
        num_candidates=4,
        num_screening_images=None,
    )
    lines = (tmp_path / "ranking.jsonl").read_text().splitlines()
    best = min(map(json.loads, lines), key=lambda line: line["loss"])
    arch = [float(value) for value in best["arch"].split(",")]
    assert len(arch) == space.num_decisions
    assert study.found.genotype == space.decode(arch)


class Blurred(nn.Module):
    """Adds the same to every pixel that is shown."""

    @nn.compact
    def __call__(self, images, *, train):
        del train
        return images + self.param("shift", nn.initializers.constant(0.1), ())


def test_restored_images():
    task = train.inpainting("half")
    images = prepared()
    split = images.dataset.test
    network, params = Blurred(), {"shift": jnp.float32(0.1)}
    restored = studies.restore(network, params, task, split, images.pipeline, num=5)
    assert restored.keys() == {"first", "best", "worst"}
    first = restored["first"]
    np.testing.assert_allclose(first.original, split.images[:5] / 255, atol=1e-6)
    shown = first.masked == first.original
    assert shown.reshape(5, -1).mean(1).min() >= 0.5
    assert not first.masked[~shown].any()
    np.testing.assert_allclose(first.restored, np.clip(first.masked + 0.1, 0, 1))

    evaluate = train.make_network_eval_fn(
        network, task, normalize=images.pipeline.normalize, batch_size=8
    )
    everything = studies.restore(
        network, params, task, split, images.pipeline, num=NUM_TEST + 1
    )
    for restorations in everything.values():
        assert restorations.psnr.shape == (NUM_TEST,)
        mean = evaluate(params, {}, split)["psnr"]
        assert restorations.psnr.mean() == pytest.approx(mean, rel=1e-5)
    best = everything["best"].psnr
    assert (np.diff(best) <= 0).all()
    np.testing.assert_array_equal(best[::-1], everything["worst"].psnr)


def test_wrong_arguments(images, tmp_path):
    with pytest.raises(ValueError, match="num_random is 1; expected at least 2"):
        run(images, tmp_path, num_random=1)
    with pytest.raises(ValueError, match=r"values from -0\.95 to 2\.16; expected 0"):
        run(prepared(normalize=True), tmp_path)
    assert visible(tmp_path) == set()
