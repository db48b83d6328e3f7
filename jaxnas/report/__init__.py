"""Reports: one self-contained HTML file about a search, a training or a comparison."""

from jaxnas.report.comparison import Contender, comparison_report, spread
from jaxnas.report.html import Candidate, search_report, train_report

__all__ = [
    "Candidate",
    "Contender",
    "comparison_report",
    "search_report",
    "spread",
    "train_report",
]
