"""The graph hypernetwork beside eager PyTorch: writing weights, gradients, training.

    python -m pytest benchmarks/bench_ghn.py

Both sides do the same work, which a test shows, at the published sizes but for the
training step and the ranking, which have 16 channels: 18 blocks, 5 phases there and
back. PyTorch loops over the nodes and edges that exist, and writes the weights that the
architecture uses; ours writes those of all operations, in one program that serves all
architectures. They are timed in turns, as in `bench_supernet.py`. Compilation is left
out and shown beside. PyTorch runs with one thread and with all.
"""

import functools
import os
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import pairs
import pytest
from jax import lax

from jaxnas import data, genotypes, ghn, optim, spaces, supernets, train
from jaxnas.spaces.dag import DagSpace
from jaxnas.types import Arch, Supernet, WeightProvider

torch = pytest.importorskip("torch")
torch_ghn = pytest.importorskip("torch_ghn")
torch_micro = pytest.importorskip("torch_micro")

NUM_BLOCKS = 18
BATCH_SIZE = 16
NUM_CANDIDATES, NUM_TIMED = 20, 4
NUM_IMAGES = 300
EVALUATION_BATCH_SIZE = 64

NUM_THREADS = os.cpu_count() or 1

KEY = jax.random.key(0)


class Case(NamedTuple):
    """A hypernetwork on both sides, and architectures."""

    net: Supernet
    provider: WeightProvider
    params: Any
    model: Any
    groups: list[Arch]


@functools.cache
def make_case(num_nodes: int, channels: int, num_groups: int) -> Case:
    torch.set_num_threads(NUM_THREADS)
    net = supernets.dag(spaces.ghn_dag(num_nodes), channels, NUM_BLOCKS)
    provider = ghn.hypernetwork(net)
    params = jax.jit(provider.init)(KEY)
    model = torch_ghn.DagNetwork(channels, NUM_BLOCKS)
    model.load_state_dict(state_dict(params))
    archs = jax.vmap(net.space.sample)(jax.random.split(KEY, num_groups * pairs.GROUP))
    groups = list(archs.reshape(num_groups, pairs.GROUP, -1))
    return Case(net, provider, params, model, groups)


def compile_now(benchmark, function, *args):
    """Compile a function, and record how long it took."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    benchmark.extra_info["compilation"] = f"{seconds:.1f} s"
    return compiled


def one_by_one(run):
    """A run over a group that waits for each architecture."""
    return lambda group: [jax.block_until_ready(run(arch)) for arch in group]


def torch_by_threads(run):
    """Runs over groups of lists, by the number of threads of PyTorch.

    Operations on single nodes are too small to share out, and more threads may cost
    more than they gain.
    """

    def with_threads(num_threads):
        def run_group(group):
            torch.set_num_threads(num_threads)
            for arch in np.asarray(group).tolist():
                run(arch)
            torch.set_num_threads(NUM_THREADS)

        return run_group

    return {
        f"PyTorch, {n} thread{'s' * (n > 1)}": with_threads(n)
        for n in sorted({1, NUM_THREADS})
    }


def torch_block(space: DagSpace, arch: Any):
    return torch_ghn.make_block(*space.decode(arch))


def make_optimizer():
    """The optimizer of the search, which clips as the step in PyTorch does."""
    return optim.adam(1e-3, clip_norm=5.0)


# Timings --------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [16, 32])
def test_writing_weights(benchmark, channels):
    case = make_case(17, channels, num_groups=2)
    write = compile_now(benchmark, case.provider.apply, case.params, case.groups[0][0])

    @torch.no_grad()
    def theirs(arch):
        case.model.hypernetwork(torch_block(case.net.space, arch))

    pairs.compare(
        benchmark,
        [np.asarray(group) for group in case.groups],
        one_by_one(lambda arch: write(case.params, arch)),
        torch_by_threads(theirs),
    )


@pytest.mark.parametrize("num_nodes", [7, 17])
def test_gradient_of_written_weights(benchmark, num_nodes):
    case = make_case(num_nodes, 32, num_groups=1)

    def gradient(params, arch, direction):
        return jax.vjp(lambda params: case.provider.apply(params, arch), params)[1](
            direction
        )

    direction = random_direction(case.net)
    args = case.params, case.groups[0][0], direction
    compiled = compile_now(benchmark, gradient, *args)

    @functools.cache
    def torch_direction(arch):
        return used_entries(direction, case.net.space, arch, case.model)

    def theirs(arch):
        case.model.zero_grad(set_to_none=False)
        written = case.model.hypernetwork(torch_block(case.net.space, arch))
        torch.autograd.backward(
            list(written.values()), list(torch_direction(tuple(arch)).values())
        )

    pairs.compare(
        benchmark,
        [np.asarray(group) for group in case.groups],
        one_by_one(lambda arch: compiled(case.params, arch, direction)),
        torch_by_threads(theirs),
    )


def test_train_step(benchmark):
    """Blocks of 7 nodes, 16 channels, batch 16 of 32x32."""
    case = make_case(7, 16, num_groups=1)
    optimizer = make_optimizer()
    step = train.weight_step(case.net, case.provider, train.classification(), optimizer)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH_SIZE, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, BATCH_SIZE).astype(np.int32)
    batch = jax.device_put({"image": images, "label": labels})

    def train_group(state, archs, batch):
        def body(state, arch):
            return step(state, arch[None], batch, KEY)[0], None

        return lax.scan(body, state, archs)[0]

    state = train.WeightState(case.params, optimizer.init(case.params))
    compiled = compile_now(benchmark, train_group, state, case.groups[0], batch)
    torch_images = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    torch_labels = torch.tensor(labels.astype(np.int64))

    def make_run(channels_last):
        model = torch_ghn.DagNetwork(16, NUM_BLOCKS, channels_last=channels_last)
        model.load_state_dict(case.model.state_dict())
        torch_optimizer = torch_ghn.make_optimizer(model)
        return lambda arch: torch_micro.train_step(
            model,
            torch_optimizer,
            torch_images,
            torch_labels,
            [case.net.space.decode(arch)],
        )

    runs = {"NCHW": make_run(False), "channels_last": make_run(True)}
    pairs.compare(
        benchmark,
        case.groups,
        lambda group: compiled(state, group, batch),
        {
            f"{name}, {memory_format}": run
            for memory_format, step in runs.items()
            for name, run in torch_by_threads(step).items()
        },
    )


def test_ranking(benchmark):
    """Candidates of 17 nodes, 16 channels, 300 images; all in one compilation."""
    case = make_case(17, 16, num_groups=2)
    num_traces = {"writing": 0, "evaluating": 0}

    def counted(name, function):
        def run(*args, **options):
            num_traces[name] += 1
            return function(*args, **options)

        return run

    def normalize(key, images):
        del key
        return data.normalize(images, (0.5,) * 3, (0.25,) * 3)

    evaluate = train.make_eval_fn(
        case.net._replace(apply=counted("evaluating", case.net.apply)),
        case.provider._replace(apply=counted("writing", case.provider.apply)),
        train.classification(),
        train.InputPipeline(EVALUATION_BATCH_SIZE, normalize, normalize),
    )
    rng = np.random.default_rng(0)
    split = data.Split(
        rng.integers(256, size=(NUM_IMAGES, 32, 32, 3), dtype=np.uint8),
        rng.integers(10, size=NUM_IMAGES, dtype=np.int32),
    )
    keys = jax.random.split(KEY, NUM_CANDIDATES)
    archs = np.asarray(jax.vmap(case.net.space.sample)(keys))
    write = compile_now(benchmark, case.provider.apply, case.params, archs[0])
    one_batch = data.Split(*(array[:EVALUATION_BATCH_SIZE] for array in split))
    start = time.perf_counter()
    evaluate(case.params, archs[0], one_batch)
    first = time.perf_counter() - start
    for arch in archs[NUM_TIMED:]:
        evaluate(case.params, arch, one_batch)
    times: dict[str, list[float]] = {"all": [], "writing": []}

    def rank():
        for arch in archs[:NUM_TIMED]:
            start = time.perf_counter()
            jax.block_until_ready(write(case.params, arch))
            middle = time.perf_counter()
            evaluate(case.params, arch, split)
            times["writing"].append(middle - start)
            times["all"].append(time.perf_counter() - middle)

    benchmark.pedantic(rank, rounds=1, iterations=1)
    assert num_traces == {"writing": 1, "evaluating": 1}
    low, median, high = np.percentile(times["all"], [5, 50, 95])
    share = np.median(np.array(times["writing"]) / np.array(times["all"]))
    benchmark.extra_info["ranking"] = (
        f"{60 / median:.1f} candidates a minute ({60 / high:.1f} to {60 / low:.1f}), "
        f"{100 * share:.1f} % of the time for writing weights; 1 compilation for "
        f"{NUM_CANDIDATES} architectures, the first of which took {first:.1f} s"
    )


# Equal work -----------------------------------------------------------------------


def torch_layout(name: str, array: np.ndarray) -> np.ndarray:
    """Bring the last axes of kernels into the order of PyTorch."""
    if name == "depthwise":  # [h, w, C] to [C, 1, h, w]
        return np.expand_dims(np.moveaxis(array, -1, -3), -3)
    if name in ("kernel_1x7", "kernel_7x1"):  # [h, w, C_in, C_out] to OIHW
        return np.moveaxis(array, (-1, -2), (-4, -3))
    return np.swapaxes(array, -1, -2)[..., None, None]


def state_dict(tree: Any) -> dict[str, Any]:
    """Name the parameters of a hypernetwork as `torch_ghn.DagNetwork` does."""
    tree = jax.tree.map(np.asarray, tree)
    named: dict[str, np.ndarray] = {}

    def add_linear(name, kernel, bias):
        named[f"{name}.weight"], named[f"{name}.bias"] = kernel.T, bias

    message, update = (
        tree["graph"]["blocks"]["message"],
        tree["graph"]["blocks"]["update"],
    )
    bias = update["candidate_bias"]
    named |= {
        "types.weight": tree["graph"]["attributes"][0],
        "update.weight_ih": update["from_message"]["kernel"].T,
        "update.bias_ih": update["from_message"]["bias"],
        "update.weight_hh": update["from_state"].T,
        "update.bias_hh": np.concatenate([0 * bias, 0 * bias, bias]),
    }
    add_linear("message.0", message["hidden"][0], message["hidden_bias"][0])
    add_linear("message.2", message["output"][0], message["output_bias"][0])
    for name in ("node_hidden", "edge_hidden"):
        add_linear(name, **tree["decoder"][name])
    for branch, linear in tree["decoder"]["branches"].items():
        name, _ = branch.rsplit("_", 1)
        kernel = torch_layout(name, linear["kernel"])
        add_linear(
            f"branches.{name}",
            kernel.reshape(len(kernel), -1),
            torch_layout(name, linear["bias"]).reshape(-1),
        )
    named = {f"hypernetwork.{name}": value for name, value in named.items()}
    bias, kernel, stem, offset, scale = tree["learned"]
    add_linear("classifier", kernel, bias)
    named |= {
        "stem.0.weight": stem.transpose(3, 2, 0, 1),
        "stem.1.weight": scale,
        "stem.1.bias": offset,
    }
    return {name: torch.tensor(value.copy()) for name, value in named.items()}


def random_direction(net: Supernet) -> Any:
    """Random arrays of the shapes of the weights."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, KEY)
    return jax.tree.map(
        lambda shape: jax.numpy.asarray(rng.standard_normal(shape.shape), shape.dtype),
        shapes,
    )


