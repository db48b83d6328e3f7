import functools
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums

from jaxnas import data
from jaxnas.data import tfds_builders

BUILDERS = {
    "cifar10": tfds_builders.JaxnasCifar10,
    "cifar100": tfds_builders.JaxnasCifar100,
}


@pytest.fixture(autouse=True)
def without_progress_bars():
    tfds.disable_progress_bar()
    yield
    tfds.enable_progress_bar()


def write_archive(path, binary, num=3, num_bytes=3072):
    """Write a small archive in the official layout; returns files by name."""
    generator = np.random.default_rng(0)
    names = "".join(f"class {i}\n" for i in range(binary.num_classes))
    files = {binary.names: names.encode()}
    for name in (*binary.train, *binary.test):
        labels = generator.integers(0, 10, (num, binary.num_label_bytes))
        pixels = generator.integers(0, 256, (num, num_bytes))
        records = np.concatenate([labels, pixels], axis=1).astype(np.uint8)
        files[name] = records.tobytes()
    with tarfile.open(path, "w:gz") as archive:
        for name, contents in files.items():
            member = tarfile.TarInfo(f"{binary.folder}/{name}")
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return files


def expect(monkeypatch, builder, path):
    """Make the builder expect the checksum of this file."""
    info = checksums.compute_url_info(path)
    monkeypatch.setattr(builder, "url_infos", {builder.URL: info})


def parse(files, names, num_label_bytes):
    records = np.frombuffer(b"".join(files[name] for name in names), np.uint8)
    records = records.reshape(-1, num_label_bytes + 3072)
    planes = records[:, num_label_bytes:].reshape(-1, 3, 32, 32)
    return planes.transpose(0, 2, 3, 1), records[:, num_label_bytes - 1]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_archive_is_prepared_and_read(tmp_path, monkeypatch, name):
    builder = BUILDERS[name]
    path = tmp_path / f"{name.replace('cifar', 'cifar-')}-binary.tar.gz"
    files = write_archive(path, builder.BINARY)
    expect(monkeypatch, builder, path)
    dataset = data.load(name, tmp_path)
    for part, names in (
        (dataset.train, builder.BINARY.train),
        (dataset.test, builder.BINARY.test),
    ):
        images, labels = parse(files, names, builder.BINARY.num_label_bytes)
        np.testing.assert_array_equal(part.images, images)
        np.testing.assert_array_equal(part.labels, labels)
    assert dataset.class_names[:2] == ("class 0", "class 1")
    assert (
        f"jaxnas_{name}/1.0.0, {3 * len(builder.BINARY.train)} train" in dataset.source
    )

    # From here on neither the archive nor the network is needed.
    path.unlink()
    for folder in (tmp_path, tmp_path / f"jaxnas_{name}" / "1.0.0"):
        again = data.load(name, folder, download=False)
        np.testing.assert_array_equal(again.train.images, dataset.train.images)


def test_registered_checksums_are_the_official_ones():
    infos = tfds_builders.JaxnasCifar10.url_infos
    assert infos is not None
    assert infos[tfds_builders.JaxnasCifar10.URL].checksum.startswith("c4a38c50a1bc")
    assert infos[tfds_builders.JaxnasCifar10.URL].size == 170052171
    assert infos[tfds_builders.JaxnasCifar100.URL].checksum.startswith("58a81ae192c2")


def test_wrong_archive_is_refused(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, tfds_builders.JaxnasCifar10.BINARY)
    with pytest.raises(
        data.DatasetError, match=r"binary\.tar\.gz is not the official archive"
    ):
        data.load("cifar10", tmp_path)


def test_records_of_the_wrong_size_are_refused(tmp_path, monkeypatch):
    builder = tfds_builders.JaxnasCifar10
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, builder.BINARY, num_bytes=3071)
    expect(monkeypatch, builder, path)
    with pytest.raises(
        data.DatasetError, match="9216 bytes, expected a multiple of 30"
    ):
        data.load("cifar10", tmp_path)


def test_archive_without_a_batch_is_refused(tmp_path, monkeypatch):
    builder = tfds_builders.JaxnasCifar10
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, builder.BINARY._replace(train=("data_batch_1.bin",)))
    expect(monkeypatch, builder, path)
    with pytest.raises(data.DatasetError, match=r"lacks .*/data_batch_2\.bin"):
        data.load("cifar10", tmp_path)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve `tmp_path/served`; yields the address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    handler = functools.partial(QuietHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()
        thread.join()


def test_archive_is_downloaded(tmp_path, monkeypatch, server):
    builder = tfds_builders.JaxnasCifar10
    path = tmp_path / "served" / "cifar-10-binary.tar.gz"
    write_archive(path, builder.BINARY)
    monkeypatch.setattr(builder, "URL", f"{server}/{path.name}")
    expect(monkeypatch, builder, path)
    assert data.load("cifar10", tmp_path / "new").train.images.shape[0] == 15


def test_unreachable_download_says_what_to_put_where(tmp_path, monkeypatch, server):
    builder = tfds_builders.JaxnasCifar10
    monkeypatch.setattr(builder, "URL", f"{server}/absent.tar.gz")
    with pytest.raises(
        data.DatasetError,
        match=r"could not be downloaded .*404.* put https://.*python\.tar\.gz into",
    ):
        data.load("cifar10", tmp_path)


class Shuffled(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stands for a data set that somebody else prepared."""

    name = "cifar10"
    VERSION = tfds.core.Version("3.0.2")
    NUM_CLASSES = 10

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=self.NUM_CLASSES),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        for i in range(9):
            image = Image.new("RGB", (32, 32), (i, 0, 255))
            yield i, {"id": f"{split}_{i:05d}", "image": image, "label": i}


class OtherClasses(Shuffled, skip_registration=True):
    name = "cifar100"


def prepare(builder, data_dir):
    builder(data_dir=data_dir).download_and_prepare(
        file_format="array_record", download_dir=data_dir / "downloads"
    )


def test_data_set_prepared_elsewhere_is_read_in_order(tmp_path):
    prepare(Shuffled, tmp_path)
    dataset = data.load("cifar10", tmp_path, download=False)
    assert dataset.train.labels.tolist() == list(range(9))
    assert dataset.train.images[:, 4, 4, 0].tolist() == list(range(9))
    assert "TFDS data set cifar10/3.0.2, 9 train and 9 test" in dataset.source
    with pytest.raises(data.DatasetError, match="holds neither"):
        data.load("cifar100", tmp_path, download=False)


def test_damaged_and_unfit_data_sets_are_refused(tmp_path):
    prepare(Shuffled, tmp_path)
    shard = next(tmp_path.glob("cifar10/3.0.2/*test*"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(data.DatasetError, match=r"the split 'test' in .* is damaged"):
        data.load("cifar10", tmp_path)
    prepare(OtherClasses, tmp_path)
    with pytest.raises(data.DatasetError, match="expected one of 100 classes"):
        data.load("cifar100", tmp_path)
