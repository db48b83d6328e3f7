"""Reports as one self-contained HTML file: no scripts, no other files, no network.

A page is put together from small functions that return `Html`. Any other string is
escaped on its way in.
"""

import html
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence

from jaxnas import _files, analysis, genotypes
from jaxnas.analysis import convergence
from jaxnas.report import curves
from jaxnas.report.scratch import scratch_text, spread_text
from jaxnas.studies import Candidate, ScratchComparison

History = convergence.History

_SPLITS = {
    "train": curves.BLUE,
    "validation": curves.ORANGE,
    "test": curves.GREEN,
}

_CSS = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1f2328; --muted: #59636e; --line: #d8dee4;
  --shade: #f4f6f8; --accent: #c2410c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15181c; --text: #e6e8eb; --muted: #9aa4af; --line: #343a42;
    --shade: #1e2328; --accent: #fb923c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem;
  background: var(--page); color: var(--text);
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { margin: 0 0 .4rem; font-size: 1.75rem; line-height: 1.25; }
h2 {
  margin: 2.6rem 0 .8rem; padding-bottom: .3rem; font-size: 1.2rem;
  border-bottom: 1px solid var(--line);
}
p { max-width: 48rem; margin: .6rem 0; }
.lead { font-size: 1.08rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .93rem; }
caption { padding: .3rem 0; text-align: left; color: var(--muted); }
th, td {
  padding: .38rem .9rem .38rem .6rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
thead th { color: var(--muted); font-weight: 600; white-space: nowrap; }
tbody th { color: var(--muted); font-weight: 500; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.marked > td { background: var(--shade); color: var(--accent); font-weight: 600; }
.pairs td { overflow-wrap: anywhere; }
code { font: .86em/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
details code {
  display: block; margin: .4rem 0; padding: .6rem .7rem; border-radius: 5px;
  background: var(--shade); color: var(--text); font-weight: 400;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
td details code { min-width: 16rem; }
summary { color: var(--muted); font-weight: 400; cursor: pointer; }
.grid {
  display: grid; gap: 1.2rem 1.6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr));
}
figure { margin: .4rem 0; min-width: 0; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--muted); font-size: .88rem; }
.grid svg text { font-family: inherit !important; }
@media print {
  body { max-width: none; padding: 0; }
  figure, tr { break-inside: avoid; }
}
"""


class Html(str):
    """Markup; every other string is text and will be escaped."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Turn anything but `Html` into escaped text."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def paragraph(text: str, *, css_class: str = "") -> Html:
    """Return a paragraph, of one of the classes of the style sheet if named."""
    attribute = f' class="{escape(css_class)}"' if css_class else ""
    return Html(f"<p{attribute}>{escape(text)}</p>")


def code(text: str) -> Html:
    """Return text as code."""
    return Html(f"<code>{escape(text)}</code>")


def details(summary: str, body: str) -> Html:
    """Return a body that is unfolded by a click on its summary."""
    return Html(
        f"<details><summary>{escape(summary)}</summary>{escape(body)}</details>"
    )


def figure(svg: str, *, caption: str = "") -> Html:
    """Embed a drawing.

    Args:
      svg: text with an `<svg>` element, inserted as it is.
      caption: text below it.

    Returns:
      A `<figure>`.

    Raises:
      ValueError: if there is no `<svg>` element.
    """
    start = svg.find("<svg")  # an XML declaration may not stand inside HTML
    if start < 0:
        raise ValueError(f"drawing is {svg[:60]!r}; an <svg> element was expected")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f"<figure>{svg[start:]}{below}</figure>")


def grid(figures: Sequence[str]) -> Html:
    """Set figures side by side where the page is wide enough."""
    return Html(f'<div class="grid">{"".join(map(escape, figures))}</div>')


def table(
    columns: Mapping[str, str],
    rows: Sequence[Sequence[object]],
    *,
    caption: str = "",
    marked_row: int | None = None,
) -> Html:
    """Return a table whose numbers are aligned.

    Args:
      columns: format specification of the numbers of each column, by heading.
      rows: cells; numbers are formatted, None is shown as a dash, others as text.
      caption: text above the table.
      marked_row: index of a row to emphasise.

    Returns:
      A `<table>` that scrolls by itself where the page is too narrow.

    Raises:
      ValueError: if a row has not one cell per column.
    """
    headings, body = [], []
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(
                f"row {i} has {len(row)} cells; {len(columns)} columns were expected"
            )
        cells = "".join(map(_cell, row, columns.values()))
        emphasis = ' class="marked"' if i == marked_row else ""
        body.append(f"<tr{emphasis}>{cells}</tr>")
    for heading, spec in columns.items():
        alignment = ' class="number"' if spec else ""
        headings.append(f'<th scope="col"{alignment}>{escape(heading)}</th>')
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="scroll"><table>{above}<thead><tr>{"".join(headings)}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(value: object, spec: str) -> str:
    if value is None:
        value = "-"
    elif spec and not isinstance(value, str):
        value = format(value, spec)
    alignment = ' class="number"' if spec else ""
    return f"<td{alignment}>{escape(value)}</td>"


