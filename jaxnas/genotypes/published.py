"""Published architectures by name."""

from typing import Any

from jaxnas.genotypes.autoencoder import AutoencoderGenotype
from jaxnas.genotypes.cells import Genotype
from jaxnas.genotypes.dag import DagGenotype
from jaxnas.genotypes.darts_text import from_darts
from jaxnas.genotypes.enas_scripts import (
    from_enas_lm,
    from_enas_macro,
    from_enas_micro,
    from_enas_recurrent,
)


def named(name: str) -> Any:
    """Look up a published architecture.

    Args:
      name: one of `NAMES`, `MACRO_NAMES`, `RECURRENT_NAMES`, `DAG_NAMES` or
        `AUTOENCODER_NAMES`.

    Returns:
      Its genotype, of the kind of its list. Sources of the cells: NASNet-A (Zoph et
      al. 2018), AmoebaNet-A (Real et al. 2019), DARTS of first and second order (Liu
      et al. 2019), SNAS with mild constraint (Xie et al. 2019), and the ENAS cells
      drawn by Pham et al. (2018); all as transcribed by Liu et al. (2019) and Shu et
      al. (2020). ENAS_MICRO, ENAS_MACRO and ENAS_RECURRENT are what the official ENAS
      scripts train from scratch. The cells of ENAS_MICRO are not those of ENAS: only
      node 6 of the normal cell is the same, and the reduction cell joins the nodes 2,
      4, 5 and 6 instead of 2, 3 and 6. ENAS_LM_RECURRENT is the cell that the authors'
      corrected language model has (google-research, `enas_lm/README.md`);
      DARTS_V1_RECURRENT and DARTS_V2_RECURRENT are those of DARTS of first and second
      order (Liu et al. 2019, `rnn/genotypes.py` of the official code). GHN is the best
      block for CIFAR-10 of Zhang et al. (2019, figure 6); which of its inputs is block
      i-1 the figure does not tell. ECAE_CELEBA and ECAE_SVHN are the autoencoders of
      Suganuma et al. (2018) for the center mask, from the files
      `model_arch_*_center.txt` of their official code. The former's nodes of stride 1
      have no skips.

    Raises:
      ValueError: if the name is unknown, listing those that exist.
    """
    published = _CELLS | _MACRO | _RECURRENT | _DAG | _AUTOENCODERS
    if name not in published:
        raise ValueError(
            f"{name!r} is not a named genotype; expected one of {', '.join(published)}"
        )
    return published[name]


