"""Every reader loads a damaged file, or refuses it with the one documented error."""

import fuzz_readers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture
def damaged(tmp_path, request):
    """A reader, the place of its file and what is written there."""
    reader = fuzz_readers.READERS[request.param]
    path = tmp_path / reader.file
    path.parent.mkdir(exist_ok=True)
    reader.write(path)
    return reader, path, path.read_bytes()


@pytest.mark.parametrize("damaged", fuzz_readers.READERS, indirect=True)
@settings(
    deadline=None, derandomize=True, max_examples=40, suppress_health_check=CHECKS
)
@given(rng=st.randoms(use_true_random=False))
def test_damaged_files_are_loaded_or_refused(damaged, rng):
    reader, path, content = damaged
    result = fuzz_readers.attempt(reader, path, fuzz_readers.mutate(content, rng))
    assert result in (fuzz_readers.LOADED, fuzz_readers.REFUSED)


@pytest.mark.parametrize("damaged", fuzz_readers.READERS, indirect=True)
def test_whole_files_are_loaded(damaged):
    assert fuzz_readers.attempt(*damaged) == fuzz_readers.LOADED
