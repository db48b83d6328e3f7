"""Genotypes as JSON, as one line of text, and in files."""

import json
import os
import pathlib
import re
from typing import Any

from jaxnas import _files
from jaxnas._checks import short_messages
from jaxnas.genotypes import kinds
from jaxnas.genotypes.anytime import AnytimeGenotype
from jaxnas.genotypes.cells import Genotype
from jaxnas.genotypes.dag import DagGenotype
from jaxnas.genotypes.darts_text import from_darts, to_darts
from jaxnas.genotypes.enas_scripts import from_enas
from jaxnas.genotypes.kinds import AnyGenotype
from jaxnas.genotypes.macro import MacroGenotype
from jaxnas.genotypes.recurrent import RecurrentGenotype

# The kinds of files written before there were tags, which are told apart by their keys.
_UNTAGGED = (Genotype, MacroGenotype, RecurrentGenotype, DagGenotype, AnytimeGenotype)

_NAS_BENCH_201 = re.compile(r"\|\w{1,40}~\d\|")


def to_text(genotype: AnyGenotype) -> str:
    """Write a genotype as one line of text, which `load` reads from a file.

    Args:
      genotype: the genotype.

    Returns:
      The text of `to_darts` for two cells, else the JSON object of `to_json` in one
      line.

    Raises:
      ValueError: if the genotype is invalid.
    """
    genotype = kinds.check(genotype)
    if isinstance(genotype, Genotype):
        return to_darts(genotype)
    return json.dumps(to_dict(genotype))


def to_json(genotype: AnyGenotype) -> str:
    """Write a genotype as a JSON object, one line per field.

    Args:
      genotype: the genotype.

    Returns:
      The tag of the kind under `"type"`, then the fields:
      `{"type": "cells", "normal": [["sep_conv_3x3", 0], ...], "normal_concat": [2,
      ...], ...}` for two cells, `{"type": "macro", "ops": ["conv_3x3", ...], "skips":
      [[], [0], ...]}` for a chain of layers, `{"type": "recurrent", "activations":
      ["tanh", ...], "sources": [0, ...], "averaged": "loose_ends"}` for a recurrent
      cell and `{"type": "dag", "ops": ["conv_1x1", ...], "inputs": [[0, 1], ...]}` for
      a block; for blocks with exits (`"anytime"`), lists of these with `scales` and
      `exits`.

    Raises:
      ValueError: if the genotype is invalid.
    """
    fields = to_dict(genotype).items()
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in fields]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def to_dict(genotype: AnyGenotype) -> dict[str, Any]:
    """Write a genotype as the object of `to_json`, for a part of a larger file.

    Args:
      genotype: the genotype.

    Returns:
      The tag of the kind under `"type"`, then the fields.

    Raises:
      ValueError: if the genotype is invalid.
    """
    genotype = kinds.check(genotype)
    return {kinds.TAG: kinds.tag_of(genotype), **genotype._asdict()}


@short_messages()
def from_json(text: str) -> Any:
    """Read a genotype from a JSON object; keys other than its fields are ignored.

    Args:
      text: the layout that `to_json` writes, with or without `"type"` and fields that
        have a default.

    Returns:
      The checked genotype: of the kind under `"type"`, or of the kind of this package
      that has most of the keys.

    Raises:
      ValueError: naming the line, key, edge, layer or node at fault.
    """
    found = _files.parse_json(text)
    if not isinstance(found, dict):
        raise ValueError(f"found a JSON {type(found).__name__}; expected an object")
    if kinds.TAG in found:
        kind = kinds.kind_of_tag(found[kinds.TAG])
    else:
        kind = _kind_of_keys(found)
    for name in kind._fields:
        if name not in found and name not in kind._field_defaults:
            raise ValueError(f"the key {name!r} is missing from the JSON object")
    fields = {name: found[name] for name in kind._fields if name in found}
    return kinds.check(kind(**fields))


def _kind_of_keys(found: dict[str, Any]) -> type[Any]:
    # Chains and blocks both have operations, so the kind with the most keys it is.
    kind = max(_UNTAGGED, key=lambda kind: len(found.keys() & set(kind._fields)))
    if found.keys().isdisjoint(kind._fields):
        layouts = " or ".join(", ".join(kind._fields) for kind in _UNTAGGED)
        raise ValueError(
            f"found the keys {list(found)} in the JSON object; expected {layouts}"
        )
    return kind


@short_messages()
def from_text(text: str, *, line: int | None = None) -> Any:
    """Read a genotype from text in any of its forms, told apart by the content.

    Args:
      text: a JSON object, the text of DARTS as `from_darts` reads it, or the integers
        of an ENAS script as `from_enas` reads them.
      line: of text of DARTS: which genotype to read, by the line where it starts.

    Returns:
      The checked genotype, of the kind that the text holds.

    Raises:
      ValueError: if it is nothing of that, naming the place; or several genotypes,
        naming their lines.
    """
    if re.match(r"\s*\{(?!\s*')", text) and line is None:
        return from_json(text)
    if not re.search(r"\bGenotype\b|\bnormal\b", text):
        if _NAS_BENCH_201.search(text):
            raise ValueError(
                "found a cell of NAS-Bench-201, six edges with operations; jaxnas has "
                "no space of these cells and cannot train them, but a table of their "
                "accuracies can be searched (launch/tabular_search.py)"
            )
        if re.match(r"[\s\[({\"']*(?:\d|fixed_arc)", text):
            return from_enas(text)
    return from_darts(text, line=line)


def load(path: str | os.PathLike[str], *, line: int | None = None) -> Any:
    """Read a genotype file of at most 16 MiB.

    Args:
      path: a file as `save` writes it, or one with text as `from_text` reads it, such
        as a log.
      line: of a file with several genotypes of DARTS: the line where one starts.

    Returns:
      The checked genotype, of the kind that the file holds.

    Raises:
      ValueError: if the file is missing, unreadable or malformed, naming the path
        and the place in it.
    """
    try:
        text = _files.read_text(path)
    except OSError as error:
        raise ValueError(
            f"the genotype file {path} cannot be read: {error.strerror}"
        ) from error
    except ValueError as error:
        raise ValueError(f"the genotype file {path} cannot be read: {error}") from error
    try:
        return from_text(text, line=line)
    except ValueError as error:
        raise ValueError(f"the genotype file {path} is malformed: {error}") from error


def save(path: str | os.PathLike[str], genotype: AnyGenotype) -> None:
    """Write a genotype file as JSON, whole or not at all.

    Args:
      path: file to create or replace; its folder must exist.
      genotype: the genotype.

    Raises:
      ValueError: if the genotype is invalid or the folder is missing.
    """
    path = pathlib.Path(path)
    text = to_json(genotype)
    if not path.parent.is_dir():
        raise ValueError(
            f"the genotype file {path} cannot be written: its folder is missing"
        )
    _files.write_text(path, text)
