"""Measurements on architectures: what searches prefer, and why."""

from jaxnas.analysis.anytime import (
    accuracy_within,
    area_under_accuracy_flops,
    exit_costs,
)
from jaxnas.analysis.classifier import (
    ClassifierMetrics,
    Confusion,
    Proportion,
    WrongImage,
    classifier_metrics,
    wilson_interval,
)
from jaxnas.analysis.comparison import (
    Difference,
    difference_from_random,
    mean_difference,
)
from jaxnas.analysis.convergence import Band, band, epochs_until, mean_over_epochs
from jaxnas.analysis.gradients import gradient_variance
from jaxnas.analysis.landscape import (
    Measure,
    Plane,
    Surface,
    SurfaceError,
    basin_share,
    coordinates,
    filter_normalized,
    load_surface,
    make_surface_fn,
    mean_metrics,
    random_plane,
)
from jaxnas.analysis.linear_cells import (
    LinearCells,
    compare_linear_cells,
    measure_linear_cells,
)
from jaxnas.analysis.ranking import (
    COEFFICIENTS,
    Correlation,
    correlation_differences,
    correlations,
    noise_ceiling,
    top_half,
)
from jaxnas.analysis.topology import (
    cell_depth,
    cell_width,
    count_topologies,
    dead_nodes,
)

__all__ = [
    "COEFFICIENTS",
    "Band",
    "ClassifierMetrics",
    "Confusion",
    "Correlation",
    "Difference",
    "LinearCells",
    "Measure",
    "Plane",
    "Proportion",
    "Surface",
    "SurfaceError",
    "WrongImage",
    "accuracy_within",
    "area_under_accuracy_flops",
    "band",
    "basin_share",
    "cell_depth",
    "cell_width",
    "classifier_metrics",
    "compare_linear_cells",
    "coordinates",
    "correlation_differences",
    "correlations",
    "count_topologies",
    "dead_nodes",
    "difference_from_random",
    "epochs_until",
    "exit_costs",
    "filter_normalized",
    "gradient_variance",
    "load_surface",
    "make_surface_fn",
    "mean_difference",
    "mean_metrics",
    "mean_over_epochs",
    "measure_linear_cells",
    "noise_ceiling",
    "random_plane",
    "top_half",
    "wilson_interval",
]
