"""Reports: one self-contained HTML file about a search, a training or a study."""

try:
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401
    import pygraphviz  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        f"jaxnas.report needs {error.name}; install it with "
        "pip install 'jaxnas[report]'"
    ) from error
except ImportError as error:
    raise ImportError(
        f"jaxnas.report needs a library of the system: {error}; for Graphviz on Debian "
        "and Ubuntu: apt install libglib2.0-0 libx11-6 libxext6 libxrender1"
    ) from error

from jaxnas.report._words import number_of, spread
from jaxnas.report.anytime import anytime_report
from jaxnas.report.cell_study import cell_study_report
from jaxnas.report.classifier import classifier_parts, classifier_text
from jaxnas.report.comparison import comparison_report
from jaxnas.report.correlation import (
    DIFFERENCES_NOTE,
    coefficient_text,
    correlation_notes,
    correlation_report,
    standalone_text,
)
from jaxnas.report.image_classifier import (
    image_classifier_report,
    image_classifier_text,
)
from jaxnas.report.inpainting import (
    inpainting_report,
    restoration_report,
    restoration_text,
)
from jaxnas.report.language import (
    language_model_report,
    language_report,
    language_text,
)
from jaxnas.report.search import scratch_text, search_report, train_report
from jaxnas.report.toy_problem import toy_problem_report

__all__ = [
    "DIFFERENCES_NOTE",
    "anytime_report",
    "cell_study_report",
    "classifier_parts",
    "classifier_text",
    "coefficient_text",
    "comparison_report",
    "correlation_notes",
    "correlation_report",
    "image_classifier_report",
    "image_classifier_text",
    "inpainting_report",
    "language_model_report",
    "language_report",
    "language_text",
    "number_of",
    "restoration_report",
    "restoration_text",
    "scratch_text",
    "search_report",
    "spread",
    "standalone_text",
    "toy_problem_report",
    "train_report",
]
