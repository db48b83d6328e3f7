"""Genotypes of autoencoders: what is accepted, refused and stored."""

from typing import Any

import numpy as np
import pytest

from jaxnas import genotypes

SMALL = genotypes.AutoencoderGenotype(
    kernels=(3, 1, 5), channels=(8, 4, 6), strides=(1, 2, 2), skips=(True, False, False)
)


def test_the_published_ones():
    celeba, svhn = map(genotypes.named, genotypes.AUTOENCODER_NAMES)
    # As they are written: S is stride 1, D is stride 2, Sum is a skip.
    written = (
        "S_128_3 D_64_3 S_128_5 D_128_1 S_256_5 D_256_1 S_64_5",
        "SSum_128_5 D_128_5 SSum_64_5 D_64_5 SSum_128_3 SSum_128_3 D_64_3",
    )
    for genotype, words in zip((celeba, svhn), written, strict=True):
        nodes = [word.split("_") for word in words.split()]
        assert genotype.channels == tuple(int(channels) for _, channels, _ in nodes)
        assert genotype.kernels == tuple(int(kernel) for *_, kernel in nodes)
        assert genotype.strides == tuple(1 + (kind == "D") for kind, *_ in nodes)
        assert genotype.skips == tuple(kind == "SSum" for kind, *_ in nodes)
        assert genotype.output_kernel == 1
        assert genotypes.check(genotype) == genotype


def test_check_normalizes_to_tuples_and_python_numbers():
    lists: Any = [3, np.int64(1), 5], [8, 4, 6], [1, 2, 2], [True, False, False]
    size: Any = np.int32(3)
    found = genotypes.AutoencoderGenotype(*lists, output_kernel=size)
    checked = genotypes.check_autoencoder(found)
    assert checked == SMALL
    assert all(type(field) is tuple for field in checked[:-1])
    assert {type(value) for value in (*checked.kernels, checked.output_kernel)} == {int}


def test_json_layout():
    text = genotypes.to_json(SMALL)
    assert text == (
        '{\n  "type": "autoencoder",\n  "kernels": [3, 1, 5],\n  "channels": [8, 4, 6],'
        '\n  "strides": [1, 2, 2],\n  "skips": [true, false, false],\n'
        '  "output_kernel": 3\n}\n'
    )
    assert genotypes.from_json(text) == SMALL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": ()}, "found the channels of 3 nodes; expected those of 0"),
        ({"kernels": 3}, "kernels is 3; expected a list"),
        ({"skips": (True,)}, "found the skips of 1 nodes; expected those of 3"),
        ({"kernels": (3, 2, 5)}, "node 1: the kernel is 2; expected one of 1, 3, 5"),
        ({"kernels": (3, 1, 7)}, "node 2: the kernel is 7; expected one of 1, 3, 5"),
        ({"kernels": (3, 1, 5.0)}, "node 2: the kernel is 5.0; expected one of 1, 3"),
        ({"channels": (8, 0, 6)}, "node 1: channels is 0; expected an integer of at"),
        ({"channels": (8, 4, "6")}, "node 2: channels is '6'; expected an integer"),
        ({"strides": (1, 2, 3)}, "node 2: the stride is 3; expected one of 1, 2"),
        ({"skips": (1, False, False)}, "node 0: skip is 1; expected true or false"),
        ({"skips": (True, True, False)}, "node 1: found a skip at stride 2; expected"),
        ({"output_kernel": 4}, "output_kernel is 4; expected one of 1, 3, 5"),
        ({"output_kernel": True}, "output_kernel is True; expected one of 1, 3, 5"),
    ],
)
def test_check_names_the_node(changes, message):
    with pytest.raises(ValueError, match=message):
        genotypes.check_autoencoder(SMALL._replace(**changes))


def test_no_node_and_another_kind():
    empty = genotypes.AutoencoderGenotype((), (), (), ())
    with pytest.raises(ValueError, match="kernels is empty; expected one for every"):
        genotypes.check_autoencoder(empty)
    with pytest.raises(ValueError, match="found a Genotype; expected an Autoencoder"):
        genotypes.check_autoencoder(genotypes.named("DARTS"))
