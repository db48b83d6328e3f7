"""The check of a GPU: its parts on little work, its time limits, its file."""

import concurrent.futures
import json
import math
import pickle
import sys
import time
from typing import Any, NamedTuple

import gpu_check
import jax
import jax.numpy as jnp
import numpy as np
import pytest

TINY = gpu_check.SIZES["tiny"]


class Saved:
    """Keeps what a part saves."""

    def __init__(self):
        self.results: list[dict[str, Any]] = []

    def __call__(self, result):
        self.results.append(json.loads(json.dumps(result)))


def make_task(saved: Saved, *, data_dir=None, seconds: float = 600.0):
    deadline = time.monotonic() + seconds
    return gpu_check.Task(TINY, deadline, saved, data_dir)


# Processes ------------------------------------------------------------------------

REPORT = "import json, pathlib, sys; report = pathlib.Path(sys.argv[-1]);"
SCRIPTS = {
    "good": "report.write_text(json.dumps({'result': {'summary': 'well'}}))",
    "slow": "report.write_text(json.dumps({'result': {'summary': 'half'}}));"
    "import time; time.sleep(600)",
    "crashing": "print('the card is gone'); import os; os.abort()",
    # It finds the file that the parts before have filled.
    "last": "report.write_text(json.dumps({'result': json.loads("
    "pathlib.Path(sys.argv[1]).read_text())}))",
}


