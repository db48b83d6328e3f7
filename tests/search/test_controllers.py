"""Controllers against all architectures of small spaces, and against plain loops."""

import functools
import itertools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import search, spaces
from jaxnas.search import controllers
from jaxnas.search.controllers import ControllerSettings, official_settings

SMALL = ControllerSettings(hidden_size=4, tanh_constant=2.0, temperature=0.5)
# Spaces so small that all their architectures can be listed.
CASES = {
    "macro": (
        spaces.MacroSpace(3, ("conv_3x3", "max_pool_3x3")),
        SMALL._replace(op_tanh_reduction=2.0),
    ),
    "micro": (
        spaces.MicroSpace(1, ("skip_connect", "sep_conv_3x3")),
        SMALL._replace(
            op_tanh_reduction=2.0, separable_bias=0.3, separable_offset=0.25
        ),
    ),
    "recurrent": (
        spaces.RecurrentSpace(3, ("tanh", "relu")),
        SMALL._replace(recency=1 / 6),
    ),
    "darts recurrent": (
        spaces.RecurrentSpace(4, ("tanh", "relu"), "tanh", "later_nodes"),
        SMALL._replace(recency=1 / 6, tied_head=True),
    ),
    "sequence": ((2, 1, 3, 2), SMALL),
}
every_case = pytest.mark.parametrize("name", CASES)


def cardinalities_of(space):
    return getattr(space, "cardinalities", space)


def drawn(space, num):
    """Architectures `[num, num_decisions]`, uniformly."""
    sizes = cardinalities_of(space)
    archs = np.random.default_rng(0).integers(sizes, size=(num, len(sizes)))
    return jnp.asarray(archs, jnp.int32)


@functools.cache
def built(name):
    """A compiled policy."""
    policy = controllers.policy(*CASES[name])
    return policy._replace(
        init=jax.jit(policy.init),
        sample=jax.jit(policy.sample, static_argnums=2),
        score=jax.jit(policy.score),
        mode=jax.jit(policy.mode),
    )


def uneven(policy):
    """Parameters that are large enough for choices to differ in probability."""
    params = jax.jit(policy.init)(jax.random.key(0))
    return jax.tree.map(lambda p: 15 * np.asarray(p), params)


@functools.cache
def scored(name):
    """All architectures of a space and their decisions; call with `x64`."""
    sizes = cardinalities_of(CASES[name][0])
    archs = jnp.asarray(list(itertools.product(*map(range, sizes))), jnp.int32)
    policy = built(name)
    return jax.tree.map(np.asarray, policy.score(uneven(policy), archs))


@every_case
def test_probabilities_of_all_architectures_add_up_to_one(name, x64):
    episodes = scored(name)
    assert episodes.log_probs.dtype == np.float64
    log_probs = episodes.log_probs.sum(1)
    probabilities = np.exp(log_probs)
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-12)
    assert probabilities.max() > 3 * probabilities.min()
    # The chain rule: entropies of decisions add up, in expectation.
    np.testing.assert_allclose(
        probabilities @ episodes.entropies.sum(1), -probabilities @ log_probs
    )
    assert (episodes.entropies > -1e-12).all()


@every_case
def test_architectures_are_sampled_with_their_probabilities(name, x64):
    num, sizes = 20_000, cardinalities_of(CASES[name][0])
    policy, expected = built(name), scored(name)
    episodes = policy.sample(uneven(policy), jax.random.key(1), num)
    episodes = jax.tree.map(np.asarray, episodes)
    assert episodes.arch.dtype == np.int32
    index = np.ravel_multi_index(episodes.arch.T, sizes)
    # Sampling and scoring agree, in whatever batch.
    expected_here = jax.tree.map(lambda v: v[index], expected)
    chex.assert_trees_all_close(episodes, expected_here, rtol=1e-9, atol=1e-12)
    share = np.bincount(index, minlength=np.prod(sizes)) / num
    expected_share = np.exp(expected.log_probs.sum(1))
    deviation = np.sqrt(expected_share * (1 - expected_share) / num)
    assert (np.abs(share - expected_share) < 5 * deviation + 1 / num).all()


