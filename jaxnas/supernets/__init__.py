"""Search-time networks: the architecture is data, the weights come from outside."""

from jaxnas.supernets.edges import Edges, evaluate
from jaxnas.supernets.macro_supernet import macro
from jaxnas.supernets.micro_supernet import micro

__all__ = ["Edges", "evaluate", "macro", "micro"]
