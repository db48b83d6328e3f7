"""Networks with random numbers for trained parameters, of each family."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import data, networks
from jaxnas.genotypes import (
    AnytimeGenotype,
    AutoencoderGenotype,
    DagGenotype,
    Genotype,
    MacroGenotype,
)

CELLS = Genotype(
    normal=(("sep_conv_3x3", 1), ("skip_connect", 0)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("avg_pool_3x3", 1)),
    reduce_concat=(2,),
)
MACRO = MacroGenotype(("sep_conv_3x3", "avg_pool_3x3", "conv_3x3"), ((), (0,), (1,)))
BLOCK = DagGenotype(("sep_conv_3x3", "max_pool_3x3"), ((0, 1), (0, 2)))
EXITS = AnytimeGenotype(
    ops=(("conv_1x1",), ("max_pool_3x3",), ("conv_3x3",)),
    inputs=(((0, 1),), ((0,),), ((1,),)),
    scales=((0,), (1,), (2,)),
    exits=((2,), (2,), (2,)),
)
RESTORER = AutoencoderGenotype((3,), (4,), (1,), (True,), 3)

NETWORKS: dict[str, Any] = {
    "cells": lambda **options: networks.micro(
        CELLS, 2, 7, 3, cell_output="projection", count_include_pad=True, **options
    ),
    "enas": lambda **options: networks.micro(
        CELLS, 2, 3, 3, skeleton="enas", **options
    ),
    "macro": lambda **options: networks.macro(MACRO, 2, 3, **options),
    "block": lambda **options: networks.dag(BLOCK, 2, 3, 3, dropout=0.25, **options),
    "exits": lambda **options: networks.anytime(EXITS, 2, 3, **options),
    "residual": lambda **options: networks.residual(2, 1, 3, **options),
}

_RANGES = {"scale": (0.5, 1.5), "mean": (-0.5, 0.5), "var": (0.1, 0.5)}


def variables_of(network, image_shape):
    """Random numbers in place of parameters and statistics."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(network.init, train=True)
    shapes = jax.eval_shape(init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        low, high = _RANGES.get(path[-1].key, (-0.5, 0.5))
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def trained(family="macro", image_shape=(8, 8, 3), **options):
    """A trained network of three classes."""
    network = NETWORKS[family](**options)
    channels = image_shape[2]
    image_format = data.ImageFormat(
        image_shape, "fit", (0.4,) * channels, (0.2,) * channels
    )
    return networks.TrainedNetwork(
        network,
        variables_of(network, image_shape),
        image_format,
        ("ant", "bee", "Käfer"),
        "folder",
        "images made for a test",
        {"accuracy": 0.75, "loss": 0.1},
    )
