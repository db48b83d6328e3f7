"""Genotypes: what is accepted, what is refused and how, and every way to store one."""

import random
import re
from typing import Any

import numpy as np
import pytest

from jaxnas import genotypes

DARTS_V2_TEXT = """DARTS_V2 = Genotype(
  normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0),
          ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0),
          ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6),
  reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2),
          ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2),
          ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])
"""

SMALL = genotypes.Genotype(
    normal=(("skip_connect", 0), ("sep_conv_3x3", 1)),
    normal_concat=(2,),
    reduce=(
        *(("max_pool_3x3", 0), ("avg_pool_3x3", 1)),
        *(("none", 2), ("dil_conv_5x5", 0)),
    ),
    reduce_concat=(2, 3),
)


def random_genotype(rng: random.Random) -> genotypes.Genotype:
    def cell() -> tuple[tuple[genotypes.Edge, ...], tuple[int, ...]]:
        end = 2 + rng.randint(1, 7)
        pairs = tuple(
            (rng.choice(genotypes.OPS), rng.randrange(node))
            for node in range(2, end)
            for _ in range(2)
        )
        return pairs, tuple(rng.sample(range(2, end), rng.randint(1, end - 2)))

    return genotypes.Genotype(*cell(), *cell())


def test_check_normalizes_to_tuples_and_python_integers():
    fields: list[Any] = [
        [["skip_connect", np.int64(0)], ["sep_conv_3x3", 1]],
        range(2, 3),
        [list(pair) for pair in SMALL.reduce],
        [2, np.int32(3)],
    ]
    checked = genotypes.check(genotypes.Genotype(*fields))
    assert checked == SMALL
    assert type(checked.normal[0]) is tuple and type(checked.normal[0][1]) is int
    assert type(checked.normal_concat) is tuple
    assert all(type(node) is int for node in checked.reduce_concat)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"normal": (("skip_connect", 0), ("sep_conv_3x3", 5))},
            "normal cell, node 2, second edge: source 5 is not an earlier node; "
            "expected 0 to 1",
        ),
        (
            {"reduce": (*SMALL.reduce[:2], ("none", -1), ("none", 0))},
            "reduction cell, node 3, first edge: source -1 is not an earlier node",
        ),
        (
            {"normal": (("sep_conv_9x9", 0), ("none", 1))},
            "normal cell, node 2, first edge: 'sep_conv_9x9' is not an operation; "
            "expected one of none, avg_pool_3x3",
        ),
        ({"normal": (("none", 0), ("none", 1.0))}, "source 1.0 is not an integer"),
        ({"normal": (("none", True), ("none", 1))}, "source True is not an integer"),
        ({"normal": (("none", 0), ("none",))}, r"\('none',\) is not an \(op, source\)"),
        ({"normal": (("none", 0), "none")}, "node 2, second edge: 'none' is not an"),
        ({"normal": (("none", 0),) * 3}, r"normal cell: found 3 \(op, source\) pairs"),
        ({"normal": ()}, r"normal cell: found 0 \(op, source\) pairs; expected two"),
        ({"normal": "none"}, "normal cell: 'none' is not a list"),
        ({"normal_concat": ()}, "normal cell, concat: no node; expected some of 2"),
        ({"normal_concat": 2}, "normal cell, concat: 2 is not a list of nodes"),
        ({"reduce_concat": (2, 2)}, "reduction cell, concat: node 2 is listed twice"),
        ({"reduce_concat": (1, 2)}, "concat: 1 is not an intermediate node; expected"),
        ({"reduce_concat": (2, 4)}, "concat: 4 is not an intermediate node"),
        ({"reduce_concat": ("2",)}, "concat: node '2' is not an integer"),
        ({"reduce_concat": range(2, 10**12)}, "concat: 4 is not an intermediate"),
    ],
)
def test_check_names_the_place_of_a_fault(changes, message):
    with pytest.raises(ValueError, match=message):
        genotypes.check(SMALL._replace(**changes))


def test_check_refuses_what_is_no_genotype():
    with pytest.raises(ValueError, match="None is not a genotype"):
        genotypes.check(None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ENAS_MACRO", "MacroGenotype"), ("ENAS_RECURRENT", "RecurrentGenotype")],
)
def test_check_names_another_kind(name, kind):
    with pytest.raises(ValueError, match=f"found a {kind}; expected a Genotype of two"):
        genotypes.check_cells(genotypes.named(name))


def test_loose_ends_are_the_nodes_nobody_reads():
    assert genotypes.loose_ends(genotypes.named("ENAS").reduce) == (2, 3, 6)
    assert genotypes.loose_ends(genotypes.named("ENAS").normal) == (2, 3, 4, 5, 6)
    assert genotypes.loose_ends(genotypes.named("AmoebaNet").normal) == (4, 5, 6)
    chain = (("none", 0), ("none", 1), ("none", 2), ("none", 2))
    assert genotypes.loose_ends(chain) == (3,)


def test_published_architectures():
    assert set(genotypes.NAMES) == {
        *("NASNet", "AmoebaNet", "DARTS_V1", "DARTS_V2", "DARTS", "SNAS_MILD"),
        *("ENAS", "ENAS_MICRO"),
    }
    for name in genotypes.NAMES:
        genotype = genotypes.named(name)
        assert genotypes.check(genotype) == genotype
        nodes = 4 if name.startswith(("DARTS", "SNAS")) else 5
        assert len(genotype.normal) == len(genotype.reduce) == 2 * nodes
    assert genotypes.named("DARTS") == genotypes.named("DARTS_V2")
    assert genotypes.named("AmoebaNet").reduce_concat == (3, 4, 6)
    with pytest.raises(
        ValueError, match=r"'PNASNet' is not a named genotype.*ENAS_MACRO"
    ):
        genotypes.named("PNASNet")


def test_round_trips_of_random_genotypes(tmp_path):
    rng = random.Random(0)
    for _ in range(100):
        genotype = random_genotype(rng)
        assert genotypes.from_json(genotypes.to_json(genotype)) == genotype
        assert genotypes.from_darts(genotypes.to_darts(genotype)) == genotype
        genotypes.save(tmp_path / "genotype.json", genotype)
        assert genotypes.load(tmp_path / "genotype.json") == genotype


def test_json_layout():
    assert genotypes.to_json(SMALL) == (
        "{\n"
        '  "type": "cells",\n'
        '  "normal": [["skip_connect", 0], ["sep_conv_3x3", 1]],\n'
        '  "normal_concat": [2],\n'
        '  "reduce": [["max_pool_3x3", 0], ["avg_pool_3x3", 1], ["none", 2], '
        '["dil_conv_5x5", 0]],\n'
        '  "reduce_concat": [2, 3]\n'
        "}\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"normal": [}', "line 1, column 13: this is not JSON: Expecting value"),
        ("[1, 2]", "found a JSON list; expected an object"),
        ('{"normal": []}', "the key 'normal_concat' is missing"),
        ('{"skips": []}', "the key 'ops' is missing"),
        ('{"sources": []}', "the key 'activations' is missing"),
        (
            '{"cell": []}',
            r"found the keys \['cell'\] in the JSON object; expected normal, "
            "normal_concat, reduce, reduce_concat or ops, skips or activations, so",
        ),
        ("[" * 100_000, "nested more than 50 deep"),
        (
            genotypes.to_json(SMALL).replace("[2]", '"2"'),
            "normal cell, concat: '2' is not a list",
        ),
    ],
)
def test_from_json_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        genotypes.from_json(text)


def test_a_json_object_with_more_keys_is_of_the_first_kind_it_fits():
    text = genotypes.to_json(SMALL).replace(
        '"type": "cells"', '"ops": [], "sources": []'
    )
    assert genotypes.from_json(text) == SMALL


