"""The autoencoder that is trained from scratch: the supernet's function, and sizes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas import genotypes, networks, spaces, supernets
from jaxnas.genotypes import AutoencoderGenotype

TAPS = {1: slice(0, 1), 3: slice(1, 10), 5: slice(10, 35)}
IMAGE = 64, 64, 3


def shapes(network, image_shape):
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.zeros(()).dtype)
    init = functools.partial(network.init, train=True)
    return jax.eval_shape(init, jax.random.key(0), image)


def apply(network, params, images) -> Any:
    return network.apply({"params": params}, images, train=True)


def init(network, images) -> Any:
    return network.init(jax.random.key(1), images, train=True)["params"]


# Weights of E-CAE's layers for the center mask, whose first one reads 3 channels:
# kernel sizes squared, channels in, channels out.
CELEBA_ENCODER = (
    *((9, 3, 128), (9, 128, 64), (25, 64, 128), (1, 128, 128)),
    *((25, 128, 256), (1, 256, 256), (25, 256, 64)),
)
CELEBA_DECODER = (
    *((25, 64, 64), (1, 64, 256), (25, 256, 256), (1, 256, 128)),
    *((25, 128, 128), (9, 128, 64), (9, 64, 128), (1, 128, 3)),
)


def test_count_of_a_published_network():
    network = networks.autoencoder(genotypes.named("ECAE_CELEBA"))
    expected = sum(a * b * c for a, b, c in CELEBA_ENCODER + CELEBA_DECODER)
    assert networks.count_params(network, IMAGE) == expected
    variables = shapes(network, IMAGE)
    assert set(variables) == {"params"}
    assert variables["params"]["encoder_2"].shape == (5, 5, 64, 128)
    assert variables["params"]["decoder_5"].shape == (1, 1, 256, 64)


def copied(genotype, nodes, weights, params):
    """The supernet's weights of nodes, as parameters of these shapes."""
    found = {}
    for name, wanted in params.items():
        *_, large, small = wanted.shape
        if name == "output":
            taps = weights["output"][:, :large, :small]
        else:
            part, i = name.split("_")
            skip, size = int(genotype.skips[int(i)]), genotype.kernels[int(i)]
            taps = weights[part][nodes[int(i)], skip, TAPS[size], :large, :small]
        found[name] = taps.reshape(wanted.shape)
    return found


@pytest.fixture(scope="module")
def supernet():
    """A supernet, compiled, with weights and images in double precision."""
    space = spaces.AutoencoderSpace(6, 3, (2, 5), "mixed")
    net = supernets.autoencoder(space, 2)
    with jax.enable_x64(True):
        weights = jax.jit(net.init)(jax.random.key(0))
        images = jax.random.normal(jax.random.key(1), (2, 4, 2, 2))
        return space, jax.jit(net.apply), weights, images


@pytest.mark.parametrize("seed", range(4))
def test_with_its_weights_it_is_the_supernet(x64, supernet, seed):
    space, evaluate, weights, images = supernet
    arch = space.sample(jax.random.key(seed))
    genotype = space.decode(arch)
    source, number = space.choices(arch).source, int(space.choices(arch).output)
    nodes = []
    while number > 0:
        nodes.append(number - 1)
        number = int(source[number - 1])
    network = networks.autoencoder(genotype)
    params = shapes(network, images.shape[1:])["params"]
    params = copied(genotype, nodes[::-1], weights, params)
    outputs = apply(network, params, images)
    np.testing.assert_allclose(outputs, evaluate(weights, arch, images), rtol=1e-9)


def test_nodes_that_cannot_halve_are_passed_over(x64):
    # Two nodes halve 4x8 to 1x2; the third is not there.
    genotype = AutoencoderGenotype(
        (3, 1, 3, 5, 1),
        (4, 3, 2, 7, 6),
        (2, 2, 1, 2, 1),
        (False, False, True, False, True),
    )
    network = networks.autoencoder(genotype)
    images = jax.random.normal(jax.random.key(0), (2, 4, 8, 3))
    params = init(network, images)
    nodes = ("0", "1", "2", "4")
    assert set(params) == {
        *(f"{part}_{i}" for part in ("encoder", "decoder") for i in nodes),
        "output",
    }
    without = genotype._replace(
        **{
            name: values[:3] + values[4:]
            for name, values in genotype._asdict().items()
            if name != "output_kernel"
        }
    )
    renamed = {name.replace("4", "3"): p for name, p in params.items()}
    expected = apply(networks.autoencoder(without), renamed, images)
    np.testing.assert_array_equal(apply(network, params, images), expected)


def test_skips_are_added_before_the_activation(x64):
    genotype = AutoencoderGenotype((1,), (1,), (1,), (True,), output_kernel=1)
    images = jnp.array([-1.0, 2.0]).reshape(1, 1, 2, 1).repeat(2, 1)
    params = {
        name: jnp.full((1, 1, 1, 1), value)
        for name, value in (("encoder_0", 1.0), ("decoder_0", -3.0), ("output", 1.0))
    }

    def outputs(genotype):
        return apply(networks.autoencoder(genotype), params, images)[0, 0, :, 0]

    assert outputs(genotype).tolist() == [0, 0]
    params["decoder_0"] *= 0.25
    # 2, and -0.75 times that.
    assert outputs(genotype).tolist() == [0, 0.5]
    assert outputs(genotype._replace(skips=(False,))).tolist() == [0, 0]


def test_initial_weights_have_the_range_of_pytorch():
    genotype = AutoencoderGenotype((3, 5), (16, 8), (1, 2), (True, False))
    network = networks.autoencoder(genotype)
    params = init(network, jnp.zeros((1, 4, 4, 2)))
    # Taps and, of a transposed convolution, channels out.
    fans = {"encoder_0": 9 * 2, "encoder_1": 25 * 16, "decoder_1": 25 * 8}
    fans |= {"decoder_0": 9 * 16, "output": 9 * 2}
    for name, fan in fans.items():
        largest = float(jnp.abs(params[name]).max())
        assert 0.9 / fan**0.5 < largest <= 1 / fan**0.5


def test_the_decoder_transposes_the_library_s_convolution(x64):
    genotype = AutoencoderGenotype((3,), (4,), (2,), (False,))
    network = networks.autoencoder(genotype)
    images = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    params = init(network, images)

    def convolve(x, kernel, stride):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride,) * 2,
            [(1, 1)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def transposed(x, kernel, stride, like):
        return jax.vjp(lambda y: convolve(y, kernel, stride), like)[1](x)[0]

    code = jax.nn.relu(convolve(images, params["encoder_0"], 2))
    maps = transposed(code, params["decoder_0"], 2, jnp.zeros((2, 4, 6, 4)))
    expected = transposed(jax.nn.relu(maps), params["output"], 1, images)
    outputs = apply(network, params, images)
    np.testing.assert_allclose(outputs, expected, rtol=1e-9, atol=1e-12)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="node 0: the kernel is 2; expected one of"):
        networks.autoencoder(AutoencoderGenotype((2,), (4,), (1,), (True,)))
    network = networks.autoencoder(genotypes.named("ECAE_SVHN"))
    for call in (shapes, networks.count_params):
        with pytest.raises(ValueError, match="images of 63x64 cannot be halved; image"):
            call(network, (63, 64, 3))
