"""Tables of accuracies: reading them, and searching them."""

import functools
import itertools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import search
from jaxnas.data import tables
from jaxnas.search import tabular

# 3 decisions of 3 categories; each decision adds to the signal on its own.
ARCHS = np.array(list(itertools.product(range(3), repeat=3)))
PARTS = np.array([[0.05, 0.30, 0.10], [0.20, 0.00, 0.15], [0.00, 0.10, 0.35]])
VALID = PARTS[np.arange(3), ARCHS].sum(1).astype(np.float32)
TEST = np.random.default_rng(0).permutation(27).astype(np.float32) / 27
BEST = (1, 0, 2)
TABLE = tables.Table((3, 3, 3), VALID, TEST)
WORDS = (("add", "max", "mul"), ("2", "4", "16"), ("relu", "selu", "tanh"))


def write_npz(path, **changes):
    """The table in another order, the signal in the second of three columns."""
    order = np.random.default_rng(1).permutation(27)
    columns = np.stack([0 * VALID, VALID, VALID / 2], 1)
    arrays = {
        "archs": ARCHS.astype(np.uint8)[order],
        "valid": columns[order],
        "test": TEST[order],
        "tasks": np.array(["easy", "medium", "hard"]),
    }
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(path, **arrays)
    return path


def load_npz(path, *, column="medium", **options):
    named: dict[str, Any] = {"valid": "valid", "test": "test"}
    return tables.load_table(path, column=column, **named | options)


def csv_lines():
    """The table in another order, with names for categories and a column of ids."""
    lines = ["id,op,valid,size,act,test"]
    for i in np.random.default_rng(1).permutation(27):
        op, size, act = (WORDS[k][category] for k, category in enumerate(ARCHS[i]))
        lines.append(f"n{i},{op},{VALID[i]},{size}, {act},{TEST[i]}")
    return lines


def load_csv(path, text, **options):
    path.write_text(text, encoding="utf-8")
    named = {"valid": "valid", "test": "test", "ignored": ["id"]}
    return tables.load_table(path, **named | options)


def assert_same(table, names):
    assert table.cardinalities == (3, 3, 3) and table.names == names
    for found, expected in ((table.valid, VALID), (table.test, TEST)):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    best = np.ravel_multi_index(BEST, table.cardinalities)
    assert table.valid.argmax() == best


# Reading --------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["medium", 1, "1"])
def test_an_npz_file_is_put_in_order(tmp_path, column):
    path = write_npz(tmp_path / "table.npz")
    assert_same(load_npz(path, column=column), None)


@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_a_csv_file_is_put_in_order(tmp_path, start):
    text = start + "\n".join(csv_lines()) + "\n\n"
    assert_same(load_csv(tmp_path / "table.csv", text), WORDS)


def grid(*, sizes=(2, 3), **options):
    """A small table as text; functions of the row and the architecture add columns."""
    header = ",".join(["a", "b", *options, "valid", "test"])
    lines = [
        ",".join(map(str, [*arch, *(f(i, *arch) for f in options.values()), 0.5, 0.25]))
        for i, arch in enumerate(itertools.product(*map(range, sizes)))
    ]
    return "\n".join([header, *lines, ""])


def test_decisions_with_other_numbers_of_categories(tmp_path):
    table = load_csv(tmp_path / "table.csv", grid(), ignored=[])
    assert (table.cardinalities, table.decisions) == ((2, 3), ("a", "b"))
    assert table.names == (("0", "1"), ("0", "1", "2"))


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_of_pandas_is_left_out(tmp_path, name):
    lines = grid().splitlines()
    numbers = [name, *range(7, 1, -1)]
    text = "\n".join(f"{i},{line}" for i, line in zip(numbers, lines, strict=True))
    table = load_csv(tmp_path / "table.csv", text, ignored=[])
    assert table.decisions == ("a", "b")
    message = "column 'Unnamed: 0' of .*--ignore 'Unnamed: 0'" if name else "without"
    with pytest.raises(ValueError, match=message):
        load_csv(tmp_path / "table.csv", text.replace("7,", "0.5,"), ignored=[])


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_read(tmp_path, separator):
    text = "\n".join(csv_lines()).replace(",", separator)
    assert_same(load_csv(tmp_path / "table.csv", text), WORDS)
    text = grid().replace(",", separator).replace("0.5", "0,5")
    message = (
        "line 2 of .*table.csv has '0,5' in column 'valid'; expected a number, suc"
    )
    with pytest.raises(ValueError, match=message):
        load_csv(tmp_path / "table.csv", text, ignored=[])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"arch": lambda i, a, b: f"|x~{a}|{b}|"},
            r"column 'arch' of .* has another value in each of 6 rows; expected a "
            r"column for each decision \(--ignore arch leaves it out\)",
        ),
        (
            {"data": lambda *_: "cifar10"},
            r"column 'data' of .* has one value in all of 6 .*--ignore data leaves",
        ),
        (
            {"flops": lambda i, a, b: 1.5 * (a + b)},
            r"column 'flops' of .* must be left out, .* \(--ignore flops leaves",
        ),
        (
            {"flops": lambda i, a, b: a + b, "ms": lambda i, a, b: (a + 1) * b},
            r"column 'flops', 'ms' of .* \(--ignore flops ms leaves",
        ),
    ],
)
def test_columns_that_are_no_decisions_are_named(tmp_path, columns, message):
    text = grid(**columns)
    with pytest.raises(ValueError, match=message):
        load_csv(tmp_path / "table.csv", text, ignored=[])
    table = load_csv(tmp_path / "table.csv", text, ignored=list(columns))
    assert table.decisions == ("a", "b")


