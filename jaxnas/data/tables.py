"""Tables with the accuracy of every architecture of a space."""

import io
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas


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
    """

    cardinalities: tuple[int, ...]
    valid: np.ndarray
    test: np.ndarray
    percent: bool = False
    names: tuple[tuple[str, ...], ...] | None = None


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
        appears twice, or a value is not what it should be.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file; expected a table in .npz or .csv format")
    if path.suffix == ".npz":
        rows = _read_npz(path, valid, test, archs, column)
    elif path.suffix == ".csv":
        rows = _read_csv(path, valid, test, ignored)
    else:
        raise ValueError(f"{path} ends in {path.suffix!r}; expected .npz or .csv")
    for name, values in ((valid, rows.valid), (test, rows.test)):
        _check_values(path, rows, name, values, percent)
    cardinalities = tuple(int(last) + 1 for last in rows.archs.max(0))
    order = _mixed_radix_order(path, rows, cardinalities)
    return Table(
        cardinalities,
        rows.valid[order].astype(np.float32),
        rows.test[order].astype(np.float32),
        percent,
        rows.names,
    )


class _Rows(NamedTuple):
    """The rows of a file, in its own order."""

    archs: np.ndarray  # int64 [num, num_decisions]
    valid: np.ndarray
    test: np.ndarray
    names: tuple[tuple[str, ...], ...] | None
    place: Callable[[int], str]  # how messages call a row


def _read_npz(
    path: pathlib.Path, valid: str, test: str, archs: str, column: str | int | None
) -> _Rows:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not in .npz format")
    try:
        with np.load(path) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
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
    if (found < 0).any():
        row = int(np.argmax((found < 0).any(1)))
        raise ValueError(
            f"row {row} of array {archs!r} of {path} is {found[row].tolist()}; "
            f"expected categories of 0 or more"
        )
    return _Rows(
        found.astype(np.int64),
        *(_values(path, arrays, name, len(found), column) for name in (valid, test)),
        names=None,
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
    frame = _csv_frame(path)
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
                    f"expected a number"
                ) from error
        return values

    names, archs = [], []
    for decision in decisions:
        names.append(_categories(decisions[decision]))
        number_of = {cell: number for number, cell in enumerate(names[-1])}
        archs.append([number_of[cell] for cell in decisions[decision]])
    return _Rows(
        np.array(archs, np.int64).T,
        numbers(valid),
        numbers(test),
        names=tuple(names),
        place=lambda row: f"line {frame.index[row]}",
    )


def _csv_frame(path: pathlib.Path) -> "pandas.DataFrame":
    """The cells as text; its index is the line where each row ends."""
    try:
        import pandas
    except ImportError as error:
        raise ValueError(
            f"{path} cannot be read without pandas: pip install 'jaxnas[tables]'"
        ) from error
    try:
        # A byte order mark is what spreadsheets begin a file with.
        text = path.read_text(encoding="utf-8-sig")
        num_blank = len(text) - len(text.lstrip("\n"))
        cells = pandas.read_csv(
            io.StringIO(text),
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
    names: list[str] = cells.iloc[0].tolist()
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path} has {names.count(name)} columns {name!r}")
    cells.columns = names
    return cells.iloc[1:]


def _categories(cells: Iterable[str]) -> tuple[str, ...]:
    """The different cells of a column, in order."""
    distinct = sorted(set(cells))
    if all(cell.removeprefix("-").isdecimal() for cell in distinct):
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
        raise ValueError(
            f"{rows.place(row)} of {path} has {name} {values[row]:g}; expected a "
            f"{'percentage' if percent else 'fraction'}, 0 to {highest}"
        )


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
        raise ValueError(
            f"{path} lacks {num - len(ordered)} of {num} architectures, for example "
            f"{text(_first_gap(ordered, cardinalities))}"
        )
    return order


def _first_gap(ordered: np.ndarray, cardinalities: tuple[int, ...]) -> np.ndarray:
    """The first architecture that ordered rows lack."""
    rest = np.arange(len(ordered) + 1)
    expected = np.empty((len(rest), len(cardinalities)), np.int64)
    for decision, cardinality in reversed(list(enumerate(cardinalities))):
        rest, expected[:, decision] = np.divmod(rest, cardinality)
    differs = np.append((expected[:-1] != ordered).any(1), True)
    return expected[np.argmax(differs)]
