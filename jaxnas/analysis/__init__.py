"""Measurements on architectures: what searches prefer, and why."""

from jaxnas.analysis.topology import (
    cell_depth,
    cell_width,
    count_topologies,
    dead_nodes,
)

__all__ = ["cell_depth", "cell_width", "count_topologies", "dead_nodes"]
