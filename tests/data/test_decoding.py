"""Decoding of image files: kinds, orientation, limits and damage."""

import io
import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, ImageOps

from jaxnas import _memory, data
from jaxnas.data import decoding


def encode(image, name, **options):
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def decode(contents):
    return np.asarray(decoding.open_image(contents, "image"))


def gray_ramp():
    """All values of 16 bits."""
    return np.arange(65536, dtype=np.uint16).reshape(256, 256)


def noise(width=6, height=4):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def check_gray(pixels, expected):
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=-1))


def test_formats_are_those_that_pillow_decodes():
    suffixes = set(decoding.formats())
    assert suffixes >= {".jpg", ".jfif", ".jpe", ".png", ".tif", ".webp", ".mpo"}
    written, external, recognized = {".pdf", ".palm"}, {".eps", ".ps"}, {".mpg", ".h5"}
    assert not suffixes & (written | external | recognized | {".grib", ".wmf"})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/b.PNG", None),
        ("a/b.jfif", None),
        ("a/b.txt", ".txt"),
        ("a/b", "no ending"),
        ("a/.b.png", "hidden"),
        (".a/b.png", "hidden"),
    ],
)
def test_kinds_of_skipped_files(name, kind):
    assert decoding.skipped_kind(name, frozenset(decoding.formats())) == kind


@pytest.mark.parametrize("name", ["PNG", "TIFF", "JPEG2000"])
def test_gray_of_16_bits_is_scaled(name):
    contents = encode(Image.fromarray(gray_ramp()), name)
    check_gray(decode(contents), np.rint(gray_ramp() / 257))


def test_gray_of_16_bits_without_a_mode_of_its_own_is_scaled():
    contents = b"P5 256 256 65535\n" + gray_ramp().astype(">u2").tobytes()
    check_gray(decode(contents), np.rint(gray_ramp() / 257))


def test_big_endian_gray_is_scaled():
    ramp = Image.frombytes("I;16B", (256, 256), gray_ramp().astype(">u2").tobytes())
    check_gray(decode(encode(ramp, "TIFF")), np.rint(gray_ramp() / 257))