def test_from_darts_reads_published_text():
    expected = genotypes.named("DARTS_V2")
    assert genotypes.from_darts(DARTS_V2_TEXT) == expected
    assert genotypes.from_darts(DARTS_V2_TEXT.split("= ", 1)[1]) == expected
    assert genotypes.from_darts("\n  " + genotypes.to_darts(expected)) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("range(2, 6)", "range(2, 6", "line 1: this is not Python text: '\\('"),
        ("range(2, 6)", "set(range(2, 6))", r"line 4: normal_concat is set\(range"),
        ("range(2, 6)", "range(2, 10**9)", r"line 4: normal_concat is range\(2, 10"),
        ("range(2, 6)", "range(2, 9" + "0" * 30 + ")", "line 4: normal_concat is ra"),
        ("range(2, 6)", "[2, 3], normal_concat=[2]", "line 1: expected each of normal"),
        ("range(2, 6)", "[2, 3], drop=0.5", "line 1: expected each of normal, normal"),
        ("('skip_connect', 2)", "('skip_connect', 2, 1)", r"2, 1\) is not an \(op, so"),
        ("range(2, 6)", "range(2, 6, 0)", "line 4: normal_concat is range"),
        ("range(2, 6)", "range('2')", "line 4: normal_concat is range"),
        ("range(2, 6)", "__import__('os')", "line 4: normal_concat is __import__"),
        ("normal_concat=", "concat=", "line 1: expected each of normal, normal_concat"),
        ("normal_concat=", "", "this is not Python text: positional argument"),
        ("reduce_concat=[2, 3, 4, 5]", "", "line 1: expected each of normal"),
        ("Genotype(", "dict(", r"found no Genotype\(\.\.\.\); expected one"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', 9)", "node 5, second edge: source 9"),
        ("range(2, 6)", "\0", "line 1: this is not Python text"),
        ("[('max_pool_3x3', 0)", "[(" + "(" * 500, "this is not Python text"),
    ],
)
def test_from_darts_refuses(old, new, message):
    assert old in DARTS_V2_TEXT
    with pytest.raises(ValueError, match=message):
        genotypes.from_darts(DARTS_V2_TEXT.replace(old, new, 1))


def test_load_tells_the_format_by_content(tmp_path):
    path = tmp_path / "genotype.txt"
    for text in (
        DARTS_V2_TEXT,
        genotypes.to_json(genotypes.named("DARTS_V2")),
        genotypes.to_json(genotypes.named("DARTS_V2")).replace("{", '{"name": "x",'),
        genotypes.to_json(genotypes.named("DARTS_V2")).replace('"type": "cells",', ""),
    ):
        path.write_text(text, encoding="utf-8")
        assert genotypes.load(path) == genotypes.named("DARTS_V2")
        path.write_text("\ufeff\n" + text, encoding="utf-8")
        assert genotypes.load(str(path)) == genotypes.named("DARTS_V2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is malformed: found no Genotype"),
        (b"\xff\xfe", "cannot be read: it is not UTF-8 text: byte 0"),
        (b'{"normal": 1}', "is malformed: the key 'normal_concat' is missing"),
        (b"Genotype(", "is malformed: line 1: this is not Python text"),
    ],
)
def test_load_names_the_file(tmp_path, content, message):
    path = tmp_path / "genotype.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + " " + message):
        genotypes.load(path)


DARTS_V2 = genotypes.named("DARTS_V2")
ONE_LINE = genotypes.to_darts(DARTS_V2)


def changed(old, new):
    assert re.search(old, ONE_LINE)
    return re.sub(old, new, ONE_LINE)


@pytest.mark.parametrize(
    "text",
    [
        f"2024-03-05 10:11:12,345 genotype = {ONE_LINE}\n",
        f"03/05 10:11:12 AM don't | {ONE_LINE}\n03/05 epoch 1 (lr 0.025)\n",
        f"{ONE_LINE}\nepoch 1\n{ONE_LINE}\n",
        f"best: genotypes.Genotype{ONE_LINE.removeprefix('Genotype')}",
        changed(r", (\d)\)", r", np.int64(\1))"),
        changed(r"'(\w+)'", r"numpy.str_('\1')"),
        changed(r"concat=(\[.*?\])", r"concat=array(\1, dtype=int64)"),
        changed(r"concat=\[.*?\]", "concat=list(range(2, 6))"),
        changed(r", (\d)\)", r", \1, 0.125)"),
        changed(r", (\d)\)", r", \1, tensor(0.125))"),
        changed(r"(\([^()]*\)), (\([^()]*\))", r"(\1, \2)"),
        changed(r"(\([^()]*\)), (\([^()]*\))", r"[\1, \2]"),
        ONE_LINE[:-1] + ", connectN=None, connects=None)",
        str(DARTS_V2._asdict()),
        f"12:00 found {dict(DARTS_V2._asdict())}, saved",
    ],
)
def test_text_of_logs_and_of_other_code_is_read(tmp_path, text):
    assert genotypes.from_darts(text) == DARTS_V2
    assert genotypes.from_text(text) == DARTS_V2
    (tmp_path / "log.txt").write_text(text, encoding="utf-8")
    assert genotypes.load(tmp_path / "log.txt") == DARTS_V2


