"""Whole experiments as functions: resumable, and usable without the commands."""

from jaxnas.studies.architecture_search import (
    Candidate,
    ScratchComparison,
    SearchSettings,
    SearchStudy,
    Selection,
    TrainingBudget,
    search,
)
from jaxnas.studies.images import StudyImages, preprocessing, study_images
from jaxnas.studies.rank_correlation import (
    Coefficients,
    CorrelationStudy,
    EarlyScores,
    Method,
    TrainedWeights,
    correlation,
    sample_distinct,
)

__all__ = [
    "Candidate",
    "Coefficients",
    "CorrelationStudy",
    "EarlyScores",
    "Method",
    "ScratchComparison",
    "SearchSettings",
    "SearchStudy",
    "Selection",
    "StudyImages",
    "TrainedWeights",
    "TrainingBudget",
    "correlation",
    "preprocessing",
    "sample_distinct",
    "search",
    "study_images",
]
