"""The plain residual network."""

import jax
import jax.numpy as jnp
import pytest

from jaxnas import networks


@pytest.mark.parametrize(
    ("num_blocks", "published"), [(3, 0.27e6), (5, 0.46e6), (7, 0.66e6), (9, 0.85e6)]
)
def test_sizes_are_those_of_the_paper(num_blocks, published):
    # He et al. 2016, table 6; projections have some more parameters than paddings.
    num_params = networks.count_params(networks.residual(16, num_blocks), (32, 32, 3))
    assert num_params == pytest.approx(published, rel=0.025)


@pytest.mark.parametrize("size", [(8, 8, 1), (9, 7, 3)])
def test_images_of_any_size(size):
    network = networks.residual(2, 1, 5)
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((2, *size)), train=True)
    )
    logits = jax.eval_shape(
        lambda variables: network.apply(variables, jnp.zeros((2, *size)), train=False),
        shapes,
    )
    assert logits.shape == (2, 5)
    assert networks.count_params(network, size) == sum(
        leaf.size for leaf in jax.tree.leaves(shapes["params"])
    )


def test_a_block_adds_to_its_input():
    network = networks.residual(2, 1, 3)
    images = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    variables = jax.jit(lambda: network.init(jax.random.key(1), images, train=False))()
    # With kernels of 0, a block of the first stage is the identity.
    params = dict(variables["params"])
    params["stage_0_block_0"] = jax.tree.map(jnp.zeros_like, params["stage_0_block_0"])

    @jax.jit
    def stages(params):
        variables_now = {**variables, "params": params}
        with jax.numpy_dtype_promotion("standard"):
            _, found = network.apply(
                variables_now, images, train=False, capture_intermediates=True
            )
        of = found["intermediates"]
        return of["stem"]["__call__"][0], of["stage_0_block_0"]["__call__"][0]

    stem, block = stages(params)
    assert jnp.allclose(block, jax.nn.relu(stem))
    assert not jnp.allclose(stages(variables["params"])[1], jax.nn.relu(stem))


def test_wrong_numbers():
    with pytest.raises(ValueError, match="num_blocks is 0; expected"):
        networks.residual(16, 0)
    with pytest.raises(ValueError, match="dropout is 1"):
        networks.residual(dropout=1.0)
