"""All that is computed, compiled in float32 by default flags, equals float64.

Every entry of the table is a function and its arguments. It runs as users run it, and
again in double precision, hardly optimized and by other emitters: a compiler that fuses
sums wrongly (see `test_jaxlib_canary.py`) would have to be wrong twice in the same way.
Networks are shallow: batch normalization amplifies rounding from layer to layer, in
deep networks to 1e-2 of a gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import emitter_options

from jaxnas import (
    analysis,
    genotypes,
    ghn,
    networks,
    ops,
    search,
    spaces,
    supernets,
    train,
)
from jaxnas.train import from_scratch

pytestmark = pytest.mark.optimized

QUICK = {"xla_backend_optimization_level": 0, **emitter_options()}
TASK = train.classification()
MICRO = spaces.MicroSpace(1, ("max_pool_3x3", "sep_conv_3x3"))
MACRO = spaces.MacroSpace(3, ("conv_3x3", "max_pool_3x3"))
DAG = spaces.ghn_dag(4, ops=("sep_conv_3x3", "avg_pool_3x3"))
RECURRENT = spaces.enas_recurrent(3)
AUTOENCODER = spaces.AutoencoderSpace(4, 3, (2, 4))
MIXED = spaces.AutoencoderSpace(4, 3, (2, 4), "mixed")
ANYTIME = spaces.anytime((2, 1, 1), (1, 1, 1))
CELL = genotypes.Genotype(
    normal=(("sep_conv_3x3", 0), ("avg_pool_3x3", 1)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("dil_conv_3x3", 1)),
    reduce_concat=(2,),
)


def batch(num=8, side=8):
    rng = np.random.default_rng(0)
    return {
        "image": rng.standard_normal((num, side, side, 3)).astype(np.float32),
        "label": rng.integers(0, 10, num).astype(np.int32),
    }


# Loss and gradient of networks ----------------------------------------------------


def few(net):
    """Three architectures."""
    return jax.vmap(net.space.sample)(jax.random.split(jax.random.key(1), 3))


def of_operations():
    """The operations that no network below has, and gradients of their squares."""
    variants = {
        (name, stride): ops.with_affine_norms(ops.primitives()[name])
        for name, stride in [
            ("sep_conv_5x5", 1),
            ("sep_conv_7x7", 2),
            ("dil_conv_5x5", 2),
            ("conv_7x1_1x7", 2),
            ("skip_connect", 2),
            ("avg_pool_3x3", 2),
        ]
    }

    def loss(weights, x):
        outputs = {
            variant: op.apply(x, weights[variant], variant[1], ops.batch_norm)
            for variant, op in variants.items()
        }
        squares = [jnp.square(y - 0.5).mean() for y in outputs.values()]
        return jnp.stack(squares).sum(), outputs

    specs = {variant: op.specs(4, variant[1]) for variant, op in variants.items()}
    weights = ops.init(jax.random.key(0), specs)
    x = np.random.default_rng(0).standard_normal((8, 8, 8, 4)).astype(np.float32)
    run = jax.value_and_grad(loss, (0, 1), has_aux=True)
    return run, [(weights, x)]


def of_supernet(net, side=8):
    def loss(params, arch, batch):
        outputs = net.apply(params, arch, batch["image"])
        if outputs.ndim == 4:  # images
            return jnp.square(outputs - batch["image"]).mean()
        task = TASK if outputs.ndim == 2 else train.multi_exit_classification()
        return task.loss(outputs, batch)[0]

    params = jax.jit(net.init, compiler_options=QUICK)(jax.random.key(0))
    examples = batch(side=side)
    return jax.value_and_grad(loss), [(params, arch, examples) for arch in few(net)]


def of_hypernetwork(net):
    """The weights that it predicts, and the gradient of their sum of squares."""
    provider = ghn.hypernetwork(net, 8, 2, decoder_size=8)

    def loss(params, arch):
        predicted = provider.apply(params, arch)
        squares = [jnp.square(leaf).sum() for leaf in jax.tree.leaves(predicted)]
        return jnp.stack(squares).sum(), predicted

    params = jax.jit(provider.init, compiler_options=QUICK)(jax.random.key(0))
    run = jax.value_and_grad(loss, has_aux=True)
    return run, [(params, arch) for arch in few(net)]


def of_network(network):
    """A training step's gradient and statistics, and the evaluation after it."""
    optimizer = optax.sgd(0.01)
    step = from_scratch.train_step(network, TASK, optimizer)
    evaluate = train.network_evaluation_step(network, TASK)
    examples = batch()

    def init(key):
        return network.init(key, examples["image"], train=True)

    variables = jax.jit(init, compiler_options=QUICK)(jax.random.key(0))

    def run(params, batch_stats, batch):
        key = jax.random.key(2)
        state = train.TrainState(
            jnp.int32(0), key, params, batch_stats, optimizer.init(params), {}
        )
        state, metrics = step(state, batch, key, None)
        moved = jax.tree.map(jnp.subtract, state.params, params)
        evaluated = evaluate(state.params, state.batch_stats, batch)
        return moved, state.batch_stats, metrics["loss"], evaluated["loss"]

    return run, [(variables["params"], variables["batch_stats"], examples)]


