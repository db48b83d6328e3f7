"""The example in the documentation of `jaxnas.ghn` runs as it stands."""

import doctest

from jaxnas import ghn


def test_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(ghn, verbose=False)
    assert result.attempted > 15
    assert result.failed == 0
