"""Reading pickles that nobody vouches for."""

import pickle
import random
import struct

import numpy as np
import pytest

from jaxnas import data
from jaxnas.data import pickles

VALUES = {
    b"data": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "labels": [1, 2],
    b"name": b"some \xff text",
    "empty": b"",
}
BUFFER = b"cnumpy.core.numeric\n_frombuffer\n"


def refused(contents, message="."):
    with pytest.raises(data.DatasetError, match=message) as caught:
        pickles.load(contents, "batch")
    assert str(caught.value).startswith("batch ") and len(str(caught.value)) < 300


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_builtin_types_are_read(protocol):
    loaded = pickles.load(pickle.dumps(VALUES, protocol), "batch")
    assert list(loaded) == ["data", "labels", "name", "empty"]
    assert loaded["labels"] == [1, 2] and loaded["empty"] == b""
    assert loaded["name"] == b"some \xff text"
    np.testing.assert_array_equal(loaded["data"], VALUES[b"data"])
    assert loaded["data"].dtype == np.uint8


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "cut short"),
        (b"cos\nsystem\n(S'true'\ntR.", "refers to os.system"),
        (b"cnumpy\nload\n(S'x'\ntR.", "refers to numpy.load"),
        (b"cnumpy\nndarray\n(I9\ntR.", "calls numpy.ndarray"),
        # An object numbered 2**31 - 1, for which a list would be made.
        (b"]r\xff\xff\xff\x7f.", "numbers an object 2147483647"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "cut short"),
        (b"}S'x'\n" + BUFFER + b"(S'ab'\nNI2\nS'C'\ntRs.", "without a type"),
        (
            b"}S'x'\n" + BUFFER + b"(S'ab'\ncnumpy\ndtype\n(S'O8'\ntRI2\nS'C'\ntRs.",
            "other than numbers",
        ),
        (
            b"}S'x'\n"
            + BUFFER
            + b"(S'ab'\ncnumpy\ndtype\n(S'u1'\ntRI99999999999999\nS'C'\ntRs.",
            "reshape",
        ),
        (b"(" * 100_000 + b"t" * 100_000 + b".", "holds a tuple"),
    ],
)
def test_hostile_pickles_are_refused(contents, message):
    refused(contents, message)


def test_no_pickle_changes_how_others_are_read():
    function = b"c_codecs\nencode\n"
    state = b"(N}V__defaults__\n(Vlatin1\ntst"
    pickles.load(b"}S'x'\n" + function + state + b"bs.", "batch")
    refused(b"}S'x'\n" + function + b"(Vtext\ntRs.", "missing 1 required")


@pytest.mark.parametrize("protocol", [2, 5])
def test_damaged_pickles_end_in_one_short_error(protocol):
    generator = random.Random(0)
    contents = pickle.dumps(VALUES, protocol)
    outcomes = set()
    for _ in range(300):
        changed = bytearray(contents)
        for _ in range(generator.choice((1, 3))):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        try:
            outcomes.add(type(pickles.load(bytes(changed), "batch")))
        except data.DatasetError as error:
            outcomes.add(type(error))
            assert str(error).startswith("batch ") and len(str(error)) < 300
    assert outcomes == {dict, data.DatasetError}
