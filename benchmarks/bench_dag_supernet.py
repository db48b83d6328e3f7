"""The supernet of blocks that are any graph beside eager PyTorch, with shared weights.

    python -m pytest benchmarks/bench_dag_supernet.py

Both sides do the same work, which a test shows: the published size (32 channels, 18
blocks, 7 nodes), batch 64 of 32x32, one architecture in a step, all weights updated
with Adam. They are timed as in `bench_supernet.py`.
"""

from typing import Any

import jax
import numpy as np
import pairs
import pytest

from jaxnas import optim, spaces, supernets, train, weights
from jaxnas.spaces.dag import DagSpace

torch = pytest.importorskip("torch")
torch_dag = pytest.importorskip("torch_dag")
torch_ghn = pytest.importorskip("torch_ghn")
torch_micro = pytest.importorskip("torch_micro")

BATCH_SIZE = 64
NUM_NODES = 7


def make_optimizer():
    """The optimizer of the search, which clips as the step in PyTorch does."""
    return optim.adam(1e-3, clip_norm=5.0)


# Timings --------------------------------------------------------------------------


def test_train_step(benchmark):
    net = supernets.dag(spaces.ghn_dag(NUM_NODES))
    case = pairs.make_case(net, make_optimizer(), BATCH_SIZE)

    def make_run(model):
        optimizer = torch_ghn.make_optimizer(model)
        return lambda arch: torch_micro.train_step(
            model,
            optimizer,
            case.torch_images,
            case.torch_labels,
            [net.space.decode(arch)],
        )

    pairs.compare(
        benchmark,
        case.groups,
        lambda group: case.train_group(case.state, group, case.batch),
        pairs.torch_sides(torch_dag.DagSupernet, make_run),
    )


# Equal work -----------------------------------------------------------------------


def torch_layout(name: str, array: np.ndarray) -> np.ndarray:
    """Bring the last axes of a kernel into the order of PyTorch."""
    if name == "depthwise":  # [h, w, C] to [C, 1, h, w]
        return np.expand_dims(np.moveaxis(array, -1, -3), -3)
    if name in ("kernel_1x7", "kernel_7x1"):  # [h, w, C_in, C_out] to OIHW
        return np.moveaxis(array, (-1, -2), (-4, -3))
    return np.swapaxes(array, -1, -2)[..., None, None]  # [C_in, C_out]


def state_dict(tree: Any, model: Any) -> dict[str, Any]:
    """Name the weights of the supernet as `torch_dag.DagSupernet` does."""
    tree = jax.tree.map(np.asarray, tree)
    shared = model.hypernetwork

    def edge(b: int, v: int, leaf: int) -> np.ndarray:
        if b == shared.num_blocks:
            return tree["head"][leaf - 2]
        stage = tree["stages"][shared.stage(b)]
        position = b - shared.stage(b) * shared.num_blocks // 3
        if position > v:
            return stage[f"input_{v}"][position - 1 - v, leaf - 2]
        entry = stage["entry"][f"{('first', 'second')[position]}_{v}"]
        return entry[0 if leaf == torch_ghn.STEM else leaf - 2]

    def array(b: int, v: int, *names: Any) -> np.ndarray:
        if len(names) == 1:
            return torch_layout("edge", edge(b, v, *names))
        op, name = names
        stage = shared.stage(b)
        position = b - stage * shared.num_blocks // 3
        return torch_layout(name, tree["stages"][stage]["nodes"][op][name])[
            position, v - 2
        ]

    named = {
        "hypernetwork." + "_".join(map(str, place)): array(*place)
        for place in shared.tensors
    }
    named |= {
        "stem.0.weight": tree["stem"]["kernel"].transpose(3, 2, 0, 1),
        "stem.1.weight": tree["stem"]["scale"],
        "stem.1.bias": tree["stem"]["offset"],
        "classifier.weight": tree["classifier"]["kernel"].T,
        "classifier.bias": tree["classifier"]["bias"],
    }
    return {name: torch.tensor(value.copy()) for name, value in named.items()}


def make_archs(space: DagSpace, num: int):
    return jax.vmap(space.sample)(jax.random.split(jax.random.key(0), num))


@pytest.mark.parametrize("channels_last", [False, True])
def test_both_sides_do_the_same_work(channels_last):
    """Losses and updated weights, in double precision."""
    num_blocks, channels = 6, 4
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 8, 8, 3))
    labels = rng.integers(0, 10, 6)
    space = spaces.ghn_dag(NUM_NODES)
    archs = make_archs(space, 4)
    model = torch_dag.DagSupernet(
        channels, num_blocks, NUM_NODES, channels_last=channels_last
    ).double()

    with jax.enable_x64(True):
        net = supernets.dag(space, channels, num_blocks)
        provider, optimizer = weights.shared(net), make_optimizer()
        state = train.init_weights(provider, optimizer, jax.random.key(0))
        params = jax.tree.map(
            lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape), state.params
        )
        state = state._replace(params=params)
        model.load_state_dict(state_dict(params, model))
        step = jax.jit(
            train.weight_step(net, provider, train.classification(), optimizer)
        )
        batch, losses = {"image": images, "label": labels}, []
        for arch in archs:
            state, metrics = step(state, arch[None], batch, jax.random.key(0))
            losses.append(float(metrics["loss"]))
        updated = state_dict(state.params, model)

    torch_images = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    torch_optimizer = torch_ghn.make_optimizer(model)
    for i, (arch, loss) in enumerate(zip(archs, losses, strict=True)):
        found = torch_micro.train_step(
            model,
            torch_optimizer,
            torch_images,
            torch.tensor(labels),
            [space.decode(arch)],
        )
        # PyTorch adds 1e-6 to the norm by which it clips.
        assert found == pytest.approx(loss, rel=1e-6 if i else 1e-9)
    assert model.state_dict().keys() == updated.keys()
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(
            value, updated[name], rtol=0, atol=1e-6, err_msg=name
        )


def test_both_sides_have_the_same_number_of_weights():
    net = supernets.dag(spaces.ghn_dag(NUM_NODES))
    shapes = jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0)))
    model = torch_dag.DagSupernet(num_nodes=NUM_NODES)
    assert sum(p.numel() for p in model.parameters()) == sum(s.size for s in shapes)
