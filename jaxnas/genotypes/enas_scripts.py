"""The lists of integers by which the official scripts of ENAS fix an architecture.

Pham et al. (2018); the variables `fixed_arc` of the scripts of its official code. In
the macro and recurrent scripts an architecture is written as in the search spaces of
that name; the cells of the micro scripts have their own order. `enas_lm`, the corrected
language model of the same authors, writes its cells as `spaces.darts_recurrent`.
"""

import math
import re
from collections.abc import Iterable, Sequence

from jaxnas._checks import is_integer
from jaxnas.genotypes.cells import Edge, Genotype, check_cells, edge_name, loose_ends
from jaxnas.genotypes.macro import MACRO_OPS, MacroGenotype, check_macro
from jaxnas.genotypes.recurrent import (
    ACTIVATIONS,
    ENAS_LM_ACTIVATIONS,
    RecurrentGenotype,
    check_recurrent,
)

# Brackets of Python and NumPy, and how shell scripts assign the variable line by line.
_AROUND = re.compile(r"(?:\$\{?)?\bfixed_arc\b\}?=?|[\[\](){}\"';]")
_CELLS = ("normal cell", "reduction cell")
_MICRO_OPS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
    "skip_connect",
)
# Of a recurrent cell where the integers can be something else as well: 12 nodes.
_MOST_INTEGERS = 24


def from_enas(
    script: str | Iterable[int],
) -> Genotype | MacroGenotype | RecurrentGenotype:
    """Read the integers of any ENAS script, told apart by their number and their range.

    Args:
      script: what `from_enas_micro`, `from_enas_macro`, `from_enas_recurrent` or
        `from_enas_lm` reads.

    Returns:
      The genotype of the only kind that the integers can be. More than 24 are a
      recurrent cell only if they can be nothing else.

    Raises:
      ValueError: if they can be none, saying why, or several.
    """
    integers = _integers(script)
    found, faults = [], []
    for read in (from_enas_micro, from_enas_macro, from_enas_recurrent, from_enas_lm):
        try:
            found.append(read(integers))
        except ValueError as error:
            faults.append(f"{read.__name__}: {error}")
    if not found:
        raise ValueError(f"no ENAS script; {'; '.join(faults)}")
    if len(found) > 1 and len(integers) > _MOST_INTEGERS:
        found = [g for g in found if not isinstance(g, RecurrentGenotype)]
    if len(found) > 1:
        kinds = " or a ".join(type(genotype).__name__ for genotype in found)
        raise ValueError(
            f"the {len(integers)} integers are a {kinds}; expected a file that "
            "genotypes.save has written"
        )
    return found[0]


