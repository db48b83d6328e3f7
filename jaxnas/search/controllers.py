"""LSTM controllers: distributions over the architectures of a space.

Pham et al. (2018), section 2. A controller takes the decisions of an architecture in
turn and feeds each choice into the next. It walks a space in one way only: sampling,
scoring and greedy decoding differ in how a choice is made from logits. Loops over
layers and nodes are scans over padded anchors, so that programs stay small.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import spaces
from jaxnas.search.controller_settings import Settings
from jaxnas.search.uniform import check_cardinalities
from jaxnas.types import Arch, Key, Params, SearchSpace


class Episode(NamedTuple):
    """Decisions taken one after the other, with a leading axis for a batch.

    Attributes:
      arch: int32 `[num_decisions]`, in the encoding of the space.
      log_probs: `[num_decisions]`, log-probability of each decision, given those
        before.
      entropies: `[num_decisions]`, in nats, of the distribution each decision was
        taken from. This is the true entropy; the official code takes `-p log p` of
        the decision itself, except in the micro space.
      skip_penalty: scalar, how far skip probabilities are from their target; `None`
        where there are no skips.
    """

    arch: jax.Array
    log_probs: jax.Array
    entropies: jax.Array
    skip_penalty: jax.Array | None = None


class Policy(NamedTuple):
    """A distribution over architectures, as pure functions of its parameters.

    Attributes:
      init: `key -> params`.
      sample: `(params, key, num) -> episodes`.
      score: `(params, archs) -> episodes`, for int `[num, num_decisions]` in range.
      mode: `params -> arch`, the most likely choice at every decision in turn. It may
        be far from typical: of skips with a probability of 0.4 each, it takes none.
    """

    init: Callable[[Key], Params]
    sample: Callable[[Params, Key, int], Episode]
    score: Callable[[Params, Arch], Episode]
    mode: Callable[[Params], Arch]


Choose = Callable[[jax.Array, jax.Array], jax.Array]
"""`(logits, x) -> choice`, int32, along the last axis of logits."""


def _most_likely(logits: jax.Array, noise: jax.Array) -> jax.Array:
    """With Gumbel noise this is a sample, without noise the mode."""
    noisy = logits + noise[..., : logits.shape[-1]]
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32)


def _given(logits: jax.Array, choice: jax.Array) -> jax.Array:
    del logits
    return choice


def _decide(
    choose: Choose, logits: jax.Array, x: jax.Array, valid: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Take a decision: its category, log-probability and entropy."""
    if valid is not None:
        # Finite, so that a probability of zero has no NaN in its entropy.
        logits = jnp.where(valid, logits, jnp.finfo(logits.dtype).min)
    log_probs = jax.nn.log_softmax(logits)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1)
    choice = choose(logits, x)
    log_prob = jnp.take_along_axis(log_probs, choice[..., None], axis=-1)[..., 0]
    return choice, log_prob, entropy


def _squash(settings: Settings, logits: jax.Array, *, op: bool) -> jax.Array:
    """Bound logits, and with them the probabilities from below."""
    bound = settings.tanh_constant / (settings.op_tanh_reduction if op else 1.0)
    return bound * jnp.tanh(logits / settings.temperature)


def _uniform(key: Key, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, float, -0.1, 0.1)


LstmState = tuple[jax.Array, jax.Array]


