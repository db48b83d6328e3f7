"""The recurrent supernet and its networks, beside NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxnas import genotypes, networks, ops, spaces, supernets

SIZE, NUM_WORDS, BATCH, LENGTH = 6, 11, 3, 5
SPACE = spaces.enas_recurrent(5)
DARTS = spaces.darts_recurrent(4)
SPACES = pytest.mark.parametrize("space", [SPACE, DARTS], ids=["enas", "darts"])
EVERY_WEIGHTS = pytest.mark.parametrize("weights_of_", ["pair", "activation", "node"])
FUNCTIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def archs(num, space=SPACE, seed=0):
    return jax.vmap(space.sample)(jax.random.split(jax.random.key(seed), num))


def inputs(dtype: type = np.float32):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, NUM_WORDS, (BATCH, LENGTH)).astype(np.int32)
    return tokens, rng.standard_normal((BATCH, SIZE)).astype(dtype)


def weights_of(net, seed=0):
    """Large ones, so that the activations are not linear."""
    drawn = net.init(jax.random.key(seed))
    return jax.tree.map(lambda leaf: 6 * leaf, drawn)


def reference(weights, genotype, tokens, state, weights_of_):
    """Logits and last state, word by word and node by node."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
    logits = np.zeros((*tokens.shape, NUM_WORDS))
    names, h = list(genotypes.ACTIVATIONS), np.zeros(0)
    if genotype.averaged == "later_nodes":
        names = ["tanh", "relu", "sigmoid", "identity"]
    per_activation = weights_of_ == "activation"
    for b in range(len(tokens)):
        h = np.asarray(state[b], np.float64)
        for t, token in enumerate(tokens[b]):
            nodes = []
            for node, name in enumerate(genotype.activations):
                number = names.index(name) if per_activation else 0
                if node == 0:
                    read = h
                    x = np.concatenate([weights["embedding"][token], h])
                    matrix = weights["first"][number]
                else:
                    source = genotype.sources[node - 1]
                    read = x = nodes[source]
                    row = sum(range(node)) + source
                    if per_activation:
                        row = row * len(names) + number
                    elif weights_of_ == "node":
                        row = node - 1
                    matrix = weights["nodes"][row]
                inner, gate = np.split(x @ matrix, 2)
                gate = 1 / (1 + np.exp(-gate))
                nodes.append(gate * FUNCTIONS[name](inner) + (1 - gate) * read)
            averaged = nodes[1:]
            if genotype.averaged == "loose_ends":
                loose = set(range(len(nodes))) - set(genotype.sources)
                averaged = [nodes[i] for i in loose]
            h = np.mean(averaged, axis=0)
            logits[b, t] = weights["embedding"] @ h
    return logits, h