def from_enas_micro(script: str | Iterable[int]) -> Genotype:
    """Read two cells from the integers of an ENAS script.

    Args:
      script: for every node the numbers of its first input, first operation, second
        input and second operation; the nodes of the normal cell, then as many of the
        reduction cell. Text as the scripts and their logs have it, or the
        integers. Operations count separable convolutions 3x3 and 5x5, average and
        maximum pooling, and identity from 0.

    Returns:
      The genotype; its concats are the loose ends.

    Raises:
      ValueError: naming the integer that is out of range or none.
    """
    integers = _integers(script)
    if not integers or len(integers) % 8:
        raise ValueError(
            f"found {len(integers)} integers; expected four for every node of two "
            "cells, such as 40 for cells of 5 nodes"
        )
    half = len(integers) // 2
    cells = []
    for start, cell in zip((0, half), _CELLS, strict=True):
        pairs: list[Edge] = []
        for i in range(half // 2):
            at = start + 2 * i
            place = f"{cell}, {edge_name(i)}"
            source = _expect(integers, at, 2 + i // 2, f"{place}, input")
            op = _expect(integers, at + 1, len(_MICRO_OPS), f"{place}, operation")
            pairs.append((_MICRO_OPS[op], source))
        cells += [tuple(pairs), loose_ends(pairs)]
    return Genotype(*cells)


def to_enas_micro(genotype: Genotype) -> tuple[int, ...]:
    """Write two cells as the integers of an ENAS script.

    Args:
      genotype: cells of equally many nodes over the five operations of ENAS, whose
        concats are the loose ends in ascending order.

    Returns:
      The integers that `from_enas_micro` reads.

    Raises:
      ValueError: if no script can hold the genotype, naming the place.
    """
    normal, normal_concat, reduce, reduce_concat = check_cells(genotype)
    if len(normal) != len(reduce):
        raise ValueError(
            f"found {len(normal) // 2} nodes in the normal cell and "
            f"{len(reduce) // 2} in the reduction cell; expected equally many"
        )
    integers: list[int] = []
    cells = ((normal, normal_concat), (reduce, reduce_concat))
    for cell, (pairs, concat) in zip(_CELLS, cells, strict=True):
        if concat != loose_ends(pairs):
            raise ValueError(
                f"{cell}, concat: found {list(concat)}; expected the loose ends "
                f"{list(loose_ends(pairs))}"
            )
        for i, (op, source) in enumerate(pairs):
            if op not in _MICRO_OPS:
                raise ValueError(
                    f"{cell}, {edge_name(i)}: {op} is not an operation of the ENAS "
                    f"scripts; expected one of {', '.join(_MICRO_OPS)}"
                )
            integers += [source, _MICRO_OPS.index(op)]
    return tuple(integers)


def from_enas_macro(script: str | Iterable[int]) -> MacroGenotype:
    """Read a chain of layers from the integers of an ENAS script.

    Args:
      script: for every layer k from 0 its operation, numbered as in `MACRO_OPS`, then
        k bits that say which of the sources 0 to k-1 it joins; source 0 is the stem
        and source i the output of layer i-1. Text as the scripts and their logs have
        it, or the integers.

    Returns:
      The genotype.

    Raises:
      ValueError: naming the integer that is out of range or none.
    """
    integers = _integers(script)
    num_layers = (math.isqrt(8 * len(integers) + 1) - 1) // 2
    if not integers or num_layers * (num_layers + 1) // 2 != len(integers):
        raise ValueError(
            f"found {len(integers)} integers; expected 1 + k for every layer k from 0, "
            "such as 78 for 12 layers"
        )
    ops, skips, start = [], [], 0
    for k in range(num_layers):
        op = _expect(integers, start, len(MACRO_OPS), f"layer {k}, operation")
        bits = [
            _expect(integers, start + 1 + i, 2, f"layer {k}, skip from source {i}")
            for i in range(k)
        ]
        ops.append(MACRO_OPS[op])
        skips.append(tuple(i for i, bit in enumerate(bits) if bit))
        start += 1 + k
    return MacroGenotype(tuple(ops), tuple(skips))


def to_enas_macro(genotype: MacroGenotype) -> tuple[int, ...]:
    """Write a chain of layers as the integers of an ENAS script.

    Args:
      genotype: the genotype.

    Returns:
      The integers that `from_enas_macro` reads, 300 for 24 layers.

    Raises:
      ValueError: if the genotype is invalid, naming the layer.
    """
    integers: list[int] = []
    for k, (op, skips) in enumerate(zip(*check_macro(genotype), strict=True)):
        integers += [MACRO_OPS.index(op), *(int(i in skips) for i in range(k))]
    return tuple(integers)


def from_enas_recurrent(script: str | Iterable[int]) -> RecurrentGenotype:
    """Read a recurrent cell from the integers of an ENAS script.

    Args:
      script: the activation of node 0, numbered as in `ACTIVATIONS`, then for every
        later node the node it reads and its activation. Text as the scripts and
        their logs have it, or the integers. `from_enas_lm` reads those of the corrected
        language model.

    Returns:
      The genotype, which averages the loose ends.

    Raises:
      ValueError: naming the integer that is out of range or none.
    """
    integers = _integers(script)
    if len(integers) % 2 == 0:
        raise ValueError(
            f"found {len(integers)} integers; expected one for the first node and two "
            "for every later node, such as 23 for 12 nodes"
        )
    first = _expect(integers, 0, len(ACTIVATIONS), "node 0, activation")
    later, sources = _later_nodes(integers, 1, ACTIVATIONS)
    return RecurrentGenotype((ACTIVATIONS[first], *later), sources)


def to_enas_recurrent(genotype: RecurrentGenotype) -> tuple[int, ...]:
    """Write a recurrent cell as the integers of an ENAS script.

    Args:
      genotype: a cell that averages the loose ends.

    Returns:
      The integers that `from_enas_recurrent` reads, 23 for 12 nodes.

    Raises:
      ValueError: if the genotype is invalid, naming the node, or averages other nodes.
    """
    activations, sources, averaged = check_recurrent(genotype)
    if averaged != "loose_ends":
        raise ValueError(f"averaged is {averaged!r}; expected 'loose_ends'")
    first, *later = (ACTIVATIONS.index(name) for name in activations)
    pairs = zip(sources, later, strict=True)
    return (first, *(integer for pair in pairs for integer in pair))


def from_enas_lm(script: str | Iterable[int]) -> RecurrentGenotype:
    """Read a recurrent cell from the integers of the corrected language model of ENAS.

    Args:
      script: for every node but the first the node it reads and its activation,
        numbered as in `ENAS_LM_ACTIVATIONS`; 16 for the published cell. Text or the
        integers.

    Returns:
      The genotype, whose node 0 has tanh and which averages all later nodes.

    Raises:
      ValueError: naming the integer that is out of range or none.

    Source: `enas_lm` of google-research, flag `fixed_arc`.
    """
    integers = _integers(script)
    if not integers or len(integers) % 2:
        raise ValueError(
            f"found {len(integers)} integers; expected two for every node but the "
            "first, such as 16 for 9 nodes"
        )
    later, sources = _later_nodes(integers, 0, ENAS_LM_ACTIVATIONS)
    return RecurrentGenotype(("tanh", *later), sources, "later_nodes")


def to_enas_lm(genotype: RecurrentGenotype) -> tuple[int, ...]:
    """Write a recurrent cell as the integers of the corrected language model of ENAS.

    Args:
      genotype: a cell whose node 0 has tanh and which averages all later nodes.

    Returns:
      The integers that `from_enas_lm` reads, 16 for 9 nodes.

    Raises:
      ValueError: if the genotype is invalid or another cell, naming the place.
    """
    activations, sources, averaged = check_recurrent(genotype)
    if averaged != "later_nodes":
        raise ValueError(f"averaged is {averaged!r}; expected 'later_nodes'")
    if activations[0] != "tanh":
        raise ValueError(f"node 0: activation {activations[0]}; expected tanh")
    later = map(ENAS_LM_ACTIVATIONS.index, activations[1:])
    pairs = zip(sources, later, strict=True)
    return tuple(integer for pair in pairs for integer in pair)


def _later_nodes(
    integers: Sequence[int], start: int, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Activations and sources of the nodes but the first, read from `start` on."""
    activations, sources = [], []
    for node, at in enumerate(range(start, len(integers), 2), start=1):
        sources.append(_expect(integers, at, node, f"node {node}, source"))
        place = f"node {node}, activation"
        activations.append(names[_expect(integers, at + 1, len(names), place)])
    return tuple(activations), tuple(sources)


def _integers(script: str | Iterable[int]) -> list[int]:
    if isinstance(script, str):
        words = re.findall(r"[^\s,]+", _AROUND.sub(" ", script))
        for i, word in enumerate(words):
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", word):
                raise ValueError(f"integer {i}: {word[:40]!r} is not an integer")
        return [int(word) for word in words]
    if not isinstance(script, Iterable):
        raise ValueError(f"{script!r} is neither text nor a list of integers")
    integers: list[int] = []
    for i, value in enumerate(script):
        if not is_integer(value):
            raise ValueError(f"integer {i}: {value!r} is not an integer")
        integers.append(int(value))
    return integers


def _expect(integers: Sequence[int], at: int, end: int, place: str) -> int:
    if not 0 <= integers[at] < end:
        raise ValueError(
            f"integer {at} ({place}): {integers[at]} is not in 0..{end - 1}"
        )
    return integers[at]
