"""Check and time jaxnas on a GPU: one command, at most 13 minutes, one JSON file.

    python benchmarks/gpu_check.py --data-dir local

Where a command may not take that long, divide the parts among two, which share what
they compile if `JAX_COMPILATION_CACHE_DIR` names a folder:

    python benchmarks/gpu_check.py --parts device,compile,micro,macro,search ...
    python benchmarks/gpu_check.py --parts device,numerics,dag,retraining,recurrent ...

It runs from a checkout, with whatever jax, flax, optax, orbax, rich and, for the
comparison, PyTorch are installed; jaxnas itself need not be. The parts, the most
important first:

1. `device`: versions, card, flags. Without a GPU the check ends here.
2. `numerics`: losses and gradients in float32 on the device against float64 on the
   CPU, with the default precision of products, which is TF32 on recent cards, and with
   `jax.default_matmul_precision("highest")`.
3. `compile`: all programs of the other parts at the same time, into a cache that they
   share. Seconds are those beside the others.
4. `micro`, `macro`, `dag`, `autoencoder`, `retraining`: training steps a second at the
   published sizes beside eager PyTorch on the same card, in NCHW and in channels_last;
   `recurrent` and `recurrent_network`, the supernet and a network of recurrent cells,
   beside an eager loop over time, and the network also beside `torch.compile`.
   Both sides do the same work, which tests in `bench_*.py` show, and take turns on
   groups of architectures; what counts is the median of the ratios PyTorch / jaxnas
   (above 1: jaxnas is faster). Both sides may use TF32, and PyTorch chooses its
   convolutions by timing them, as XLA does.
5. `kernels`, after `micro`: the same step with kernels for layers of many edges, of 1,
   2, 4 and 8 architectures at once, beside the step without; here the ratios are below
   1 where the kernels are faster.
6. `search`: the preset asng-cifar10 for the rest of the time: losses, images a second
   and the projected hours of the whole search.

Three more parts run only where `--parts` names them: `hypernetwork`, a step of the DAG
blocks whose weights a hypernetwork predicts, beside eager PyTorch; `profile`, the
kernels of each training step and their time; and `graph`, the micro step as a single
CUDA graph beside XLA's default.

Each part is a process of its own with a time limit. What a part has found is written
as it finds it, so that nothing is lost when it is stopped; the time it leaves goes to
the later parts. The exit status is 1 if a part failed or ran out of time.

The search needs CIFAR-10 under `--data-dir`, as `cifar-10-batches-py` or as the file
that `--pack` writes, and otherwise trains on noise, which is good for timings only. For
a remote machine that receives little more than a checkout, pack the first images here
(46 MB) into a folder that git ignores, and send that along:

    python benchmarks/gpu_check.py --data-dir ~/cifar10 --pack local

`--size tiny` checks the check on a CPU in a few minutes.
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import functools
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("benchmarks", "launch", ".")]

PACKED_NAME = "cifar10_first_images.npz"
NUM_PACKED = 15_000

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch")

# The largest relative errors that pass. Default precision has 10 bits of mantissa in
# TF32, and the signs of some activations change with them.
BOUNDS = {
    "highest": {"loss": 1e-4, "gradient": 1e-2},
    "default": {"loss": 2e-2, "gradient": 3e-1},
}

# A loop whose conditionals hold convolutions is not one CUDA graph by default.
ONE_GRAPH = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,"
    "DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE,CONVOLUTION",
    "xla_disable_hlo_passes": "fusion-dynamic-memcpy-rewriter",
}


class NetSize(NamedTuple):
    """A network and its batch; `num_cells` counts blocks or layers as well."""

    channels: int
    num_cells: int
    batch_size: int


class LanguageSize(NamedTuple):
    """A language model and its batch of sequences."""

    hidden_size: int
    num_words: int
    batch_size: int
    num_steps: int


class Size(NamedTuple):
    """How large the work is.

    Attributes:
      functions: what is compared with float64.
      numerics: of the networks in them; a number of cells that divides by 3.
      micro: of the micro supernet, of cells with 5 nodes.
      macro: of the macro supernet.
      dag: of the supernet of blocks that are any graph, of 7 nodes.
      autoencoder: of the supernet of autoencoders: most channels, nodes and batch.
      retraining: of the network of DARTS.
      recurrent: of the supernet of recurrent cells of 12 nodes.
      recurrent_network: of the network of ENAS's recurrent cell.
      search: of the search.
      image_size: side of the images that are timed; of autoencoders, twice that.
      num_groups: groups of architectures that are timed.
      group_size: steps, of one architecture each, in one call.
      archs_at_once: numbers of architectures that kernels are timed with, which divide
        `group_size`.
      max_rounds: how often all groups are timed, if there is time.
      chunk: steps of the search between two reports.
      max_steps: of the search, if there is time.
    """

    functions: tuple[str, ...]
    numerics: NetSize
    micro: NetSize
    macro: NetSize
    dag: NetSize
    autoencoder: NetSize
    retraining: NetSize
    recurrent: LanguageSize
    recurrent_network: LanguageSize
    search: NetSize
    image_size: int
    num_groups: int
    group_size: int
    archs_at_once: tuple[int, ...]
    max_rounds: int
    chunk: int
    max_steps: int


FUNCTIONS = (
    "micro, ASNG's skeleton",
    "micro, ASNG's skeleton, kernels",
    "macro",
    "dag",
    "retraining",
    "hypernetwork",
    "micro, ENAS's skeleton",
    "micro, ENAS's skeleton, kernels",
    "autoencoder",
    "recurrent",
)

# Probabilities for words, inputs, states and outputs, of ENAS's scripts.
DROPOUT = 0.25, 0.75, 0.25, 0.75

SIZES = {
    "full": Size(
        functions=FUNCTIONS,
        numerics=NetSize(8, 6, 16),
        micro=NetSize(16, 8, 64),
        macro=NetSize(36, 12, 128),
        dag=NetSize(32, 18, 64),
        autoencoder=NetSize(256, 20, 16),
        retraining=NetSize(36, 20, 80),
        recurrent=LanguageSize(1000, 10_000, 64, 35),
        recurrent_network=LanguageSize(748, 10_000, 64, 35),
        search=NetSize(16, 8, 64),
        image_size=32,
        num_groups=3,
        group_size=8,
        archs_at_once=(1, 2, 4, 8),
        max_rounds=10,
        chunk=100,
        max_steps=39_000,
    ),
    "tiny": Size(
        functions=("macro",),
        numerics=NetSize(4, 3, 4),
        micro=NetSize(2, 3, 2),
        macro=NetSize(2, 3, 2),
        dag=NetSize(2, 6, 2),
        autoencoder=NetSize(4, 6, 2),
        retraining=NetSize(2, 3, 2),
        recurrent=LanguageSize(4, 20, 2, 3),
        recurrent_network=LanguageSize(4, 20, 2, 3),
        search=NetSize(2, 3, 2),
        image_size=8,
        num_groups=1,
        group_size=2,
        archs_at_once=(2,),
        max_rounds=2,
        chunk=2,
        max_steps=6,
    ),
}


class Task(NamedTuple):
    """What a part is to do.

    Attributes:
      size: of the work.
      deadline: when it has to be done, on the monotonic clock.
      save: keeps what has been found so far.
      data_dir: where CIFAR-10 is, if anywhere.
    """

    size: Size
    deadline: float
    save: Callable[[dict[str, Any]], None]
    data_dir: pathlib.Path | None

    def seconds_left(self) -> float:
        """Time until the part is stopped."""
        return self.deadline - time.monotonic()


class CheckFailed(RuntimeError):
    """What was measured is not what it should be."""


# Device ---------------------------------------------------------------------------


def check_device(task: Task) -> dict[str, Any]:
    """Find the device and the versions of everything.

    Raises:
      CheckFailed: if full size is asked for and JAX has no GPU.
    """
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    result = {
        "platform": device.platform,
        "kind": device.device_kind,
        "card": nvidia_smi(),
        "versions": {"python": platform.python_version()} | versions(),
        "num_cpus": os.cpu_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
        "compute_seconds": seconds(lambda: jnp.ones((64, 64)) @ jnp.ones((64, 64)))[0],
    }
    result["summary"] = (
        f"{device.device_kind} ({device.platform}), jax {jax.__version__}"
    )
    task.save(result)
    if task.size == SIZES["full"] and device.platform != "gpu":
        raise CheckFailed(
            f"JAX runs on {device.platform}; expected gpu, which --size full is for"
        )
    return result


def versions() -> dict[str, str | None]:
    """Versions of the packages that matter; None where there is none."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def nvidia_smi() -> dict[str, str] | None:
    """Name, driver and memory of the first card; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    fields = "name", "driver_version", "memory.total", "power.limit"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=20,
    )
    if done.returncode != 0 or not done.stdout.strip():
        return None
    first = done.stdout.splitlines()[0].split(", ")
    return dict(zip(fields, first, strict=False))


# Numerics -------------------------------------------------------------------------


class Function(NamedTuple):
    """A loss with its gradient, `(params, inputs) -> (gradient, loss)`."""

    apply: Callable[[Any, Any], tuple[Any, Any]]
    params: Any
    inputs: Any


def supernet_function(
    net: Any, provider: Any, batch: dict[str, Any], task: Any = None
) -> Function:
    """The mean loss of three architectures of a supernet."""
    import jax

    from jaxnas import train

    task = train.classification() if task is None else task
    gradient = train.weight_gradient(net, provider, task)
    keys = jax.random.split(jax.random.key(1), 3)
    inputs = jax.vmap(net.space.sample)(keys), batch

    def apply(params, inputs):
        archs, batch = inputs
        grads, metrics = gradient(params, archs, batch, jax.random.key(0))
        return grads, metrics["loss"]

    return Function(apply, jax.jit(provider.init)(jax.random.key(0)), inputs)


def network_function(network: Any, batch: dict[str, Any]) -> Function:
    """The loss of a network with the statistics of the batch."""
    import jax

    from jaxnas import train

    task = train.classification()
    init = functools.partial(network.init, train=True)
    variables = jax.jit(init)(jax.random.key(0), batch["image"])

    def loss(params, inputs):
        batch_stats, batch = inputs
        outputs, _ = network.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
        )
        return task.loss(outputs, batch)[0]

    def apply(params, inputs):
        value, grads = jax.value_and_grad(loss)(params, inputs)
        return grads, value

    return Function(apply, variables["params"], (variables["batch_stats"], batch))


def functions(size: NetSize, image_size: int) -> dict[str, Callable[[], Function]]:
    """What makes each of `FUNCTIONS`."""
    from jaxnas import genotypes, ghn, networks, spaces, supernets, weights

    channels, num, batch_size = size
    batch = make_batch(batch_size, image_size)

    def shared(make_net: Callable[[], Any]) -> Callable[[], Function]:
        def make():
            net = make_net()
            return supernet_function(net, weights.shared(net), batch)

        return make

    def micro(skeleton):
        return supernets.micro(spaces.enas_micro(), channels, num, skeleton=skeleton)

    def dag():
        return supernets.dag(spaces.ghn_dag(7), channels, num)

    def hypernetwork():
        net = dag()
        return supernet_function(net, ghn.hypernetwork(net), batch)

    def autoencoder():
        net = supernets.autoencoder(autoencoder_space(4 * channels, num))
        return supernet_function(net, weights.shared(net), batch, reproduction())

    def recurrent():
        language = LanguageSize(4 * channels, 10 * channels, batch_size, image_size)
        net = supernets.recurrent(spaces.enas_recurrent(num), *language[1::-1])
        provider, words = weights.shared(net), make_words(language)
        return supernet_function(net, provider, words, next_words())

    def retraining():
        genotype = genotypes.named("DARTS_V2")
        return network_function(networks.micro(genotype, channels, num), batch)

    def asng():
        return micro("asng")

    def enas():
        return micro("enas")

    return {
        "micro, ASNG's skeleton": shared(asng),
        "micro, ASNG's skeleton, kernels": shared(asng),
        "macro": shared(lambda: supernets.macro(spaces.enas_macro(num), channels)),
        "dag": shared(dag),
        "retraining": retraining,
        "hypernetwork": hypernetwork,
        "micro, ENAS's skeleton": shared(enas),
        "micro, ENAS's skeleton, kernels": shared(enas),
        "autoencoder": autoencoder,
        "recurrent": recurrent,
    }


def evaluate(
    function: Function, device: Any, *, double: bool = False, precision: str = "default"
) -> tuple[Any, float]:
    """Compute gradient and loss on a device, in float32 or float64; numpy arrays."""
    import jax
    import numpy as np

    dtype = np.float64 if double else np.float32

    def place(leaf):
        array = np.asarray(leaf)
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(dtype)
        return jax.device_put(array, device)

    with (
        jax.enable_x64(double),
        jax.default_device(device),
        jax.default_matmul_precision(precision),
    ):
        args = jax.tree.map(place, (function.params, function.inputs))
        grads, loss = jax.jit(function.apply)(*args)
        return jax.tree.map(np.asarray, grads), float(loss)


def relative_errors(found: tuple[Any, float], reference: tuple[Any, float]) -> dict:
    """Relative errors of the loss and of the gradient, all its arrays together."""
    return {
        "loss": abs(found[1] - reference[1]) / abs(reference[1]),
        "gradient": relative_distance(reference[0], found[0]),
    }


def relative_distance(reference: Any, found: Any) -> float:
    """Distance of two trees of arrays in units of the length of the first."""
    import jax
    import numpy as np

    def norm(tree):
        return math.sqrt(sum(float(np.square(x).sum()) for x in jax.tree.leaves(tree)))

    reference = jax.tree.map(lambda x: np.asarray(x, np.float64), reference)
    return norm(jax.tree.map(np.subtract, found, reference)) / norm(reference)


def compare_precisions(
    function: Function, device: Any, cpu: Any
) -> dict[str, dict[str, float]]:
    """Relative errors on a device, by precision, against float64 on the CPU."""
    import jax
    import numpy as np

    # Scales and offsets start at one and zero, which would hide a mistake.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.1 * rng.standard_normal(leaf.shape),
        function.params,
    )
    function = function._replace(params=params)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reference = pool.submit(evaluate, function, cpu, double=True)
        found = {
            precision: pool.submit(evaluate, function, device, precision=precision)
            for precision in BOUNDS
        }
    return {
        precision: relative_errors(run.result(), reference.result())
        for precision, run in found.items()
    }


def compare_by_name(name: str, size: NetSize) -> dict[str, dict[str, float]]:
    """Make one of `functions` on the CPU and compare its precisions."""
    import jax

    device, cpu = jax.devices()[0], jax.local_devices(backend="cpu")[0]
    with use_kernels(name.endswith("kernels")), jax.default_device(cpu):
        function = functions(size, 16)[name]()
        return compare_precisions(function, device, cpu)


@contextlib.contextmanager
def use_kernels(used: bool) -> Iterator[None]:
    """Trace programs with kernels for layers of many edges, or without.

    Without a GPU, ordinary operations take the place of kernels.
    """
    name = "JAXNAS_GPU_KERNELS"
    before = os.environ.get(name)
    os.environ[name] = "0" if not used else "1" if has_gpu() else "interpret"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def check_numerics(task: Task) -> dict[str, Any]:
    """Compare float32 on the device with float64 on the CPU.

    Most of the time goes into tracing, in Python, so that each comparison has a
    process.

    Raises:
      CheckFailed: if an error exceeds its bound.
    """
    result: dict[str, Any] = {"bounds": BOUNDS, "errors": {}}
    with make_pool(num_workers()) as pool:
        pending = {
            pool.submit(compare_by_name, name, task.size.numerics): name
            for name in task.size.functions
        }
        for future in concurrent.futures.as_completed(pending):
            result["errors"][pending[future]] = future.result()
            task.save(result)
    largest = {
        precision: max(e[precision]["gradient"] for e in result["errors"].values())
        for precision in BOUNDS
    }
    result["summary"] = "largest error of a gradient " + ", ".join(
        f"{error:.1e} ({precision})" for precision, error in largest.items()
    )
    task.save(result)
    too_large = [
        f"{name}, {precision}, {what}: {error:.1e}"
        for name, by_precision in result["errors"].items()
        for precision, by_what in by_precision.items()
        for what, error in by_what.items()
        if not error <= BOUNDS[precision][what]
    ]
    if too_large:
        raise CheckFailed(f"errors above their bounds: {'; '.join(too_large)}")
    return result


def make_pool(num: int) -> concurrent.futures.Executor:
    """Processes that start afresh, since JAX does not survive a fork."""
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(num, mp_context=context)


def autoencoder_space(most_channels: int, num_nodes: int) -> Any:
    """The space of autoencoders with four times fewer to most channels."""
    from jaxnas import spaces

    channels = tuple(most_channels // factor for factor in (4, 2, 1))
    return spaces.AutoencoderSpace(num_nodes, min(num_nodes, 5), channels)


def reproduction() -> Any:
    """The task of returning the images: the mean squared error alone."""
    import jax.numpy as jnp

    from jaxnas.types import Task

    def loss(outputs, batch):
        mean = jnp.square(outputs - batch["image"]).mean()
        return mean, {"loss": mean}

    return Task(loss)


def next_words() -> Any:
    """The task of predicting the word after each: the mean cross entropy."""
    from jaxnas import ops
    from jaxnas.types import Task

    def loss(outputs, batch):
        losses = ops.cross_entropy(outputs.logits, batch["label"])
        return losses.mean(), {"loss": losses.mean()}

    return Task(loss)


# Programs -------------------------------------------------------------------------


def torch_module(name: str) -> Any:
    """A module of this folder that needs PyTorch."""
    return importlib.import_module(name)


def update_on_labels(
    model: Any, optimizer: Any, images: Any, labels: Any, arch: Any
) -> None:
    """Train a classifier in PyTorch for one step."""
    torch_module("torch_micro").update(model, optimizer, images, labels, [arch])


def update_on_words(
    model: Any, optimizer: Any, inputs: Any, targets: Any, arch: Any
) -> None:
    """Train a language model in PyTorch for one step."""
    torch_module("torch_recurrent").update(model, optimizer, inputs, targets, arch)


MEMORY_FORMATS = {"PyTorch NCHW": False, "PyTorch channels_last": True}


class Case(NamedTuple):
    """A training step on both sides.

    Attributes:
      advance: `(state, archs, batch) -> state`, one step for each architecture.
      state: what it begins with.
      groups: architectures, `[num_groups, group_size, num_decisions]`.
      batch: what the model reads, `image`, and what it is compared with, `label`.
      make_model: `variant -> model` in PyTorch.
      make_optimizer: `model -> optimizer` in PyTorch.
      decode: an architecture as that model takes it.
      update: `(model, optimizer, images, labels, arch) -> None`, one step in PyTorch.
      variants: those of PyTorch, by name; by default its memory formats.
      unit: what labels are counted in.
    """

    advance: Callable[[Any, Any, Any], Any]
    state: Any
    groups: Any
    batch: dict[str, Any]
    make_model: Callable[[bool], Any]
    make_optimizer: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    update: Callable[..., Any] = update_on_labels
    variants: dict[str, bool] = MEMORY_FORMATS
    unit: str = "images"


def make_batch(batch_size: int, image_size: int) -> dict[str, Any]:
    """Noise with random labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = batch_size, image_size, image_size, 3
    return {
        "image": rng.standard_normal(shape).astype(np.float32),
        "label": rng.integers(0, 10, batch_size).astype(np.int32),
    }


