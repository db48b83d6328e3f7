import io

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from jaxnas import data
from jaxnas.data import cache, decoding, svhn

DIGITS = {"train": (1, 9, 0), "test": (0, 5)}


def pixels(split):
    generator = np.random.default_rng(len(split))
    return generator.integers(0, 256, (len(DIGITS[split]), 32, 32, 3), dtype=np.uint8)


def write(root, compressed=True):
    for split, digits in DIGITS.items():
        labels = np.array([[digit or 10] for digit in digits], np.uint8)
        scipy.io.savemat(
            root / f"{split}_32x32.mat",
            {"X": pixels(split).transpose(1, 2, 3, 0), "y": labels},
            do_compression=compressed,
        )
    return root


def check(dataset):
    for name, digits in DIGITS.items():
        split = getattr(dataset, name)
        np.testing.assert_array_equal(split.images, pixels(name))
        assert split.labels.tolist() == list(digits)
        assert split.labels.dtype == np.int32
    assert dataset.class_names == tuple("0123456789")
    np.testing.assert_allclose(
        dataset.std, (pixels("train") / 255).std(axis=(0, 1, 2)), rtol=1e-6
    )
    assert "3 train and 2 test images instead of 73257 and 26032" in dataset.source


@pytest.mark.parametrize("compressed", [True, False])
def test_official_files(tmp_path, compressed):
    check(data.load("svhn", write(tmp_path, compressed)))


def test_images_are_resized_once(tmp_path, monkeypatch):
    dataset = data.load("svhn", write(tmp_path), image_size=64)
    expected = decoding.fit(Image.fromarray(pixels("train")[1]), 64)
    np.testing.assert_array_equal(dataset.train.images[1], expected)
    assert ", resized to 64x64" in dataset.source
    monkeypatch.setattr(svhn, "read_file", lambda _: pytest.fail("read again"))
    again = data.load("svhn", tmp_path, image_size=64)
    np.testing.assert_array_equal(again.test.images, dataset.test.images)
    assert len(list((tmp_path / cache.FOLDER).iterdir())) == 1


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stands for the data set of TFDS."""

    name = "svhn_cropped"
    VERSION = tfds.core.Version("3.1.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in DIGITS}

    def _generate_examples(self, split):
        for index, (image, digit) in enumerate(
            zip(pixels(split), DIGITS[split], strict=True)
        ):
            file = io.BytesIO()
            Image.fromarray(image).save(file, format="PNG")
            yield index, {"image": file.getvalue(), "label": digit}


def test_a_prepared_data_set(tmp_path):
    tfds.disable_progress_bar()
    Prepared(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    dataset = data.load("svhn", tmp_path)
    check(dataset)
    assert dataset.source.startswith("SVHN as the TFDS data set svhn_cropped/3.1.0")


def test_missing_files(tmp_path):
    with pytest.raises(
        data.DatasetError, match=r"neither train_32x32.mat and test_32x"
    ):
        data.load("svhn", tmp_path)
    (write(tmp_path) / "test_32x32.mat").unlink()
    with pytest.raises(
        data.DatasetError, match=r"test_32x32.mat is missing; get it fr"
    ):
        data.load("svhn", tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8)},
            r"and y of type float64 \[0\]; exp",
        ),
        (
            {"X": np.zeros((32, 31, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)},
            r"X of type uint8 \[32, 31, 3, 2\]",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1), np.uint8)},
            "X of type float64",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1), np.uint8)},
            r"y of type uint8 \[3, 1\]",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [11]], "u1")},
            "image 1 in .* has label 11, expected 0 to 9",
        ),
    ],
)
def test_other_arrays(tmp_path, arrays, message):
    scipy.io.savemat(write(tmp_path) / "test_32x32.mat", arrays)
    with pytest.raises(data.DatasetError, match=message):
        data.load("svhn", tmp_path)


def test_files_that_unpack_to_too_much_are_refused_unread(tmp_path, monkeypatch):
    path = write(tmp_path) / "test_32x32.mat"
    scipy.io.savemat(path, {"X": np.zeros(10**6)}, do_compression=True)
    monkeypatch.setattr(svhn, "_MAX_BYTES", 10**5)
    monkeypatch.setattr(scipy.io, "loadmat", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(
        data.DatasetError, match=r"content of .*bytes; expected at most"
    ):
        svhn.read_file(path)


@pytest.mark.parametrize("end", [0, 10, 128, 140, 300, -9, -1])
def test_truncated_files(tmp_path, end):
    path = write(tmp_path) / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(data.DatasetError, match=r"test_32x32.mat"):
        data.load("svhn", tmp_path)


def test_damaged_files_are_refused_or_read(tmp_path):
    path = write(tmp_path) / "test_32x32.mat"
    content = path.read_bytes()
    generator, num_refused = np.random.default_rng(0), 0
    for _ in range(100):
        changed = bytearray(content)
        changed[generator.integers(100, 400)] ^= 1 << generator.integers(8)
        path.write_bytes(changed)
        try:
            svhn.read_file(path)
        except data.DatasetError as error:
            assert str(path) in str(error) and len(str(error)) < 800
            num_refused += 1
    assert num_refused > 50
