"""A classifier whose answers are known, on its test images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import data, studies, train

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
    state = train.TrainState(jnp.int32(0), jax.random.key(0), {}, {}, (), {})

    def scale(key, images):
        del key
        return images.astype("float32") / 255

    pipeline = train.InputPipeline(2, scale, scale)
    return studies.classifier_results(network, state, dataset(), pipeline)


def test_wrong_answers_and_their_images():
    found = results(Threshold())
    assert found.class_names == NAMES
    np.testing.assert_array_equal(found.metrics.confusion, [[1, 1], [1, 2]])
    assert [wrong[:3] for wrong in found.metrics.most_wrong] == [(3, 0, 1), (1, 1, 0)]
    np.testing.assert_array_equal(found.wrong_images, dataset().test.images[[3, 1]])


def test_another_number_of_classes():
    with pytest.raises(ValueError, match="network has 3 classes; expected the 2 of"):
        results(Threshold(3))
