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
    SearchStudy,
    Selection,
    TrainingBudget,
    search,
)
from jaxnas.studies.cells import (
    CellStudy,
    CellTraining,
    StudiedCell,
    SurfaceSettings,
    Training,
    assign_programs,
    cell_numbers,
    check_cells,
    learning_rates,
    name_at_rate,
    sample_images,
    save_cells,
    study_cells,
)
from jaxnas.studies.images import StudyImages, preprocessing, study_images
from jaxnas.studies.rank_correlation import (
    Coefficients,
    CorrelationStudy,
    EarlyScores,
    PredictorScores,
    TrainedWeights,
    correlation,
    sample_distinct,
)
from jaxnas.studies.tabular_comparison import Algorithm, compare_searchers
from jaxnas.train import SearchSettings

__all__ = [
    "Algorithm",
    "AnytimeNetwork",
    "Candidate",
    "CellStudy",
    "CellTraining",
    "Coefficients",
    "CorrelationStudy",
    "EarlyScores",
    "HypernetworkTraining",
    "NetworkTraining",
    "PredictorScores",
    "ScratchComparison",
    "SearchSettings",
    "SearchStudy",
    "Selection",
    "StudiedCell",
    "StudyImages",
    "SurfaceSettings",
    "TrainedWeights",
    "Training",
    "TrainingBudget",
    "anytime",
    "assign_programs",
    "cell_numbers",
    "check_cells",
    "compare_searchers",
    "correlation",
    "learning_rates",
    "name_at_rate",
    "preprocessing",
    "sample_distinct",
    "sample_images",
    "save_cells",
    "search",
    "study_cells",
    "study_images",
]
