"""A trained classifier on its test images."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from jaxnas import analysis, data, networks, train
from jaxnas.train import batches


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


def trained_network(
    network: nn.Module,
    state: train.TrainState,
    dataset: data.ImageDataset | data.StreamedDataset,
    test: Mapping[str, float],
) -> networks.TrainedNetwork:
    """A network and all that one must know to use it.

    Args:
      network: the Flax module.
      state: of its training.
      dataset: what it was trained on.
      test: metrics of the test images.
    """
    return networks.TrainedNetwork(
        network,
        {"params": state.params, "batch_stats": state.batch_stats},
        data.image_format(dataset),
        dataset.class_names,
        dataset.name,
        dataset.source,
        test,
    )


def classifier_results(
    trained: networks.TrainedNetwork,
    test: data.Split | data.Stream,
    *,
    batch_size: int = 64,
    num_wrong: int = 12,
) -> ClassifierResults:
    """Classify all test images of a data set.

    Args:
      trained: a network with classes.
      test: the images, in memory or not; those that are not are read twice if they are
        shown.
      batch_size: images that are computed at once.
      num_wrong: images to return, at most.

    Returns:
      The results.

    Raises:
      ValueError: if the network has no classes, or there are no images.
      Diverged: if probabilities are not finite.
      DatasetError: if an image cannot be read.
    """
    num_images = test.num_images
    if num_images == 0:
        raise ValueError("there are no test images; expected at least one")
    predict = networks.make_predict_fn(trained, batch_size=batch_size)
    labels = np.zeros(num_images, np.int32)
    probabilities = np.zeros((num_images, len(trained.class_names)), np.float32)
    for batch in batches.evaluation_batches(test, batch_size):
        labels[batch["index"]] = batch["label"]
        probabilities[batch["index"]] = predict(batch["image"])
    num_wrong_rows = int((~np.isfinite(probabilities)).any(1).sum())
    if num_wrong_rows:
        raise train.Diverged(
            f"probabilities of {num_wrong_rows} of {num_images} images are not finite"
        )
    metrics = analysis.classifier_metrics(labels, probabilities, num_wrong=num_wrong)
    places = [wrong.place for wrong in metrics.most_wrong]
    return ClassifierResults(metrics, trained.class_names, data.images_at(test, places))
