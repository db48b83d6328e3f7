"""Data sets in memory, images and texts, and augmentation inside the compiled step.

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
    images_at,
    stream,
)
from jaxnas.data.text import (
    TEXTS,
    TextDataset,
    describe_text,
    first_tokens,
    load_text,
    text_digest,
)

__all__ = [
    "NAMES",
    "TEXTS",
    "DatasetError",
    "Example",
    "ImageDataset",
    "Split",
    "Stream",
    "StreamedDataset",
    "TextDataset",
    "augment",
    "describe",
    "describe_text",
    "digest",
    "first_tokens",
    "images_at",
    "load",
    "load_text",
    "normalize",
    "split",
    "stream",
    "text_digest",
]