def test_columns_of_an_npz_file_that_are_no_decisions_are_named(tmp_path):
    numbers, constant = np.arange(27)[:, None], np.ones((27, 1), int)
    for column, what in (
        (numbers, "another value in each"),
        (constant, "one value in"),
    ):
        archs = np.concatenate([ARCHS, column], 1)
        path = write_npz(tmp_path / "table.npz", archs=archs)
        message = (
            f"column 3 of the architectures of .* has {what} .* for each decision$"
        )
        with pytest.raises(ValueError, match=message):
            load_npz(path)


def test_seeds_are_decisions_like_others(tmp_path):
    lines = grid(sizes=(2, 3, 2)).replace("a,b", "a,b,seed")
    table = load_csv(tmp_path / "table.csv", lines, ignored=[])
    assert table.decisions == ("a", "b", "seed")


def test_fractions_and_percentages_are_told_apart(tmp_path):
    path = write_npz(tmp_path / "table.npz")
    message = (
        r"table.npz has valid from 0.05 to 0.85; expected percentages, 0 to 100 \(or "
        r"fractions, with --no-percent\)"
    )
    with pytest.raises(ValueError, match=message):
        load_npz(path, percent=True)
    path = write_npz(tmp_path / "table.npz", test=100 * TEST)
    with pytest.raises(ValueError, match=r"0 to 1 \(or percentages, with --percent\)"):
        load_npz(path)


def test_tables_that_are_too_large_are_not_read(tmp_path):
    path = tmp_path / "table.npz"
    np.savez_compressed(path, archs=np.zeros((2**27, 1), bool))
    with pytest.raises(
        ValueError, match=r"arrays take 134,.*; expected at most 67,108"
    ):
        load_npz(path)
    path = tmp_path / "table.csv"
    with path.open("wb") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(ValueError, match=r"table.csv .* larger than 16,777,216 bytes"):
        tables.load_table(path, valid="valid", test="test")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"archs": None}, {}, "table.npz has no array 'archs'; it has tasks, test, va"),
        ({}, {"valid": "val"}, "has no array 'val'; it has archs, tasks, test, valid"),
        ({"archs": ARCHS / 2}, {}, "array 'archs' of .* has type float64; expected in"),
        ({"archs": ARCHS[0]}, {}, r"has shape \(3,\); expected one row for each"),
        ({"archs": ARCHS[:0]}, {}, r"has shape \(0, 3\); expected one row for each"),
        ({"archs": ARCHS - 1}, {}, r"row 0 of array 'archs' .* is \[-1, -1, -1\]"),
        ({"test": TEST[:9]}, {}, r"array 'test' of .* has shape \(9,\); .* the 27 a"),
        ({"test": np.array("a")}, {}, "array 'test' of .* has type <U1; expected num"),
        ({}, {"column": None}, "'valid' of .* has 3 columns, and None does not name"),
        ({}, {"column": "3"}, "and '3' does .* from 0 to 2 or one of easy, medium, h"),
        ({}, {"column": "soft"}, "and 'soft' does not name one; expected a number"),
        (
            {"test": np.where(np.arange(27) == 5, np.nan, 0.5)},
            {},
            "row 5 of .*table.npz has test nan; expected a fraction, 0 to 1",
        ),
        (
            {"valid": 50 + VALID, "test": np.where(np.arange(27) == 26, np.inf, 50)},
            {"percent": True},
            "row 26 of .*table.npz has test inf; expected a percentage, 0 to 100",
        ),
        ({"test": np.full(27, 93.5)}, {}, "row 0 of .* has test 93.5; expected a fra"),
        ({"notes": np.array([{}])}, {}, "not in .npz format: 'notes' is of type"),
    ],
)
def test_a_wrong_npz_file_is_refused(tmp_path, changes, options, message):
    path = write_npz(tmp_path / "table.npz", **changes)
    with pytest.raises(ValueError, match=message):
        load_npz(path, **options)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("valid", "loss", "table.csv has no column 'valid'; it has id, op, loss, size"),
        ("size", "act", "table.csv has 2 columns 'act'"),
        ("n0,", "", "line N of .*table.csv has 5 cells; expected 6"),
        (f"{TEST[0]}\n", "high\n", "line N of .* has 'high' in column 'test'; exp"),
        (f"{TEST[0]}\n", "nan\n", "line N of .*table.csv has test nan; expected a"),
        ("n0,", '"n0', "table.csv is not in .csv format"),
    ],
)
def test_a_wrong_csv_file_is_refused(tmp_path, old, new, message):
    text = "\n".join(csv_lines()) + "\n"
    message = message.replace("N", str(1 + text[: text.index("n0,")].count("\n")))
    with pytest.raises(ValueError, match=message):
        load_csv(tmp_path / "table.csv", text.replace(old, new))


