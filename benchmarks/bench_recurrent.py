"""Recurrent language models beside PyTorch: training steps of supernet and network.

    python -m pytest benchmarks/bench_recurrent.py

Both sides do the same work, which tests show: 12 nodes, 10,000 words, batch 20 of 35
words, a hidden size that a CPU can train, dropout, plain SGD on a clipped gradient. The
supernet trains another architecture in each step; the network is that of ENAS's
published cell, which PyTorch also runs with the cell compiled. They are timed in turns
as in `bench_supernet.py`, after compilation, which is reported apart.
"""

import os
from typing import Any

import gpu_check
import jax
import numpy as np
import optax
import pairs
import pytest

from jaxnas import genotypes, networks, spaces, supernets

torch = pytest.importorskip("torch")
torch_recurrent = pytest.importorskip("torch_recurrent")

BATCH_SIZE, NUM_STEPS, NUM_WORDS = 20, 35, 10_000
CASES = ("recurrent", "recurrent_network")


# Timings --------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")  # torch.compile warns about code of its own
@pytest.mark.parametrize("hidden_size", [128, 256])
@pytest.mark.parametrize("name", CASES)
def test_train_step(benchmark, name, hidden_size):
    torch.set_num_threads(os.cpu_count() or 1)
    size = gpu_check.LanguageSize(hidden_size, NUM_WORDS, BATCH_SIZE, NUM_STEPS)
    num_groups = pairs.NUM_ARCHS // pairs.GROUP
    case = gpu_check.CASES[name](
        gpu_check.SIZES["full"]._replace(
            recurrent=size,
            recurrent_network=size,
            num_groups=num_groups,
            group_size=pairs.GROUP,
        )
    )
    took, compiled = gpu_check.seconds(gpu_check.case_program(case).compile)
    benchmark.extra_info["compilation, jaxnas"] = f"{took:.1f} s"
    pairs.compare(
        benchmark,
        range(num_groups),
        gpu_check.jax_side(case, compiled),
        gpu_check.torch_sides(case, case.variants, benchmark.extra_info),
        num_tokens=BATCH_SIZE * NUM_STEPS,
    )


# Equal work -----------------------------------------------------------------------

SMALL = gpu_check.LanguageSize(hidden_size=6, num_words=30, batch_size=3, num_steps=5)


def named(tree: Any) -> dict[str, np.ndarray]:
    """Name the weights, or their gradient, as `torch_recurrent` does."""
    nodes = {f"nodes.{row}": matrix for row, matrix in enumerate(tree["nodes"])}
    arrays = {"embedding": tree["embedding"], "first": tree["first"][0], **nodes}
    return {name: np.array(array) for name, array in arrays.items()}


def check_equal_work(model, params, apply, archs):
    """Compare losses, gradients and updated weights, in double precision.

    Args:
      model: in PyTorch.
      params: the weights to begin with.
      apply: `(params, arch, inputs) -> outputs`.
      archs: one for each step.
    """
    model, batch = model.double(), gpu_check.make_words(SMALL)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    model.load_state_dict({k: torch.tensor(v) for k, v in named(params).items()})
    batch["image"] = batch["image"][0], batch["image"][1].astype(np.float64)
    words, state = batch["image"]
    inputs = torch.tensor(words.astype(np.int64)), torch.tensor(state)
    targets = torch.tensor(batch["label"].astype(np.int64))
    torch_optimizer = torch_recurrent.make_optimizer(model)

    def loss(params, arch):
        outputs = apply(params, arch, batch["image"])
        return gpu_check.next_words().loss(outputs, batch)[0]

    with jax.enable_x64(True):
        optimizer = gpu_check.clipped_sgd()
        opt_state = optimizer.init(params)

        @jax.jit
        def step(params, arch):
            value, grads = jax.value_and_grad(loss)(params, arch)
            updates, _ = optimizer.update(grads, opt_state)
            return value, grads, optax.apply_updates(params, updates)

        for arch in archs:
            value, grads, updated = step(params, arch)
            found = torch_recurrent.gradient(model, inputs, targets, arch.tolist())
            assert found.item() == pytest.approx(float(value), rel=1e-12)
            grads, parameters = named(grads), dict(model.named_parameters())
            assert grads.keys() == parameters.keys()
            for name, parameter in parameters.items():
                grad = 0 if parameter.grad is None else parameter.grad
                np.testing.assert_allclose(
                    grad, grads[name], rtol=0, atol=1e-14, err_msg=name
                )
            torch_recurrent.update(
                model, torch_optimizer, inputs, targets, arch.tolist()
            )
            for name, value in named(updated).items():
                # PyTorch adds 1e-6 to the norm by which it clips.
                np.testing.assert_allclose(
                    parameters[name].detach(), value, atol=2e-4, err_msg=name
                )
            model.load_state_dict(
                {k: torch.tensor(v) for k, v in named(updated).items()}
            )
            params = updated


def test_supernets_do_the_same_work():
    space = spaces.enas_recurrent(5)
    net = supernets.recurrent(space, SMALL.num_words, SMALL.hidden_size)
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 6))
    model = torch_recurrent.RecurrentSupernet(5, SMALL.num_words, SMALL.hidden_size)
    check_equal_work(model, net.init(jax.random.key(1)), net.apply, archs)


def test_networks_do_the_same_work():
    genotype = genotypes.named("ENAS_RECURRENT")
    network = networks.recurrent(genotype, SMALL.num_words, SMALL.hidden_size)
    inputs = gpu_check.make_words(SMALL)["image"]
    params = network.init(jax.random.key(0), inputs, train=False)["params"]
    model = torch_recurrent.RecurrentNetwork(
        *genotype, SMALL.num_words, SMALL.hidden_size
    )

    def apply(params, arch, inputs):
        del arch
        return network.apply({"params": params}, inputs, train=True)

    check_equal_work(model, params, apply, np.zeros((3, 0), np.int32))


def test_dropout_draws_one_mask_for_all_steps():
    model = torch_recurrent.RecurrentSupernet(1, 4, 3, (0.5, 0.5, 0.5, 0.5))
    mask = model._mask(0.75, 1000)
    values = mask.unique().tolist()
    assert values == [0, 4] and 0.15 < (mask > 0).double().mean() < 0.35
    model.eval()
    assert model._mask(0.75, 1000) is None
