"""The space of autoencoders: sizes, draws, both encodings and the way back."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import genotypes, spaces
from jaxnas.spaces import AutoencoderSpace

ENCODINGS = "categorical", "mixed"
# The third node of the first reads the image, and is read by the output.
SMALL = {
    "categorical": AutoencoderSpace(3, 2, (2, 4, 8)),
    "mixed": AutoencoderSpace(3, 2, (2, 8), "mixed"),
}
every_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


def drawn(space, num, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    return np.asarray(jax.jit(jax.vmap(space.sample))(keys))


def test_the_published_sizes():
    categorical, mixed = map(spaces.inpainting, ENCODINGS)
    assert len(categorical.cardinalities) == categorical.num_decisions == 63
    assert sum(size - 1 for size in categorical.cardinalities) == 214
    assert sum(size > 1 for size in categorical.cardinalities) == 60
    assert categorical.integers == ()
    assert categorical.cardinalities[:9] == (6, 3, 1, 6, 3, 2, 6, 3, 3)
    assert categorical.cardinalities[-6:] == (6, 3, 5, 1, 1, 5)
    assert len(mixed.cardinalities) == 41 and mixed.num_decisions == 81
    free = sum(size - 1 for size in mixed.cardinalities)
    assert (free, free + 2 * len(mixed.integers)) == (94, 174)
    assert mixed.cardinalities[:6] == (2, 1, 2, 2, 2, 3)
    assert mixed.cardinalities[-3:] == (2, 5, 5)
    assert mixed.integers == ((1, 3), (64, 256)) * 20


def test_number_of_architectures():
    # 6 operations, 3 numbers of channels; inputs of three nodes and of the output.
    inputs = 1 * 2 * 2 * 2
    assert SMALL["categorical"].num_architectures == (6 * 3) ** 3 * inputs
    assert SMALL["mixed"].num_architectures == (2 * 3 * 7) ** 3 * inputs


@every_encoding
def test_samples_are_uniform(encoding):
    space = SMALL[encoding]
    archs = drawn(space, 3000)
    is_mixed = encoding == "mixed"
    assert archs.dtype == (np.float32 if is_mixed else np.int32)
    bounds = [(0, size - 1) for size in space.cardinalities]
    bounds += space.integers
    assert archs.shape == (3000, len(bounds))
    for decision, (low, high) in enumerate(bounds):
        values, counts = np.unique(archs[:, decision], return_counts=True)
        np.testing.assert_array_equal(values, np.arange(low, high + 1))
        expected = 3000 / (high - low + 1)
        np.testing.assert_allclose(counts, expected, atol=5 * (3000 / 4) ** 0.5)


@every_encoding
def test_active_nodes_of_uniform_draws(encoding):
    space = spaces.inpainting(encoding)
    lengths = [len(space.decode(arch).kernels) for arch in drawn(space, 300)]
    assert min(lengths) == 4 and max(lengths) <= 12
    # The standard deviation of a length is 1.4.
    assert abs(np.mean(lengths) - 6.7) < 5 * 1.4 / math.sqrt(300)


def test_categorical_decisions_are_those_of_the_official_code():
    # Operations: 1x1 with a skip, 1x1 of stride 2, 3x3 with a skip and so on.
    arch = [5, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 1]
    genotype = SMALL["categorical"].decode(arch)
    # The output reads node 2, which reads node 0, the earliest within reach.
    assert genotype == genotypes.AutoencoderGenotype(
        kernels=(5, 3), channels=(8, 4), strides=(2, 1), skips=(False, True)
    )
    # Node 1 reads the image or node 0.
    arch[-1] = 0
    assert SMALL["categorical"].decode(arch).kernels == (1,)
    arch[5] = 1
    assert SMALL["categorical"].decode(arch).kernels == (5, 1)


def test_mixed_integers_are_clipped_and_rounded_to_even():
    space = SMALL["mixed"]
    categories = [1, 0, 1, 1, 1, 1, 1]
    integers = [*(0.2, -7.0), *(2.5, 4.5), *(9.9, 5.5)]
    genotype = space.decode(categories + integers)
    assert genotype.kernels == (1, 3, 5) and genotype.channels == (2, 4, 6)
    assert genotype.skips == (True,) * 3 and genotype.strides == (1,) * 3
    # Category 0 is stride 2.
    strides = space.decode([0.0, 0, 0, 1, 1, 1, 1, *integers]).strides
    assert strides == (2, 2, 1)


@every_encoding
def test_choices_inside_jit_are_those_of_decode(encoding):
    space = spaces.inpainting(encoding)
    archs = drawn(space, 20).copy()
    if encoding == "mixed":  # as a searcher draws them
        noise = np.random.default_rng(0).normal(0, 100, (20, 40))
        archs[:, 41:] += noise.astype(np.float32)
    choices = jax.jit(jax.vmap(space.choices))(archs)
    assert all(leaf.dtype == np.int32 for leaf in choices)
    for arch, *each in zip(archs, *map(np.asarray, choices), strict=True):
        kernel, channels, skip, source, number = each
        found = []
        while number > 0:
            i = number - 1
            found.append(((1, 3, 5)[kernel[i]], channels[i], skip[i]))
            assert 0 <= source[i] < number <= source[i] + 5
            number = source[i]
        genotype = space.decode(arch)
        nodes = zip(genotype.kernels, genotype.channels, genotype.skips, strict=True)
        assert found[::-1] == list(nodes)


@every_encoding
@pytest.mark.parametrize(("num_nodes", "level_back"), [(20, 5), (3, 2), (4, 4), (6, 1)])
def test_decode_inverts_encode(encoding, num_nodes, level_back):
    space = AutoencoderSpace(num_nodes, level_back, (2, 4, 8), encoding)
    for arch in drawn(space, 10):
        genotype = space.decode(arch)
        assert genotypes.check(genotype) == genotype
        encoded = space.encode(genotype)
        assert encoded.dtype == arch.dtype and not encoded.weak_type
        space.check(encoded)
        assert space.decode(encoded) == genotype


@every_encoding
def test_a_published_genotype_is_in_the_space_but_for_its_output(encoding):
    space = spaces.inpainting(encoding)
    genotype = genotypes.named("ECAE_SVHN")
    with pytest.raises(ValueError, match="output_kernel is 1; expected 3 in the space"):
        space.encode(genotype)
    genotype = genotype._replace(output_kernel=3)
    assert space.decode(space.encode(genotype)) == genotype
    with pytest.raises(ValueError, match="node 0: found stride 1 without a skip"):
        space.encode(genotypes.named("ECAE_CELEBA"))


@pytest.mark.parametrize(
    ("encoding", "changes", "message"),
    [
        (
            "categorical",
            {"channels": (64,) * 6 + (65,)},
            "node 6: found 65 channels; .*",
        ),
        ("mixed", {"channels": (64,) * 6 + (63,)}, "node 6: found 63 .* 64 to 256"),
        ("mixed", {"channels": (257,) + (64,) * 6}, "node 0: found 257 .* 64 to 256"),
    ],
)
def test_encode_names_the_node(encoding, changes, message):
    genotype = genotypes.named("ECAE_SVHN")._replace(output_kernel=3, **changes)
    with pytest.raises(ValueError, match=message):
        spaces.inpainting(encoding).encode(genotype)


@pytest.mark.parametrize("length", [3, 21])
def test_chains_that_are_too_short_or_too_long(length):
    genotype = genotypes.AutoencoderGenotype(
        (3,) * length, (64,) * length, (1,) * length, (True,) * length
    )
    with pytest.raises(ValueError, match=f"found {length} nodes; expected 4 to 20"):
        spaces.inpainting().encode(genotype)


@pytest.mark.parametrize(
    ("encoding", "decision", "value", "message"),
    [
        ("categorical", 0, 6, r"decision 0 \(node 0, operation\): 6 is not in 0\.\.5"),
        ("categorical", 4, -1, r"decision 4 \(node 1, channels\): -1 is not in 0..2"),
        ("categorical", 5, 0.0, r"decision 5 \(node 1, input\): 0.0 is not an int"),
        ("categorical", 11, 2, r"decision 11 \(output, input\): 2 is not in 0\.\.1"),
        ("mixed", 0, 2, r"decision 0 \(node 0, skip\): 2 is not in 0\.\.1"),
        ("mixed", 3, 0.5, r"decision 3 \(node 1, input\): 0.5 is not an integer"),
        ("mixed", 6, 2, r"decision 6 \(output, input\): 2 is not in 0\.\.1"),
        ("mixed", 7, math.nan, r"\(node 0, kernel\): nan is not a finite number"),
        ("mixed", 12, math.inf, r"\(node 2, channels\): inf is not a finite number"),
        ("mixed", 12, "8", r"decision 12 \(node 2, channels\): '8' is not a finite"),
        ("mixed", 1, None, r"decision 1 \(node 0, input\): None is not a finite"),
    ],
)
def test_check_names_the_decision(encoding, decision, value, message):
    arch: list = [0] * SMALL[encoding].num_decisions
    arch[decision] = value
    with pytest.raises(ValueError, match=message):
        SMALL[encoding].decode(arch)


@every_encoding
def test_check_refuses_other_shapes_and_takes_any_array(encoding):
    space = SMALL[encoding]
    with pytest.raises(
        ValueError, match=r"shape \[5\]; expected \[1[23]\] for 3 nodes"
    ):
        space.check(np.zeros(5, np.int32))
    arch = drawn(space, 1)[0]
    expected = space.decode(arch)
    for same in (arch.tolist(), jnp.asarray(arch), [jnp.asarray(v) for v in arch]):
        assert space.decode(same) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level_back": 0}, "level_back is 0; expected an integer of at least 1"),
        ({"num_nodes": 4}, "num_nodes is 4; expected an integer of at least 5"),
        ({"num_nodes": 20.0}, "num_nodes is 20.0; expected an integer"),
        ({"encoding": "int"}, "encoding is 'int'; expected 'categorical' or 'mixed'"),
        ({"channels": ()}, r"channels is \(\); expected 1 or more ascending integers"),
        ({"channels": (4, 2)}, r"channels is \(4, 2\); expected 1 or more ascending"),
        ({"channels": (2, 2)}, r"channels is \(2, 2\); expected 1 or more ascending"),
        ({"channels": (0, 2)}, r"channels is \(0, 2\); expected 1 or more ascending"),
        ({"channels": (2, 4.0)}, r"channels is \(2, 4.0\); expected 1 or more ascend"),
        ({"channels": (2,), "encoding": "mixed"}, "expected 2 or more ascending"),
    ],
)
def test_wrong_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(AutoencoderSpace(), **changes)
