"""Time a supernet and its eager PyTorch counterpart in turns, on equal work."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from jax import lax

from jaxnas import train, weights
from jaxnas.types import Supernet, Task

torch = pytest.importorskip("torch")

NUM_ARCHS, GROUP = 12, 4
ROUNDS = 5


class Case(NamedTuple):
    """Inputs on both sides, and the compiled loops."""

    groups: list[jax.Array]
    batch: dict[str, jax.Array]
    state: train.WeightState
    train_group: Callable
    evaluate_group: Callable
    torch_images: Any
    torch_labels: Any


def make_case(
    net: Supernet,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    *,
    task: Task | None = None,
    side: int = 32,
) -> Case:
    """Draw a batch of `side` x `side` and the architectures, and prepare the loops.

    The task is classification if none is given.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    provider, task = weights.shared(net), task or train.classification()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch_size, side, side, 3)).astype(np.float32)
    labels = rng.integers(0, 10, batch_size).astype(np.int32)
    step = train.weight_step(net, provider, task, optimizer)
    key = jax.random.key(0)

    def train_group(state, archs, batch):
        def body(i, state):
            return step(state, lax.dynamic_slice_in_dim(archs, i, 1), batch, key)[0]

        return lax.fori_loop(0, GROUP, body, state)

    archs = jax.vmap(net.space.sample)(jax.random.split(key, NUM_ARCHS))
    return Case(
        groups=list(archs.reshape(-1, GROUP, archs.shape[1])),
        batch=jax.device_put({"image": images, "label": labels}),
        state=train.init_weights(provider, optimizer, key),
        train_group=jax.jit(train_group),
        evaluate_group=jax.jit(train.evaluation_step(net, provider, task)),
        torch_images=torch.tensor(images.transpose(0, 3, 1, 2).copy()),
        torch_labels=torch.tensor(labels.astype(np.int64)),
    )


def _seconds(run: Callable, group: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(group))
    return time.perf_counter() - start


def compare(
    benchmark,
    groups,
    ours: Callable,
    theirs: dict[str, Callable],
    num_tokens: int | None = None,
) -> None:
    """Time all sides in turn on every group and record the ratios.

    Args:
      benchmark: the fixture of pytest-benchmark.
      groups: what the runs take, for `GROUP` steps each.
      ours: the run of jaxnas.
      theirs: the others, by name.
      num_tokens: tokens of a step, to record how many a second that makes.
    """
    sides = {"jaxnas": ours, **theirs}
    for group in groups:  # compilation, memory, caches
        for run in sides.values():
            _seconds(run, group)
    times: dict[str, list[float]] = {name: [] for name in sides}

    def one_round():
        for group in groups:
            for name, run in sides.items():
                times[name].append(_seconds(run, group) / GROUP)

    benchmark.pedantic(one_round, rounds=ROUNDS, iterations=1)
    for name in sides:
        ratios = np.array(times[name]) / np.array(times["jaxnas"])
        low, median, high = np.percentile(ratios, [5, 50, 95])
        middle = np.median(times[name])
        tokens = f"{num_tokens / middle:.0f} tokens a second, " if num_tokens else ""
        benchmark.extra_info[name] = (
            f"median {1000 * middle:.0f} ms a step, {tokens}{name} / jaxnas "
            f"{median:.2f} (5 % to 95 %: {low:.2f} to {high:.2f}; {len(ratios)} pairs)"
        )


def torch_sides(make_model: Callable, make_run: Callable) -> dict[str, Callable]:
    """A run over a group for each memory format of PyTorch.

    Args:
      make_model: `channels_last -> model`.
      make_run: `model -> run`, where `run` takes one architecture, a list of integers.

    Returns:
      Runs over groups of architectures, by name.
    """
    runs = {}
    for name, channels_last in (("NCHW", False), ("channels_last", True)):
        run = make_run(make_model(channels_last=channels_last))
        runs[f"PyTorch {name}"] = lambda group, run=run: [
            run(arch) for arch in np.asarray(group).tolist()
        ]
    return runs


_COMPILE = """
import time, jax
from jaxnas import optim, spaces, supernets, train, weights
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
net, optimizer, batch_size = {setup}
provider, task = weights.shared(net), train.classification()
shapes = jax.eval_shape(
    lambda key: (
        train.init_weights(provider, optimizer, key), net.space.sample(key)[None]
    ),
    jax.random.key(0),
)
batch = dict(
    image=jax.ShapeDtypeStruct((batch_size, 32, 32, 3), "float32"),
    label=jax.ShapeDtypeStruct((batch_size,), "int32"),
)
start = time.perf_counter()
step = jax.jit(train.weight_step(net, provider, task, optimizer))
step.lower(*shapes, batch, jax.random.key(0)).compile()
print(time.perf_counter() - start)
"""


def time_compilation(benchmark, cache: Path, setup: str) -> None:
    """Trace, lower and compile a training step in new processes.

    Args:
      benchmark: the fixture of pytest-benchmark.
      cache: an empty folder.
      setup: a Python expression of the supernet, the optimizer and the batch size,
        over the modules `optim`, `spaces` and `supernets`.
    """
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", _COMPILE.format(setup=setup)]

    def compile_once() -> float:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return float(done.stdout)

    cold = compile_once()
    warm = benchmark.pedantic(compile_once, rounds=3, iterations=1)
    benchmark.extra_info["compilation, empty cache"] = f"{cold:.1f} s"
    benchmark.extra_info["compilation, warm cache"] = f"{warm:.1f} s"