def test_each_part_has_its_limit_and_is_written_when_it_ends(
    tmp_path, monkeypatch, capsys
):
    shares = {"good": 10, "slow": 1, "crashing": 10, "last": 10}
    parts = {n: gpu_check.Part(lambda _: {}, share) for n, share in shares.items()}
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    output = tmp_path / "check.json"

    def make_command(name, limit):
        return [sys.executable, "-c", REPORT + SCRIPTS[name], str(output)]

    status = gpu_check.run_all(
        list(SCRIPTS), make_command, output, 62.0, {"size": "tiny"}
    )
    assert status == 1
    written = json.loads(output.read_text())
    assert written["size"] == "tiny"
    parts = written["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {
        "good": "ok",
        "slow": "out of time",
        "crashing": "failed",
        "last": "ok",
    }
    assert parts["slow"]["result"] == {"summary": "half"}
    assert "the card is gone" in parts["crashing"]["error"]
    assert parts["last"]["result"]["parts"].keys() == {"good", "slow", "crashing"}
    assert [path.name for path in tmp_path.iterdir()] == ["check.json"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [
        "good: ok",
        "slow: out of time",
        "crashing: failed",
        "last: ok",
    ]
    assert lines[1].endswith("half")


def test_time_that_a_part_leaves_goes_to_the_others(tmp_path, monkeypatch):
    parts = {n: gpu_check.Part(lambda _: {}, 1) for n in ("first", "second")}
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    limits = {}

    def make_command(name, limit):
        limits[name] = limit
        return [sys.executable, "-c", REPORT + SCRIPTS["good"]]

    output = tmp_path / "check.json"
    status = gpu_check.run_all(
        ["first", "second"], make_command, output, 600, {"size": "tiny"}
    )
    assert status == 0
    assert limits["first"] == pytest.approx(300, abs=1)
    assert 300 < limits["second"] < 600


def test_the_command_runs_a_part(tmp_path, capsys):
    output = tmp_path / "check.json"
    args = ["--size", "tiny", "--parts", "device", "--output", str(output)]
    assert gpu_check.main(args) == 0
    part = json.loads(output.read_text())["parts"]["device"]
    assert part["result"]["platform"] == "cpu"
    assert part["result"]["versions"]["jax"] == jax.__version__
    assert capsys.readouterr().out.startswith("device: ok in ")


def test_full_size_ends_where_there_is_no_gpu(tmp_path):
    output = tmp_path / "check.json"
    args = ["--parts", "device,micro", "--output", str(output)]
    assert gpu_check.main(args) == 1
    parts = json.loads(output.read_text())["parts"]
    assert parts.keys() == {"device"}
    assert "expected gpu" in parts["device"]["error"][-1]
    assert parts["device"]["result"]["platform"] == "cpu"


def test_what_a_part_raises_is_kept_beside_its_results(tmp_path, monkeypatch):
    def run(task):
        task.save({"half": 1})
        raise gpu_check.CheckFailed("the other half is wrong")

    monkeypatch.setitem(gpu_check.PARTS, "device", gpu_check.Part(run, 1))
    saved = Saved()
    assert gpu_check.run_part("device", make_task(saved)) == 1
    assert saved.results[-1]["result"] == {"half": 1}
    assert saved.results[-1]["error"][-1].endswith("the other half is wrong")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--parts", "device,speed"], "'speed'"),
        (["--data-dir", "nowhere"], "expected a folder"),
        (["--pack", "local"], "needs --data-dir"),
    ],
)
def test_wrong_flags(args, message, capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(args)
    assert message in capsys.readouterr().err


# Numerics -------------------------------------------------------------------------


def make_function(shift: float):
    """The square of a vector's norm, from terms that cancel."""

    def loss(params, shift):
        w = params["w"]
        return (jnp.square(w + shift) - 2 * w * shift - jnp.square(shift)).sum()

    def apply(params, shift):
        value, grads = jax.value_and_grad(loss)(params, shift)
        return grads, value

    return gpu_check.Function(apply, {"w": np.linspace(0.1, 1, 5)}, np.full(5, shift))


def test_errors_are_relative_to_float64():
    function, device = make_function(0.0), jax.devices()[0]
    reference = gpu_check.evaluate(function, device, double=True)
    assert reference[0]["w"].dtype == np.float64
    np.testing.assert_array_equal(reference[0]["w"], 2 * function.params["w"])
    found = {"w": np.float32(1.5) * reference[0]["w"].astype(np.float32)}
    errors = gpu_check.relative_errors((found, 1.25 * reference[1]), reference)
    assert errors == pytest.approx({"loss": 0.25, "gradient": 0.5}, rel=1e-6)


def test_numerics_passes_what_is_accurate_only(monkeypatch):
    made = {"exact": lambda: make_function(0.0)}
    monkeypatch.setattr(gpu_check, "functions", lambda *_: made)
    pool = concurrent.futures.ThreadPoolExecutor
    monkeypatch.setattr(gpu_check, "make_pool", pool)
    saved, size = Saved(), TINY._replace(functions=("exact",))
    result = gpu_check.check_numerics(make_task(saved)._replace(size=size))
    assert saved.results[-1] == json.loads(json.dumps(result))
    assert result["errors"]["exact"]["highest"]["gradient"] < 1e-6

    made["canceling"] = lambda: make_function(1e5)
    saved, size = Saved(), TINY._replace(functions=("exact", "canceling"))
    with pytest.raises(gpu_check.CheckFailed, match="canceling, highest, loss"):
        gpu_check.check_numerics(make_task(saved)._replace(size=size))
    assert saved.results[-1]["errors"].keys() == {"exact", "canceling"}


NUMERICS = gpu_check.NetSize(2, 3, 2)


@pytest.mark.parametrize("name", gpu_check.FUNCTIONS)
def test_every_gradient_is_that_of_the_parameters(name):
    made = gpu_check.functions(NUMERICS, 8)
    assert tuple(made) == gpu_check.FUNCTIONS
    function = made[name]()
    grads, loss = jax.eval_shape(function.apply, function.params, function.inputs)
    assert loss.shape == ()
    shapes = jax.tree.map(jnp.shape, function.params)
    assert jax.tree.map(lambda leaf: leaf.shape, grads) == shapes


# Steps a second -------------------------------------------------------------------


@pytest.mark.parametrize("name", gpu_check.CASES)
def test_every_step_returns_a_state_like_its_own(name):
    case = gpu_check.CASES[name](TINY)
    shape = TINY.num_groups, TINY.group_size
    assert case.groups.shape[:2] == shape
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        advanced = jax.eval_shape(case.advance, case.state, case.groups[0], case.batch)
    assert advanced == jax.eval_shape(lambda state: state, case.state)


def make_case() -> gpu_check.Case:
    """A linear classifier, as quick to compile as possible."""
    batch = gpu_check.make_batch(2, 4)

    def step(state, arch, batch, key):
        del arch, key
        logits = batch["image"].reshape(2, -1) @ state["w"]
        return {"w": state["w"] * 0.5, "logits": logits}

    def make_model(channels_last):
        del channels_last
        torch = gpu_check.torch_module("torch")
        linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10))
        return gpu_check.torch_module("torch_cells").OneArchitecture(linear)

    return gpu_check.Case(
        gpu_check.repeated(step),
        {"w": jnp.ones((48, 10)), "logits": jnp.zeros((2, 10))},
        jnp.zeros((2, 3, 0), jnp.int32),
        jax.device_put(batch),
        make_model,
        lambda model: gpu_check.torch_module("torch_micro").make_optimizer(model),
        list,
    )