def make_words(size: LanguageSize) -> dict[str, Any]:
    """Random words after a random state, and the words that follow them."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = size.batch_size, size.num_steps + 1
    words = rng.integers(0, size.num_words, shape).astype(np.int32)
    state = 0.1 * rng.standard_normal((size.batch_size, size.hidden_size))
    return {
        "image": (words[:, :-1], state.astype(np.float32)),
        "label": words[:, 1:],
    }


def repeated(
    step: Callable[[Any, Any, Any, Any], Any], archs_at_once: int = 1
) -> Callable[[Any, Any, Any], Any]:
    """A step for each of some architectures, in one compiled loop as in a search.

    Each has a random key of its own, so that no mask is drawn once for all.
    """
    import jax
    from jax import lax

    def advance(state, archs, batch):
        key = jax.random.key(0)

        def body(i, state):
            some = lax.dynamic_slice_in_dim(archs, i * archs_at_once, archs_at_once)
            return step(state, some, batch, jax.random.fold_in(key, i))

        return lax.fori_loop(0, archs.shape[0] // archs_at_once, body, state)

    return advance


def supernet_case(
    size: Size,
    batch: dict[str, Any],
    net: Any,
    optimizer: Any,
    make_model: Callable[[bool], Any],
    make_optimizer: Callable[[Any], Any],
    decode: Callable[[Any], Any] = list,
    task: Any = None,
    archs_at_once: int = 1,
    make_provider: Callable[[Any], Any] | None = None,
    **others: Any,
) -> Case:
    """Training steps of a supernet: shared weights and classification by default."""
    import jax

    from jaxnas import train, weights

    provider = (make_provider or weights.shared)(net)
    task = train.classification() if task is None else task
    step = train.weight_step(
        net, provider, task, optimizer, archs_at_once=archs_at_once
    )
    key = jax.random.key(0)
    keys = jax.random.split(key, size.num_groups * size.group_size)
    archs = jax.vmap(net.space.sample)(keys)
    return Case(
        repeated(lambda *args: step(*args)[0], archs_at_once),
        jax.jit(functools.partial(train.init_weights, provider, optimizer))(key),
        archs.reshape(size.num_groups, size.group_size, -1),
        jax.device_put(batch),
        make_model,
        make_optimizer,
        decode,
        **others,
    )


def micro_case(size: Size, archs_at_once: int = 1) -> Case:
    from jaxnas import optim, spaces, supernets

    channels, num_cells, batch_size = size.micro
    return supernet_case(
        size,
        make_batch(batch_size, size.image_size),
        supernets.micro(spaces.enas_micro(), channels, num_cells),
        optim.sgd(0.025, clip_norm=5.0),
        lambda channels_last: torch_module("torch_micro").MicroSupernet(
            channels, num_cells, channels_last=channels_last
        ),
        lambda model: torch_module("torch_micro").make_optimizer(model),
        archs_at_once=archs_at_once,
    )


def macro_case(size: Size) -> Case:
    from jaxnas import optim, spaces, supernets

    channels, num_layers, batch_size = size.macro
    return supernet_case(
        size,
        make_batch(batch_size, size.image_size),
        supernets.macro(spaces.enas_macro(num_layers), channels),
        optim.sgd(0.05, nesterov=True, weight_decay=1e-4, clip_norm=5.0),
        lambda channels_last: torch_module("torch_macro").MacroSupernet(
            num_layers, channels, channels_last=channels_last
        ),
        lambda model: torch_module("torch_macro").make_optimizer(model),
    )


def dag_case(size: Size) -> Case:
    from jaxnas import optim, spaces, supernets

    channels, num_blocks, batch_size = size.dag
    space = spaces.ghn_dag(7)
    return supernet_case(
        size,
        make_batch(batch_size, size.image_size),
        supernets.dag(space, channels, num_blocks),
        optim.adam(1e-3, clip_norm=5.0),
        lambda channels_last: torch_module("torch_dag").DagSupernet(
            channels, num_blocks, num_nodes=7, channels_last=channels_last
        ),
        lambda model: torch_module("torch_ghn").make_optimizer(model),
        space.decode,
    )


def hypernetwork_case(size: Size) -> Case:
    from jaxnas import ghn, optim, spaces, supernets

    channels, num_blocks, batch_size = size.dag
    space = spaces.ghn_dag(7)
    return supernet_case(
        size,
        make_batch(batch_size, size.image_size),
        supernets.dag(space, channels, num_blocks),
        optim.adam(1e-3, clip_norm=5.0),
        lambda channels_last: torch_module("torch_ghn").DagNetwork(
            channels, num_blocks, channels_last=channels_last
        ),
        lambda model: torch_module("torch_ghn").make_optimizer(model),
        space.decode,
        make_provider=ghn.hypernetwork,
    )


def autoencoder_case(size: Size) -> Case:
    import optax

    from jaxnas import supernets

    channels, num_nodes, batch_size = size.autoencoder
    space = autoencoder_space(channels, num_nodes)

    def update(model, optimizer, images, labels, arch):
        del labels
        torch_module("torch_autoencoder").train_step(model, optimizer, images, arch)

    return supernet_case(
        size,
        make_batch(batch_size, 2 * size.image_size),
        supernets.autoencoder(space),
        optax.sgd(0.025),
        lambda channels_last: torch_module("torch_autoencoder").Autoencoder(
            num_nodes, space.level_back, space.channels, channels_last=channels_last
        ),
        lambda model: torch_module("torch_autoencoder").make_optimizer(model),
        lambda arch: arch.tolist(),
        task=reproduction(),
        update=update,
    )


def clipped_sgd() -> Any:
    """Plain SGD as ENAS trains its language models."""
    import optax

    return optax.chain(optax.clip_by_global_norm(0.25), optax.sgd(20.0))


def recurrent_case(size: Size) -> Case:
    from jaxnas import ops, spaces, supernets

    space, (hidden_size, num_words, *_) = spaces.enas_recurrent(), size.recurrent
    dropout = ops.RecurrentDropout(*DROPOUT)
    return supernet_case(
        size,
        make_words(size.recurrent),
        supernets.recurrent(space, num_words, hidden_size, dropout=dropout),
        clipped_sgd(),
        lambda _: torch_module("torch_recurrent").RecurrentSupernet(
            space.num_nodes, num_words, hidden_size, DROPOUT
        ),
        lambda model: torch_module("torch_recurrent").make_optimizer(model),
        lambda arch: arch.tolist(),
        task=next_words(),
        update=update_on_words,
        variants={"PyTorch eager": False},
        unit="tokens",
    )


def network_case(
    size: Size,
    batch: dict[str, Any],
    network: Any,
    optimizer: Any,
    make_model: Callable[[bool], Any],
    make_optimizer: Callable[[Any], Any],
    task: Any = None,
    **others: Any,
) -> Case:
    """Training steps of a network; classification by default."""
    import jax
    import jax.numpy as jnp

    from jaxnas import train
    from jaxnas.train import from_scratch

    task = train.classification() if task is None else task
    step, key = from_scratch.train_step(network, task, optimizer), jax.random.key(0)
    batch = jax.device_put(batch)

    def init(key, inputs):
        variables = network.init(key, inputs, train=True)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        opt_state, start = optimizer.init(params), jnp.int32(0)
        return train.TrainState(start, key, params, batch_stats, opt_state, {})

    return Case(
        repeated(lambda state, _, batch, key: step(state, batch, key, None)[0]),
        jax.jit(init)(key, jax.tree.map(lambda leaf: leaf[:1], batch["image"])),
        jnp.zeros((size.num_groups, size.group_size, 0), jnp.int32),
        batch,
        make_model,
        make_optimizer,
        list,
        **others,
    )


def retraining_case(size: Size) -> Case:
    from jaxnas import genotypes, networks, optim

    channels, num_cells, batch_size = size.retraining
    genotype = genotypes.named("DARTS_V2")

    def make_model(channels_last):
        cells = torch_module("torch_cells")
        network = cells.CellNetwork(
            genotype, channels, num_cells, channels_last=channels_last
        )
        return cells.OneArchitecture(network)

    return network_case(
        size,
        make_batch(batch_size, size.image_size),
        networks.micro(genotype, channels, num_cells),
        optim.sgd(0.025, clip_norm=5.0),
        make_model,
        lambda model: torch_module("torch_micro").make_optimizer(model),
    )


def recurrent_network_case(size: Size) -> Case:
    from jaxnas import genotypes, networks, ops

    hidden_size, num_words, *_ = size.recurrent_network
    genotype = genotypes.named("ENAS_RECURRENT")
    dropout = ops.RecurrentDropout(*DROPOUT)
    return network_case(
        size,
        make_words(size.recurrent_network),
        networks.recurrent(genotype, num_words, hidden_size, dropout=dropout),
        clipped_sgd(),
        lambda compiled: torch_module("torch_recurrent").RecurrentNetwork(
            *genotype[:2], num_words, hidden_size, DROPOUT, compiled=compiled
        ),
        lambda model: torch_module("torch_recurrent").make_optimizer(model),
        task=next_words(),
        update=update_on_words,
        variants={"PyTorch eager": False, "PyTorch torch.compile": True},
        unit="tokens",
    )


CASES = {
    "micro": micro_case,
    "macro": macro_case,
    "dag": dag_case,
    "hypernetwork": hypernetwork_case,
    "autoencoder": autoencoder_case,
    "retraining": retraining_case,
    "recurrent": recurrent_case,
    "recurrent_network": recurrent_network_case,
}


class Search(NamedTuple):
    """A search that can be advanced.

    Attributes:
      advance: `(state, splits, num_steps) -> state`.
      state: the first state.
      splits: images of weights and of the searcher.
      steps_per_epoch: steps in a pass through them.
      images_per_step: one for each architecture that an image passes.
      source: what the images are.
    """

    advance: Callable[[Any, Any, Any], Any]
    state: Any
    splits: Any
    steps_per_epoch: int
    images_per_step: int
    source: str


def load_images(data_dir: pathlib.Path | None, size: Size) -> Any:
    """CIFAR-10 as it is found, or noise of its shape where no folder is given."""
    import numpy as np

    from jaxnas import data
    from jaxnas.data import cifar

    if data_dir is None:
        num = 5000 if size == SIZES["full"] else 32
        rng = np.random.default_rng(0)
        images = data.Split(
            rng.integers(256, size=(num, 32, 32, 3), dtype=np.uint8),
            rng.integers(10, size=num, dtype=np.int32),
        )
        source = "random noise"
    elif (data_dir / PACKED_NAME).is_file():
        with np.load(data_dir / PACKED_NAME, allow_pickle=False) as arrays:
            images = data.Split(arrays["images"], arrays["labels"].astype(np.int32))
            source = f"the first {images.num_images} images of {arrays['source']}"
    else:
        return data.load("cifar10", data_dir, download=False)
    names = tuple(map(str, range(10)))
    mean, std = cifar.CIFAR10.mean, cifar.CIFAR10.std
    return data.ImageDataset("cifar10", images, images, names, mean, std, source)


def make_search(size: Size, data_dir: pathlib.Path | None) -> Search:
    """The search of the preset asng-cifar10."""
    import dataclasses

    import cifar_search
    import images
    import jax
    import optimizers
    import spaces
    from presets.cifar_search import PRESETS

    from jaxnas import train

    channels, num_cells, batch_size = size.search
    config = PRESETS["asng-cifar10"].config
    config = dataclasses.replace(
        config,
        space=spaces.Micro(channels, num_cells),
        training=dataclasses.replace(config.training, batch_size=batch_size),
    )
    dataset = load_images(data_dir, size)
    num_validation = dataset.train.num_images // 2
    study_images = images.study_images(
        config.images,
        dataset,
        num_validation=num_validation,
        batch_size=batch_size,
        devices=jax.local_devices()[:1],
    )
    splits = study_images.splits
    settings = cifar_search.search_settings(config)
    net = config.space.supernet(dataset)
    search_schedule = train.search_schedule(splits, batch_size, config.searcher_steps)
    init, *updates = train.search_steps(
        net,
        cifar_search.provider_maker(config)(net),
        cifar_search.make_searcher(config, net.space),
        train.classification(),
        optimizers.make_optimizer(config.training, search_schedule.weight_steps),
        search_schedule,
        study_images.pipeline,
        settings,
    )
    splits = jax.device_put(splits)
    return Search(
        train.scan_steps(*updates),
        jax.jit(init)(jax.random.key(config.run.seed), splits),
        splits,
        search_schedule.steps_per_epoch,
        batch_size * (settings.num_weight_archs + settings.num_search_archs),
        dataset.source,
    )


class Program(NamedTuple):
    """What is compiled: a function, its arguments, and options of XLA."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    donated: tuple[int, ...] = ()

    def compile(self, options: dict[str, Any] | None = None) -> Any:
        """Trace, lower and compile."""
        import jax

        lowered = jax.jit(self.function, donate_argnums=self.donated).lower(*self.args)
        return lowered.compile(compiler_options=options)


