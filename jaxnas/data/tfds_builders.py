"""TFDS builders that prepare images without TensorFlow.

TFDS's own builders of CIFAR hand over pixel arrays, which it can encode only with
TensorFlow; these hand over PNG files. It has no builder of Tiny-ImageNet-200.
`checksums.tsv` beside this module holds the sizes and SHA-256 digests against which
TFDS checks the archives.
"""

import io
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxnas.data import cifar, images, tiny_imagenet
from jaxnas.data.files import ListedFiles


class JaxnasCifar10(tfds.core.GeneratorBasedBuilder):
    """CIFAR-10, in the official order."""

    VERSION = tfds.core.Version("1.0.0")
    URL = cifar.URL + "cifar-10-binary.tar.gz"
    BINARY = cifar.CIFAR10.binary

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="CIFAR, 32x32 color images, as PNG files.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(
                        shape=cifar.IMAGE_SHAPE, encoding_format="png"
                    ),
                    "label": tfds.features.ClassLabel(
                        num_classes=self.BINARY.num_classes
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        # TFDS unpacks archives only with TensorFlow.
        path = pathlib.Path(dl_manager.download(self.URL))
        contents = _read_archive(path, self.BINARY.folder)

        def get(name: str) -> bytes:
            if name not in contents:
                raise images.DatasetError(f"{path} lacks {self.BINARY.folder}/{name}")
            return contents[name]

        features: Any = self.info.features
        features["label"].names = cifar.parse_names(
            get(self.BINARY.names), self.BINARY, self.BINARY.names
        )
        return {
            split: self._generate_examples(
                split=split,
                parts=[
                    cifar.parse_records(get(name), self.BINARY, name) for name in files
                ],
            )
            for split, files in (
                ("train", self.BINARY.train),
                ("test", self.BINARY.test),
            )
        }

    def _generate_examples(self, **kwargs: Any) -> Any:
        return _examples(**kwargs)


class JaxnasCifar100(JaxnasCifar10):
    """CIFAR-100 with its 100 fine labels, in the official order."""

    VERSION = tfds.core.Version("1.0.0")
    URL = cifar.URL + "cifar-100-binary.tar.gz"
    BINARY = cifar.CIFAR100.binary


class JaxnasTinyImagenet200(tfds.core.GeneratorBasedBuilder):
    """Tiny-ImageNet-200 as the original JPEG files, in `tiny_imagenet`'s order.

    Gray images are stored as they are. The official test images have no labels and are
    left out.
    """

    VERSION = tfds.core.Version("1.0.0")
    URL = tiny_imagenet.URL
    NUM_CLASSES = tiny_imagenet.NUM_CLASSES

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="200 classes of ImageNet, 64x64 images, as JPEG files.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(
                        shape=tiny_imagenet.IMAGE_SHAPE, encoding_format="jpeg"
                    ),
                    "label": tfds.features.ClassLabel(num_classes=self.NUM_CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        path = pathlib.Path(dl_manager.download(self.URL))
        with tiny_imagenet.open_archive(path) as tree:
            listing = tiny_imagenet.find(tree)
        features: Any = self.info.features
        features["label"].names = listing.class_names
        return {
            split: self._generate_examples(path=path, split=split, files=files)
            for split, files in (("train", listing.train), ("validation", listing.val))
        }

    def _generate_examples(self, **kwargs: Any) -> Any:
        return _files(**kwargs)


def _files(
    path: pathlib.Path, split: str, files: ListedFiles
) -> Iterator[tuple[int, dict[str, Any]]]:
    with tiny_imagenet.open_archive(path) as tree:
        pairs = zip(files.items, files.labels, strict=True)
        for index, (name, label) in enumerate(pairs):
            yield index, _example(split, index, tree.read(name), label)


def _example(split: str, index: int, image: bytes, label: int) -> dict[str, Any]:
    # The identifiers sort in the order of the examples.
    return {"id": f"{split}_{index:05d}", "image": image, "label": int(label)}


def _read_archive(path: pathlib.Path, folder: str) -> dict[str, bytes]:
    """Return the files of one folder of an archive by name."""
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            parent, _, name = member.name.rpartition("/")
            file = archive.extractfile(member) if parent == folder else None
            if file is not None:
                contents[name] = file.read()
    return contents


def _examples(
    split: str, parts: list[images.Split]
) -> Iterator[tuple[int, dict[str, Any]]]:
    index = 0
    for part in parts:
        for image, label in zip(part.images, part.labels, strict=True):
            yield index, _example(split, index, _png(image), label)
            index += 1


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()
