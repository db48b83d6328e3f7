"""Training: tasks, pure steps, and the two host loops `search` and `retrain`."""

from jaxnas.train.batches import Preprocess
from jaxnas.train.loop import Diverged, Interrupted
from jaxnas.train.one_shot import (
    OneShotState,
    Ranked,
    SearchResult,
    SearchSplits,
    alternate,
    count_steps,
    rank,
    search,
)
from jaxnas.train.retraining import TrainResult, TrainState, retrain
from jaxnas.train.steps import (
    WeightState,
    evaluation_step,
    init_weights,
    weight_gradient,
    weight_step,
)
from jaxnas.train.tasks import classification

__all__ = [
    "Diverged",
    "Interrupted",
    "OneShotState",
    "Preprocess",
    "Ranked",
    "SearchResult",
    "SearchSplits",
    "TrainResult",
    "TrainState",
    "WeightState",
    "alternate",
    "classification",
    "count_steps",
    "evaluation_step",
    "init_weights",
    "rank",
    "retrain",
    "search",
    "weight_gradient",
    "weight_step",
]
