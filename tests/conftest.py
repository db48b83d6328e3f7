"""Strict numerics, four virtual devices and quick compilation for all tests.

Compiling takes most of the time. Equal programs of a module are therefore compiled
once, and with almost no optimizations, by XLA's older emitters; a depthwise convolution
sums a chunk of 2 images at once, not 16.
Only modules that say `pytestmark = pytest.mark.optimized` compile as users do: they
hold everything that is computed against double precision.
"""

import gc
import pathlib
from typing import Any

import jax
import pytest
from helpers import emitter_options
from jax._src import compilation_cache, compiler  # for what no public setting offers

from jaxnas.ops import shifted

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiled programs and the seconds it took, by JAX's key and their devices. JAX itself
# keeps them in files, and takes longer.
_PROGRAMS: dict[Any, tuple[Any, int]] = {}


def pytest_configure(config):
    config.addinivalue_line("markers", "optimized: compile as users do")
    # In place of a folder.
    compilation_cache.put_executable_and_time = _keep
    compilation_cache.get_executable_and_time = _find
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _keep(key, module_name, executable, backend, compile_time):
    devices = tuple(device.id for device in executable.local_devices())
    _PROGRAMS[key, devices] = executable, compile_time


def _find(key, compile_options, backend, executable_devices, *_):
    devices = tuple(device.id for device in executable_devices)
    return _PROGRAMS.get((key, devices), (None, None))


def _quick_compile_options(*args, env_options_overrides=None, **options):
    overrides = {**emitter_options(), **(env_options_overrides or {})}
    return _compile_options(*args, env_options_overrides=overrides, **options)


_compile_options = compiler.get_compile_options
_IMAGES_PER_CHUNK = shifted._IMAGES_PER_CHUNK


@pytest.fixture(autouse=True, scope="module")
def _optimizations(request):
    emitter_options()  # compiles to find out, so that it cannot do so while compiling
    is_optimized = request.node.get_closest_marker("optimized") is not None
    jax.config.update("jax_disable_most_optimizations", not is_optimized)
    compiler.get_compile_options = (
        _compile_options if is_optimized else _quick_compile_options
    )
    shifted._IMAGES_PER_CHUNK = _IMAGES_PER_CHUNK if is_optimized else 2


@pytest.fixture(autouse=True, scope="module")
def _garbage():
    """Search what a module leaves, such as compiled programs, for garbage only once.

    Every program takes some of the pieces of memory that a process may have, 65,530 on
    Linux; without any left, the next compilation crashes.
    """
    yield
    _PROGRAMS.clear()
    if _num_maps() > 15_000:
        jax.clear_caches()
        gc.unfreeze()
    gc.collect()
    gc.freeze()


def _num_maps() -> int:
    maps = pathlib.Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield
