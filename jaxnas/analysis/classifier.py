"""What a trained classifier does right and wrong."""

from typing import NamedTuple

import numpy as np
from scipy import stats

_NUM_BINS = 15


class Proportion(NamedTuple):
    """A proportion and its confidence interval.

    Attributes:
      value: the proportion that was counted; NaN of nothing.
      low: lower end of the interval.
      high: upper end.
    """

    value: float
    low: float
    high: float


class WrongImage(NamedTuple):
    """An image whose most probable class is not its own.

    Attributes:
      place: its number among the images, from 0.
      label: its class.
      predicted: the most probable class.
      probability: of that one.
    """

    place: int
    label: int
    predicted: int
    probability: float


class Confusion(NamedTuple):
    """Images of one class that were taken for another.

    Attributes:
      label: their class.
      predicted: the other.
      num_images: how many they are.
    """

    label: int
    predicted: int
    num_images: int


class ClassifierMetrics(NamedTuple):
    """Right and wrong answers of a classifier.

    Attributes:
      accuracy: over all images.
      class_accuracies: `[num_classes]`, over the images of each class.
      is_right: bool `[num_images]`, whether each answer is right.
      confusion: int `[num_classes, num_classes]`, at `[i, j]` the number of images of
        class `i` that were taken for class `j`.
      most_wrong: the wrong answers that were given with the highest probability, the
        highest first.
      calibration_error: expected calibration error: the mean over the images of the
        distance between accuracy and probability of the answer, each a mean over
        images of similar probability.
    """

    accuracy: Proportion
    class_accuracies: list[Proportion]
    is_right: np.ndarray
    confusion: np.ndarray
    most_wrong: list[WrongImage]
    calibration_error: float

    @property
    def counts(self) -> np.ndarray:
        """Int `[num_classes]`, images of each class."""
        return self.confusion.sum(1)

    def worst_classes(self) -> list[int]:
        """Classes by accuracy, the lowest first; without those that have no images.

        Among equals, the one with more images comes first.
        """
        found = [int(label) for label in np.flatnonzero(self.counts)]
        return sorted(
            found,
            key=lambda i: (self.class_accuracies[i].value, -self.counts[i]),
        )

    def most_confused(self, num: int) -> list[Confusion]:
        """Pairs of classes by the number of images taken one for the other.

        Args:
          num: at most so many, the largest first; none without any image.
        """
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:num]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        found = [Confusion(int(i), int(j), int(wrong[i, j])) for i, j in pairs]
        return [pair for pair in found if pair.num_images]


def wilson_interval(
    num_right: int, num_images: int, *, confidence: float = 0.95
) -> Proportion:
    """The proportion of right answers and Wilson's score interval.

    Args:
      num_right: right answers.
      num_images: all answers; with 0, the interval is everything.
      confidence: of the interval, between 0 and 1.

    Returns:
      The proportion.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> from jaxnas import analysis
      >>> [round(x, 3) for x in analysis.wilson_interval(9, 10)]
      [0.9, 0.596, 0.982]

    Source: Wilson 1927 (Probable inference), without correction for continuity.
    """
    if not 0 <= num_right <= num_images:
        raise ValueError(
            f"num_right is {num_right} and num_images {num_images}; expected 0 or more "
            "right ones, and no more than all"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected between 0 and 1")
    if num_images == 0:
        return Proportion(float("nan"), 0.0, 1.0)
    z = stats.norm.ppf(0.5 + confidence / 2)
    share = num_right / num_images
    center = (num_right + z**2 / 2) / (num_images + z**2)
    margin = np.sqrt(num_images * share * (1 - share) + z**2 / 4) * z
    margin /= num_images + z**2
    low = 0.0 if num_right == 0 else float(center - margin)
    high = 1.0 if num_right == num_images else float(center + margin)
    return Proportion(share, low, high)


def classifier_metrics(
    labels: np.ndarray, probabilities: np.ndarray, *, num_wrong: int = 12
) -> ClassifierMetrics:
    """Count right and wrong answers, over all and by class.

    Args:
      labels: int `[num_images]`, the classes.
      probabilities: `[num_images, num_classes]`, what a classifier says of them; the
        first of the most probable classes is its answer.
      num_wrong: length of `most_wrong`, if there are so many wrong answers.

    Returns:
      The metrics, with intervals of 95 %.

    Raises:
      ValueError: if the shapes do not fit, there are no images, a label is no class, or
        a row has something other than probabilities that sum to 1.

    Source of the calibration error: Guo et al. 2017 (On calibration of modern neural
    networks), with 15 bins of equal width.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, float)
    shapes = f"{list(labels.shape)} and probabilities {list(probabilities.shape)}"
    if labels.ndim != 1 or probabilities.ndim != 2 or len(labels) != len(probabilities):
        raise ValueError(
            f"labels have shape {shapes}; expected [num_images] and [num_images, "
            "num_classes]"
        )
    num_images, num_classes = probabilities.shape
    if not num_images or not num_classes:
        raise ValueError(f"labels have shape {shapes}; expected at least one image")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}; expected integers")
    wrong_labels = labels[(labels < 0) | (labels >= num_classes)]
    if wrong_labels.size:
        raise ValueError(
            f"a label is {wrong_labels[0]}; expected 0 to {num_classes - 1}"
        )
    is_off = ~(np.abs(probabilities.sum(1) - 1) < 1e-3) | (probabilities < 0).any(1)
    if is_off.any():
        row = int(np.flatnonzero(is_off)[0])
        raise ValueError(
            f"row {row} of probabilities is no distribution (its sum is "
            f"{probabilities[row].sum():g}); expected numbers from 0 on that sum to 1"
        )
    predicted = probabilities.argmax(1)
    confidences = probabilities.max(1)
    is_right = predicted == labels
    confusion = np.bincount(
        labels.astype(np.int64) * num_classes + predicted, minlength=num_classes**2
    ).reshape(num_classes, num_classes)
    wrong = np.flatnonzero(~is_right)
    wrong = wrong[np.argsort(-confidences[wrong], kind="stable")][:num_wrong]
    return ClassifierMetrics(
        accuracy=wilson_interval(int(is_right.sum()), num_images),
        class_accuracies=[
            wilson_interval(int(right), int(count))
            for right, count in zip(np.diag(confusion), confusion.sum(1), strict=True)
        ],
        is_right=is_right,
        confusion=confusion,
        most_wrong=[
            WrongImage(int(i), int(labels[i]), int(predicted[i]), float(confidences[i]))
            for i in wrong
        ],
        calibration_error=_calibration_error(is_right, confidences),
    )


def _calibration_error(is_right: np.ndarray, confidences: np.ndarray) -> float:
    bins = np.minimum((confidences * _NUM_BINS).astype(int), _NUM_BINS - 1)
    gaps = np.bincount(bins, weights=is_right - confidences, minlength=_NUM_BINS)
    return float(np.abs(gaps).sum() / is_right.size)
