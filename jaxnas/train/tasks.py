"""Tasks: the loss of a batch, given what a network returned."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.types import Batch, Metrics, Outputs, Task

Objective = Callable[[Mapping[str, Any]], Any]
"""Objective of a search: `metrics -> loss` of one architecture or of many."""


def mean_loss(metrics: Mapping[str, Any]) -> Any:
    """The task's loss itself, an `Objective`."""
    return metrics["loss"]


def error_rate(metrics: Mapping[str, Any]) -> Any:
    """The fraction of wrong answers, an `Objective`."""
    return 1 - metrics["accuracy"]


def mean_over_batch(values: jax.Array, batch: Batch) -> jax.Array:
    """Mean of `values` `[B]`, by the batch's `weight` where it has one."""
    weight = batch.get("weight")
    if weight is None:
        return values.mean()
    return (values * weight).sum() / jnp.maximum(weight.sum(), 1)


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

        def cross_entropy(logits):
            return mean_over_batch(
                optax.softmax_cross_entropy_with_integer_labels(
                    logits.astype(np.promote_types(logits.dtype, jnp.float32)), labels
                ),
                batch,
            )

        task_loss = cross_entropy(logits)
        correct = (logits.argmax(-1).astype(labels.dtype) == labels).astype(
            task_loss.dtype
        )
        metrics = {"loss": task_loss, "accuracy": mean_over_batch(correct, batch)}
        total = task_loss + auxiliary_weight * sum(map(cross_entropy, auxiliary))
        return total, metrics

    return Task(loss)


def multi_exit_classification() -> Task:
    """Cross-entropy of class labels, the mean over all exits of a network.

    Exits weigh the same, as in MSDNet (Huang et al. 2018).

    Returns:
      A `Task` like `classification`, for networks that return logits
      `[num_exits, B, num_classes]`. Its metrics are `loss`, `accuracy` (0 to 1) of the
      last exit, and `exit_0_accuracy` and so on of each; see `exit_accuracies`.
    """
    single = classification()

    def loss(outputs: Outputs, batch: Batch) -> tuple[jax.Array, Metrics]:
        losses, metrics = jax.vmap(lambda logits: single.loss(logits, batch))(outputs)
        accuracies = metrics["accuracy"]
        mean = losses.mean()
        of_exits = {f"exit_{i}_accuracy": a for i, a in enumerate(accuracies)}
        return mean, {"loss": mean, "accuracy": accuracies[-1]} | of_exits

    return Task(loss)


def exit_accuracies(metrics: Mapping[str, Any]) -> list[Any]:
    """The accuracies of all exits in order, of `multi_exit_classification`."""
    num_exits = sum(name.startswith("exit_") for name in metrics)
    return [metrics[f"exit_{i}_accuracy"] for i in range(num_exits)]
