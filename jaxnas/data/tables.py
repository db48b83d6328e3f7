"""Tables with the accuracy of every architecture of a space."""

import collections
import io
import itertools
import math
import os
import pathlib
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxnas import _archives, _files
from jaxnas._checks import short_messages

if TYPE_CHECKING:
    import pandas

_MAX_BYTES = 2**26  # of a .npz file; text has a limit of its own
_MAX_COLUMNS = 30  # among which those are searched that are no decisions


class Table(NamedTuple):
    """Two accuracies of every architecture of a space; higher is better.

    Architecture `arch` stands at `numpy.ravel_multi_index(arch, cardinalities)`: a
    mixed-radix number whose last decision changes fastest.

    Attributes:
      cardinalities: number of categories of each decision.
      valid: float32 `[num_architectures]`, what searchers see, for example the
        validation accuracy after a short training.
      test: float32 `[num_architectures]`, what searches are compared by, for example
        the test accuracy after a full training.
      percent: whether accuracies are between 0 and 100, instead of 0 and 1.
      names: names of the categories of each decision, if the file has them.
      decisions: names of the decisions, if the file has them.
    """

    cardinalities: tuple[int, ...]
    valid: np.ndarray
    test: np.ndarray
    percent: bool = False
    names: tuple[tuple[str, ...], ...] | None = None
    decisions: tuple[str, ...] | None = None