def case_program(case: Case) -> Program:
    """The program of a case."""
    return Program(case.advance, (case.state, case.groups[0], case.batch))


def search_program(search: Search) -> Program:
    """The program of a search."""
    import numpy as np

    args = search.state, search.splits, np.int32(1)
    return Program(search.advance, args, donated=(0,))


def compile_by_name(
    name: str, size: Size, data_dir: pathlib.Path | None, options: dict | None = None
) -> float:
    """Compile a program into the persistent cache; the seconds that it takes."""

    def compile_program() -> Any:
        if name == "search":
            program = search_program(make_search(size, data_dir))
        else:
            program = case_program(CASES[name](size))
        return program.compile(options)

    return seconds(compile_program)[0]


def check_compile(task: Task) -> dict[str, Any]:
    """Compile all programs side by side into the persistent cache.

    Each has a process, since tracing takes about as long as compiling does.
    """
    result: dict[str, Any] = {"seconds": {}}
    names = "micro", "search", *[name for name in CASES if name != "micro"]
    with make_pool(num_workers()) as pool:
        pending = {
            pool.submit(compile_by_name, name, task.size, task.data_dir): name
            for name in names
        }
        for future in concurrent.futures.as_completed(pending):
            result["seconds"][pending[future]] = number(future.result())
            task.save(result)
    slowest = max(result["seconds"].values())
    result["summary"] = f"{len(pending)} programs, the slowest in {slowest:.0f} s"
    return result