def of_autoencoder(genotype):
    """Loss and gradient of a network that makes images."""
    network, examples = networks.autoencoder(genotype), batch(side=4)

    def init(key):
        return network.init(key, examples["image"], train=True)

    def loss(variables, batch):
        outputs = network.apply(variables, batch["image"], train=True)
        return jnp.square(outputs - batch["image"]).mean()

    variables = jax.jit(init, compiler_options=QUICK)(jax.random.key(0))
    return jax.value_and_grad(loss), [(variables, examples)]


def of_restoration():
    """Loss, PSNR, SSIM and the gradient of images that are nearly the originals."""
    rng = np.random.default_rng(0)
    originals = rng.uniform(size=(4, 14, 16, 3)).astype(np.float32)
    noise = 0.05 * rng.standard_normal(originals.shape).astype(np.float32)
    loss = train.inpainting("half").loss
    run = jax.value_and_grad(lambda x, y: loss(x, {"target": y}), has_aux=True)
    return run, [(originals + noise, originals)]


def of_recurrent():
    """Logits, last state and gradient of a recurrent language model."""
    net = supernets.recurrent(RECURRENT, 7, 8, max_norm=1.5)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 7, (3, 6)).astype(np.int32)
    state = rng.standard_normal((3, 8)).astype(np.float32)

    def loss(weights, arch, tokens, state):
        outputs = net.apply(weights, arch, (tokens, state))
        return jnp.square(outputs.logits).mean() + outputs.state.sum(), outputs

    weights = jax.jit(net.init, compiler_options=QUICK)(jax.random.key(0))
    run = jax.value_and_grad(loss, has_aux=True)
    archs = jax.vmap(RECURRENT.sample)(jax.random.split(jax.random.key(1), 3))
    return run, [(weights, arch, tokens, state) for arch in archs]


# Searchers and analysis -----------------------------------------------------------


def of_searcher(searcher, space, num=4):
    """What a searcher makes of given losses."""
    state = jax.jit(searcher.init, compiler_options=QUICK)(jax.random.key(0))
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(1), num))
    losses = np.random.default_rng(1).uniform(size=num).astype(np.float32)
    return searcher.tell, [(state, archs, losses)]


def perceptron():
    keys = jax.random.split(jax.random.key(0))
    return {
        "in": 0.1 * jax.random.normal(keys[0], (192, 16)),
        "out": jax.random.normal(keys[1], (16, 4)),
    }


def quadratic(params, constants, batch, weight=None):
    x = batch["image"].reshape(batch["label"].size, -1)
    losses = jnp.square(jnp.tanh(x @ params["in"]) @ params["out"] - constants).mean(1)
    if weight is None:
        return losses.mean()
    weight = weight.astype(losses.dtype)
    return (losses * weight).sum() / weight.sum()


def of_gradient_variance():
    measure = analysis.gradient_variance(quadratic, batch_size=1, chunk_size=4)
    return measure, [(perceptron(), jnp.float32(0.5), batch(num=10))]


def of_surface():
    """Mean losses at three points of a plane through the weights."""
    params = perceptron()
    plane = analysis.random_plane(jax.random.key(1), params)
    mean = analysis.mean_metrics(
        lambda params, constants, batch: {
            "loss": quadratic(params, constants, batch, batch["weight"])
        },
        batch_size=4,
    )

    def measure(plane, alphas, constants, examples):
        def at(alpha):
            return mean(plane.point(alpha, alpha / 2), constants, examples)

        return jax.lax.map(at, alphas)

    alphas = np.array([-1, 0, 1], np.float32)
    return measure, [(plane, alphas, jnp.float32(0.5), batch(num=10))]


def micro(skeleton):
    return supernets.micro(MICRO, channels=4, num_cells=3, skeleton=skeleton)


