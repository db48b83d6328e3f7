import functools
import hashlib
import os
import pickle
import tarfile

import numpy as np
import pytest

from jaxnas import data
from jaxnas.data import cifar, loading

LAYOUTS = (cifar.CIFAR10, cifar.CIFAR100)


def make_batch(layout, seed, num=3):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (num, 3072)).astype(np.uint8)
    labels = generator.integers(0, layout.num_classes, num).tolist()
    key = layout.labels_key.encode()
    return {b"data": pixels, key: labels, b"batch_label": b"some \xff text"}


def write_folder(root, layout, protocol=2):
    """Write a small data set in the official layout; returns its batches."""
    folder = root / layout.folder
    folder.mkdir(parents=True)
    batches = {}
    for seed, name in enumerate((*layout.train, *layout.test)):
        batches[name] = make_batch(layout, seed)
        (folder / name).write_bytes(pickle.dumps(batches[name], protocol))
    names = [f"class {i}".encode() for i in range(layout.num_classes)]
    meta = {layout.names_key.encode(): names}
    (folder / layout.meta).write_bytes(pickle.dumps(meta, protocol))
    return batches


def write_archive(root, layout):
    batches = write_folder(root / "unpacked", layout)
    path = root / layout.archive
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root / "unpacked" / layout.folder, layout.folder)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return path, layout._replace(archive_md5=md5), batches


def check(dataset, layout, batches):
    for part, names in ((dataset.train, layout.train), (dataset.test, layout.test)):
        pixels = np.concatenate([batches[name][b"data"] for name in names])
        key = layout.labels_key.encode()
        labels = [label for name in names for label in batches[name][key]]
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
        assert part.images.shape == (len(pixels), 32, 32, 3)
        assert part.labels.tolist() == labels
        # Row 2, column 5 of the green plane.
        np.testing.assert_array_equal(
            part.images[:, 2, 5, 1], pixels[:, 1024 + 2 * 32 + 5]
        )
    assert dataset.class_names[3] == "class 3"
    assert (dataset.mean, dataset.std) == (layout.mean, layout.std)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_folder_is_read(tmp_path, layout, protocol):
    batches = write_folder(tmp_path, layout, protocol)
    check(data.load(layout.name, tmp_path), layout, batches)
    inside = data.load(layout.name, tmp_path / layout.folder)
    check(inside, layout, batches)
    num = 3 * len(layout.train)
    assert inside.source == (
        f"{layout.title} layout, files differ from the official ones, "
        f"{num} train and 3 test images instead of 50000 and 10000"
    )


def test_official_files_are_recognised(tmp_path):
    layout = cifar.CIFAR100
    write_folder(tmp_path, layout)
    folder = tmp_path / layout.folder
    md5s = {
        name: hashlib.md5((folder / name).read_bytes()).hexdigest()
        for name in ("train", "test")
    }
    known = layout._replace(
        train={"train": md5s["train"]},
        test={"test": md5s["test"]},
        num_examples=(3, 3),
    )
    assert cifar.read_folder(folder, known).source == "official CIFAR-100 files"
    known = known._replace(train={"train": "0" * 32})
    assert "differ" in cifar.read_folder(folder, known).source


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_archive_is_read_without_unpacking(tmp_path, monkeypatch, layout):
    path, layout, batches = write_archive(tmp_path, layout)
    published = loading.published_cifar(layout)
    load = functools.partial(loading.load_published, published)
    monkeypatch.setitem(loading.DATASETS, layout.name, load)
    dataset = data.load(layout.name, tmp_path)
    check(dataset, layout, batches)
    assert dataset.source.startswith(f"official {layout.title} archive, ")
    assert not (tmp_path / layout.folder).exists()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(data.DatasetError, match=r"not all of it: its MD5 is .* get it"):
        data.load(layout.name, tmp_path)


def test_missing_data_say_where_to_get_them(tmp_path):
    with pytest.raises(
        data.DatasetError,
        match=r"batches-py, cifar-10-python\.tar\.gz nor .* get https://.*put it",
    ):
        data.load("cifar10", tmp_path, download=False)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(data.DatasetError, match="is a file, expected a folder"):
        data.load("cifar10", file)


def test_missing_batch_is_refused(tmp_path):
    write_folder(tmp_path, cifar.CIFAR10)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(data.DatasetError, match="batches-py lacks data_batch_3; get"):
        data.load("cifar10", tmp_path, download=False)


BATCH = make_batch(cifar.CIFAR10, 0)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (BATCH | {b"labels": [1, 2]}, "3 images but 2 labels"),
        (BATCH | {b"labels": [1, 10, 2]}, "image 1 in .* label 10, expected 0 to 9"),
        (BATCH | {b"labels": [-1, 0, 2]}, "image 0 in .* label -1"),
        (BATCH | {b"labels": ["1", "2", "3"]}, "no list of integers under 'labels'"),
        (BATCH | {b"data": BATCH[b"data"][:, :-1]}, r"shape \(3, 3071\), expected"),
        (BATCH | {b"data": BATCH[b"data"][:0]}, r"shape \(0, 3072\), expected"),
        (BATCH | {b"data": np.zeros((3, 3072))}, "no uint8 array under 'data'"),
        ({b"labels": [0, 1, 2]}, "no uint8 array under 'data'"),
        ([1, 2], "holds a list, expected a dictionary"),
    ],
)
def test_wrong_batches_are_refused(tmp_path, batch, message):
    write_folder(tmp_path, cifar.CIFAR10)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(data.DatasetError, match=message) as caught:
        data.load("cifar10", tmp_path)
    assert "data_batch_2" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 50, -100])
def test_truncated_batch_is_refused(tmp_path, keep):
    write_folder(tmp_path, cifar.CIFAR10)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(data.DatasetError, match=r"test_batch .* is cut short"):
        data.load("cifar10", tmp_path)


def test_missing_class_names_are_refused(tmp_path):
    write_folder(tmp_path, cifar.CIFAR10)
    path = tmp_path / "cifar-10-batches-py" / "batches.meta"
    path.write_bytes(pickle.dumps({b"label_names": [b"one"]}))
    with pytest.raises(data.DatasetError, match="does not list 10 names"):
        data.load("cifar10", tmp_path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_cannot_run_code(tmp_path):
    write_folder(tmp_path, cifar.CIFAR10)
    target = tmp_path / "created"
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Malicious(target)}, 2))
    with pytest.raises(data.DatasetError, match=r"refers to \w+\.mkdir"):
        data.load("cifar10", tmp_path)
    assert not target.exists()
