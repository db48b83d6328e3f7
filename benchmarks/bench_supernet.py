"""The micro supernet beside eager PyTorch: training, evaluation, compilation.

    python -m pytest benchmarks/bench_supernet.py

Both sides do the same work: the published size (16 channels, 8 cells, 5 nodes), batch
64 of 32x32, one architecture in a step, all weights updated, no auxiliary head. They
take turns on groups of four architectures of one fixed list; ours runs a group in one
compiled loop, as a search does. What counts is the median of the ratios PyTorch /
jaxnas (above 1: jaxnas is faster). PyTorch runs in its default memory format (NCHW)
and in channels_last. Compilation is left out of the steps and timed on its own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import lax

from jaxnas import optim, spaces, supernets, train, weights

torch = pytest.importorskip("torch")
torch_micro = pytest.importorskip("torch_micro")

BATCH_SIZE = 64
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


@pytest.fixture(scope="module")
def case() -> Case:
    torch.set_num_threads(os.cpu_count() or 1)
    space = spaces.enas_micro()
    net = supernets.micro(space)
    provider, task = weights.shared(net), train.classification()
    optimizer = optim.sgd(0.025)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH_SIZE, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, BATCH_SIZE).astype(np.int32)
    step = train.weight_step(net, provider, task, optimizer)
    key = jax.random.key(0)

    def train_group(state, archs, batch):
        def body(i, state):
            return step(state, lax.dynamic_slice_in_dim(archs, i, 1), batch, key)[0]

        return lax.fori_loop(0, GROUP, body, state)

    archs = jax.vmap(space.sample)(jax.random.split(key, NUM_ARCHS))
    return Case(
        groups=list(archs.reshape(-1, GROUP, archs.shape[1])),
        batch=jax.device_put({"image": images, "label": labels}),
        state=train.init_weights(provider, optimizer, key),
        train_group=jax.jit(train_group),
        evaluate_group=jax.jit(train.evaluation_step(net, provider, task)),
        torch_images=torch.tensor(images.transpose(0, 3, 1, 2).copy()),
        torch_labels=torch.tensor(labels.astype(np.int64)),
    )


def seconds(run: Callable, group: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(group))
    return time.perf_counter() - start


def compare(benchmark, groups, ours: Callable, theirs: dict[str, Callable]) -> None:
    """Time all sides in turn on every group and record the ratios."""
    sides = {"jaxnas": ours, **theirs}
    for group in groups:  # compilation, memory, caches
        for run in sides.values():
            seconds(run, group)
    times: dict[str, list[float]] = {name: [] for name in sides}

    def one_round():
        for group in groups:
            for name, run in sides.items():
                times[name].append(seconds(run, group) / GROUP)

    benchmark.pedantic(one_round, rounds=ROUNDS, iterations=1)
    for name in sides:
        ratios = np.array(times[name]) / np.array(times["jaxnas"])
        low, median, high = np.percentile(ratios, [5, 50, 95])
        benchmark.extra_info[name] = (
            f"median {1000 * np.median(times[name]):.0f} ms a step, {name} / jaxnas "
            f"{median:.2f} (5 % to 95 %: {low:.2f} to {high:.2f}; {len(ratios)} pairs)"
        )


def torch_sides(make_run: Callable) -> dict[str, Callable]:
    """A run over a group for each memory format of PyTorch."""
    runs = {}
    for name, channels_last in (("NCHW", False), ("channels_last", True)):
        run = make_run(torch_micro.MicroSupernet(channels_last=channels_last))
        runs[f"PyTorch {name}"] = lambda group, run=run: [
            run(arch) for arch in np.asarray(group).tolist()
        ]
    return runs


def test_train_step(benchmark, case):
    def make_run(model):
        optimizer = torch_micro.make_optimizer(model)
        return lambda arch: torch_micro.train_step(
            model, optimizer, case.torch_images, case.torch_labels, [arch]
        )

    compare(
        benchmark,
        case.groups,
        lambda group: case.train_group(case.state, group, case.batch),
        torch_sides(make_run),
    )


def test_evaluation_step(benchmark, case):
    def make_run(model):
        return lambda arch: torch_micro.eval_step(
            model, case.torch_images, case.torch_labels, arch
        )

    compare(
        benchmark,
        case.groups,
        lambda group: case.evaluate_group(case.state.params, group, case.batch),
        torch_sides(make_run),
    )


COMPILE = """
import time, jax
from jaxnas import optim, spaces, supernets, train, weights
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
space = spaces.enas_micro()
net = supernets.micro(space)
provider, task = weights.shared(net), train.classification()
optimizer = optim.sgd(0.025)
shapes = jax.eval_shape(
    lambda key: (train.init_weights(provider, optimizer, key), space.sample(key)[None]),
    jax.random.key(0),
)
batch = {
    "image": jax.ShapeDtypeStruct((64, 32, 32, 3), "float32"),
    "label": jax.ShapeDtypeStruct((64,), "int32"),
}
start = time.perf_counter()
step = jax.jit(train.weight_step(net, provider, task, optimizer))
step.lower(*shapes, batch, jax.random.key(0)).compile()
print(time.perf_counter() - start)
"""


def test_compilation(benchmark, tmp_path):
    """Tracing, lowering and compiling the training step in new processes."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}

    def compile_once() -> float:
        command = [sys.executable, "-c", COMPILE]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    cold = compile_once()
    warm = benchmark.pedantic(compile_once, rounds=3, iterations=1)
    benchmark.extra_info["compilation, empty cache"] = f"{cold:.1f} s"
    benchmark.extra_info["compilation, warm cache"] = f"{warm:.1f} s"
