"""The supernet of autoencoders beside eager PyTorch: training, evaluation, compilation.

    python -m pytest benchmarks/bench_autoencoder_supernet.py

Both sides do the same work, which a test shows: the published size (20 nodes, 64 to 256
channels), batch 16 of 64x64, one architecture in a step, mean squared error, all
weights updated by plain SGD. Both compute only the channels that a node has. They are
timed as in `bench_supernet.py`, and need 9 GB of memory.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pairs
import pytest

from jaxnas import spaces, supernets, train, weights
from jaxnas.spaces import AutoencoderSpace
from jaxnas.types import Task

torch = pytest.importorskip("torch")
torch_autoencoder = pytest.importorskip("torch_autoencoder")

BATCH_SIZE, SIDE = 16, 64


def squared_error(outputs, batch):
    loss = jnp.square(outputs - batch["image"]).mean()
    return loss, {"loss": loss}


TASK = Task(squared_error)


def make_optimizer():
    return optax.sgd(0.025)


# Timings --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case() -> pairs.Case:
    net = supernets.autoencoder(spaces.inpainting())
    return pairs.make_case(net, make_optimizer(), BATCH_SIZE, task=TASK, side=SIDE)


def test_train_step(benchmark, case):
    def make_run(model):
        optimizer = torch_autoencoder.make_optimizer(model)
        return lambda arch: torch_autoencoder.train_step(
            model, optimizer, case.torch_images, arch
        )

    pairs.compare(
        benchmark,
        case.groups,
        lambda group: case.train_group(case.state, group, case.batch),
        pairs.torch_sides(torch_autoencoder.Autoencoder, make_run),
    )


def test_evaluation_step(benchmark, case):
    def make_run(model):
        return lambda arch: torch_autoencoder.eval_step(model, case.torch_images, arch)

    pairs.compare(
        benchmark,
        case.groups,
        lambda group: case.evaluate_group(case.state.params, group, case.batch),
        pairs.torch_sides(torch_autoencoder.Autoencoder, make_run),
    )


# Equal work -----------------------------------------------------------------------


def state_dict(tree: Any) -> dict[str, Any]:
    """Name the weights of the supernet as `torch_autoencoder.Autoencoder` does."""
    tree, named = jax.tree.map(np.asarray, tree), {}
    for part in ("encoder", "decoder"):
        for node, skip in np.ndindex(tree[part].shape[:2]):
            start = 0
            for size in torch_autoencoder.KERNELS:
                taps = tree[part][node, skip, start : start + size**2]
                kernel = taps.reshape(size, size, *taps.shape[1:])
                name = f"weights.{part}_{node}_{skip}_{size}"
                named[name] = kernel.transpose(3, 2, 0, 1)
                start += size**2
    output = tree["output"]
    named["output"] = output.reshape(3, 3, *output.shape[1:]).transpose(3, 2, 0, 1)
    return {name: torch.tensor(value.copy()) for name, value in named.items()}


@pytest.mark.parametrize("channels_last", [False, True])
def test_both_sides_do_the_same_work(channels_last):
    """Losses and updated weights, in double precision."""
    space = AutoencoderSpace(6, 3, (2, 4, 6))
    images = np.random.default_rng(0).standard_normal((4, 4, 4, 3))
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 6))
    model = torch_autoencoder.Autoencoder(
        6, 3, (2, 4, 6), channels_last=channels_last
    ).double()

    with jax.enable_x64(True):
        net = supernets.autoencoder(space)
        provider, optimizer = weights.shared(net), make_optimizer()
        state = train.init_weights(provider, optimizer, jax.random.key(0))
        model.load_state_dict(state_dict(state.params))
        step = jax.jit(train.weight_step(net, provider, TASK, optimizer))
        batch, losses = {"image": images}, []
        for arch in archs:
            state, metrics = step(state, arch[None], batch, jax.random.key(0))
            losses.append(float(metrics["loss"]))
        updated = state_dict(state.params)

    torch_images = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    torch_optimizer = torch_autoencoder.make_optimizer(model)
    for arch, loss in zip(archs.tolist(), losses, strict=True):
        found = torch_autoencoder.train_step(model, torch_optimizer, torch_images, arch)
        assert found == pytest.approx(loss, rel=1e-9)
        evaluated = torch_autoencoder.eval_step(model, torch_images, arch)
        assert evaluated < found
    assert model.state_dict().keys() == updated.keys()
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(
            value, updated[name], rtol=0, atol=1e-12, err_msg=name
        )


def test_both_sides_have_the_same_number_of_weights():
    net = supernets.autoencoder(spaces.inpainting())
    shapes = jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0)))
    with torch.device("meta"):
        model = torch_autoencoder.Autoencoder()
    assert sum(p.numel() for p in model.parameters()) == sum(s.size for s in shapes)