def test_a_loop_does_one_step_for_each_architecture():
    case = make_case()
    state = jax.jit(case.advance)(case.state, case.groups[0], case.batch)
    np.testing.assert_allclose(state["w"], 0.5**3)


def test_speed_without_pytorch(monkeypatch):
    monkeypatch.setitem(gpu_check.CASES, "macro", lambda size: make_case())
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    saved = Saved()
    result = gpu_check.check_speed("macro", make_task(saved))
    assert result["PyTorch"] == "not installed"
    assert result["sides"].keys() == {"jaxnas"}
    assert saved.results[-1]["summary"] == result["summary"]
    assert result["summary"].endswith("PyTorch is not installed")


def test_speed_beside_pytorch(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(gpu_check.CASES, "macro", lambda size: make_case())
    result = gpu_check.check_speed("macro", make_task(Saved()))
    assert [*result["sides"]] == ["jaxnas", "PyTorch NCHW", "PyTorch channels_last"]
    for side in [*result["sides"].values()][1:]:
        assert side["num_calls"] == 2 * TINY.max_rounds
        assert side["ratio_5_percent"] <= side["ratio_median"]
    ours = result["sides"]["jaxnas"]
    assert ours["images_per_second"] == pytest.approx(
        2 * ours["steps_per_second"], rel=1e-2
    )


def test_a_variant_that_pytorch_cannot_compile_is_left_out(monkeypatch):
    exceptions = pytest.importorskip("torch._dynamo.exc")

    def make_side(case, variant):
        def run(group):
            if variant:
                raise exceptions.ShortenTraceback(
                    "no compiler\nis found", first_useful_frame=None
                )

        return run

    monkeypatch.setattr(gpu_check, "torch_side", make_side)
    result: dict[str, Any] = {}
    variants = {"eager": False, "compiled": True}
    sides = gpu_check.torch_sides(make_case(), variants, result)
    assert [*sides] == ["eager"]
    assert result["compiled"] == "left out: no compiler is found"
    assert result["first_call_seconds, eager"] >= 0


def test_weights_that_are_not_finite_are_no_speed():
    case = make_case()
    case.state["w"] = case.state["w"].at[0, 0].set(math.nan)
    with pytest.raises(gpu_check.CheckFailed, match="not finite"):
        gpu_check.jax_side(case, jax.jit(case.advance))


# Kernels --------------------------------------------------------------------------


def test_kernels_of_a_program_are_found():
    x = jnp.ones((64, 64))
    program = jax.jit(lambda x: jnp.sin(x @ x).sum())
    jax.block_until_ready(program(x))
    durations = gpu_check.kernel_durations(lambda: jax.block_until_ready(program(x)))
    assert any("dot" in name or "fusion" in name for name, _ in durations)
    assert all(microseconds >= 0 for _, microseconds in durations)


def test_kernels_are_counted_by_kind_and_time():
    durations = [("add_fusion_1", 1.0), ("add_fusion_12", 6.0), ("copy.3.4", 30.0)] * 2
    found = gpu_check.describe_kernels(durations, 2)
    assert found["kernels"] == 3 and found["busy_milliseconds"] == 0.037
    assert found["largest"] == {
        "copy": {"kernels": 1, "microseconds": 30},
        "add_fusion": {"kernels": 2, "microseconds": 7},
    }
    assert found["kernels_by_microseconds"] == {
        "0 to 2": 1,
        "2 to 5": 0,
        "5 to 10": 1,
        "10 to 20": 0,
        "20 to 50": 1,
        "50 to inf": 0,
    }


# Search ---------------------------------------------------------------------------


class Counter(NamedTuple):
    """A search whose loss is the number of the step, from 0."""

    step: jax.Array
    epoch_metrics: dict[str, jax.Array]
    searcher_metrics: dict[str, jax.Array]


def make_counter(size, data_dir, last: float = 100.0) -> gpu_check.Search:
    def one_step(_, state):
        position, number = (state.step % 5).astype(float), state.step.astype(float)
        before = jnp.where(position == 0, 0.0, state.epoch_metrics["train/loss"])
        loss = jnp.where(number > last, jnp.nan, number)
        mean = (before * position + loss) / (position + 1)
        return Counter(state.step + 1, {"train/loss": mean}, {"delta": mean})

    def advance(state, splits, num_steps):
        return jax.lax.fori_loop(0, num_steps, one_step, state)

    state = Counter(
        jnp.int32(0), {"train/loss": jnp.zeros(())}, {"delta": jnp.zeros(())}
    )
    splits = gpu_check.load_images(None, TINY).train
    return gpu_check.Search(advance, state, (splits, splits), 5, 8, "numbers")


def test_search_reports_the_mean_loss_between_two_reports(monkeypatch):
    monkeypatch.setattr(gpu_check, "make_search", make_counter)
    saved = Saved()
    task = make_task(saved)._replace(size=TINY._replace(chunk=2, max_steps=8))
    result = gpu_check.check_search(task)
    means = {row["step"]: row["train/loss"] for row in result["losses"]}
    assert means == pytest.approx({1: 0.0, 3: 1.5, 5: 3.5, 7: 5.5, 9: 7.5})
    assert result["data"] == "numbers"
    assert result["projected_hours"] == pytest.approx(
        39_000 / 3600 / result["steps_per_second"], rel=1e-2
    )
    assert len(saved.results[-2]["losses"]) == 4  # not only at the end
    assert "numbers" in result["summary"]


def test_search_ends_when_its_time_is_up(monkeypatch):
    monkeypatch.setattr(gpu_check, "make_search", make_counter)
    task = make_task(Saved(), seconds=0.0)
    assert len(gpu_check.check_search(task)["losses"]) == 1


def test_search_fails_when_losses_are_not_finite(monkeypatch):
    monkeypatch.setattr(
        gpu_check, "make_search", lambda size, folder: make_counter(size, folder, 2)
    )
    saved = Saved()
    with pytest.raises(gpu_check.CheckFailed, match="by step 5"):
        gpu_check.check_search(make_task(saved))
    assert saved.results[-1]["losses"][0] == {"step": 1, "train/loss": 0.0}


def test_rates():
    found = gpu_check.search_rates(10.0, 256)
    assert found == {
        "steps_per_second": 10.0,
        "images_per_second": 2560.0,
        "projected_hours": 1.083,
    }


def test_the_search_is_that_of_the_preset():
    search = gpu_check.make_search(TINY, None)
    assert search.source == "random noise"
    # Two architectures each for the weights and the searcher.
    assert search.images_per_step == 4 * TINY.search.batch_size
    program = gpu_check.search_program(search)
    advanced = jax.eval_shape(program.function, *program.args)
    assert advanced == jax.eval_shape(lambda state: state, search.state)
    full = gpu_check.SIZES["full"].search
    assert full == gpu_check.NetSize(16, 8, 64)  # Akimoto et al. 2019, section 3.2


def write_cifar10(folder) -> np.ndarray:
    """Three images in each file of the official layout; returns those to train on."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(18, 3072), dtype=np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, rows in zip(names, pixels.reshape(6, 3, 3072), strict=True):
        batch = {b"data": rows, b"labels": [0, 1, 9]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"label_names": [str(i).encode() for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return pixels[:15].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def test_images_are_packed(tmp_path, monkeypatch, capsys):
    images = write_cifar10(tmp_path / "cifar-10-batches-py")
    whole = gpu_check.load_images(tmp_path, TINY)
    np.testing.assert_array_equal(whole.train.images, images)

    monkeypatch.setattr(gpu_check, "NUM_PACKED", 7)
    folder = tmp_path / "local"
    args = ["--data-dir", str(tmp_path), "--pack", str(folder)]
    assert gpu_check.main(args) == 0
    assert "local" in capsys.readouterr().out
    packed = gpu_check.load_images(folder, TINY)
    np.testing.assert_array_equal(packed.train.images, images[:7])
    np.testing.assert_array_equal(packed.train.labels, whole.train.labels[:7])
    assert packed.source.startswith("the first 7 images of CIFAR-10 layout")
    assert packed.mean == whole.mean
