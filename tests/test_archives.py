"""Archives of arrays: what is read, and what is refused before it is unpacked."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from jaxnas import _archives

ARRAYS = {
    "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "big": np.arange(4, dtype=">f8"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "flags": np.array([True, False]),
    "text": np.array("äb"),
    "names": np.array(["one", "three"], ">U5"),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.float16(0.5),
}
MIB = 2**20


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **options)
    return file.getvalue()


def header(text, version=b"\x01\x00", content=b""):
    """An array with any header."""
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode("latin-1") + content


def typed(descr, shape, content=b""):
    values = {"descr": descr, "fortran_order": False, "shape": shape}
    return header(repr(values), content=content)


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    found = _archives.read(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].flags.writeable


def test_later_formats_of_arrays_are_read(tmp_path):
    members = [(f"{v}.npy", npy([1, 2], version=(v, 0))) for v in (1, 2, 3)]
    found = _archives.read(write_zip(tmp_path / "a.npz", members))
    assert [array.tolist() for array in found.values()] == [[1, 2]] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.zeros(2, complex)), "'x' is of type '<c16'; expected numbers or text"),
        (npy(np.zeros(2, "i4,f4")), "'x' is of type .*; expected numbers or text"),
        (npy(np.array([{}]), allow_pickle=True), "'x' is of type '|O'"),
        (npy(np.zeros(2, "V3")), "is of type '|V3'"),
        (npy(np.zeros(2, "M8[s]")), "is of type '<M8"),
        (typed("<U0", (2**60,)), "is of type '<U0'"),
        (typed("<f3", (2,)), "'x' is damaged: data type '<f3' not understood"),
        (
            typed("<f8", (2**40,)),
            r"is \(1099511627776,\) of float64 by its header, but",
        ),
        (typed("<f8", (0, 2**62, 2**62)), "'x' is damaged: "),
        (typed("<f8", (-1, -1), b"8" * 8), r"has the shape \(-1, -1\)"),
        (typed("<f8", (True,), b"8" * 8), r"has the shape \(True,\)"),
        (typed("<f8", 1, b"8" * 8), "without order and shape"),
        (typed("<f8", (1,), b"8" * 9), "but has 9 bytes"),
        (typed("|b1", (2,), b"\x01\x02"), "Booleans that are neither true nor false"),
        (typed("<U1", (1,), b"\xff\xff\xff\xff"), "characters that do not exist"),
        (typed("<U1", (1,), b"\x00\xd8\x00\x00"), "characters that do not exist"),
        (header("{}"), "a header without type, order and shape"),
        (header("3"), "a header without type, order and shape"),
        (header("(" * 900), "'x' is damaged: "),
        (header("-" * 4_000 + "1"), "'x' is damaged: "),
        (header("{" * 4_000), "'x' is damaged: "),
        (header(" " * 5_000), "has a header of 5,000 bytes"),
        (
            header("{}", b"\x02\x00")[:8] + b"\xff" * 4,
            "a header of 4,294,967,295 bytes",
        ),
        (header("{}", b"\x07\x00"), "has the format 7.0; expected 1.0 to 3.0"),
        (b"", "'x' is damaged: "),
        (b"text", "'x' is damaged: "),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, content, message):
    path = write_zip(tmp_path / "a.npz", [("y.npy", npy(1)), ("x.npy", content)])
    with pytest.raises(_archives.ArchiveError, match=message) as error:
        _archives.read(path)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("method", "flag"), [(zipfile.ZIP_BZIP2, 0), (zipfile.ZIP_LZMA, 0), (8, 1)]
)
def test_unusual_zip_features_are_refused(tmp_path, method, flag):
    path = write_zip(tmp_path / "a.npz", [("x.npy", npy(1))], compression=method)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= flag
    path.write_bytes(content)
    with pytest.raises(_archives.ArchiveError, match="'x' is encrypted or packed in"):
        _archives.read(path)


@pytest.mark.parametrize("offset", [6, 8, 10, 16, 20, 24, 28, 30, 42])
def test_damaged_tables_of_contents_are_refused(tmp_path, offset):
    path = write_zip(tmp_path / "a.npz", [("x.npy", npy(1)), ("y.npy", npy(2))])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(_archives.ArchiveError):
        _archives.read(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x.npy", "x.npy"], "it holds 'x' twice"),
        (["x.npy", "__MACOSX/x"], "it holds '__MACOSX/x', which is no array"),
        (["n" * 5_000], "it holds 'nnn"),
    ],
)
def test_members_are_arrays_with_names_of_their_own(tmp_path, names, message):
    path = write_zip(tmp_path / "a.npz", [(name, npy(1)) for name in names])
    with pytest.raises(_archives.ArchiveError, match=message) as error:
        _archives.read(path)
    assert len(str(error.value)) < 300


def test_what_is_no_archive_is_refused(tmp_path):
    for content in (b"", b"PK", npy(1), b"\x80\x04."):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(_archives.ArchiveError, match="not a zip file"):
            _archives.read(tmp_path / "a.npz")
    for path in ("/dev/zero", tmp_path):
        with pytest.raises(_archives.ArchiveError, match="not a regular file"):
            _archives.read(path)
    with pytest.raises(FileNotFoundError):
        _archives.read(tmp_path / "missing.npz")


def test_sizes_are_limited_before_anything_is_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(20 * MIB, np.uint8), b=np.zeros(MIB))
    tracemalloc.start()
    with pytest.raises(_archives.ArchiveError, match=r"take 29,.* at most 20,971,520"):
        _archives.read(path, max_bytes=20 * MIB)
    assert tracemalloc.get_traced_memory()[1] < MIB
    assert _archives.read(path, max_bytes=30 * MIB)["a"].size == 20 * MIB
    # One copy of the arrays, and little else.
    assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    tracemalloc.stop()


def test_a_huge_table_of_contents_is_not_read(tmp_path):
    names = ((f"{i}{'n' * 30_000}.npy", b"") for i in range(40))
    path = write_zip(tmp_path / "a.npz", names)
    with pytest.raises(_archives.ArchiveError, match=r"contents has 1,2\d\d,\d* bytes"):
        _archives.read(path)
