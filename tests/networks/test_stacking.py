import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import analysis, genotypes, networks


def params_of(network):
    image = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(
        lambda: network.init(jax.random.key(0), image, train=True)["params"]
    )


@pytest.mark.parametrize(
    "network",
    [
        networks.micro(genotypes.named("NASNet"), 4, 9, auxiliary=True),
        networks.micro(genotypes.named("AmoebaNet"), 4, 8),
        networks.micro(genotypes.named("ENAS_MICRO"), 4, 9, skeleton="enas"),
        networks.macro(genotypes.named("ENAS_MACRO"), 4),
        networks.dag(genotypes.named("GHN"), 4, 9),
        networks.dag(
            genotypes.named("GHN"), 4, 9, node_input="each", last_bottleneck=True
        ),
    ],
    ids=["nasnet", "amoebanet", "enas", "macro", "dag", "dag as in the supernet"],
)
def test_what_is_left_are_arrays_of_a_known_shape(network):
    """Kernels `[h, w, in, out]`, `[k, k, C]` and `[in, out]`, and vectors."""
    params = params_of(network)
    found = set()

    def check(path, leaf, num_stacked):
        name = path[-1].key
        shape = leaf.shape[num_stacked:]
        found.add((name, len(shape), num_stacked))
        if name == "depthwise":
            assert len(shape) == 3 and shape[0] == shape[1] in (3, 5, 7)
        elif len(shape) == 4:
            assert max(shape[:2]) in (1, 2, 3, 5, 7)
        else:
            assert len(shape) in (1, 2)
        is_scanned = any("_to_" in entry.key for entry in path)
        assert num_stacked <= 1 + is_scanned
        assert num_stacked >= is_scanned

    jax.tree_util.tree_map_with_path(check, params, networks.num_batch_dims(params))
    assert len(found) > 4


def test_planes_of_a_network_move_filters_but_no_normalization():
    network = networks.micro(genotypes.named("DARTS"), 2, 9, 3)
    params = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=True)
    params = params["params"]
    stacks = networks.num_batch_dims(params)
    plane = jax.jit(
        lambda params: analysis.random_plane(jax.random.key(1), params, stacks)
    )(params)

    def check(path, weights, direction, num_stacked):
        name = path[-1].key
        if name in ("scale", "bias"):
            assert not direction.any()
            return
        axes = tuple(range(num_stacked, weights.ndim - 1))
        assert axes
        np.testing.assert_allclose(
            np.sqrt(np.square(direction).sum(axes)),
            np.sqrt(np.square(weights).sum(axes)),
            rtol=1e-4,
        )

    jax.tree_util.tree_map_with_path(check, params, plane.first, stacks)
