"""Costs of networks with exits, and their accuracy at every budget.

Zhang et al. (2019), section on anytime prediction: architectures are selected by the
area under their predicted curve of accuracy over computation.
"""

from collections.abc import Sequence

import numpy as np

from jaxnas import genotypes


def exit_costs(
    genotype: genotypes.AnytimeGenotype,
    channels: int = 16,
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (32, 32, 3),
) -> np.ndarray:
    """Count the multiply-adds that it takes to get to each exit.

    The network runs until it has the answer of an exit: what this exit and those
    before it need is run, the rest is not. Convolutions and linear layers count,
    pooling and normalization do not.

    Args:
      genotype: the architecture.
      channels: as for `networks.anytime`, whose layers these are.
      num_classes: size of the output.
      image_shape: `(height, width, channels)`.

    Returns:
      float64 `[num_exits]`, multiply-adds for one image, in the order of the nodes.

    Raises:
      ValueError: if the genotype is invalid.
    """
    genotype = genotypes.check_anytime(genotype)
    height, width, image_channels = image_shape
    pixels = [
        (height >> scale) * (width >> scale)
        for scale in range(genotypes.ANYTIME_BLOCKS)
    ]
    widths = [channels << block for block in range(genotypes.ANYTIME_BLOCKS)]
    leaves = [
        genotypes.dag_leaves(genotypes.DagGenotype(ops, inputs))
        for ops, inputs in zip(genotype.ops, genotype.inputs, strict=True)
    ]
    stem = 9 * image_channels * channels * pixels[0]
    done: set[tuple[int, int]] = set()

    def cost_of(block: int, node: int) -> int:
        """Multiply-adds of a node and all it needs that has not been run before."""
        if (block, node) in done:
            return 0
        done.add((block, node))
        source, width = block - 1 - node, widths[block]
        if node >= 2:
            read = genotype.inputs[block][node - 2]
            scale = genotype.scales[block][node - 2]
            op = genotype.ops[block][node - 2]
            area = int(op[-1]) ** 2 if op.startswith("conv") else 0
            needed = [(block, other) for other in read]
            own = (len(read) + area) * width * width * pixels[scale]
        elif source >= 0:
            needed = [(source, leaf) for leaf in leaves[source]]
            own = len(needed) * widths[source] * width * pixels[block]
        else:
            needed, own = [], channels * width * pixels[block]
        return own + sum(cost_of(*place) for place in needed)

    costs = [
        cost_of(block, node) + widths[block] * num_classes
        for block, exits in enumerate(genotype.exits)
        for node in exits
    ]
    return stem + np.cumsum(costs, dtype=np.float64)


def accuracy_within(
    flops: Sequence[float] | np.ndarray,
    accuracies: Sequence[float] | np.ndarray,
    budgets: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Find the accuracy at each budget: that of the best exit within it.

    Args:
      flops: `[num_exits]`, cost of each exit, as in `exit_costs`, in any order.
      accuracies: `[num_exits]`, of each exit.
      budgets: `[num]`, in the unit of `flops`.

    Returns:
      float64 `[num]`; 0 where no exit can be reached, for no answer is not a right one.

    Raises:
      ValueError: if there are no exits, their numbers differ, or one is not finite.
    """
    flops, accuracies = _checked(flops, accuracies)
    best = np.maximum.accumulate(accuracies[np.argsort(flops, kind="stable")])
    steps = np.concatenate([[0.0], best])
    return steps[np.searchsorted(np.sort(flops), budgets, side="right")]


def area_under_accuracy_flops(
    flops: Sequence[float] | np.ndarray,
    accuracies: Sequence[float] | np.ndarray,
    budget: float,
) -> float:
    """Average the accuracy over all budgets up to the largest.

    This is the expected accuracy if the budget is uniform between 0 and `budget`. The
    curve is the step function of `accuracy_within`; the paper does not give its form.

    Args:
      flops: `[num_exits]`, cost of each exit, as in `exit_costs`, in any order.
      accuracies: `[num_exits]`, of each exit.
      budget: the largest budget, in the unit of `flops`.

    Returns:
      The area, divided by the budget: in the unit of the accuracies.

    Raises:
      ValueError: as `accuracy_within` does, and if the budget is not positive.
    """
    if not 0 < budget < float("inf"):
        raise ValueError(f"budget is {budget}; expected a positive number")
    flops, accuracies = _checked(flops, accuracies)
    steps = np.sort(flops[flops < budget])
    widths = np.diff(np.append(steps, budget))
    return float(accuracy_within(flops, accuracies, steps) @ widths / budget)


def _checked(
    flops: Sequence[float] | np.ndarray, accuracies: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    costs, values = np.asarray(flops, float), np.asarray(accuracies, float)
    if costs.ndim != 1 or costs.shape != values.shape or not costs.size:
        raise ValueError(
            f"flops has shape {costs.shape} and accuracies {values.shape}; expected "
            "one of each for every exit, at least one"
        )
    for name, array in (("flops", costs), ("accuracies", values)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is {array.tolist()}; expected finite numbers")
    return costs, values
