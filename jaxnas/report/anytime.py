"""Reports on searches for networks that predict at any time."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnas import analysis, genotypes
from jaxnas.analysis import convergence
from jaxnas.report import _render, curves
from jaxnas.studies import AnytimeNetwork

_NUM_BUDGETS = 500  # points of a curve


def anytime_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: convergence.History,
    drawing: str,
    found: AnytimeNetwork,
    random: Sequence[AnytimeNetwork],
    budget: float,
) -> None:
    """Write the report of a search for networks with exits.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data, device, seed, versions, command.
      config: the resolved configuration; may be nested.
      history: lines of the hypernetwork's metrics log, one per epoch, with `epoch` and
        possibly `train/loss`.
      drawing: the found network as an `<svg>` element.
      found: the network that was selected.
      random: random networks to compare with, at least one.
      budget: the largest number of multiply-adds for one image.

    Raises:
      ValueError: if there is no random network, or the drawing is malformed.
    """
    if not random:
        raise ValueError("there are 0 random networks; expected at least 1")
    areas = [np.mean(network.trained_areas(budget)) for network in random]
    area = np.mean(found.trained_areas(budget))
    num_seeds = len(found.trained)
    num_worse = sum(other < area for other in areas)
    loss = curves.series(history, "train/loss", label="train", color=curves.BLUE)
    learning = None
    if loss.y:
        chart = curves.line_chart(
            [loss], title="Loss", x_label="epoch", y_label="mean over exits (nats)"
        )
        learning = _render.chart(chart, "Loss of the hypernetwork by epoch")
    _render.write(
        path,
        "anytime.html",
        title=title,
        lead=f"The network found has, after training from scratch, {area:.2%} accuracy "
        f"on the test images, averaged over budgets up to {budget / 1e6:,.3g} M "
        f"multiply-adds; better than {num_worse} of {len(random)} random networks "
        f"trained alike, which have {np.mean(areas):.2%} on average, "
        f"{min(areas):.2%} to {max(areas):.2%} (trainings of each: {num_seeds}).",
        summary=summary,
        config=config,
        figures=[
            _chart("trained", "After training", found, random, budget),
            _chart("predicted", "With generated weights", found, random, budget),
        ],
        networks=_table([found, *random], budget),
        exits=_exits(found),
        drawing=_render.figure(drawing),
        text=genotypes.to_text(found.genotype),
        learning=learning,
    )


def _chart(
    name: str,
    title: str,
    found: AnytimeNetwork,
    random: Sequence[AnytimeNetwork],
    budget: float,
) -> _render.Figure:
    """Draw the steps of the found network, and the range of the random ones."""
    budgets = np.linspace(0, budget, _NUM_BUDGETS)

    def steps(network: AnytimeNetwork) -> np.ndarray:
        steps = [
            analysis.accuracy_within(network.flops, accuracies, budgets)
            for accuracies in np.atleast_2d(getattr(network, name))
        ]
        return 100 * np.mean(steps, axis=0)

    others = np.stack([steps(network) for network in random])
    x = (budgets / 1e6).tolist()
    chart = curves.line_chart(
        [
            curves.Series("found", curves.ORANGE, x, steps(found).tolist()),
            curves.Series(
                "random",
                curves.BLUE,
                x,
                others.mean(0).tolist(),
                low=others.min(0).tolist(),
                high=others.max(0).tolist(),
            ),
        ],
        title=title,
        x_label="budget (million multiply-adds)",
        y_label="accuracy (%)",
        height=240,
        whole_x=False,
    )
    return _render.chart(
        chart,
        f"{title}: accuracy by budget, found and random networks",
        f"Best exit within the budget, on the test images. Random: mean of "
        f"{len(random)} networks; band: lowest to highest.",
    )


_NOTE = (
    "Trained: with its own weights and running statistics, one image at a time. "
    "Generated: with the hypernetwork's weights, normalized by the statistics of each "
    "batch of test images, as in the selection."
)


def _table(networks: Sequence[AnytimeNetwork], budget: float) -> _render.Table:
    columns = {
        "network": "",
        "area, trained": ".2%",
        "its deviation over seeds": ".2%",
        "last exit, trained": ".2%",
        "area, generated": ".2%",
        "last exit, generated": ".2%",
        "multiply-adds (M)": ",.3f",
    }

    def row(network: AnytimeNetwork) -> tuple[object, ...]:
        areas = network.trained_areas(budget)
        return (
            network.name,
            np.mean(areas),
            np.std(areas, ddof=1) if len(areas) > 1 else None,
            np.mean(network.trained, axis=0)[-1],
            network.area(network.predicted, budget),
            network.predicted[-1],
            network.flops[-1] / 1e6,
        )

    return _render.Table(columns, list(map(row, networks)), caption=_NOTE, marked_row=0)


def _exits(network: AnytimeNetwork) -> _render.Table:
    columns = {
        "exit": "d",
        "multiply-adds (M)": ",.3f",
        "accuracy, trained": ".2%",
        "accuracy, generated": ".2%",
    }
    trained = np.mean(network.trained, axis=0)
    values = zip(network.flops, trained, network.predicted, strict=True)
    rows = [
        (number, flops / 1e6, trained, predicted)
        for number, (flops, trained, predicted) in enumerate(values, start=1)
    ]
    return _render.Table(columns, rows, caption=_NOTE)
