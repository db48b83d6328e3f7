"""Search-time networks: the architecture is data, the weights come from outside."""

from jaxnas.supernets.edges import Edges, evaluate
from jaxnas.supernets.micro_supernet import micro

__all__ = ["Edges", "evaluate", "micro"]
