"""Reports on searches for recurrent cells, and on the training of language models."""

import os
import statistics
from collections.abc import Mapping
from typing import Any

from jaxnas import genotypes
from jaxnas.analysis import convergence
from jaxnas.report import _history, _render, curves
from jaxnas.report._words import not_compared, number_of, spread_text, verdict
from jaxnas.studies import LanguageStudy, StudiedLanguageModel
from jaxnas.types import SearchSpace


def language_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: convergence.History,
    drawing: str,
    study: LanguageStudy,
    space: SearchSpace,
) -> None:
    """Write the report of a search for a recurrent cell.

    The history may hold, for each `epoch`, the `perplexity` of `train/` and
    `validation/`, `train/num_skipped`, `validation/num_not_finite`, and `reward`,
    `baseline` and `entropy` (nats) of a controller. What no entry has is left out.

    Args:
      path: the HTML file.
      title: heading of the report.
      summary: the circumstances by name: data, device, seed, versions, command.
      config: the resolved configuration; may be nested.
      history: lines of the search's metrics log, one per epoch.
      drawing: the found cell as an `<svg>` element.
      study: the result.
      space: the search space, which says what the candidates are.

    Raises:
      ValueError: if the history or the drawing is malformed.
    """
    _render.write(
        path,
        "language.html",
        title=title,
        lead=language_text(study),
        summary=summary,
        config=config,
        scratch=_scratch(study) if study.random else None,
        sample=study.sample,
        drawing=_render.figure(drawing),
        text=genotypes.to_text(study.found.genotype),
        figures=[
            *_perplexity_curves(history),
            *_history.controller_curves(history),
        ],
        ranking=_ranking(study, space),
    )


def language_model_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    config: Mapping[str, object],
    history: convergence.History,
    drawing: str,
    perplexities: Mapping[str, float],
    epoch: int,
    sample: str,
) -> None:
    """Write the report of one language model trained from scratch.

    The history may hold, for each `epoch`, the `perplexity` of `train/` and
    `validation/`, and `train/num_skipped`.

    Args:
      path: as for `language_report`, like what follows.
      title: heading of the report.
      summary: the circumstances.
      config: the configuration.
      history: lines of the metrics log.
      drawing: the cell.
      perplexities: of whole texts, by name.
      epoch: the epoch, from 1, whose parameters they were measured with.
      sample: what the model writes.

    Raises:
      ValueError: if the history or the drawing is malformed.
    """
    rows = [(f"{name} text", value) for name, value in perplexities.items()]
    _render.write(
        path,
        "language_model.html",
        title=title,
        lead="",
        summary=summary,
        config=config,
        results=_render.Table({"": "", "perplexity": ".2f"}, rows),
        epoch=epoch,
        figures=_perplexity_curves(history),
        sample=sample,
        drawing=_render.figure(drawing),
    )


def language_text(study: LanguageStudy) -> str:
    """The result of a search for a recurrent cell in one sentence."""
    if study.difference is None:
        return not_compared("cell")
    found, random = study.found, study.random
    means = [statistics.fmean(other.test) for other in random]
    value, low, high = study.difference
    return (
        f"Trained from scratch for {study.num_epochs} epochs "
        f"({number_of(len(found.test), 'seed')}), test perplexity: found "
        f"{spread_text(found.test, '.2f')}, {len(random)} random cells "
        f"{spread_text(means, '.2f')}; difference {value:+.2f} [{low:+.2f}, "
        f"{high:+.2f}] (95 %; below 0 is better): {verdict(-high, -low)}."
    )


def _perplexity_curves(history: convergence.History) -> list[_render.Figure]:
    """Draw perplexities of the texts, and what was not finite if anything was."""
    faults = {
        "train/num_skipped": ("skipped steps", curves.BLUE),
        "validation/num_not_finite": ("cells not finite", curves.ORANGE),
    }
    occurred = {
        name: style
        for name, style in faults.items()
        if any(float(line.get(name, 0)) != 0 for line in history)
    }
    return [
        *_history.split_curves(
            history,
            "perplexity",
            title="Perplexity",
            y_label="perplexity",
            log_y=True,
        ),
        *_history.metric_curves(
            history, occurred, title="Not finite", y_label="number in an epoch"
        ),
    ]


def _ranking(study: LanguageStudy, space: SearchSpace) -> _render.Table:
    """Show the best candidates; the first is the found one."""
    rows = [
        (
            rank,
            float(candidate.metrics["perplexity"]),
            _render.hidden(genotypes.to_text(space.decode(candidate.arch))),
        )
        for rank, candidate in enumerate(study.candidates, start=1)
    ]
    columns = {"rank": "d", "validation perplexity": ".2f", "genotype": ""}
    return _render.Table(columns, rows)


def _scratch(study: LanguageStudy) -> dict[str, Any]:
    """Show the found cell among random ones, all trained from scratch."""
    chart = curves.strip_chart(
        [statistics.fmean(other.test) for other in study.random],
        statistics.fmean(study.found.test),
        title="Test perplexity after training from scratch",
        x_label="perplexity, mean over seeds",
        label="random",
        marked_label=study.found.name,
    )
    rows = [_row(model) for model in (study.found, *study.random)]
    rows.sort(key=lambda row: row[1])
    seeds = len(study.found.test)
    columns = {
        "cell": "",
        "test perplexity": ".2f",
        **({f"seed {seed}": ".2f" for seed in range(seeds)} if seeds > 1 else {}),
        "validation perplexity": ".2f",
        "parameters (M)": ",.3f",
        "genotype": "",
    }
    return {
        "text": language_text(study),
        "figure": _render.chart(chart, "perplexities after training from scratch"),
        "table": _render.Table(
            columns,
            rows,
            marked_row=[row[0] for row in rows].index(study.found.name),
        ),
    }


def _row(model: StudiedLanguageModel) -> tuple[Any, ...]:
    return (
        model.name,
        statistics.fmean(model.test),
        *(model.test if len(model.test) > 1 else ()),
        statistics.fmean(model.validation),
        model.num_params / 1e6,
        _render.hidden(genotypes.to_text(model.genotype)),
    )
