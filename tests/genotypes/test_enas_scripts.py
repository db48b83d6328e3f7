"""The integers of the official ENAS scripts, to genotypes and back."""

from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import genotypes

MICRO = """
0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1
1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1
"""
RECURRENT = "0 0 0 1 1 2 1 2 0 2 0 5 1 1 0 6 1 8 1 8 1 8 1"
# The cells of ENAS and of DARTS in the README of enas_lm.
ENAS_LM = "0 2 1 0 2 1 2 2 4 0 5 0 3 2 6 2"
DARTS_LM = "0 2 1 1 1 1 1 3 2 0 5 2 3 0 5 1"


def test_the_published_cells():
    genotype = genotypes.from_enas_micro(MICRO)
    assert genotype == genotypes.named("ENAS_MICRO") != genotypes.named("ENAS")
    # Node 4 of each cell.
    assert genotype.normal[4:6] == (("skip_connect", 0), ("sep_conv_5x5", 1))
    assert genotype.reduce[4:6] == (("sep_conv_5x5", 1), ("sep_conv_5x5", 3))
    assert genotype.normal_concat == (2, 3, 4, 5, 6)
    assert genotype.reduce_concat == (2, 4, 5, 6)
    assert genotypes.to_enas_micro(genotype) == tuple(map(int, MICRO.split()))
    read = Counter(source for _, source in genotype.reduce)
    assert read == {0: 4, 1: 5, 3: 1}


def test_the_cells_of_the_figure_as_a_script():
    script = genotypes.to_enas_micro(genotypes.named("ENAS"))
    assert " ".join(map(str, script)) == (
        "1 0 1 4 1 1 0 4 0 2 1 0 0 0 1 2 1 1 0 2 "
        "0 1 1 2 1 0 1 2 1 0 1 2 4 1 1 2 5 0 0 1"
    )
    assert genotypes.from_enas_micro(script) == genotypes.named("ENAS")


def test_the_published_network():
    genotype = genotypes.named("ENAS_MACRO")
    assert Counter(genotype.ops) == {
        "conv_3x3": 8,
        "sep_conv_3x3": 2,
        "conv_5x5": 9,
        "sep_conv_5x5": 5,
    }
    counts = [0, 0, 1, 1, 0, 3, 1, 5, 5, 0, 1, 5, 4, 6, 5, 4, 7, 6, 6, 5, 7, 10, 6, 10]
    assert [len(sources) for sources in genotype.skips] == counts
    assert sum(counts) == 98
    # The script's lines "0 1 0" and "2 0 0 1".
    assert genotype.skips[2:4] == ((0,), (2,))
    script = genotypes.to_enas_macro(genotype)
    assert len(script) == 300 and script[:10] == (0, 3, 0, 0, 1, 0, 2, 0, 0, 1)
    assert genotypes.from_enas_macro(script) == genotype


def test_the_published_recurrent_cell():
    genotype = genotypes.from_enas_recurrent(RECURRENT)
    assert genotype == genotypes.named("ENAS_RECURRENT")
    assert genotype.sources == (0, 1, 2, 2, 2, 5, 1, 6, 8, 8, 8)
    assert Counter(genotype.activations) == {"tanh": 5, "relu": 7}
    assert genotypes.recurrent_loose_ends(genotype) == (3, 4, 7, 9, 10, 11)
    script = genotypes.to_enas_recurrent(genotype)
    assert script == tuple(map(int, RECURRENT.split()))


def test_the_published_cells_of_the_corrected_language_model():
    genotype = genotypes.from_enas_lm(ENAS_LM)
    assert genotype == genotypes.named("ENAS_LM_RECURRENT")
    first, *later = genotype.activations
    assert first == "tanh"
    assert " ".join(later) == "sigmoid tanh relu sigmoid tanh tanh sigmoid sigmoid"
    assert genotype.sources == (0, 1, 2, 2, 4, 5, 3, 6)
    assert genotypes.averaged_nodes(genotype) == tuple(range(1, 9))
    assert genotypes.to_enas_lm(genotype) == tuple(map(int, ENAS_LM.split()))
    assert genotypes.from_enas_lm(DARTS_LM) == genotypes.named("DARTS_V2_RECURRENT")


