import pathlib
import shutil
import warnings
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums

from jaxnas import data
from jaxnas.data import cache, decoding, prepared, tfds_builders, tiny_imagenet

WNIDS = ("n03000000", "n01000000", "n02000000")  # Not in alphabetical order.
NUM_TRAIN, NUM_VAL = 5, 2  # Of each class.
BUILDER = tfds_builders.JaxnasTinyImagenet200


def write_image(path, seed, size=64, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    pixels = generator.integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=50)


def write_tree(root):
    """Write the official layout with three classes; one training image is gray."""
    root.mkdir(parents=True)
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    words = ["n01000000\tgoldfish, Carassius auratus", "n09999999\tnot among them"]
    words += ["n02000000\tcrane, bird", "n03000000\tcrane"]
    (root / "words.txt").write_text("\n".join(words))
    lines = []
    for rank, wnid in enumerate(WNIDS):
        for index in range(NUM_TRAIN):
            mode = "L" if (rank, index) == (1, 2) else "RGB"
            path = root / f"train/{wnid}/images/{wnid}_{index}.JPEG"
            write_image(path, 10 * rank + index, mode=mode)
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0")
        for index in range(NUM_VAL):
            name = f"val_{3 * index + rank}.JPEG"
            write_image(root / "val/images" / name, 100 + 10 * rank + index)
            lines.append(f"{name}\t{wnid}\t0\t0\t63\t62\n")
    (root / "val/val_annotations.txt").write_text("".join(lines))
    (root / "test/images").mkdir(parents=True)
    (root / "test/images/test_0.JPEG").write_text("never read")
    return root


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "tiny-imagenet-200")


def load(root):
    return data.load("tiny_imagenet200", root.parent, download=False)


def write_archive(root, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            name = file.relative_to(root).as_posix()
            archive.write(file, f"tiny-imagenet-200/{name}")
        archive.writestr("__MACOSX/tiny-imagenet-200/train/._n.JPEG", "not an image")
    return path


def move_val_into_classes(root, inner):
    lines = (root / "val/val_annotations.txt").read_text().splitlines()
    for line in lines:
        name, wnid, *_ = line.split("\t")
        target = root / "val" / wnid / inner / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / "val/images" / name).rename(target)
    (root / "val/images").rmdir()


def check_equal(one, other):
    for part in ("train", "test"):
        np.testing.assert_array_equal(
            getattr(one, part).images, getattr(other, part).images
        )
        np.testing.assert_array_equal(
            getattr(one, part).labels, getattr(other, part).labels
        )
    assert one.class_names == other.class_names


def test_folder_is_read(root):
    dataset = load(root)
    assert dataset.name == "tiny_imagenet200"
    assert dataset.class_names == (
        "goldfish",
        "crane (n02000000)",
        "crane (n03000000)",
    )
    assert dataset.mean == (0.4802, 0.4481, 0.3975)
    assert dataset.std == (0.2302, 0.2265, 0.2262)
    assert dataset.source == (
        "Tiny-ImageNet-200 folder, tested on its val split as its test split has no "
        "labels, 3 classes instead of 200, 15 train and 6 test images instead of "
        "100000 and 10000"
    )
    assert dataset.train.images.shape == (15, 64, 64, 3)
    for part in (dataset.train, dataset.test):
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
    assert np.bincount(dataset.train.labels).tolist() == [NUM_TRAIN] * 3
    # The images of val are ordered by name, of classes 3, 1, 2, 3, 1, 2 in the
    # alphabet.
    assert dataset.test.labels.tolist() == [2, 0, 1, 2, 0, 1]
    first = Image.open(root / "val/images/val_0.JPEG")
    np.testing.assert_array_equal(dataset.test.images[0], np.asarray(first))
    check_equal(dataset, data.load("tiny_imagenet200", root))


