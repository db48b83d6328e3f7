"""The PyTorch sides of `gpu_check.py`: as many weights, and the same architectures.

python -m pytest benchmarks/bench_gpu_check.py
"""

import gpu_check
import jax
import pytest

pytest.importorskip("torch")


@pytest.mark.filterwarnings("default")  # torch.compile warns about code of its own
@pytest.mark.parametrize("name", gpu_check.CASES)
def test_pytorch_takes_the_same_architectures(name):
    gpu_check.torch_settings()
    case = gpu_check.CASES[name](gpu_check.SIZES["tiny"])
    num_weights = sum(leaf.size for leaf in jax.tree.leaves(case.state.params))
    for variant in case.variants.values():
        model = case.make_model(variant)
        assert sum(p.numel() for p in model.parameters()) == num_weights
    assert gpu_check.torch_sides(case, case.variants, {})