@every_case
def test_mode_takes_the_most_likely_choice_in_turn(name, x64):
    policy, episodes = built(name), scored(name)
    mode = np.asarray(policy.mode(uneven(policy)))
    assert mode.dtype == np.int32
    for decision in range(len(mode)):
        alike = (episodes.arch[:, :decision] == mode[:decision]).all(1)
        chosen = alike & (episodes.arch[:, decision] == mode[decision])
        log_probs = episodes.log_probs[:, decision]
        assert log_probs[chosen].min() == log_probs[alike].max()


# Plain loops ---------------------------------------------------------------------


class Loop:
    """A controller without scans, paddings and masks, in NumPy."""

    def __init__(self, params, settings, arch):
        self.params = jax.tree.map(np.asarray, params)
        self.settings = settings
        self.state = (np.zeros(settings.hidden_size),) * 2
        self.choices = iter(arch.tolist())
        self.log_probs, self.entropies = [], []

    def step(self, x):
        def sigmoid(v):
            return 1 / (1 + np.exp(-v))

        c, h = self.state
        gates = np.concatenate([x, h]) @ self.params["lstm"]
        i, f, o, g = gates.reshape(4, -1)
        c = sigmoid(i) * np.tanh(g) + sigmoid(f) * c
        self.state = (c, sigmoid(o) * np.tanh(c))
        return self.state[1]

    def squash(self, logits, reduction=1.0):
        bound = self.settings.tanh_constant / reduction
        return bound * np.tanh(np.asarray(logits) / self.settings.temperature)

    def attend(self, anchors, h):
        keys, query = self.params["attention_key"], self.params["attention_query"]
        return np.array(
            [
                np.tanh(anchor @ keys + h @ query) @ self.params["attention_vector"]
                for anchor in anchors
            ]
        )

    def decide(self, logits):
        probabilities = np.exp(logits) / np.exp(logits).sum()
        choice = next(self.choices)
        self.log_probs.append(np.log(probabilities[choice]))
        self.entropies.append(-(probabilities * np.log(probabilities)).sum())
        return choice

    def operation(self, bias=0.0, offset=0.0):
        head = self.params.get("head", self.params["embedding"].T)
        logits = self.state[1] @ head + bias
        squashed = self.squash(logits, self.settings.op_tanh_reduction)
        return self.params["embedding"][self.decide(squashed + offset)]


def loop_macro(loop, space):
    start = x = loop.params["start"]
    anchors, penalties = [start], []
    for k in range(space.num_layers):
        loop.step(x)
        h = loop.step(loop.operation())
        penalty, taken = 0.0, [np.zeros_like(start)]
        for anchor in anchors[:k]:
            logit = loop.squash(loop.attend([anchor], h))[0]
            if loop.decide(np.array([-logit, logit])):
                taken.append(anchor)
            p, target = 1 / (1 + np.exp(-2 * logit)), loop.settings.skip_target
            penalty += p * np.log(p / target)
            penalty += (1 - p) * np.log((1 - p) / (1 - target))
        x = np.mean(taken, axis=0) if k else start
        anchors.append(h)
        penalties.append(penalty)
    return np.mean(penalties[1:])


def loop_micro(loop, space):
    start, settings = loop.params["start"], loop.settings
    sign = np.array([1 if op.startswith("sep_conv") else -1 for op in space.ops])
    for offset in (sign * settings.separable_offset, 0.0):
        attended = [loop.step(start), loop.step(start)]
        anchors = [np.zeros_like(start)] * 2
        for _ in range(space.num_nodes):
            x = start
            for _ in range(2):
                h = loop.step(x)
                x = anchors[loop.decide(loop.squash(loop.attend(attended, h)))]
            for _ in range(2):
                loop.step(x)
                x = loop.operation(loop.params["bias"], offset)
            attended.append(loop.step(x))
            anchors.append(attended[-1])


def loop_recurrent(loop, space):
    start = x = loop.params["start"]
    anchors = []
    for j in range(space.num_nodes):
        if j == 0 and space.first_activation:
            anchors.append(np.zeros_like(start))
            continue
        h = loop.step(x)
        x = start
        if j:
            distance = j - np.arange(j)
            prior = loop.settings.recency * distance**2
            source = loop.decide(loop.squash(loop.attend(anchors, h)) - prior)
            x = anchors[source] / (0.1 + distance[source])
        anchors.append(h)
        loop.step(x)
        x = loop.operation()


