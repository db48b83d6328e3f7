"""Data sets in memory, images and texts, and augmentation inside the compiled step.

Those that do not fit into memory are read while they are used; see `stream`.
"""

from jaxnas.data.augmentation import augment, normalize
from jaxnas.data.folder import find_images
from jaxnas.data.images import (
    DatasetError,
    ImageDataset,
    Split,
    skipped_text,
    split,
)
from jaxnas.data.loading import NAMES, load
from jaxnas.data.reading import (
    ImageBatch,
    ImageFormat,
    image_format,
    read_images,
)
from jaxnas.data.streaming import (
    Example,
    Stream,
    StreamedDataset,
    describe,
    digest,
    images_at,
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
    "ImageBatch",
    "ImageDataset",
    "ImageFormat",
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
    "find_images",
    "first_tokens",
    "image_format",
    "images_at",
    "load",
    "load_text",
    "normalize",
    "propose",
    "read_images",
    "skipped_text",
    "split",
    "stream",
    "survey",
    "survey_dict",
    "survey_folder",
    "survey_text",
    "text_digest",
]
