"""The recurrent cells of DARTS, as its code and logs write them."""

import pytest

from jaxnas import genotypes

DARTS_V1 = (
    "Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), "
    "('relu', 4), ('identity', 1), ('relu', 5), ('relu', 1)], concat=range(1, 9))"
)
# ENAS's cell with numbers of its own.
ENAS = """
ENAS = Genotype(
    recurrent = [
        ('tanh', 0), ('tanh', 1), ('relu', 1), ('tanh', 3), ('tanh', 3), ('relu', 3),
        ('relu', 4), ('relu', 7), ('relu', 8), ('relu', 8), ('relu', 8),
    ],
    concat = [2, 5, 6, 9, 10, 11]
)
"""


def tree(genotype, node=0):
    """A node and those that read it, whatever their numbers."""
    readers = [i for i, source in enumerate(genotype.sources, 1) if source == node]
    return (
        genotype.activations[node],
        node in genotypes.averaged_nodes(genotype),
        sorted(tree(genotype, reader) for reader in readers),
    )


def test_the_published_cells():
    first = genotypes.from_darts(DARTS_V1)
    assert first == genotypes.named("DARTS_V1_RECURRENT")
    assert isinstance(first, genotypes.RecurrentGenotype)
    assert first.activations[:4] == ("tanh", "relu", "relu", "tanh")
    assert first.sources == (0, 1, 2, 3, 4, 1, 5, 1)
    assert first.averaged == "later_nodes"
    second = genotypes.named("DARTS_V2_RECURRENT")
    assert second.sources == (0, 1, 1, 1, 2, 5, 3, 5)


def test_the_concat_of_the_loose_ends():
    genotype = genotypes.from_darts(ENAS)
    assert isinstance(genotype, genotypes.RecurrentGenotype)
    assert genotype.averaged == "loose_ends"
    assert tree(genotype) == tree(genotypes.named("ENAS_RECURRENT"))
    assert genotype != genotypes.named("ENAS_RECURRENT")


@pytest.mark.parametrize(
    "text",
    [
        f"10:11 AM genotype = {DARTS_V1}\n10:12 AM epoch 1\n10:13 AM {DARTS_V1}",
        DARTS_V1.replace("range(1, 9)", "[8, 7, 6, 5, 4, 3, 2, 1]"),
        DARTS_V1.replace("))", "), normal=None)"),
        DARTS_V1.replace("Genotype(recurrent=", "{'recurrent': ")
        .replace("concat=", "'concat': ")
        .replace("))", ")}"),
    ],
)
def test_text_of_logs_is_read(tmp_path, text):
    (tmp_path / "log.txt").write_text(text, encoding="utf-8")
    found = genotypes.load(tmp_path / "log.txt")
    assert found == genotypes.named("DARTS_V1_RECURRENT")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "range(1, 9)",
            "[5, 6, 7, 8]",
            r"concat: found \[5, .* 8\]; expected all later nodes \[1, .* 8\] or the "
            r"loose ends \[6, 7, 8\]",
        ),
        ("range(1, 9)", "range(0, 9)", r"concat: found \[0, 1, 2, 3, 4, 5, 6, 7, 8\]"),
        ("range(1, 9)", "[8, 8]", r"concat: found \[8, 8\]; expected all later"),
        ("range(1, 9)", "['8']", r"concat: \('8',\) is not a list of nodes"),
        ("range(1, 9)", "8", "concat: 8 is not a list of nodes"),
        ("('relu', 1), (", "('none', 1), (", "node 2: 'none' is not an activation"),
        ("('tanh', 2)", "('tanh', 3)", "node 3: source 3 is not an earlier node; exp"),
        (
            "('tanh', 2)",
            "('tanh', 2, 1)",
            r"node 3: \('tanh', 2, 1\) is not an \(",
        ),
        (", concat=range(1, 9)", "", "line 1: expected each of recurrent, concat once"),
        (", concat=", ", drop=1, concat=", "line 1: expected each of recurrent, conc"),
        ("recurrent=[", "recurrent=3, a=[", "expected each of recurrent, concat once"),
    ],
)
def test_faults_are_named(old, new, message):
    assert old in DARTS_V1
    with pytest.raises(ValueError, match=message):
        genotypes.from_darts(DARTS_V1.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Genotype(recurrent=3, concat=[1])", "recurrent: 3 is not a list of \\(act"),
        ("Genotype(recurrent=[], concat=[])", "averaged is 'later_nodes'; expected"),
    ],
)
def test_cells_without_nodes(text, message):
    with pytest.raises(ValueError, match=message):
        genotypes.from_darts(text)
