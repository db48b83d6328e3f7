"""The human form of an architecture: checked, named, read and written.

There are six kinds: two cells in the convention of DARTS (`Genotype`), a chain of
layers with skips (`MacroGenotype`), a recurrent cell (`RecurrentGenotype`), a block
that is any directed acyclic graph (`DagGenotype`), three of them with exits
(`AnytimeGenotype`) and a convolutional autoencoder (`AutoencoderGenotype`). `register`
adds others.
"""

from jaxnas.genotypes.anytime import (
    ANYTIME_BLOCKS,
    ANYTIME_OPS,
    AnytimeGenotype,
    check_anytime,
)
from jaxnas.genotypes.autoencoder import (
    AUTOENCODER_KERNELS,
    AutoencoderGenotype,
    check_autoencoder,
)
from jaxnas.genotypes.cells import (
    OPS,
    Edge,
    Genotype,
    check_cell,
    check_cells,
    edge_name,
    loose_ends,
)
from jaxnas.genotypes.dag import DAG_OPS, DagGenotype, check_dag, dag_leaves
from jaxnas.genotypes.darts_text import from_darts, to_darts
from jaxnas.genotypes.enas_scripts import (
    from_enas,
    from_enas_lm,
    from_enas_macro,
    from_enas_micro,
    from_enas_recurrent,
    to_enas_lm,
    to_enas_macro,
    to_enas_micro,
    to_enas_recurrent,
)
from jaxnas.genotypes.files import (
    from_json,
    from_text,
    load,
    save,
    to_dict,
    to_json,
    to_text,
)
from jaxnas.genotypes.kinds import AnyGenotype, check, register
from jaxnas.genotypes.macro import MACRO_OPS, MacroGenotype, check_macro
from jaxnas.genotypes.published import (
    AUTOENCODER_NAMES,
    DAG_NAMES,
    MACRO_NAMES,
    NAMES,
    RECURRENT_NAMES,
    named,
)
from jaxnas.genotypes.recurrent import (
    ACTIVATIONS,
    ENAS_LM_ACTIVATIONS,
    Averaged,
    RecurrentGenotype,
    averaged_nodes,
    check_recurrent,
    recurrent_loose_ends,
)
from jaxnas.genotypes.variants import (
    connection_variants,
    narrowest_deepest,
    random_connections,
    random_operations,
    widest_shallowest,
)

__all__ = [
    "ACTIVATIONS",
    "ANYTIME_BLOCKS",
    "ANYTIME_OPS",
    "AUTOENCODER_KERNELS",
    "AUTOENCODER_NAMES",
    "DAG_NAMES",
    "DAG_OPS",
    "ENAS_LM_ACTIVATIONS",
    "MACRO_NAMES",
    "MACRO_OPS",
    "NAMES",
    "OPS",
    "RECURRENT_NAMES",
    "AnyGenotype",
    "AnytimeGenotype",
    "AutoencoderGenotype",
    "Averaged",
    "DagGenotype",
    "Edge",
    "Genotype",
    "MacroGenotype",
    "RecurrentGenotype",
    "averaged_nodes",
    "check",
    "check_anytime",
    "check_autoencoder",
    "check_cell",
    "check_cells",
    "check_dag",
    "check_macro",
    "check_recurrent",
    "connection_variants",
    "dag_leaves",
    "edge_name",
    "from_darts",
    "from_enas",
    "from_enas_lm",
    "from_enas_macro",
    "from_enas_micro",
    "from_enas_recurrent",
    "from_json",
    "from_text",
    "load",
    "loose_ends",
    "named",
    "narrowest_deepest",
    "random_connections",
    "random_operations",
    "recurrent_loose_ends",
    "register",
    "save",
    "to_darts",
    "to_dict",
    "to_enas_lm",
    "to_enas_macro",
    "to_enas_micro",
    "to_enas_recurrent",
    "to_json",
    "to_text",
    "widest_shallowest",
]
