"""Plans by time, networks of equal cost, and the course of the study."""

import jax
import numpy as np
import pytest

from jaxnas import analysis, data, genotypes, networks, studies
from jaxnas.studies import image_classification as study
from jaxnas.studies.classifier_testing import ClassifierResults

SIZES = studies.ClassifierSize(8, 5), studies.ClassifierSize(16, 5)
LENGTHS = study.Lengths(least=3, enough=20, most=50)


def seconds_of_epoch(size):
    return size.channels / 8  # 1 and 2 seconds


@pytest.mark.parametrize(
    ("seconds", "channels", "num_epochs"),
    [
        (1000, 16, 50),  # more than 50 epochs are a waste
        (60, 16, 30),
        (40, 16, 20),  # just enough
        (39, 8, 39),  # smaller networks, for longer
        (3, 8, 3),
    ],
)
def test_plans(seconds, channels, num_epochs):
    plan = study.plan(seconds_of_epoch, SIZES, LENGTHS, seconds)
    expected = num_epochs * channels / 8
    assert plan == studies.ClassifierPlan(
        studies.ClassifierSize(channels, 5), num_epochs, expected
    )


def test_trainings_may_take_longer():
    plan = study.plan(seconds_of_epoch, SIZES, LENGTHS, 1.0, may_take_longer=True)
    assert plan == studies.ClassifierPlan(SIZES[0], 3, 3.0)


@pytest.mark.parametrize("seconds", [2.9, -1])
def test_too_little_time(seconds):
    with pytest.raises(studies.TimeBudgetError, match=r"1\.0 s, and .* at least 3 epo"):
        study.plan(seconds_of_epoch, SIZES, LENGTHS, seconds)


def make_dataset(num_classes=3, size=8, num_test=20):
    rng = np.random.default_rng(0)

    def split(num):
        images = rng.integers(0, 256, (num, size, size, 1)).astype(np.uint8)
        return data.Split(images, np.arange(num, dtype=np.int32) % num_classes)

    return data.ImageDataset(
        name="noise",
        train=split(64),
        test=split(num_test),
        class_names=tuple("abc"[:num_classes]),
        mean=(0.5,),
        std=(0.25,),
        source="noise made for a test",
    )


def test_networks_cost_as_much_as_the_found_one():
    found, random = map(genotypes.named, ("DARTS_V2", "ENAS_MICRO"))
    dataset, size = make_dataset(), studies.ClassifierSize(8, 5)
    shape = dataset.train.image_shape
    of_all = study.make_networks(found, random, dataset, size)
    cost = {name: networks.cost(net, shape) for name, net in of_all.items()}
    assert 0 < cost["random"].num_params <= cost["found"].num_params
    assert 0 < cost["residual"].flops <= cost["found"].flops
    wider = {
        name: networks.cost(net.clone(channels=net.channels + 1), shape)
        for name, net in of_all.items()
    }
    assert wider["random"].num_params > cost["found"].num_params
    assert wider["residual"].flops > cost["found"].flops


def make_images(**settings):
    return studies.study_images(
        make_dataset(**settings), num_validation=32, batch_size=8, flip=False
    )


@pytest.fixture
def stubs(monkeypatch):
    """What is timed, searched and trained; the order in which it was."""
    calls = []

    def searched(images, plan, key, num_candidates, workdir):
        calls.append(("search", plan.num_epochs))
        found = studies.Candidate("found", genotypes.named("DARTS_V2"), 1, 0.5, 1, 1)
        return studies.SearchStudy(found, [found], [], [], None, {})

    def trained(name, network, images, plan, keys, workdir):
        calls.append((name, plan.num_epochs, len(keys)))
        labels = images.dataset.test.labels
        right = {"found": 15, "random": 10, "residual": 20}[name]
        answers = np.where(np.arange(labels.size) < right, labels, (labels + 1) % 3)
        results = ClassifierResults(
            analysis.classifier_metrics(labels, np.eye(3)[answers]),
            images.dataset.class_names,
            images.dataset.test.images[:0],
        )
        return studies.TrainedClassifier(
            name, network, 1, 1.0, [], [], [results] * len(keys), 1.0
        )

    def timed(name, result):
        def measure(*_):
            calls.append(name)
            return result

        return measure

    step = study.StepTime(compilation=0.0, step=0.001)
    monkeypatch.setattr(study, "search_seconds", timed("time search", 0.01))
    monkeypatch.setattr(study, "training_seconds", timed("time training", step))
    monkeypatch.setattr(
        study, "_flops", lambda network, _: network.channels * network.num_cells
    )
    monkeypatch.setattr(study, "_search", searched)
    monkeypatch.setattr(study, "_train", trained)
    return calls


def run(workdir, **options):
    options = {"seconds": 40.0, "key": jax.random.key(0)} | options
    return studies.image_classifier(make_images(), workdir=workdir, **options)


def test_a_study_measures_once(tmp_path, stubs):
    first = run(tmp_path, num_seeds=2)
    plans = first.search_plan, first.training_plan
    assert stubs == [
        "time search",
        ("search", plans[0].num_epochs),
        "time training",
        *[(name, plans[1].num_epochs, 2) for name in ("found", "random", "residual")],
    ]
    for plan, share in zip(
        plans, (study.SEARCH_SHARE, study.TRAINING_SHARE), strict=True
    ):
        assert plan.seconds is not None
        assert plan.seconds <= share * 40
    stubs.clear()
    again = run(tmp_path, num_seeds=2, seconds=1e9)  # has been planned
    assert (again.search_plan, again.training_plan) == plans
    assert not {"time search", "time training"} & set(map(str, stubs))


def test_given_plans(tmp_path, stubs):
    plan = studies.ClassifierPlan(studies.ClassifierSize(8, 3), 7)
    found = run(tmp_path, seconds=0.0, search_plan=plan, training_plan=plan)
    assert [call for call in stubs if isinstance(call, str)] == []
    assert found.training_plan.seconds is None


def test_differences(tmp_path, stubs):
    plan = studies.ClassifierPlan(studies.ClassifierSize(8, 3), 7)
    found = run(tmp_path, search_plan=plan, training_plan=plan)
    assert found.differences.keys() == {"random", "residual"}
    for name, value in (("random", 0.25), ("residual", -0.25)):
        difference = found.differences[name]
        assert difference.value == pytest.approx(value)
        assert difference.low < value < difference.high
    rows = study.summary(found)["networks"]
    assert [row["accuracies"] for row in rows] == [[0.75], [0.5], [1.0]]


def test_too_few_test_images(tmp_path):
    with pytest.raises(ValueError, match="there are 1 test images; expected 2 or more"):
        studies.image_classifier(
            make_images(num_test=1), key=jax.random.key(0), workdir=tmp_path, seconds=1
        )
