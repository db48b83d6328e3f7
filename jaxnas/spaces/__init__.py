"""Search spaces: what can be chosen, as vectors of integers."""

from jaxnas.spaces._base import Space
from jaxnas.spaces.anytime_space import AnytimeSpace, anytime
from jaxnas.spaces.autoencoder import AutoencoderSpace, inpainting
from jaxnas.spaces.dag import DagSpace, ghn_dag
from jaxnas.spaces.macro import MacroSpace, enas_macro
from jaxnas.spaces.micro import MicroSpace, enas_micro
from jaxnas.spaces.recurrent import RecurrentSpace, darts_recurrent, enas_recurrent

__all__ = [
    "AnytimeSpace",
    "AutoencoderSpace",
    "DagSpace",
    "MacroSpace",
    "MicroSpace",
    "RecurrentSpace",
    "Space",
    "anytime",
    "darts_recurrent",
    "enas_macro",
    "enas_micro",
    "enas_recurrent",
    "ghn_dag",
    "inpainting",
]