CASES = {
    "operations": of_operations,
    "micro supernet, asng": lambda: of_supernet(micro("asng")),
    "micro supernet, enas": lambda: of_supernet(micro("enas")),
    "macro supernet, concat": lambda: of_supernet(supernets.macro(MACRO, 4)),
    "macro supernet, add": lambda: of_supernet(supernets.macro(MACRO, 4, skips="add")),
    "dag supernet, each": lambda: of_supernet(supernets.dag(DAG, 4, 3)),
    "dag supernet, sum": lambda: of_supernet(
        supernets.dag(DAG, 4, 3, node_input="sum")
    ),
    "anytime supernet": lambda: of_supernet(supernets.anytime(ANYTIME, 4)),
    "autoencoder supernet": lambda: of_supernet(
        supernets.autoencoder(AUTOENCODER), side=4
    ),
    "micro hypernetwork": lambda: of_hypernetwork(micro("asng")),
    "dag hypernetwork": lambda: of_hypernetwork(supernets.dag(DAG, 4, 3)),
    "anytime hypernetwork": lambda: of_hypernetwork(supernets.anytime(ANYTIME, 4)),
    "micro network": lambda: of_network(networks.micro(CELL, 4, 3)),
    "micro network, enas": lambda: of_network(
        networks.micro(CELL, 4, 3, skeleton="enas")
    ),
    "macro network": lambda: of_network(
        networks.macro(
            genotypes.MacroGenotype(
                ("conv_3x3", "sep_conv_3x3", "max_pool_3x3"), ((), (0,), (1,))
            ),
            4,
            dropout=0.0,
        )
    ),
    "dag network": lambda: of_network(
        networks.dag(
            genotypes.DagGenotype(("sep_conv_3x3", "conv_1x1"), ((0, 1), (0, 2))), 4, 3
        )
    ),
    "autoencoder network": lambda: of_autoencoder(
        genotypes.AutoencoderGenotype(
            (3, 1, 5), (4, 2, 4), (2, 1, 2), (False, True, False)
        )
    ),
    "recurrent supernet": of_recurrent,
    "restoration": of_restoration,
    "asng": lambda: of_searcher(search.asng(MICRO), MICRO),
    "asng, integers": lambda: of_searcher(search.asng(MIXED), MIXED),
    "sng": lambda: of_searcher(search.sng(MIXED), MIXED),
    "adam_sng": lambda: of_searcher(search.adam_sng(MICRO), MICRO),
    "random search": lambda: of_searcher(search.random_search(MICRO), MICRO),
    "reinforce, micro": lambda: of_searcher(search.reinforce(MICRO), MICRO),
    "reinforce, macro": lambda: of_searcher(search.reinforce(MACRO), MACRO),
    "reinforce, dag": lambda: of_searcher(search.reinforce(DAG), DAG),
    "reinforce, recurrent": lambda: of_searcher(search.reinforce(RECURRENT), RECURRENT),
    "gradient variance": of_gradient_variance,
    "loss surface": of_surface,
}


def widen(leaf):
    is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(leaf, jnp.float64) if is_float else leaf


def floats(tree):
    """The floating-point leaves in double precision."""
    return [
        np.asarray(leaf, np.float64)
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


def largest_error(actual, expected) -> float:
    """Of an array, relative to its norm and to a hundredth of that of all."""
    actual, expected = floats(actual), floats(expected)
    assert [a.shape for a in actual] == [e.shape for e in expected]
    total = np.sqrt(sum(np.sum(e**2) for e in expected))
    errors = [
        np.linalg.norm(a - e) / max(np.linalg.norm(e), 0.01 * total, 1e-30)
        for a, e in zip(actual, expected, strict=True)
    ]
    return float(max(errors, default=0.0))


@pytest.mark.parametrize("name", CASES)
def test_float32_equals_float64(name):
    function, examples = CASES[name]()
    single = jax.jit(function)
    results = [single(*args) for args in examples]
    assert all(leaf.dtype != np.float64 for leaf in jax.tree.leaves(results))
    # Made anew: constants of the first may be held as 32 bits.
    function, _ = CASES[name]()
    # Flax's normalization mixes the widths of its inputs and statistics.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        double = jax.jit(function, compiler_options=QUICK)
        expected = [double(*jax.tree.map(widen, args)) for args in examples]
    errors = [largest_error(*pair) for pair in zip(results, expected, strict=True)]
    # Rounding makes 1e-7 to 6e-6 of these small networks; a wrong sum, 1e-3 and more.
    assert max(errors) < 1e-4
