"""The Python text by which DARTS code bases exchange cells, also in their logs.

Text is parsed, never executed.
"""

import ast
import itertools
import re
import warnings
from typing import Any, NamedTuple

from jaxnas._checks import is_integer, short_messages, shorten
from jaxnas.genotypes._values import is_list
from jaxnas.genotypes.cells import Genotype, check_cells
from jaxnas.genotypes.recurrent import (
    Averaged,
    RecurrentGenotype,
    check_recurrent,
    recurrent_loose_ends,
)

_START = re.compile(
    r"(?:\bGenotype\s*\("
    r"|\{\s*['\"](?:(?:normal|reduce)(?:_concat)?|recurrent|concat)['\"]\s*:)"
)
_RECURRENT_FIELDS = ("recurrent", "concat")
_TOKENS = re.compile(r"#[^\n]*|'[^'\n]*'|\"[^\"\n]*\"|[()\[\]{}]")
_MAX_LENGTH = 2**16  # characters of one genotype
_MAX_RANGE = 1_000
_MAX_DEPTH = 30
_MAX_LISTED = 10
# Calls around a value that leave it as it is, from NumPy, PyTorch and Python.
_WRAPPERS = re.compile(
    r"(?:array|asarray|tensor|list|tuple|str_?|u?int\d*|intp|float\d*)$"
)


def to_darts(genotype: Genotype) -> str:
    """Write two cells as the Python text that DARTS code bases exchange.

    Args:
      genotype: the genotype.

    Returns:
      `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, ...], ...)`.

    Raises:
      ValueError: if the genotype is invalid.
    """
    fields = check_cells(genotype)._asdict().items()
    return f"Genotype({', '.join(f'{name}={list(value)}' for name, value in fields)})"


@short_messages()
def from_darts(text: str, *, line: int | None = None) -> Genotype | RecurrentGenotype:
    """Read a genotype from the Python text that DARTS code bases exchange.

    Args:
      text: `Genotype(normal=..., normal_concat=..., reduce=..., reduce_concat=...)` or,
        of a recurrent cell, `Genotype(recurrent=..., concat=...)`, or a dictionary
        with these keys, with any text around it, such as the time of a
        log, a name it is assigned to or a module. The fields are lists, tuples,
        `range(...)` or arrays; the pairs of a node may be a pair of pairs, and a pair
        may have a weight, a third number with a decimal point, which is dropped.
        Further fields that are `None` are ignored.
      line: which genotype to read, by the line where it starts, counted from 1. `None`
        is the only one; one that is repeated counts once.

    Returns:
      The checked genotype. Node 0 of a recurrent cell has tanh, as in the code of
      DARTS, and the concat is all later nodes or the loose ends.

    Raises:
      ValueError: naming the line, field, edge or node at fault; or the lines of the
        genotypes if there are several.
    """
    found = _find(text)
    if line is not None:
        found = [passage for passage in found if passage.line == line]
    if not found:
        place = "" if line is None else f" at line {line}"
        raise ValueError(f"found no Genotype(...){place}; expected one")
    different = {" ".join(passage.text.split()): passage for passage in found}
    if len(different) > 1:
        lines = [str(passage.line) for passage in found]
        listed = ", ".join(lines[:_MAX_LISTED])
        if len(lines) > _MAX_LISTED:
            listed += f", ... and {lines[-1]}"
        raise ValueError(
            f"found {len(found)} genotypes, at the lines {listed}; expected one, "
            "which FILE:LINE chooses"
        )
    return _parse(found[0])


class _Passage(NamedTuple):
    text: str
    line: int


def _find(text: str) -> list[_Passage]:
    """What may be genotypes, from their first word to their last bracket."""
    found: list[_Passage] = []
    start, line, counted = _START.search(text), 1, 0
    while start is not None:
        end = _end(text, start.start())
        line += text.count("\n", counted, start.start())
        counted = start.start()
        found.append(_Passage(text[counted:end], line))
        start = _START.search(text, end)
    return found


def _end(text: str, start: int) -> int:
    """Where the brackets that open behind a place are closed again."""
    limit, depth = start + _MAX_LENGTH, 0
    for token in _TOKENS.finditer(text, start, limit):
        bracket = token.group()
        depth += (bracket in "([{") - (bracket in ")]}")
        if bracket in ")]}" and depth <= 0:
            return token.end()
    return min(limit, len(text))