def test_lines_are_counted_as_an_editor_does(tmp_path):
    lines = csv_lines()
    lines[1] = '"n\n0"' + lines[1][lines[1].index(",") :]  # takes two lines
    lines[2] += ",1"
    message = "table.csv is not in .csv format: Expected 6 fields in line"
    with pytest.raises(ValueError, match=message):
        load_csv(tmp_path / "table.csv", "\n".join(lines))
    lines[2] = lines[2].removesuffix(",1").replace(",", ";", 1)
    message = "line 8 of .*table.csv has 5 cells; expected 6"
    with pytest.raises(ValueError, match=message):
        load_csv(tmp_path / "table.csv", "\n\n" + "\n\n".join(lines))


def test_without_pandas_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"without pandas: pip install 'jaxnas\[tab"):
        load_csv(tmp_path / "table.csv", "\n".join(csv_lines()))
    assert_same(load_npz(write_npz(tmp_path / "table.npz")), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "table.csv is empty; expected a header and rows"),
        ("op,valid,test\n", "has 0 rows and 1 columns that are decisions"),
        ("valid,test\n.1,.2\n", "has 1 rows and 0 columns that are decisions"),
    ],
)
def test_a_csv_file_without_architectures_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_csv(tmp_path / "table.csv", text, ignored=[])


@pytest.mark.parametrize("row", [0, 13, 26])
def test_a_missing_architecture_is_named(tmp_path, row):
    kept = np.arange(27) != row
    arrays = {"archs": ARCHS[kept], "valid": VALID[kept], "test": TEST[kept]}
    path = write_npz(tmp_path / "table.npz", **arrays)
    missing = str(ARCHS[row].tolist()).replace("[", r"\[")
    with pytest.raises(
        ValueError, match=f"lacks 1 of 27 arch.*, for example {missing}"
    ):
        load_npz(path)


def test_a_missing_architecture_is_named_in_words(tmp_path):
    lines = [line for line in csv_lines() if not line.startswith("n12,")]
    with pytest.raises(ValueError, match=r"lacks 1 of 27 .* \[max, 4, relu\]"):
        load_csv(tmp_path / "table.csv", "\n".join(lines))


def test_one_huge_category_is_no_reason_to_allocate(tmp_path):
    archs = ARCHS.copy()
    archs[26, 0] = 2**40
    path = write_npz(tmp_path / "table.npz", archs=archs, valid=VALID)
    with pytest.raises(ValueError, match=r"lacks .* for example \[2, 2, 2\]"):
        load_npz(path)


def test_the_rows_of_a_duplicate_are_named(tmp_path):
    archs = ARCHS.copy()
    archs[20] = archs[4]
    path = write_npz(tmp_path / "table.npz", archs=archs)
    with pytest.raises(
        ValueError, match=r"row 4 and row 20 of .* are both .*\[0, 1, 1"
    ):
        load_npz(path)
    lines = csv_lines()
    with pytest.raises(ValueError, match=r"line 3 and line 29 of .* are both arch"):
        load_csv(tmp_path / "table.csv", "\n".join([*lines, lines[2]]))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.npz", None, "absent.npz is no file; expected a table in .npz or .csv"),
        ("table.json", "{}", "table.json ends in '.json'; expected .npz or .csv"),
        ("table.npz", "archs", "table.npz is not in .npz format"),
        ("table.csv", b"\xff\xfe\x00", "table.csv is not in .csv format"),
    ],
)
def test_other_files_are_refused(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=message):
        load_npz(path)


