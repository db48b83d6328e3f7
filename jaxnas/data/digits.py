"""The handwritten digits that come with scikit-learn."""

import numpy as np

from jaxnas.data import decoding, images

NUM_TRAIN = 1500
"""The first 1,500 of the 1,797 images train, the last 297 test."""


def load(image_size: int | None = None) -> images.ImageDataset:
    """Load scikit-learn's digits: 1,797 gray images of 8x8 pixels, 10 classes.

    Args:
      image_size: side in pixels to resize the images to (bilinear); 8 if `None`.

    Returns:
      1,500 training and 297 test images `[image_size, image_size, 1]`, with the file's
      pixel values 0 to 16 scaled to 0 to 255.

    Raises:
      DatasetError: if the size is out of range.

    Source: `sklearn.datasets.load_digits`, the test part of UCI's "Optical
    Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).
    """
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    pixels = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    source = "scikit-learn's digits, first 1500 train and last 297 test"
    if image_size is not None:
        decoding.check_image_size(image_size)
        pixels = decoding.resized(pixels, image_size)
        source += f", resized to {image_size}x{image_size}"
    train, test = images.split(
        images.Split(pixels, np.asarray(labels, np.int32)), NUM_TRAIN
    )
    mean, std = images.channel_statistics(train.images)
    return images.ImageDataset(
        name="digits",
        train=train,
        test=test,
        class_names=tuple("0123456789"),
        mean=mean,
        std=std,
        source=source,
    )
