"""What tests of several modules share."""

import contextlib
import functools
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnas import metrics
from jaxnas.types import Supernet

ROOT = pathlib.Path(__file__).parent.parent
GOLDENS_DIR = ROOT / "tests" / "goldens"


@functools.cache
def emitter_options() -> dict[str, Any]:
    """Options for XLA's older emitters, which compile in half the time, if it has any.

    They make one module of a program, not one of each loop.
    """
    options: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        assert "No such compile option" in str(error)
        return {}
    return options


def quick_compilation() -> dict[str, str]:
    """Variables of a process that compiles as `conftest.py` makes the tests do."""
    flags = (f"--{name}={value}" for name, value in emitter_options().items())
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": " ".join(flags)}


def quick_environment(cache_dir: pathlib.Path) -> dict[str, str]:
    """Of processes that compile on the CPU, quickly, and each program once for all."""
    return {
        **os.environ,
        **quick_compilation(),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def take(kind: Any, options: dict[str, Any], **defaults: Any) -> Any:
    """Make a named tuple of those options that are its fields, and remove them."""
    chosen = {name: options.pop(name) for name in kind._fields if name in options}
    return kind(**defaults | chosen)


def read_log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The log, without what depends on the machine."""
    return [
        {name: v for name, v in entry.items() if not _is_of_machine(name)}
        for entry in metrics.read(workdir / "metrics.jsonl")
    ]


def _is_of_machine(name: str) -> bool:
    others = "seconds_per_step", "input_wait", "peak_memory_bytes"
    return name.endswith("_per_second") or name in others


def visible(folder: pathlib.Path) -> set[str]:
    """Names of what is in a folder, without the file of its lock."""
    return {entry.name for entry in folder.iterdir()} - {".lock", ".lock.json"}


@contextlib.contextmanager
def signal_at_every_update(
    monkeypatch: pytest.MonkeyPatch, signal_number: int
) -> Iterator[None]:
    """Send this process a signal whenever a training shows its progress.

    A process starts with a call of one step, so that it stops after one step more.
    """
    update = metrics.Progress.update

    def update_and_signal(self, step, **shown):
        update(self, step, **shown)
        os.kill(os.getpid(), signal_number)

    with monkeypatch.context() as patch:
        patch.setattr(metrics.Progress, "update", update_and_signal)
        yield


def trace(
    net: Supernet, shape: tuple[int, ...], num_decisions: int | None = None, **options
) -> Any:
    """Shapes of the outputs of a supernet for images of a shape; runs nothing."""
    num_decisions = num_decisions or len(net.space.cardinalities)
    weights = jax.eval_shape(net.init, jax.random.key(0))
    arch = jax.ShapeDtypeStruct((num_decisions,), jnp.int32)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(
        lambda *args: net.apply(*args, **options), weights, arch, images
    )


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, options: str) -> Iterator[None]:
    """Mount a disk in memory on a folder, with options such as `size=1m`; or skip."""
    if shutil.which("mount") is None:
        pytest.skip("there is no command to mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    result = subprocess.run(mount, capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"a small disk cannot be mounted: {result.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
