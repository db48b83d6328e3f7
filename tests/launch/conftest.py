"""What tests of the commands share."""

import pytest
from helpers import quick_environment


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """The environment of a command: one cache of compiled programs for all."""
    return quick_environment(tmp_path_factory.mktemp("xla"))
