"""Genotypes as they are named on the command line."""

import os
import pathlib
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxnas.genotypes import Genotype

VARIANTS = (
    "conn1 (random connections, seed 1), conn1-10, ops1, ops1-10 (random operations), "
    "widest, narrowest, adapt (widest with the concats kept, as published), 2.5c-4 (of "
    "that width and depth), shapes (all of those), or files"
)
_SERIES = re.compile(r"(conn|ops)(\d+)(?:-(\d+))?")
_SHAPE = re.compile(r"(\d+(?:\.5)?)c-(\d+)")


def find_genotype(name_or_path: str, names: Sequence[str] = ()) -> Any:
    """The genotype of a file, of the text itself, or a published one.

    `FILE:LINE` is the genotype that starts at a line of a file with several. `names`
    are those that messages list, by default all convolutional networks.
    """
    from jaxnas import genotypes

    networks = *genotypes.NAMES, *genotypes.MACRO_NAMES, *genotypes.DAG_NAMES
    names = names or networks
    if not name_or_path:
        raise ValueError(
            "--genotype is missing: expected a file, such as the genotype.json of a "
            f"search, or one of {', '.join(names)}"
        )
    others = *genotypes.RECURRENT_NAMES, *genotypes.AUTOENCODER_NAMES
    if name_or_path in (*networks, *others):
        return genotypes.named(name_or_path)
    # False, not an error, for what is too long to be the name of a file.
    if os.path.exists(name_or_path):
        return genotypes.load(name_or_path)
    path, _, line = name_or_path.rpartition(":")
    if line.isdecimal() and os.path.exists(path):
        return genotypes.load(path, line=int(line))
    if re.search(r"[\s,(|]", name_or_path):  # no name, but the architecture
        try:
            return genotypes.from_text(name_or_path)
        except ValueError as error:
            raise ValueError(
                f"{shown(name_or_path)} is no file, and no genotype: {error}"
            ) from error
    raise ValueError(
        f"{shown(name_or_path)} is neither a file nor one of {', '.join(names)}"
    )


def find_of_kind(given: str, names: Sequence[str], kind: type, command: str) -> Any:
    """The genotype that `--genotype` names, which is to be of one kind.

    Args:
      given: what the flag says.
      names: published ones of the kind, which messages list.
      kind: its class.
      command: what finds such genotypes.
    """
    genotype = find_genotype(given, names)
    if not isinstance(genotype, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(
            f"--genotype {shown(given)} is a {type(genotype).__name__}; expected "
            f"{article} {kind.__name__}, as {command} finds it"
        )
    return genotype


def shown(given: str) -> str:
    """What a flag says, in a few words where it is a whole architecture."""
    return textwrap.shorten(given, 60)


def find_variants(genotype: "Genotype", words: Iterable[str]) -> dict[str, "Genotype"]:
    """The variants of two cells that a flag lists, by name.

    Raises:
      ValueError: if a word is none of `VARIANTS`, or a variant is listed twice.
    """
    variants: dict[str, Genotype] = {}
    for word in words:
        for name, variant in _variants(genotype, word).items():
            if name in variants:
                raise ValueError(f"--variants lists {name} twice")
            variants[name] = variant
    return variants


def _variants(genotype: "Genotype", word: str) -> dict[str, "Genotype"]:
    from jaxnas import genotypes

    if series := _SERIES.fullmatch(word):
        kind, first, last = series.groups()
        make = {
            "conn": genotypes.random_connections,
            "ops": genotypes.random_operations,
        }[kind]
        seeds = range(int(first), int(last or first) + 1)
        if not seeds:
            raise ValueError(f"--variants has {word}; expected ascending seeds")
        return {f"{kind}{seed}": make(genotype, seed) for seed in seeds}
    if word == "widest":
        return {word: genotypes.widest_shallowest(genotype)}
    if word == "adapt":
        return {word: genotypes.widest_shallowest(genotype, keep_concat=True)}
    if word == "narrowest":
        return {word: genotypes.narrowest_deepest(genotype)}
    shapes = {
        f"{width:g}c-{depth}": variant
        for (width, depth), variant in genotypes.connection_variants(genotype).items()
    }
    if word == "shapes":
        return shapes
    if _SHAPE.fullmatch(word):
        if word not in shapes:
            raise ValueError(
                f"--variants has {word}; cells of {len(genotype.normal) // 2} nodes "
                f"are {', '.join(shapes)}"
            )
        return {word: shapes[word]}
    if not pathlib.Path(word).is_file():
        raise ValueError(f"--variants has {word}; expected {VARIANTS}")
    return {pathlib.Path(word).stem: two_cells(genotypes.load(word), word)}


def two_cells(genotype: Any, given: str) -> "Genotype":
    """The genotype, if it has two cells; otherwise `ValueError`."""
    from jaxnas.genotypes import Genotype

    if not isinstance(genotype, Genotype):
        raise ValueError(
            f"{given} is a {type(genotype).__name__}; expected two cells (Genotype)"
        )
    return genotype
