"""Training: tasks, pure steps, and the two host loops `search` and `make_train_fn`."""

from jaxnas.train.batches import Preprocess
from jaxnas.train.evaluation import make_eval_fn
from jaxnas.train.fitting import Snapshot, make_standalone_train_fn
from jaxnas.train.loop import Diverged, Interrupted
from jaxnas.train.one_shot import (
    OneShotState,
    Ranked,
    SearchResult,
    SearchSchedule,
    SearchSplits,
    SearchSteps,
    rank,
    scan_steps,
    search,
    search_schedule,
    search_steps,
)
from jaxnas.train.retraining import (
    TrainResult,
    TrainState,
    make_network_eval_fn,
    make_train_fn,
    network_evaluation_step,
    train_from_scratch,
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
    "SearchSchedule",
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
    "make_eval_fn",
    "make_network_eval_fn",
    "make_standalone_train_fn",
    "make_train_fn",
    "mean_loss",
    "multi_exit_classification",
    "network_evaluation_step",
    "rank",
    "scan_steps",
    "search",
    "search_schedule",
    "search_steps",
    "statistics_estimator",
    "train_from_scratch",
    "train_standalone",
    "weight_gradient",
    "weight_step",
]