# Steps a second -------------------------------------------------------------------


def check_speed(name: str, task: Task) -> dict[str, Any]:
    """Time the training step of a case beside PyTorch."""
    case = CASES[name](task.size)
    took, compiled = seconds(case_program(case).compile)
    result: dict[str, Any] = {"compile_or_load_seconds": number(took)}
    task.save(result)
    sides = {"jaxnas": jax_side(case, compiled)}
    time_in_turns(sides, case, task, 1, result)
    if importlib.util.find_spec("torch") is None:
        result["PyTorch"] = "not installed"
        result["summary"] += ", PyTorch is not installed"
        task.save(result)
        return result
    result["PyTorch"] = torch_settings()
    for name, variant in case.variants.items():
        if len(sides) > 1:  # something to keep if the next variant takes too long
            time_in_turns(sides, case, task, 1, result)
        sides |= torch_sides(case, {name: variant}, result)
    time_in_turns(sides, case, task, task.size.max_rounds, result)
    return result


def check_graph(task: Task) -> dict[str, Any]:
    """Time the step of the micro supernet as one CUDA graph beside XLA's default.

    XLA refuses or ignores these options in some versions.
    """
    case = CASES["micro"](task.size)
    program, result = case_program(case), {}
    sides, params = {}, []
    for name, options in (("jaxnas", None), ("one CUDA graph", ONE_GRAPH)):
        took, compiled = seconds(functools.partial(program.compile, options))
        result[f"compile_seconds, {name}"] = number(took)
        task.save(result)
        sides[name] = jax_side(case, compiled)
        params.append(compiled(case.state, case.groups[0], case.batch).params)
    result["relative_difference_of_weights"] = number(relative_distance(*params))
    time_in_turns(sides, case, task, task.size.max_rounds, result)
    return result