def test_every_training_image_keeps_its_label(root):
    train = load(root).train
    found = {
        (image.tobytes(), label)
        for image, label in zip(train.images, train.labels.tolist(), strict=True)
    }
    expected = {
        (np.asarray(Image.open(path).convert("RGB")).tobytes(), label)
        for label, wnid in enumerate(sorted(WNIDS))
        for path in (root / "train" / wnid / "images").iterdir()
    }
    assert found == expected and len(expected) == 15
    # One image is gray.
    assert sum(np.ptp(image, axis=-1).max() == 0 for image in train.images) == 1
    # The order is a random one, so that the first images are a sample of all classes.
    assert len(set(train.labels[:5].tolist())) > 1


def test_archive_is_read_without_unpacking(root, monkeypatch):
    expected = load(root)
    write_archive(root, root.parent / "tiny-imagenet-200.zip")
    shutil.rmtree(root)
    dataset = load(root)
    check_equal(dataset, expected)
    assert dataset.source.startswith("Tiny-ImageNet-200 archive, tested on its val")
    assert not root.exists()
    monkeypatch.setattr(decoding, "decode_all", lambda *_: pytest.fail("decoded again"))
    check_equal(load(root), expected)


@pytest.mark.parametrize("keeps_annotations", [True, False])
@pytest.mark.parametrize("inner", ["images", ""])
def test_val_moved_into_classes_is_read(root, inner, keeps_annotations):
    expected = load(root)
    move_val_into_classes(root, inner)
    if not keeps_annotations:
        (root / "val/val_annotations.txt").unlink()
    check_equal(load(root), expected)


def test_words_may_be_absent(root):
    (root / "words.txt").unlink()
    assert load(root).class_names == tuple(sorted(WNIDS))


def test_decoded_images_are_kept_until_a_file_changes(root, monkeypatch):
    expected = load(root)
    with monkeypatch.context() as context:
        context.setattr(decoding, "decode_all", lambda *_: pytest.fail("decoded again"))
        check_equal(load(root), expected)
    write_image(root / "val/images/val_0.JPEG", 7, mode="L")
    assert not np.array_equal(load(root).test.images[0], expected.test.images[0])
    assert len(list((root / cache.FOLDER).iterdir())) == 2


def remove(name):
    def change(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def write(name, text):
    return lambda root: (root / name).write_bytes(text)


def append(name, text):
    return lambda root: write(name, (root / name).read_bytes() + text)(root)


ANNOTATIONS = "val/val_annotations.txt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("wnids.txt"), r"lacks wnids\.txt; expected tiny-imagenet-200 as in ht"),
        (remove("train"), "lacks images in train; expected"),
        (remove("val"), "lacks images in val; expected"),
        (remove("val/images"), "lacks images in val; expected"),
        (remove(ANNOTATIONS), "lacks val/val_annotations.txt, which says the classes"),
        (write("wnids.txt", b"\n"), r"wnids\.txt lists 0 classes"),
        (write("wnids.txt", b"n01000000\n"), r"wnids\.txt lists 1 classes; expected t"),
        (
            lambda root: (root / "train/n01000000/loop").symlink_to(root / "train"),
            "n01000000/loop is a link to .*train, which holds it",
        ),
        (
            append(ANNOTATIONS, b"x" * 9999),
            r"line 7 of .* is 'x{200}'; expected a file",
        ),
        (append("wnids.txt", b"n01000000\n"), r"lists 'n01000000' twice"),
        (write("wnids.txt", b"n\xff\n"), r"wnids\.txt is no text"),
        (
            append("wnids.txt", b"n04000000\n"),
            r"'n04000000' is in .*wnids\.txt but not in .*train \(1 such",
        ),
        (
            remove("train/n01000000/images"),
            r"'n01000000' is in .*wnids\.txt but not in .*train",
        ),
        (
            lambda root: write_image(root / "train/n04000000/images/x.JPEG", 0),
            r"'n04000000' is in .*train but not in .*wnids\.txt",
        ),
        (append(ANNOTATIONS, b"a.JPEG n01000000 0 0 1 1"), "line 7 .* is 'a.JPEG n0"),
        (append(ANNOTATIONS, b"a.JPEG\tn01000000\t0\t0\t1"), "line 7 .*the 4 sides"),
        (append(ANNOTATIONS, b"a.JPEG\tn01000000\t0\t0\t1\tx"), "line 7 .*the 4 sides"),
        (
            append(ANNOTATIONS, b"a.JPEG\tn04000000\t0\t0\t1\t1"),
            r"line 7 .* has class 'n04000000', which is not in wnids\.txt",
        ),
        (
            append(ANNOTATIONS, b"val_0.JPEG\tn01000000\t0\t0\t1\t1"),
            "lists 'val_0.JPEG' twice",
        ),
        (remove("val/images/val_3.JPEG"), r"val lacks 'val_3.JPEG', which val_ann"),
        (
            lambda root: write_image(root / "val/images/val_9.JPEG", 0),
            r"val_annotations\.txt lacks 'val_9.JPEG', which is in val \(1 such",
        ),
        (
            lambda root: write_image(root / "val/n01000000/val_0.JPEG", 0),
            "two images of one name: val/images/val_0.JPEG and val/n01000000/val_0",
        ),
        (
            lambda root: write_image(root / "val/images/val_2.JPEG", 0, size=32),
            r"images/val_2\.JPEG is 32x32 pixels, expected 64x64",
        ),
        (write("val/images/val_2.JPEG", b"no"), r"val_2\.JPEG cannot be read"),
    ],
)
def test_wrong_folders_are_refused(root, change, message):
    change(root)
    with pytest.raises(data.DatasetError, match=message):
        load(root)


