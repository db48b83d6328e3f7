"""What the page of a classifier says, for few classes and for many."""

import re

import numpy as np
import pytest
from pages import check_report

from jaxnas import analysis, report, studies

DRAWING = '<svg viewBox="0 0 9 9"><title>cell</title></svg>'


def results(num_classes, num_images=60, num_wrong=12, channels=3):
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % num_classes
    probabilities = rng.dirichlet(np.full(num_classes, 0.3), num_images)
    right = rng.random(num_images) < 0.7
    probabilities[right] = np.eye(num_classes)[labels[right]]
    metrics = analysis.classifier_metrics(labels, probabilities, num_wrong=num_wrong)
    images = rng.integers(0, 256, (len(metrics.most_wrong), 6, 8, channels))
    names = tuple(f"class {i} of $many_" for i in range(num_classes))
    return studies.ClassifierResults(metrics, names, images.astype(np.uint8))


def page(tmp_path, classifier):
    path = tmp_path / "report.html"
    report.train_report(
        path,
        title="Training",
        summary={"data": "made here"},
        config={"epochs": 1},
        history=[{"epoch": 1, "test/loss": 1.0, "test/accuracy": 0.5}],
        drawing=DRAWING,
        classifier=classifier,
    )
    return check_report(path)


def titles(found):
    return [str(label) for _, name, label in found.attributes if name == "aria-label"]


@pytest.mark.parametrize(("num_classes", "channels"), [(2, 1), (20, 3)])
def test_few_classes_have_a_picture(tmp_path, num_classes, channels):
    classifier = results(num_classes, channels=channels)
    metrics = classifier.metrics
    found = page(tmp_path, classifier)
    rows = found.table("right")
    assert len(rows) == num_classes
    worst = metrics.worst_classes()[0]
    value, low, high = metrics.class_accuracies[worst]
    assert rows[0] == {
        "class": classifier.class_names[worst],
        "test images": str(metrics.counts[worst]),
        "right": str(metrics.confusion[worst, worst]),
        "accuracy": f"{value:.1%}",
        "from": f"{low:.1%}",
        "to (95 %)": f"{high:.1%}",
    }
    assert any(title.startswith("Confusion matrix") for title in titles(found))
    assert any(title.startswith("Wrong test images") for title in titles(found))
    images = [
        tag for tag, name, _ in found.attributes if (tag, name) == ("image", "id")
    ]
    assert len(images) == len(metrics.most_wrong) == 12
    assert not [rows for rows in found.tables if rows and "taken for" in rows[0]]
    text = report.classifier_text(classifier)
    assert text in " ".join(found.words())


def test_a_thousand_classes_have_pairs_instead(tmp_path):
    classifier = results(1000, 3000)
    found = page(tmp_path, classifier)
    assert not any(title.startswith("Confusion matrix") for title in titles(found))
    pairs = found.table("taken for")
    label, predicted, num = classifier.metrics.most_confused(1)[0]
    assert len(pairs) == 20
    assert pairs[0] == {
        "class": classifier.class_names[label],
        "taken for": classifier.class_names[predicted],
        "images": str(num),
        "of the class": f"{num / 3:.1%}",
    }
    assert [len(found.table("right", place)) for place in (0, 1)] == [20, 980]
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_without_wrong_answers_or_images_of_a_class(tmp_path):
    metrics = analysis.classifier_metrics(np.array([0, 0]), np.eye(2)[[0, 0]])
    nothing = np.zeros((0, 4, 4, 1), np.uint8)
    classifier = studies.ClassifierResults(metrics, ("a", "b"), nothing)
    found = page(tmp_path, classifier)
    assert "None: every answer is right." in found.words()
    assert found.table("right")[1]["accuracy"] == "-"
    assert report.classifier_text(classifier) == (
        "accuracy 100.00% [34.24%, 100.00%] (95 %) on 2 images; lowest by class: a "
        "100.0% of 2"
    )


def test_the_worst_classes_are_named():
    found = results(20)
    text = report.classifier_text(found)
    worst = [found.class_names[i] for i in found.metrics.worst_classes()[:3]]
    assert re.findall(r"class \d+ of \$many_", text) == worst