def compile_kernels(size: Size, archs_at_once: int) -> float:
    """Compile the micro step with kernels into the persistent cache; its seconds."""
    with use_kernels(True):
        return seconds(case_program(micro_case(size, archs_at_once)).compile)[0]


def check_kernels(task: Task) -> dict[str, Any]:
    """Time the step of the micro supernet with kernels for layers of many edges.

    Several architectures run at the same time; all times are per architecture, beside
    the step without kernels. The difference of the weights is that after the first
    call, of one architecture at a time.
    """
    sizes = task.size.archs_at_once
    result: dict[str, Any] = {"compile_seconds": {}}
    with make_pool(min(num_workers(), len(sizes))) as pool:
        pending = {
            pool.submit(compile_kernels, task.size, num): num for num in sizes[::-1]
        }
        for future in concurrent.futures.as_completed(pending):
            result["compile_seconds"][str(pending[future])] = number(future.result())
            task.save(result)
    with use_kernels(False):
        case = micro_case(task.size)
        compiled = case_program(case).compile()
    sides = {"jaxnas": jax_side(case, compiled)}
    expected = compiled(case.state, case.groups[0], case.batch).params
    for num in sizes:
        with use_kernels(True):
            case = micro_case(task.size, num)
            compiled = case_program(case).compile()
        sides[f"kernels, {num} at once"] = jax_side(case, compiled)
        if num == 1:
            params = compiled(case.state, case.groups[0], case.batch).params
            distance = relative_distance(expected, params)
            result["relative_difference_of_weights"] = number(distance)
        time_in_turns(sides, case, task, 1, result)
    time_in_turns(sides, case, task, task.size.max_rounds, result)
    return result


