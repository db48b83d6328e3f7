"""Strict numerics, four virtual devices and quick compilation for all tests.

Compiling takes most of the time. Equal programs are therefore compiled once, as by
processes that share a cache, and almost nothing is optimized, except in the modules
that say `pytestmark = pytest.mark.optimized`: those that hold operations, supernets and
searchers against independent references, with the programs that users run.
"""

import pathlib
import shutil
import tempfile

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_CACHE = pytest.StashKey[pathlib.Path]()


def pytest_configure(config):
    config.addinivalue_line("markers", "optimized: compile as users do")
    config.stash[_CACHE] = folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxnas-xla-"))
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_unconfigure(config):
    shutil.rmtree(config.stash[_CACHE], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _optimizations(request):
    is_optimized = request.node.get_closest_marker("optimized") is not None
    jax.config.update("jax_disable_most_optimizations", not is_optimized)


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield
