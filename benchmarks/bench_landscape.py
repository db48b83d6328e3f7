"""Loss surfaces and the variance of gradients beside loops in JAX and in PyTorch.

    python -m pytest benchmarks/bench_landscape.py

All sides do the same work, which tests show: the network of DARTS with running
statistics, a row of points on a plane through its weights, or the gradients of single
images. Loops go over points and batches, or over images, and run one compiled or eager
function for each. They are timed in turns; ratios are side / jaxnas (above 1: jaxnas is
faster). First calls, which compile, are left out and shown beside; both loops over
points in JAX evaluate by the same program, which the first call of the plain one
compiles. PyTorch runs in both memory formats, with one thread and with all.
"""

import functools
import operator
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax import lax

from jaxnas import analysis, genotypes, networks, optim, train
from jaxnas.genotypes import Genotype
from jaxnas.train import from_scratch

torch = pytest.importorskip("torch")
torch_cells = pytest.importorskip("torch_cells")

ROUNDS = 10
NUM_CLASSES = 10
ALPHAS = np.linspace(-0.5, 0.5, 8).tolist()
BETA = 0.25
CHUNK_SIZE = 16
GENOTYPE = genotypes.named("DARTS_V2")
TOLD_SIZE = "medium"
VARIANT_SEEDS = (None, 1, 2)  # None: the genotype itself

NUM_THREADS = os.cpu_count() or 1

KEY = jax.random.key(0)

Sides = dict[str, Callable[[], Any]]


class Size(NamedTuple):
    """How large the work is; the batch size divides the images of a landscape."""

    image_shape: tuple[int, int, int]
    channels: int
    num_cells: int
    batch_size: int
    num_images: int
    num_gradients: int


SIZES = {
    "small": Size((8, 8, 1), 4, 5, 50, 200, 50),
    "medium": Size((32, 32, 3), 8, 8, 64, 128, 64),
}


class Case(NamedTuple):
    """A network with weights and running statistics, and labeled images."""

    size: Size
    network: nn.Module
    plane: analysis.Plane
    batch_stats: Any
    examples: dict[str, jax.Array]


def make_network(size: Size, genotype: Genotype = GENOTYPE) -> nn.Module:
    return networks.micro(genotype, size.channels, size.num_cells, NUM_CLASSES)


def make_examples(size: Size) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((size.num_images, *size.image_shape))
    labels = rng.integers(0, NUM_CLASSES, size.num_images)
    return {
        "image": jnp.asarray(images, float),
        "label": jnp.asarray(labels, jnp.int32),
    }


