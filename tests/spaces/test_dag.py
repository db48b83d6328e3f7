"""Blocks as vectors: sizes, draws, the way to a genotype and back, and the graph."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import genotypes, spaces

# Five nodes: 2 reads 0; 3 reads 0 and 1; 4 reads 1 and 3.
ARCH = [1, 1, 0, 0, 1, 1, 0, 7, 0, 1, 0, 1]
BLOCK = genotypes.DagGenotype(
    ops=("conv_1x1", "skip_connect", "max_pool_3x3"), inputs=((0,), (0, 1), (1, 3))
)


def samples(space: spaces.DagSpace, num: int) -> jax.Array:
    keys = jax.random.split(jax.random.key(0), num)
    return jax.jit(jax.vmap(space.sample))(keys)


def test_ghn_dag_has_the_size_of_the_paper():
    space = spaces.ghn_dag()
    assert space.cardinalities[:7] == (9, 2, 2, 9, 2, 2, 2)
    assert len(space.cardinalities) == 150
    assert space.cardinalities.count(2) == 135
    assert len(spaces.ghn_dag(7).cardinalities) == 25
    assert space.ops == genotypes.DAG_OPS
    assert space == spaces.ghn_dag(17, max_nodes=17, density=0.3)
    assert hash(space) == hash(spaces.ghn_dag(17))


def test_absent_nodes_have_no_choice():
    small, padded = spaces.ghn_dag(7), spaces.ghn_dag(7, max_nodes=17)
    assert padded.cardinalities == (*small.cardinalities, *[1] * 125)
    assert padded.num_architectures == small.num_architectures


def test_num_architectures_counts_the_valid_vectors():
    space = spaces.DagSpace(4, 4, 0.3, ("conv_1x1", "skip_connect"))
    valid = 0
    for arch in itertools.product(*map(range, space.cardinalities)):
        op_2, *read_2 = arch[:3]
        op_3, *read_3 = arch[3:]
        if any(read_2) and any(read_3):
            assert space.decode(arch).ops == (space.ops[op_2], space.ops[op_3])
            valid += 1
        else:
            with pytest.raises(ValueError, match="are all 0"):
                space.check(arch)
    assert space.num_architectures == valid == 84
    assert spaces.ghn_dag(4).num_architectures == 9 * 3 * 9 * 7


def test_samples_follow_the_distribution():
    space, num = spaces.ghn_dag(6, density=0.3), 4000
    archs = samples(space, num)
    assert archs.dtype == np.int32
    assert all(space.check(arch) is not None for arch in archs[:50])
    edges = np.asarray(jax.vmap(space.adjacency)(archs))
    ops = np.asarray(jax.vmap(space.node_ops)(archs))
    assert edges[:, :, 2:].any(axis=1).all()
    for node in range(2, 6):
        # Binomial, but a node without inputs gets one.
        mean = 0.3 * node + 0.7**node
        degrees = edges[:, :, node].sum(axis=1)
        np.testing.assert_allclose(
            degrees.mean(), mean, atol=5 * (0.25 * node / num) ** 0.5
        )
        # By symmetry, every earlier node is read equally often.
        shares = edges[:, :node, node].mean(axis=0)
        np.testing.assert_allclose(shares, mean / node, atol=5 * 0.5 / num**0.5)
        counts = np.bincount(ops[:, node - 2], minlength=9)
        assert counts.shape == (9,)
        np.testing.assert_allclose(counts, num / 9, atol=5 * (num / 9) ** 0.5)
    # Edges are independent of each other where no node was left without.
    joint = (edges[:, 0, 5] & edges[:, 1, 5]).mean()
    np.testing.assert_allclose(joint, 0.09, atol=5 * (0.09 / num) ** 0.5)


def test_density_sets_the_number_of_edges():
    dense = samples(spaces.ghn_dag(9, density=1), 3)
    edges = np.asarray(jax.vmap(spaces.ghn_dag(9).adjacency)(dense))
    expected = np.triu(np.ones((9, 9), bool), 1)
    expected[:, :2] = False
    np.testing.assert_array_equal(edges[0], expected)
    thin = samples(spaces.ghn_dag(9, density=1e-9), 20)
    edges = np.asarray(jax.vmap(spaces.ghn_dag(9).adjacency)(thin))
    assert (edges.sum(axis=1)[:, 2:] == 1).all()


def test_a_padded_sample_begins_with_the_small_one():
    small, padded = spaces.ghn_dag(7), spaces.ghn_dag(7, max_nodes=17)
    expected, found = samples(small, 5), samples(padded, 5)
    assert found.shape == (5, 150)
    np.testing.assert_array_equal(found[:, :25], expected)
    assert not found[:, 25:].any()
    assert padded.decode(found[0]) == small.decode(expected[0])


def test_sample_keeps_its_types_in_double_precision(x64):
    arch = spaces.ghn_dag(5, density=np.float64(0.3)).sample(jax.random.key(0))
    assert arch.dtype == jnp.int32


def test_sample_compiles_once():
    space, traces = spaces.ghn_dag(5), []

    @jax.jit
    def sample(key):
        traces.append(key)
        return space.sample(key)

    archs = [sample(jax.random.key(seed)) for seed in range(5)]
    assert len({tuple(arch.tolist()) for arch in archs}) == 5
    assert len(traces) == 1 and not archs[0].weak_type


def test_decode_and_encode_of_a_block():
    space = spaces.ghn_dag(5)
    assert space.decode(ARCH) == BLOCK
    assert space.decode(jnp.asarray(ARCH, jnp.int32)) == BLOCK
    assert space.encode(BLOCK).tolist() == ARCH
    padded = spaces.ghn_dag(5, max_nodes=7)
    assert padded.encode(BLOCK).tolist() == [*ARCH, *[0] * 13]
    assert padded.decode([*ARCH, *[0] * 13]) == BLOCK


@pytest.mark.parametrize(
    "space",
    [
        *(spaces.ghn_dag(3), spaces.ghn_dag(17), spaces.ghn_dag(4, max_nodes=6)),
        spaces.DagSpace(6, 6, 0.5, ("max_pool_3x3", "conv_1x1")),
    ],
    ids=str,
)
def test_encode_inverts_decode(space):
    for arch in samples(space, 5):
        genotype = space.decode(arch)
        assert genotypes.check(genotype) == genotype
        encoded = space.encode(genotype)
        assert encoded.dtype == jnp.int32 and not encoded.weak_type
        np.testing.assert_array_equal(encoded, arch)


def test_the_published_block_is_in_the_space():
    space, ghn = spaces.ghn_dag(), genotypes.named("GHN")
    arch = space.encode(ghn)
    assert space.decode(arch) == ghn
    assert int(space.adjacency(arch).sum()) == 40
    assert np.flatnonzero(space.is_leaf(arch)).tolist() == [2, 5, 10, 16]


@pytest.mark.parametrize("max_nodes", [5, 7])
def test_the_graph_of_a_vector(max_nodes):
    space = spaces.ghn_dag(max_nodes)
    # A larger space reads the block of a smaller one, and sees what is absent.
    arch = spaces.ghn_dag(5, max_nodes=max_nodes).encode(BLOCK)
    expected = np.zeros((max_nodes, max_nodes), bool)
    for source, target in ((0, 2), (0, 3), (1, 3), (1, 4), (3, 4)):
        expected[source, target] = True
    adjacency = jax.jit(space.adjacency)(arch)
    assert adjacency.dtype == bool
    np.testing.assert_array_equal(adjacency, expected)
    ops = jax.jit(space.node_ops)(arch)
    assert ops.dtype == jnp.int32
    assert ops.tolist() == [1, 0, 7, 0, 0][: max_nodes - 2]
    assert space.node_mask(arch).tolist() == [n < 5 for n in range(max_nodes)]
    assert space.is_leaf(arch).tolist() == [n in (2, 4) for n in range(max_nodes)]


def test_inputs_are_present_but_no_leaves():
    # Nobody reads node 0.
    arch = jnp.asarray([0, 0, 1], jnp.int32)
    space = spaces.ghn_dag(3)
    assert space.node_mask(arch).tolist() == [True, True, True]
    assert space.is_leaf(arch).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("decision", "value", "message"),
    [
        (3, 9, r"decision 3 \(node 3, op\): 9 is not in 0\.\.8"),
        (9, 2, r"decision 9 \(node 4, edge from node 1\): 2 is not in 0\.\.1"),
        (1, -1, r"decision 1 \(node 2, edge from node 0\): -1 is not in 0\.\.1"),
        (0, 1.0, r"decision 0 \(node 2, op\): 1\.0 is not an integer"),
        (2, True, r"decision 2 \(node 2, edge from node 1\): True is not an integer"),
        (1, 0, r"decisions 1 to 2 \(node 2, edges\) are all 0; expected an edge from"),
        (12, 3, r"decision 12 \(absent node 5, op\): 3 is not in 0\.\.0"),
        (17, 1, r"decision 17 \(absent node 5, edge from node 4\): 1 is not in 0\.\.0"),
        (24, 1, r"decision 24 \(absent node 6, edge from node 5\): 1 is not in"),
    ],
)
def test_decode_names_the_decision(decision, value, message):
    arch: list = [*ARCH, *[0] * 13]
    arch[decision] = value
    with pytest.raises(ValueError, match=message):
        spaces.ghn_dag(5, max_nodes=7).decode(arch)


def test_decode_refuses_other_lengths():
    with pytest.raises(ValueError, match=r"\[11\]; expected \[12\] for a block of at"):
        spaces.ghn_dag(5).decode(ARCH[:-1])


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        (genotypes.named("GHN"), "found 17 nodes, the two inputs included; expected 5"),
        (
            BLOCK._replace(ops=("conv_1x1", "conv_1x1", "sep_conv_3x3")),
            "node 4: sep_conv_3x3 is not in the space; expected one of conv_1x1, skip",
        ),
        (genotypes.named("ENAS_MACRO"), "found a MacroGenotype; expected a DagGenot"),
    ],
)
def test_encode_refuses_genotypes_outside_the_space(genotype, message):
    space = spaces.DagSpace(5, 9, 0.3, ("conv_1x1", "skip_connect"))
    with pytest.raises(ValueError, match=message):
        space.encode(genotype)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: spaces.ghn_dag(2),
            "num_nodes is 2; expected an integer of at least 3",
        ),
        (lambda: spaces.ghn_dag(True), "num_nodes is True; expected an integer"),
        (lambda: spaces.ghn_dag(7, max_nodes=6), "max_nodes is 6; .* of at least 7"),
        (lambda: spaces.ghn_dag(density=0), "density is 0; expected a probability"),
        (lambda: spaces.ghn_dag(density=1.1), "density is 1.1; expected a probability"),
        (lambda: spaces.ghn_dag(density=float("nan")), "density is nan; expected"),
        (
            lambda: spaces.DagSpace(5, 5, 0.3, ("none",)),
            "ops holds 'none'; expected some of skip_connect",
        ),
    ],
)
def test_spaces_refuse_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
