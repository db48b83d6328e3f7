"""What tests of the commands share."""

import os

import pytest
from helpers import QUICK_COMPILATION


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """The environment of a command: one cache of compiled programs for all."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        **QUICK_COMPILATION,
    }
