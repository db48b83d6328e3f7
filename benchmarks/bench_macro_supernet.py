"""The macro supernet beside eager PyTorch: training, evaluation, compilation.

    python -m pytest benchmarks/bench_macro_supernet.py

Both sides do the same work, which a test shows: the published size (12 layers, 36
channels), batch 128 of 32x32, one architecture in a step, all weights updated with
Nesterov momentum, no dropout. They are timed as in `bench_supernet.py`.
"""

from typing import Any

import jax
import numpy as np
import pairs
import pytest

from jaxnas import genotypes, optim, spaces, supernets, train, weights

torch = pytest.importorskip("torch")
torch_macro = pytest.importorskip("torch_macro")
torch_micro = pytest.importorskip("torch_micro")

BATCH_SIZE = 128
SKIPS = ("concat", "add")


def make_optimizer():
    """The optimizer of the search; its learning rate is that of the first step."""
    return optim.sgd(0.05, nesterov=True, weight_decay=1e-4)


# Timings --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SKIPS)
def skips(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def case(skips) -> pairs.Case:
    net = supernets.macro(spaces.enas_macro(), skips=skips)
    return pairs.make_case(net, make_optimizer(), BATCH_SIZE)


def torch_sides(skips: str, make_run):
    def make_model(channels_last: bool):
        return torch_macro.MacroSupernet(skips=skips, channels_last=channels_last)

    return pairs.torch_sides(make_model, make_run)


def test_train_step(benchmark, skips, case):
    def make_run(model):
        optimizer = torch_macro.make_optimizer(model)
        return lambda arch: torch_micro.train_step(
            model, optimizer, case.torch_images, case.torch_labels, [arch]
        )

    pairs.compare(
        benchmark,
        case.groups,
        lambda group: case.train_group(case.state, group, case.batch),
        torch_sides(skips, make_run),
    )


def test_evaluation_step(benchmark, skips, case):
    def make_run(model):
        return lambda arch: torch_micro.eval_step(
            model, case.torch_images, case.torch_labels, arch
        )

    pairs.compare(
        benchmark,
        case.groups,
        lambda group: case.evaluate_group(case.state.params, group, case.batch),
        torch_sides(skips, make_run),
    )


@pytest.mark.parametrize("skips", SKIPS)
def test_compilation(benchmark, tmp_path, skips):
    net = f"supernets.macro(spaces.enas_macro(), skips={skips!r})"
    optimizer = "optim.sgd(0.05, nesterov=True, weight_decay=1e-4)"
    pairs.time_compilation(benchmark, tmp_path, f"{net}, {optimizer}, {BATCH_SIZE}")


# Equal work -----------------------------------------------------------------------


def state_dict(tree: Any, num_layers: int) -> dict[str, Any]:
    """Name the weights of the macro supernet as `torch_macro.MacroSupernet` does."""
    tree = jax.tree.map(np.asarray, tree)
    named: dict[str, np.ndarray] = {}

    def add_conv(name, kernel):
        """A kernel `[h, w, C_in, C_out]`, or `[C_in, C_out]` for 1x1."""
        kernel = kernel.reshape((1,) * (4 - kernel.ndim) + kernel.shape)
        named[f"{name}.weight"] = kernel.transpose(3, 2, 0, 1)

    def add_norm(name, scale, offset):
        named[f"{name}.weight"], named[f"{name}.bias"] = scale, offset

    def add_operation(name, row):
        add_conv(f"{name}.0", row["entry"])
        add_norm(f"{name}.1", row["scale"][0], row["offset"][0])
        if "kernel" in row:
            add_conv(f"{name}.3", row["kernel"])
            add_norm(f"{name}.4", row["scale"][1], row["offset"][1])
        if "depthwise" in row:
            add_conv(f"{name}.3", row["depthwise"][:, :, None])
            add_conv(f"{name}.4", row["pointwise"])
            add_norm(f"{name}.5", row["scale"][1], row["offset"][1])

    add_conv("stem.0", tree["stem"]["kernel"])
    add_norm("stem.1", tree["stem"]["scale"], tree["stem"]["offset"])
    named["classifier.weight"] = tree["classifier"]["kernel"].T
    third = num_layers // 3
    for stage, first, last in zip(
        tree["stages"],
        (0, third, 2 * third),
        (third, 2 * third, num_layers),
        strict=True,
    ):
        for i in range(first + 1 if first else 0):
            reduction = jax.tree.map(lambda leaf, i=i: leaf[i], stage["reductions"])
            name = f"reductions.{first}.{i}"
            add_conv(f"{name}.even", reduction["kernel"][0])
            add_conv(f"{name}.odd", reduction["kernel"][1])
            add_norm(f"{name}.norm", reduction["scale"], reduction["offset"])
        for position, k in enumerate(range(first, last)):
            for op, rows in stage["layers"].items():
                row = {name: leaf[position] for name, leaf in rows.items()}
                add_operation(f"layers.{k}.{op}", row)
        joints, start = stage["joints"], 0
        for position, k in enumerate(range(max(first, 1), last)):
            name = f"joints.{k - 1}"
            scale, offset = joints["scale"][position], joints["offset"][position]
            add_norm(f"{name}.norm", scale, offset)
            if "kernel" in joints:
                blocks = joints["kernel"][start : start + k + 1]
                add_conv(name, blocks.reshape(-1, blocks.shape[-1]))
                start += k + 1
    return {name: torch.tensor(value.copy()) for name, value in named.items()}


def test_the_operations_are_the_same():
    assert torch_macro.OPS == genotypes.MACRO_OPS


@pytest.mark.parametrize("skips", SKIPS)
def test_both_sides_do_the_same_work(skips):
    """Logits, losses and updated weights, in double precision."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 8, 8, 3))
    labels = rng.integers(0, 10, 6)
    torch_images = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    torch_labels = torch.tensor(labels)
    key = jax.random.key(0)
    space = spaces.enas_macro()
    archs = jax.vmap(space.sample)(jax.random.split(key, 3))

    with jax.enable_x64(True):
        net = supernets.macro(space, channels=4, skips=skips)
        provider, task = weights.shared(net), train.classification()
        optimizer = make_optimizer()
        state = train.init_weights(provider, optimizer, key)
        # Scales and offsets start at one and zero, which would hide a mistake.
        params = jax.tree.map(
            lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape), state.params
        )
        state = state._replace(params=params)
        initial = state_dict(params, space.num_layers)
        apply = jax.jit(net.apply)
        logits = [np.asarray(apply(params, arch, images)) for arch in archs]
        step = jax.jit(train.weight_step(net, provider, task, optimizer))
        batch, losses = {"image": images, "label": labels}, []
        for arch in archs:
            state, metrics = step(state, arch[None], batch, key)
            losses.append(float(metrics["loss"]))
        updated = state_dict(state.params, space.num_layers)

    for channels_last in (False, True):
        model = torch_macro.MacroSupernet(
            channels=4, skips=skips, channels_last=channels_last
        ).double()
        model.load_state_dict(initial)
        for arch, expected in zip(archs.tolist(), logits, strict=True):
            with torch.inference_mode():
                found = model(torch_images, arch)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        torch_optimizer = torch_macro.make_optimizer(model)
        # PyTorch adds 1e-6 to the norm by which it clips.
        for arch, loss in zip(archs.tolist(), losses, strict=True):
            found = torch_micro.train_step(
                model, torch_optimizer, torch_images, torch_labels, [arch]
            )
            assert found == pytest.approx(loss, rel=1e-6)
        for name, value in model.state_dict().items():
            np.testing.assert_allclose(
                value, updated[name], rtol=0, atol=1e-6, err_msg=name
            )


@pytest.mark.parametrize("skips", SKIPS)
def test_both_sides_have_the_same_number_of_weights(skips):
    net = supernets.macro(spaces.enas_macro(), skips=skips)
    shapes = jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0)))
    model = torch_macro.MacroSupernet(skips=skips)
    assert sum(p.numel() for p in model.parameters()) == sum(s.size for s in shapes)
