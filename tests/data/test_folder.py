import os

import numpy as np
import PIL
import pytest
from PIL import Image

from jaxnas import _memory, data
from jaxnas.data import cache, decoding, folder


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
    assert labels[:20].sum() == labels[20:].sum() == 10
    np.testing.assert_array_equal(data.load("folder", tmp_path).train.labels, labels)


def test_images_and_classes_are_read(root):
    (root / "train/cat/notes.txt").write_text("not an image")
    (root / "train/cat/._a.png").write_text("nor this")
    (root / "test/labels.csv").write_text("nor this")
    dataset = data.load("folder", root)
    assert dataset.skipped == {".txt": 1, "hidden": 1, "in no class": 1}
    assert data.describe(dataset).endswith(
        ": 3 training and 2 test images of 6x6 pixels, 3 channels, 2 classes; skipped: "
        "1 .txt, 1 hidden, 1 in no class"
    )
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


@pytest.mark.parametrize(
    "hidden", ["train/.cat", "train/cat/.ipynb_checkpoints", "train/cat/deep/.git/more"]
)
def test_hidden_folders_are_skipped_at_every_level(root, hidden):
    write_image(root / hidden / "z.png", 7)
    dataset = data.load("folder", root)
    assert dataset.train.num_images == 3 and dataset.class_names == ("ant", "cat")
    assert dataset.skipped == {"hidden": 1}


