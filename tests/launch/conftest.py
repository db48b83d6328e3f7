"""What tests of the commands share."""

import os

import pytest


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """The environment of a command: one cache of compiled programs for all.

    Almost nothing is optimized, since compiling takes all the time.
    """
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
