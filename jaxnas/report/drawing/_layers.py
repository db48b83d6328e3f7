"""The heights of what stands in the columns of a layered drawing."""

import itertools

_SWEEPS = 500

Item = tuple[int, ...]
"""What takes up height in a column: a node `(node,)`, or a lane `(number, column)`
that leads a line past the nodes of the column."""


def heights(
    columns: list[list[Item]],
    segments: list[tuple[Item, Item]],
    extents: dict[Item, float],
) -> dict[Item, float]:
    """Choose heights that keep segments level and items apart.

    Descends on the weighted sum of squared rises, one column at a time. Segments
    between lanes weigh more, for a long edge should be straight.
    """
    ties: dict[Item, list[tuple[Item, float]]] = {}
    for left, right in segments:
        weight = (1.0, 4.0, 64.0)[len(left) + len(right) - 2]
        ties.setdefault(left, []).append((right, weight))
        ties.setdefault(right, []).append((left, weight))
    chosen = {item: 0.0 for column in columns for item in column}
    for _ in range(_SWEEPS):
        for column in columns:
            wishes, weights = [], []
            for item in column:
                # An input that nobody reads has no ties and stays where it is.
                pulls = ties.get(item, [(item, 1.0)])
                weights.append(sum(weight for _, weight in pulls))
                total = sum(weight * chosen[other] for other, weight in pulls)
                wishes.append(total / weights[-1])
            sizes = [extents[item] for item in column]
            chosen |= zip(column, _stack(wishes, weights, sizes), strict=True)
    return chosen


def _stack(
    wishes: list[float], weights: list[float], extents: list[float]
) -> list[float]:
    """Place items one below the other as near to their wishes as extents allow.

    Least squares under minimum distances is isotonic regression of the wishes, each
    less its distance from the top of a tight stack: pool adjacent violators.
    """
    offsets = [0.0]
    for upper, lower in itertools.pairwise(extents):
        offsets.append(offsets[-1] + upper + lower)
    pools: list[tuple[float, float, int]] = []  # mean, weight, number of items
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, count = wish - offset, 1
        while pools and pools[-1][0] > mean:
            above_mean, above_weight, above_count = pools.pop()
            mean = mean * weight + above_mean * above_weight
            weight += above_weight
            mean /= weight
            count += above_count
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
