"""Graph hypernetworks: weight providers that write the weights of an architecture."""

from jaxnas.ghn.files import load, save
from jaxnas.ghn.finetuning import break_symmetry
from jaxnas.ghn.hypernetwork import hypernetwork
from jaxnas.ghn.propagation import Propagation

__all__ = ["Propagation", "break_symmetry", "hypernetwork", "load", "save"]
