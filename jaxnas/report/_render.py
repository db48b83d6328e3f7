"""Reports as one self-contained HTML file: no scripts, no other files, no network.

A template of `templates/` holds the structure and the words of a report, a function
its numbers; all strings but drawings are escaped.
"""

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
from matplotlib.figure import Figure as Chart

from jaxnas import _files
from jaxnas.report import curves


class Figure(NamedTuple):
    """A drawing with its caption."""

    svg: markupsafe.Markup
    caption: str | markupsafe.Markup = ""


class Table(NamedTuple):
    """A table whose numbers are aligned.

    Attributes:
      columns: format specification of the numbers of each column, by heading.
      rows: cells; numbers are formatted, None is shown as a dash, others as text.
      caption: text above the table.
      marked_row: index of a row to emphasize.
    """

    columns: Mapping[str, str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    marked_row: int | None = None

    def cells(self) -> Iterator[list[tuple[object, bool]]]:
        """Yield the cells of each row as text, and whether they are numbers."""
        for row in self.rows:
            yield [
                (_text(value, spec), bool(spec))
                for value, spec in zip(row, self.columns.values(), strict=True)
            ]


def figure(svg: str, caption: str = "") -> Figure:
    """Embed a drawing.

    Raises:
      ValueError: if there is no `<svg>` element.
    """
    start = svg.find("<svg")  # an XML declaration may not stand inside HTML
    if start < 0:
        raise ValueError(f"drawing is {svg[:60]!r}; an <svg> element was expected")
    return Figure(markupsafe.Markup(svg[start:]), caption)


def chart(chart: Chart, description: str, caption: str = "") -> Figure:
    """Embed a chart, with a description for readers who cannot see it."""
    return figure(curves.svg(chart, description), caption)


def hidden(text: str) -> markupsafe.Markup:
    """A long text for a cell of a table, to be shown on demand."""
    return markupsafe.Markup(
        "<details><summary>show</summary><code>{}</code></details>"
    ).format(text)


def write(path: str | os.PathLike[str], template: str, **context: Any) -> None:
    """Fill in a template and write it to a file, as a whole or not at all."""
    _files.write_text(path, _environment().get_template(template).render(context))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        keep_trailing_newline=True,
        loader=jinja2.PackageLoader("jaxnas.report"),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["flatten"] = _flatten
    environment.globals["parts"] = environment.get_template("parts.html").module
    return environment


def _text(value: object, spec: str) -> object:
    if value is None:
        return "-"
    return format(value, spec) if spec and not isinstance(value, str) else value


def _flatten(mapping: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Give nested mappings dotted names, and write all values as text."""
    flat: dict[str, str] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            is_text = isinstance(value, str)
            flat[prefix + name] = value if is_text else json.dumps(value, default=str)
    return flat