def test_class_without_validation_images_is_refused(root):
    move_val_into_classes(root, "")
    (root / ANNOTATIONS).unlink()
    shutil.rmtree(root / "val/n02000000")
    with pytest.raises(data.DatasetError, match=r"'n02000000' is in .* not in .*val"):
        load(root)


def add_what_is_skipped(root):
    write_image(root / "train/n01000000/.ipynb_checkpoints/x.JPEG", 0)
    (root / "train/n01000000/images/notes.txt").write_text("no image")
    # These belong to the official layout.
    (root / "train/n01000000/n01000000_boxes.txt").write_text("")


def test_skipped_files_are_counted(root):
    add_what_is_skipped(root)
    dataset = load(root)
    assert dataset.train.num_images == 15
    assert dataset.skipped == {"hidden": 1, ".txt": 1}
    write_archive(root, root.parent / "tiny-imagenet-200.zip")
    shutil.rmtree(root)
    again = load(root)
    check_equal(again, dataset)
    assert set(again.skipped) == {"hidden", ".txt"}


def test_linked_folders_are_followed(root):
    expected = load(root)
    (root / "train/n01000000/images").rename(root.parent / "images")
    (root / "train/n01000000/images").symlink_to(root.parent / "images")
    check_equal(load(root), expected)


@pytest.mark.parametrize("name", ["wnids.txt", "train/n01000000/images/large.JPEG"])
def test_large_files_in_archives_are_not_unpacked(root, name):
    path = write_archive(root, root.parent / "tiny-imagenet-200.zip")
    shutil.rmtree(root)
    inside = f"tiny-imagenet-200/{name}"
    with (
        warnings.catch_warnings(action="ignore"),
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(inside, "w") as file,
    ):
        for _ in range(17):
            file.write(bytes(2**20))
    with pytest.raises(data.DatasetError, match=r"zip has 17,825,792 bytes; expected"):
        load(root)


def test_encrypted_archives_are_refused(root):
    path = write_archive(root, root.parent / "tiny-imagenet-200.zip")
    shutil.rmtree(root)
    contents = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        position = -1
        while (position := contents.find(signature, position + 1)) >= 0:
            contents[position + offset] |= 1
    path.write_bytes(contents)
    with pytest.raises(data.DatasetError, match=r"is damaged \(.*encrypted.*get it"):
        load(root)


