import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxnas import data
from jaxnas.data import celeba

SIDES = 178, 218
EYES = {1: (69, 109, 106, 113), 2: (60, 100, 110, 120), 3: (70, 90, 101, 90)}
EYES |= {4: (10, 10, 20, 10), 5: (69, 109, 106, 113)}
PARTITION = {1: 0, 2: 0, 3: 1, 4: 2, 5: 2}


def pixels(number):
    """A ramp, so that a place can be told by its color."""
    x, y = np.meshgrid(np.arange(SIDES[0]), np.arange(SIDES[1]))
    return np.stack([x, y, np.full_like(x, 40 * number)], -1).astype(np.uint8)


def write(root, folders=("", "", "")):
    anno, part, photographs = (root / folder for folder in folders)
    (photographs / "img_align_celeba").mkdir(parents=True)
    for folder in (anno, part):
        folder.mkdir(exist_ok=True)
    lines = [str(len(EYES)), "lefteye_x lefteye_y righteye_x righteye_y nose_x"]
    for number, eyes in EYES.items():
        image = Image.fromarray(pixels(number))
        path = photographs / f"img_align_celeba/00000{number}.jpg"
        image.save(path, quality=100, subsampling=0)
        marks = "  ".join(map(str, (*eyes, 77, 142, 73, 152, 108, 154)))
        lines.append(f"00000{number}.jpg {marks}")
    (anno / celeba.LANDMARKS).write_text("\n".join(lines))
    (part / celeba.PARTITION).write_text(
        "".join(f"00000{number}.jpg {part}\n" for number, part in PARTITION.items())
    )
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "celeba")


def center(image):
    """Column, row and number of the photograph that the middle is from."""
    middle = image.astype(float)[31:33, 31:33].mean((0, 1))
    return middle.round().tolist()


def check(dataset):
    assert dataset.train.images.shape == dataset.test.images.shape == (2, 64, 64, 3)
    assert dataset.class_names == ()
    for split in (dataset.train, dataset.test):
        assert split.labels.tolist() == [0, 0] and split.labels.dtype == np.int32
    # Between the eyes, as in `int((x1 + x2) / 2)`; the fourth lies too far outside.
    found = [center(image) for image in (*dataset.train.images, *dataset.test.images)]
    expected = [(87, 111, 40), (85, 110, 80), (48, 48, 160), (87, 111, 200)]
    np.testing.assert_allclose(found, expected, atol=2)
    # 96 pixels become 64: the corner is 32 steps of 1.5 pixels away.
    corner = dataset.train.images[0, 0, 0, :2].astype(float)
    np.testing.assert_allclose(corner, (87 - 47.5, 111 - 47.5), atol=2)


@pytest.mark.parametrize("folders", [("", "", ""), ("Anno", "Eval", "Img")])
def test_faces_are_cut_out_around_the_eyes(tmp_path, folders):
    dataset = data.load("celeba", write(tmp_path, folders))
    check(dataset)
    assert data.describe(dataset).endswith(
        "faces cut to 64x64, 2 train and 2 test images instead of 162770 and 19962: 2 "
        "training and 2 test images of 64x64 pixels, 3 channels"
    )
    again = data.load("celeba", tmp_path)
    np.testing.assert_array_equal(again.train.images, dataset.train.images)
    assert data.load("celeba", tmp_path, image_size=8).train.image_shape == (8, 8, 3)


def test_the_division_of_the_first_photographs(root, monkeypatch):
    monkeypatch.setattr(celeba, "ECAE", (2, 3, 5))
    (root / celeba.PARTITION).unlink()
    dataset = data.load("celeba_ecae", root)
    check(dataset)
    assert "divided as by Suganuma" in dataset.source


@pytest.mark.parametrize("skip", [False, True])
def test_corrupt_photographs(root, skip):
    (root / "img_align_celeba/000002.jpg").write_text("no photograph")
    if skip:
        dataset = data.load("celeba", root, skip_corrupt=True)
        assert dataset.train.num_images == 1 and dataset.skipped == {"corrupt": 1}
        assert data.describe(dataset).endswith("; skipped: 1 corrupt")
    else:
        with pytest.raises(data.DatasetError, match=r"000002\.jpg cannot be read"):
            data.load("celeba", root)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (celeba.LANDMARKS, "1\nx\n000001.jpg 1 2 3", r"'000001.jpg 1 2 3'; expected a"),
        (celeba.LANDMARKS, "1\nx\na.jpg" + " 1.5" * 10, "'a.jpg 1.5 .* 10 integers"),
        (celeba.LANDMARKS, "1\nx\n" + 2 * ("a.jpg" + " 1" * 10 + "\n"), "listed once"),
        (celeba.LANDMARKS, "1\nx\n", r"has '000001.jpg' in list_eval_.* but not in"),
        (celeba.PARTITION, "000001.jpg 3", "'000001.jpg 3'; expected .* 0, 1 or 2"),
        (celeba.PARTITION, "000001.jpg 2", "lists no training images"),
        (celeba.PARTITION, "\xff", "has the line"),
    ],
)
def test_malformed_lists(root, file, text, message):
    (root / file).write_text(text)
    with pytest.raises(data.DatasetError, match=message):
        data.load("celeba", root)


def test_missing_files(root):
    (root / "img_align_celeba/000005.jpg").unlink()
    with pytest.raises(data.DatasetError, match=r"lacks '000005.jpg', .* \(1 such"):
        data.load("celeba", root)
    (root / celeba.LANDMARKS).unlink()
    with pytest.raises(data.DatasetError, match=r"lacks list_landmarks.*; get it from"):
        data.load("celeba", root)


def test_photographs_that_are_too_small(root):
    Image.new("RGB", (178, 90)).save(root / "img_align_celeba/000001.jpg")
    with pytest.raises(data.DatasetError, match="178x90 pixels; expected an aligned"):
        data.load("celeba", root)


def test_neither_form(tmp_path):
    with pytest.raises(data.DatasetError, match="holds neither img_align_celeba nor"):
        data.load("celeba", tmp_path)
    with pytest.raises(data.DatasetError, match="whose order celeba_ecae needs"):
        data.load("celeba_ecae", tmp_path)


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stands for the data set of TFDS."""

    name = "celeb_a"
    VERSION = tfds.core.Version("2.1.0")

    def _info(self):
        marks = [f"{eye}eye_{axis}" for eye in ("left", "right") for axis in "xy"]
        features = {
            "image": tfds.features.Image(shape=(*SIDES[::-1], 3)),
            "landmarks": {name: np.int64 for name in marks},
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(2)}

    def _generate_examples(self, part):
        for number, eyes in EYES.items():
            if PARTITION[number] == part:
                file = io.BytesIO()
                Image.fromarray(pixels(number)).save(file, format="PNG")
                names = "lefteye_x", "lefteye_y", "righteye_x", "righteye_y"
                marks = dict(zip(names, eyes, strict=True))
                yield number, {"image": file.getvalue(), "landmarks": marks}


def test_a_prepared_data_set(tmp_path):
    tfds.disable_progress_bar()
    Prepared(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    dataset = data.load("celeba", tmp_path)
    check(dataset)
    assert dataset.source.startswith("CelebA as the TFDS data set celeb_a/2.1.0")
