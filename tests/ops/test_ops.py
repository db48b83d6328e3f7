"""Every operation equals its library version, in value and in gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas import genotypes, ops, spaces, supernets
from jaxnas.ops import convolutions

WEIGHTLESS = ("none", "avg_pool_3x3", "max_pool_3x3")
SIZE = (7, 8)  # an odd height and an even width


def convolve(x, kernel, strides=(1, 1), dilation=1, groups=1):
    """The library's convolution, padded to keep the size."""
    padding = [(dilation * (size // 2),) * 2 for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def depthwise(x, kernel, stride=1, dilation=1):
    groups = x.shape[-1]
    return convolve(x, kernel[:, :, None], (stride, stride), dilation, groups)


def pool(x, initial, function, stride):
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, initial, function, window, strides, padding)


def average(x, stride, count_include_pad=False):
    total = pool(x, 0.0, lax.add, stride)
    if count_include_pad:
        return total / 9
    return total / pool(jnp.ones_like(x), 0.0, lax.add, stride)


def maximum(x, stride):
    return pool(x, -jnp.inf, lax.max, stride)


def normalize(x):
    mean, variance = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)


def reduce_by_halves(x, kernel):
    halves = [
        convolve(shifted, kernel[i][None, None], (2, 2))
        for i, shifted in enumerate((x, x[:, 1:, 1:]))
    ]
    return jnp.concatenate(halves, -1)


def image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def assert_equal_with_gradients(actual, expected, *args):
    """Compare two functions, their vector-Jacobian products and their shapes."""
    cotangent = image(*jax.eval_shape(expected, *args).shape, seed=9)

    def run(function):
        def value_and_gradients(*args):
            value, pull_back = jax.vjp(function, *args)
            return value, pull_back(cotangent)

        return jax.jit(value_and_gradients)(*args)

    actual, expected = run(actual), run(expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-11)


# Primitives ---------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_depthwise_conv(x64, kernel_size, dilation, stride):
    assert_equal_with_gradients(
        lambda x, k: ops.depthwise_conv(x, k, stride=stride, dilation=dilation),
        lambda x, k: depthwise(x, k, stride, dilation),
        image(2, *SIZE, 3),
        image(kernel_size, kernel_size, 3, seed=1),
    )


# The gradient of the kernel is summed over chunks of images, not all of them full.
@pytest.mark.parametrize("batch", [17, 37])
def test_depthwise_conv_of_any_batch_size(x64, batch):
    args = image(batch, 4, 4, 2), image(3, 3, 2, seed=1)
    assert_equal_with_gradients(ops.depthwise_conv, depthwise, *args)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_avg_pool(x64, count_include_pad, stride):
    options = {"count_include_pad": count_include_pad}
    assert_equal_with_gradients(
        lambda x: ops.avg_pool_3x3(x, stride=stride, **options),
        lambda x: average(x, stride, **options),
        image(2, *SIZE, 3),
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool(x64, ties, stride):
    # Ties: of three values only; negative ones, so that padding with zeros would win.
    x = image(2, *SIZE, 3)
    x = jnp.clip(jnp.round(x), -1, 1) - 2 if ties else x
    assert_equal_with_gradients(
        lambda x: ops.max_pool_3x3(x, stride=stride),
        lambda x: maximum(x, stride),
        x,
    )


def test_the_first_of_equal_pixels_has_the_gradient_of_a_max_pool():
    gradient = jax.grad(lambda x: ops.max_pool_3x3(x).sum())(jnp.zeros((1, 3, 3, 1)))
    # Pixel (0, 0) is the first of the windows around it and its three neighbors.
    np.testing.assert_array_equal(gradient[0, ..., 0], [[4, 2, 0], [2, 1, 0], [0] * 3])


@pytest.mark.parametrize("shape", [(3, 4, 4, 6), (2, 6, 8, 3)])
def test_a_max_pool_of_equal_pixels_passes_on_the_whole_gradient(x64, shape):
    channels = shape[-1]
    constant = jnp.zeros(shape) + image(shape[0], 1, 1, channels)
    scale, offset = image(2, channels, seed=1)
    cotangent = image(*shape, seed=2)

    @jax.jit
    def pull_back(x):
        # Compiled together with the pool, and rounded as the compiler likes.
        x = ops.scale_and_offset(ops.batch_norm(x), scale, offset)
        return jax.vjp(ops.max_pool_3x3, x)[1](cotangent)[0]

    np.testing.assert_allclose(
        pull_back(constant).sum((1, 2)), cotangent.sum((1, 2)), rtol=1e-10
    )


@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("kernel_size", [(3, 3), (5, 5), (1, 7), (7, 1)])
def test_conv(x64, kernel_size, stride):
    assert_equal_with_gradients(
        lambda x, kernel: ops.conv(x, kernel, stride),
        lambda x, kernel: convolve(x, kernel, stride),
        *(image(2, 8, 7, 3), image(*kernel_size, 3, 4, seed=1)),
    )


@pytest.mark.parametrize(
    ("batch", "wanted", "chunks"),
    # Chunks have equal sizes: as many as wanted or the next number that divides. What
    # was compiled for one batch size is not compiled again.
    [(1, 3, 1), (7, 1, 1), (5, 2, 5), (9, 3, 3), (6, 4, 6)],
)
@pytest.mark.parametrize("kernel_size", [(3, 3), (5, 5), (1, 7)])
def test_conv_of_chunks(x64, monkeypatch, kernel_size, batch, wanted, chunks):
    x, kernel = image(batch, 6, 4, 3), image(*kernel_size, 3, 2, seed=1)
    limit = -(-x.nbytes * kernel_size[1] // wanted)
    monkeypatch.setattr(convolutions, "_BYTES_OF_COLUMNS", limit)

    def conv(x, kernel):
        return ops.conv(x, kernel, (1, 1))

    assert f"length={chunks}\n" in str(jax.make_jaxpr(conv)(x, kernel))
    assert_equal_with_gradients(conv, convolve, x, kernel)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (5, 3)])
def test_transposed_conv(x64, kernel_size, stride):
    def transposed(y, kernel):
        x = jnp.zeros((2, 3 * stride[0], 2 * stride[1], 4))
        return jax.vjp(lambda x: convolve(x, kernel, stride), x)[1](y)[0]

    assert_equal_with_gradients(
        lambda y, kernel: ops.transposed_conv(y, kernel, stride),
        transposed,
        *(image(2, 3, 2, 5), image(*kernel_size, 4, 5, seed=1)),
    )


def test_pointwise_conv(x64):
    assert_equal_with_gradients(
        ops.pointwise_conv,
        lambda x, kernel: convolve(x, kernel[None, None]),
        *(image(2, 4, 3, 5), image(5, 2, seed=1)),
    )


# The last number counts convolutions in a program for a GPU: value, two gradients.
PLATFORM_CASES = {
    "conv": (lambda x, k: ops.conv(x, k, (1, 1)), (3, 3, 4, 6), 3),
    "strided conv": (lambda x, k: ops.conv(x, k, (2, 1)), (5, 3, 4, 6), 3),
    "transposed conv": (
        lambda x, k: ops.transposed_conv(x, k, (2, 1)),
        (5, 3, 6, 4),
        3,
    ),
    "depthwise conv": (lambda x, k: ops.depthwise_conv(x, k, dilation=2), (5, 5, 4), 3),
    "strided depthwise conv": (
        lambda x, k: ops.depthwise_conv(x, k, stride=2),
        (3, 3, 4),
        3,
    ),
    "1x1 conv": (ops.pointwise_conv, (4, 6), 0),
}


def lower(function, platform, *args) -> str:
    """StableHLO of a program for a platform that need not be there."""
    traced = jax.jit(function).trace(*args)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("name", PLATFORM_CASES)
def test_a_program_has_the_form_for_its_own_platform(name):
    apply, shape, num_convolutions = PLATFORM_CASES[name]

    def gradients(x, kernel):
        return jax.value_and_grad(lambda *args: apply(*args).sum(), (0, 1))(x, kernel)

    args = jnp.zeros((2, 8, 6, 4)), jnp.zeros(shape)
    cpu, cuda = (lower(gradients, platform, *args) for platform in ("cpu", "cuda"))
    assert cpu.count("stablehlo.convolution") == 0
    assert cuda.count("stablehlo.convolution") == num_convolutions
    # Groups of pixels that are multiplied one by one stay in a processor's cache.
    assert "batching_dims = [0] x [0]" in cpu or "depthwise" in name
    assert "batching_dims" not in cuda
    # A depthwise kernel has one input channel: its groups are the channels.
    grouped = ["feature_group_count = 4" in text for text in (cpu, cuda)]
    assert grouped == [False, "depthwise" in name]


@pytest.mark.parametrize("name", PLATFORM_CASES)
def test_both_forms_of_an_operation_are_equal(x64, monkeypatch, name):
    apply, shape, _ = PLATFORM_CASES[name]
    args = image(2, 8, 6, 4), image(*shape, seed=1)
    value, pull_back = jax.vjp(apply, *args)
    cotangent = image(*value.shape, seed=2)
    gradients = pull_back(cotangent)
    monkeypatch.setattr(
        lax, "platform_dependent", lambda *args, default, **others: default(*args)
    )
    other_value, pull_back = jax.vjp(apply, *args)
    np.testing.assert_allclose(other_value, value, rtol=1e-10, atol=1e-11)
    chex.assert_trees_all_close(pull_back(cotangent), gradients, rtol=1e-10, atol=1e-11)


def test_a_supernet_has_the_forms_of_its_own_platform():
    """Under the choices between operations and the loops over cells as well."""
    space = spaces.MicroSpace(1, ("skip_connect", "sep_conv_3x3"))
    net = supernets.micro(space, channels=4, num_cells=3)
    params = jax.eval_shape(net.init, jax.random.key(0))
    arch, images = jnp.zeros(8, jnp.int32), jnp.zeros((2, 8, 8, 3))
    gradient = jax.grad(lambda params: net.apply(params, arch, images).sum())
    cpu, cuda = (lower(gradient, platform, params) for platform in ("cpu", "cuda"))
    assert "stablehlo.convolution" not in cpu
    assert "feature_group_count = 4" in cuda


def test_factorized_reduce(x64):
    args = image(2, 4, 6, 3), image(2, 3, 2, seed=1)
    assert_equal_with_gradients(ops.factorized_reduce, reduce_by_halves, *args)


@pytest.mark.parametrize("size", [(5, 4), (4, 5)])
def test_factorized_reduce_refuses_odd_images(size):
    message = f"{size[0]}x{size[1]} cannot be halved; .* divisible by 4"
    with pytest.raises(ValueError, match=message):
        ops.factorized_reduce(jnp.zeros((1, *size, 2)), jnp.zeros((2, 2, 1)))


def test_factorized_reduce_refuses_odd_channels():
    assert ops.factorized_reduce_spec(3, 4) == ops.WeightSpec((2, 3, 2), 3)
    with pytest.raises(ValueError, match="to 5 channels: expected an even number"):
        ops.factorized_reduce_spec(4, 5)


def test_batch_norm(x64):
    x = 3 * image(4, 3, 2, 5) + 2
    assert_equal_with_gradients(ops.batch_norm, normalize, x)
    wide = ops.batch_norm(x, epsilon=10.0)
    np.testing.assert_allclose(wide.var((0, 1, 2)), (v := x.var((0, 1, 2))) / (v + 10))


def test_batch_norm_over_a_mapped_axis(x64):
    def sharded(x):
        shards = x.reshape(4, 2, *x.shape[1:])
        norm = jax.vmap(
            lambda x: ops.batch_norm(x, batch_axis="devices"), axis_name="devices"
        )
        return norm(shards).reshape(x.shape)

    assert_equal_with_gradients(sharded, normalize, image(8, 3, 2, 5))


def test_batch_norm_has_statistics_in_single_precision():
    # In bfloat16 the mean of squares, 10^4, is a multiple of 64.
    x = (100 + image(4, 3, 2, 5)).astype(jnp.bfloat16)
    y = ops.batch_norm(x)
    assert y.dtype == jnp.bfloat16
    expected = normalize(x.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.02, atol=0.02)


def test_batch_norm_of_a_constant_channel_is_finite():
    x = jnp.full((4, 8, 8, 1), 100.1)
    value, gradient = jax.value_and_grad(lambda x: ops.batch_norm(x).sum())(x)
    assert np.isfinite(value) and np.isfinite(gradient).all()


# The primitives -----------------------------------------------------------------------


def separable(dilation, x, weights, stride):
    for kernel, mix in zip(weights["depthwise"], weights["pointwise"], strict=True):
        x = depthwise(jax.nn.relu(x), kernel, stride, dilation)
        x, stride = normalize(convolve(x, mix[None, None])), 1
    return x


def skip(x, weights, stride):
    if stride == 1:
        return x
    return normalize(reduce_by_halves(jax.nn.relu(x), weights["kernel"]))


def conv_7x1_1x7(x, weights, stride):
    x = convolve(jax.nn.relu(x), weights["kernel_1x7"], (1, stride))
    return normalize(convolve(x, weights["kernel_7x1"], (stride, 1)))


# The definition of each operation; a new one adds a row.
REFERENCES = {
    "none": lambda x, weights, stride: jnp.zeros_like(x)[:, ::stride, ::stride],
    "avg_pool_3x3": lambda x, weights, stride: average(x, stride),
    "max_pool_3x3": lambda x, weights, stride: maximum(x, stride),
    "skip_connect": skip,
    "sep_conv_3x3": lambda *args: separable(1, *args),
    "sep_conv_5x5": lambda *args: separable(1, *args),
    "sep_conv_7x7": lambda *args: separable(1, *args),
    "dil_conv_3x3": lambda *args: separable(2, *args),
    "dil_conv_5x5": lambda *args: separable(2, *args),
    "conv_1x1": lambda x, weights, stride: normalize(
        convolve(jax.nn.relu(x), weights["kernel"][None, None], (stride, stride))
    ),
    "conv_7x1_1x7": conv_7x1_1x7,
}


class Reads(dict):
    """Weights that remember which of them were read."""

    def __init__(self, weights):
        super().__init__(weights)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


def test_the_primitives_have_every_operation_of_a_genotype():
    named = {*genotypes.OPS, *genotypes.DAG_OPS}
    assert set(ops.primitives()) == named == set(REFERENCES)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", REFERENCES)
def test_operation(x64, name, stride):
    op = ops.primitives()[name]
    x = image(3, 6, 8, 4)
    weights = Reads(ops.init(jax.random.key(0), op.specs(4, stride)))
    y = op.apply(x, weights, stride, ops.batch_norm)
    chex.assert_shape(y, (3, 6 // stride, 8 // stride, 4))
    assert weights.names == set(weights)
    expected = REFERENCES[name](x, weights, stride)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "stride", "total"),
    [
        # Two layers of k * k * C + C * C, one, 2 * 7 * C * C, C * C; C is 4.
        ("sep_conv_3x3", 1, 2 * (9 * 4 + 16)),
        ("sep_conv_5x5", 2, 2 * (25 * 4 + 16)),
        ("sep_conv_7x7", 1, 2 * (49 * 4 + 16)),
        ("dil_conv_3x3", 1, 9 * 4 + 16),
        ("dil_conv_5x5", 2, 25 * 4 + 16),
        ("conv_1x1", 2, 16),
        ("conv_7x1_1x7", 1, 14 * 16),
        ("skip_connect", 1, 0),
        ("skip_connect", 2, 16),
        *((name, stride, 0) for name in WEIGHTLESS for stride in (1, 2)),
    ],
)
def test_number_of_weights(name, stride, total):
    specs = ops.primitives()[name].specs(4, stride)
    assert sum(np.prod(spec.shape, dtype=int) for spec in specs.values()) == total


def test_average_pools_count_the_padding_on_request():
    x = jnp.ones((1, 4, 4, 1))
    pools = [
        ops.primitives(count_include_pad=counts)["avg_pool_3x3"]
        for counts in (False, True)
    ]
    inside, outside = (pool.apply(x, {}, 1, ops.batch_norm)[0, 0, 0] for pool in pools)
    np.testing.assert_allclose([inside[0], outside[0]], [1, 4 / 9], rtol=1e-6)


def test_a_strided_skip_refuses_odd_channels():
    specs = ops.primitives()["skip_connect"].specs
    assert specs(3, 1) == {}
    with pytest.raises(ValueError, match="to 3 channels: expected an even number"):
        specs(3, 2)


# How many normalizations an operation has; those not listed have none.
NUM_NORMS = {
    ("skip_connect", 2): 1,
    **{
        (name, stride): num
        for stride in (1, 2)
        for name, num in {
            "sep_conv_3x3": 2,
            "sep_conv_5x5": 2,
            "sep_conv_7x7": 2,
            "dil_conv_3x3": 1,
            "dil_conv_5x5": 1,
            "conv_1x1": 1,
            "conv_7x1_1x7": 1,
        }.items()
    },
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", REFERENCES)
def test_affine_norms(x64, name, stride):
    plain = ops.primitives()[name]
    op = ops.with_affine_norms(plain)
    num_norms = NUM_NORMS.get((name, stride), 0)
    affine = ops.affine_specs(num_norms, 4) if num_norms else {}
    specs = op.specs(4, stride)
    assert specs == plain.specs(4, stride) | affine

    weights = ops.init(jax.random.key(0), specs)
    affine = {"scale": image(num_norms, 4, seed=1), "offset": image(num_norms, 4)}
    weights |= affine if num_norms else {}

    def layer_by_layer(x, weights):
        """One normalization at a time: it comes last in each layer."""
        if not num_norms:
            return REFERENCES[name](x, weights, stride)
        for n in range(num_norms):
            layer = dict(weights)
            if "depthwise" in weights:
                layer["depthwise"] = weights["depthwise"][n : n + 1]
                layer["pointwise"] = weights["pointwise"][n : n + 1]
            y = REFERENCES[name](x, layer, stride if n == 0 else 1)
            scale, offset = weights["scale"][n], weights["offset"][n]
            x = y * scale[None, None, None] + offset[None, None, None]
        return x

    assert_equal_with_gradients(
        lambda x, weights: op.apply(x, weights, stride, ops.batch_norm),
        layer_by_layer,
        *(image(3, 6, 8, 4, seed=2), weights),
    )


# Initial weights ----------------------------------------------------------------------

SPECS = {
    "a": ops.WeightSpec((20, 30), 4),
    "b": [ops.WeightSpec((7,), 100), ops.WeightSpec((5,), 25).stack(40, 3)],
}


def test_draw_is_uniform_within_the_bounds_of_each_spec():
    weights = ops.init(jax.random.key(0), SPECS)
    chex.assert_shape([weights["a"], *weights["b"]], [(20, 30), (7,), (40, 3, 5)])
    for leaf, bound in ((weights["a"], 0.5), (weights["b"][1], 0.2)):
        assert np.abs(leaf).max() <= bound
        # Of 600 values: the extremes, and the mean within five standard errors.
        assert leaf.min() < -0.97 * bound and leaf.max() > 0.97 * bound
        assert abs(leaf.mean()) < 5 * bound / np.sqrt(3 * 600)
    assert np.abs(weights["b"][0]).max() <= 0.1


def test_draw_is_determined_by_the_key():
    first = ops.init(jax.random.key(0), SPECS)
    again = ops.init(jax.random.key(0), SPECS)
    other = ops.init(jax.random.key(1), SPECS)
    chex.assert_trees_all_equal(first, again)
    assert not (first["a"] == other["a"]).any()
    # Stacked copies are independent.
    copies = first["b"][1].reshape(-1)
    assert np.unique(copies).size == copies.size


def test_draw_of_normal_values_has_the_scale_of_he():
    weights = ops.init(jax.random.key(0), SPECS, "he_normal")
    chex.assert_shape([weights["a"], *weights["b"]], [(20, 30), (7,), (40, 3, 5)])
    for leaf, fan_in in ((weights["a"], 4), (weights["b"][1], 25)):
        deviation = np.sqrt(2 / fan_in)
        # Of 600 values: within five standard errors, and the tails of a Gaussian.
        assert abs(leaf.mean()) < 5 * deviation / np.sqrt(600)
        assert abs(leaf.std() - deviation) < 5 * deviation / np.sqrt(2 * 600)
        beyond = (np.abs(leaf) > 2 * deviation).mean()
        assert abs(beyond - 0.0455) < 5 * np.sqrt(0.0455 * 0.9545 / 600)
    again = ops.init(jax.random.key(0), SPECS, "he_normal")
    other = ops.init(jax.random.key(1), SPECS, "he_normal")
    chex.assert_trees_all_equal(weights, again)
    assert not (weights["a"] == other["a"]).any()


@pytest.mark.parametrize("distribution", ["uniform", "he_normal"])
def test_draw_keeps_constants(distribution):
    half = ops.WeightSpec((2,), 9, 0.5).stack(3)
    specs = {"affine": ops.affine_specs(3, 4), "half": half, **SPECS}
    weights = ops.init(jax.random.key(0), specs, distribution)
    expected = {"scale": jnp.ones((3, 4)), "offset": jnp.zeros((3, 4))}
    chex.assert_trees_all_equal(weights["affine"], expected)
    np.testing.assert_array_equal(weights["half"], np.full((3, 2), 0.5))
    # They take no random numbers from the others.
    others = ops.init(jax.random.key(0), SPECS, distribution)
    chex.assert_trees_all_equal({name: weights[name] for name in SPECS}, others)
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {jnp.float32.dtype}


def test_draw_of_no_weights():
    assert ops.init(jax.random.key(0), {}) == {}