def used_entries(weights: Any, space: DagSpace, arch: Any, model) -> dict[Any, Any]:
    """Weights of the supernet that an architecture uses, as PyTorch writes them."""
    weights = jax.tree.map(np.asarray, weights)
    ghn, block = model.hypernetwork, torch_block(space, arch)

    def edge(b, v, leaf):
        if b == ghn.num_blocks:
            return weights["head"][leaf - 2]
        stage = weights["stages"][ghn.stage(b)]
        position = b - ghn.stage(b) * ghn.num_blocks // 3
        if position > v:
            return stage[f"input_{v}"][position - 1 - v, leaf - 2]
        entry = stage["entry"][f"{('first', 'second')[position]}_{v}"]
        return entry[0 if leaf == torch_ghn.STEM else leaf - 2]

    def array(b, v, name):
        if not isinstance(name, str):
            return torch_layout("edge", edge(b, v, name))
        stage, position = ghn.stage(b), b - ghn.stage(b) * ghn.num_blocks // 3
        row = weights["stages"][stage]["nodes"][block.ops[v - 2]]
        return torch_layout(name, row[name][position, v - 2])

    places = [place for group in ghn.places(block).values() for place in group]
    return {place: torch.tensor(array(*place).copy()) for place in places}


def test_the_operations_are_the_same():
    assert torch_ghn.OPS == genotypes.DAG_OPS


