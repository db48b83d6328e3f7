"""The notebooks and the examples of the README run."""

import re

import jax
import nbclient
import nbformat
import pytest
from helpers import ROOT, quick_compilation

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

# What makes the numbers in the notebooks worth reading takes minutes. The tests run the
# same code with less of it.
SHORTER = {
    "search": {
        "num_nodes=3": "num_nodes=1",
        "num_epochs=40": "num_epochs=1",
        "num_epochs=15": "num_epochs=1",
        "num_seeds=2": "num_seeds=1",
        "num_scratch_random=3": "num_scratch_random=2",
        "num_candidates=4": "num_candidates=1",
        "num_random=4": "num_random=1",
    },
    "hypernetwork": {
        "num_epochs=60": "num_epochs=1",
        "channels=8": "channels=2",
        "hidden_size=16": "hidden_size=4",
        "snapshot_steps=[200]": "snapshot_steps=[2]",
    },
    "cells": {
        "num_epochs=4": "num_epochs=1",
        "channels=4": "channels=2",
    },
    "README": {
        "num_nodes=5": "num_nodes=1",
        "channels=8": "channels=2",
        "num_epochs=40": "num_epochs=1",
        "Selection(scratch=studies.TrainingBudget(6, num_seeds=2)": (
            "Selection(num_candidates=1, num_random=1, num_scratch_random=2, "
            "scratch=studies.TrainingBudget(1)"
        ),
    },
}


def shorten(name: str, code: str) -> str:
    for long, short in SHORTER[name].items():
        assert long in code
        code = code.replace(long, short)
    return code


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    for name, value in {"JAX_PLATFORMS": "cpu", **quick_compilation()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONWARNINGS", "default")  # Jupyter's own would be errors
    text = path.read_text("utf-8")
    assert any(cell.get("outputs") for cell in nbformat.reads(text, 4).cells)
    notebook = nbformat.reads(shorten(path.stem, text), as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert last.outputs


def test_the_search_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text("utf-8")
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "studies.search(" in block
    )
    assert code.count("\n") <= 25
    code = shorten("README", code)
    with jax.numpy_dtype_promotion("standard"):
        exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "Genotype(normal=" in printed and "Difference(" in printed
    assert (tmp_path / "runs" / "library" / "scratch.json").exists()
