"""Numbers of categories of the decisions of a space."""

from collections.abc import Sequence
from typing import Any

from jaxnas.types import SearchSpace


def cardinalities_of(
    space: SearchSpace | Sequence[int], *, may_be_empty: bool = False
) -> tuple[int, ...]:
    """Number of categories of each decision.

    Args:
      space: a search space, or the cardinalities themselves.
      may_be_empty: whether there may be no such decision.

    Returns:
      One integer for each decision.

    Raises:
      ValueError: if there is no decision, or one without a category.
    """
    listed: Any = getattr(space, "cardinalities", space)
    cardinalities = tuple(int(c) for c in listed)
    if not cardinalities and not may_be_empty:
        raise ValueError("cardinalities is empty; expected at least one decision")
    for decision, cardinality in enumerate(cardinalities):
        if cardinality < 1:
            raise ValueError(
                f"decision {decision} has {cardinality} categories; expected at least 1"
            )
    return cardinalities


def check_no_integers(searcher: str, space: SearchSpace | Sequence[int]) -> None:
    """Refuse a space whose architectures are not of categories alone.

    Args:
      searcher: name of the search algorithm, for the message.
      space: as for `cardinalities_of`.

    Raises:
      ValueError: if the space has ordered integers.
    """
    num_integers = len(getattr(space, "integers", ()))
    if num_integers:
        raise ValueError(
            f"the space has {num_integers} ordered integers; expected none for "
            f"{searcher}, which chooses among categories"
        )
