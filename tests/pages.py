"""What reports hold, parsed: texts by tag, tables by heading."""

import html.parser
import pathlib

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(html.parser.HTMLParser):
    """The contents of a report.

    Attributes:
      texts: of every element, by tag, in order.
      attributes: `(tag, name, value)` of every element.
      tables: rows of each table; headings give their cells names, where it has any.
      captions: of each table.
      marked: emphasized rows of each table.
    """

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tables: list[list[dict[str, str]]] = []
        self.captions: list[str] = []
        self.marked: list[list[dict[str, str]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag in VOID:
            return
        self.open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append([])
            self.captions.append("")
            self.marked.append([])
            self.headings: list[str] = []
        elif tag == "tr":
            self.cells: list[str] = []
            self.is_marked = ("class", "marked") in attrs
        elif tag in ("th", "td"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag != "tr":
            return
        if "thead" in self.open:
            self.headings = self.cells
            return
        names = self.headings or ["name", "value"]
        row = dict(zip(names, self.cells, strict=True))
        self.tables[-1].append(row)
        if self.is_marked:
            self.marked[-1].append(row)

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data
        if {"th", "td"} & set(self.open):
            self.cells[-1] += data
        elif "caption" in self.open:
            self.captions[-1] += data

    def words(self, tag: str = "p") -> list[str]:
        """Texts of a tag, whatever their line breaks."""
        return [" ".join(text.split()) for text in self.texts.get(tag, [])]

    def table(self, heading: str, place: int = 0) -> list[dict[str, str]]:
        """The rows of one of the tables with a heading."""
        return [rows for rows in self.tables if rows and heading in rows[0]][place]

    def pairs(self) -> dict[str, str]:
        """Summary and configuration."""
        rows = [row for rows in self.tables for row in rows if "value" in row]
        return {row["name"]: row["value"] for row in rows}


def check_report(path: pathlib.Path) -> Page:
    """Check that a report needs no other file, and return what it holds."""
    page = Page(path)
    assert page.tables and page.texts["svg"]
    tags = {tag for tag, _, _ in page.attributes} | set(page.texts)
    assert not tags & {"script", "img", "link", "iframe", "object", "embed"}
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action"):
            start = "data:image" if tag == "image" else "#"
            assert value is not None and value.startswith(start), (tag, name, value)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    return page
