"""A classifier whose answers are known, on its test images."""

import io

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image

from jaxnas import data, networks, studies, train

NAMES = "dark", "light"


class Threshold(nn.Module):
    """Light images are of class 1, the more certainly the lighter they are."""

    num_classes: int = 2

    @nn.compact
    def __call__(self, images, *, train: bool):
        del train
        level = images.mean((1, 2, 3))[:, None] - 0.5
        signs = np.array([-8, 8, *[-8] * (self.num_classes - 2)], np.float32)
        return level * signs[None]


def dataset():
    levels = np.array([10, 90, 160, 240, 250], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (5, 3, 3, 1)).copy()
    test = data.Split(images, np.array([0, 1, 1, 0, 1], np.int32))
    return data.ImageDataset("levels", test, test, NAMES, (0.0,), (1.0,), "made here")


def results(network):
    trained = networks.TrainedNetwork(
        network, {}, data.image_format(dataset()), class_names=NAMES
    )
    return studies.classifier_results(trained, dataset().test, batch_size=2)


def test_wrong_answers_and_their_images():
    found = results(Threshold())
    assert found.class_names == NAMES
    np.testing.assert_array_equal(found.metrics.confusion, [[1, 1], [1, 2]])
    assert [wrong[:3] for wrong in found.metrics.most_wrong] == [(3, 0, 1), (1, 1, 0)]
    np.testing.assert_array_equal(found.wrong_images, dataset().test.images[[3, 1]])


class Nothing(Threshold):
    """Logits that are no numbers."""

    @nn.compact
    def __call__(self, images, *, train: bool):
        return super().__call__(images, train=train) * np.float32("nan")


def test_probabilities_that_are_not_finite():
    with pytest.raises(train.Diverged, match="probabilities of 5 of 5 images are not"):
        results(Nothing())


def test_no_images():
    trained = networks.TrainedNetwork(
        Threshold(), {}, data.image_format(dataset()), class_names=NAMES
    )
    nothing = data.Split(dataset().test.images[:0], dataset().test.labels[:0])
    with pytest.raises(ValueError, match="there are no test images"):
        studies.classifier_results(trained, nothing)


def test_images_that_are_read():
    test = dataset().test
    colors = np.broadcast_to(test.images[:, :1, :1], (5, 3, 3, 3))

    def read(index):
        file = io.BytesIO()
        Image.fromarray(colors[index]).save(file, "PNG")
        return data.Example(file.getvalue(), int(test.labels[index]), f"image {index}")

    trained = networks.TrainedNetwork(
        Threshold(),
        {},
        data.ImageFormat((3, 3, 3), "central_crop", (0.0,) * 3, (1.0,) * 3),
        class_names=NAMES,
    )
    found = studies.classifier_results(trained, data.Stream(5, 3, read), batch_size=2)
    expected = results(Threshold())
    np.testing.assert_array_equal(found.metrics.is_right, expected.metrics.is_right)
    assert found.metrics.most_wrong == expected.metrics.most_wrong
    np.testing.assert_array_equal(found.wrong_images, colors[[3, 1]])