@SPACES
@EVERY_WEIGHTS
def test_random_cells_are_those_of_numpy(space, weights_of_):
    net = supernets.recurrent(space, NUM_WORDS, SIZE, weights_of=weights_of_)
    weights, (tokens, state) = weights_of(net), inputs()
    run: Any = jax.jit(net.apply)
    for arch in archs(20, space):
        outputs = run(weights, arch, (tokens, state))
        logits, last = reference(
            weights, space.decode(arch), tokens, state, weights_of_
        )
        np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(outputs.state[-1], last, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(outputs.hidden[:, -1], outputs.state)
    assert run._cache_size() == 1


def test_the_averaged_nodes_matter():
    net = supernets.recurrent(DARTS, NUM_WORDS, SIZE)
    weights, (tokens, state) = weights_of(net), inputs()
    arch = jnp.array([0, 0, 1, 1, 2, 2, 3, 3], jnp.int32)  # a chain of nodes
    genotype = DARTS.decode(arch)
    params = network_params(weights, genotype)
    found = {}
    for averaged in ("loose_ends", "later_nodes"):
        cell = genotype._replace(averaged=averaged)
        run: Any = networks.recurrent(cell, NUM_WORDS, SIZE).apply
        found[averaged] = run(params, (tokens, state), train=False).state
    outputs = net.apply(weights, arch, (tokens, state))
    np.testing.assert_allclose(found["later_nodes"], outputs.state, atol=1e-5)
    assert np.abs(found["loose_ends"] - found["later_nodes"]).max() > 0.1


@pytest.mark.parametrize(
    ("space", "weights_of_"), [(SPACE, "pair"), (DARTS, "node")], ids=["enas", "darts"]
)
def test_gradients_are_differences(space, weights_of_):
    net = supernets.recurrent(
        space, NUM_WORDS, SIZE, weights_of=weights_of_, max_norm=2.0
    )
    tokens, state = inputs(np.float64)
    with jax.enable_x64(True):
        weights = jax.tree.map(lambda leaf: leaf.astype(np.float64), weights_of(net))

        @jax.jit
        def loss(weights, state, arch):
            outputs = net.apply(weights, arch, (tokens, state))
            return jnp.square(outputs.logits).mean() + outputs.state.sum()

        for arch in archs(3, space):
            check_grads(
                lambda weights, state, arch=arch: loss(weights, state, arch),
                *((weights, jnp.asarray(state)), 1, ["rev"]),
                rtol=1e-4,
            )


def network_params(weights, genotype, weights_of_="pair"):
    """The supernet's weights of a cell, as its network has them."""
    rows = [sum(range(node)) + s for node, s in enumerate(genotype.sources, start=1)]
    if weights_of_ == "node":
        rows = range(len(rows))
    return {"params": {**weights, "nodes": weights["nodes"][jnp.array(rows)]}}


@pytest.mark.parametrize(
    ("space", "weights_of_"),
    [(SPACE, "pair"), (DARTS, "pair"), (DARTS, "node")],
    ids=["enas", "darts", "darts, node"],
)
def test_a_network_is_the_function_of_the_supernet(space, weights_of_):
    net = supernets.recurrent(
        space, NUM_WORDS, SIZE, weights_of=weights_of_, max_norm=3.0
    )
    weights, run = weights_of(net), jax.jit(net.apply)
    for arch in archs(3, space):
        genotype = space.decode(arch)
        network = networks.recurrent(genotype, NUM_WORDS, SIZE, max_norm=3.0)
        params = network_params(weights, genotype, weights_of_)
        expected = run(weights, arch, inputs())
        found = jax.jit(network.apply, static_argnames="train")(
            params, inputs(), train=False
        )
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
        shapes = jax.eval_shape(
            lambda key, network=network: network.init(key, inputs(), train=True),
            jax.random.key(0),
        )
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
        num_params = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        assert networks.count_params(network, (0, 0, 0)) == num_params


def test_what_a_cell_does_not_use_has_no_gradient():
    net = supernets.recurrent(SPACE, NUM_WORDS, SIZE)
    weights, (arch,) = weights_of(net), archs(1)
    loss = jax.jit(lambda weights: net.apply(weights, arch, inputs()).logits.sum())
    grads = jax.grad(loss)(weights)
    used = {sum(range(node)) + int(arch[2 * node - 1]) for node in range(1, 5)}
    for row, gradient in enumerate(grads["nodes"]):
        assert (np.abs(gradient).max() > 0) == (row in used)


def test_a_text_may_be_read_in_parts():
    net = supernets.recurrent(SPACE, NUM_WORDS, SIZE)
    weights, (arch,), (tokens, state) = weights_of(net), archs(1), inputs()
    whole = net.apply(weights, arch, (tokens, state))
    first = net.apply(weights, arch, (tokens[:, :2], state))
    second = net.apply(weights, arch, (tokens[:, 2:], first.state))
    logits = jnp.concatenate([first.logits, second.logits], axis=1)
    np.testing.assert_allclose(logits, whole.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second.state, whole.state, rtol=1e-5, atol=1e-6)


def test_states_are_limited():
    free = supernets.recurrent(SPACE, NUM_WORDS, SIZE)
    limited = supernets.recurrent(SPACE, NUM_WORDS, SIZE, max_norm=0.5)
    weights, (arch,) = weights_of(free), archs(1)
    norms = [
        np.linalg.norm(net.apply(weights, arch, inputs()).hidden, axis=-1)
        for net in (free, limited)
    ]
    assert norms[0].max() > 0.5
    assert norms[1].max() == pytest.approx(0.5, rel=1e-5)


# Dropout --------------------------------------------------------------------------


def dropped(**probs):
    dropout = ops.RecurrentDropout(**probs)
    return supernets.recurrent(SPACE, NUM_WORDS, SIZE, dropout=dropout)


def test_dropout_is_for_training_only():
    net = dropped(words=0.5, inputs=0.5, states=0.5, outputs=0.5)
    weights, (arch,), key = weights_of(net), archs(1), jax.random.key(3)
    plain = supernets.recurrent(SPACE, NUM_WORDS, SIZE)
    expected = plain.apply(weights, arch, inputs()).logits
    found = net.apply(weights, arch, inputs(), key=key).logits
    np.testing.assert_array_equal(found, expected)
    trained = net.apply(weights, arch, inputs(), train=True, key=key).logits
    assert np.abs(trained - expected).max() > 0.1


def test_a_dropped_word_is_dropped_wherever_it_stands():
    net = dropped(words=0.5)
    weights, (arch,) = weights_of(net), archs(1)
    tokens = np.array([[1, 2, 3, 1, 2, 3]] * 8, np.int32)
    state = np.zeros((8, SIZE), np.float32)

    def totals(shift):
        weights_ = {**weights, "embedding": weights["embedding"] + shift}
        outputs = net.apply(
            weights_, arch, (tokens, state), train=True, key=jax.random.key(0)
        )
        return outputs.hidden.sum((1, 2))

    jacobian = jax.jit(jax.jacobian(totals))(jnp.zeros((NUM_WORDS, SIZE)))
    # In some rows a word counts, in others it does not.
    counts = [np.asarray(jacobian)[:, word] for word in (1, 2, 3)]
    is_kept = np.stack([np.abs(count).max(-1) > 0 for count in counts])
    assert is_kept.any() and not is_kept.all()
    assert len(np.unique(is_kept.T, axis=0)) > 2


def dropped_features(name, num):
    """Features whose weights no time step has used, in `num` trainings of one row."""
    net = dropped(**{name: 0.4})
    weights, (arch,) = weights_of(net), archs(1)
    tokens, state = np.arange(8, dtype=np.int32)[None], np.ones((1, SIZE), np.float32)

    def loss(first, key):
        outputs = net.apply(
            {**weights, "first": first}, arch, (tokens, state), train=True, key=key
        )
        return outputs.hidden.sum()

    gradient = jax.jit(jax.grad(loss))
    rows = slice(SIZE) if name == "inputs" else slice(SIZE, None)
    return [
        (
            np.asarray(gradient(weights["first"], jax.random.key(seed)))[0, rows] == 0
        ).all(1)
        for seed in range(num)
    ]


@pytest.mark.parametrize("name", ["inputs", "states"])
def test_masks_are_the_same_at_all_times(name):
    # Masks of each time step would leave a feature out of all 8 once in 1,500 times.
    found = dropped_features(name, 6)
    assert 0.1 < np.mean(found) < 0.8
    assert len({tuple(features) for features in found}) > 1


def test_the_mask_of_the_outputs_is_the_same_at_all_times_and_keeps_the_mean():
    net = dropped(outputs=0.4)
    # Without weights, all features of a state are equal.
    weights, (arch,) = weights_of(net), archs(1)
    weights |= {name: 0 * weights[name] for name in ("first", "nodes")}
    tokens, state = np.zeros((400, 4), np.int32), np.ones((400, SIZE), np.float32)
    key = jax.random.key(0)
    found = net.apply(weights, arch, (tokens, state), train=True, key=key).logits
    plain = net.apply(weights, arch, (tokens, state)).logits
    ratio = np.asarray(found / plain)
    np.testing.assert_allclose(ratio[:, 1:], np.repeat(ratio[:, :1], 3, 1), rtol=1e-3)
    np.testing.assert_allclose(found.mean(0), plain.mean(0), atol=0.3)
    assert len(np.unique(np.round(ratio[:, 0, 0], 4))) > 2


# Sizes ----------------------------------------------------------------------------


def test_published_numbers_of_parameters():
    def count(genotype, size):
        network = networks.recurrent(genotype, 10_000, size)
        return networks.count_params(network, (0, 0, 0))

    published = genotypes.named("ENAS_RECURRENT")
    assert count(published, 748) == 22_027_104
    for name in ("ENAS_LM_RECURRENT", "DARTS_V1_RECURRENT", "DARTS_V2_RECURRENT"):
        assert count(genotypes.named(name), 800) == 20_800_000


@pytest.mark.parametrize(
    ("space", "size", "weights_of_", "num_weights"),
    [
        (spaces.enas_recurrent(), 720, "activation", 289_209_600),
        (spaces.darts_recurrent(9), 200, "activation", 16_560_000),
        # The embedding, the first matrix and one for each later node.
        (spaces.darts_recurrent(), 300, "node", 3_000_000 + 360_000 + 8 * 180_000),
    ],
)
def test_published_numbers_of_shared_weights(space, size, weights_of_, num_weights):
    net = supernets.recurrent(space, 10_000, size, weights_of=weights_of_)
    shapes = jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0)))
    assert sum(leaf.size for leaf in shapes) == num_weights


