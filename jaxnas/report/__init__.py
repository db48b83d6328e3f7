"""Reports: one self-contained HTML file about a search, a training or a study."""

from jaxnas.report.anytime import anytime_report
from jaxnas.report.cell_study import cell_study_report
from jaxnas.report.comparison import comparison_report, spread
from jaxnas.report.correlation import (
    DIFFERENCES_NOTE,
    coefficient_text,
    correlation_notes,
    correlation_report,
    truth_text,
)
from jaxnas.report.html import search_report, train_report
from jaxnas.report.scratch import scratch_text

__all__ = [
    "DIFFERENCES_NOTE",
    "anytime_report",
    "cell_study_report",
    "coefficient_text",
    "comparison_report",
    "correlation_notes",
    "correlation_report",
    "scratch_text",
    "search_report",
    "spread",
    "train_report",
    "truth_text",
]
