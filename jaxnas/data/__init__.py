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
    stream,
)
from jaxnas.data.surveying import (
    Proposal,
    Survey,
    propose,
    survey,
    survey_dict,
    survey_folder,
    survey_text,
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
    "Proposal",
    "Split",
    "Stream",
    "StreamedDataset",
    "Survey",
    "TextDataset",
    "augment",
    "describe",
    "describe_text",
    "digest",
    "first_tokens",
    "load",
    "load_text",
    "normalize",
    "propose",
    "split",
    "stream",
    "survey",
    "survey_dict",
    "survey_folder",
    "survey_text",
    "text_digest",
]
