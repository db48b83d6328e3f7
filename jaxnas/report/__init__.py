"""Reports: one self-contained HTML file about a search or a training run."""

from jaxnas.report.html import Candidate, search_report, train_report

__all__ = ["Candidate", "search_report", "train_report"]
