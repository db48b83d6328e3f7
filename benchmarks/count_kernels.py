"""Count the kernels of a training step on an H100, without having one.

    python -m venv ENV && ENV/bin/pip install 'jax[cuda12]' -e .
    JAX_PLATFORMS=cpu ENV/bin/python benchmarks/count_kernels.py micro 'micro, kernels'

XLA compiles each step for the card that is described below; then every computation of
the compiled program is walked through: loops count as often as they run, branches by
their average. What is printed per step of one architecture:

- kernels, with copies;
- host syncs: where the host waits for the device before it goes on, at a switch and at
  each iteration of a loop whose number of iterations it does not know;
- gigabytes that kernels read and write;
- milliseconds by a model: each kernel takes `KERNEL` seconds to follow another one and
  as long as its bytes need, each switch and iteration a time of its own. The times of
  single things are those measured on an H100 (results/gpu.md). Together they are an
  estimate, and no measurement.

Choosing the fastest convolutions and products needs a card, so that on one a few of the
kernels may be others. `--output` keeps everything as JSON.
"""

import argparse
import json
import math
import os
import pathlib
import re
import time
from typing import NamedTuple

import gpu_check
import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from jaxnas.supernets import _platforms
from jaxnas.supernets._layer_kernels import Images

H100 = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3" device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0" cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 l2_cache_size: 52428800
  memory_bandwidth: 3352320000000 device_memory_size: 84942979072
  pcie_bandwidth: 34359738368 device_address_bits: 64 ecc_enabled: true
  driver_version: "13.0.0" runtime_version: "12.9.0"
  compile_time_toolkit_version: "12.9.0" dnn_version: "9.10.0"
}
platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 } runtime_version { major: 12 minor: 9 }
"""

# Seconds.
KERNEL = 1.7e-6  # between two kernels, the first one's least time included
CONVOLUTION = 5e-6  # the least of one of cuDNN
KNOWN_ITERATION, OTHER_ITERATION, SWITCH = 8e-6, 22e-6, 25e-6
BYTES_PER_SECOND = 2.4e12
# Iterations of a loop over edges or loose ends, whose number is data.
ITERATIONS = 5

# Images that a program of a kernel reads and writes, averaged over uniform operations:
# of 5, 2 have two layers, 2 have one, 1 has none.
LAYER_IMAGES = {
    "forward_layer": 0.6 * 2,
    "combine": 4,
    "gather_gradient": 4,
    "sum_gradients": 0.8 * 2,
    "product_backward": 0.6 * 4,
    "window_backward": 0.6 * 3,
}

FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
        *("after-all", "opt-barrier", "add-dependency", "partition-id", "replica-id"),
        *("copy-done", "async-done", "async-update"),
    )
)
SIZES = {
    **dict.fromkeys(("pred", "s8", "u8"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64"), 8),
}


# Compiled programs ------------------------------------------------------------------


class Instruction(NamedTuple):
    """An instruction of a compiled program: `name = type op(rest`."""

    name: str
    type: str
    op: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of what it reads."""
        depth = 1
        for end, character in enumerate(self.rest):
            depth += (character == "(") - (character == ")")
            if depth == 0:
                return re.findall(r"%([\w.\-]+)", self.rest[:end])
        return []

    def called(self, attribute: str) -> str:
        """Name of the computation that an attribute names."""
        found = re.search(rf"{attribute}=%?([\w.\-]+)", self.rest)
        assert found is not None, (self.name, attribute)
        return found.group(1)

    @property
    def branches(self) -> list[str]:
        """Names of the computations that a conditional chooses from."""
        found = re.search(r"branch_computations=\{([^}]*)\}", self.rest)
        if found is None:
            return [self.called(f"{side}_computation") for side in ("true", "false")]
        return [name.strip().lstrip("%") for name in found.group(1).split(",")]

    def number(self, pattern: str) -> int | None:
        """A number in what follows the operands."""
        found = re.search(pattern, self.rest)
        return None if found is None else int(found.group(1))


