"""Image files as networks take them: as data sets have them."""

import numpy as np
import pytest
from PIL import Image

from jaxnas import data
from jaxnas.data import DatasetError, ImageFormat, streaming

RNG = np.random.default_rng(0)
RGB = ImageFormat((8, 8, 3), "fit", (0.5,) * 3, (0.25,) * 3)


def pixels(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def write_all_kinds(folder):
    """Files of every mode, upright or not, of unequal sizes."""
    folder.mkdir(parents=True)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(pixels(12, 20, 3)).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(pixels(30, 9)).save(folder / "gray.png")
    Image.fromarray(pixels(8, 8, 4)).save(folder / "rgba.png")
    deep = RNG.integers(0, 65536, (10, 16)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    palette = Image.fromarray(pixels(11, 13, 3)).quantize(16)
    palette.save(folder / "palette.gif")


@pytest.fixture
def photos(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            write_all_kinds(tmp_path / split / name)
    return tmp_path


def read(paths, image_format, **options):
    batches = list(data.read_images(paths, image_format, batch_size=4, **options))
    assert all(len(b.paths) == len(b.images) <= 4 for b in batches)
    found = [path for batch in batches for path in batch.paths]
    return found, np.concatenate([batch.images for batch in batches])


def test_files_are_read_as_a_folder_has_them(photos):
    dataset = data.load("folder", photos, image_size=8)
    image_format = data.image_format(dataset)
    assert image_format == ((8, 8, 3), "fit", dataset.mean, dataset.std)
    paths, skipped = data.find_images([photos / "test"])
    assert not skipped
    found, images = read(paths, image_format)
    assert found == paths
    np.testing.assert_array_equal(images, dataset.test.images)


def test_files_are_read_as_a_stream_has_them(photos):
    dataset = data.stream(photos, image_size=8)
    image_format = data.image_format(dataset)
    assert image_format.cut == "central_crop"
    expected = next(streaming.in_order(dataset.test, 10))["image"]
    _, images = read(data.find_images([photos / "test"])[0], image_format)
    np.testing.assert_array_equal(images, expected)


def test_files_are_read_as_built_in_sets_have_them(tmp_path):
    digits = data.load("digits")
    image_format = data.image_format(digits)
    for index, image in enumerate(digits.test.images[:5]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{index}.png")
    _, images = read(data.find_images([tmp_path])[0], image_format)
    np.testing.assert_array_equal(images, digits.test.images[:5])


def test_colors_become_gray_for_gray_networks(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    image_format = ImageFormat((8, 8, 1), "fit", (0.5,), (0.25,))
    assert (read([path], image_format)[1] == round(0.299 * 255)).all()


def test_images_of_one_size_that_are_not_square(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.fromarray(pixels(6, 8, 3)).save(folder / "image.png")
    dataset = data.load("folder", tmp_path)
    image_format = data.image_format(dataset)
    assert image_format.cut == "exact"
    _, images = read(data.find_images([tmp_path / "test"])[0], image_format)
    np.testing.assert_array_equal(images, dataset.test.images)
    wrong = tmp_path / "wrong.png"
    Image.fromarray(pixels(8, 6, 3)).save(wrong)
    with pytest.raises(DatasetError) as error:
        read([wrong], image_format, skip_corrupt=True)
    assert str(error.value) == f"{wrong} is 6x8 pixels; expected 8x6"


def test_corrupt_images_are_named_or_skipped(photos):
    corrupt = photos / "test" / "a" / "corrupt.jpg"
    corrupt.write_bytes(b"no image")
    paths, _ = data.find_images([photos / "test"])
    with pytest.raises(DatasetError, match=f"{corrupt} cannot be read: "):
        read(paths, RGB)
    found, images = read(paths, RGB, skip_corrupt=True)
    assert found == [path for path in paths if path != corrupt]
    assert len(images) == len(found) == 10


def test_what_is_no_image_is_not_found(photos):
    (photos / "notes.txt").write_text("text")
    single = photos / "train" / "a" / "gray.png"
    paths, skipped = data.find_images([photos / "notes.txt", single, photos])
    assert paths[:2] == [photos / "notes.txt", single]
    assert len(paths) == 22
    assert skipped == {".txt": 1}
    with pytest.raises(DatasetError, match="no/such cannot be read: there is no such"):
        data.find_images(["no/such"])
    (photos / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no image"):
        data.find_images([photos / "empty"])


def test_networks_of_other_channels_read_no_files(photos):
    image_format = ImageFormat((8, 8, 2), "fit", (0.5,) * 2, (0.25,) * 2).check()
    with pytest.raises(DatasetError, match="an image of 2 channels; expected 1 or 3"):
        read(data.find_images([photos / "test"])[0], image_format)
