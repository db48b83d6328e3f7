"""Measurements on architectures: what searches prefer, and why."""

from jaxnas.analysis.anytime import (
    accuracy_within,
    area_under_accuracy_flops,
    exit_costs,
)
from jaxnas.analysis.ranking import Correlation, correlations, top_half
from jaxnas.analysis.topology import (
    cell_depth,
    cell_width,
    count_topologies,
    dead_nodes,
)

__all__ = [
    "Correlation",
    "accuracy_within",
    "area_under_accuracy_flops",
    "cell_depth",
    "cell_width",
    "correlations",
    "count_topologies",
    "dead_nodes",
    "exit_costs",
    "top_half",
]
