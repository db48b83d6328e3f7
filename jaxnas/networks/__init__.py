"""Flax networks of one fixed architecture, for training from scratch."""

from jaxnas.networks.macro_network import MacroNetwork, macro
from jaxnas.networks.micro_network import MicroNetwork, micro
from jaxnas.networks.size import Cost, cost, count_params, largest_channels

__all__ = [
    "Cost",
    "MacroNetwork",
    "MicroNetwork",
    "cost",
    "count_params",
    "largest_channels",
    "macro",
    "micro",
]
