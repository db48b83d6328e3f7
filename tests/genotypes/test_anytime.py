"""Networks with exits: what is accepted, refused and stored."""

from typing import Any

import numpy as np
import pytest

from jaxnas import genotypes

NETWORK = genotypes.AnytimeGenotype(
    ops=(("conv_1x1", "max_pool_3x3"), ("conv_3x3", "conv_5x5"), ("avg_pool_3x3",)),
    inputs=(((0, 1), (2,)), ((1,), (0, 1)), ((0,),)),
    scales=((0, 2), (1, 2), (2,)),
    exits=((3,), (2, 3), (2,)),
)


def test_check_anytime_normalizes_to_tuples_and_python_integers():
    fields: dict[str, Any] = {
        "ops": [list(ops) for ops in NETWORK.ops],
        "inputs": [[range(2), [2]], [[1], [np.int64(0), 1]], [[0]]],
        "scales": [[0, np.int32(2)], range(1, 3), [2]],
        "exits": [[3], range(2, 4), [2]],
    }
    checked = genotypes.check(genotypes.AnytimeGenotype(**fields))
    assert checked == NETWORK and isinstance(checked, genotypes.AnytimeGenotype)
    assert type(checked.ops[0]) is type(checked.inputs[0][0]) is tuple
    assert type(checked.scales[0][1]) is type(checked.inputs[1][1][0]) is int


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ops": (("conv_1x1",),)}, r"ops is \(\('conv_1x1',\),\); expected 3 lists"),
        ({"exits": 2}, "exits is 2; expected 3 lists, one a block"),
        (
            {"ops": (NETWORK.ops[0], ("conv_3x3", "skip_connect"), NETWORK.ops[2])},
            "block 1: node 3: 'skip_connect' is not an operation; expected one of conv",
        ),
        (
            {"inputs": (*NETWORK.inputs[:2], ((2,),))},
            "block 2: node 2, inputs: 2 is not an earlier node",
        ),
        ({"scales": ((0, 2), (1,), (2,))}, r"block 1: scales is \(1,\); expected a l"),
        (
            {"scales": ((0, 2), (0, 2), (2,))},
            r"block 1, node 2: 0 is not a scale of this block; expected .* 1\.\.2",
        ),
        ({"scales": ((0, 3), (1, 2), (2,))}, "block 0, node 3: 3 is not a scale"),
        ({"exits": ((3,), (), (2,))}, r"block 1: exits is \(\); expected a list of at"),
        ({"exits": ((4,), (2,), (2,))}, "block 0: found 4 among the exits"),
        ({"exits": ((3,), (3, 2), (2,))}, "block 1: found 2 among the exits"),
        ({"exits": ((1,), (2,), (2,))}, r"found 1 .* ascending nodes in 2\.\.3"),
    ],
)
def test_check_anytime_names_the_place(changes, message):
    with pytest.raises(ValueError, match=message):
        genotypes.check_anytime(NETWORK._replace(**changes))


def test_check_anytime_refuses_another_kind():
    with pytest.raises(ValueError, match="found a DagGenotype; expected an AnytimeGen"):
        genotypes.check_anytime(genotypes.named("GHN"))


def test_networks_are_stored_and_found_again(tmp_path):
    path = tmp_path / "genotype.json"
    genotypes.save(path, NETWORK)
    assert genotypes.load(path) == NETWORK
    assert isinstance(genotypes.load(path), genotypes.AnytimeGenotype)
    text = genotypes.to_text(NETWORK)
    assert "\n" not in text
    path.write_text(text, encoding="utf-8")
    assert genotypes.load(path) == NETWORK


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"exits"', '"exit"', "the key 'exits' is missing from the JSON object"),
        ("[[3], ", "[[9], ", "block 0: found 9 among the exits"),
    ],
)
def test_load_names_the_file_and_the_place(tmp_path, old, new, message):
    path = tmp_path / "found.json"
    path.write_text(genotypes.to_json(NETWORK).replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"found\.json is malformed: {message}"):
        genotypes.load(path)
