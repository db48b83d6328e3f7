"""Reports: one self-contained HTML file about a search, a training or a study."""

from jaxnas.report.anytime import AnytimeNetwork, anytime_report
from jaxnas.report.comparison import Contender, comparison_report, spread
from jaxnas.report.correlation import Method, coefficient_text, correlation_report
from jaxnas.report.html import Candidate, search_report, train_report

__all__ = [
    "AnytimeNetwork",
    "Candidate",
    "Contender",
    "Method",
    "anytime_report",
    "coefficient_text",
    "comparison_report",
    "correlation_report",
    "search_report",
    "spread",
    "train_report",
]
