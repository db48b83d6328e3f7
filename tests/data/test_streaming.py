"""Images read while training: crops, batches that repeat, sources and their faults."""

import io
import itertools
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxnas import data
from jaxnas.data import decoding, streaming


@pytest.fixture
def root(tmp_path):
    """Ten images for training and five for testing, of one gray value each."""
    for split, num in (("train", 10), ("val", 5)):
        for value in range(num):
            path = tmp_path / split / ("ant", "bee")[value % 2] / f"{value}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9 + value, 8), (10 * value,) * 3).save(path)
    return tmp_path


def values(batch):
    """Which images are in a batch, by their gray value."""
    return [round(float(image.mean()) / 10) for image in batch.images]


def ramp(width, height):
    """An image that tells where its pixels are: red is the column, green the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


def test_a_folder_is_found_but_not_read(root):
    dataset = data.stream(root, image_size=4)
    assert dataset.class_names == ("ant", "bee")
    assert (dataset.train.num_images, dataset.test.num_images) == (10, 5)
    assert dataset.train.image_shape == (4, 4, 3)
    assert dataset.source == (
        f"images in {root}, train and val, cut to 4x4 while they are read"
    )
    assert dataset.mean == streaming.IMAGENET_MEAN
    example = dataset.train.read(9)
    assert (example.label, example.name) == (1, str(root / "train/bee/9.jpg"))


def test_a_folder_is_listed_and_decoded_as_in_memory(root):
    exif = Image.Exif()
    exif[0x112] = 6
    for path in sorted(root.glob("*/*/*.jpg")):
        path.unlink()
        gray = Image.fromarray(np.array([[0, 257 * 100]], np.uint16))
        gray.save(path.with_suffix(".PNG"), exif=exif)
    (root / "train/bee/notes.txt").write_text("no image")
    (root / "train/bee/.hidden").mkdir()
    (root / "val/ant/more").symlink_to(root / "train/ant")
    streamed, loaded = data.stream(root, image_size=4), data.load("folder", root)
    assert streamed.class_names == loaded.class_names
    assert streamed.skipped == loaded.skipped == {".txt": 1, "hidden": 1}
    assert data.describe(streamed).endswith(
        ": 10 training and 10 test images of 4x4 pixels, 3 channels, 2 classes; "
        "skipped: 1 .txt, 1 hidden"
    )
    (batch,) = streaming.in_order(streamed.test, loaded.test.num_images)
    assert batch["label"].tolist() == loaded.test.labels.tolist()
    # Upright and of 8 bits: 1 pixel wide, 2 high.
    assert loaded.test.images.shape == (10, 2, 1, 3)
    np.testing.assert_array_equal(loaded.test.images[:, 1], 100)
    assert np.ptp(batch["image"], axis=2).max() == 0
    assert batch["image"][0, -1].min() > batch["image"][0, 0].max()


def test_a_digest_tells_data_apart_wherever_they_lie(root, tmp_path_factory):
    copy = shutil.copytree(root, tmp_path_factory.mktemp("copy") / "images")
    load = {
        "memory": lambda root: data.load("folder", root, image_size=4),
        "stream": lambda root: data.stream(root, image_size=4),
    }

    def digests(root):
        return {name: data.digest(load[name](root)) for name in load}

    whole = digests(root)
    assert digests(copy) == whole
    last = copy / "val/ant/4.jpg"
    last.rename(copy / "val/bee/4.jpg")
    moved = digests(copy)
    Image.new("RGB", (13, 8), (50, 40, 30)).save(copy / "val/bee/4.jpg")
    changed = digests(copy)
    assert len({whole["memory"], moved["memory"], changed["memory"]}) == 3
    # What a file of a stream holds is not known before it is read.
    assert whole["stream"] != moved["stream"] == changed["stream"]


def test_files_that_vanish_are_named(root):
    stream = data.stream(root, image_size=4).test
    (root / "val/ant/0.jpg").unlink()
    with pytest.raises(data.DatasetError, match=r"ant/0\.jpg cannot be read: No such"):
        list(streaming.in_order(stream, 2))


def test_an_epoch_has_every_image_once(root):
    train = data.stream(root, image_size=4).train
    batches = list(itertools.islice(streaming.shuffled(train, [1, 2], 5), 4))
    for batch in batches:
        assert batch.images.shape == (5, 4, 4, 3) and batch.images.dtype == np.uint8
        assert batch.labels.dtype == np.int32
        assert [value % 2 for value in values(batch)] == batch.labels.tolist()
    shown = [values(batch) for batch in batches]
    first, second = (shown[i] + shown[i + 1] for i in (0, 2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second != list(range(10))


def test_images_that_fill_no_batch_are_left_out(root):
    train = data.stream(root, image_size=4).train
    batches = itertools.islice(streaming.shuffled(train, [0], 4), 20)
    shown = [values(batch) for batch in batches]
    for first, second in zip(shown[::2], shown[1::2], strict=True):
        assert len({*first, *second}) == 8
    assert set().union(*shown) == set(range(10))


@pytest.mark.parametrize("first_step", [0, 1, 3, 5])
def test_batches_do_not_depend_on_where_the_reading_began(root, first_step):
    noise = np.random.default_rng(0).integers(0, 256, (10, 20, 20, 3)).astype(np.uint8)
    for index, path in enumerate(sorted(root.glob("train/*/*"))):
        Image.fromarray(noise[index]).save(path)
    train = data.stream(root, image_size=4).train

    def read(seed, start, num):
        batches = list(itertools.islice(streaming.shuffled(train, seed, 3, start), num))
        return [np.stack(leaf) for leaf in zip(*batches, strict=True)]

    expected = read([3], 0, 7)
    for found, whole in zip(read([3], first_step, 2), expected, strict=True):
        np.testing.assert_array_equal(found, whole[first_step : first_step + 2])
    assert not np.array_equal(read([4], 0, 2)[0], expected[0][:2])


def test_in_order_fills_up_the_last_batch(root):
    test = data.stream(root, image_size=4).test
    batches = list(streaming.in_order(test, 2))
    # Ordered by class, then by name.
    assert [batch["label"].tolist() for batch in batches] == [[0, 0], [0, 1], [1, 0]]
    assert [batch["weight"].tolist() for batch in batches] == [[1, 1], [1, 1], [1, 0]]
    np.testing.assert_array_equal(batches[2]["image"][1], batches[0]["image"][0])
    assert batches[0]["weight"].dtype == np.float32


def test_central_crop():
    # Of 64x32 pixels the 28x28 in the middle, one pixel for two.
    pixels = streaming.central_crop(ramp(64, 32), 14).astype(float)
    np.testing.assert_allclose(pixels[0, :, 0], 18 + 2 * np.arange(14) + 0.5, atol=1)
    np.testing.assert_allclose(pixels[:, 0, 1], 2 + 2 * np.arange(14) + 0.5, atol=1)


def test_random_crops_have_the_sizes_of_the_definition():
    generator = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(200):
        pixels = streaming.random_resized_crop(ramp(200, 160), 40, generator)
        assert pixels.shape == (40, 40, 3)
        wide = pixels.astype(float)
        width = (wide[0, -1, 0] - wide[0, 0, 0]) * 40 / 39
        height = (wide[-1, 0, 1] - wide[0, 0, 1]) * 40 / 39
        areas.append(width * height / (200 * 160))
        ratios.append(width / height)
    # Pixels are whole numbers.
    assert 0.07 < min(areas) < 0.2 and 0.8 < max(areas) < 1.05
    assert 0.7 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.4


def test_an_image_into_which_no_crop_fits_is_cut_in_the_center():
    # No rectangle of 8 % of the area and a ratio of 3/4 is 10 pixels high.
    pixels = streaming.random_resized_crop(ramp(250, 10), 10, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(120, 130))


class Imagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stands for ImageNet as TFDS prepares it."""

    name = "imagenet2012"
    VERSION = tfds.core.Version("5.1.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["n01", "n02"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        splits = {"train": 6, "validation": 3}
        return {name: self._generate_examples(name, n) for name, n in splits.items()}

    def _generate_examples(self, split, num):
        for i in range(num):
            file = io.BytesIO()
            Image.new("RGB", (9, 8), (10 * i,) * 3).save(file, format="JPEG")
            file.seek(0)
            yield f"{split}{i}", {"image": file, "label": i % 2}


def test_a_tfds_data_set(tmp_path):
    tfds.disable_progress_bar()
    Imagenet(data_dir=tmp_path).download_and_prepare(
        file_format="array_record", download_dir=tmp_path / "downloads"
    )
    dataset = data.stream(tmp_path, image_size=4)
    assert data.stream(tmp_path / "imagenet2012/5.1.0", image_size=4).source == (
        dataset.source
    )
    assert "the TFDS data set imagenet2012/5.1.0, cut to 4x4" in dataset.source
    assert dataset.class_names == ("n01", "n02")
    assert (dataset.train.num_images, dataset.test.num_images) == (6, 3)
    (batch,) = itertools.islice(streaming.shuffled(dataset.train, [0], 6), 1)
    assert sorted(values(batch)) == list(range(6))
    assert [value % 2 for value in values(batch)] == batch.labels.tolist()
    (batch,) = streaming.in_order(dataset.test, 3)
    shown = values(data.Split(batch["image"], batch["label"]))
    assert sorted(shown) == [0, 1, 2]
    assert [value % 2 for value in shown] == batch["label"].tolist()


def test_a_damaged_image_is_named_when_its_turn_comes(root):
    path = root / "train/bee/3.jpg"
    path.write_bytes(path.read_bytes()[:100])
    batches = streaming.shuffled(data.stream(root, image_size=4).train, [0], 2)
    with pytest.raises(data.DatasetError, match=r"train/bee/3\.jpg cannot be read"):
        list(itertools.islice(batches, 5))


def test_corrupt_images_are_skipped_if_asked(root, monkeypatch):
    whole = data.stream(root, image_size=4)
    (root / "train/bee/3.jpg").write_bytes(b"")
    path = root / "val/ant/0.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    (root / "val/ant/notes.txt").write_text("no image")
    for name in ("imagenet", "folder"):
        dataset = data.stream(root, image_size=4, name=name, skip_corrupt=True)
        assert (dataset.train.num_images, dataset.test.num_images) == (9, 4)
        assert dataset.skipped == {".txt": 1, "corrupt": 2}
        read = [dataset.train.read(index) for index in range(9)]
        expected = [whole.train.read(i) for i in range(10)]
        assert read == [e for e in expected if not e.name.endswith("bee/3.jpg")]
    # It is not decoded again to know.
    monkeypatch.setattr(decoding, "open_image", lambda *_, **__: pytest.fail("ran"))
    again = data.stream(root, image_size=8, skip_corrupt=True)
    assert again.skipped["corrupt"] == 2


def test_a_class_is_not_skipped(root):
    for path in root.glob("val/bee/*"):
        path.write_bytes(b"no image")
    with pytest.raises(data.DatasetError, match="all images of class 'bee' for train"):
        data.stream(root, image_size=4, skip_corrupt=True)


def test_what_is_missing_is_told(tmp_path, root):
    with pytest.raises(data.DatasetError, match=r"nor a TFDS data set imagenet2012"):
        data.stream(tmp_path / "nowhere")
    with pytest.raises(data.DatasetError, match="name is 'cars'; expected 'imagenet'"):
        data.stream(root, name="cars")
    with pytest.raises(data.DatasetError, match="image_size is 0; expected 1 to 9459"):
        data.stream(root, image_size=0)
    (root / "val").rename(root / "evaluation")
    with pytest.raises(data.DatasetError, match=r"neither .*test nor .*val is a folde"):
        data.stream(root)