@pytest.mark.parametrize(("size", "limit"), [(300, 0.1), (400, 0.05), (401, 0.04)])
def test_initial_weights_are_as_in_the_official_code(size, limit):
    net = supernets.recurrent(spaces.enas_recurrent(2), 7, size)
    for leaf in jax.tree.leaves(net.init(jax.random.key(0))):
        assert np.abs(leaf).max() == pytest.approx(limit, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_words": 0}, "num_words is 0"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        (
            {"weights_of": "edge"},
            "weights_of is 'edge'; expected 'pair', 'activation' or 'node'",
        ),
        (
            {"dropout": ops.RecurrentDropout(states=1.0)},
            "dropout of states is 1.0",
        ),
        ({"max_norm": 0.0}, "max_norm is 0.0; expected a positive number"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        supernets.recurrent(SPACE, **{"num_words": 5, "hidden_size": 4, **options})


def test_wrong_inputs():
    net = supernets.recurrent(SPACE, NUM_WORDS, SIZE)
    weights, (tokens, state) = weights_of(net), inputs()
    with pytest.raises(ValueError, match=r"arch has shape \(3,\); expected \(9,\)"):
        net.apply(weights, jnp.zeros(3, jnp.int32), (tokens, state))
    with pytest.raises(ValueError, match=r"state has shape \(2, 6\); expected"):
        net.apply(weights, archs(1)[0], (tokens, state[:2]))
