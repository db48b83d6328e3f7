"""Macro and recurrent genotypes: what is accepted, refused and stored, and how."""

import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxnas import genotypes

MACRO = genotypes.MacroGenotype(
    ops=("conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3"),
    skips=((), (), (0, 1), (2,)),
)
RECURRENT = genotypes.RecurrentGenotype(
    activations=("tanh", "relu", "identity", "sigmoid"), sources=(0, 0, 2)
)
EVERY_NAME = (*genotypes.NAMES, *genotypes.MACRO_NAMES, *genotypes.RECURRENT_NAMES)


def test_check_macro_normalizes_to_tuples_and_python_integers():
    skips: Any = [[], range(0), np.arange(2).tolist(), [np.int64(2)]]
    ops: Any = list(MACRO.ops)
    checked = genotypes.check_macro(genotypes.MacroGenotype(ops, skips))
    assert checked == MACRO
    assert type(checked.ops) is type(checked.skips) is type(checked.skips[1]) is tuple
    assert type(checked.skips[3][0]) is int


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ops": ()}, "no operation; expected one for every layer"),
        ({"ops": "conv_3x3"}, "'conv_3x3' is not a list of operations"),
        (
            {"ops": (*MACRO.ops[:3], "skip_connect")},
            "layer 3: 'skip_connect' is not an operation; expected one of conv_3x3",
        ),
        ({"skips": None}, "None is not a list of skips"),
        ({"skips": ((),) * 3}, "found the skips of 3 layers; expected those of 4"),
        ({"skips": ((), (), (), 2)}, "layer 3, skips: 2 is not a list of sources"),
        ({"skips": ((0,), (), (), ())}, "layer 0, skips: found source 0; expected non"),
        # Source 1 is what layer 1 reads anyway.
        (
            {"skips": ((), (1,), (), ())},
            "layer 1, skips: found source 1; expected some",
        ),
        ({"skips": ((), (), (-1,), ())}, "found source -1; expected some of 0 to 1"),
        ({"skips": ((), (), (1, 0), ())}, "layer 2, skips: found source 0 after 1"),
        ({"skips": ((), (), (0, 0), ())}, "source 0 after 0; expected ascending"),
        ({"skips": ((), (), (True,), ())}, "layer 2, skips: source True is not an int"),
    ],
)
def test_check_macro_names_the_layer(changes, message):
    with pytest.raises(ValueError, match=message):
        genotypes.check_macro(MACRO._replace(**changes))


def test_check_recurrent_normalizes_to_tuples_and_python_integers():
    fields: Any = (list(RECURRENT.activations), [0, np.int32(0), 2])
    checked = genotypes.check_recurrent(genotypes.RecurrentGenotype(*fields))
    assert checked == RECURRENT
    assert all(type(source) is int for source in checked.sources)
    single = genotypes.RecurrentGenotype(("tanh",), ())
    assert genotypes.check_recurrent(single) == single


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activations": ()}, "no activation; expected one for every node"),
        (
            {"activations": ("tanh", "relu", "elu", "tanh")},
            "node 2: 'elu' is not an activation; expected one of tanh, relu, identity",
        ),
        ({"sources": 0}, "0 is not a list of sources"),
        ({"sources": (0, 0)}, "found 2 sources for 4 activations; expected one for"),
        ({"sources": (0, 2, 0)}, "node 2: source 2 is not an earlier node; expected 0"),
        ({"sources": (0, 0.0, 0)}, "node 2: source 0.0 is not an integer"),
    ],
)
def test_check_recurrent_names_the_node(changes, message):
    with pytest.raises(ValueError, match=message):
        genotypes.check_recurrent(RECURRENT._replace(**changes))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            RECURRENT._replace(averaged="nodes"),
            "averaged is 'nodes'; expected 'loose_ends' or 'later_nodes'",
        ),
        (
            RECURRENT._replace(averaged=["loose_ends"]),
            r"averaged is \['loose_ends'\]; e",
        ),
        (
            genotypes.RecurrentGenotype(("tanh",), (), "later_nodes"),
            "averaged is 'later_nodes'; expected 'loose_ends' for a cell of one node",
        ),
    ],
)
def test_check_recurrent_names_what_cannot_be_averaged(cell, message):
    with pytest.raises(ValueError, match=message):
        genotypes.check_recurrent(cell)


def test_averaged_nodes_are_the_loose_ends_or_all_later_nodes():
    assert genotypes.averaged_nodes(RECURRENT) == (1, 3)
    later = RECURRENT._replace(averaged="later_nodes")
    assert genotypes.check_recurrent(later) == later != RECURRENT
    assert genotypes.averaged_nodes(later) == (1, 2, 3)


@pytest.mark.parametrize("tag", [{}, {"type": "recurrent"}])
def test_files_from_before_average_the_loose_ends(tmp_path, tag):
    path = tmp_path / "genotype.json"
    fields = {"activations": RECURRENT.activations, "sources": RECURRENT.sources}
    path.write_text(json.dumps(tag | fields), encoding="utf-8")
    assert genotypes.load(path) == RECURRENT
    path.write_text(json.dumps(tag | fields | {"averaged": "later_nodes"}), "utf-8")
    assert genotypes.load(path) == RECURRENT._replace(averaged="later_nodes")


