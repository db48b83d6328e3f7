"""Search-time networks: the architecture is data, the weights come from outside."""

from jaxnas.supernets.anytime_supernet import anytime
from jaxnas.supernets.autoencoder_supernet import autoencoder
from jaxnas.supernets.dag_supernet import dag
from jaxnas.supernets.edges import Edges, evaluate
from jaxnas.supernets.macro_supernet import macro
from jaxnas.supernets.micro_supernet import micro
from jaxnas.supernets.recurrent_supernet import recurrent

__all__ = [
    "Edges",
    "anytime",
    "autoencoder",
    "dag",
    "evaluate",
    "macro",
    "micro",
    "recurrent",
]