@pytest.mark.parametrize("num_nodes", [4, 17])
def test_both_sides_write_the_same_weights(num_nodes):
    """Weights and the gradients of a linear function of them, in double precision."""
    num_blocks, channels, tile = 6, 4, 6
    space = spaces.ghn_dag(num_nodes)
    archs = jax.vmap(space.sample)(jax.random.split(KEY, 4))

    with jax.enable_x64(True):
        net = supernets.dag(space, channels, num_blocks)
        provider = ghn.hypernetwork(net, tile=tile)
        params = jax.jit(provider.init)(KEY)
        direction = random_direction(net)

        @jax.jit
        def write(params, arch, direction):
            weights, pull = jax.vjp(lambda p: provider.apply(p, arch), params)
            return weights, pull(direction)[0]

        written = [write(params, arch, direction) for arch in archs]

    model = torch_ghn.DagNetwork(channels, num_blocks, tile=tile).double()
    model.load_state_dict(state_dict(params))
    for arch, (weights, gradient) in zip(archs, written, strict=True):
        expected = used_entries(weights, space, arch, model)
        generated = weights["stages"], weights["head"]
        num_used = sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(generated))
        assert num_used == sum(value.numel() for value in expected.values())
        model.zero_grad(set_to_none=True)
        found = model.hypernetwork(torch_block(space, arch))
        assert found.keys() == expected.keys()
        for place, value in found.items():
            np.testing.assert_allclose(
                value.detach(), expected[place], rtol=0, atol=1e-9, err_msg=str(place)
            )
        directions = used_entries(direction, space, arch, model)
        torch.autograd.backward(list(found.values()), list(directions.values()))
        gradients = state_dict(gradient)
        for name, parameter in model.hypernetwork.named_parameters():
            np.testing.assert_allclose(
                0 * parameter.detach() if parameter.grad is None else parameter.grad,
                gradients[f"hypernetwork.{name}"],
                rtol=1e-9,
                atol=1e-9,
                err_msg=name,
            )


def test_both_sides_do_the_same_work():
    """Losses and updated parameters, in double precision."""
    num_blocks, channels = 6, 4
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 8, 8, 3))
    labels = rng.integers(0, 10, 6)
    torch_images = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    torch_labels = torch.tensor(labels)
    space = spaces.ghn_dag(7)
    archs = jax.vmap(space.sample)(jax.random.split(KEY, 5))

    with jax.enable_x64(True):
        net = supernets.dag(space, channels, num_blocks)
        provider = ghn.hypernetwork(net)
        optimizer = make_optimizer()
        state = train.init_weights(provider, optimizer, KEY)
        initial = state_dict(state.params)
        step = jax.jit(
            train.weight_step(net, provider, train.classification(), optimizer)
        )
        batch, losses = {"image": images, "label": labels}, []
        for arch in archs:
            state, metrics = step(state, arch[None], batch, KEY)
            losses.append(float(metrics["loss"]))
        updated = state_dict(state.params)

    for channels_last in (False, True):
        model = torch_ghn.DagNetwork(channels, num_blocks, channels_last=channels_last)
        model.double().load_state_dict(initial)
        torch_optimizer = torch_ghn.make_optimizer(model)
        for i, (arch, loss) in enumerate(zip(archs, losses, strict=True)):
            found = torch_micro.train_step(
                model, torch_optimizer, torch_images, torch_labels, [space.decode(arch)]
            )
            # PyTorch adds 1e-6 to the norm by which it clips.
            assert found == pytest.approx(loss, rel=1e-6 if i else 1e-9)
        for name, value in model.state_dict().items():
            np.testing.assert_allclose(
                value, updated[name], rtol=0, atol=1e-6, err_msg=name
            )


def test_both_sides_have_the_same_parameters():
    case = make_case(17, 32, num_groups=2)
    shapes = [leaf.size for leaf in jax.tree.leaves(case.params)]
    num_gate_biases = 2 * 32  # of the cell in PyTorch, which stay zero
    found = sum(p.numel() for p in case.model.parameters())
    assert found - num_gate_biases == sum(shapes)