# Searching ------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_many(searcher, num_evaluations, num_archs, keys):
    run = functools.partial(tabular.run, searcher, TABLE, num_evaluations, num_archs)
    return jax.vmap(run)(keys)


def keys(num):
    return jax.random.split(jax.random.key(0), num)


RANDOM = search.random_search(TABLE.cardinalities)


def test_random_search_repeats_a_plain_loop():
    key = jax.random.key(3)
    history = tabular.run(RANDOM, TABLE, 12, 3, key)
    _, ask_key = jax.random.split(key)
    best, incumbents, signals = None, [], []
    for step_key in jax.random.split(ask_key, 4):
        for arch in np.asarray(RANDOM.ask(None, step_key, 3)):
            i = 9 * arch[0] + 3 * arch[1] + arch[2]
            if best is None or VALID[i] > VALID[best]:
                best = i
        incumbents.append(TEST[best])
        signals.append(VALID[best])
    assert len(set(incumbents)) > 1
    np.testing.assert_array_equal(history.incumbent, incumbents)
    np.testing.assert_array_equal(history.best_valid, signals)
    # The mode of random search is the best architecture it has seen.
    np.testing.assert_array_equal(history.mode, incumbents)


@pytest.mark.parametrize("make", [search.random_search, search.asng])
def test_histories_are_the_same_eagerly_compiled_and_mapped(make):
    searcher = make(TABLE.cardinalities)
    mapped = run_many(searcher, 8, 2, keys(3))
    single = tabular.run(searcher, TABLE, 8, 2, keys(3)[1])
    for one, many in zip(single, mapped, strict=True):
        assert one.shape == (4,) and one.dtype == jnp.float32
        np.testing.assert_array_equal(one, many[1])
    assert (np.diff(mapped.best_valid, axis=1) >= 0).all()


def test_percent_changes_the_unit_only():
    table = TABLE._replace(valid=100 * VALID, test=100 * TEST, percent=True)
    told = []

    def tell(state, archs, losses):
        told.append((archs, losses))
        return RANDOM.tell(state, archs, losses)

    with jax.disable_jit():
        searcher = RANDOM._replace(tell=tell)
        percent = tabular.run(searcher, table, 4, 2, jax.random.key(0))
    fraction = tabular.run(RANDOM, TABLE, 4, 2, jax.random.key(0))
    for a, b in zip(percent, fraction, strict=True):
        np.testing.assert_allclose(a, 100 * np.asarray(b), rtol=1e-6)
    for archs, losses in told:
        signal = PARTS[np.arange(3), np.asarray(archs)].sum(1)
        np.testing.assert_allclose(losses, 1 - signal, rtol=1e-5)


def test_asng_finds_the_optimum_more_often_than_random_search():
    found = {}
    for make in (search.asng, search.random_search):
        history = run_many(make(TABLE.cardinalities), 16, 2, keys(200))
        found[make] = (np.asarray(history.best_valid[:, -1]) == VALID.max()).mean()
    # Random search misses it 16 times with probability (26 / 27)**16.
    assert found[search.random_search] == pytest.approx(0.45, abs=0.1)
    assert found[search.asng] > found[search.random_search] + 0.15


def test_regret_is_what_is_missing_to_the_best():
    found = tabular.regret(TABLE, np.array([26 / 27, 0.5]))
    np.testing.assert_allclose(found, [0, 26 / 27 - 0.5], atol=1e-7)


@pytest.mark.parametrize(
    ("num_evaluations", "num_archs", "message"),
    [
        (7, 2, "num_evaluations is 7; expected a multiple of num_archs_per_tell, 2"),
        (0, 2, "num_evaluations is 0; expected at least 1"),
        (4, 0, "num_archs_per_tell is 0; expected at least 1"),
    ],
)
def test_wrong_numbers_are_refused(num_evaluations, num_archs, message):
    with pytest.raises(ValueError, match=message):
        tabular.run(RANDOM, TABLE, num_evaluations, num_archs, jax.random.key(0))


def test_a_searcher_for_another_table_is_refused():
    searcher = search.random_search((3, 3))
    with pytest.raises(ValueError, match="searcher has 2 decisions; the table has 3"):
        tabular.run(searcher, TABLE, 4, 2, jax.random.key(0))
