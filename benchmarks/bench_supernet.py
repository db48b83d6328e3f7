"""The micro supernet beside eager PyTorch: training step, evaluation, compilation.

    python -m pytest benchmarks/bench_supernet.py

Both sides do the same work: the published size (16 channels, 8 cells, 5 nodes), batch
64 of 32x32, one architecture in a step, all weights updated, no auxiliary head. They
take turns on one fixed list of architectures; what counts is the median of the ratios
PyTorch / jaxnas (above 1: jaxnas is faster). PyTorch runs in its default memory format
(NCHW) and in channels_last. Compilation is left out of the steps and timed on its own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from jaxnas import optim, spaces, supernets, train, weights

torch = pytest.importorskip("torch")
torch_micro = pytest.importorskip("torch_micro")

BATCH_SIZE = 64
NUM_ARCHS = 12
ROUNDS = 3


@pytest.fixture(scope="module")
def case():
    """Inputs, architectures and the compiled steps."""
    torch.set_num_threads(os.cpu_count() or 1)
    space = spaces.enas_micro()
    net = supernets.micro(space)
    provider, task, optimizer = (
        weights.shared(net),
        train.classification(),
        optim.sgd(0.025),
    )
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH_SIZE, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, BATCH_SIZE).astype(np.int32)
    batch = jax.device_put({"image": images, "label": labels})
    archs = [space.sample(jax.random.key(i)) for i in range(NUM_ARCHS)]
    state = train.init_weights(provider, optimizer, jax.random.key(0))
    step = jax.jit(train.weight_step(net, provider, task, optimizer), donate_argnums=0)
    evaluate = jax.jit(train.evaluation_step(net, provider, task))
    return {
        "archs": archs,
        "batch": batch,
        "state": state,
        "step": step,
        "evaluate": evaluate,
        "torch_images": torch.tensor(images.transpose(0, 3, 1, 2).copy()),
        "torch_labels": torch.tensor(labels.astype(np.int64)),
    }


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def compare(benchmark, archs, ours, theirs: dict[str, Callable]) -> None:
    """Time all sides in turn on every architecture and record the ratios."""
    for arch in archs:  # compilation, memory, caches
        ours(arch)
        for run in theirs.values():
            run(arch)
    ratios: dict[str, list[float]] = {name: [] for name in theirs}

    def one_round():
        for arch in archs:
            own = seconds(lambda arch=arch: ours(arch))
            for name, run in theirs.items():
                other = seconds(lambda arch=arch, run=run: run(arch))
                ratios[name].append(other / own)

    benchmark.pedantic(one_round, rounds=ROUNDS, iterations=1)
    for name, values in ratios.items():
        low, median, high = np.percentile(values, [5, 50, 95])
        benchmark.extra_info[f"PyTorch {name} / jaxnas"] = (
            f"median {median:.2f}, 5 % to 95 %: {low:.2f} to {high:.2f}, "
            f"{len(values)} pairs"
        )
        assert np.isfinite(median)


def torch_models():
    return {
        name: torch_micro.MicroSupernet(channels_last=channels_last)
        for name, channels_last in (("NCHW", False), ("channels_last", True))
    }


def test_train_step(benchmark, case):
    key = jax.random.key(0)
    box = {"state": case["state"]}

    def ours(arch):
        box["state"], _ = case["step"](box["state"], arch[None], case["batch"], key)
        return jax.block_until_ready(box["state"])

    def theirs(model):
        optimizer = torch_micro.make_optimizer(model)
        return lambda arch: torch_micro.train_step(
            model,
            optimizer,
            case["torch_images"],
            case["torch_labels"],
            [[int(v) for v in np.asarray(arch)]],
        )

    compare(
        benchmark,
        case["archs"],
        ours,
        {name: theirs(model) for name, model in torch_models().items()},
    )
    case["state"] = box["state"]


def test_evaluation_step(benchmark, case):
    params = case["state"].params

    def ours(arch):
        return jax.block_until_ready(
            case["evaluate"](params, arch[None], case["batch"])
        )

    def theirs(model):
        return lambda arch: torch_micro.eval_step(
            model,
            case["torch_images"],
            case["torch_labels"],
            [int(v) for v in np.asarray(arch)],
        )

    compare(
        benchmark,
        case["archs"],
        ours,
        {name: theirs(model) for name, model in torch_models().items()},
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