def _parse(passage: _Passage) -> Genotype | RecurrentGenotype:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(passage.text, mode="eval").body
    except SyntaxError as error:
        line = passage.line - 1 + (error.lineno or 1)
        raise ValueError(
            f"line {line}: this is not Python text: {error.msg}"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        # Null bytes and absurd nesting, which Python versions report differently.
        raise ValueError(
            f"line {passage.line}: this is not Python text: {error}"
        ) from error
    fields = _fields(tree)
    given = {name for name, value in fields.items() if not _is_none(value)}
    names = _RECURRENT_FIELDS if "recurrent" in given else Genotype._fields
    if given - {*names} or {*names} - {*fields}:
        raise ValueError(
            f"line {passage.line}: expected each of {', '.join(names)} once, by name"
        )
    values = {name: _field(name, fields[name], passage.line) for name in names}
    for name in {*values} & {"normal", "reduce", "recurrent"}:
        values[name] = _pairs(values[name])
    if names == _RECURRENT_FIELDS:
        return _recurrent_cell(**values)
    return check_cells(Genotype(**values))


def _recurrent_cell(recurrent: Any, concat: Any) -> RecurrentGenotype:
    """The cell of `(activation, source)` pairs of all nodes but node 0."""
    if not is_list(recurrent):
        raise ValueError(
            f"recurrent: {recurrent!r} is not a list of (activation, source) pairs"
        )
    for node, pair in enumerate(recurrent, start=1):
        if not is_list(pair) or len(pair) != 2:
            raise ValueError(
                f"node {node}: {pair!r} is not an (activation, source) pair"
            )
    activations, sources = zip(*recurrent, strict=True) if recurrent else ((), ())
    cell = check_recurrent(RecurrentGenotype(("tanh", *activations), sources))
    if not is_list(concat) or not all(map(is_integer, concat)):
        raise ValueError(f"concat: {concat!r} is not a list of nodes")
    found = sorted(concat)
    every: dict[Averaged, list[int]] = {
        "later_nodes": [*range(1, len(cell.activations))],
        "loose_ends": [*recurrent_loose_ends(cell)],
    }
    for averaged, nodes in every.items():
        if found == nodes:
            return check_recurrent(cell._replace(averaged=averaged))
    raise ValueError(
        f"concat: found {found}; expected all later nodes {every['later_nodes']} or "
        f"the loose ends {every['loose_ends']}"
    )


def _fields(tree: ast.expr) -> dict[str, ast.expr]:
    """The fields of a call or a dictionary; none if they are not named once each."""
    if isinstance(tree, ast.Call) and not tree.args:
        names = [keyword.arg for keyword in tree.keywords]
        values = [keyword.value for keyword in tree.keywords]
    elif isinstance(tree, ast.Dict):
        names = [
            key.value if isinstance(key, ast.Constant) else None for key in tree.keys
        ]
        values = tree.values
    else:
        return {}
    if len(set(names)) < len(names):
        return {}
    return {str(name): value for name, value in zip(names, values, strict=True)}


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _field(name: str, value: ast.expr, line: int) -> Any:
    try:
        return _literal(value)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"line {line - 1 + value.lineno}: {name} is "
            f"{shorten(ast.unparse(value), 100)}; expected a list, a tuple or "
            "range(...)"
        ) from error


def _literal(node: ast.expr, depth: int = 0) -> Any:
    """The value of a literal, looking into lists, ranges and arrays."""
    if depth > _MAX_DEPTH:
        raise ValueError
    match node:
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return tuple(_literal(item, depth + 1) for item in items)
        case ast.Call(func=function, args=[argument]) if _WRAPPERS.match(
            _name(function)
        ):
            return _literal(argument, depth + 1)
        case ast.Call(func=ast.Name(id="range"), args=bounds, keywords=[]):
            numbers = [_literal(bound, depth + 1) for bound in bounds]
            if not all(is_integer(n) and abs(n) <= _MAX_RANGE for n in numbers):
                raise ValueError
            return tuple(range(*numbers))
    return ast.literal_eval(node)


def _name(function: ast.expr) -> str:
    """The name of a function without its modules."""
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _pairs(edges: Any) -> Any:
    """The pairs of a cell in one list, without weights."""
    if not is_list(edges):
        return edges
    nested = all(
        is_list(node) and len(node) > 0 and all(is_list(pair) for pair in node)
        for node in edges
    )
    flat = itertools.chain.from_iterable(edges) if nested else edges
    return tuple(
        pair[:2]
        if is_list(pair) and len(pair) == 3 and isinstance(pair[2], float)
        else pair
        for pair in flat
    )
