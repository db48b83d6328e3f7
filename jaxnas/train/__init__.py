"""Training: tasks, pure steps, and the host loops of search and of single networks."""

from jaxnas.train.batches import InputPipeline, Preprocess
from jaxnas.train.evaluation import make_eval_fn
from jaxnas.train.from_scratch import (
    DropPath,
    TrainResult,
    TrainState,
    make_network_eval_fn,
    make_train_fn,
    network_evaluation_step,
    train_from_scratch,
)
from jaxnas.train.language import (
    LanguageModel,
    ReadingSettings,
    inverse_perplexity,
    language_model_of,
    make_language_eval_fn,
)
from jaxnas.train.language_search import (
    LanguageSearchResult,
    LanguageSearchSettings,
    LanguageSearchState,
    search_language,
)
from jaxnas.train.language_training import (
    LanguageTrainingSettings,
    LanguageTrainResult,
    LanguageTrainState,
    make_language_train_fn,
)
from jaxnas.train.loop import Diverged, Interrupted
from jaxnas.train.one_shot import (
    OneShotState,
    SearchResult,
    SearchSchedule,
    SearchSettings,
    SearchSplits,
    SearchSteps,
    scan_steps,
    search,
    search_schedule,
    search_steps,
)
from jaxnas.train.precision import Precision
from jaxnas.train.ranking import Ranked, rank, rank_by
from jaxnas.train.restoration import MAX_PSNR, inpainting, psnr, ssim
from jaxnas.train.standalone import (
    Snapshot,
    make_standalone_train_fn,
    train_standalone,
)
from jaxnas.train.statistics import statistics_estimator
from jaxnas.train.steps import (
    WeightState,
    evaluation_step,
    init_weights,
    weight_gradient,
    weight_step,
)
from jaxnas.train.tasks import (
    Objective,
    classification,
    error_rate,
    exit_accuracies,
    mean_loss,
    multi_exit_classification,
)

__all__ = [
    "MAX_PSNR",
    "Diverged",
    "DropPath",
    "InputPipeline",
    "Interrupted",
    "LanguageModel",
    "LanguageSearchResult",
    "LanguageSearchSettings",
    "LanguageSearchState",
    "LanguageTrainResult",
    "LanguageTrainState",
    "LanguageTrainingSettings",
    "Objective",
    "OneShotState",
    "Precision",
    "Preprocess",
    "Ranked",
    "ReadingSettings",
    "SearchResult",
    "SearchSchedule",
    "SearchSettings",
    "SearchSplits",
    "SearchSteps",
    "Snapshot",
    "TrainResult",
    "TrainState",
    "WeightState",
    "classification",
    "error_rate",
    "evaluation_step",
    "exit_accuracies",
    "init_weights",
    "inpainting",
    "inverse_perplexity",
    "language_model_of",
    "make_eval_fn",
    "make_language_eval_fn",
    "make_language_train_fn",
    "make_network_eval_fn",
    "make_standalone_train_fn",
    "make_train_fn",
    "mean_loss",
    "multi_exit_classification",
    "network_evaluation_step",
    "psnr",
    "rank",
    "rank_by",
    "scan_steps",
    "search",
    "search_language",
    "search_schedule",
    "search_steps",
    "ssim",
    "statistics_estimator",
    "train_from_scratch",
    "train_standalone",
    "weight_gradient",
    "weight_step",
]