def pairs(mapping: Mapping[str, object]) -> Html:
    """Return a table of names and values; nested mappings get dotted names."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in _flatten(mapping).items()
    )
    return Html(f'<table class="pairs"><tbody>{rows}</tbody></table>')


def _flatten(mapping: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            flat[prefix + name] = value
        else:
            flat[prefix + name] = json.dumps(value, default=str)
    return flat


def section(title: str, *parts: str) -> Html:
    """Return a titled part of a page."""
    body = "\n".join(map(escape, parts))
    return Html(f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>")


def page(title: str, *parts: str) -> Html:
    """Return a whole document.

    Args:
      title: heading, and name of the browser's tab.
      *parts: what follows the heading.
    """
    body = "\n".join(map(escape, parts))
    return Html(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def write(path: str | os.PathLike[str], document: Html) -> None:
    """Write a document to a file, as a whole or not at all."""
    _files.write_text(path, document)


def search_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: History,
    drawing: str,
    found: Candidate,
    top: Sequence[Candidate],
    random: Sequence[Candidate],
    uniform_level: float,
    scratch: ScratchComparison | None = None,
    sampled_accuracies: Sequence[float] = (),
    ranked_by: str = "loss",
    loss_unit: str = "nats",
) -> None:
    """Write the report of an architecture search.

    The history may hold, for each `epoch`, the `loss` and `accuracy` of `train/`,
    `validation/` and `test/`, `theta_max_mean`, the mean over the decisions of the
    largest probability, and `reward`, `baseline` and `entropy` (nats) of a controller.
    What no entry has is left out.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data set and its source, device, seed,
        versions, command.
      config: the resolved configuration; may be nested.
      history: lines of the metrics log, one per epoch.
      drawing: the found architecture as an `<svg>` element.
      found: the architecture the search returns.
      top: the best architectures, best first.
      random: random architectures evaluated with the same weights as `found`.
      uniform_level: `theta_max_mean` of the uniform distribution, a fraction.
      scratch: the found and random architectures after training from scratch.
      sampled_accuracies: of architectures that the searcher samples in the end, on
        the images that `found` and `random` were evaluated on.
      ranked_by: what `top` is sorted by.
      loss_unit: unit of the losses.

    Raises:
      ValueError: if the history or the drawing is malformed.
    """
    parts = [
        paragraph(_headline(found, scratch), css_class="lead"),
        _summary(summary),
        *([] if scratch is None else [_scratch(found, scratch)]),
        section(
            "Found architecture",
            figure(drawing),
            details("As text", code(genotypes.to_text(found.genotype))),
        ),
    ]
    figures = _learning_curves(history, loss_unit)
    figures += _curve(
        [_series(history, "theta_max_mean", "search distribution", curves.BLUE)],
        title="Convergence of the search distribution",
        y_label="mean of largest probability (%)",
        levels={"uniform distribution": uniform_level},
        percent=True,
    )
    figures += _curve(
        [
            _series(history, "reward", "last samples", curves.BLUE),
            _series(history, "baseline", "moving average", curves.ORANGE),
        ],
        title="Reward of the controller",
        y_label="reward",
    )
    figures += _curve(
        [_series(history, "entropy", "controller", curves.BLUE)],
        title="Entropy of the controller",
        y_label="entropy (nats)",
    )
    if figures:
        note = (
            "Train and validation: the architectures sampled in each epoch. Test: the "
            "most likely architecture at its end, which no decision depends on."
        )
        parts.append(section("Course of the search", paragraph(note), grid(figures)))
    if top:
        note = (
            f"Ranked by their {ranked_by} on the validation images, with the search's "
            "weights."
        )
        ranking = _candidate_table(top, loss_unit, ranks=True)
        parts.append(section("Best architectures", paragraph(note), ranking))
    if random:
        parts.append(_comparison(found, random, sampled_accuracies, loss_unit))
    parts.append(section("Configuration", pairs(config)))
    write(path, page(title, *parts))


def train_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: History,
    drawing: str,
    loss_unit: str = "nats",
) -> None:
    """Write the report of one architecture trained from scratch.

    The history may hold, for each `epoch`, the `loss` and `accuracy` of `train/`,
    `validation/` and `test/`, and `learning_rate`. What no entry has is left out.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data set and its source, device, seed,
        versions, command.
      config: the resolved configuration; may be nested.
      history: lines of the metrics log, one per epoch.
      drawing: the architecture as an `<svg>` element.
      loss_unit: unit of the losses.

    Raises:
      ValueError: if the history or the drawing is malformed.
    """
    parts = [_summary(summary)]
    results = _results(history)
    if results:
        columns = {
            "split": "",
            f"loss ({loss_unit})": ".4f",
            "accuracy": ".2%",
            "best accuracy": ".2%",
            "in epoch": ".0f",
        }
        parts.append(
            section(
                "Results",
                table(columns, results),
                paragraph(
                    "Loss and accuracy are those of the last epoch. The best epoch "
                    "of a split is chosen on that same split, so it flatters."
                ),
            )
        )
    figures = _learning_curves(history, loss_unit)
    figures += _curve(
        [_series(history, "learning_rate", "learning rate", curves.BLUE)],
        title="Learning rate",
        y_label="learning rate",
    )
    if figures:
        parts.append(section("Course of the training", grid(figures)))
    parts.append(section("Architecture", figure(drawing)))
    parts.append(section("Configuration", pairs(config)))
    write(path, page(title, *parts))


def _summary(summary: Mapping[str, str]) -> Html:
    return pairs(
        {
            name: code(text) if name.lower() == "command" else text
            for name, text in summary.items()
        }
    )


def _headline(found: Candidate, scratch: ScratchComparison | None) -> str:
    return (
        f"{scratch_text(scratch)} It has {found.num_params / 1e6:,.3f} M parameters "
        f"and {found.flops / 1e6:,.1f} M FLOPs."
    )


def _scratch(found: Candidate, scratch: ScratchComparison) -> Html:
    """Show the found architecture among random ones, all trained from scratch."""
    means = [statistics.fmean(accuracies) for accuracies in scratch.random]
    chart = curves.strip_chart(
        means,
        statistics.fmean(scratch.found),
        title="Test accuracy after training from scratch",
        x_label="accuracy (%), mean over seeds",
        label="random",
        marked_label=found.name,
        percent=True,
    )
    rows = sorted(
        [
            (found.name, *scratch.found),
            *(
                (f"random {i}", *accuracies)
                for i, accuracies in enumerate(scratch.random, start=1)
            ),
        ],
        key=lambda row: -statistics.fmean(row[1:]),
    )
    columns = {"architecture": "", "mean": ".2%"} | {
        f"seed {seed}": ".2%" for seed in range(len(scratch.found))
    }
    note = (
        f"{scratch_text(scratch)} Spread: over seeds for the found one, over "
        "architectures for the random ones. All have the same budget and, for each "
        "seed, the same batches, and are evaluated with batch statistics."
    )
    return section(
        "Trained from scratch",
        paragraph(note),
        figure(curves.svg(chart, "accuracies after training from scratch")),
        table(
            columns,
            [(name, statistics.fmean(rest), *rest) for name, *rest in rows],
            marked_row=[row[0] for row in rows].index(found.name),
        ),
    )


def _is_finite(candidate: Candidate) -> bool:
    return math.isfinite(candidate.loss) and math.isfinite(candidate.accuracy)


def _series(history: History, key: str, label: str, color: str) -> curves.Series:
    return curves.series(history, key, label=label, color=color)


def _learning_curves(history: History, loss_unit: str) -> list[Html]:
    """Draw loss and accuracy of every split."""

    def splits(metric: str) -> list[curves.Series]:
        return [
            _series(history, f"{split}/{metric}", split, color)
            for split, color in _SPLITS.items()
        ]

    return [
        *_curve(splits("loss"), title="Loss", y_label=f"loss ({loss_unit})"),
        *_curve(
            splits("accuracy"), title="Accuracy", y_label="accuracy (%)", percent=True
        ),
    ]


def _curve(
    series: Sequence[curves.Series],
    *,
    title: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    percent: bool = False,
) -> list[Html]:
    """Draw what was measured over the epochs: one figure, or none."""
    measured = [curve for curve in series if curve.y or curve.num_skipped]
    if not measured:
        return []
    chart = curves.line_chart(
        measured,
        title=title,
        x_label="epoch",
        y_label=y_label,
        levels=levels,
        percent=percent,
    )
    num_skipped = sum(curve.num_skipped for curve in measured)
    caption = f"Points left out, not finite: {num_skipped}." if num_skipped else ""
    names = ", ".join(curve.label for curve in measured)
    return [figure(curves.svg(chart, f"{title} by epoch: {names}"), caption=caption)]


def _candidate_table(
    candidates: Sequence[Candidate],
    loss_unit: str,
    *,
    ranks: bool = False,
    marked_row: int | None = None,
) -> Html:
    """Show one candidate per row; cells with width and depth of the normal one."""
    has_cells = any(isinstance(c.genotype, genotypes.Genotype) for c in candidates)
    were_trained = any(c.trained_accuracy is not None for c in candidates)
    columns = {
        **({"rank": "d"} if ranks else {}),
        "architecture": "",
        f"loss ({loss_unit})": ".4f",
        "accuracy": ".2%",
        **({"accuracy, trained": ".2%"} if were_trained else {}),
        "parameters (M)": ",.3f",
        "FLOPs (M)": ",.1f",
        **({"width (c)": ".1f", "depth": "d"} if has_cells else {}),
        "genotype": "",
    }
    rows = [
        (
            *((rank,) if ranks else ()),
            candidate.name,
            candidate.loss,
            candidate.accuracy,
            *((candidate.trained_accuracy,) if were_trained else ()),
            candidate.num_params / 1e6,
            candidate.flops / 1e6,
            *(_topology(candidate.genotype) if has_cells else ()),
            details("show", code(genotypes.to_text(candidate.genotype))),
        )
        for rank, candidate in enumerate(candidates, start=1)
    ]
    return table(columns, rows, marked_row=marked_row)


def _topology(genotype: genotypes.AnyGenotype) -> tuple[float | None, int | None]:
    """Return width and depth of the normal cell."""
    if not isinstance(genotype, genotypes.Genotype):
        return None, None
    width = analysis.cell_width(genotype, "normal")
    return width, analysis.cell_depth(genotype, "normal")


def _comparison(
    found: Candidate,
    random: Sequence[Candidate],
    sampled_accuracies: Sequence[float],
    loss_unit: str,
) -> Html:
    """Show the found architecture among random ones with the search's weights."""
    finite = list(filter(_is_finite, random))
    text = (
        "This does not tell whether the found architecture is good: the weights were "
        "trained for what the searcher sampled, so that even a searcher that ignores "
        "all losses looks better than random here."
    )
    if finite:
        losses = [candidate.loss for candidate in finite]
        accuracies = [candidate.accuracy for candidate in finite]
        measure = " (mean ± standard deviation)" if len(finite) > 1 else ""
        text += (
            f" The random ones have loss {spread_text(losses, '.4f')} {loss_unit} and "
            f"accuracy {spread_text(accuracies, '.2%')}{measure}; it has loss "
            f"{found.loss:.4f} {loss_unit} and accuracy {found.accuracy:.2%}."
        )
    if sampled_accuracies:
        text += (
            f" {len(sampled_accuracies)} architectures that the searcher samples have "
            f"accuracy {spread_text(sampled_accuracies, '.2%')}."
        )
    if len(finite) < len(random):
        text += f" Left out, not finite: {len(random) - len(finite)}."
    charts = []
    if finite and _is_finite(found):
        for name, unit, percent in (
            ("loss", loss_unit, False),
            ("accuracy", "%", True),
        ):
            values = [getattr(candidate, name) for candidate in finite]
            chart = curves.strip_chart(
                values,
                getattr(found, name),
                title=f"Test {name}",
                x_label=f"{name} ({unit})",
                label="random",
                marked_label=found.name,
                percent=percent,
            )
            description = f"{name} of {found.name} among random architectures"
            charts.append(figure(curves.svg(chart, description)))
    # A diverged candidate goes last, wherever sorting would leave its NaN.
    ordered = sorted(
        (found, *random),
        key=lambda candidate: (not math.isfinite(candidate.loss), candidate.loss),
    )
    return section(
        "With the search's weights",
        paragraph(text),
        grid(charts),
        _candidate_table(ordered, loss_unit, marked_row=ordered.index(found)),
    )


def _results(history: History) -> list[tuple[object, ...]]:
    """Return one row per split: last loss and accuracy, best accuracy and epoch."""
    rows = []
    for split, color in _SPLITS.items():
        loss = _last(history, f"{split}/loss")
        accuracy = _last(history, f"{split}/accuracy")
        if loss is None and accuracy is None:
            continue
        curve = _series(history, f"{split}/accuracy", split, color)
        best = max(curve.y, default=None)
        epoch = None if best is None else curve.x[curve.y.index(best)]
        rows.append((split, loss, accuracy, best, epoch))
    return rows


def _last(history: History, key: str) -> float | None:
    """Return the latest value, finite or not."""
    return next(
        (float(entry[key]) for entry in reversed(history) if key in entry), None
    )
