"""The micro supernet beside eager PyTorch: training, evaluation, compilation.

    python -m pytest benchmarks/bench_supernet.py

Both sides do the same work: the published size (16 channels, 8 cells, 5 nodes), batch
64 of 32x32, one architecture in a step, all weights updated, no auxiliary head. They
take turns on groups of four architectures of one fixed list; ours runs a group in one
compiled loop, as a search does. What counts is the median of the ratios PyTorch /
jaxnas (above 1: jaxnas is faster). PyTorch runs in its default memory format (NCHW)
and in channels_last. Compilation is left out of the steps and timed on its own.
"""

import pairs
import pytest

from jaxnas import optim, spaces, supernets

torch_micro = pytest.importorskip("torch_micro")

BATCH_SIZE = 64


@pytest.fixture(scope="module")
def case() -> pairs.Case:
    net = supernets.micro(spaces.enas_micro())
    return pairs.make_case(net, optim.sgd(0.025), BATCH_SIZE)


def test_train_step(benchmark, case):
    def make_run(model):
        optimizer = torch_micro.make_optimizer(model)
        return lambda arch: torch_micro.train_step(
            model, optimizer, case.torch_images, case.torch_labels, [arch]
        )

    pairs.compare(
        benchmark,
        case.groups,
        lambda group: case.train_group(case.state, group, case.batch),
        pairs.torch_sides(torch_micro.MicroSupernet, make_run),
    )


def test_evaluation_step(benchmark, case):
    def make_run(model):
        return lambda arch: torch_micro.eval_step(
            model, case.torch_images, case.torch_labels, arch
        )

    pairs.compare(
        benchmark,
        case.groups,
        lambda group: case.evaluate_group(case.state.params, group, case.batch),
        pairs.torch_sides(torch_micro.MicroSupernet, make_run),
    )


def test_compilation(benchmark, tmp_path):
    setup = f"supernets.micro(spaces.enas_micro()), optim.sgd(0.025), {BATCH_SIZE}"
    pairs.time_compilation(benchmark, tmp_path, setup)
