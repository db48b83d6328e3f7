"""Flax networks of one fixed architecture, for training from scratch."""

from jaxnas.networks.micro_network import (
    MicroNetwork,
    count_flops,
    count_params,
    largest_channels,
    micro,
)

__all__ = ["MicroNetwork", "count_flops", "count_params", "largest_channels", "micro"]