def _lstm(
    module: nn.Module, size: int
) -> tuple[LstmState, Callable[[LstmState, jax.Array], LstmState]]:
    """Declare an LSTM without bias: its first state and its step."""
    kernel = module.param("lstm", _uniform, (2 * size, 4 * size))

    def step(state: LstmState, x: jax.Array) -> LstmState:
        c, h = state
        i, f, o, g = jnp.split(jnp.concatenate([x, h]) @ kernel, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return c, jax.nn.sigmoid(o) * jnp.tanh(c)

    zeros = jnp.zeros(size, kernel.dtype)
    return (zeros, zeros), step


def _attention(
    module: nn.Module, size: int
) -> tuple[
    Callable[[jax.Array], jax.Array], Callable[[jax.Array, jax.Array], jax.Array]
]:
    """Declare additive attention: keys of anchors, and scores of keys for a query."""
    key_kernel = module.param("attention_key", _uniform, (size, size))
    query_kernel = module.param("attention_query", _uniform, (size, size))
    vector = module.param("attention_vector", _uniform, (size,))

    def score(keys: jax.Array, query: jax.Array) -> jax.Array:
        return jnp.tanh(keys + (query @ query_kernel)[None]) @ vector

    return lambda anchors: anchors @ key_kernel, score


class MacroController(nn.Module):
    """Controller of the macro space: for each layer an operation, then its skips.

    An anchor stands for each source that a skip can come from: the start embedding
    for the stem, then the hidden state of each layer. In the official code anchor i
    is that of layer i, whose output is source i + 1.

    The skip penalty is the mean over layers 1 and on of the sum over their skips of
    KL(skip probability || target). The official code takes the KL divergence of
    another probability, which is smallest at a skip probability of 0.308.

    Attributes:
      num_layers: layers of the space.
      num_ops: operations to choose from.
      settings: of the controller.
    """

    num_layers: int
    num_ops: int
    settings: Settings

    @nn.compact
    def __call__(self, choose: Choose, x: jax.Array) -> Episode:
        """Take all decisions, one row of `x` `[num_decisions, ...]` for each."""
        settings, size = self.settings, self.settings.hidden_size
        first_state, step = _lstm(self, size)
        to_keys, score = _attention(self, size)
        start = self.param("start", _uniform, (size,))
        embedding = self.param("embedding", _uniform, (self.num_ops, size))
        head = self.param("head", _uniform, (size, self.num_ops))
        target = settings.skip_target
        log_target = jnp.asarray([math.log(1 - target), math.log(target)], start.dtype)

        # The decisions of layer k fill the first k + 1 columns of row k.
        num_sources = self.num_layers
        rows, columns = np.nonzero(np.tri(self.num_layers, 1 + num_sources))
        shape = (self.num_layers, 1 + num_sources, *x.shape[1:])
        table = jnp.zeros(shape, x.dtype).at[rows, columns].set(x)

        def layer(carry, inputs):
            state, x_in, anchors, keys = carry
            k, x = inputs
            state = step(state, x_in)
            logits = _squash(settings, state[1] @ head, op=True)
            op = _decide(choose, logits, x[0])

            state = step(state, embedding[op[0]])
            scores = score(keys, state[1])
            logits = jnp.stack([-scores, scores], axis=-1)
            logits = _squash(settings, logits, op=False)
            skips = _decide(choose, logits, x[1:])
            reachable = jnp.arange(num_sources, dtype=jnp.int32) < k
            divergence = -skips[2] - jax.nn.softmax(logits) @ log_target
            penalty = jnp.where(reachable, divergence, 0.0).sum()

            skipped = jnp.where(reachable, skips[0], 0).astype(start.dtype)
            mean = skipped @ anchors / (1 + skipped.sum())
            x_in = jnp.where(k == 0, start, mean)
            anchors = anchors.at[k + 1].set(state[1], mode="drop")
            keys = keys.at[k + 1].set(to_keys(state[1]), mode="drop")
            row = jax.tree.map(
                lambda one, more: jnp.concatenate([one[None], more]), op, skips
            )
            return (state, x_in, anchors, keys), (row, penalty)

        anchors = jnp.zeros((num_sources, size), start.dtype).at[0].set(start)
        carry = (first_state, start, anchors, to_keys(anchors))
        layers = jnp.arange(self.num_layers, dtype=jnp.int32)
        _, (decisions, penalties) = jax.lax.scan(layer, carry, (layers, table))
        episode = Episode(*(v[rows, columns] for v in decisions))
        penalty = penalties.sum() / max(self.num_layers - 1, 1)
        return episode._replace(skip_penalty=penalty)


class MicroController(nn.Module):
    """Controller of the micro space: two inputs and two operations for each node.

    The reduction cell goes on from the state that the normal cell ends with. The two
    inputs of a cell have keys to be attended to, but zeros as anchors.

    Attributes:
      num_nodes: nodes of a cell.
      ops: names of the operations, of which `sep_conv_*` can be preferred.
      settings: of the controller.
    """

    num_nodes: int
    ops: tuple[str, ...]
    settings: Settings

    @nn.compact
    def __call__(self, choose: Choose, x: jax.Array) -> Episode:
        """Take all decisions, one row of `x` `[num_decisions, ...]` for each."""
        settings, size = self.settings, self.settings.hidden_size
        separable = np.array([op.startswith("sep_conv") for op in self.ops])
        first_state, step = _lstm(self, size)
        to_keys, score = _attention(self, size)
        start = self.param("start", _uniform, (size,))
        embedding = self.param("embedding", _uniform, (len(self.ops), size))
        head = self.param("head", _uniform, (size, len(self.ops)))
        bias = self.param(
            "bias", lambda key: jnp.asarray(separable * settings.separable_bias, float)
        )
        offset = np.where(separable, 1, -1) * settings.separable_offset
        offsets = jnp.asarray([offset, np.zeros_like(offset)], start.dtype)
        num_anchors = self.num_nodes + 1  # no node comes after the last one

        def cell(state, inputs):
            x, offset = inputs

            def node(carry, inputs):
                state, anchors, keys = carry
                i, x = inputs
                earlier = jnp.arange(num_anchors, dtype=jnp.int32) < i
                x_in, decisions = start, []
                for side in (0, 1):
                    state = step(state, x_in)
                    logits = _squash(settings, score(keys, state[1]), op=False)
                    decisions.append(_decide(choose, logits, x[side], earlier))
                    x_in = anchors[decisions[-1][0]]
                for side in (2, 3):
                    state = step(state, x_in)
                    logits = _squash(settings, state[1] @ head + bias, op=True) + offset
                    decisions.append(_decide(choose, logits, x[side]))
                    x_in = embedding[decisions[-1][0]]
                state = step(state, x_in)
                anchors = anchors.at[i].set(state[1], mode="drop")
                keys = keys.at[i].set(to_keys(state[1]), mode="drop")
                taken = jax.tree.map(lambda *v: jnp.stack(v), *decisions)
                return (state, anchors, keys), taken

            anchors = keys = jnp.zeros((num_anchors, size), start.dtype)
            for i in (0, 1):
                state = step(state, start)
                keys = keys.at[i].set(to_keys(state[1]))
            nodes = jnp.arange(2, 2 + self.num_nodes, dtype=jnp.int32)
            (state, *_), taken = jax.lax.scan(node, (state, anchors, keys), (nodes, x))
            return state, taken

        table = x.reshape(2, self.num_nodes, 4, *x.shape[1:])
        _, decisions = jax.lax.scan(cell, first_state, (table, offsets))
        return Episode(*(v.reshape(-1) for v in decisions))


class RecurrentController(nn.Module):
    """Controller of the recurrent space: for each node its source and activation.

    The choice of a source is fed back as its anchor over 0.1 plus its distance.

    Attributes:
      num_nodes: nodes of the cell.
      num_activations: activations to choose from.
      settings: of the controller.
    """

    num_nodes: int
    num_activations: int
    settings: Settings

    @nn.compact
    def __call__(self, choose: Choose, x: jax.Array) -> Episode:
        """Take all decisions, one row of `x` `[num_decisions, ...]` for each."""
        settings, size = self.settings, self.settings.hidden_size
        first_state, step = _lstm(self, size)
        to_keys, score = _attention(self, size)
        start = self.param("start", _uniform, (size,))
        embedding = self.param("embedding", _uniform, (self.num_activations, size))
        head = self.param("head", _uniform, (size, self.num_activations))
        num_anchors = max(self.num_nodes - 1, 1)  # no node reads the last one

        def node(carry, inputs):
            state, x_in, anchors, keys = carry
            j, x = inputs
            state = step(state, x_in)
            sources = jnp.arange(num_anchors, dtype=jnp.int32)
            prior = settings.recency * jnp.square(j - sources).astype(start.dtype)
            logits = _squash(settings, score(keys, state[1]), op=False) - prior
            source = _decide(choose, logits, x[0], sources < j)
            distance = (j - source[0]).astype(start.dtype)
            x_in = jnp.where(j == 0, start, anchors[source[0]] / (0.1 + distance))
            anchors = anchors.at[j].set(state[1], mode="drop")
            keys = keys.at[j].set(to_keys(state[1]), mode="drop")

            state = step(state, x_in)
            logits = _squash(settings, state[1] @ head, op=True)
            activation = _decide(choose, logits, x[1])
            taken = jax.tree.map(lambda *v: jnp.stack(v), source, activation)
            return (state, embedding[activation[0]], anchors, keys), taken

        # Node 0 has no source; it gets one like the others, which is then left out.
        table = jnp.concatenate([jnp.zeros_like(x[:1]), x])
        table = table.reshape(self.num_nodes, 2, *x.shape[1:])
        anchors = keys = jnp.zeros((num_anchors, size), start.dtype)
        nodes = jnp.arange(self.num_nodes, dtype=jnp.int32)
        carry = (first_state, start, anchors, keys)
        _, decisions = jax.lax.scan(node, carry, (nodes, table))
        return Episode(*(v.reshape(-1)[1:] for v in decisions))


class SequenceController(nn.Module):
    """Controller of any list of decisions; each has a head and embeddings of its own.

    Attributes:
      cardinalities: number of categories of each decision.
      settings: of the controller.
    """

    cardinalities: tuple[int, ...]
    settings: Settings

    @nn.compact
    def __call__(self, choose: Choose, x: jax.Array) -> Episode:
        """Take all decisions, one row of `x` `[num_decisions, ...]` for each."""
        settings, size = self.settings, self.settings.hidden_size
        num, most = len(self.cardinalities), max(self.cardinalities)
        first_state, step = _lstm(self, size)
        start = self.param("start", _uniform, (size,))
        embeddings = self.param("embeddings", _uniform, (num, most, size))
        heads = self.param("heads", _uniform, (num, size, most))
        valid = np.arange(most)[None] < np.array(self.cardinalities)[:, None]

        def decision(carry, inputs):
            state, x_in = carry
            x, valid, head, embedding = inputs
            state = step(state, x_in)
            logits = _squash(settings, state[1] @ head, op=True)
            taken = _decide(choose, logits, x, valid)
            return (state, embedding[taken[0]]), taken

        inputs = (x, jnp.asarray(valid), heads, embeddings)
        _, decisions = jax.lax.scan(decision, (first_state, start), inputs)
        return Episode(*decisions)


def policy(space: SearchSpace | Sequence[int], settings: Settings) -> Policy:
    """Make the controller of a space.

    Args:
      space: a macro, micro or recurrent space, which have controllers of their own;
        any other space or list of cardinalities is a plain sequence of decisions.
      settings: of the controller, checked.

    Returns:
      A `Policy`. Parameters are uniform in -0.1 to 0.1, except for the bias of the
      micro space.

    Raises:
      ValueError: if there is no decision, or one without a category.

    Source: official `general_controller.py`, `micro_controller.py`,
    `ptb_enas_controller.py`.
    """
    listed: Any = getattr(space, "cardinalities", space)
    cardinalities = check_cardinalities(listed)
    match space:
        case spaces.MacroSpace():
            controller = MacroController(space.num_layers, len(space.ops), settings)
        case spaces.MicroSpace():
            controller = MicroController(space.num_nodes, space.ops, settings)
        case spaces.RecurrentSpace():
            controller = RecurrentController(
                space.num_nodes, len(space.activations), settings
            )
        case _:
            controller = SequenceController(cardinalities, settings)
    num_decisions, most = len(cardinalities), max(cardinalities)

    def apply(params: Params, choose: Choose, x: jax.Array) -> Episode:
        episode = controller.apply({"params": params}, choose, x)
        assert isinstance(episode, Episode)
        return episode

    @jax.jit  # of which only the draws are left
    def init(key: Key) -> Params:
        zeros = jnp.zeros(num_decisions, jnp.int32)
        return controller.init(key, _given, zeros)["params"]

    def sample(params: Params, key: Key, num: int) -> Episode:
        if num < 1:
            raise ValueError(f"num is {num}; expected at least 1 architecture")
        noise = jax.random.gumbel(key, (num, num_decisions, most), float)
        return jax.vmap(lambda x: apply(params, _most_likely, x))(noise)

    def score(params: Params, archs: Arch) -> Episode:
        check_archs(archs, num_decisions)
        choices = archs.astype(jnp.int32)
        return jax.vmap(lambda x: apply(params, _given, x))(choices)

    def mode(params: Params) -> Arch:
        return apply(params, _most_likely, jnp.zeros((num_decisions, most))).arch

    return Policy(init, sample, score, mode)


def check_archs(archs: Arch, num_decisions: int) -> None:
    """`ValueError` unless the architectures are integers `[num, num_decisions]`."""
    if archs.ndim != 2 or not len(archs) or archs.shape[1] != num_decisions:
        raise ValueError(
            f"archs has shape {list(archs.shape)}; expected [num, {num_decisions}]"
        )
    if not jnp.issubdtype(archs.dtype, jnp.integer):
        raise ValueError(f"archs has type {archs.dtype}; expected integers")
