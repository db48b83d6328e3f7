import os
import pathlib

import numpy as np
import pytest

from jaxnas import data
from jaxnas.data import cache, images


def make_split(num):
    pixels = np.arange(num, dtype=np.uint8).reshape(num, 1, 1, 1)
    return data.Split(pixels, np.arange(num, dtype=np.int32))


def test_digits_are_complete_and_scaled():
    dataset = data.load("digits")
    assert dataset.train.images.shape == (1500, 8, 8, 1)
    assert dataset.test.images.shape == (297, 8, 8, 1)
    for part in (dataset.train, dataset.test):
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
        assert set(part.labels.tolist()) == set(range(10))
        assert part.images.min() == 0 and part.images.max() == 255
    # The first image, a zero, has the values 5 and 13 of 16 in its first row.
    assert dataset.train.labels[0] == 0
    assert dataset.train.images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    pixels = dataset.train.images / 255
    np.testing.assert_allclose(dataset.mean, [pixels.mean()])
    np.testing.assert_allclose(dataset.std, [pixels.std()])
    assert len(dataset.class_names) == 10
    assert "scikit-learn" in dataset.source


def test_digits_are_resized():
    plain, large = data.load("digits"), data.load("digits", image_size=16)
    assert large.train.images.shape == (1500, 16, 16, 1)
    assert large.test.images.shape == (297, 16, 16, 1)
    np.testing.assert_array_equal(large.train.labels, plain.train.labels)
    # Twice as large, so that the mean of 2x2 pixels is about the pixel before.
    means = large.train.images.reshape(1500, 8, 2, 8, 2).mean((2, 4))
    before = plain.train.images[..., 0]
    assert np.corrcoef(means.ravel(), before.ravel())[0, 1] > 0.95
    assert "resized to 16x16" in large.source
    with pytest.raises(data.DatasetError, match="image_size is 0; expected 1 to"):
        data.load("digits", image_size=0)


def test_channel_statistics_agree_with_numpy():
    generator = np.random.default_rng(0)
    # More images than fit one block.
    pixels = generator.integers(0, 200, (1500, 2, 3, 2)).astype(np.uint8)
    pixels[..., 1] //= 2
    mean, std = images.channel_statistics(pixels)
    np.testing.assert_allclose(mean, (pixels / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, (pixels / 255).std(axis=(0, 1, 2)))


def test_split_keeps_every_image_once():
    first, rest = data.split(make_split(5), 2)
    assert first.labels.tolist() == [0, 1] and rest.labels.tolist() == [2, 3, 4]
    assert rest.images[:, 0, 0, 0].tolist() == [2, 3, 4]


@pytest.mark.parametrize("num_first", [-1, 0, 5, 6])
def test_split_refuses_empty_parts(num_first):
    with pytest.raises(ValueError, match=f"between 1 and 4 .* got {num_first}"):
        data.split(make_split(5), num_first)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        data.DatasetError,
        match="'mnist', expected one of digits, cifar10, cifar100, tiny_imagenet200, c",
    ):
        data.load("mnist")


@pytest.mark.parametrize("name", ["folder", "images", "cars"])
def test_folders_need_a_folder(name):
    with pytest.raises(data.DatasetError, match=f"'{name}' needs data_dir"):
        data.load(name)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet200"])
def test_other_data_sets_have_one_size(name):
    with pytest.raises(data.DatasetError, match=f"celeba, .* got 64 for '{name}'"):
        data.load(name, image_size=64)


@pytest.mark.parametrize("name", ["digits", "cifar10", "svhn"])
def test_only_image_files_are_skipped(name):
    with pytest.raises(data.DatasetError, match=f"folder, .* got it for '{name}'"):
        data.load(name, skip_corrupt=True)


def test_number_of_classes():
    digits = data.load("digits")
    assert digits.num_classes == 10
    with pytest.raises(
        data.DatasetError, match="'digits' has no classes; expected one"
    ):
        _ = digits._replace(class_names=()).num_classes


def test_cache_computes_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(3, dtype=np.uint8)}

    for _ in range(2):
        arrays = cache.load_or_compute(tmp_path, "key", compute)
        assert arrays["x"].tolist() == [0, 1, 2] and arrays["x"].dtype == np.uint8
    assert len(calls) == 1
    cache.load_or_compute(tmp_path, "other", compute)
    assert len(calls) == 2
    names = sorted(path.name for path in (tmp_path / cache.FOLDER).iterdir())
    assert names == ["key.npz", "other.npz"]  # No temporary file is left.


def test_damaged_cache_is_replaced_with_a_warning(tmp_path):
    def compute():
        return {"x": np.arange(100)}

    cache.load_or_compute(tmp_path, "key", compute)
    path = tmp_path / cache.FOLDER / "key.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.warns(UserWarning, match=r"key\.npz is damaged"):
        arrays = cache.load_or_compute(tmp_path, "key", compute)
    assert arrays["x"].tolist() == list(range(100))
    cache.load_or_compute(tmp_path, "key", lambda: pytest.fail("was not replaced"))


def test_a_cache_larger_than_its_file_is_not_unpacked(tmp_path):
    cache.load_or_compute(tmp_path, "key", lambda: {"x": np.zeros(1)})
    path = tmp_path / cache.FOLDER / "key.npz"
    np.savez_compressed(path, x=np.zeros(10**7))
    with pytest.warns(UserWarning, match=r"key\.npz is damaged: its arrays take 80,"):
        arrays = cache.load_or_compute(tmp_path, "key", lambda: {"x": np.zeros(1)})
    assert arrays["x"].size == 1


def test_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / cache.FOLDER).write_text("in the way")
    with pytest.warns(UserWarning, match="could not be kept for the next time"):
        arrays = cache.load_or_compute(tmp_path, "key", lambda: {"x": np.zeros(1)})
    assert arrays["x"].tolist() == [0]


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.warns(UserWarning, match="no space left"):
        cache.load_or_compute(tmp_path, "key", lambda: {"x": np.zeros(1)})
    assert not list((tmp_path / cache.FOLDER).iterdir())


def test_fingerprint_sees_name_size_time_and_options(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"1")
    os.utime(file, ns=(1, 1))
    seen = {cache.fingerprint(tmp_path, [file])}
    assert cache.fingerprint(tmp_path, [file]) in seen
    seen.add(cache.fingerprint(tmp_path, [file], "64"))
    os.utime(file, ns=(1, 2_000_000))
    seen.add(cache.fingerprint(tmp_path, [file]))
    file.write_bytes(b"12")
    os.utime(file, ns=(1, 1))
    seen.add(cache.fingerprint(tmp_path, [file]))
    renamed = file.rename(tmp_path / "b")
    seen.add(cache.fingerprint(tmp_path, [renamed]))
    assert len(seen) == 5
