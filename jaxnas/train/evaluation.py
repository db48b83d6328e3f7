"""Evaluating one architecture after another, by one program."""

from collections.abc import Callable

import numpy as np

from jaxnas import parallel, weights
from jaxnas.data import Split
from jaxnas.train import batches, steps
from jaxnas.train.batches import InputPipeline
from jaxnas.types import (
    Arch,
    Batch,
    Metrics,
    Params,
    Supernet,
    Task,
    WeightProvider,
    Weights,
)


def make_eval_fn(
    net: Supernet, provider: WeightProvider, task: Task, pipeline: InputPipeline
) -> Callable[[Params, Arch, Split], dict[str, float]]:
    """Make the evaluation of one architecture on all images of a split.

    The weights of the architecture are made once, which with a hypernetwork is as much
    work as several batches; then all images are run with batch statistics, in one fixed
    permutation (`batches.evaluation_order`), so that the order of a split does not
    matter. One compilation serves all architectures and splits.

    Args:
      net: the supernet.
      provider: where its weights come from.
      task: what it is evaluated for.
      pipeline: normalization, batches and devices. The last batch is filled up with the
        first images, which do not count.

    Returns:
      `(params, arch, split) -> metrics`, means over the images, floats.

    Raises:
      ValueError: if the devices cannot share a batch; when evaluating, if `arch` is not
        one vector of the space's length, or there are no images.
    """
    devices = pipeline.on_devices()
    num_devices, batch_size = len(devices), pipeline.batch_size
    batch_axis = parallel.batch_axis(devices)
    space = net.space
    num_decisions = len(space.cardinalities) + len(getattr(space, "integers", ()))
    # Once made, weights are handed in for every batch just as shared ones are.
    evaluation_step = steps.evaluation_step(
        net, weights.shared(net), task, batch_axis=batch_axis
    )

    def evaluate_batch(weights: Weights, arch: Arch, batch: Batch) -> Metrics:
        batch = batches.prepared_for_evaluation(batch, pipeline.normalize, task)
        batch = batches.local_batch(batch, batch_axis, num_devices)
        return evaluation_step(weights, arch[None], batch)

    make_weights = parallel.replicated(provider.apply, devices)
    compiled = parallel.replicated(evaluate_batch, devices)

    def evaluate(params: Params, arch: Arch, split: Split) -> dict[str, float]:
        host_arch = np.asarray(arch)  # wherever it lies, one compilation
        if host_arch.shape != (num_decisions,):
            raise ValueError(
                f"arch has shape {list(host_arch.shape)}; expected [{num_decisions}]"
            )
        if split.labels.shape[0] == 0:
            raise ValueError("split has no images; expected at least one")
        made = make_weights(parallel.device_put(params, devices), host_arch)
        means = batches.mean_metrics(
            lambda batch: compiled(made, host_arch, batch), split, batch_size
        )
        return {name: float(value[0]) for name, value in means.items()}

    return evaluate
