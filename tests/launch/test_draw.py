"""The command that draws architectures."""

import xml.etree.ElementTree as ElementTree

import draw
import pytest
from commands import assert_refused, exit_status

from jaxnas import genotypes


def run(monkeypatch, capsys, *flags):
    status = exit_status(monkeypatch, draw.main, *flags)
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    "name", ["DARTS_V2", "ENAS_MACRO", "GHN", "DARTS_V1_RECURRENT"]
)
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


def test_architectures_are_given_as_text(monkeypatch, capsys, tmp_path):
    svg, log = tmp_path / "drawn.svg", tmp_path / "log.txt"
    darts = genotypes.to_darts(genotypes.named("DARTS_V2"))
    other = genotypes.to_darts(genotypes.named("DARTS_V1"))
    log.write_text(f"1 {other}\n2 {darts}\n", encoding="utf-8")
    macro = " ".join(map(str, genotypes.to_enas_macro(genotypes.named("ENAS_MACRO"))))
    for given in (darts, macro, "[0, 1, 0]", f"{log}:2"):
        flags = (given, "--output", svg)
        assert run(monkeypatch, capsys, *flags)[::2] == (0, "")
        assert len(ElementTree.parse(svg).getroot().findtext(".//{*}title") or "") < 99
    result = run(monkeypatch, capsys, log, "--output", svg)
    assert_refused(result, "found 2 genotypes, at the lines 1, 2; expected one")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "genotype"),
        (("no/such",), "no/such is neither a file nor one of"),
        (
            ("0 1 2 " * 99,),
            "is no file, and no genotype: no ENAS script; from_enas_",
        ),
        (("|none~0|+|none~0|none~1|",), "found a cell of NAS-Bench-201"),
        (("GHN", "--cell", "normal"), "GHN is a DagGenotype; expected two cells"),
        (("GHN", "--output", "a.png"), "--output is a.png; expected a file .svg or"),
        (("ENAS", "--cell", "normal", "--output", "a.dot"), "expected a file .svg"),
    ],
)
def test_wrong_input(monkeypatch, capsys, tmp_path, flags, words):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(monkeypatch, capsys, *flags), words)
    assert not list(tmp_path.iterdir())
