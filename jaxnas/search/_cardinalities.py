"""Numbers of categories of the decisions of a space."""

from collections.abc import Sequence
from typing import Any

from jaxnas.types import SearchSpace


def cardinalities_of(space: SearchSpace | Sequence[int]) -> tuple[int, ...]:
    """Number of categories of each decision.

    Args:
      space: a search space, or the cardinalities themselves.

    Returns:
      One integer for each decision.

    Raises:
      ValueError: if there is no decision, or one without a category.
    """
    listed: Any = getattr(space, "cardinalities", space)
    cardinalities = tuple(int(c) for c in listed)
    if not cardinalities:
        raise ValueError("cardinalities is empty; expected at least one decision")
    for decision, cardinality in enumerate(cardinalities):
        if cardinality < 1:
            raise ValueError(
                f"decision {decision} has {cardinality} categories; expected at least 1"
            )
    return cardinalities