def test_recurrent_loose_ends_are_the_nodes_nobody_reads():
    assert genotypes.recurrent_loose_ends(RECURRENT) == (1, 3)
    single = genotypes.RecurrentGenotype(("tanh",), ())
    assert genotypes.recurrent_loose_ends(single) == (0,)


@pytest.mark.parametrize(
    ("check", "other", "message"),
    [
        (genotypes.check_macro, RECURRENT, "found a RecurrentGenotype; expected a Mac"),
        (
            genotypes.check_macro,
            tuple(MACRO),
            "found a tuple; expected a MacroGenotype",
        ),
        (genotypes.check_recurrent, MACRO, "found a MacroGenotype; expected a Recurr"),
        (genotypes.check, 3, "3 is not a genotype"),
    ],
)
def test_checks_refuse_another_kind(check, other, message):
    with pytest.raises(ValueError, match=message):
        check(other)


@pytest.mark.parametrize("name", [*EVERY_NAME, *genotypes.AUTOENCODER_NAMES])
def test_every_kind_is_stored_and_found_again(tmp_path, name):
    genotype = genotypes.named(name)
    assert genotypes.check(genotype) == genotype
    found = genotypes.from_json(genotypes.to_json(genotype))
    assert found == genotype and type(found) is type(genotype)
    path = tmp_path / "genotype.json"
    genotypes.save(path, genotype)
    assert genotypes.load(path) == genotype
    text = genotypes.to_text(genotype)
    assert "\n" not in text
    path.write_text(text, encoding="utf-8")
    assert genotypes.load(path) == genotype


def test_json_layouts():
    assert genotypes.to_json(MACRO) == (
        '{\n  "type": "macro",\n'
        '  "ops": ["conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3"],\n'
        '  "skips": [[], [], [0, 1], [2]]\n}\n'
    )
    assert genotypes.to_text(RECURRENT) == (
        '{"type": "recurrent", '
        '"activations": ["tanh", "relu", "identity", "sigmoid"], '
        '"sources": [0, 0, 2], "averaged": "loose_ends"}'
    )
    darts = genotypes.named("DARTS")
    assert genotypes.to_text(darts) == genotypes.to_darts(darts)


@pytest.mark.parametrize(
    ("genotype", "old", "new", "message"),
    [
        (MACRO, "[0, 1]", "[1, 0]", "layer 2, skips: found source 0 after 1"),
        (MACRO, "[0, 1]", "[0, 9]", "layer 2, skips: found source 9; expected some"),
        (MACRO, '"skips"', '"skip"', "the key 'skips' is missing"),
        (RECURRENT, "relu", "elu", "node 1: 'elu' is not an activation"),
        (RECURRENT, "loose_ends", "ends", "averaged is 'ends'; expected 'loose_ends'"),
    ],
)
def test_load_names_the_file_and_the_place(tmp_path, genotype, old, new, message):
    path = tmp_path / "found.json"
    path.write_text(genotypes.to_json(genotype).replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"found\.json is malformed: {message}"):
        genotypes.load(path)


def test_save_refuses_an_invalid_genotype(tmp_path):
    with pytest.raises(ValueError, match="layer 0: 'none' is not an operation"):
        genotypes.save(tmp_path / "a.json", MACRO._replace(ops=("none",) * 4))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*EVERY_NAME, *genotypes.DAG_NAMES])
def test_files_without_a_tag_are_told_apart_by_their_keys(name):
    genotype = genotypes.named(name)
    found = genotypes.from_json(json.dumps(genotype._asdict()))
    assert found == genotype and type(found) is type(genotype)


def test_the_tag_decides_before_the_keys():
    # Both kinds have operations, but only the second has scales.
    fields = {"type": "dag", "ops": ["conv_1x1"], "inputs": [[0]], "scales": [], "a": 1}
    assert genotypes.from_json(json.dumps(fields)) == genotypes.DagGenotype(
        ("conv_1x1",), ((0,),)
    )


@pytest.mark.parametrize("tag", ["toy", 3, None, ["cells"]])
def test_an_unknown_tag_lists_the_known_ones(tag):
    message = r"type is .*; expected one of .*cells, .*macro"
    with pytest.raises(ValueError, match=message):
        genotypes.from_json(json.dumps({"type": tag, "ops": []}))


def test_plain_tuples_are_two_cells():
    cells = genotypes.named("DARTS")
    assert type(genotypes.check(tuple(cells))) is genotypes.Genotype
    with pytest.raises(ValueError, match=r"\(1, 2\) is not a genotype"):
        genotypes.check((1, 2))


class Unknown(NamedTuple):
    ops: tuple[str, ...]


class Tagged(NamedTuple):
    type: str


def test_registered_classes_are_checked():
    with pytest.raises(ValueError, match=r"Unknown\(.* is not a genotype; .*register"):
        genotypes.save("nowhere.json", Unknown(("conv",)))
    with pytest.raises(ValueError, match="the tag 'dag' is that of DagGenotype"):
        genotypes.register("dag", Unknown, lambda genotype: genotype)
    with pytest.raises(ValueError, match="Tagged has a field 'type'"):
        genotypes.register("tagged", Tagged, lambda genotype: genotype)
    listed: Any = list
    with pytest.raises(ValueError, match="list is not a NamedTuple"):
        genotypes.register("list", listed, lambda genotype: genotype)
