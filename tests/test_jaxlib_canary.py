"""Programs that some versions of jaxlib compute wrongly on CPU, without a message.

The fault lies in XLA's fusion of reductions by YNNPACK, on by default from jaxlib
0.10.2. A pattern that is known to be wrong in the installed version is an expected
failure, and shown as passed if it comes out right (what is read there is not the same
in each process). A version that is not listed has to be right. What jaxnas computes
itself is held against double precision by `test_conformance_float64.py`.
"""

import functools
import importlib.metadata
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.optimized

VERSION = importlib.metadata.version("jaxlib")
# Turns the fusion off; `XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=` does so for
# a whole process.
WITHOUT_FUSION = {"xla_cpu_experimental_ynn_fusion_type": ""}


def squared_product(x):
    """https://github.com/jax-ml/jax/issues/39103, of 32,769 rows `[n, 0, 0]`."""
    matrix = jnp.eye(3)
    return jax.vmap(lambda row: jnp.square(matrix @ row).sum())(x)


def product_with_constants(x):
    """The derivative of a sum over a batch of matrices, times the matrices."""
    return ((x @ jnp.full_like(x, 0.5)) * x).sum(-1)


def reduction_of_rank_7(x):
    """https://github.com/jax-ml/jax/issues/40412 and 39257: a crash."""
    return (x * jnp.flip(x, 4)).sum(3)


def rows():
    x = np.zeros((32769, 3), np.float32)
    x[:, 0] = np.arange(32769)
    return x, np.square(x.astype(np.float64)).sum(-1)


def matrices():
    x = np.random.default_rng(0).standard_normal((5, 60, 60)).astype(np.float32)
    wide = x.astype(np.float64)
    return x, (wide.sum(-1, keepdims=True) * 0.5 * wide).sum(-1)


def rank_7():
    shape = 3, 1, 2, 2, 8, 8, 8
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wide = x.astype(np.float64)
    return x, (wide * np.flip(wide, 4)).sum(3)


# The program, its argument with the right result, and versions known to be wrong.
PATTERNS = {
    "squared product": (squared_product, rows, ("0.10.2",)),
    "product with constants": (
        product_with_constants,
        matrices,
        ("0.10.2", "0.11.2", "0.12.0.1"),
    ),
    "reduction of rank 7": (reduction_of_rank_7, rank_7, ("0.10.2", "0.11.0")),
}


def relative_error(name: str, options: dict) -> float:
    function, example, _ = PATTERNS[name]
    x, expected = example()
    actual = np.asarray(jax.jit(function, compiler_options=options)(x))
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@functools.cache
def errors(name: str) -> dict[str, float]:
    """Relative errors by a process of its own, without those that crashed it."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    result = subprocess.run(
        [sys.executable, __file__, name],
        env=environment | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    return dict(map(json.loads, result.stdout.splitlines()))


@pytest.mark.parametrize("name", PATTERNS)
def test_right_by_default(name, request):
    if VERSION in PATTERNS[name][-1]:
        reason = f"known to be wrong in jaxlib {VERSION}"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=False))
    assert "default" in errors(name), f"crashed jaxlib {VERSION}"
    assert errors(name)["default"] < 1e-5, f"wrong in jaxlib {VERSION}: list it"


@pytest.mark.parametrize("name", PATTERNS)
def test_right_without_the_fusion(name):
    assert errors(name)["without fusion"] < 1e-5


if __name__ == "__main__":
    for label, options in (("without fusion", WITHOUT_FUSION), ("default", {})):
        error = relative_error(sys.argv[1], options)
        print(json.dumps((label, error)), flush=True)
