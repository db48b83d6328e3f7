"""Studies as functions, as notebooks call them, with networks that compile at once."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import data, genotypes, optim, search, spaces, studies
from jaxnas.data import Split
from jaxnas.types import Supernet

SPACE = spaces.enas_micro(1)
BUDGET = studies.TrainingBudget(2, 0.5, num_seeds=2)


def noisy_perceptron() -> Supernet:
    """One layer, whose inputs are the noisier, the higher the first operation."""

    def init(key):
        return 0.1 * jax.random.normal(key, (64, 10), jnp.float32)

    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        del train, key, batch_axis
        x = inputs.reshape(inputs.shape[0], -1)
        noise = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
        return (x + arch[2].astype(x.dtype) * noise) @ weights

    return Supernet(SPACE, init, apply)


class Perceptron(nn.Module):
    """Its counterpart with weights of its own."""

    @nn.compact
    def __call__(self, images, *, train):
        del train
        return nn.Dense(10)(images.reshape(images.shape[0], -1))


def first(split: Split, num: int) -> Split:
    return Split(split.images[:num], split.labels[:num])


@pytest.fixture(scope="module")
def images():
    digits = data.load("digits")
    digits = digits._replace(train=first(digits.train, 300))
    return studies.study_images(
        digits, num_validation=100, batch_size=50, crop_padding=0, flip=False
    )


def run(images, selection, **options):
    return studies.search(
        noisy_perceptron(),
        search.asng(SPACE),
        optim.sgd(optim.cosine_by_epoch(0.1, 2, 2)),
        images,
        studies.SearchSettings(num_epochs=2),
        selection,
        key=jax.random.key(3),
        make_network=lambda genotype: Perceptron(),
        **options,
    )


def test_a_search_without_a_folder_is_the_same_as_with_one(images, tmp_path):
    selection = studies.Selection(
        select="best",
        num_candidates=4,
        num_random=3,
        scratch=BUDGET,
        num_scratch_random=2,
    )
    study = run(images, selection)
    assert run(images, selection, workdir=tmp_path)[:5] == study[:5]
    assert study.top[0].name == "found"
    losses = [candidate.loss for candidate in study.top]
    assert losses == sorted(losses) and 1 <= len(losses) <= 5
    assert study.found.genotype == study.top[0].genotype
    assert [candidate.name for candidate in study.random] == [
        *("random 1", "random 2", "random 3")
    ]
    assert study.found.num_params == 64 * 10 + 10
    assert len(study.sampled_accuracies) == 3
    assert study.scratch is not None
    assert np.shape(study.scratch.found) == (2,)
    assert np.shape(study.scratch.random) == (2, 2)
    found = genotypes.load(tmp_path / "genotype.json")
    assert found == study.found.genotype
    rows = json.loads((tmp_path / "candidates.json").read_text())
    assert [row["loss"] for row in rows] == losses
    scratch = json.loads((tmp_path / "scratch.json").read_text())
    assert scratch["found"] == list(study.scratch.found)


def test_the_best_after_training_is_found(images):
    selection = studies.Selection(
        select="trained", num_candidates=4, num_random=1, top_k=BUDGET
    )
    study = run(images, selection)
    assert study.scratch is None
    trained = [candidate.trained_accuracy for candidate in study.top]
    assert None not in trained
    best = study.top[int(np.argmax(np.array(trained, float)))]
    assert best.name == "found" and best.genotype == study.found.genotype


def test_one_random_architecture_is_no_comparison(images):
    with pytest.raises(ValueError, match="num_scratch_random is 1; expected at least"):
        run(images, studies.Selection(scratch=BUDGET, num_scratch_random=1))


def test_images_of_a_study(images):
    train, validation = images.splits
    assert (train.num_images, validation.num_images) == (200, 100)
    np.testing.assert_array_equal(
        np.concatenate([train.labels, validation.labels]), images.dataset.train.labels
    )
    none = studies.study_images(images.dataset, num_validation=0, batch_size=50)
    assert none.splits.train.num_images == 300
    assert none.splits.validation.num_images == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_validation": 300},
            "num_validation is 300; expected 0 or more, and less",
        ),
        ({"num_validation": -1}, "num_validation is -1"),
        ({"cutout": 9}, "cutout"),
        ({"devices": jax.local_devices()[:3]}, "batch_size of 50 cannot be divided"),
    ],
)
def test_wrong_images_of_a_study(images, options, message):
    arguments = {"num_validation": 100, "batch_size": 50} | options
    with pytest.raises(ValueError, match=message):
        studies.study_images(images.dataset, **arguments)


def test_distinct_architectures():
    space = spaces.ghn_dag(3)
    archs = studies.sample_distinct(space, jax.random.key(0), 20)
    assert len({arch.tobytes() for arch in archs}) == 20
    longer = studies.sample_distinct(space, jax.random.key(0), 27)
    np.testing.assert_array_equal(longer[:20], archs)
    with pytest.raises(ValueError, match="num is 28, but the space has only 27"):
        studies.sample_distinct(space, jax.random.key(0), 28)


def test_predictors_are_checked_before_anything_is_trained(images, tmp_path):
    def correlate(predictors):
        return studies.correlation(
            noisy_perceptron(),
            images,
            [np.zeros(8, np.int32)],
            predictors,
            optim.sgd(0.1),
            key=jax.random.key(0),
            num_steps=4,
            workdir=tmp_path / "run",
        )

    with pytest.raises(ValueError, match="there are 0 predictors"):
        correlate([])
    with pytest.raises(
        ValueError, match=r"snapshot_steps is \[2, 5\]; expected at most 4"
    ):
        correlate([studies.EarlyScores([2, 5], jax.random.key(1))])
    assert not (tmp_path / "run").exists()


def test_cells_of_a_study_are_checked(images, tmp_path):
    def study(**changes):
        training = studies.CellTraining(lambda rate: optim.sgd(rate), 1, 2, 3)
        return studies.CellStudy(
            {"DARTS_V2": genotypes.named("DARTS_V2")},
            images,
            training._replace(**changes),
            [0.1],
            [0],
            {"landscape": studies.SurfaceSettings(3)},
            1,
            tmp_path / "run",
        )

    studies.check_cells(study())
    with pytest.raises(ValueError, match="share_program is True and drop_path"):
        studies.check_cells(study(share_program=True, drop_path=0.1))
    wrong = study()._replace(surfaces={"variance": studies.SurfaceSettings(4)})
    with pytest.raises(ValueError, match="resolution is 4; expected an odd number"):
        studies.study_cells(wrong)
    assert not (tmp_path / "run").exists()
