"""What a data set looks like, what is warned of, and what is proposed."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxnas import data
from jaxnas.data import surveying


def write_image(path, seed, width=40, height=50, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def root(tmp_path):
    """Four ants and two bees for training, one of each for testing."""
    for split, name, num in (
        *(("train", "ant", 4), ("train", "bee", 2)),
        *(("test", "ant", 1), ("test", "bee", 1)),
    ):
        for index in range(num):
            seed = [ord(name[0]), index, len(split)]
            path = tmp_path / split / name / f"{index}.png"
            write_image(path, seed, 40 + 10 * index)
    return tmp_path


def made(**changes):
    """The survey of a data set that nothing is wrong with."""
    lengths = surveying.Lengths(64, 64, 80, 90, 100)
    found = data.Survey(
        class_names=("ant", "bee"),
        train_counts=(1000, 800),
        test_counts=(250, 200),
        widths=lengths,
        heights=lengths,
        shorter_sides=lengths,
        num_measured=2250,
        duplicates=surveying.Duplicates(0, 0, 0, 0, "files"),
        unreadable=(),
        skipped={},
    )
    return found._replace(**changes)


def test_counts_and_sizes_of_a_folder(root):
    exif = Image.Exif()
    exif[0x112] = 6
    write_image(root / "train/bee/turned.jpg", 1, 200, 30, exif=exif)
    (root / "train/bee/notes.txt").write_text("no image")
    found = data.survey_folder(root)
    assert (found.train_counts, found.test_counts) == ((4, 3), (1, 1))
    assert found.class_names == ("ant", "bee")
    assert found.widths == (30, 30, 40, 70, 70)
    assert found.heights == (50, 50, 50, 200, 200)
    assert found.shorter_sides == (30, 30, 40, 50, 50)
    assert found.num_measured == 9 and found.skipped == {".txt": 1}
    assert found.imbalance == pytest.approx(4 / 3)
    assert found.small_classes(4) == ("bee",)
    assert found.duplicates == (0, 0, 0, 0, "files")


def test_duplicates_within_and_between_splits(root):
    image = (root / "train/ant/0.png").read_bytes()
    for name in ("train/ant/copy", "train/ant/another", "test/ant/copy"):
        (root / f"{name}.png").write_bytes(image)
    (root / "test/bee/copy.png").write_bytes((root / "test/bee/0.png").read_bytes())
    (root / "train/bee/copy.png").write_bytes((root / "train/ant/1.png").read_bytes())
    found = data.survey_folder(root)
    # Three copies repeat others in training, one in testing, one is in both.
    assert found.duplicates == (3, 1, 1, 2, "files")
    dataset = data.load("folder", root, image_size=8)
    by_pixels = data.survey(dataset._replace(data_dir=None))
    assert by_pixels.duplicates == (3, 1, 1, 2, "pixels")
    assert by_pixels.train_counts == found.train_counts
    assert by_pixels.widths == by_pixels.heights == (8,) * 5


def test_unreadable_files_are_counted_before_and_after_loading(root):
    (root / "train/ant/9.png").write_bytes(b"no image")
    found = data.survey_folder(root)
    assert found.unreadable == (str(root / "train/ant/9.png"),)
    assert found.train_counts == (5, 2) and found.num_measured == 8
    assert found.warnings[-1] == (
        f"{root}/train/ant/9.png is no image that can be read (1 such files); "
        "--skip-corrupt leaves them out"
    )
    after = data.survey(data.load("folder", root, image_size=8, skip_corrupt=True))
    assert after.train_counts == (4, 2) and after.skipped == {"corrupt": 1}
    assert after.unreadable == ()
    streamed = data.stream(root, image_size=8, name="folder", skip_corrupt=True)
    assert data.survey(streamed)._replace(train_counts=(4, 2)) == after


def test_of_very_many_images_some_are_measured(root, monkeypatch):
    monkeypatch.setattr(surveying, "_MEASURED", 4)
    found = data.survey_folder(root)
    assert found.num_measured == 4 and found.train_counts == (4, 2)


def test_data_sets_that_cannot_be_surveyed(root, tmp_path):
    with pytest.raises(data.DatasetError, match="of 'imagenet' are not in memory"):
        data.survey(data.stream(root, image_size=4))
    with pytest.raises(data.DatasetError, match="'images' has no classes"):
        data.survey(data.load("images", root, image_size=4))
    for path in root.glob("*/*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(data.DatasetError, match="and all other files are no images"):
        data.survey_folder(root)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        (
            {"train_counts": (1000, 90)},
            "the largest class has 1000 training images, the smallest 90: 11 times",
        ),
        ({"train_counts": (100, 19)}, "class 'bee' has fewer than 20 training images"),
        (
            {"train_counts": (4, 19)},
            "2 classes ('ant', 'bee') have fewer than 20 training images",
        ),
        ({"test_counts": (20, 20)}, "40 test images tell an accuracy of 50 % to with"),
        (
            {"duplicates": surveying.Duplicates(0, 0, 3, 0, "files")},
            "3 test images are among the training images",
        ),
        (
            {"duplicates": surveying.Duplicates(2, 1, 0, 0, "files")},
            "2 training and 1 test images repeat others",
        ),
        (
            {"duplicates": surveying.Duplicates(0, 0, 0, 2, "files")},
            "2 images are in several classes",
        ),
        (
            {"shorter_sides": surveying.Lengths(8, 31, 40, 50, 60)},
            "a tenth of the images or more have fewer than 32 pixels",
        ),
    ],
)
def test_warnings(changes, words):
    warnings = made(**changes).warnings
    assert all("\n" not in warning for warning in warnings)
    if words is None:
        assert warnings == ()
    else:
        (warning,) = warnings
        assert warning.startswith(words)


def test_text():
    found = made(test_counts=(20, 20))
    assert data.survey_text(found) == (
        "images per class: 800 to 1000 training and 20 test, 2 classes\n"
        "sizes: 64 to 100 wide (median 80), 64 to 100 high (median 80)\n"
        "duplicates (equal files): 0 in training, 0 in test, 0 in both\n"
        "warning: 40 test images tell an accuracy of 50 % to within 15 points only"
    )


def test_a_survey_as_json(root):
    found = data.survey_folder(root)
    read = json.loads(json.dumps(data.survey_dict(found)))
    assert read["train_counts"] == [4, 2] and read["imbalance"] == 2
    assert read["widths"]["median"] == 40 and read["duplicates"]["unit"] == "files"
    assert read["warnings"] == list(found.warnings)


@pytest.mark.parametrize(
    ("low", "largest", "expected"),
    [(12, 64, 32), (32, 64, 32), (63, 64, 32), (500, 64, 64), (500, 224, 224)],
)
def test_images_are_brought_to_a_size_that_most_have(low, largest, expected):
    sides = surveying.Lengths(low, low, 600, 700, 800)
    proposal = data.propose(made(shorter_sides=sides), max_image_size=largest)
    assert proposal.image_size == expected
    assert proposal.crop_padding == expected // 8
    assert proposal.reasons.keys() == set(proposal._fields) - {"reasons"}


def test_sizes_that_no_search_takes():
    with pytest.raises(ValueError, match="max_image_size is 16; expected at least 32"):
        data.propose(made(), max_image_size=16)


@pytest.mark.parametrize(
    ("num", "expected"), [(1, 1), (10, 8), (100, 8), (300, 16), (600, 32), (9000, 64)]
)
def test_an_epoch_has_several_batches(num, expected):
    # Half of them is for the weights.
    assert data.propose(made(train_counts=(num, num))).batch_size == expected


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (("ant", "bee"), True),
        (("hand_left", "hand_right"), False),
        (("b", "d"), False),
        (("lefthand", "bright"), True),
    ],
)
def test_classes_that_tell_left_from_right_are_not_mirrored(names, flip):
    proposal = data.propose(made(class_names=names))
    assert proposal.flip == flip
    assert flip or repr(names[0]) in proposal.reasons["flip"]