def tiff(width, height, bits, contents):
    """A gray TIFF of one strip."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (277, 1)]
    start = 8 + 2 + 12 * (len(tags) + 3) + 4
    tags = sorted([*tags, (273, start), (278, height), (279, len(contents))])
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + contents
    )


def test_gray_of_12_bits_is_scaled():
    values = np.array([[0, 1, 2048, 4095]])
    text = "".join(f"{value:03x}" for value in values[0])
    check_gray(
        decode(tiff(4, 1, 12, bytes.fromhex(text))), np.rint(values / 4095 * 255)
    )


def test_colors_of_16_bits_keep_their_upper_8():
    pixels = np.array([[[0, 257, 65535], [4660, 32896, 255]]], ">u2")

    def chunk(kind, contents):
        end = struct.pack(">I", zlib.crc32(kind + contents))
        return struct.pack(">I", len(contents)) + kind + contents + end

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" + pixels.tobytes())
    contents = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    contents += chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode(contents), pixels // 256)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [(np.int32, "mode 'I', 32-bit integers"), (np.float32, "mode 'F', floating-point")],
)
def test_wider_pixels_are_refused(dtype, words):
    contents = encode(Image.fromarray(gray_ramp().astype(dtype)), "TIFF")
    with pytest.raises(data.DatasetError, match=f"^x.tif has pixels of {words}"):
        decoding.open_image(contents, "x.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_all_modes_become_rgb(mode):
    image = noise().convert(mode)
    contents = encode(image, "TIFF" if mode == "CMYK" else "PNG")
    np.testing.assert_array_equal(decode(contents), np.asarray(image.convert("RGB")))


def test_transparent_palettes_are_read_without_a_warning():
    image = noise().convert("P")
    contents = encode(image, "PNG", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(decode(contents), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("name", "orientation"),
    [*(("PNG", i) for i in range(1, 9)), ("TIFF", 6), ("JPEG", 6), ("WEBP", 8)],
)
def test_images_are_turned_upright(name, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"WEBP": {"lossless": True}}.get(name, {})
    contents = encode(noise(), name, exif=exif, **options)
    plain = Image.open(io.BytesIO(encode(noise(), name, **options))).convert("RGB")
    plain.getexif()[0x112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(plain))
    assert expected.shape == ((4, 6, 3) if orientation < 5 else (6, 4, 3))
    np.testing.assert_array_equal(decode(contents), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:.*[Mm]etadata")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff"])
def test_damaged_exif_data_say_nothing(exif):
    image = noise(16, 8)
    plain, damaged = encode(image, "JPEG"), encode(image, "JPEG", exif=exif)
    np.testing.assert_array_equal(decode(damaged), decode(plain))


def test_the_first_picture_of_an_animation_is_taken():
    first, second = noise().convert("P"), Image.new("P", (6, 4))
    contents = encode(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(contents), np.asarray(first.convert("RGB")))


def test_no_other_program_is_run(monkeypatch):
    contents = encode(noise(), "EPS")
    monkeypatch.setattr(
        EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("was run")
    )
    with pytest.raises(data.DatasetError, match=r"^x\.png cannot be read: it is no im"):
        decoding.open_image(contents, "x.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_of_too_many_pixels_are_not_decoded(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("ran"))
    with pytest.raises(
        data.DatasetError, match="x is 10000x9000 pixels; expected 1 to"
    ):
        decoding.open_image(b"P5 10000 9000 255\n", "x")
    with pytest.raises(
        data.DatasetError, match=r"x cannot be read: .*900000000 pixels"
    ):
        decoding.open_image(b"P5 30000 30000 255\n", "x")


def test_large_files_are_not_read(tmp_path):
    path = tmp_path / "x.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(
        data.DatasetError, match="has 1,099,511,627,776 bytes; expected"
    ):
        decoding.read_file(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(data.DatasetError, match=r"x\.png cannot be read: No such file"):
        decoding.read_file(tmp_path / "x.png")
    with pytest.raises(data.DatasetError, match="cannot be read: Is a directory"):
        decoding.read_file(tmp_path)


@pytest.mark.parametrize("shape", [(1, 200_000), (200_000, 1)])
def test_long_images_are_cut_before_they_are_resized(shape):
    image = Image.new("RGB", shape, (1, 2, 3))
    assert decoding.fit(image, 224).getcolors() == [(224 * 224, (1, 2, 3))]


def test_fit_resizes_the_shorter_side_and_keeps_the_center():
    for width, height, size in ((57, 91, 20), (200, 33, 64), (8, 8, 8), (5, 3, 9)):
        image = noise(width, height)
        scale = size / min(image.size)
        whole = image.resize(
            (max(size, round(width * scale)), max(size, round(height * scale))),
            Image.Resampling.BILINEAR,
        )
        left, top = (whole.width - size) // 2, (whole.height - size) // 2
        expected = whole.crop((left, top, left + size, top + size))
        found = np.asarray(decoding.fit(image, size), np.int32)
        # Positions are rounded in another way.
        np.testing.assert_allclose(found, np.asarray(expected, np.int32), atol=1)


def test_images_that_exceed_memory_are_told(monkeypatch):
    def decode_all():
        decoding.decode_all(range(5), lambda _: np.zeros((3, 4, 3), np.uint8))

    # There have to be as many bytes for the device.
    monkeypatch.setattr(_memory, "available_bytes", lambda: 359)
    with pytest.raises(
        data.DatasetError,
        match=r"5 images of 4x3 pixels take 180 bytes, .*; 359 bytes are available: "
        r"expected fewer images or a smaller --image-size",
    ):
        decode_all()
    monkeypatch.setattr(_memory, "available_bytes", lambda: 360)
    decode_all()
    monkeypatch.setattr(_memory, "available_bytes", lambda: None)
    decode_all()

    def empty(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(data.DatasetError, match=r"180 bytes, .*; there is no such mem"):
        decode_all()


def test_results_are_computed_a_little_ahead():
    started = []
    results = decoding.in_threads(started.append, range(1000), 3)
    for taken in range(1, 50):
        next(results)
        assert taken <= len(started) <= taken + 3
    results.close()
    assert len(started) < 60


@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_files_are_decoded_no_larger_than_needed(orientation):
    image = noise(40, 30).resize((400, 300), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x112] = orientation
    contents = encode(image, "JPEG", exif=exif, quality=95)
    whole = decoding.open_image(contents, "x")
    small = decoding.open_image(contents, "x", least_side=64)
    assert small.size == (100, 75) if orientation == 1 else (75, 100)
    assert whole.size == (400, 300) if orientation == 1 else (300, 400)
    found, expected = (
        np.asarray(decoding.fit(i, 32), np.int32) for i in (small, whole)
    )
    assert np.abs(found - expected).mean() < 3
    assert decoding.open_image(contents, "x", least_side=400).size == whole.size


def test_sizes_are_read_from_headers(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    for name, options in (("JPEG", {"exif": exif}), ("PNG", {"exif": exif})):
        path = tmp_path / "x"
        path.write_bytes(encode(noise(90, 60), name, **options)[:-30])
        assert decoding.sides(path) == (60, 90)
    path.write_bytes(encode(noise(90, 60), "PNG"))
    assert decoding.sides(path) == (90, 60)
    for content in (b"", b"no image"):
        path.write_bytes(content)
        with pytest.raises(decoding.CorruptImage, match="x cannot be read: it is no"):
            decoding.sides(path)
    with pytest.raises(data.DatasetError, match="nowhere cannot be read: No such file"):
        decoding.sides(tmp_path / "nowhere")


def mutate(generator, contents):
    changed = bytearray(contents)
    for _ in range(generator.choice((1, 2, 8))):
        position = generator.randrange(len(changed))
        match generator.randrange(3):
            case 0:
                changed[position] = generator.randrange(256)
            case 1:
                del changed[position : position + generator.randrange(20)]
            case _:
                changed[position:position] = generator.randbytes(3)
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_damaged_files_end_in_one_short_error(name):
    generator = random.Random(0)
    exif = Image.Exif()
    exif[0x112] = 6
    contents = encode(noise(16, 12), name, exif=exif)
    outcomes = set()
    for keep in itertools.chain([0, 1, len(contents) // 2], [len(contents)] * 60):
        changed = contents[:keep]
        if keep == len(contents):
            changed = mutate(generator, contents)
        try:
            outcomes.add(decoding.open_image(changed, "x").mode)
        except data.DatasetError as error:
            outcomes.add("refused")
            assert str(error).startswith("x ") and len(str(error)) < 300
    assert outcomes == {"RGB", "refused"}
