"""Whole experiments as functions: resumable, and usable without the commands."""

from jaxnas.studies.anytime_prediction import (
    AnytimeNetwork,
    HypernetworkTraining,
    NetworkTraining,
    anytime,
)
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
    "AnytimeNetwork",
    "Candidate",
    "Coefficients",
    "CorrelationStudy",
    "EarlyScores",
    "HypernetworkTraining",
    "Method",
    "NetworkTraining",
    "ScratchComparison",
    "SearchSettings",
    "SearchStudy",
    "Selection",
    "StudyImages",
    "TrainedWeights",
    "TrainingBudget",
    "anytime",
    "correlation",
    "preprocessing",
    "sample_distinct",
    "search",
    "study_images",
]
