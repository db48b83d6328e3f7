"""Genotypes of whole convolutional networks: a chain of layers with skips.

The macro space of ENAS (Pham et al. 2018, section 2.3). Source 0 is the stem and
source i the output of layer i-1. Layer k reads source k, the output just before it,
and joins its result with the earlier sources that it lists as skips.
"""

from typing import Any, NamedTuple

from jaxnas._checks import is_integer
from jaxnas.genotypes import kinds
from jaxnas.genotypes._values import check_names, is_list

MACRO_OPS = (
    "conv_3x3",
    "sep_conv_3x3",
    "conv_5x5",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
"""Every operation of a layer, numbered as in the official code of ENAS.

A separable convolution here is one depthwise and one pointwise convolution; that of a
cell repeats the two.
"""


class MacroGenotype(NamedTuple):
    """A chain of layers, each with an operation and skips from earlier outputs.

    Attributes:
      ops: operation of each layer, names of `MACRO_OPS`.
      skips: sources joined at each layer, ascending; at layer k they are in 0..k-1,
        because source k is the layer's own input.
    """

    ops: tuple[str, ...]
    skips: tuple[tuple[int, ...], ...]


def check_macro(genotype: MacroGenotype) -> MacroGenotype:
    """Check a macro genotype and normalize its lists to tuples.

    Args:
      genotype: a `MacroGenotype` whose fields may be lists, tuples or ranges.

    Returns:
      The same genotype, made of tuples, strings and Python integers only.

    Raises:
      ValueError: naming the layer and source at fault.
    """
    if not isinstance(genotype, MacroGenotype):
        raise ValueError(f"found a {type(genotype).__name__}; expected a MacroGenotype")
    ops = check_names(genotype.ops, MACRO_OPS, noun="operation", item="layer")
    if not is_list(genotype.skips):
        raise ValueError(f"{genotype.skips!r} is not a list of skips")
    if len(genotype.skips) != len(ops):
        raise ValueError(
            f"found the skips of {len(genotype.skips)} layers; expected those of "
            f"{len(ops)}, one list for every operation"
        )
    skips = (_check_skips(k, sources) for k, sources in enumerate(genotype.skips))
    return MacroGenotype(ops, tuple(skips))


kinds.register("macro", MacroGenotype, check_macro)


def _check_skips(layer: int, sources: Any) -> tuple[int, ...]:
    place = f"layer {layer}, skips"
    if not is_list(sources):
        raise ValueError(f"{place}: {sources!r} is not a list of sources")
    expected = f"expected some of 0 to {layer - 1}" if layer else "expected none"
    checked: list[int] = []
    for source in sources:
        if not is_integer(source):
            raise ValueError(f"{place}: source {source!r} is not an integer")
        if not 0 <= source < layer:
            raise ValueError(f"{place}: found source {source}; {expected}")
        if checked and source <= checked[-1]:
            raise ValueError(
                f"{place}: found source {source} after {checked[-1]}; expected "
                "ascending sources"
            )
        checked.append(int(source))
    return tuple(checked)