# One node, that is two edges, per line.
# fmt: off
_NASNET = Genotype(
    normal=(
        ("sep_conv_5x5", 1), ("sep_conv_3x3", 0),
        ("sep_conv_5x5", 0), ("sep_conv_3x3", 0),
        ("avg_pool_3x3", 1), ("skip_connect", 0),
        ("avg_pool_3x3", 0), ("avg_pool_3x3", 0),
        ("sep_conv_3x3", 1), ("skip_connect", 1),
    ),
    normal_concat=(2, 3, 4, 5, 6),
    reduce=(
        ("sep_conv_5x5", 1), ("sep_conv_7x7", 0),
        ("max_pool_3x3", 1), ("sep_conv_7x7", 0),
        ("avg_pool_3x3", 1), ("sep_conv_5x5", 0),
        ("skip_connect", 3), ("avg_pool_3x3", 2),
        ("sep_conv_3x3", 2), ("max_pool_3x3", 1),
    ),
    reduce_concat=(4, 5, 6),
)
_AMOEBANET = Genotype(
    normal=(
        ("avg_pool_3x3", 0), ("max_pool_3x3", 1),
        ("sep_conv_3x3", 0), ("sep_conv_5x5", 2),
        ("sep_conv_3x3", 0), ("avg_pool_3x3", 3),
        ("sep_conv_3x3", 1), ("skip_connect", 1),
        ("skip_connect", 0), ("avg_pool_3x3", 1),
    ),
    normal_concat=(4, 5, 6),
    reduce=(
        ("avg_pool_3x3", 0), ("sep_conv_3x3", 1),
        ("max_pool_3x3", 0), ("sep_conv_7x7", 2),
        ("sep_conv_7x7", 0), ("avg_pool_3x3", 1),
        ("max_pool_3x3", 0), ("max_pool_3x3", 1),
        ("conv_7x1_1x7", 0), ("sep_conv_3x3", 5),
    ),
    reduce_concat=(3, 4, 6),
)
_DARTS_V1 = Genotype(
    normal=(
        ("sep_conv_3x3", 1), ("sep_conv_3x3", 0),
        ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0), ("skip_connect", 2),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1),
        ("skip_connect", 2), ("max_pool_3x3", 0),
        ("max_pool_3x3", 0), ("skip_connect", 2),
        ("skip_connect", 2), ("avg_pool_3x3", 0),
    ),
    reduce_concat=(2, 3, 4, 5),
)
_DARTS_V2 = Genotype(
    normal=(
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0),
        ("skip_connect", 0), ("dil_conv_3x3", 2),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1),
        ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2),
        ("skip_connect", 2), ("max_pool_3x3", 1),
    ),
    reduce_concat=(2, 3, 4, 5),
)
_SNAS_MILD = Genotype(
    normal=(
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("skip_connect", 0), ("dil_conv_3x3", 1),
        ("skip_connect", 0), ("skip_connect", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1),
        ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 1), ("skip_connect", 2),
        ("dil_conv_5x5", 2), ("max_pool_3x3", 0),
    ),
    reduce_concat=(2, 3, 4, 5),
)
_ENAS = Genotype(
    normal=(
        ("sep_conv_3x3", 1), ("skip_connect", 1),
        ("sep_conv_5x5", 1), ("skip_connect", 0),
        ("avg_pool_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0), ("avg_pool_3x3", 1),
        ("sep_conv_5x5", 1), ("avg_pool_3x3", 0),
    ),
    normal_concat=(2, 3, 4, 5, 6),
    reduce=(
        ("sep_conv_5x5", 0), ("avg_pool_3x3", 1),
        ("sep_conv_3x3", 1), ("avg_pool_3x3", 1),
        ("sep_conv_3x3", 1), ("avg_pool_3x3", 1),
        ("sep_conv_5x5", 4), ("avg_pool_3x3", 1),
        ("sep_conv_3x3", 5), ("sep_conv_5x5", 0),
    ),
    reduce_concat=(2, 3, 6),
)
_GHN = {  # inputs of each node, and its operation
    2: ((0,), "sep_conv_3x3"),
    3: ((0, 1), "skip_connect"),
    4: ((0, 1), "sep_conv_5x5"),
    5: ((1,), "sep_conv_3x3"),
    6: ((0, 1, 3, 4), "sep_conv_3x3"),
    7: ((0,), "sep_conv_3x3"),
    8: ((0, 1, 6), "sep_conv_3x3"),
    9: ((1, 6), "avg_pool_3x3"),
    10: ((0, 1, 7, 8), "max_pool_3x3"),
    11: ((7, 8), "sep_conv_3x3"),
    12: ((4, 8, 9), "avg_pool_3x3"),
    13: ((0, 1, 9, 11), "max_pool_3x3"),
    14: ((9,), "skip_connect"),
    15: ((3, 4, 9, 12, 13, 14), "sep_conv_3x3"),
    16: ((1, 4, 8, 15), "skip_connect"),
}
# fmt: on

# As the official scripts write them: one cell, layer or node per line.
_ENAS_MICRO = """
0 2 0 0  0 4 0 1  0 4 1 1  1 0 0 1  0 2 1 1
1 0 1 0  0 3 0 2  1 1 3 1  1 0 0 4  0 3 1 1
"""
_ENAS_MACRO = """
0
3 0
0 1 0
2 0 0 1
2 0 0 0 0
3 1 1 0 1 0
2 0 0 0 0 0 1
2 0 1 1 0 1 1 1
1 0 1 1 1 0 1 0 1
0 0 0 0 0 0 0 0 0 0
2 0 0 0 0 0 1 0 0 0 0
0 1 0 0 1 1 0 0 0 0 1 1
2 0 1 0 0 0 0 0 1 0 1 1 0
1 0 0 1 0 0 0 1 1 1 0 1 0 1
0 1 1 0 1 0 1 0 0 0 0 0 1 0 0
2 0 0 1 0 0 0 0 0 0 0 1 0 1 0 1
2 0 1 0 0 0 1 0 0 1 1 1 1 0 0 1 0
2 0 0 0 0 1 0 1 0 1 0 0 1 0 1 0 0 1
3 0 1 1 0 1 0 0 0 0 0 1 0 1 0 1 0 0 0
3 0 1 1 0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 1
0 1 0 0 1 0 1 1 0 0 0 1 0 0 0 0 0 1 1 0 0
3 0 1 0 1 1 0 0 1 0 1 1 0 1 1 0 1 0 0 1 0 0
0 1 0 1 0 1 0 0 0 0 0 0 0 0 1 0 1 0 0 1 0 0 0
0 1 1 0 0 0 1 1 1 0 1 0 0 0 1 0 1 0 0 1 1 0 0 0
"""
_ENAS_RECURRENT = "0  0 0  1 1  2 1  2 0  2 0  5 1  1 0  6 1  8 1  8 1  8 1"
_ENAS_LM_RECURRENT = "0 2  1 0  2 1  2 2  4 0  5 0  3 2  6 2"

# As the code of DARTS writes them.
_DARTS_V1_RECURRENT = """Genotype(recurrent=[
    ('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3),
    ('relu', 4), ('identity', 1), ('relu', 5), ('relu', 1),
], concat=range(1, 9))"""
_DARTS_V2_RECURRENT = """Genotype(recurrent=[
    ('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1),
    ('tanh', 2), ('sigmoid', 5), ('tanh', 3), ('relu', 5),
], concat=range(1, 9))"""

_CELLS = {
    "NASNet": _NASNET,
    "AmoebaNet": _AMOEBANET,
    "DARTS_V1": _DARTS_V1,
    "DARTS_V2": _DARTS_V2,
    "DARTS": _DARTS_V2,
    "SNAS_MILD": _SNAS_MILD,
    "ENAS": _ENAS,
    "ENAS_MICRO": from_enas_micro(_ENAS_MICRO),
}
_MACRO = {"ENAS_MACRO": from_enas_macro(_ENAS_MACRO)}
_RECURRENT = {
    "ENAS_RECURRENT": from_enas_recurrent(_ENAS_RECURRENT),
    "ENAS_LM_RECURRENT": from_enas_lm(_ENAS_LM_RECURRENT),
    "DARTS_V1_RECURRENT": from_darts(_DARTS_V1_RECURRENT),
    "DARTS_V2_RECURRENT": from_darts(_DARTS_V2_RECURRENT),
}
_DAG = {
    "GHN": DagGenotype(
        ops=tuple(op for _, op in _GHN.values()),
        inputs=tuple(inputs for inputs, _ in _GHN.values()),
    )
}
_AUTOENCODERS = {
    "ECAE_CELEBA": AutoencoderGenotype(
        kernels=(3, 3, 5, 1, 5, 1, 5),
        channels=(128, 64, 128, 128, 256, 256, 64),
        strides=(1, 2, 1, 2, 1, 2, 1),
        skips=(False,) * 7,
        output_kernel=1,
    ),
    "ECAE_SVHN": AutoencoderGenotype(
        kernels=(5, 5, 5, 5, 3, 3, 3),
        channels=(128, 128, 64, 64, 128, 128, 64),
        strides=(1, 2, 1, 2, 1, 1, 2),
        skips=(True, False, True, False, True, True, False),
        output_kernel=1,
    ),
}

NAMES = tuple(_CELLS)
"""The published cells that `named` knows; DARTS is DARTS_V2."""

MACRO_NAMES = tuple(_MACRO)
"""The published chains of layers that `named` knows."""

RECURRENT_NAMES = tuple(_RECURRENT)
"""The published recurrent cells that `named` knows."""

DAG_NAMES = tuple(_DAG)
"""The published blocks that `named` knows."""

AUTOENCODER_NAMES = tuple(_AUTOENCODERS)
"""The published autoencoders that `named` knows."""
