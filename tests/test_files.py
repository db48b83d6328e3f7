"""Atomic writes: the new file or the old one; reading text and JSON within limits."""

import errno
import json

import numpy as np
import pytest
from helpers import small_disk

from jaxnas import _files


def test_a_file_is_created_and_replaced(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("first\n", "second, é\n"):
        _files.write_text(str(path), text)
        assert path.read_bytes() == text.encode()
        assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), _files.atomic_write(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError):
        _files.write_text(path, "new")
    assert list(tmp_path.iterdir()) == [path] and path.is_dir()


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        _files.write_text(tmp_path / "missing" / "a.txt", "new")


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    with _files.atomic_write(path) as file:
        np.savez(file, x=np.arange(3))
        assert path.read_bytes() == b"old"
    with np.load(path) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]


def test_writers_at_the_same_time_do_not_share_a_file(tmp_path):
    path = tmp_path / "a.txt"
    with _files.atomic_write(path) as first:
        first.write(b"fir")
        with _files.atomic_write(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
        first.write(b"st")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_lines_and_a_last_newline(tmp_path):
    path = tmp_path / "a.json"
    _files.write_json(path, {"a": [1, None]}, indent=1)
    assert path.read_text() == '{\n "a": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(TypeError):
        _files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, None]}


def test_text_is_read_within_limits(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffä\r\nb\rc".encode())
    assert _files.read_text(path) == "ä\nb\nc"
    path.write_bytes(b"a\xff")
    with pytest.raises(ValueError, match="it is not UTF-8 text: byte 1"):
        _files.read_text(path)
    with pytest.raises(ValueError, match="it is larger than 16,777,216 bytes"):
        _files.read_text("/dev/zero")
    with pytest.raises(FileNotFoundError):
        _files.read_text(tmp_path / "missing.txt")


def test_json_is_read():
    value = {"a": [1, -2.5, None, True], "b": {"a": "x"}, "c": 2**64 - 1, "d": -(2**63)}
    assert _files.parse_json(json.dumps(value)) == value
    deep = "[" * 50 + "]" * 50
    assert json.dumps(_files.parse_json(deep)) == deep


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: this is not JSON: Expecting value"),
        ('{"a": 1,\n "a" 2}', "line 2, column 6: this is not JSON: Expecting ':'"),
        ('[{"a": 1, "b": 2, "a": 1}]', "the key 'a' appears twice in a JSON object"),
        ("[" * 51 + "]" * 51, "this JSON is nested more than 50 deep"),
        ('{"a": ' * 51 + "1" + "}" * 51, "this JSON is nested more than 50 deep"),
        ("[" * 100_000, "nested more than 50 deep|not JSON"),
        ("[NaN]", "this JSON has NaN; expected finite numbers"),
        ("-Infinity", "this JSON has -Infinity; expected finite numbers"),
        ("1e999", "this JSON has the number 1e999; it is too large"),
        (
            str(2**64),
            "this JSON has the integer 18446744073709551616; expected at most",
        ),
        ("9" * 5_000, "this JSON has the integer 99999"),
    ],
)
def test_json_that_is_refused(text, message):
    with pytest.raises(ValueError, match=message) as error:
        _files.parse_json(text)
    assert len(str(error.value)) < 200


def test_what_is_there_already_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "text"
    _files.write_text(path, "some")
    monkeypatch.setattr(_files, "atomic_write", None)  # as on a full disk
    _files.write_text(path, "some")


def test_a_full_disk_names_the_file_and_keeps_it(tmp_path):
    path = tmp_path / "text"
    path.write_text("earlier")
    with (
        pytest.raises(OSError, match="No space left") as error,
        _files.atomic_write(path) as file,
    ):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]


def test_appending_to_a_full_disk_leaves_no_half_line(tmp_path):
    with small_disk(tmp_path, "size=8k"):
        path = tmp_path / "log"
        _files.append(path, b"a" * 4000)
        with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
            _files.append(path, b"b" * 9000)
        assert path.read_bytes() == b"a" * 4000
        _files.append(path, b"c")


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_full_disk_is_found_below_other_errors(depth):
    error: Exception = ValueError("RESOURCE_EXHAUSTED: No space left on device [28]")
    for _ in range(depth):
        try:
            raise RuntimeError("could not save") from error
        except RuntimeError as other:
            error = other
    found = _files.disk_full_error(error, "file")
    assert found is not None
    assert (found.errno, found.filename) == (errno.ENOSPC, "file")
    assert _files.disk_full_error(FileNotFoundError(2, "No such file")) is None
