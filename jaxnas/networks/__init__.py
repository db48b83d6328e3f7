"""Flax networks of one fixed architecture, for training from scratch."""

from jaxnas.networks.micro_network import (
    Cost,
    MicroNetwork,
    cost,
    count_params,
    largest_channels,
    micro,
)

__all__ = ["Cost", "MicroNetwork", "cost", "count_params", "largest_channels", "micro"]
