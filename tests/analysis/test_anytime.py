"""Costs, areas, the loss over all exits, and the report."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pages import Page, check_report

from jaxnas import analysis, genotypes, report, studies, train

NETWORK = genotypes.AnytimeGenotype(
    ops=(
        ("conv_3x3", "max_pool_3x3", "conv_1x1"),
        ("conv_5x5",),
        ("conv_1x1", "avg_pool_3x3"),
    ),
    inputs=(((0,), (2,), (0, 1)), ((0,),), ((1,), (0, 2))),
    scales=((0, 2, 1), (2,), (2, 2)),
    exits=((3,), (2,), (2, 3)),
)


def test_costs_by_hand():
    # Images of 8x8, so that scales have 64, 16 and 4 pixels; 2, 4 and 8 channels.
    stem = 9 * 1 * 2 * 64
    # Input 0, node 2 (3x3) and node 3 (a pool, whose bottleneck counts); classifier.
    first = 64 * 2 * 2 + 64 * (1 + 9) * 4 + 4 * 1 * 4 + 2 * 10
    # The other leaf, node 4, reads both inputs; of them input 1 is new.
    leaf = 64 * 2 * 2 + 16 * (2 + 1) * 4
    # Both leaves to input 0 of block 1, at scale 1; its node 2 (5x5) at scale 2.
    second = leaf + 2 * 16 * 2 * 4 + 4 * (1 + 25) * 16 + 4 * 10
    # Input 1 of block 2 has the leaves of block 0; node 2 (1x1) reads only it.
    third = 2 * 4 * 2 * 8 + 4 * (1 + 1) * 64 + 8 * 10
    # Node 3 (a pool) reads node 2 and input 0, which has the leaf of block 1.
    fourth = 4 * 4 * 8 + 4 * 2 * 64 + 8 * 10
    costs = analysis.exit_costs(NETWORK, 2, 10, (8, 8, 1))
    expected = np.cumsum([stem + first, second, third, fourth])
    np.testing.assert_array_equal(costs, expected)


def test_what_no_exit_needs_costs_nothing():
    dead = NETWORK._replace(exits=((3,), (2,), (2,)))
    costs = analysis.exit_costs(NETWORK, 4)
    np.testing.assert_array_equal(analysis.exit_costs(dead, 4), costs[:3])


@pytest.mark.parametrize(
    ("flops", "accuracies", "budget", "area"),
    [
        # 0 up to 2, then 0.5 up to 6, then 0.8.
        ([2, 6], [0.5, 0.8], 10, (4 * 0.5 + 4 * 0.8) / 10),
        # A later exit that is worse is not used; one beyond the budget is not reached.
        ([2, 6], [0.5, 0.4], 10, 8 * 0.5 / 10),
        ([2, 12], [0.5, 0.9], 10, 8 * 0.5 / 10),
        ([12], [0.9], 10, 0.0),
        ([10], [0.9], 10, 0.0),
        # Exits in another order, and two at one cost.
        ([6, 2, 2], [0.8, 0.3, 0.5], 10, (4 * 0.5 + 4 * 0.8) / 10),
    ],
)
def test_areas_by_hand(flops, accuracies, budget, area):
    found = analysis.area_under_accuracy_flops(flops, accuracies, budget)
    np.testing.assert_allclose(found, area, rtol=1e-12, atol=1e-12)
    # The mean of the step function over many budgets.
    budgets = (np.arange(100_000) + 0.5) * budget / 100_000
    steps = analysis.accuracy_within(flops, accuracies, budgets)
    np.testing.assert_allclose(steps.mean(), area, atol=1e-4)


def test_an_exit_is_reached_with_just_its_budget():
    steps = analysis.accuracy_within([2.0, 6.0], [0.5, 0.8], [0, 1.9, 2, 5.9, 6, 99])
    np.testing.assert_array_equal(steps, [0, 0, 0.5, 0.5, 0.8, 0.8])


@pytest.mark.parametrize(
    ("flops", "accuracies", "budget", "message"),
    [
        ([1.0], [0.5], 0.0, "budget is 0.0; expected a positive number"),
        ([1.0], [0.5], float("nan"), "budget is nan; expected a positive number"),
        ([1.0, 2.0], [0.5], 1.0, r"flops has shape \(2,\) and accuracies \(1,\)"),
        ([], [], 1.0, "one of each for every exit, at least one"),
        ([1.0], [float("nan")], 1.0, r"accuracies is \[nan\]; expected finite numbers"),
    ],
)
def test_areas_refuse_wrong_input(flops, accuracies, budget, message):
    with pytest.raises(ValueError, match=message):
        analysis.area_under_accuracy_flops(flops, accuracies, budget)


def test_the_loss_is_the_mean_over_exits():
    logits = jax.random.normal(jax.random.key(0), (3, 5, 4))
    labels = jnp.array([0, 1, 2, 3, 0], jnp.int32)
    weight = jnp.array([1, 1, 1, 1, 0], jnp.float32)
    task = train.multi_exit_classification()
    loss, metrics = task.loss(logits, {"label": labels, "weight": weight})
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits[:, :4], jnp.broadcast_to(labels[:4], (3, 4))
    )
    np.testing.assert_allclose(loss, losses.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], loss)
    expected = (logits.argmax(-1) == labels[None])[:, :4].mean(1)
    np.testing.assert_allclose(train.exit_accuracies(metrics), expected)
    np.testing.assert_allclose(metrics["accuracy"], expected[-1])
    assert all(metric.ndim == 0 for metric in metrics.values())


def network(name: str, accuracies: list[float]) -> studies.AnytimeNetwork:
    flops = analysis.exit_costs(NETWORK, 2, 10, (8, 8, 1))
    # Two trainings, whose mean these are.
    trained = [[a - 0.01 for a in accuracies], [a + 0.01 for a in accuracies]]
    return studies.AnytimeNetwork(name, NETWORK, flops, [0.1, 0.2, 0.1, 0.3], trained)


def write(path, *random, **changes) -> Page:
    arguments = {
        "title": "Anytime <test>",
        "summary": {"data": "digits"},
        "config": {"epochs": 2},
        "history": [{"epoch": 1, "train/loss": 2.0}, {"epoch": 2, "train/loss": 1.5}],
        "drawing": "<svg></svg>",
        "found": network("found", [0.4, 0.5, 0.6, 0.7]),
        "random": random,
        "budget": 2e4,
    }
    report.anytime_report(path, **(arguments | changes))
    return check_report(path)


def test_the_report_compares_areas(tmp_path):
    path = tmp_path / "report.html"
    worse = network("random 1", [0.2, 0.3, 0.4, 0.5])
    better = network("random 2", [0.6, 0.7, 0.8, 0.9])
    page = write(path, worse, better)
    found = network("found", [0.4, 0.5, 0.6, 0.7])
    areas = found.trained_areas(2e4)
    rows = page.table("network")
    assert [row["network"] for row in rows] == ["found", "random 1", "random 2"]
    assert rows[0]["area, trained"] == f"{np.mean(areas):.2%}"
    assert rows[0]["its deviation over seeds"] == f"{np.std(areas, ddof=1):.2%}"
    assert page.marked[1] == rows[:1]
    exits = page.table("exit")
    trained = [row["accuracy, trained"] for row in exits]
    assert trained == ["40.00%", "50.00%", "60.00%", "70.00%"]
    assert found.area([0.4, 0.5, 0.6, 0.7], 2e4) == pytest.approx(np.mean(areas))
    lead = page.words()[0]
    assert "(trainings of each: 2)" in lead
    assert "better than 1 of 2 random networks" in lead
    assert all("one image at a time" in caption for caption in page.captions[1:3])
    assert page.texts["h1"] == ["Anytime <test>"]
    assert "Training of the hypernetwork" in page.texts["h2"]
    page = write(path, worse, history=[])
    assert "Training of the hypernetwork" not in page.texts["h2"]


def test_the_report_needs_random_networks(tmp_path):
    with pytest.raises(ValueError, match="there are 0 random networks; expected at"):
        write(tmp_path / "report.html")
