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


@pytest.mark.parametrize("protocol", range(6))
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


def test_arrays_of_any_order_are_read(tmp_path):
    layout = cifar.CIFAR100
    batches = write_folder(tmp_path, layout)
    for protocol in (2, 5):
        for name, batch in batches.items():
            labels = np.array(batch[b"fine_labels"], ">i4")
            changed = {
                "data": np.asfortranarray(batch[b"data"]),
                "fine_labels": labels,
            }
            path = tmp_path / layout.folder / name
            path.write_bytes(pickle.dumps(changed, protocol))
        check(data.load(layout.name, tmp_path), layout, batches)


def write_binary_folder(root, layout):
    """Write a small data set in the official binary layout; returns its batches."""
    binary = layout.binary
    folder = root / binary.folder
    folder.mkdir(parents=True)
    batches = {}
    names = (*layout.train, *layout.test)
    files = (*binary.train, *binary.test)
    for seed, (name, file) in enumerate(zip(names, files, strict=True)):
        batches[name] = batch = make_batch(layout, seed)
        labels = np.array(batch[layout.labels_key.encode()], np.uint8)[:, None]
        # Of CIFAR-100, the coarse label comes first.
        coarse = np.full((len(labels), binary.num_label_bytes - 1), 7, np.uint8)
        records = np.concatenate([coarse, labels, batch[b"data"]], axis=1)
        (folder / file).write_bytes(records.tobytes())
    text = "".join(f"class {i}\n" for i in range(layout.num_classes))
    (folder / binary.names).write_text(text + "\n")
    return batches


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_binary_folder_is_read(tmp_path, layout):
    batches = write_binary_folder(tmp_path, layout)
    for data_dir in (tmp_path, tmp_path / layout.binary.folder):
        dataset = data.load(layout.name, data_dir, download=False)
        check(dataset, layout, batches)
        assert dataset.source.startswith(f"{layout.title} in binary files, ")


def test_binary_folder_stands_back_behind_the_other(tmp_path):
    write_binary_folder(tmp_path, cifar.CIFAR10)
    write_folder(tmp_path, cifar.CIFAR10)
    assert "CIFAR-10 layout" in data.load("cifar10", tmp_path).source


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("data_batch_2.bin", None, "batches-bin lacks data_batch_2.bin; get CIFAR-10"),
        ("batches.meta.txt", None, "batches-bin lacks batches.meta.txt"),
        ("data_batch_2.bin", b"", "has 0 bytes, expected a multiple of 3073"),
        ("test_batch.bin", bytes(3072), "has 3072 bytes, expected a multiple of 3073"),
        ("test_batch.bin", b"\n" * 3073, "image 0 in .*batch.bin has label 10, expect"),
        ("batches.meta.txt", b"cat\ndog\n", "meta.txt lists 2 names; expected 10"),
        ("batches.meta.txt", b"\xff\n" * 10, "meta.txt is no text"),
    ],
)
def test_wrong_binary_folders_are_refused(tmp_path, name, contents, message):
    write_binary_folder(tmp_path, cifar.CIFAR10)
    path = tmp_path / "cifar-10-batches-bin" / name
    if contents is None:
        path.unlink()
    else:
        path.write_bytes(contents)
    with pytest.raises(data.DatasetError, match=message):
        data.load("cifar10", tmp_path, download=False)


def test_large_files_are_not_read(tmp_path):
    write_binary_folder(tmp_path, cifar.CIFAR10)
    with (tmp_path / "cifar-10-batches-bin/test_batch.bin").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(data.DatasetError, match=r"batch\.bin has 1,099,511,627,776"):
        data.load("cifar10", tmp_path)


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
        match=r"batches-py, cifar-10-batches-bin, cifar-10-python\.tar\.gz nor .* get "
        "https://.*put it",
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
        (BATCH | {b"labels": [2**70, 0, 2]}, f"image 0 in .* label {2**70}, expected"),
        (BATCH | {b"labels": np.zeros(3)}, "no list of integers under 'labels'"),
        (BATCH | {b"labels": ["1", "2", "3"]}, "no list of integers under 'labels'"),
        (BATCH | {b"data": BATCH[b"data"][:, :-1]}, r"shape \(3, 3071\), expected"),
        (BATCH | {b"data": BATCH[b"data"][:0]}, r"shape \(0, 3072\), expected"),
        (BATCH | {b"data": np.zeros((3, 3072))}, "no uint8 array under 'data'"),
        ({b"labels": [0, 1, 2]}, "no uint8 array under 'data'"),
        (BATCH | {b"data": np.array([BATCH])}, "an array of other than numbers"),
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
    for names in ([b"one"], list(range(10))):
        path.write_bytes(pickle.dumps({b"label_names": names}))
        with pytest.raises(data.DatasetError, match="does not list 10 names"):
            data.load("cifar10", tmp_path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_cannot_run_code(tmp_path, protocol):
    write_folder(tmp_path, cifar.CIFAR10)
    target = tmp_path / "created"
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Malicious(target)}, protocol))
    with pytest.raises(data.DatasetError, match=r"refers to \w+\.mkdir"):
        data.load("cifar10", tmp_path)
    assert not target.exists()
