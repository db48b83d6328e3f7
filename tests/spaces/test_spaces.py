"""Search spaces: sizes, uniform draws, and the way to a genotype and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import genotypes, spaces

# Separable convolutions only; every node reads the two nodes before it.
CHAIN = [1, 0, 3, 3, 2, 1, 3, 3, 3, 2, 3, 3, 4, 3, 3, 3, 5, 4, 3, 3] * 2


def test_enas_micro_has_the_dimensions_of_asng():
    space = spaces.enas_micro()
    cell = (2, 2, 5, 5, 3, 3, 5, 5, 4, 4, 5, 5, 5, 5, 5, 5, 6, 6, 5, 5)
    assert space.cardinalities == 2 * cell
    assert sum(space.cardinalities) == 180
    assert space.num_architectures == 25628906250000000000000000
    assert space == spaces.enas_micro(5) and hash(space) == hash(spaces.enas_micro(5))


@pytest.mark.parametrize("num_nodes", [0, -1, 2.0, True])
def test_enas_micro_refuses_a_wrong_number_of_nodes(num_nodes):
    with pytest.raises(ValueError, match=f"num_nodes is {num_nodes}; expected"):
        spaces.enas_micro(num_nodes)


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ((), "expected distinct operations"),
        (("none", "none"), "expected distinct operations"),
        (("none", "conv"), "ops holds 'conv'; expected some of none"),
    ],
)
def test_micro_space_refuses_wrong_operations(ops, message):
    with pytest.raises(ValueError, match=message):
        spaces.MicroSpace(2, ops)


@pytest.mark.parametrize(
    ("space", "num_decisions"),
    [
        (spaces.enas_micro(3), 24),
        (spaces.enas_macro(5), 15),
        (spaces.enas_recurrent(6), 11),
        (spaces.darts_recurrent(5), 10),
    ],
    ids=["micro", "macro", "recurrent", "darts recurrent"],
)
def test_samples_are_uniform(space, num_decisions):
    keys = jax.random.split(jax.random.key(0), 3000)
    archs = np.asarray(jax.jit(jax.vmap(space.sample))(keys))
    assert archs.shape == (3000, num_decisions) and archs.dtype == np.int32
    for decision, size in enumerate(space.cardinalities):
        counts = np.bincount(archs[:, decision], minlength=size)
        # Five standard deviations of a binomial count; no value beyond the range.
        assert counts.shape == (size,)
        np.testing.assert_allclose(counts, 3000 / size, atol=5 * (3000 / 4) ** 0.5)
    repeated = space.sample(keys[0])
    np.testing.assert_array_equal(repeated, archs[0])


def test_decode_of_a_chain():
    genotype = spaces.enas_micro().decode(CHAIN)
    assert genotype.normal[:4] == (
        *(("sep_conv_3x3", 1), ("sep_conv_3x3", 0)),
        *(("sep_conv_3x3", 2), ("sep_conv_3x3", 1)),
    )
    assert genotype.normal_concat == genotype.reduce_concat == (6,)
    assert genotype.reduce == genotype.normal


def test_decode_numbers_the_operations_as_asng():
    genotype = spaces.MicroSpace(1, spaces.enas_micro().ops).decode(
        [0, 1, 0, 1, 1, 0, 2, 4]
    )
    assert genotype.normal == (("skip_connect", 0), ("avg_pool_3x3", 1))
    assert genotype.reduce == (("max_pool_3x3", 1), ("sep_conv_5x5", 0))


def test_decode_takes_lists_numpy_and_jax():
    space = spaces.enas_micro()
    expected = space.decode(CHAIN)
    assert space.decode(np.asarray(CHAIN, np.uint8)) == expected
    assert space.decode(jnp.asarray(CHAIN, jnp.int32)) == expected
    assert space.decode([jnp.int32(value) for value in CHAIN]) == expected
    assert type(expected.normal[0][1]) is int


@pytest.mark.parametrize(
    ("decision", "value", "message"),
    [
        (7, 9, r"decision 7 \(normal cell, node 1, op_2\): 9 is not in 0\.\.4"),
        (20, 2, r"decision 20 \(reduction cell, node 0, input_1\): 2 is not in 0\.\.1"),
        (37, -1, r"decision 37 \(reduction cell, node 4, input_2\): -1 is not in 0..5"),
        (0, 1.0, r"decision 0 \(normal cell, node 0, input_1\): 1.0 is not an integer"),
        (2, True, r"decision 2 .*: True is not an integer"),
        (2, "3", r"decision 2 .*: '3' is not an integer"),
        (2, None, r"decision 2 .*: None is not an integer"),
    ],
)
def test_decode_names_the_decision(decision, value, message):
    arch: list = list(CHAIN)
    arch[decision] = value
    with pytest.raises(ValueError, match=message):
        spaces.enas_micro().decode(arch)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (CHAIN[:-1], r"shape \[39\]; expected \[40\] for cells of 5 nodes"),
        ([CHAIN], r"shape \[1, 40\]; expected \[40\]"),
        (3, r"shape \[\]; expected \[40\]"),
        (jnp.asarray(CHAIN, jnp.float32), r"decision 0 .*: 1\.0 is not an integer"),
    ],
)
def test_decode_refuses_other_arrays(arch, message):
    with pytest.raises(ValueError, match=message):
        spaces.enas_micro().decode(arch)


@pytest.mark.parametrize("num_nodes", [1, 2, 5, 7])
def test_encode_inverts_decode(num_nodes):
    space = spaces.enas_micro(num_nodes)
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(num_nodes), 20))
    for arch in np.asarray(archs):
        genotype = space.decode(arch)
        assert genotypes.check(genotype) == genotype
        encoded = space.encode(genotype)
        assert encoded.dtype == jnp.int32
        np.testing.assert_array_equal(encoded, arch)


def test_encode_of_a_published_genotype():
    genotype = genotypes.named("ENAS")
    arch = spaces.enas_micro().encode(genotype)
    # Node 6 of the reduction cell: sep_conv_3x3 of node 5, sep_conv_5x5 of node 0.
    assert arch[-4:].tolist() == [5, 0, 3, 4]
    assert spaces.enas_micro().decode(arch) == genotype


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        (genotypes.named("DARTS"), "normal cell: found 4 nodes; expected 5"),
        (
            genotypes.named("NASNet"),
            "reduction cell, node 2, second edge: sep_conv_7x7 is not in the space; "
            "expected one of skip_connect, avg_pool_3x3",
        ),
        (
            genotypes.named("ENAS")._replace(reduce_concat=(3, 6)),
            r"reduction cell, concat: found \[3, 6\]; expected the loose ends "
            r"\[2, 3, 6\]",
        ),
        (
            genotypes.named("ENAS")._replace(normal_concat=(6, 5, 4, 3, 2)),
            r"normal cell, concat: found \[6, 5, 4, 3, 2\]; expected the loose ends",
        ),
        (
            genotypes.named("ENAS")._replace(normal=()),
            r"normal cell: found 0 \(op, source\) pairs",
        ),
    ],
)
def test_encode_refuses_genotypes_outside_the_space(genotype, message):
    with pytest.raises(ValueError, match=message):
        spaces.enas_micro().encode(genotype)


def test_enas_macro_has_the_size_of_the_paper():
    space = spaces.enas_macro()
    assert space.cardinalities[:10] == (6, 6, 2, 6, 2, 2, 6, 2, 2, 2)
    assert len(space.cardinalities) == 78
    assert space.num_architectures == 160618186625454535808756219904
    assert len(spaces.enas_macro(24).cardinalities) == 300
    assert space.ops == genotypes.MACRO_OPS
    assert space == spaces.enas_macro(12) and hash(space) == hash(spaces.enas_macro(12))


def test_enas_recurrent_has_the_size_of_its_code():
    space = spaces.enas_recurrent()
    assert space.cardinalities[:7] == (4, 1, 4, 2, 4, 3, 4)
    assert len(space.cardinalities) == 23
    assert space.num_architectures == 669692775628800
    assert space.activations == ("tanh", "relu", "identity", "sigmoid")


def test_darts_recurrent_leaves_node_0_out():
    space = spaces.darts_recurrent()
    assert space.cardinalities == (1, 4, 2, 4, 3, 4, 4, 4, 5, 4, 6, 4, 7, 4, 8, 4)
    assert space.num_architectures == 2_642_411_520
    assert space.num_nodes == 9
    genotype = spaces.darts_recurrent(3).decode([0, 3, 1, 2, 0, 1])
    assert genotype == genotypes.RecurrentGenotype(
        ("tanh", "identity", "sigmoid", "relu"), (0, 1, 0), "later_nodes"
    )


def test_macro_bits_select_the_stem_and_earlier_layers():
    # Layer 2 joins the stem, layer 3 the outputs of layers 0 and 1.
    genotype = spaces.enas_macro(4).decode([0, 1, 0, 2, 1, 0, 5, 0, 1, 1])
    assert genotype.ops == ("conv_3x3", "sep_conv_3x3", "conv_5x5", "max_pool_3x3")
    assert genotype.skips == ((), (), (0,), (1, 2))
    assert genotypes.check_macro(genotype) == genotype


def test_recurrent_nodes_read_their_sources():
    genotype = spaces.enas_recurrent(3).decode([3, 0, 1, 1, 2])
    assert genotype.activations == ("sigmoid", "relu", "identity")
    assert genotype.sources == (0, 1)
    assert genotypes.check_recurrent(genotype) == genotype


@pytest.mark.parametrize(
    "space",
    [
        *(spaces.enas_macro(1), spaces.enas_macro(2), spaces.enas_macro(12)),
        spaces.MacroSpace(5, ("max_pool_3x3", "conv_3x3")),
        *(spaces.enas_recurrent(1), spaces.enas_recurrent(12)),
        spaces.RecurrentSpace(4, ("relu", "tanh")),
        *(spaces.darts_recurrent(1), spaces.darts_recurrent()),
        spaces.RecurrentSpace(4, ("relu", "identity"), "tanh"),
        spaces.RecurrentSpace(3, ("relu", "tanh"), averaged="later_nodes"),
    ],
    ids=str,
)
def test_encode_inverts_decode_in_every_space(space):
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(1), 10))
    for arch in np.asarray(archs):
        genotype = space.decode(arch)
        assert genotypes.check(genotype) == genotype
        encoded = space.encode(genotype)
        assert encoded.dtype == jnp.int32 and not encoded.weak_type
        np.testing.assert_array_equal(encoded, arch)


def test_spaces_and_scripts_of_enas_agree():
    macro, recurrent = map(genotypes.named, ("ENAS_MACRO", "ENAS_RECURRENT"))
    arch = spaces.enas_macro(24).encode(macro)
    assert tuple(arch.tolist()) == genotypes.to_enas_macro(macro)
    assert genotypes.from_enas_macro(arch) == macro
    arch = spaces.enas_recurrent().encode(recurrent)
    assert tuple(arch.tolist()) == genotypes.to_enas_recurrent(recurrent)
    assert genotypes.from_enas_recurrent(arch) == recurrent
    for name in ("ENAS_LM_RECURRENT", "DARTS_V1_RECURRENT", "DARTS_V2_RECURRENT"):
        arch = spaces.darts_recurrent().encode(genotypes.named(name))
        assert tuple(arch.tolist()) == genotypes.to_enas_lm(genotypes.named(name))
    arch = spaces.enas_micro().encode(genotypes.named("ENAS_MICRO"))
    script = genotypes.to_enas_micro(spaces.enas_micro().decode(arch))
    assert genotypes.from_enas_micro(script) == genotypes.named("ENAS_MICRO")


@pytest.mark.parametrize(
    ("space", "decision", "value", "message"),
    [
        (spaces.enas_macro(4), 6, 6, r"decision 6 \(layer 3, op\): 6 is not in 0..5"),
        (
            spaces.enas_macro(4),
            7,
            2,
            r"decision 7 \(layer 3, skip from the stem\): 2 is not in 0\.\.1",
        ),
        (
            spaces.enas_macro(4),
            9,
            -1,
            r"decision 9 \(layer 3, skip from layer 1\): -1 is not in 0\.\.1",
        ),
        (spaces.enas_macro(4), 0, 0.0, r"decision 0 \(layer 0, op\): 0.0 is not an"),
        (
            spaces.enas_recurrent(3),
            3,
            2,
            r"decision 3 \(node 2, source\): 2 is not in 0..1",
        ),
        (
            spaces.enas_recurrent(3),
            0,
            4,
            r"decision 0 \(node 0, activation\): 4 is not in 0\.\.3",
        ),
        (spaces.enas_recurrent(3), 4, "1", r"\(node 2, activation\): '1' is not an"),
        (
            spaces.darts_recurrent(2),
            2,
            2,
            r"decision 2 \(node 2, source\): 2 is not in 0\.\.1",
        ),
        (spaces.darts_recurrent(2), 1, 4, r"1 \(node 1, activation\): 4 is not in"),
    ],
)
def test_every_space_names_the_decision(space, decision, value, message):
    arch: list = [0] * len(space.cardinalities)
    arch[decision] = value
    with pytest.raises(ValueError, match=message):
        space.decode(arch)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.enas_macro(3), r"shape \[5\]; expected \[6\] for 3 layers"),
        (spaces.enas_recurrent(4), r"shape \[5\]; expected \[7\] for 4 nodes"),
        (spaces.darts_recurrent(3), r"shape \[5\]; expected \[6\] for 4 nodes"),
    ],
)
def test_every_space_refuses_other_shapes(space, message):
    with pytest.raises(ValueError, match=message):
        space.check(np.zeros(5, np.int32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spaces.enas_macro(0), "num_layers is 0; expected an integer of at"),
        (lambda: spaces.enas_macro(True), "num_layers is True; expected an integer"),
        (lambda: spaces.enas_recurrent(-1), "num_nodes is -1; expected an integer"),
        (
            lambda: spaces.MacroSpace(3, ("skip_connect",)),
            "ops holds 'skip_connect'; expected some of conv_3x3",
        ),
        (
            lambda: spaces.RecurrentSpace(3, ("tanh", "tanh")),
            "expected distinct activations",
        ),
        (lambda: spaces.darts_recurrent(0), "num_later_nodes is 0; expected an integ"),
        (
            lambda: spaces.RecurrentSpace(1, ("tanh",), "tanh"),
            "num_nodes is 1; expected an integer of at least 2",
        ),
        (
            lambda: spaces.RecurrentSpace(3, ("tanh",), "elu"),
            "first_activation is 'elu'; expected None or one of tanh, relu, identity",
        ),
        (
            lambda: spaces.RecurrentSpace(3, ("tanh",), ""),
            "first_activation is ''; expected None or one of tanh",
        ),
        (
            lambda: spaces.RecurrentSpace(1, ("tanh",), averaged="later_nodes"),
            "averaged is 'later_nodes'; expected 'loose_ends' for a cell of one node",
        ),
    ],
)
def test_spaces_refuse_wrong_sizes_and_choices(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("space", "genotype", "message"),
    [
        (
            spaces.enas_macro(12),
            genotypes.named("ENAS_MACRO"),
            "found 24 layers; expected 12",
        ),
        (
            spaces.MacroSpace(2, ("conv_3x3",)),
            genotypes.MacroGenotype(("conv_3x3", "conv_5x5"), ((), ())),
            "layer 1: conv_5x5 is not in the space; expected one of conv_3x3",
        ),
        (
            spaces.enas_macro(2),
            genotypes.named("ENAS"),
            "found a Genotype; expected a MacroGenotype",
        ),
        (
            spaces.enas_recurrent(8),
            genotypes.named("ENAS_RECURRENT"),
            "found 12 nodes; expected 8",
        ),
        (
            spaces.RecurrentSpace(2, ("tanh", "relu")),
            genotypes.RecurrentGenotype(("tanh", "sigmoid"), (0,)),
            "node 1: sigmoid is not in the space; expected one of tanh, relu",
        ),
        (
            spaces.darts_recurrent(),
            genotypes.named("DARTS_V2_RECURRENT")._replace(activations=("relu",) * 9),
            "node 0: relu is not in the space; expected one of tanh",
        ),
        (
            spaces.darts_recurrent(11),
            genotypes.named("ENAS_RECURRENT"),
            "averaged is 'loose_ends'; expected 'later_nodes'",
        ),
        (
            spaces.enas_recurrent(9),
            genotypes.named("ENAS_LM_RECURRENT"),
            "averaged is 'later_nodes'; expected 'loose_ends'",
        ),
    ],
)
def test_every_space_refuses_genotypes_outside_it(space, genotype, message):
    with pytest.raises(ValueError, match=message):
        space.encode(genotype)