def test_several_genotypes_are_listed_by_line(tmp_path):
    other = genotypes.to_darts(genotypes.named("DARTS_V1"))
    path = tmp_path / "log.txt"
    path.write_text(f"epoch 0\n{other}\nepoch 1\n\ng = {ONE_LINE}\n", "utf-8")
    with pytest.raises(ValueError, match="found 2 genotypes, at the lines 2, 5; exp"):
        genotypes.load(path)
    assert genotypes.load(path, line=5) == DARTS_V2
    assert genotypes.load(path, line=2) == genotypes.named("DARTS_V1")
    with pytest.raises(ValueError, match=r"found no Genotype\(...\) at line 4"):
        genotypes.load(path, line=4)
    path.write_text(
        "\n".join(f"{ONE_LINE} # {i}" for i in range(99)) + f"\n{other}", "utf-8"
    )
    with pytest.raises(ValueError, match=r"found 100 .* 1, 2, .*, 10, ... and 100;"):
        genotypes.load(path)


def test_cells_of_nas_bench_201_are_explained():
    cell = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"
    with pytest.raises(ValueError, match=r"a cell of NAS-Bench-201.*no space"):
        genotypes.from_text(cell)


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(" * 100_000,
        "Genotype(normal=" + "[" * 90 + "]" * 90 + ")",
        "Genotype(normal=" + "-" * 30_000 + "1)",
        "Genotype(normal=a" + ".a" * 30_000 + ")",
        changed("sep_conv_3x3", "x" * 3_000),
        changed(r"\('sep_conv_3x3', 0\)", repr("y" * 50_000)),
        '{"normal": 1, "normal": 2}',
        '{"type": "dag", "ops": ' + "[" * 60 + "]" * 60 + "}",
        '{"type": "dag", "ops": "' + "z" * 50_000 + '"}',
        '{"' + "z" * 50_000 + '": 1}',
        '{"type": "dag", "ops": [NaN]}',
        '{"type": "dag", "ops": [1e999]}',
        '{"type": "dag", "ops": [' + "9" * 5_000 + "]}",
        "0 " * 50_000 + "x" * 50_000,
    ],
)
def test_hostile_text_is_refused_in_few_words(text):
    with pytest.raises(ValueError) as error:
        genotypes.from_text(text)
    assert len(str(error.value)) <= 500


def test_no_more_is_read_than_a_genotype_may_have(tmp_path):
    with pytest.raises(ValueError, match="it is larger than 16,777,216 bytes"):
        genotypes.load("/dev/zero")
    with pytest.raises(ValueError, match=r"range\(2, 1.* is not a list of nodes"):
        genotypes.check(SMALL._replace(reduce_concat=range(2, 10**30)))


def test_load_of_a_missing_file_and_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.json cannot be read: No such file"):
        genotypes.load(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        genotypes.load(tmp_path)


def test_save_replaces_whole_files_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "genotype.json"
    genotypes.save(path, SMALL)
    with pytest.raises(ValueError, match="normal cell: found 0"):
        genotypes.save(path, SMALL._replace(normal=()))
    assert genotypes.load(path) == SMALL
    assert [entry.name for entry in tmp_path.iterdir()] == ["genotype.json"]
    with pytest.raises(ValueError, match=r"absent.genotype\.json cannot be written"):
        genotypes.save(tmp_path / "absent" / "genotype.json", SMALL)