@pytest.mark.parametrize(
    ("read", "write", "script"),
    [
        (genotypes.from_enas_micro, genotypes.to_enas_micro, (0, 1, 1, 4) * 2),
        (genotypes.from_enas_macro, genotypes.to_enas_macro, (5, 4, 1, 0, 0, 1)),
        (genotypes.from_enas_macro, genotypes.to_enas_macro, (3,)),
        (genotypes.from_enas_recurrent, genotypes.to_enas_recurrent, (3, 0, 2)),
        (genotypes.from_enas_recurrent, genotypes.to_enas_recurrent, (1,)),
        (genotypes.from_enas_lm, genotypes.to_enas_lm, (0, 3, 1, 2)),
        (genotypes.from_enas_lm, genotypes.to_enas_lm, (0, 1)),
    ],
)
def test_scripts_of_every_form_and_size(read, write, script):
    genotype = read(script)
    assert write(genotype) == script
    assert all(type(integer) is int for integer in write(genotype))
    assert read(" ".join(map(str, script))) == genotype
    assert read(",\n".join(map(str, script)) + "\n") == genotype
    assert read(np.asarray(script)) == read(jnp.asarray(script, jnp.int32)) == genotype


@pytest.mark.parametrize(
    "text",
    [
        MICRO,
        f"[{', '.join(MICRO.split())}]",
        f"[{MICRO}]",
        'fixed_arc="{}"\nfixed_arc="$fixed_arc {}"\n'.format(
            *MICRO.strip().split("\n")
        ),
        f"({MICRO.strip()})",
    ],
)
def test_integers_as_scripts_and_logs_have_them(tmp_path, text):
    expected = genotypes.named("ENAS_MICRO")
    assert genotypes.from_enas_micro(text) == genotypes.from_enas(text) == expected
    (tmp_path / "arc.txt").write_text(text, encoding="utf-8")
    assert genotypes.load(tmp_path / "arc.txt") == expected


def test_scripts_are_told_apart():
    macro = genotypes.named("ENAS_MACRO")
    lists = "\n".join(
        str([*script])
        for script in ([0], [3, 0], [0, 1, 0], [2, 0, 0, 1], [2, 0, 0, 0, 0])
    )
    assert genotypes.from_enas(lists) == genotypes.MacroGenotype(
        macro.ops[:5], macro.skips[:5]
    )
    assert genotypes.from_enas(genotypes.to_enas_macro(macro)) == macro
    assert genotypes.from_enas(RECURRENT) == genotypes.named("ENAS_RECURRENT")
    corrected = genotypes.named("ENAS_LM_RECURRENT")
    assert genotypes.from_enas(ENAS_LM) == genotypes.from_text(ENAS_LM) == corrected
    # Zeros are a chain of 3 layers, two cells of 1 node, a chain of 12 layers.
    for num, kind in ((6, "MacroGenotype"), (8, "Genotype")):
        message = f"the {num} integers are a {kind} or a RecurrentGenotype; expected a"
        with pytest.raises(ValueError, match=message):
            genotypes.from_enas([0] * num)
    assert genotypes.from_enas([0] * 78) == genotypes.from_enas_macro([0] * 78)
    # A cell as large is one where the integers can be nothing else.
    large = [0] * 26
    assert genotypes.from_enas(large) == genotypes.from_enas_lm(large)
    with pytest.raises(ValueError, match="1 integers are a MacroGenotype or a Recurr"):
        genotypes.from_enas("0")
    message = (
        "no ENAS script; from_enas_micro: found 2 integers; .*macro: .*recurrent: .*lm"
    )
    with pytest.raises(ValueError, match=message):
        genotypes.from_enas("1 2")