def num_bytes(text: str) -> int:
    """Bytes of all arrays of a type."""
    return sum(
        SIZES[kind] * math.prod(int(size) for size in shape.split(",") if size)
        for kind, shape in re.findall(r"\b(\w+)\[([\d,]*)\]", text)
        if kind in SIZES
    )


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """All computations of a compiled program, and the name of the first to run."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = [], ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
        if head:
            current = computations.setdefault(head.group(2), [])
            entry = head.group(2) if head.group(1) else entry
            continue
        body = re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$", line)
        if body:
            current.append(Instruction(*body.groups()))
    return computations, entry


class Total(NamedTuple):
    """What one call of a computation does."""

    kernels: float = 0
    syncs: float = 0
    bytes: float = 0
    seconds: float = 0

    def plus(self, other: "Total", times: float = 1) -> "Total":
        """This and some of another."""
        return Total(*(a + times * b for a, b in zip(self, other, strict=True)))


class Program:
    """A compiled program."""

    def __init__(self, text: str):
        self.computations, entry = parse(text)
        self.types = {
            name: {instruction.name: instruction.type for instruction in body}
            for name, body in self.computations.items()
        }
        self.total = self.run(entry)

    def run(self, name: str) -> Total:
        """Everything that a computation does."""
        total = Total()
        for instruction in self.computations[name]:
            total = total.plus(self.instruction(name, instruction))
        return total

    def instruction(self, computation: str, instruction: Instruction) -> Total:
        """What one instruction does."""
        op = instruction.op
        if op in FREE:
            return Total()
        if op == "call":
            return self.run(instruction.called("to_apply"))
        if op == "while":
            known = instruction.number(r'known_trip_count":\{"n":"(\d+)"')
            body = self.run(instruction.called("body"))
            if known is not None:
                return Total(seconds=KNOWN_ITERATION * known).plus(body, known)
            waits = ITERATIONS + 1
            condition = self.run(instruction.called("condition"))
            total = Total(syncs=waits, seconds=OTHER_ITERATION * waits)
            return total.plus(body, ITERATIONS).plus(condition, waits)
        if op == "conditional":
            total, branches = Total(syncs=1, seconds=SWITCH), instruction.branches
            for branch in branches:
                total = total.plus(self.run(branch), 1 / len(branches))
            return total
        moved = self.bytes_of(computation, instruction)
        least = CONVOLUTION if "__cudnn$conv" in instruction.rest else 0
        seconds = KERNEL + max(least, moved / BYTES_PER_SECOND)
        return Total(kernels=1, bytes=moved, seconds=seconds)

    def bytes_of(self, computation: str, instruction: Instruction) -> float:
        """Bytes that a kernel reads and writes."""
        if "__gpu$xla.gpu.triton" in instruction.rest:
            return layer_bytes(instruction)
        types, result = self.types[computation], num_bytes(instruction.type)
        if instruction.op == "fusion":
            return self.fusion_bytes(instruction, result)
        if instruction.op == "dynamic-update-slice":
            return 2 * num_bytes(types.get(instruction.operands[1], ""))
        read = sum(num_bytes(types.get(name, "")) for name in instruction.operands)
        return read + result

    def fusion_bytes(self, instruction: Instruction, result: int) -> float:
        """Bytes of a fusion, of what it slices only the slices."""
        name = instruction.called("calls")
        body, types = self.computations[name], self.types[name]
        uses: dict[str, list[Instruction]] = {}
        for inner in body:
            for operand in inner.operands:
                uses.setdefault(operand, []).append(inner)
        updates = [i for i in body if i.op == "dynamic-update-slice"]
        total = float(result)
        if updates:  # in place
            total = sum(num_bytes(types.get(i.operands[1], "")) for i in updates)
        for inner in body:
            if inner.op != "parameter":
                continue
            readers = uses.get(inner.name, [])
            slices = all(i.op in ("dynamic-slice", "slice", "gather") for i in readers)
            if readers and slices:
                sliced = sum(num_bytes(i.type) for i in readers)
                total += min(num_bytes(inner.type), sliced)
            elif not all(
                i.op == "dynamic-update-slice" and i.operands[0] == inner.name
                for i in readers
            ):
                total += num_bytes(inner.type)
        return total


def layer_bytes(instruction: Instruction) -> float:
    """Bytes of a kernel for a layer of many edges."""
    name = next((name for name in LAYER_IMAGES if name in instruction.rest), None)
    if name is None:
        return num_bytes(instruction.type)
    programs = math.prod(
        instruction.number(rf"grid_{axis} = (\d+)") or 1 for axis in "xyz"
    )
    images = LAYER_IMAGES[name]
    arrays = re.findall(r"\b(f32|bf16)\[([\d,]+)\]", instruction.type)
    if name == "forward_layer":
        images += 0.4 * (len(arrays) == 3)  # keeps windows
    kind, shape = next((a for a in arrays if a[1].count(",") == 2), arrays[0])
    channels = int(shape.split(",")[-1])
    elements = Images(1, 1, 1, channels).tile * channels
    return programs * elements * SIZES[kind] * images


# Steps ------------------------------------------------------------------------------


class Step(NamedTuple):
    """A training step: name of the case, whether with kernels, architectures in it."""

    case: str
    kernels: bool = False
    num_archs: int = 1


STEPS = {name: Step(name) for name in gpu_check.CASES} | {
    "micro, kernels": Step("micro", True),
    "micro, kernels, 4 at once": Step("micro", True, 4),
}


def compile_step(step: Step) -> tuple[str, float]:
    """The text of a step that is compiled for an H100, and the seconds that it took."""
    size = gpu_check.SIZES["full"]
    if step.case == "micro":
        case = gpu_check.micro_case(size, step.num_archs)
    else:
        case = gpu_check.CASES[step.case](size)
    description = topologies.get_topology_desc(
        topology_name="h100", platform="cuda", topology="1x1x1", target_config=H100
    )
    sharding = SingleDeviceSharding(description.devices[0])
    args = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        (case.state, case.groups[0][: step.num_archs], case.batch),
    )
    os.environ["JAXNAS_GPU_KERNELS"] = str(int(step.kernels))
    _platforms._has_gpu = lambda: True  # of the description
    start = time.perf_counter()
    traced = jax.jit(lambda *args: case.advance(*args)).trace(*args)
    compiled = traced.lower(lowering_platforms=("cuda",)).compile()
    took = time.perf_counter() - start
    return compiled.as_text() or "", took


def count(name: str) -> dict[str, float]:
    """What a step does for each of its architectures."""
    step = STEPS[name]
    text, took = compile_step(step)
    total = Program(text).total
    return {
        "kernels": total.kernels / step.num_archs,
        "host_syncs": total.syncs / step.num_archs,
        "gigabytes": total.bytes / step.num_archs / 1e9,
        "modeled_milliseconds": 1e3 * total.seconds / step.num_archs,
        "compile_seconds": took,
    }


def main() -> None:
    """Count the steps that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--output", type=pathlib.Path, help="file for the numbers")
    args = parser.parse_args()
    unknown = [name for name in args.steps if name not in STEPS]
    if unknown:
        parser.error(f"{unknown[0]!r} is no step; expected some of {list(STEPS)}")
    found = {}
    for name in args.steps or STEPS:
        found[name] = count(name)
        print(f"{name}: {', '.join(f'{k} {v:.4g}' for k, v in found[name].items())}")
        if args.output is not None:
            versions = {"jax": jax.__version__, "device": "described H100"}
            text = json.dumps(versions | {"steps": found}, indent=1)
            args.output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