def make_variables(network: nn.Module, images: jax.Array) -> tuple[Any, Any]:
    """Random parameters, and the running statistics that these images give."""
    initial = jax.jit(lambda x: network.init(KEY, x, train=True))(images[:1])
    # Scales and offsets start at one and zero, which would hide a mistake.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.1 * rng.standard_normal(leaf.shape), float),
        initial["params"],
    )

    def update(_, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        return network.apply(variables, images, train=True, mutable=["batch_stats"])[1][
            "batch_stats"
        ]

    settle = jax.jit(lambda batch_stats: lax.fori_loop(0, 30, update, batch_stats))
    # They start in single precision.
    batch_stats = jax.tree.map(lambda leaf: leaf.astype(float), initial["batch_stats"])
    return params, settle(batch_stats)


@functools.cache
def make_case(name: str) -> Case:
    torch.set_num_threads(NUM_THREADS)
    size = SIZES[name]
    network, examples = make_network(size), make_examples(size)
    params, batch_stats = make_variables(network, examples["image"][: size.batch_size])
    draw_plane = jax.jit(
        lambda params: analysis.random_plane(
            KEY, params, networks.num_batch_dims(params)
        )
    )
    return Case(size, network, draw_plane(params), batch_stats, examples)


def make_loss(network: nn.Module) -> Callable[[Any, Any, Any], jax.Array]:
    """`(params, batch_stats, batch) -> loss`, by running statistics."""
    evaluate = train.network_evaluation_step(network, train.classification())
    return lambda *args: evaluate(*args)["loss"]


def split_examples(examples: dict[str, jax.Array], num: int, size: int):
    """Batches of the first `num` examples."""
    return [
        {name: array[start : start + size] for name, array in examples.items()}
        for start in range(0, num, size)
    ]


def torch_examples(examples: dict[str, jax.Array], num: int) -> tuple[Any, Any]:
    images, labels = (np.asarray(examples[name][:num]) for name in ("image", "label"))
    images = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    return images, torch.tensor(labels.astype(np.int64))


def make_model(size: Size, params: Any, batch_stats: Any, channels_last: bool) -> Any:
    """The network in PyTorch with these weights, in evaluation mode."""
    model = torch_cells.CellNetwork(
        GENOTYPE,
        size.channels,
        size.num_cells,
        NUM_CLASSES,
        size.image_shape[-1],
        channels_last,
    )
    model.load_state_dict(state_dict(params, batch_stats, GENOTYPE, size.num_cells))
    return model.eval()


def torch_sides(make_run: Callable[[bool], Callable[[], Any]]) -> Sides:
    """A run for each memory format and number of threads of PyTorch.

    Operations on few pixels are too small to share out, and more threads may cost more
    than they gain.

    Args:
      make_run: `channels_last -> run`.
    """

    def with_threads(run, num_threads):
        def run_with_threads():
            torch.set_num_threads(num_threads)
            result = run()
            torch.set_num_threads(NUM_THREADS)
            return result

        return run_with_threads

    return {
        f"plain loop in PyTorch, {name}, {n} thread{'s' * (n > 1)}": with_threads(
            run, n
        )
        for name, run in (("NCHW", make_run(False)), ("channels_last", make_run(True)))
        for n in sorted({1, NUM_THREADS})
    }


def landscape_sides(case: Case) -> Sides:
    """Runs that return the losses of one row of points."""
    size, plane, batch_stats = case.size, case.plane, case.batch_stats
    loss = make_loss(case.network)
    measure_surface = analysis.make_surface_fn(
        analysis.mean_metrics(lambda *args: {"loss": loss(*args)}, size.batch_size)
    )

    def ours():
        surface = measure_surface(plane, batch_stats, case.examples, ALPHAS, [BETA])
        return surface.values["loss"][0]

    evaluate = jax.jit(loss)
    batches = split_examples(case.examples, size.num_images, size.batch_size)

    def mean_loss(params):
        total = 0.0
        for batch in batches:
            total += float(evaluate(params, batch_stats, batch))
        return total / len(batches)

    def plain():
        return [
            mean_loss(
                jax.tree.map(
                    lambda w, x, y, alpha=alpha: w + alpha * x + BETA * y, *plane
                )
            )
            for alpha in ALPHAS
        ]

    @jax.jit
    def point(plane, alpha, beta):
        return plane.point(alpha, beta)

    def compiled():
        beta = np.float32(BETA)
        return [mean_loss(point(plane, np.float32(alpha), beta)) for alpha in ALPHAS]

    images, labels = torch_examples(case.examples, size.num_images)
    torch_batches = [
        *zip(images.split(size.batch_size), labels.split(size.batch_size), strict=True)
    ]

    def theirs(channels_last):
        # All three are models, so that directions have the memory format, too.
        center, *directions = (
            make_model(size, params, batch_stats, channels_last) for params in plane
        )
        weights = [parameter.detach().clone() for parameter in center.parameters()]
        torch_plane = (weights, *(list(model.parameters()) for model in directions))
        return lambda: torch_cells.measure_row(
            center, torch_plane, torch_batches, ALPHAS, BETA
        )

    return {
        "jaxnas": ours,
        "plain loop in JAX": plain,
        "compiled loop in JAX": compiled,
        **torch_sides(theirs),
    }


def gradient_sides(case: Case) -> Sides:
    """Runs that return the variance of the gradient at the center of the plane."""
    params, batch_stats = case.plane.center, case.batch_stats
    loss, num = make_loss(case.network), case.size.num_gradients
    examples = {name: array[:num] for name, array in case.examples.items()}
    measure = jax.jit(analysis.gradient_variance(loss, chunk_size=CHUNK_SIZE))

    def ours():
        return float(measure(params, batch_stats, examples)["gradient_variance"])

    gradient, singles = jax.jit(jax.grad(loss)), split_examples(examples, num, 1)

    def squared_norm(tree):
        squares = jax.tree.map(lambda x: jnp.square(x).sum(), tree)
        return functools.reduce(jnp.add, jax.tree.leaves(squares))

    def start():
        return jax.tree.map(jnp.zeros_like, params), jnp.zeros(())

    def variance(total, squares):
        return (float(squares) - float(squared_norm(total)) / num) / num

    def plain():
        total, squares = start()
        for batch in singles:
            found = gradient(params, batch_stats, batch)
            total = jax.tree.map(jnp.add, total, found)
            squares += squared_norm(found)
        return variance(total, squares)

    @functools.partial(jax.jit, donate_argnums=0)
    def add_one(sums, params, batch_stats, batch):
        total, squares = sums
        found = jax.grad(loss)(params, batch_stats, batch)
        return jax.tree.map(jnp.add, total, found), squares + squared_norm(found)

    def compiled():
        sums = start()
        for batch in singles:
            sums = add_one(sums, params, batch_stats, batch)
        return variance(*sums)

    images, labels = torch_examples(examples, num)

    def theirs(channels_last):
        model = make_model(case.size, params, batch_stats, channels_last)
        return lambda: torch_cells.gradient_variance(model, images, labels)

    return {
        "jaxnas": ours,
        "plain loop in JAX": plain,
        "compiled loop in JAX": compiled,
        **torch_sides(theirs),
    }


def seconds_and_result(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    return time.perf_counter() - start, result


def compare(benchmark: Any, sides: Sides, num: int, what: str) -> None:
    """Time all sides in turn; record rates, and ratios to the first side.

    Args:
      benchmark: the fixture of pytest-benchmark.
      sides: by name, runs that return equal numbers.
      num: how many of `what` a run works on.
      what: points, say.
    """
    baseline = next(iter(sides))
    # Compilation, memory, caches.
    first = {name: seconds_and_result(run) for name, run in sides.items()}
    for name, (_, result) in first.items():
        np.testing.assert_allclose(result, first[baseline][1], rtol=1e-3, err_msg=name)
    times: dict[str, list[float]] = {name: [] for name in sides}

    def one_round():
        for name, run in sides.items():
            times[name].append(seconds_and_result(run)[0])

    benchmark.pedantic(one_round, rounds=ROUNDS, iterations=1)
    for name in sides:
        ratios = np.array(times[name]) / np.array(times[baseline])
        low, median, high = np.percentile(ratios, [5, 50, 95])
        benchmark.extra_info[name] = (
            f"median {num / np.median(times[name]):.1f} {what} a second, {name} / "
            f"{baseline} {median:.2f} (5 % to 95 %: {low:.2f} to {high:.2f}; "
            f"{len(ratios)} pairs), first call {first[name][0]:.1f} s"
        )


class Training(NamedTuple):
    """A training step, `(state, batch, options) -> (state, loss)`, and arguments."""

    step: Any
    init: Callable[[], from_scratch.TrainState]
    batch: dict[str, jax.Array]
    options: dict[str, Any]


def make_training(size: Size, genotype: Genotype, told: bool) -> Training:
    network, optimizer = make_network(size, genotype), optim.sgd(0.025)
    batch = {name: a[: size.batch_size] for name, a in make_examples(size).items()}
    options: dict[str, Any] = {}
    if told:
        options["sources"] = networks.edge_sources(genotype)
    step = from_scratch.train_step(network, train.classification(), optimizer)

    def init():
        variables = network.init(KEY, batch["image"][:1], train=True, **options)
        params, batch_stats = variables["params"], variables["batch_stats"]
        opt_state, start = optimizer.init(params), jnp.zeros((), jnp.int32)
        return from_scratch.TrainState(start, KEY, params, batch_stats, opt_state, {})

    def step_and_loss(state, batch, options):
        state, metrics = step(state, batch, KEY, None, options)
        return state, metrics["loss"]

    return Training(jax.jit(step_and_loss), jax.jit(init), batch, options)


def find_variant(seed: int | None) -> Genotype:
    if seed is None:
        return GENOTYPE
    return genotypes.random_connections(GENOTYPE, seed)


def compilation_seconds(size: str, seed: int | None, told: bool) -> float:
    """Trace, lower and compile the training step of a variant."""
    training = make_training(SIZES[size], find_variant(seed), told)
    state = jax.eval_shape(training.init)
    start = time.perf_counter()
    training.step.lower(state, training.batch, training.options).compile()
    return time.perf_counter() - start


def compilation_seconds_in_new_process(*args: Any) -> float:
    """The same, from an empty cache."""
    code = f"import bench_landscape; print(bench_landscape.compilation_seconds{args})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


# Timings --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_landscape(benchmark, name):
    compare(benchmark, landscape_sides(make_case(name)), len(ALPHAS), "points")


@pytest.mark.parametrize("name", SIZES)
def test_gradient_variance(benchmark, name):
    case = make_case(name)
    compare(benchmark, gradient_sides(case), case.size.num_gradients, "gradients")


def test_told_sources(benchmark):
    """A training step that is told connections, beside one for each genotype."""
    size, variants = SIZES[TOLD_SIZE], [find_variant(seed) for seed in VARIANT_SEEDS]
    told, *others = (make_training(size, variant, True) for variant in variants)
    known = [make_training(size, variant, False) for variant in variants]
    told_state, known_states = told.init(), [training.init() for training in known]
    sources = [training.options for training in (told, *others)]

    def losses(results):
        # The new states are waited for as well: they are most of the work.
        return [float(loss) for _, loss in jax.block_until_ready(results)]

    def run_known():
        return losses(
            [
                training.step(state, training.batch, training.options)
                for training, state in zip(known, known_states, strict=True)
            ]
        )

    def run_told():
        return losses(
            [told.step(told_state, told.batch, options) for options in sources]
        )

    sides = {"known": run_known, "told": run_told}
    compare(benchmark, sides, len(variants), "steps")
    told_seconds = compilation_seconds_in_new_process(TOLD_SIZE, VARIANT_SEEDS[0], True)
    known_seconds = [
        compilation_seconds_in_new_process(TOLD_SIZE, seed, False)
        for seed in VARIANT_SEEDS
    ]
    benchmark.extra_info["compilation"] = (
        f"told {told_seconds:.1f} s for all genotypes, known "
        f"{np.median(known_seconds):.1f} s for each: for {len(variants)} of them "
        f"known / told {sum(known_seconds) / told_seconds:.2f}"
    )


# Equal work -----------------------------------------------------------------------


def cell_variables(variables: Any, index: int) -> Any:
    """Parameters and statistics of one cell, which may stand in a stack."""
    if f"cell_{index}" in variables:
        return variables[f"cell_{index}"]
    for name, stack in variables.items():
        if found := re.fullmatch(r"cells_(\d+)_to_(\d+)", name):
            first, last = map(int, found.groups())
            if first <= index <= last:
                return jax.tree.map(operator.itemgetter(index - first), stack)
    raise ValueError(f"there is no cell {index} among {sorted(variables)}")


def state_dict(
    params: Any, batch_stats: Any, genotype: Genotype, num_cells: int
) -> dict[str, Any]:
    """Name parameters and running statistics as `torch_cells.CellNetwork` does."""
    variables = traverse_util.unflatten_dict(
        traverse_util.flatten_dict(jax.tree.map(np.asarray, params))
        | traverse_util.flatten_dict(jax.tree.map(np.asarray, batch_stats))
    )
    named: dict[str, np.ndarray] = {}

    def add_conv(name, kernel):
        """A kernel `[h, w, C_in, C_out]`, or `[C_in, C_out]` for 1x1."""
        kernel = kernel.reshape((1,) * (4 - kernel.ndim) + kernel.shape)
        named[f"{name}.weight"] = kernel.transpose(3, 2, 0, 1)

    def add_norm(name, norm):
        named[f"{name}.weight"], named[f"{name}.bias"] = norm["scale"], norm["bias"]
        named[f"{name}.running_mean"] = norm["mean"]
        named[f"{name}.running_var"] = norm["var"]
        named[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)

    def add_conv_norm(name, module):
        if module["kernel"].ndim == 3:  # the halves of a factorized reduction
            add_conv(f"{name}.even", module["kernel"][0])
            add_conv(f"{name}.odd", module["kernel"][1])
        else:
            add_conv(f"{name}.conv", module["kernel"])
        add_norm(f"{name}.norm", module["BatchNorm_0"])

    def add_separable(name, module):
        for i, depthwise in enumerate(module["depthwise"]):
            # [h, w, C] to [C, 1, h, w].
            add_conv(f"{name}.depthwise_{i}", depthwise[:, :, None])
            add_conv(f"{name}.pointwise_{i}", module["pointwise"][i])
            add_norm(f"{name}.norm_{i}", module[f"BatchNorm_{i}"])

    add_conv_norm("stem", variables["stem"])
    for index in range(num_cells):
        cell = cell_variables(variables, index)
        for side in range(2):
            name = f"cells.{index}.preprocess.{side}"
            add_conv_norm(name, cell[f"preprocess_{side}"])
        reduction = index in (num_cells // 3, 2 * num_cells // 3)
        pairs = genotype.reduce if reduction else genotype.normal
        for edge, (op, _) in enumerate(pairs):
            module = cell.get(f"node_{edge // 2 + 2}_edge_{edge % 2}_{op}")
            if module is not None:  # some operations have no weights
                add = add_separable if "depthwise" in module else add_conv_norm
                add(f"cells.{index}.edges.{edge}", module)
    classifier = variables["classifier"]
    named["classifier.weight"] = classifier["kernel"].T
    named["classifier.bias"] = classifier["bias"]
    return {name: torch.tensor(value.copy()) for name, value in named.items()}


EVERY_OPERATION = (
    *(("sep_conv_3x3", 0), ("max_pool_3x3", 1)),
    *(("sep_conv_5x5", 1), ("skip_connect", 0)),
    *(("dil_conv_3x3", 0), ("avg_pool_3x3", 2)),
    *(("dil_conv_5x5", 1), ("skip_connect", 3)),
    *(("avg_pool_3x3", 0), ("sep_conv_7x7", 4)),
)


def test_both_networks_are_the_same():
    """Logits, in double precision; of 12 cells, some are stacked by twos."""
    genotype = Genotype(EVERY_OPERATION, (2, 4, 5, 6), EVERY_OPERATION, (3, 4, 5, 6))
    num_cells, channels = 12, 2
    size = Size((8, 8, 3), channels, num_cells, 6, 6, 6)
    with jax.enable_x64(True):
        network, images = make_network(size, genotype), make_examples(size)["image"]
        params, batch_stats = make_variables(network, images)
        variables = {"params": params, "batch_stats": batch_stats}
        expected = jax.jit(lambda *args: network.apply(*args, train=False))(
            variables, images
        )
        assert expected.dtype == jnp.float64
        assert np.std(expected, axis=0).min() > 1e-3  # images make a difference
    named = state_dict(params, batch_stats, genotype, num_cells)
    torch_images = torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy())
    for channels_last in (False, True):
        model = torch_cells.CellNetwork(
            genotype, channels, num_cells, channels_last=channels_last
        )
        model.double().load_state_dict(named)
        with torch.no_grad():
            found = model.eval()(torch_images)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        assert sum(p.numel() for p in model.parameters()) == sum(
            leaf.size for leaf in jax.tree.leaves(params)
        )


def results_on_one_thread(sides: Sides) -> dict[str, Any]:
    """What each side returns; PyTorch's results do not depend on its threads."""
    return {name: run() for name, run in sides.items() if "threads" not in name}


def test_all_sides_measure_the_same_row():
    results = results_on_one_thread(landscape_sides(make_case("small")))
    losses = results.pop("jaxnas")
    assert losses.shape == (len(ALPHAS),)
    assert np.ptp(losses) > 0.1  # points make a difference
    for name, found in results.items():
        np.testing.assert_allclose(found, losses, rtol=1e-5, err_msg=name)


def test_all_sides_measure_the_same_variance():
    results = results_on_one_thread(gradient_sides(make_case("small")))
    variance = results.pop("jaxnas")
    assert variance > 0
    for name, found in results.items():
        # PyTorch's kernels for channels_last are less exact; without oneDNN, or in
        # double precision, they agree as well as the others.
        tolerance = 1e-3 if "channels_last" in name else 1e-5
        assert found == pytest.approx(variance, rel=tolerance), name


def test_an_operation_that_pytorch_lacks():
    pairs = (("none", 0), ("none", 1))
    with pytest.raises(ValueError, match="'none'"):
        torch_cells.CellNetwork(Genotype(pairs, (2,), pairs, (2,)))