@pytest.mark.parametrize(
    ("read", "script", "message"),
    [
        (genotypes.from_enas_micro, "", "found 0 integers; expected four for every"),
        (genotypes.from_enas_micro, [0] * 39, "found 39 integers; .* such as 40 for"),
        (
            genotypes.from_enas_micro,
            [0, 0, 2, 0, 0, 0, 0, 0],
            r"integer 2 \(normal cell, node 2, second edge, input\): 2 is not in 0..1",
        ),
        (
            genotypes.from_enas_micro,
            [0, 0, 0, 0, 1, 5, 0, 0],
            r"integer 5 \(reduction cell, node 2, first edge, operation\): 5 is not in",
        ),
        (genotypes.from_enas_macro, [], "found 0 integers; expected 1 \\+ k for every"),
        (
            genotypes.from_enas_macro,
            [0] * 77,
            "found 77 integers; .* such as 78 for 12",
        ),
        (
            genotypes.from_enas_macro,
            "0 6 0",
            r"integer 1 \(layer 1, operation\): 6 is not in 0\.\.5",
        ),
        (
            genotypes.from_enas_macro,
            "0 0 1 0 0 2",
            r"integer 5 \(layer 2, skip from source 1\): 2 is not in 0\.\.1",
        ),
        (genotypes.from_enas_recurrent, [0] * 24, "found 24 integers; .* such as 23"),
        (
            genotypes.from_enas_recurrent,
            "0 1 0",
            r"integer 1 \(node 1, source\): 1 is not in 0\.\.0",
        ),
        (
            genotypes.from_enas_recurrent,
            [0, 0, -1],
            r"integer 2 \(node 1, activation\): -1 is not in 0\.\.3",
        ),
        (genotypes.from_enas_recurrent, "0 x 0", "integer 1: 'x' is not an integer"),
        (
            genotypes.from_enas_recurrent,
            "0 1.0 0",
            "integer 1: '1.0' is not an integer",
        ),
        (genotypes.from_enas_lm, "", "found 0 integers; expected two for every node"),
        (genotypes.from_enas_lm, [0] * 15, "found 15 integers; .* such as 16 for 9"),
        (
            genotypes.from_enas_lm,
            "0 1 2 0",
            r"integer 2 \(node 2, source\): 2 is not in 0\.\.1",
        ),
        (
            genotypes.from_enas_lm,
            "0 1 0 4",
            r"integer 3 \(node 2, activation\): 4 is not in 0\.\.3",
        ),
        (genotypes.from_enas_macro, [0.0], "integer 0: 0.0 is not an integer"),
        (genotypes.from_enas_macro, [True], "integer 0: True is not an integer"),
        (genotypes.from_enas_macro, 3, "3 is neither text nor a list of integers"),
    ],
)
def test_faults_are_named(read, script, message):
    with pytest.raises(ValueError, match=message):
        read(script)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "NASNet",
            {"reduce_concat": (4, 5, 6)},
            "reduction cell, node 2, second edge: sep_conv_7x7 is not an operation of",
        ),
        (
            "ENAS",
            {"normal_concat": (6,)},
            r"normal cell, concat: found \[6\]; expected the loose ends \[2, 3",
        ),
        (
            "ENAS",
            {"reduce": genotypes.named("ENAS").reduce[:2], "reduce_concat": (2,)},
            "found 5 nodes in the normal cell and 1 in the reduction cell",
        ),
    ],
)
def test_cells_that_no_script_can_hold(name, changes, message):
    with pytest.raises(ValueError, match=message):
        genotypes.to_enas_micro(genotypes.named(name)._replace(**changes))


CORRECTED = genotypes.named("ENAS_LM_RECURRENT")


@pytest.mark.parametrize(
    ("write", "cell", "message"),
    [
        (genotypes.to_enas_recurrent, CORRECTED, "averaged is 'later_nodes'; expected"),
        (
            genotypes.to_enas_lm,
            CORRECTED._replace(averaged="loose_ends"),
            "averaged is 'loose_ends'; expected 'later_nodes'",
        ),
        (
            genotypes.to_enas_lm,
            CORRECTED._replace(activations=("relu",) * 9),
            "node 0: activation relu; expected tanh",
        ),
    ],
)
def test_recurrent_cells_that_no_script_can_hold(write, cell, message):
    with pytest.raises(ValueError, match=message):
        write(cell)