def check_profile(task: Task) -> dict[str, Any]:
    """Count and time the kernels of each training step."""
    result: dict[str, Any] = {"steps": {}}
    for name, make in CASES.items():
        case = make(task.size)
        run = jax_side(case, case_program(case).compile())
        durations = kernel_durations(lambda run=run: run(0))
        result["steps"][name] = describe_kernels(durations, case.groups.shape[1])
        result["summary"] = "; ".join(
            f"{name} {step['kernels']:.0f} kernels, {step['busy_milliseconds']:.2f} ms"
            for name, step in result["steps"].items()
        )
        task.save(result)
    return result


def kernel_durations(run: Callable[[], Any]) -> list[tuple[str, float]]:
    """Names and microseconds of all kernels and copies that a run launches.

    XLA launches them one by one while it is profiled, also those of CUDA graphs.
    """
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run()
        path = next(pathlib.Path(folder).rglob("*.xplane.pb"))
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    return [
        (event.name, event.duration_ns / 1e3)
        for plane in planes
        for line in plane.lines
        for event in line.events
        if (
            line.name.startswith("Stream")
            if plane.name.startswith("/device:GPU")
            else not has_gpu() and any(key == "hlo_op" for key, _ in event.stats)
        )
    ]


def describe_kernels(
    durations: Sequence[tuple[str, float]], num_steps: int
) -> dict[str, Any]:
    """How many kernels a step has, how long they take, and which take longest."""
    by_kind: dict[str, list[float]] = {}
    for name, microseconds in durations:
        by_kind.setdefault(re.sub(r"([._]\d+)+$", "", name), []).append(microseconds)
    largest = sorted(by_kind.items(), key=lambda item: -sum(item[1]))[:40]
    edges = 0, 2, 5, 10, 20, 50, math.inf
    return {
        "kernels": number(len(durations) / num_steps),
        "busy_milliseconds": number(sum(us for _, us in durations) / num_steps / 1e3),
        "kernels_by_microseconds": {
            f"{low} to {high}": number(
                sum(low <= us < high for _, us in durations) / num_steps
            )
            for low, high in itertools.pairwise(edges)
        },
        "largest": {
            name: {
                "kernels": number(len(times) / num_steps),
                "microseconds": number(sum(times) / num_steps),
            }
            for name, times in largest
        },
    }


