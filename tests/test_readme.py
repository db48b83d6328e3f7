"""The example of the README on loss surfaces does what it says."""

import re

import jax
from helpers import ROOT

README = ROOT / "README.md"


def test_surfaces_of_any_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "make_surface_fn" in block)
    exec(compile(code, README.name, "exec"), {"jax": jax})
    share, deviation = map(float, capsys.readouterr().out.split())
    assert 0 < share <= 1 and deviation > 0
    assert (tmp_path / "variance.npz").exists()
