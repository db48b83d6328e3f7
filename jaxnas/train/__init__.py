"""Training: tasks, pure steps, and the two host loops `search` and `retrainer`."""

from jaxnas.train.batches import Preprocess
from jaxnas.train.evaluation import evaluator
from jaxnas.train.fitting import Snapshot, fitter
from jaxnas.train.loop import Diverged, Interrupted
from jaxnas.train.one_shot import (
    OneShotState,
    Ranked,
    SearchResult,
    SearchSplits,
    Timetable,
    Updates,
    make_timetable,
    rank,
    repeat,
    search,
    updates,
)
from jaxnas.train.retraining import (
    TrainResult,
    TrainState,
    network_evaluation_step,
    network_evaluator,
    retrain,
    retrainer,
)
from jaxnas.train.scratch import train_standalone
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
    "Diverged",
    "Interrupted",
    "Objective",
    "OneShotState",
    "Preprocess",
    "Ranked",
    "SearchResult",
    "SearchSplits",
    "Snapshot",
    "Timetable",
    "TrainResult",
    "TrainState",
    "Updates",
    "WeightState",
    "classification",
    "error_rate",
    "evaluation_step",
    "evaluator",
    "exit_accuracies",
    "fitter",
    "init_weights",
    "make_timetable",
    "mean_loss",
    "multi_exit_classification",
    "network_evaluation_step",
    "network_evaluator",
    "rank",
    "repeat",
    "retrain",
    "retrainer",
    "search",
    "statistics_estimator",
    "train_standalone",
    "updates",
    "weight_gradient",
    "weight_step",
]