@short_messages()
def load_table(
    path: str | os.PathLike[str],
    *,
    valid: str,
    test: str,
    archs: str = "archs",
    column: str | int | None = None,
    ignored: Collection[str] = (),
    percent: bool = False,
) -> Table:
    """Read a table, which must hold every architecture of its space exactly once.

    A `.npz` file holds an integer array of architectures `[num, num_decisions]`, with
    categories numbered from 0, and arrays of accuracies `[num]` or `[num, columns]`.
    In a `.csv` file with a header, every column that is neither accuracies nor
    ignored is a decision; its categories are sorted, as numbers if all are integers.
    Columns are separated by commas, semicolons or tabs. A first column of row numbers
    without a name, as pandas writes it, is left out.

    Args:
      path: a `.npz` or `.csv` file.
      valid: array or column with what searchers see.
      test: array or column with what searches are compared by.
      archs: `.npz` only: array of the architectures.
      column: `.npz` only: column of accuracies `[num, columns]`, by its number from 0
        or by its name in some other array of the file, which lists the columns.
      ignored: `.csv` only: columns to leave out.
      percent: whether accuracies are between 0 and 100, instead of 0 and 1.

    Returns:
      The table, its architectures in mixed-radix order.

    Raises:
      ValueError: if the file is missing or of another kind, pandas is missing for a
        `.csv` file, an array, a column or an architecture is missing, an architecture
        appears twice, a column is no decision, or a value is not what it should be.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file; expected a table in .npz or .csv format")
    if path.suffix.lower() == ".npz":
        rows = _read_npz(path, valid, test, archs, column)
    elif path.suffix.lower() == ".csv":
        rows = _read_csv(path, valid, test, ignored)
    else:
        raise ValueError(f"{path} ends in {path.suffix!r}; expected .npz or .csv")
    for name, values in ((valid, rows.valid), (test, rows.test)):
        _check_values(path, rows, name, values, percent)
    cardinalities = tuple(int(last) + 1 for last in rows.archs.max(0))
    _check_decisions(path, rows, cardinalities)
    order = _mixed_radix_order(path, rows, cardinalities)
    return Table(
        cardinalities,
        rows.valid[order].astype(np.float32),
        rows.test[order].astype(np.float32),
        percent,
        rows.names,
        rows.decisions,
    )


class _Rows(NamedTuple):
    """The rows of a file, in its own order."""

    archs: np.ndarray  # integers [num, num_decisions]
    valid: np.ndarray
    test: np.ndarray
    names: tuple[tuple[str, ...], ...] | None
    decisions: tuple[str, ...] | None
    place: Callable[[int], str]  # how messages call a row


def _read_npz(
    path: pathlib.Path, valid: str, test: str, archs: str, column: str | int | None
) -> _Rows:
    try:
        arrays = _archives.read(path, max_bytes=_MAX_BYTES)
    except _archives.ArchiveError as error:
        raise ValueError(f"{path} is not in .npz format: {error}") from error
    for name in (archs, valid, test):
        if name not in arrays:
            raise ValueError(
                f"{path} has no array {name!r}; it has {', '.join(sorted(arrays))}"
            )
    found = arrays[archs]
    if found.dtype.kind not in "iu":
        raise ValueError(
            f"array {archs!r} of {path} has type {found.dtype}; expected integers"
        )
    if found.ndim != 2 or not found.size:
        raise ValueError(
            f"array {archs!r} of {path} has shape {found.shape}; expected one row for "
            f"each architecture, one column for each decision"
        )
    wrong = ((found < 0) | (found >= 2**53)).any(1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"row {row} of array {archs!r} of {path} is {found[row].tolist()}; "
            f"expected categories numbered from 0"
        )
    return _Rows(
        found,
        *(_values(path, arrays, name, len(found), column) for name in (valid, test)),
        names=None,
        decisions=None,
        place=lambda row: f"row {row}",
    )


def _values(
    path: pathlib.Path,
    arrays: Mapping[str, np.ndarray],
    name: str,
    num: int,
    column: str | int | None,
) -> np.ndarray:
    """Pick `[num]` accuracies out of an array with or without columns."""
    values = arrays[name]
    if values.dtype.kind not in "fiu":
        raise ValueError(
            f"array {name!r} of {path} has type {values.dtype}; expected numbers"
        )
    if values.ndim not in (1, 2) or len(values) != num:
        raise ValueError(
            f"array {name!r} of {path} has shape {values.shape}; expected one row for "
            f"each of the {num} architectures"
        )
    if values.ndim == 1:
        return values
    num_columns = values.shape[1]
    lists = [
        array.tolist()
        for array in arrays.values()
        if array.dtype.kind == "U" and array.shape == (num_columns,)
    ]
    positions = {names.index(column) for names in lists if column in names}
    if not positions and str(column).isdecimal():
        positions = {int(str(column))} & set(range(num_columns))
    if len(positions) != 1:
        known = "".join(f" or one of {', '.join(names)}" for names in lists)
        raise ValueError(
            f"array {name!r} of {path} has {num_columns} columns, and {column!r} does "
            f"not name one; expected a number from 0 to {num_columns - 1}{known}"
        )
    return values[:, positions.pop()]


def _read_csv(
    path: pathlib.Path, valid: str, test: str, ignored: Collection[str]
) -> _Rows:
    frame = _without_index(path, _csv_frame(path))
    import pandas

    for name in (valid, test, *ignored):
        if name not in frame:
            raise ValueError(
                f"{path} has no column {name!r}; it has {', '.join(frame)}"
            )
    decisions = frame.drop(columns=list({valid, test, *ignored}))
    if not decisions.size:
        raise ValueError(
            f"{path} has {len(frame)} rows and {decisions.shape[1]} columns that are "
            f"decisions; expected at least one of each"
        )

    def numbers(name: str) -> np.ndarray:
        values = np.empty(len(frame))
        for i, (line, cell) in enumerate(frame[name].items()):
            try:
                values[i] = float(cell)
            except ValueError as error:
                raise ValueError(
                    f"line {line} of {path} has {cell!r} in column {name!r}; "
                    f"expected a number, such as 0.5"
                ) from error
        return values

    names = tuple(_categories(decisions[name]) for name in decisions)
    archs = [
        pandas.Categorical(decisions[name], categories).codes
        for name, categories in zip(decisions, names, strict=True)
    ]
    return _Rows(
        np.array(archs, np.int64).T,
        numbers(valid),
        numbers(test),
        names,
        tuple(decisions),
        place=lambda row: f"line {frame.index[row]}",
    )


def _without_index(path: pathlib.Path, frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """The columns without the index that pandas writes in front."""
    first, *others = frame
    is_index = all(cell.isdecimal() for cell in frame[first]) and (
        frame[first].is_unique and re.fullmatch(r"(Unnamed: \d+)?", first)
    )
    if "" in others or (first == "" and not is_index):
        raise ValueError(f"{path} has a column without a name")
    return frame.drop(columns=first) if is_index else frame


def _csv_frame(path: pathlib.Path) -> "pandas.DataFrame":
    """The cells as text; its index is the line where each row ends."""
    try:
        import pandas
    except ImportError as error:
        raise ValueError(
            f"{path} cannot be read without pandas: pip install 'jaxnas[tables]'"
        ) from error
    try:
        text = _files.read_text(path)
        num_blank = len(text) - len(text.lstrip("\n"))
        cells = pandas.read_csv(
            io.StringIO(text),
            sep=_separator(text.lstrip("\n").partition("\n")[0]),
            header=None,
            skiprows=num_blank,
            skip_blank_lines=False,  # so that lines can be counted
            index_col=False,
            dtype=object,
            na_filter=False,
            engine="python",  # a missing cell is None, an empty one is not
        )
    except pandas.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty; expected a header and rows") from error
    except ValueError as error:
        raise ValueError(f"{path} is not in .csv format: {error}") from error
    num_cells = cells.notna().sum(axis=1)
    num_breaks = cells.map(lambda cell: (cell or "").count("\n")).sum(axis=1)
    cells.index = num_blank + (1 + num_breaks).cumsum()
    num_cells.index = cells.index
    for line, num in num_cells.items():
        if 0 < num < cells.shape[1]:
            raise ValueError(
                f"line {line} of {path} has {num} cells; expected {cells.shape[1]}"
            )
    cells = cells.dropna().map(str.strip)
    names = collections.Counter(cells.iloc[0])
    for name, num in names.items():
        if num > 1:
            raise ValueError(f"{path} has {num} columns {name!r}")
    cells.columns = list(names)
    return cells.iloc[1:]


def _separator(header: str) -> str:
    """What separates the columns, a comma in doubt."""
    return max(",;\t", key=header.count)


def _categories(cells: Iterable[str]) -> tuple[str, ...]:
    """The different cells of a column, in order."""
    distinct = sorted(set(cells))
    if all(re.fullmatch(r"-?\d{1,18}", cell) for cell in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def _check_values(
    path: pathlib.Path, rows: _Rows, name: str, values: np.ndarray, percent: bool
) -> None:
    highest = 100 if percent else 1
    # Written so that NaN is refused too.
    wrong = ~((values >= 0) & (values <= highest))
    if wrong.any():
        row = int(np.argmax(wrong))
        hint = " (or percentages, with --percent)" if 1 < values[row] <= 100 else ""
        raise ValueError(
            f"{rows.place(row)} of {path} has {name} {values[row]:g}; expected a "
            f"{'percentage' if percent else 'fraction'}, 0 to {highest}{hint}"
        )
    if percent and values.max() <= 1:
        raise ValueError(
            f"{path} has {name} from {values.min():g} to {values.max():g}; expected "
            f"percentages, 0 to 100 (or fractions, with --no-percent)"
        )


def _check_decisions(
    path: pathlib.Path, rows: _Rows, cardinalities: tuple[int, ...]
) -> None:
    """Refuse columns that do not tell architectures apart."""
    for i in range(len(cardinalities)):
        num = np.unique(rows.archs[:, i]).size
        if num in (1, len(rows.archs)):
            what = "one value in all" if num == 1 else "another value in each"
            raise ValueError(
                f"{_decision_names(rows, [i])} of {path} has {what} of "
                f"{len(rows.archs)} rows; expected a column for each decision"
                f"{_ignore_hint(rows, [i])}"
            )
    extra = _superfluous(rows.archs, cardinalities)
    if extra:
        raise ValueError(
            f"{_decision_names(rows, extra)} of {path} must be left out, for the other "
            f"columns have every architecture once; expected a column for each decision"
            f"{_ignore_hint(rows, extra)}"
        )


def _decision_names(rows: _Rows, which: Iterable[int]) -> str:
    if rows.decisions is None:
        return f"column {', '.join(map(str, which))} of the architectures"
    return f"column {', '.join(repr(rows.decisions[i]) for i in which)}"


def _ignore_hint(rows: _Rows, which: Iterable[int]) -> str:
    if rows.decisions is None:
        return ""
    return f" (--ignore {shlex.join(rows.decisions[i] for i in which)} leaves it out)"


def _superfluous(archs: np.ndarray, cardinalities: tuple[int, ...]) -> tuple[int, ...]:
    """Up to three columns without which an incomplete table is complete."""
    num, columns = len(archs), range(len(cardinalities))
    if math.prod(cardinalities) == num or len(columns) > _MAX_COLUMNS:
        return ()
    for num_extra in (1, 2, 3):
        for extra in itertools.combinations(columns, num_extra):
            kept = [i for i in columns if i not in extra]
            if math.prod(cardinalities[i] for i in kept) == num:
                sizes = [cardinalities[i] for i in kept]
                digits = tuple(archs[:, i].astype(np.int64) for i in kept)
                if np.unique(np.ravel_multi_index(digits, sizes)).size == num:
                    return extra
    return ()


def _mixed_radix_order(
    path: pathlib.Path, rows: _Rows, cardinalities: tuple[int, ...]
) -> np.ndarray:
    """The order of the rows that makes a complete table."""

    def text(arch: np.ndarray) -> str:
        if rows.names is None:
            return str(arch.tolist())
        chosen = zip(rows.names, arch, strict=True)
        return f"[{', '.join(names[category] for names, category in chosen)}]"

    order = np.lexsort(rows.archs.T[::-1])
    ordered = rows.archs[order]
    twice = (ordered[1:] == ordered[:-1]).all(1)
    if twice.any():
        i = int(np.argmax(twice))
        first, second = sorted(order[i : i + 2].tolist())
        raise ValueError(
            f"{rows.place(first)} and {rows.place(second)} of {path} are both "
            f"architecture {text(ordered[i])}; expected each one once"
        )
    num = math.prod(cardinalities)
    if len(ordered) < num:
        sizes = " x ".join(map(str, cardinalities))
        raise ValueError(
            f"{path} lacks {num - len(ordered)} of {num} architectures ({sizes}), for "
            f"example {text(_first_gap(ordered, cardinalities))}"
        )
    return order


def _first_gap(ordered: np.ndarray, cardinalities: tuple[int, ...]) -> np.ndarray:
    """The first architecture that ordered rows lack."""
    rest = np.arange(len(ordered))
    differs = np.zeros(len(ordered) + 1, bool)
    differs[-1] = True
    for decision, cardinality in reversed(list(enumerate(cardinalities))):
        rest, expected = np.divmod(rest, cardinality)
        differs[:-1] |= expected != ordered[:, decision]
    number, gap = int(np.argmax(differs)), np.zeros(len(cardinalities), np.int64)
    for decision, cardinality in reversed(list(enumerate(cardinalities))):
        number, gap[decision] = divmod(number, cardinality)
    return gap
