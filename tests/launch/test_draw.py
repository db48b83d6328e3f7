"""The command that draws architectures."""

import xml.etree.ElementTree as ElementTree

import draw
import pytest
from commands import assert_refused, exit_status


def run(monkeypatch, capsys, *flags):
    status = exit_status(monkeypatch, draw.main, *flags)
    return status, *capsys.readouterr()


@pytest.mark.parametrize("name", ["DARTS_V2", "ENAS_MACRO", "GHN", "ENAS_RECURRENT"])
def test_architectures_are_drawn(monkeypatch, capsys, tmp_path, name):
    svg, dot = tmp_path / "drawn.svg", tmp_path / "drawn.dot"
    assert run(monkeypatch, capsys, name, "--output", svg)[0] == 0
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert name in svg.read_text("utf-8")
    assert run(monkeypatch, capsys, name, "--output", dot)[0] == 0
    assert "digraph" in dot.read_text("utf-8")


def test_one_cell_is_drawn(monkeypatch, capsys, tmp_path):
    svg = tmp_path / "drawn.svg"
    flags = ("DARTS_V2", "--cell", "normal", "--title", "A <cell>", "--output", svg)
    assert run(monkeypatch, capsys, *flags)[0] == 0
    assert "A <cell>" in "".join(ElementTree.parse(svg).getroot().itertext())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "genotype"),
        (("no/such",), "no/such is neither a file nor one of"),
        (("GHN", "--cell", "normal"), "GHN is a DagGenotype; expected two cells"),
        (("GHN", "--output", "a.png"), "--output is a.png; expected a file .svg or"),
        (("ENAS", "--cell", "normal", "--output", "a.dot"), "expected a file .svg"),
    ],
)
def test_wrong_input(monkeypatch, capsys, tmp_path, flags, words):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(monkeypatch, capsys, *flags), words)
    assert not list(tmp_path.iterdir())
