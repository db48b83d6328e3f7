"""Numbers of parameters: the sums of each family beside what is initialized."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import pytest

from jaxnas import genotypes, networks, spaces

IMAGE = (32, 32, 3)
traced_count = networks.count_params.dispatch(nn.Module)
"""What any network is counted by: its initialization is traced."""


def random_genotypes(space, num, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    return [space.decode(space.sample(key)) for key in keys]


def published(names):
    return [genotypes.named(name) for name in names]


# Every operation of cells, in both, from inputs and from a node; one edge twice.
EVERY_OP = genotypes.Genotype(
    normal=tuple((op, i % 2) for i, op in enumerate(genotypes.OPS)),
    normal_concat=(2, 4, 6),
    reduce=(
        *((op, 1) for op in genotypes.OPS),
        *((op, 2) for op in genotypes.OPS),
        *(("sep_conv_3x3", 1), ("sep_conv_3x3", 1)),
    ),
    reduce_concat=(3, 4),
)
EVERY_NODE = genotypes.DagGenotype(
    genotypes.DAG_OPS, ((0,), *((0, 2),) * (len(genotypes.DAG_OPS) - 1))
)
# Each genotype with one of the settings, in turn.
CELLS: list[dict[str, Any]] = [
    {},
    {"skeleton": "enas", "auxiliary": True},
    {"cell_output": "projection", "channels": 6},
    {"auxiliary": True, "num_cells": 3, "num_classes": 7},
    {"skeleton": "enas", "num_cells": 4, "channels": 3},
    {"stem_stride": 2, "num_cells": 8, "unroll": True},
    {"cell_output": "projection", "auxiliary": True, "num_cells": 7},
]
BLOCKS: list[dict[str, Any]] = [
    {},
    {"node_input": "each", "num_blocks": 3},
    {"node_input": "sum", "last_bottleneck": True, "num_blocks": 9},
    {"auxiliary": True, "num_classes": 7},
    {"skeleton": "imagenet", "num_blocks": 9, "channels": 3, "node_input": "each"},
    {"skeleton": "imagenet", "auxiliary": True, "last_bottleneck": True},
]


def in_turn(found, settings):
    return [
        pytest.param(genotype, settings[i % len(settings)], id=f"{i}")
        for i, genotype in enumerate(found)
    ]


def check(network, image_shape):
    assert networks.count_params(network, image_shape) == traced_count(
        network, image_shape
    )


@pytest.mark.parametrize(
    ("genotype", "options"),
    in_turn([EVERY_OP] * len(CELLS), CELLS)
    + in_turn(published(genotypes.NAMES), CELLS)
    + in_turn(random_genotypes(spaces.enas_micro(2), 7), CELLS),
)
def test_cells(genotype, options):
    options = {"channels": 4, "num_cells": 4} | options
    check(networks.micro(genotype, **options), IMAGE)


@pytest.mark.parametrize(
    ("genotype", "options"),
    in_turn(published(genotypes.DAG_NAMES), BLOCKS)
    + in_turn([EVERY_NODE] * len(BLOCKS), BLOCKS)
    + in_turn(random_genotypes(spaces.ghn_dag(4), 6), BLOCKS),
)
def test_blocks(genotype, options):
    options = {"channels": 4, "num_blocks": 4} | options
    side = 224 if options.get("skeleton") == "imagenet" else 32
    check(networks.dag(genotype, **options), (side, side, 1))


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize(
    "genotype",
    [
        *published(genotypes.MACRO_NAMES),
        *random_genotypes(spaces.enas_macro(3), 2),
        *random_genotypes(spaces.enas_macro(7), 3),
    ],
)
def test_chains_of_layers(genotype, separable):
    check(networks.macro(genotype, 6, 7, separable=separable), IMAGE)


@pytest.mark.parametrize("genotype", random_genotypes(spaces.anytime(), 3))
def test_networks_with_exits(genotype):
    network = networks.anytime(genotype, 6, 7)
    check(network, IMAGE)
    check(network.clone(num_exits=1), (8, 8, 1))


@pytest.mark.parametrize(
    "genotype",
    [
        *published(genotypes.AUTOENCODER_NAMES),
        *random_genotypes(spaces.inpainting("categorical"), 2),
        *random_genotypes(spaces.inpainting("mixed"), 2),
    ],
)
def test_autoencoders(genotype):
    network = networks.autoencoder(genotype)
    check(network, IMAGE)
    check(network, (4, 12, 1))  # some nodes are passed over


@pytest.mark.parametrize(
    ("network", "image_shape", "what"),
    [
        (networks.micro(EVERY_OP, 2, 3, auxiliary=True), (16, 32, 3), "8x8 .* not 4x8"),
        (
            networks.micro(EVERY_OP, 2, 3, auxiliary=True, stem_stride=2),
            (32, 32, 3),
            "8x8 .* not 4x4",
        ),
        (
            networks.dag(genotypes.named("GHN"), 2, 4, 10, auxiliary=True),
            (28, 28, 3),
            "8x8 .* not 7x7",
        ),
        (
            networks.dag(
                genotypes.named("GHN"), 2, 4, auxiliary=True, skeleton="imagenet"
            ),
            (96, 96, 3),
            "7x7 .* not 3x3",
        ),
    ],
)
def test_images_too_small_for_the_head(network, image_shape, what):
    with pytest.raises(ValueError, match=f"feature map of {what}"):
        networks.count_params(network, image_shape)


def test_nothing_is_traced_to_count(monkeypatch):
    monkeypatch.setattr(nn.Module, "init", None)
    for network in (
        networks.micro(genotypes.named("DARTS")),
        networks.dag(genotypes.named("GHN")),
        networks.macro(genotypes.named("ENAS_MACRO")),
        networks.autoencoder(genotypes.named("ECAE_SVHN")),
    ):
        assert networks.count_params(network, IMAGE) > 1e6


class Squares(nn.Module):
    """A network from elsewhere, whose parameters are no polynomial of degree 2."""

    channels: int
    power: int = 3

    @nn.compact
    def __call__(self, images, *, train):
        del train
        shape = (images.shape[-1], self.channels**self.power)
        return images.mean((1, 2)) @ self.param("kernel", nn.initializers.ones, shape)


def test_networks_from_elsewhere():
    assert networks.count_params(Squares(3), (2, 2, 2)) == 2 * 27
    for limit, channels in ((2, 1), (249, 4), (250, 5), (2 * 9**3 + 1, 9)):
        assert networks.channels_for_budget(Squares, limit, (2, 2, 2)) == channels
    with pytest.raises(ValueError, match="params_limit is 1; with a single channel"):
        networks.channels_for_budget(Squares, 1, (2, 2, 2))
    with pytest.raises(ValueError, match="have 2, 2 and 2 parameters with 1, 2 and 3"):
        constant = dataclasses.replace(Squares(1), power=0)
        networks.channels_for_budget(lambda n: constant, 9, (2, 2, 2))
