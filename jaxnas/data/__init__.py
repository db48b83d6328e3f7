"""Data sets in memory, and their augmentation inside the compiled step.

Those that do not fit into memory are read while they are used; see `stream`.
"""

from jaxnas.data.augmentation import augment, normalize
from jaxnas.data.images import DatasetError, ImageDataset, Split, split
from jaxnas.data.loading import NAMES, load
from jaxnas.data.streaming import (
    Example,
    Stream,
    StreamedDataset,
    describe,
    digest,
    stream,
)

__all__ = [
    "NAMES",
    "DatasetError",
    "Example",
    "ImageDataset",
    "Split",
    "Stream",
    "StreamedDataset",
    "augment",
    "describe",
    "digest",
    "load",
    "normalize",
    "split",
    "stream",
]