def test_linked_folders_are_followed_at_every_level(root, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    write_image(store / "a/x.png", 5)
    write_image(store / "b/y.png", 6)
    (store / "a/inner").symlink_to(store / "b")
    (root / "train/cat/deep").mkdir()
    (root / "train/cat/deep/more").symlink_to(store / "a")
    (root / "train/ant/z.png").symlink_to(store / "a/x.png")
    for split in ("train", "test"):
        (root / split / "linked").symlink_to(store / "a")
    dataset = data.load("folder", root)
    assert dataset.class_names == ("ant", "cat", "linked")
    assert np.bincount(dataset.train.labels).tolist() == [2, 4, 2]
    assert not dataset.skipped


def test_a_class_does_not_read_a_folder_twice(root):
    write_image(root / "train/cat/deep/x.png", 5)
    for name in ("again", "deep/and_again"):
        (root / "train/cat" / name).symlink_to(root / "train/ant")
    dataset = data.load("folder", root)
    assert np.bincount(dataset.train.labels).tolist() == [1, 4]
    assert dataset.skipped == {"linked twice": 1}


@pytest.mark.parametrize("target", ["train/cat/deep", "train/cat", "train", "."])
def test_links_to_folders_that_hold_them_are_refused(root, target):
    (root / "train/cat/deep").mkdir()
    (root / "train/cat/deep/loop").symlink_to(root / target)
    with pytest.raises(data.DatasetError, match=r"cat/deep/loop is a link to .* holds"):
        data.load("folder", root)


def test_a_class_that_links_to_all_classes_is_refused(root):
    (root / "train/all").symlink_to(root / "train")
    with pytest.raises(data.DatasetError, match=r"all is a link to .* which holds"):
        data.load("folder", root)


def test_what_is_no_file_is_skipped(root):
    os.mkfifo(root / "train/cat/pipe.png")
    (root / "train/cat/zero.png").symlink_to("/dev/zero")
    (root / "train/cat/broken.png").symlink_to("nowhere.png")
    write_image(root / "train/cat/folder.png/x.png", 5)
    dataset = data.load("folder", root)
    assert dataset.train.num_images == 4
    assert dataset.skipped == {"pipe or device": 2, "broken link": 1}


def test_unreadable_folders_are_named(root, monkeypatch):
    (root / "train/cat/closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(data.DatasetError, match="cat/closed cannot be read: Perm"):
        data.load("folder", root)


def test_links_to_themselves_are_named(root):
    (root / "train/cat/loop.png").symlink_to("loop.png")
    with pytest.raises(data.DatasetError, match=r"cat/loop\.png cannot be read: Too m"):
        data.load("folder", root)


def test_names_of_files_may_be_any_bytes(root):
    os.rename(root / "train/cat/a.png", os.fsencode(root / "train/cat") + b"/\xe9.png")
    assert data.load("folder", root).train.num_images == 3


def test_names_of_classes_are_text(root):
    for split in ("train", "test"):
        os.rename(root / split / "cat", os.fsencode(root / split) + b"/caf\xe9")
    with pytest.raises(data.DatasetError, match=r"'caf\\udce9' in .* no text in UTF-8"):
        data.load("folder", root)


def test_one_class_is_refused_with_a_hint(tmp_path):
    for split, name in (("train", "cat"), ("train", "dog"), ("test", "cat")):
        write_image(tmp_path / split / "animals" / name / "a.png")
    with pytest.raises(
        data.DatasetError,
        match=r"one class only, 'animals'; .* holds the folders 'cat', 'dog': if .* up",
    ):
        data.load("folder", tmp_path)
    with pytest.raises(data.DatasetError, match="one class only, 'animals'"):
        data.stream(tmp_path)


def test_one_class_without_deeper_folders_is_refused(tmp_path):
    for split in ("train", "test"):
        write_image(tmp_path / split / "cat/a.png")
    with pytest.raises(data.DatasetError, match=r"two or more, one folder per class$"):
        data.load("folder", tmp_path)


def test_skipped_files_explain_a_class_without_images(root):
    (root / "train/bee").mkdir()
    for index in range(2):
        (root / f"train/bee/{index}.HEIC").write_text("a photograph")
    with pytest.raises(data.DatasetError, match=r"no image; .* skipped: 2 \.heic$"):
        data.load("folder", root)


def test_all_endings_of_one_format_are_read(root):
    for name in ("x.jfif", "y.JPE", "z.mpo"):
        Image.new("RGB", (6, 6)).save(root / "train/cat" / name, "JPEG")
    assert data.load("folder", root).train.num_images == 6


def test_constant_images_have_no_deviation(root):
    for path in root.glob("*/*/*.png"):
        Image.new("RGB", (2, 2), (0, 7, 255)).save(path)
    assert data.load("folder", root).std == (0, 0, 0)


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
    decode = decoding.decode_all
    monkeypatch.setattr(decoding, "decode_all", lambda *_: pytest.fail("decoded again"))
    again = data.load("folder", root)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert (first.mean, first.std) == (again.mean, again.std)
    monkeypatch.setattr(decoding, "decode_all", decode)
    pixels = write_image(root / "train/ant/b.png", 9)
    changed = data.load("folder", root)
    assert rows([pixels], [0]) < rows(*changed.train)
    assert len(list((root / cache.FOLDER).iterdir())) == 2


def test_images_are_decoded_again_by_another_version(root, monkeypatch):
    data.load("folder", root)
    for module, name in ((decoding, "_VERSION"), (PIL, "__version__")):
        monkeypatch.setattr(module, name, "another")
        data.load("folder", root)
    assert len(list((root / cache.FOLDER).iterdir())) == 3


def test_missing_folders_are_named(root, tmp_path):
    words = "nowhere is not a folder; expected .*nowhere/train/CLASS .* or in .*/CLASS"
    with pytest.raises(data.DatasetError, match=words):
        data.load("folder", tmp_path / "nowhere")
    (root / "test").rename(root / "tests")
    words = "neither .*/test nor .*/val is a folder, but .*/tests is; .* rename it"
    with pytest.raises(data.DatasetError, match=words):
        data.load("folder", root)
    (root / "train").rename(root / "training")
    words = "tests seems to hold classes, not images of one; expected them in .*/train"
    with pytest.raises(data.DatasetError, match=words):
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
    with pytest.raises(data.DatasetError, match="cannot be read: it is no image that"):
        data.load("folder", root)
    path.write_text("")
    with pytest.raises(
        data.DatasetError, match=rf"z\.{suffix} cannot be read: it is empty"
    ):
        data.load("folder", root)


@pytest.mark.parametrize("image_size", [0, 100_000])
def test_image_size_has_bounds(root, image_size):
    with pytest.raises(data.DatasetError, match=f"is {image_size}; expected 1 to 9459"):
        data.load("folder", root, image_size=image_size)


def test_images_of_a_class_are_spread_evenly():
    labels = np.repeat(np.arange(60), np.arange(60) % 9 + 2).astype(np.int32)
    order = folder.sampling_order(labels)
    assert sorted(order) == list(range(len(labels)))
    assert len(set(labels[order[: len(labels) // 2]])) == 60
    assert len(set(labels[order[len(labels) // 2 :]])) == 60
    counts = np.bincount(labels)
    for num in range(0, len(labels), 50):
        share = num / len(labels) * counts
        assert np.abs(np.bincount(labels[order[:num]], minlength=60) - share).max() < 2


# Without test images ----------------------------------------------------------------


def write_tiny(path, content):
    """An image of one pixel, in 14 bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6 1 1 255\n" + content.to_bytes(3, "big"))


def write_classes(top, counts):
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            write_tiny(top / name / f"{index}.ppm", 1000 * number + index)


def held_out(top):
    found = folder.find(top)
    train, test = (
        {str(path.relative_to(part.folder)) for path in part.paths}
        for part in (found.train, found.test)
    )
    assert not train & test
    return train, test


@pytest.mark.parametrize("below", ["train", "."])
def test_a_fifth_of_each_class_is_held_out(tmp_path, below):
    counts = {"ant": 2, "bee": 5, "cat": 30, "dog": 12}
    write_classes(tmp_path / below, counts)
    top = tmp_path / below
    dataset = data.load("folder", tmp_path)
    assert np.bincount(dataset.test.labels).tolist() == [1, 1, 6, 2]
    assert np.bincount(dataset.train.labels).tolist() == [1, 4, 24, 10]
    assert dataset.class_names == tuple(counts)
    words = f"images in {top}, a fifth of each class held out for testing: 39 training"
    assert words in data.describe(dataset)
    assert not dataset.skipped
    # What was decoded is kept among the classes, and is none of them.
    assert not data.load("folder", tmp_path).skipped
    # Streams see the same split and the same labels.
    streamed = data.stream(tmp_path, image_size=1, name="folder")
    read = [streamed.test.read(index) for index in range(streamed.test.num_images)]
    assert [example.label for example in read] == dataset.test.labels.tolist()
    assert {(e.contents[-3:], e.label) for e in read} == rows(*dataset.test)


def test_one_more_image_moves_at_most_one_other(tmp_path):
    write_classes(tmp_path, {"ant": 12, "bee": 3})
    before = held_out(tmp_path)[1]
    for index in range(12, 40):
        write_tiny(tmp_path / f"ant/{index}.ppm", index)
        after = held_out(tmp_path)[1]
        assert len(before - after) <= 1
        assert len(after - before) <= 1
        assert {name for name in before if "bee" in name} <= after
        before = after
    copy = tmp_path / "other place"
    os.rename(tmp_path / "ant", tmp_path / "bees")
    os.rename(tmp_path / "bees", tmp_path / "ant")
    assert held_out(tmp_path)[1] == before
    copy.mkdir()
    for name in ("ant", "bee"):
        os.rename(tmp_path / name, copy / name)
    assert held_out(copy)[1] == before


def test_equal_files_are_on_one_side(tmp_path):
    write_classes(tmp_path, {"ant": 10, "bee": 10})
    for index in range(10):
        for copy in range(2):
            write_tiny(tmp_path / f"ant/{index}-{copy}.ppm", index)
    write_tiny(tmp_path / "bee/as 3.ppm", 3)
    train, test = held_out(tmp_path)
    for index in range(10):
        copies = {f"ant/{index}{end}.ppm" for end in ("", "-0", "-1")}
        assert copies <= train or copies <= test
    # An image of two classes is no test of either.
    assert {"ant/3.ppm", "ant/3-0.ppm", "bee/as 3.ppm"} <= train
    assert len(test) == 2 * 3 + 2


@pytest.mark.parametrize("num_copies", [1, 3])
def test_single_images_cannot_be_held_out(tmp_path, num_copies):
    write_classes(tmp_path, {"ant": 4, "bee": 0, "cow": 0})
    for name, content in (("bee", 50), ("cow", 51)):
        for copy in range(num_copies):
            write_tiny(tmp_path / name / f"{copy}.ppm", content)
    words = r"class 'bee' in .* has one image \(2 such classes\); expected two or more"
    with pytest.raises(data.DatasetError, match=words):
        data.load("folder", tmp_path)


def test_classes_of_the_same_images_cannot_be_divided(tmp_path):
    write_classes(tmp_path, {"ant": 4, "bee": 0})
    for index in range(2):
        write_tiny(tmp_path / f"bee/{index}.ppm", index)
    words = "class 'bee' in .* has no image that is not in another class too"
    with pytest.raises(data.DatasetError, match=words):
        data.load("folder", tmp_path)


def test_classes_may_have_the_names_of_splits(tmp_path):
    write_classes(tmp_path, {"bus": 5, "train": 5})
    assert data.load("folder", tmp_path).class_names == ("bus", "train")


def test_folders_of_other_programs_are_no_classes(tmp_path):
    write_classes(tmp_path, {"ant": 5, "bee": 5})
    write_tiny(tmp_path / "__MACOSX/ant/1.ppm", 1)
    write_tiny(tmp_path / "ant/@eaDir/thumbnail.ppm", 1)
    dataset = data.load("folder", tmp_path)
    assert dataset.class_names == ("ant", "bee")
    assert dataset.skipped == {"hidden": 2}


def test_a_thousand_classes(tmp_path):
    write_classes(tmp_path, {f"{index:03}": 2 for index in range(1000)})
    dataset = data.load("folder", tmp_path)
    assert dataset.num_classes == 1000
    for split in (dataset.train, dataset.test):
        assert sorted(split.labels) == list(range(1000))
        contents = split.images[:, 0, 0].astype(int) @ (256**2, 256, 1)
        np.testing.assert_array_equal(contents // 1000, split.labels)


# Memory -----------------------------------------------------------------------------


def test_images_that_exceed_memory_are_refused_before_they_are_decoded(
    root, monkeypatch
):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 5000)
    monkeypatch.setattr(decoding, "open_image", lambda *_, **__: pytest.fail("ran"))
    words = r"5 images of 100x100 pixels take 150,000 bytes, .*; 5,000 bytes are avai"
    with pytest.raises(data.DatasetError, match=words):
        data.load("folder", root, image_size=100)


# Corrupt images ---------------------------------------------------------------------


def test_corrupt_images_are_skipped_if_asked(root, monkeypatch):
    expected = data.load("folder", root)
    for index, content in enumerate((b"", b"no image", b"\x89PNG\r\n\x1a\n" * 9)):
        (root / f"train/cat/0{index}.png").write_bytes(content)
    (root / "test/ant/0.png").write_bytes(b"P5 30000 30000 255\n")
    with pytest.raises(data.DatasetError, match="cannot be read"):
        data.load("folder", root)
    dataset = data.load("folder", root, skip_corrupt=True)
    assert rows(*dataset.train) == rows(*expected.train)
    np.testing.assert_array_equal(dataset.test.images, expected.test.images)
    np.testing.assert_array_equal(dataset.test.labels, expected.test.labels)
    assert dataset.mean == expected.mean
    assert dataset.skipped == {"corrupt": 4}
    assert data.describe(dataset).endswith("; skipped: 4 corrupt")
    # What is kept for the next time counts them too, and hides nothing.
    monkeypatch.setattr(folder, "_decode_one", lambda *_, **__: pytest.fail("again"))
    assert data.load("folder", root, skip_corrupt=True).skipped == {"corrupt": 4}
    monkeypatch.undo()
    with pytest.raises(data.DatasetError, match="cannot be read"):
        data.load("folder", root)


def test_a_class_is_not_skipped(root):
    (root / "train/ant/c.png").write_text("no image")
    message = r"ant/c\.png and all other images of its class are corrupt; expected one"
    with pytest.raises(data.DatasetError, match=message):
        data.load("folder", root, skip_corrupt=True)
    for path in root.glob("*/*/*.png"):
        path.write_text("no image")
    with pytest.raises(data.DatasetError, match="and all other images are corrupt"):
        data.load("folder", root, skip_corrupt=True)


def test_images_of_other_sizes_are_not_skipped(root):
    write_image(root / "test/ant/d.png", width=7)
    with pytest.raises(data.DatasetError, match="give image_size to bring"):
        data.load("folder", root, skip_corrupt=True)


# Without classes --------------------------------------------------------------------


def test_images_need_no_classes(tmp_path):
    written = [
        write_image(tmp_path / f"train/{name}.png", i)
        for i, name in enumerate(("b", "a", "deep/c"))
    ]
    gray = write_image(tmp_path / "test/d.png", 5, mode="L")
    Image.new("RGBA", (6, 6), (10, 20, 30, 0)).save(tmp_path / "test/e.png")
    (tmp_path / "train/notes.txt").write_text("no image")
    dataset = data.load("images", tmp_path)
    assert rows(*dataset.train) == rows(written, [0, 0, 0])
    assert rows(*dataset.test) == rows(
        [np.repeat(gray[..., None], 3, -1), np.full((6, 6, 3), (10, 20, 30), np.uint8)],
        [0, 0],
    )
    assert dataset.class_names == () and dataset.name == "images"
    assert data.describe(dataset).endswith(
        ": 3 training and 2 test images of 6x6 pixels, 3 channels; skipped: 1 .txt"
    )


def test_images_of_all_classes_are_read(root):
    dataset = data.load("images", root, image_size=4)
    assert dataset.train.images.shape == (3, 4, 4, 3)
    (root / "test").rename(root / "val")
    (root / "val/ant/d.png").write_text("no image")
    dataset = data.load("images", root, image_size=4, skip_corrupt=True)
    assert dataset.test.num_images == 1 and dataset.skipped == {"corrupt": 1}


@pytest.mark.parametrize("names", [("cars_train", "cars_test"), ("train", "test")])
def test_cars_are_cut_to_their_center(tmp_path, names):
    wide = np.zeros((70, 140, 3), np.uint8)
    wide[:, 35:105] = 200
    for name, file in zip(names, ("00001", "img/00002"), strict=True):
        path = tmp_path / name / f"{file}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(wide).save(path)
    dataset = data.load("cars", tmp_path)
    assert dataset.name == "cars" and dataset.class_names == ()
    assert dataset.train.images.shape == dataset.test.images.shape == (1, 64, 64, 3)
    assert (dataset.test.images[:, :, 2:-2] == 200).all()
    assert dataset.source.endswith(f"{names[0]} and {names[1]}, resized to 64x64")
    assert data.load("cars", tmp_path, image_size=8).train.image_shape == (8, 8, 3)


def test_missing_images(tmp_path):
    write_image(tmp_path / "train/a.png")
    with pytest.raises(
        data.DatasetError, match="neither the folders train and test no"
    ):
        data.load("images", tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(data.DatasetError, match="test holds no image; expected files"):
        data.load("images", tmp_path)
    (tmp_path / "train/loop").symlink_to(tmp_path)
    with pytest.raises(data.DatasetError, match=r"loop is a link to .* which holds it"):
        data.load("images", tmp_path)