def loop_sequence(loop, space):
    x = loop.params["start"]
    for decision, size in enumerate(space):
        h = loop.step(x)
        logits = loop.squash(h @ loop.params["heads"][decision])
        x = loop.params["embeddings"][decision, loop.decide(logits[:size])]


LOOPS = {
    "macro": (spaces.enas_macro(4), loop_macro),
    "micro": (spaces.enas_micro(3), loop_micro),
    "recurrent": (spaces.enas_recurrent(5), loop_recurrent),
    "darts recurrent": (spaces.darts_recurrent(4), loop_recurrent),
    "sequence": ((3, 5, 1, 4), loop_sequence),
}


@pytest.mark.parametrize("name", LOOPS)
def test_controllers_agree_with_plain_loops(name, x64):
    space, walk = LOOPS[name]
    settings = CASES[name][1]
    policy = controllers.policy(space, settings)
    params = uneven(policy)
    archs = drawn(space, 3)
    episodes = jax.jit(policy.score)(params, archs)
    np.testing.assert_array_equal(episodes.arch, archs)
    for i, arch in enumerate(np.asarray(archs)):
        loop = Loop(params, settings, arch)
        penalty = walk(loop, space)
        np.testing.assert_allclose(episodes.log_probs[i], loop.log_probs)
        np.testing.assert_allclose(episodes.entropies[i], loop.entropies, atol=1e-12)
        if episodes.skip_penalty is None:
            assert penalty is None
        else:
            np.testing.assert_allclose(episodes.skip_penalty[i], penalty)


# Published numbers ---------------------------------------------------------------


@functools.cache
def compiled(space, settings):
    policy = controllers.policy(space, settings)
    return jax.jit(policy.init)(jax.random.key(0)), jax.jit(policy.score)


def scored_in(space, settings, scale, archs=None):
    """Score architectures with parameters scaled from their start."""
    params, score = compiled(space, settings)
    params = jax.tree.map(lambda p: scale * np.asarray(p), params)
    archs = drawn(space, 64) if archs is None else archs
    return jax.tree.map(np.asarray, score(params, archs))


@pytest.mark.parametrize(
    ("space", "num_params"),
    [
        (spaces.enas_macro(12), 41_856),
        (spaces.enas_macro(24), 41_856),
        (spaces.enas_micro(), 41_733),
        (spaces.enas_recurrent(), 101_000),
        (spaces.darts_recurrent(9), 41_344),
    ],
)
def test_scripts_have_as_many_parameters_as_official(space, num_params):
    policy = controllers.policy(space, official_settings(space))
    params = jax.eval_shape(policy.init, jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(params)) == num_params


def test_parameters_start_uniform_but_for_the_bias():
    space = spaces.enas_micro()
    policy = controllers.policy(space, official_settings(space))
    params = jax.jit(policy.init)(jax.random.key(0))
    np.testing.assert_array_equal(params.pop("bias"), [0, 0, 0, 10, 10])
    values = np.concatenate([np.ravel(p) for p in params.values()])
    assert values.dtype == np.float32
    assert -0.1 <= values.min() < -0.0999 and 0.0999 < values.max() <= 0.1
    np.testing.assert_allclose(values.std(), 0.2 / np.sqrt(12), rtol=0.01)


def test_the_corrected_language_model_starts_closer_to_zero():
    space = spaces.darts_recurrent()
    policy = controllers.policy(space, official_settings(space))
    params = jax.jit(policy.init)(jax.random.key(0))
    values = np.concatenate([np.ravel(p) for p in params.values()])
    assert -0.01 <= values.min() < -0.00999 and 0.00999 < values.max() <= 0.01


@pytest.mark.parametrize(
    ("num_layers", "entropy", "penalty"), [(1, 1.791759, 0), (12, 67.249, 0.1224660)]
)
def test_macro_without_preferences(num_layers, entropy, penalty):
    space = spaces.enas_macro(num_layers)
    episodes = scored_in(space, official_settings(space), np.float32(0))
    np.testing.assert_allclose(episodes.entropies.sum(1), entropy, rtol=1e-5)
    np.testing.assert_allclose(episodes.log_probs.sum(1), -entropy, rtol=1e-5)
    np.testing.assert_allclose(episodes.skip_penalty, penalty, rtol=1e-5)


