"""The human form of an architecture: checked, named, read and written.

There are three kinds: two cells in the convention of DARTS (`Genotype`), a chain of
layers with skips (`MacroGenotype`) and a recurrent cell (`RecurrentGenotype`).
"""

from jaxnas.genotypes.cells import (
    OPS,
    Edge,
    Genotype,
    check,
    check_cell,
    edge_name,
    from_darts,
    loose_ends,
    to_darts,
)
from jaxnas.genotypes.enas_scripts import (
    from_enas_macro,
    from_enas_micro,
    from_enas_recurrent,
    to_enas_macro,
    to_enas_micro,
    to_enas_recurrent,
)
from jaxnas.genotypes.files import from_json, load, save, to_json, to_text
from jaxnas.genotypes.kinds import AnyGenotype, check_any
from jaxnas.genotypes.macro import MACRO_OPS, MacroGenotype, check_macro
from jaxnas.genotypes.published import MACRO_NAMES, NAMES, RECURRENT_NAMES, named
from jaxnas.genotypes.recurrent import (
    ACTIVATIONS,
    RecurrentGenotype,
    check_recurrent,
    recurrent_loose_ends,
)

__all__ = [
    "ACTIVATIONS",
    "MACRO_NAMES",
    "MACRO_OPS",
    "NAMES",
    "OPS",
    "RECURRENT_NAMES",
    "AnyGenotype",
    "Edge",
    "Genotype",
    "MacroGenotype",
    "RecurrentGenotype",
    "check",
    "check_any",
    "check_cell",
    "check_macro",
    "check_recurrent",
    "edge_name",
    "from_darts",
    "from_enas_macro",
    "from_enas_micro",
    "from_enas_recurrent",
    "from_json",
    "load",
    "loose_ends",
    "named",
    "recurrent_loose_ends",
    "save",
    "to_darts",
    "to_enas_macro",
    "to_enas_micro",
    "to_enas_recurrent",
    "to_json",
    "to_text",
]
