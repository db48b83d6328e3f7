"""Networks with exits as vectors: sizes, draws, the way to a genotype and back."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import genotypes, spaces

SPACE = spaces.anytime((6, 4, 3), (2, 3, 1), min_nodes=(3, 3, 1))
NETWORK = genotypes.AnytimeGenotype(
    ops=(("conv_1x1", "max_pool_3x3"), ("conv_5x5",), ("avg_pool_3x3",)),
    inputs=(((1,), (0, 2)), ((0, 1),), ((0,),)),
    scales=((1, 2), (2,), (2,)),
    exits=((3,), (2,), (2,)),
)
SMALL = spaces.anytime((3, 1, 1), (1, 1, 1), min_nodes=(2, 1, 1))
# For each node op, scale, exit and edges; the last node of block 0 is absent.
ARCH = [0, 1, 0, 0, 1, 3, 2, 1, 1, 0, 1, *[0] * 7, 2, 1, 1, 1, 1, 4, 0, 1, 1, 0]


@pytest.fixture(scope="module")
def archs():
    keys = jax.random.split(jax.random.key(0), 2000)
    return jax.jit(jax.vmap(SPACE.sample))(keys)


def test_the_published_sizes():
    space = spaces.anytime()
    assert space.num_nodes == space.min_nodes == (24, 16, 8)
    assert space.num_exits == (2, 4, 4)
    # Three decisions for each of the 48 nodes, and the edges.
    assert len(space.cardinalities) == 3 * 48 + 324 + 152 + 44
    assert space.cardinalities[:11] == (5, 3, 2, 2, 2, 5, 3, 2, 2, 2, 2)
    assert space.cardinalities[-12:-9] == (5, 1, 2)
    assert hash(space) == hash(spaces.anytime(min_nodes=(24, 16, 8)))
    training = spaces.anytime(min_nodes=(2, 4, 4))
    assert training.cardinalities == space.cardinalities
    assert training.num_architectures > space.num_architectures


def test_num_architectures_counts_the_valid_vectors():
    ops = ("conv_1x1",)
    space = spaces.AnytimeSpace((2, 1, 1), (1, 1, 1), (1, 1, 1), 0.5, ops)
    valid, others = 0, (0, 1, 1, 1, 0, 0, 0, 1, 0, 1)  # both other blocks
    for block in itertools.product(*map(range, space.cardinalities[:11])):
        arch = (*block, *others)
        try:
            genotype = space.decode(arch)
        except ValueError:
            continue
        np.testing.assert_array_equal(space.encode(genotype), arch)
        valid += 1
    # One node, which reads 3 ways; or two nodes, the first of any scale.
    assert valid == 3 + 3 * 3 * 7
    assert space.num_architectures == valid * 3 * 3


def test_samples_are_valid_and_come_back(archs):
    assert archs.dtype == np.int32
    for arch in archs[:50]:
        genotype = SPACE.decode(arch)
        np.testing.assert_array_equal(SPACE.encode(genotype), arch)
        assert [len(exits) for exits in genotype.exits] == [2, 3, 1]


def test_samples_follow_the_distribution(archs):
    num = len(archs)
    present = np.asarray(jax.vmap(lambda arch: SPACE.node_mask(arch, 0))(archs))
    sizes = np.bincount(present.sum(1) - 2, minlength=7)
    assert not sizes[:3].any()
    np.testing.assert_allclose(sizes[3:], num / 4, atol=5 * (num / 4) ** 0.5)
    ops = np.asarray(jax.vmap(lambda arch: SPACE.node_ops(arch, 0))(archs))[:, 0]
    np.testing.assert_allclose(np.bincount(ops), num / 5, atol=5 * (num / 5) ** 0.5)
    exits = np.asarray(jax.vmap(lambda arch: SPACE.has_exit(arch, 0))(archs))
    scales = np.asarray(jax.vmap(lambda arch: SPACE.node_scales(arch, 0))(archs))
    assert (scales[exits] == 2).all()
    # Of the first node of 3 to 6, with one exit to give to the last but one.
    share = np.mean([1 / 2, 1 / 3, 1 / 4, 1 / 5])
    np.testing.assert_allclose(exits[:, 0].mean(), share, atol=5 * 0.5 / num**0.5)
    others = np.bincount(scales[~exits[:, 0], 0], minlength=3)
    assert others.min() > 0.8 * others.sum() / 3
    edges = np.asarray(jax.vmap(lambda arch: SPACE.adjacency(arch, 0))(archs))
    mean = 2 * 0.45 + 0.55**2  # a node without inputs gets one
    degrees = edges[:, :, 2].sum(1)
    np.testing.assert_allclose(degrees.mean(), mean, atol=5 * 0.7 / num**0.5)


def test_sample_keeps_its_types_in_double_precision(x64):
    arch = jax.jit(SMALL.sample)(jax.random.key(0))
    assert arch.dtype == jnp.int32 and not arch.weak_type


def test_decode_and_encode_of_a_network():
    assert SMALL.decode(ARCH) == NETWORK
    np.testing.assert_array_equal(SMALL.encode(NETWORK), ARCH)


def test_the_graph_of_a_network():
    arch = SMALL.encode(NETWORK)
    assert np.argwhere(SMALL.adjacency(arch, 0)).tolist() == [[0, 3], [1, 2], [2, 3]]
    np.testing.assert_array_equal(SMALL.node_ops(arch, 0), [0, 3, 0])
    np.testing.assert_array_equal(SMALL.node_scales(arch, 1), [2])
    np.testing.assert_array_equal(SMALL.has_exit(arch, 0), [False, True, False])
    np.testing.assert_array_equal(SMALL.node_mask(arch, 0), [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(SMALL.is_leaf(arch, 0), [0, 0, 0, 1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: 5}, r"decision 0 \(block 0, node 2, op\): 5 is not in 0\.\.4"),
        ({10: 2}, r"decision 10 \(block 0, node 3, edge from node 2\): 2 is not"),
        ({19: 2}, r"decision 19 \(block 1, node 2, scale\): 2 is not in 0\.\.1"),
        ({2: 0.5}, r"decision 2 \(block 0, node 2, exit\): 0.5 is not an integer"),
        ({4: 0}, "block 0: node 2, inputs: no node"),
        ({11: 1}, "block 0: node 4 or one after it reads no node; expected all"),
        ({8: 0, 10: 0}, "block 0: node 3 or one after it reads no node"),
        ({2: 1}, r"block 0: the exits are \[2, 3\]; expected 1, the last at node 3"),
        ({2: 1, 7: 0}, r"block 0: the exits are \[2\]; expected 1, the last at node 3"),
        ({6: 1}, "block 0, node 3: found scale 1; expected scale 2 at an exit"),
    ],
)
def test_check_names_the_place(changes, message):
    arch = [changes.get(i, value) for i, value in enumerate(ARCH)]
    with pytest.raises(ValueError, match=message):
        SMALL.check(arch)


def test_check_refuses_a_wrong_length():
    with pytest.raises(
        ValueError, match=r"has shape \[2\]; expected \[28\] for blocks"
    ):
        SMALL.check([0, 1])


def test_encode_refuses_what_is_not_in_the_space():
    with pytest.raises(ValueError, match="block 0: found 2 nodes, inputs not counted;"):
        SPACE.encode(NETWORK)
    space = spaces.AnytimeSpace((2, 1, 1), (2, 1, 1), (1, 1, 1), 0.5, ("conv_1x1",))
    with pytest.raises(ValueError, match="block 0, node 3: max_pool_3x3 is not in the"):
        space.encode(NETWORK)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (((2, 2), (1, 1, 1)), {}, r"num_nodes is \(2, 2\); expected 3 numbers"),
        (((2, 2, 2), (1, 0, 1)), {}, "num_exits of block 1 is 0; expected .* 1"),
        (((2, 2, 2), (1, 3, 1)), {}, "min_nodes of block 1 is 2; expected .* 3"),
        (
            ((2, 2, 2), (1, 1, 1)),
            {"min_nodes": (3, 1, 1)},
            "num_nodes of block 0 is 2; expected an integer of at least 3",
        ),
        (((2, 2, 2), (1, 1, 1), 0.0), {}, "density is 0.0; expected a probability"),
    ],
)
def test_refuses_wrong_sizes(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        spaces.anytime(*arguments, **options)
