"""Tasks: the loss of a batch, given what a network returned."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.types import Batch, Metrics, Outputs, Task

Objective = Callable[[Mapping[str, Any]], Any]
"""What a search minimises: `metrics -> loss` of one architecture or of many."""


def mean_loss(metrics: Mapping[str, Any]) -> Any:
    """The task's loss itself, an `Objective`."""
    return metrics["loss"]


def error_rate(metrics: Mapping[str, Any]) -> Any:
    """The fraction of wrong answers, an `Objective`."""
    return 1 - metrics["accuracy"]


def classification(auxiliary_weight: float = 0.4) -> Task:
    """Cross-entropy of class labels.

    Args:
      auxiliary_weight: weight of the loss of an auxiliary head, where the network
        has one and returns `(logits, auxiliary_logits)`.

    Returns:
      A `Task` over batches with int `label` `[B]` and, optionally, float `weight`
      `[B]`, which counts an example that many times (0 for padding). Its metrics are
      `loss` (without the auxiliary term) and `accuracy` (0 to 1).
    """

    def loss(outputs: Outputs, batch: Batch) -> tuple[jax.Array, Metrics]:
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        labels = batch["label"]
        weight = batch.get("weight")

        def mean(values):
            if weight is None:
                return values.mean()
            return (values * weight).sum() / jnp.maximum(weight.sum(), 1)

        def cross_entropy(logits):
            return mean(
                optax.softmax_cross_entropy_with_integer_labels(
                    logits.astype(np.promote_types(logits.dtype, jnp.float32)), labels
                )
            )

        task_loss = cross_entropy(logits)
        correct = (logits.argmax(-1).astype(labels.dtype) == labels).astype(
            task_loss.dtype
        )
        metrics = {"loss": task_loss, "accuracy": mean(correct)}
        total = task_loss + auxiliary_weight * sum(map(cross_entropy, auxiliary))
        return total, metrics

    return Task(loss)