def test_damaged_archives_are_refused(root):
    path = write_archive(root, root.parent / "tiny-imagenet-200.zip")
    shutil.rmtree(root)
    contents = path.read_bytes()
    position = contents.index(b"train/n01000000/images/n01000000_3.JPEG") + 500
    path.write_bytes(contents[:position] + b"damage" + contents[position + 6 :])
    with pytest.raises(data.DatasetError, match=r"n01000000_3\.JPEG in .* is damaged"):
        load(root)
    path.write_bytes(contents[:-100])
    with pytest.raises(data.DatasetError, match=r"no zip archive or not all of it .*"):
        load(root)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("wnids.txt", "not in the folder")
    with pytest.raises(data.DatasetError, match=r"200\.zip lacks wnids\.txt"):
        load(root)


def test_missing_data_say_where_to_get_them(tmp_path):
    with pytest.raises(
        data.DatasetError,
        match=r"neither tiny-imagenet-200, tiny-imagenet-200\.zip nor .* get http://cs2",
    ):
        data.load("tiny_imagenet200", tmp_path, download=False)


def test_archive_is_prepared_and_read(root, monkeypatch):
    data_dir = root.parent
    expected = load(root)
    path = write_archive(root, data_dir / "tiny-imagenet-200.zip")
    original = (root / "val/images/val_0.JPEG").read_bytes()
    monkeypatch.setattr(BUILDER, "NUM_CLASSES", 3)
    info = checksums.compute_url_info(path)
    monkeypatch.setattr(BUILDER, "url_infos", {BUILDER.URL: info})
    tfds.disable_progress_bar()
    version_dir = prepared.prepare(data_dir, tiny_imagenet.NAME, tiny_imagenet.URL)
    tfds.enable_progress_bar()
    builder = tfds.builder_from_directory(version_dir)
    first = prepared.data_source(builder, "validation")[0]
    assert first["image"] == original and first["id"] == b"validation_00000"

    # From here on neither the folder nor the archive is needed.
    path.unlink()
    shutil.rmtree(root)
    dataset = load(root)
    check_equal(dataset, expected)
    assert dataset.source.startswith(
        "Tiny-ImageNet-200 as the TFDS data set jaxnas_tiny_imagenet200/1.0.0, tested"
    )
    check_equal(data.load("tiny_imagenet200", version_dir), expected)


def test_other_archives_are_not_prepared(root):
    write_archive(root, root.parent / "tiny-imagenet-200.zip")
    with pytest.raises(data.DatasetError, match=r"200\.zip is not the official arch"):
        prepared.prepare(root.parent, tiny_imagenet.NAME, tiny_imagenet.URL)


def test_unreachable_download_says_what_to_put_where(tmp_path, monkeypatch):
    url = (tmp_path / "absent" / "tiny-imagenet-200.zip").as_uri()
    monkeypatch.setattr(BUILDER, "URL", url)
    with pytest.raises(
        data.DatasetError,
        match=r"tiny_imagenet200 is not in .*could not be downloaded .*put http://cs2",
    ):
        data.load("tiny_imagenet200", tmp_path)


def test_checksum_is_registered():
    infos = BUILDER.url_infos
    assert infos is not None
    assert infos[BUILDER.URL].size == 248100043
    assert infos[BUILDER.URL].checksum.startswith("6198c8ae015e")
    assert infos[BUILDER.URL].filename == pathlib.PurePosixPath(BUILDER.URL).name


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_corrupt_images_are_skipped_if_asked(root, form):
    path = root / f"train/{WNIDS[0]}/images/{WNIDS[0]}_1.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    if form == "archive":
        write_archive(root, root.parent / "tiny-imagenet-200.zip")
        shutil.rmtree(root)
    with pytest.raises(data.DatasetError, match=rf"{path.name} cannot be read"):
        load(root)
    dataset = data.load("tiny_imagenet200", root.parent, skip_corrupt=True)
    assert dataset.train.num_images == 3 * NUM_TRAIN - 1
    assert np.bincount(dataset.train.labels).tolist() == [5, 5, 4]
    assert dataset.skipped == {"corrupt": 1}