def jax_side(case: Case, compiled: Any) -> Callable[[int], Any]:
    """A run over the group of a number, which waits for its end.

    Raises:
      CheckFailed: if a weight is no longer finite.
    """
    import jax
    import jax.numpy as jnp

    @jax.jit
    def is_finite(state):
        leaves = [
            x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()

    groups = list(case.groups)
    if not is_finite(compiled(case.state, groups[0], case.batch)):
        raise CheckFailed("weights are not finite after the first steps")
    return lambda i: jax.block_until_ready(compiled(case.state, groups[i], case.batch))


def torch_settings() -> dict[str, Any]:
    """Let PyTorch use the precision and the search for kernels that XLA uses."""
    import torch

    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(1)  # of the CPU, where tiny work is all there is
    # With few channels in channels_last, oneDNN writes past its arrays on some CPUs.
    torch.backends.mkldnn.enabled = has_gpu()
    if has_gpu() and not torch.cuda.is_available():
        raise CheckFailed("JAX has a GPU, but PyTorch finds none")
    return {
        "version": torch.__version__,
        "device": torch_device(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn": torch.backends.cudnn.version(),
    }


def torch_device() -> str:
    """The device of PyTorch that is JAX's."""
    return "cuda" if has_gpu() else "cpu"


def torch_sides(
    case: Case, variants: dict[str, bool], result: dict[str, Any]
) -> dict[str, Callable[[int], Any]]:
    """Runs of the variants that work, over the group of a number.

    Args:
      case: what they run.
      variants: some of the case.
      result: gets the seconds of the first run of each, which compiles, or why it is
        left out.
    """
    from torch._dynamo.exc import ShortenTraceback  # where no compiler works

    sides = {}
    for name, variant in variants.items():
        side = torch_side(case, variant)
        try:
            took = seconds(functools.partial(side, 0))[0]
        except ShortenTraceback as error:
            result[name] = f"left out: {' '.join(str(error).split())[:200]}"
            continue
        result[f"first_call_seconds, {name}"] = number(took)
        sides[name] = side
    return sides


def torch_side(case: Case, variant: bool) -> Callable[[int], Any]:
    """A run over the group of a number, which waits for its end."""
    import jax
    import numpy as np
    import torch

    device = torch_device()
    model = case.make_model(variant).to(device)
    optimizer = case.make_optimizer(model)

    def place(leaf):
        array = np.asarray(leaf)
        if array.ndim == 4:
            array = array.transpose(0, 3, 1, 2)
        if np.issubdtype(array.dtype, np.integer):
            array = array.astype(np.int64)
        return torch.tensor(array.copy(), device=device)

    images, labels = jax.tree.map(place, (case.batch["image"], case.batch["label"]))
    groups = [
        [case.decode(arch) for arch in group] for group in np.asarray(case.groups)
    ]

    def run(i: int) -> None:
        for arch in groups[i]:
            case.update(model, optimizer, images, labels, arch)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def time_in_turns(
    sides: dict[str, Callable[[int], Any]],
    case: Case,
    task: Task,
    max_rounds: int,
    result: dict[str, Any],
) -> None:
    """Time all sides in turn on every group, while there is time; save each round.

    Args:
      sides: runs over the group of a number, by name; ratios are to `jaxnas`.
      case: what they run.
      task: the time that is left.
      max_rounds: rounds, of which one is done in any case.
      result: gets `sides`, `memory` and `summary`.
    """
    import numpy as np

    num_groups, group_size = case.groups.shape[:2]
    for run in sides.values():  # memory, caches, choice of kernels
        for group in range(num_groups):
            run(group)
    times: dict[str, list[float]] = {name: [] for name in sides}

    def describe_side(name: str) -> dict[str, float]:
        rate = 1 / float(np.median(times[name]))
        found = {
            "milliseconds": number(1000 / rate),
            "steps_per_second": number(rate),
            f"{case.unit}_per_second": number(rate * case.batch["label"].size),
            "num_calls": len(times[name]),
        }
        if name != "jaxnas":
            ratios = np.array(times[name]) / np.array(times["jaxnas"])
            low, middle, high = np.percentile(ratios, [5, 50, 95])
            found |= {
                "ratio_median": number(middle),
                "ratio_5_percent": number(low),
                "ratio_95_percent": number(high),
            }
        return found

    told = ("steps",) if case.unit == "images" else ("steps", case.unit)
    one_round = 0.0
    for i in range(max_rounds):
        if i > 0 and task.seconds_left() < 2 * one_round + 5:
            break
        start = time.monotonic()
        for group in range(num_groups):
            for name, run in sides.items():
                took = seconds(functools.partial(run, group))[0]
                times[name].append(took / group_size)
        one_round = time.monotonic() - start
        result["steps_in_a_call"] = group_size
        result["sides"] = {name: describe_side(name) for name in sides}
        result["memory"] = peak_memory()
        ours = result["sides"]["jaxnas"]
        result["summary"] = ", ".join(
            [f"{ours[f'{name}_per_second']:.4g} {name} a second" for name in told]
            + [
                f"{name} / jaxnas {side['ratio_median']:.2f}"
                for name, side in result["sides"].items()
                if name != "jaxnas"
            ]
        )
        task.save(result)


def peak_memory() -> dict[str, int]:
    """The most bytes that each side has held on the GPU so far; none on a CPU."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    memory = {"jaxnas": stats["peak_bytes_in_use"]} if has_gpu() else {}
    if has_gpu() and "torch" in sys.modules:
        memory["PyTorch"] = sys.modules["torch"].cuda.max_memory_allocated()
    return memory


# Search ---------------------------------------------------------------------------


def check_search(task: Task) -> dict[str, Any]:
    """Search until the time is up; the first steps are not timed.

    Raises:
      CheckFailed: if a loss is not finite.
    """
    import numpy as np

    search = make_search(task.size, task.data_dir)
    took, advance = seconds(search_program(search).compile)
    result: dict[str, Any] = {
        "data": search.source,
        "num_images": [split.labels.shape[0] for split in search.splits],
        "compile_or_load_seconds": number(took),
        "steps_per_epoch": search.steps_per_epoch,
        "losses": [],
    }
    task.save(result)
    state, step, start, first_step, one_chunk = search.state, 0, 0.0, 0, 0.0
    before: dict[str, float] = {}
    while step < task.size.max_steps and (
        step == 0 or task.seconds_left() > 2 * one_chunk + 5
    ):
        position = step % search.steps_per_epoch
        # The first ones are few, so that there is something to save early.
        wanted = task.size.chunk if step else max(1, task.size.chunk // 5)
        num = min(wanted, search.steps_per_epoch - position)
        chunk_start = time.monotonic()
        state = advance(state, search.splits, np.int32(num))
        means = {name: float(mean) for name, mean in state.epoch_metrics.items()}
        now = time.monotonic()
        one_chunk, step = now - chunk_start, step + num
        if start == 0.0:
            start, first_step = now, step
        # Means of an epoch so far, from which those of this chunk follow.
        sums = {name: mean * (position + num) for name, mean in means.items()}
        old = {name: before.get(name, 0.0) if position else 0.0 for name in sums}
        row = {name: number((sums[name] - old[name]) / num) for name in sums}
        before = sums
        result["losses"].append({"step": step} | row)
        if not all(map(math.isfinite, means.values())):
            task.save(result)
            raise CheckFailed(f"losses are not finite by step {step}: {means}")
        if step > first_step:
            rate = (step - first_step) / (now - start)
            result |= search_rates(rate, search.images_per_step)
        told = {name: number(float(x)) for name, x in state.searcher_metrics.items()}
        result["searcher"] = told
        task.save(result)
    first, last = result["losses"][0], result["losses"][-1]
    result["summary"] = (
        f"{step} steps on {search.source}, training loss {first['train/loss']:.2f} to "
        f"{last['train/loss']:.2f}"
    )
    if "steps_per_second" in result:
        result["summary"] += (
            f", {result['steps_per_second']:.1f} steps and "
            f"{result['images_per_second']:.0f} images a second, "
            f"{result['projected_hours']:.1f} hours for 100 epochs"
        )
    return result


def search_rates(steps_per_second: float, images_per_step: int) -> dict[str, float]:
    """Speed, and what it makes of the whole published search.

    Half of 50,000 images in batches of 64, for 100 epochs, are 39,000 steps.
    """
    return {
        "steps_per_second": number(steps_per_second),
        "images_per_second": number(steps_per_second * images_per_step),
        "projected_hours": number(39_000 / steps_per_second / 3600),
    }


# Small things ---------------------------------------------------------------------


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Time a function, and wait for what it returns."""
    import jax

    start = time.perf_counter()
    result = run()
    if not isinstance(result, jax.stages.Compiled):
        jax.block_until_ready(result)
    return time.perf_counter() - start, result


def number(value: Any) -> float:
    """Four digits, for a file that people read."""
    return float(f"{float(value):.4g}")


def num_workers() -> int:
    """Programs that are made at a time."""
    return max(1, min(6, (os.cpu_count() or 1) // 2))


def has_gpu() -> bool:
    """Whether JAX runs on a GPU."""
    import jax

    return jax.devices()[0].platform == "gpu"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Replace a file as a whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    temporary.replace(path)


# Parts as processes ---------------------------------------------------------------


class Part(NamedTuple):
    """A part of the check, and its share of the time in seconds."""

    run: Callable[[Task], dict[str, Any]]
    share: float


PARTS = {
    "device": Part(check_device, 20),
    "numerics": Part(check_numerics, 200),
    "compile": Part(check_compile, 130),
    "micro": Part(functools.partial(check_speed, "micro"), 90),
    "kernels": Part(check_kernels, 150),
    "macro": Part(functools.partial(check_speed, "macro"), 80),
    "dag": Part(functools.partial(check_speed, "dag"), 90),
    "autoencoder": Part(functools.partial(check_speed, "autoencoder"), 90),
    "retraining": Part(functools.partial(check_speed, "retraining"), 90),
    "recurrent": Part(functools.partial(check_speed, "recurrent"), 60),
    "recurrent_network": Part(functools.partial(check_speed, "recurrent_network"), 90),
    "search": Part(check_search, 80),
    "hypernetwork": Part(functools.partial(check_speed, "hypernetwork"), 90),
    "profile": Part(check_profile, 120),
    "graph": Part(check_graph, 100),
}
DEFAULT_PARTS = tuple(
    name for name in PARTS if name not in ("hypernetwork", "profile", "graph")
)


def run_part(name: str, task: Task) -> int:
    """Run a part in this process; what it found, and its error, are saved.

    Args:
      name: of the part.
      task: its `save` takes `{"result": ..., "error": ...}` here.

    Returns:
      The exit status: 1 if the part raised.
    """
    latest: dict[str, Any] = {}

    def save(result: dict[str, Any]) -> None:
        latest.update(result)
        task.save({"result": result})

    try:
        result = PARTS[name].run(task._replace(save=save))
    except Exception:
        lines = traceback.format_exc().splitlines()
        print(*lines, sep="\n", file=sys.stderr)
        task.save({"result": latest, "error": lines[-8:]})
        return 1
    task.save({"result": result})
    return 0


def run_process(
    command: Sequence[str],
    limit: float,
    folder: pathlib.Path,
    env: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Run a part in a process that is killed at its limit.

    Args:
      command: what to run; `--report FILE` is added, where it writes what it finds.
      limit: seconds.
      folder: for files while it runs.
      env: the environment; that of this process if `None`.

    Returns:
      `status` (`ok`, `failed` or `out of time`), `seconds`, `limit_seconds`, `result`
      and, unless all is well, the last lines of the `error`.
    """
    report, log = folder / "report.json", folder / "log.txt"
    report.unlink(missing_ok=True)
    start = time.monotonic()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, "--report", str(report)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,  # a group of its own, to be killed together
        ) as process,
    ):
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    found: dict[str, Any] = {
        "status": {0: "ok", None: "out of time"}.get(code, "failed"),
        "seconds": number(time.monotonic() - start),
        "limit_seconds": number(limit),
    }
    if report.exists():
        found |= json.loads(report.read_text("utf-8"))
    if code is None:
        found["error"] = [f"stopped after {limit:.0f} s"]
    elif code != 0 and "error" not in found:  # a crash, say
        found["error"] = log.read_text("utf-8", "replace").splitlines()[-8:]
        found["error"].append(f"exit status {code}")
    return found


def environment(size: str, cache: pathlib.Path) -> dict[str, str]:
    """The environment of the parts; what is set already stays."""
    defaults = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch needs memory too
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if size == "tiny":
        defaults["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    return defaults | os.environ


def run_all(
    names: Sequence[str],
    make_command: Callable[[str, float], Sequence[str]],
    output: pathlib.Path,
    budget: float,
    about: dict[str, Any],
    env: dict[str, str] | None = None,
) -> int:
    """Run parts one after the other, and write the file after each.

    Args:
      names: of the parts, in their order.
      make_command: `(name, seconds) -> command` of a process.
      output: the file.
      budget: seconds for all of them; what one leaves goes to the others.
      about: what else is written.
      env: the environment of the processes.

    Returns:
      The exit status.
    """
    end = time.monotonic() + budget
    parts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(names):
            left = sum(PARTS[later].share for later in names[i:])
            limit = max(0.0, end - time.monotonic()) * PARTS[name].share / left
            command = make_command(name, limit)
            parts[name] = run_process(command, limit, pathlib.Path(folder), env)
            write_json(output, about | {"parts": parts})
            print(describe(name, parts[name]), flush=True)
            result = parts[name].get("result", {})
            if (
                name == "device"
                and about["size"] == "full"
                and (result.get("platform", "gpu") != "gpu")
            ):
                break
    return int(any(part["status"] != "ok" for part in parts.values()))


def describe(name: str, part: dict[str, Any]) -> str:
    """One line on a part."""
    said = part.get("result", {}).get("summary")
    if part["status"] != "ok":
        error = (part.get("error") or ["no message"])[-1]
        said = f"{error}; {said}" if said else error
    return f"{name}: {part['status']} in {part['seconds']:.0f} s: {said}"


def pack(data_dir: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Write the first training images of CIFAR-10 to a file that is easy to send."""
    import numpy as np

    from jaxnas import data

    dataset = data.load("cifar10", data_dir, download=False)
    images, labels = (array[:NUM_PACKED] for array in dataset.train)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PACKED_NAME
    np.savez_compressed(path, images=images, labels=labels, source=dataset.source)
    return path


def default_output() -> pathlib.Path:
    """A file named after the card and the day."""
    card = (nvidia_smi() or {}).get("name", "cpu")
    words = "-".join(re.findall("[a-z0-9]+", card.lower()))
    day = datetime.datetime.now(datetime.UTC).date()
    return ROOT / "benchmarks" / "results" / f"gpu_check-{words}-{day}.json"


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument(
        "--parts",
        help="which, in which order, with commas between them",
        default=",".join(DEFAULT_PARTS),
    )
    parser.add_argument(
        "--budget-seconds", type=float, default=780, help="for all parts together"
    )
    parser.add_argument(
        "--data-dir", type=pathlib.Path, help="where CIFAR-10 is (default: noise)"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, help="default: benchmarks/results/gpu_check-..."
    )
    parser.add_argument(
        "--pack", type=pathlib.Path, help="only pack images into this folder"
    )
    parser.add_argument("--report", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    options.parts = options.parts.split(",")
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"--parts has {unknown[0]!r}; expected some of {', '.join(PARTS)}")
    if options.pack is not None and options.data_dir is None:
        parser.error("--pack needs --data-dir, where CIFAR-10 is")
    if options.data_dir is not None and not options.data_dir.is_dir():
        parser.error(f"--data-dir is {options.data_dir}; expected a folder")
    return options


def main(args: Sequence[str] | None = None) -> int:
    """Run the check, or one part if it is told where to report."""
    options = parse(args)
    if options.pack is not None:
        print(f"wrote {pack(options.data_dir, options.pack)}")
        return 0
    deadline = time.monotonic() + options.budget_seconds
    if options.report is not None:
        save = functools.partial(write_json, options.report)
        task = Task(SIZES[options.size], deadline, save, options.data_dir)
        return run_part(options.parts[0], task)
    output = options.output or default_output()
    output.parent.mkdir(parents=True, exist_ok=True)

    def make_command(name: str, limit: float) -> list[str]:
        command = [sys.executable, str(pathlib.Path(__file__).resolve())]
        command += ["--parts", name, "--size", options.size]
        command += ["--budget-seconds", str(limit)]
        if options.data_dir is not None:
            command += ["--data-dir", str(options.data_dir)]
        return command

    about = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "size": options.size,
        "budget_seconds": options.budget_seconds,
    }
    with tempfile.TemporaryDirectory() as cache:
        status = run_all(
            options.parts,
            make_command,
            output,
            options.budget_seconds,
            about,
            environment(options.size, pathlib.Path(cache)),
        )
    print(f"wrote {output}")
    return status


if __name__ == "__main__":
    sys.exit(main())
