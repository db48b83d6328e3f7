"""Data sets in memory, and their augmentation inside the compiled step."""

from jaxnas.data.augmentation import augment, normalize
from jaxnas.data.images import DatasetError, ImageDataset, Split, split
from jaxnas.data.loading import NAMES, load

__all__ = [
    "NAMES",
    "DatasetError",
    "ImageDataset",
    "Split",
    "augment",
    "load",
    "normalize",
    "split",
]