def test_script_bounds_the_probabilities_of_the_macro_space():
    space = spaces.enas_macro(12)
    episodes = scored_in(space, official_settings(space), np.float32(300))
    probabilities = np.exp(episodes.log_probs)
    is_op = np.array(space.cardinalities) == 6
    for found, bounds in (
        (probabilities[:, is_op], [0.0099, 0.8007]),
        (probabilities[:, ~is_op], [0.0474, 0.9526]),
    ):
        np.testing.assert_allclose([found.min(), found.max()], bounds, atol=1e-4)


def test_micro_without_preferences():
    episodes = scored_in(spaces.enas_micro(), ControllerSettings(), np.float32(0))
    np.testing.assert_allclose(episodes.entropies.sum(1), 58.506, atol=1e-3)


def test_script_prefers_separable_convolutions_at_first():
    space = spaces.enas_micro()
    episodes = scored_in(space, official_settings(space), np.float32(1))
    probabilities = np.exp(episodes.log_probs).reshape(-1, 2, 5, 4)[..., 2:]
    ops = episodes.arch.reshape(-1, 2, 5, 4)[..., 2:]
    for cell, separable, other in ((0, 0.3153, 0.1232), (1, 0.2543, 0.1638)):
        for op in range(5):
            found = probabilities[:, cell][ops[:, cell] == op]
            expected = separable if op >= 3 else other
            np.testing.assert_allclose(found, expected, atol=0.004)


def test_script_prefers_recent_nodes():
    space = spaces.enas_recurrent(6)
    archs = np.zeros((5, 11), np.int32)
    archs[:, 9] = np.arange(5)  # the source of node 5
    episodes = scored_in(
        space, official_settings(space), np.float32(0), jnp.asarray(archs)
    )
    expected = [0.009, 0.042, 0.134, 0.308, 0.508]
    np.testing.assert_allclose(np.exp(episodes.log_probs[:, 9]), expected, atol=6e-4)


# Spaces from outside ------------------------------------------------------------


class Chain:
    """A space that the package does not know."""

    cardinalities = (2, 3)


class FavoringChain(Chain):
    """One with a controller of its own."""


class FavoringController(controllers.Controller):
    priors = ("recency",)

    @nn.compact
    def __call__(self, choose, x):
        bias = self.uniform("bias", 2, 3)
        taken = [
            controllers.decide(choose, bias[i, :size] - self.settings.recency, x[i])
            for i, size in enumerate(Chain.cardinalities)
        ]
        return controllers.Episode(*controllers.stack(taken))


def test_a_space_from_outside_is_a_plain_sequence():
    space: Any = Chain()
    controller = controllers.make_controller(space, SMALL)
    assert controller == controllers.SequenceController(SMALL, (2, 3))


def test_a_space_from_outside_can_have_a_controller_of_its_own():
    @controllers.make_controller.register
    def _(space: FavoringChain, settings: ControllerSettings) -> FavoringController:
        return FavoringController(settings)

    space: Any = FavoringChain()
    searcher = search.reinforce(space, settings=SMALL._replace(recency=1.0))
    state = searcher.init(jax.random.key(0))
    assert set(state.params) == {"bias"}
    archs = searcher.ask(state, jax.random.key(1), 4)
    assert archs.shape == (4, 2) and (np.asarray(archs) < Chain.cardinalities).all()
    told = searcher.tell(state, archs, jnp.arange(4.0))[0]
    assert (told.params["bias"] != state.params["bias"]).any()
    with pytest.raises(ValueError, match=r"separable_bias is .*; expected 0"):
        search.reinforce(space, settings=SMALL._replace(separable_bias=1.0))


# Errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("archs", "message"),
    [
        (np.zeros((2, 5), int), r"archs has shape \[2, 5\]; expected \[num, 4\]"),
        (np.zeros(4, int), r"archs has shape \[4\]; expected \[num, 4\]"),
        (np.zeros((0, 4), int), r"archs has shape \[0, 4\]; expected \[num, 4\]"),
        (np.zeros((2, 4)), "archs has type float32; expected integers"),
    ],
)
def test_score_refuses_wrong_architectures(archs, message):
    policy = built("sequence")
    with pytest.raises(ValueError, match=message):
        policy.score(policy.init(jax.random.key(0)), jnp.asarray(archs))


def test_sample_refuses_to_draw_nothing():
    policy = built("sequence")
    with pytest.raises(ValueError, match="num is 0; expected at least 1"):
        policy.sample(policy.init(jax.random.key(0)), jax.random.key(0), 0)
