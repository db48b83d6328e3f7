"""A trained classifier on its test images."""

from typing import NamedTuple

import flax.linen as nn
import numpy as np

from jaxnas import analysis, data, train
from jaxnas.train import InputPipeline, TrainState


class ClassifierResults(NamedTuple):
    """What a trained classifier does with the test images.

    Attributes:
      metrics: right and wrong answers.
      class_names: names of the classes, in label order.
      wrong_images: uint8 `[num, height, width, channels]`, those of
        `metrics.most_wrong`.
    """

    metrics: analysis.ClassifierMetrics
    class_names: tuple[str, ...]
    wrong_images: np.ndarray


def classifier_results(
    network: nn.Module,
    state: TrainState,
    dataset: data.ImageDataset | data.StreamedDataset,
    pipeline: InputPipeline,
    *,
    num_wrong: int = 12,
) -> ClassifierResults:
    """Classify all test images of a data set.

    Args:
      network: as for `train.train_from_scratch`.
      state: of its training.
      dataset: in memory or not; images that are not are read twice if they are shown.
      pipeline: normalization and batches.
      num_wrong: images to return, at most.

    Returns:
      The results.

    Raises:
      ValueError: if the data set has no classes.
      Diverged: if probabilities are not finite.
      DatasetError: if an image cannot be read.
    """
    labels, probabilities = train.predict_probabilities(
        network,
        state.params,
        state.batch_stats,
        dataset.test,
        normalize=pipeline.normalize,
        batch_size=pipeline.batch_size,
    )
    if probabilities.shape[1] != dataset.num_classes:
        raise ValueError(
            f"the network has {probabilities.shape[1]} classes; expected the "
            f"{dataset.num_classes} of the data set"
        )
    metrics = analysis.classifier_metrics(labels, probabilities, num_wrong=num_wrong)
    indices = [wrong.place for wrong in metrics.most_wrong]
    return ClassifierResults(
        metrics, dataset.class_names, data.images_at(dataset.test, indices)
    )
