import numpy as np
import pytest
from PIL import Image

from jaxnas import data
from jaxnas.data import cache, folder


def write_image(path, seed=0, width=6, height=6, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    channels = () if mode == "L" else (3,)
    pixels = generator.integers(0, 256, (height, width, *channels)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("train/cat/a", "train/cat/b", "train/ant/c")):
        write_image(tmp_path / f"{name}.png", seed)
    write_image(tmp_path / "test/ant/d.png", 3)
    write_image(tmp_path / "test/cat/e.png", 4)
    return tmp_path


def rows(images, labels):
    pairs = zip(images, labels, strict=True)
    return {(image.tobytes(), int(label)) for image, label in pairs}


def test_the_first_images_are_a_sample_of_all_classes(tmp_path):
    for index in range(20):
        for name in ("ant", "cat"):
            write_image(tmp_path / f"train/{name}/{index}.png", index)
            write_image(tmp_path / f"test/{name}/{index}.png", index)
    labels = data.load("folder", tmp_path).train.labels
    assert 0 < labels[:20].sum() < 20
    np.testing.assert_array_equal(data.load("folder", tmp_path).train.labels, labels)


def test_images_and_classes_are_read(root):
    (root / "train/cat/notes.txt").write_text("not an image")
    (root / "train/cat/._a.png").write_text("nor this")
    dataset = data.load("folder", root)
    assert dataset.class_names == ("ant", "cat")
    assert dataset.test.labels.tolist() == [0, 1]
    assert dataset.train.labels.dtype == np.int32
    paths = ("train/ant/c", "train/cat/a", "train/cat/b")
    expected = [np.asarray(Image.open(root / f"{path}.png")) for path in paths]
    assert rows(*dataset.train) == rows(expected, [0, 1, 1])
    np.testing.assert_allclose(
        dataset.mean, (dataset.train.images / 255).mean(axis=(0, 1, 2))
    )
    assert dataset.source == f"images in {root}, train and test"


def test_val_stands_in_for_test(root):
    (root / "test").rename(root / "val")
    dataset = data.load("folder", str(root))
    assert len(dataset.test.labels) == 2 and dataset.source.endswith("train and val")


def test_gray_images_become_rgb_and_deeper_folders_are_searched(root):
    gray = write_image(root / "train/cat/deep/z.PNG", 7, mode="L")
    train = data.load("folder", root).train
    assert rows([np.repeat(gray[..., None], 3, axis=-1)], [1]) < rows(*train)


def test_image_size_resizes_the_shorter_side_and_keeps_the_center(root):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 200
    for name in ("train/ant/c", "test/ant/d"):
        Image.fromarray(pixels).save(root / f"{name}.png")
    dataset = data.load("folder", root, image_size=4)
    assert dataset.train.images.shape == (3, 4, 4, 3)
    (ant,) = dataset.train.images[dataset.train.labels == 0]
    np.testing.assert_array_equal(ant[:, 1:3], 200)
    assert dataset.source.endswith("resized to 4x4")


def test_decoded_images_are_kept_until_a_file_changes(root, monkeypatch):
    first = data.load("folder", root)
    decode = folder._decode
    monkeypatch.setattr(folder, "_decode", lambda *_: pytest.fail("decoded again"))
    again = data.load("folder", root)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert (first.mean, first.std) == (again.mean, again.std)
    monkeypatch.setattr(folder, "_decode", decode)
    pixels = write_image(root / "train/ant/b.png", 9)
    changed = data.load("folder", root)
    assert rows([pixels], [0]) < rows(*changed.train)
    assert len(list((root / cache.FOLDER).iterdir())) == 2


def test_missing_folders_are_named(root, tmp_path):
    with pytest.raises(data.DatasetError, match="nowhere/train is not a folder"):
        data.load("folder", tmp_path / "nowhere")
    (root / "test").rename(root / "tests")
    with pytest.raises(data.DatasetError, match=r"neither .*/test nor .*/val is"):
        data.load("folder", root)


def test_empty_split_and_empty_class_are_refused(root):
    (root / "test/bee").mkdir()
    with pytest.raises(data.DatasetError, match="test/bee holds no image"):
        data.load("folder", root)
    (root / "test").rename(root / "old")
    (root / "test").mkdir()
    with pytest.raises(data.DatasetError, match="test holds no folder"):
        data.load("folder", root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_different_classes_are_refused(root, split):
    write_image(root / split / "bee/f.png")
    with pytest.raises(data.DatasetError, match=f"class 'bee' is in .*{split} but not"):
        data.load("folder", root)


def test_different_sizes_name_two_files(root):
    write_image(root / "test/ant/d.png", width=7)
    with pytest.raises(
        data.DatasetError, match=r"train/\w+/\w\.png is 6x6 .*test/ant/d\.png is 7x6"
    ):
        data.load("folder", root)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_unreadable_images_are_named(root, suffix):
    path = root / f"train/cat/z.{suffix}"
    write_image(path, width=64, height=64)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(data.DatasetError, match=rf"cat/z\.{suffix} cannot be read"):
        data.load("folder", root)
    path.write_text("no image at all")
    with pytest.raises(data.DatasetError, match=rf"cat/z\.{suffix} cannot be read"):
        data.load("folder", root)


def test_image_size_must_be_positive(root):
    with pytest.raises(data.DatasetError, match="at least 1, got 0"):
        data.load("folder", root, image_size=0)
