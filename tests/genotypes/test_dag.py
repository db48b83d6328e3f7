"""Blocks: the published one, and what is accepted, refused and stored."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from jaxnas import genotypes

BLOCK = genotypes.DagGenotype(
    ops=("conv_1x1", "skip_connect", "max_pool_3x3"), inputs=((0,), (0, 1), (1, 3))
)


def test_the_published_block_is_that_of_the_figure():
    assert genotypes.DAG_NAMES == ("GHN",)
    ghn = genotypes.named("GHN")
    assert genotypes.check_dag(ghn) == ghn
    assert Counter(ghn.ops) == {
        **{"sep_conv_3x3": 7, "sep_conv_5x5": 1, "skip_connect": 3},
        **{"max_pool_3x3": 2, "avg_pool_3x3": 2},
    }
    assert sum(map(len, ghn.inputs)) == 40
    assert genotypes.dag_leaves(ghn) == (2, 5, 10, 16)
    assert (ghn.ops[15 - 2], ghn.inputs[15 - 2]) == (
        "sep_conv_3x3",
        (3, 4, 9, 12, 13, 14),
    )


def test_every_operation_has_one_number():
    assert len(genotypes.DAG_OPS) == len(set(genotypes.DAG_OPS)) == 9
    assert genotypes.DAG_OPS[0] == "skip_connect"


def test_leaves_are_the_nodes_nobody_reads():
    assert genotypes.dag_leaves(BLOCK) == (2, 4)
    # Nobody reads the inputs of the second block but its one node.
    single = genotypes.DagGenotype(("conv_1x1",), ((1,),))
    assert genotypes.dag_leaves(single) == (2,)


def test_check_dag_normalizes_to_tuples_and_python_integers():
    inputs: Any = [[0], range(2), [np.int64(1), np.int32(3)]]
    ops: Any = list(BLOCK.ops)
    checked = genotypes.check(genotypes.DagGenotype(ops, inputs))
    assert checked == BLOCK and isinstance(checked, genotypes.DagGenotype)
    assert type(checked.ops) is type(checked.inputs) is type(checked.inputs[1]) is tuple
    assert type(checked.inputs[2][0]) is int


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ops": ()}, "no operation; expected one for every node from node 2 on"),
        ({"ops": "conv_1x1"}, "'conv_1x1' is not a list of operations"),
        (
            {"ops": ("conv_1x1", "none", "conv_1x1")},
            "node 3: 'none' is not an operation; expected one of skip_connect, conv_1x",
        ),
        ({"inputs": None}, "None is not a list of inputs"),
        ({"inputs": ((0,),)}, "found the inputs of 1 nodes; expected those of 3"),
        ({"inputs": ((0,), 1, (0,))}, "node 3, inputs: 1 is not a list of nodes"),
        ({"inputs": ((0,), (), (0,))}, "node 3, inputs: no node; expected some of 0 t"),
        ({"inputs": ((2,), (0,), (0,))}, "node 2, inputs: 2 is not an earlier node; e"),
        ({"inputs": ((-1,), (0,), (0,))}, "node 2, inputs: -1 is not an earlier node"),
        ({"inputs": ((0,), (0,), (1, 0))}, "node 4, inputs: found node 0 after 1; exp"),
        ({"inputs": ((0,), (0,), (1, 1))}, "node 4, inputs: found node 1 after 1"),
        ({"inputs": ((True,), (0,), (0,))}, "node 2, inputs: node True is not an inte"),
    ],
)
def test_check_dag_names_the_node(changes, message):
    with pytest.raises(ValueError, match=message):
        genotypes.check_dag(BLOCK._replace(**changes))


@pytest.mark.parametrize(
    ("check", "genotype", "message"),
    [
        (
            genotypes.check_dag,
            genotypes.named("ENAS_MACRO"),
            "found a MacroGenotype; expected a DagGenotype",
        ),
        (
            genotypes.check_dag,
            tuple(BLOCK),
            "found a tuple; expected a DagGenotype",
        ),
        (genotypes.check_macro, BLOCK, "found a DagGenotype; expected a MacroGenotype"),
        (
            genotypes.check_cells,
            BLOCK,
            "found a DagGenotype; expected a Genotype of two cells",
        ),
    ],
)
def test_checks_refuse_another_kind(check, genotype, message):
    with pytest.raises(ValueError, match=message):
        check(genotype)


@pytest.mark.parametrize("block", [BLOCK, genotypes.named("GHN")], ids=["small", "GHN"])
def test_blocks_are_stored_and_found_again(tmp_path, block):
    path = tmp_path / "genotype.json"
    genotypes.save(path, block)
    assert genotypes.load(path) == block
    assert isinstance(genotypes.load(path), genotypes.DagGenotype)
    text = genotypes.to_text(block)
    assert "\n" not in text
    path.write_text(text, encoding="utf-8")
    assert genotypes.load(path) == block


def test_json_layout():
    assert genotypes.to_json(BLOCK) == (
        '{\n  "type": "dag",\n'
        '  "ops": ["conv_1x1", "skip_connect", "max_pool_3x3"],\n'
        '  "inputs": [[0], [0, 1], [1, 3]]\n}\n'
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1, 3]", "[1, 4]", "node 4, inputs: 4 is not an earlier node; expected so"),
        ('"ops"', '"op"', "the key 'ops' is missing from the JSON object"),
        ("conv_1x1", "conv_3x3", "node 2: 'conv_3x3' is not an operation"),
    ],
)
def test_load_names_the_file_and_the_place(tmp_path, old, new, message):
    path = tmp_path / "found.json"
    path.write_text(genotypes.to_json(BLOCK).replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"found\.json is malformed: {message}"):
        genotypes.load(path)
