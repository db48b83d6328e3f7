"""The result of a search in words: found and random, trained from scratch."""

import statistics
from collections.abc import Sequence

from jaxnas.studies import ScratchComparison


def scratch_text(scratch: ScratchComparison | None) -> str:
    """The result of a search in one sentence."""
    if scratch is None:
        return (
            "The found architecture was not compared with random ones trained from "
            "scratch, so nothing is known of its worth (--scratch-random N compares)."
        )
    means = [statistics.fmean(accuracies) for accuracies in scratch.random]
    value, low, high = (100 * x for x in scratch.difference)
    if low > 0:
        verdict = "the found one is better"
    elif high < 0:
        verdict = "the found one is worse"
    else:
        verdict = "no difference shows"
    seeds = len(scratch.found)
    return (
        f"Trained from scratch for {scratch.num_epochs} epochs ({seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}), test accuracy: found "
        f"{spread_text(scratch.found, '.2%')}, {len(means)} random architectures "
        f"{spread_text(means, '.2%')}; difference {value:+.2f} points [{low:+.2f}, "
        f"{high:+.2f}] (95 %): {verdict}."
    )


def spread_text(values: Sequence[float], spec: str) -> str:
    """Return mean and standard deviation as text."""
    mean = format(statistics.fmean(values), spec)
    if len(values) < 2:
        return mean
    return f"{mean} ± {format(statistics.stdev(values), spec)}"
