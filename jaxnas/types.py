"""The types every part of jaxnas shares. Nothing here computes anything."""

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Key = jax.Array
"""A typed PRNG key, as made by `jax.random.key`."""

Device = Any
"""A `jax.Device`, which is no type to a type checker."""

Arch = jax.Array
"""An architecture: int32 `[num_decisions]`; a batch of them has a leading axis.

With ordered integers it is of floats: categories, then draws that are neither clipped
nor rounded.
"""

Weights = Any
"""Pytree of arrays a supernet computes with. Its structure is the supernet's own."""

Params = Any
"""Trainable pytree of a weight provider (for shared weights: the weights)."""

Outputs = Any
"""Outputs of a network: logits, `(logits, auxiliary_logits)`, or images."""

Batch = Mapping[str, jax.Array]
"""Arrays with a common leading axis, for example `image` and `label`."""

Losses = jax.Array
"""float32 `[num]`, one per architecture; lower is better."""

Metrics = dict[str, jax.Array]
"""Named scalars (or arrays with one entry per architecture)."""

SearchState = Any
"""Pytree with everything a searcher has learned."""


class SearchSpace(Protocol):
    """A search space: a list of decisions, each among a few categories."""

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision."""
        ...

    @property
    def num_architectures(self) -> int:
        """Number of valid integer vectors, at most the product of the cardinalities."""
        ...

    def sample(self, key: Key) -> Arch:
        """Draw one architecture, int32 `[num_decisions]`."""
        ...

    def encode(self, genotype: Any) -> Arch:
        """Turn the human form of an architecture into its integer vector."""
        ...

    def decode(self, arch: Any) -> Any:
        """Turn an integer vector into the human form of the architecture."""
        ...


class Graph(NamedTuple):
    """The blocks of one architecture as directed acyclic graphs.

    In every block, nodes 0 and 1 are the outputs of the block before and of the one
    before that; for the first blocks, what stands there.

    Attributes:
      node_features: int32 `[num_blocks, num_nodes, num_features]`, what a node is: its
        operation, and what else a space may say of it.
      adjacency: bool `[num_blocks, num_nodes, num_nodes]`, at `[b, u, v]` whether node
        v reads node u; strictly upper triangular.
      node_mask: bool `[num_blocks, num_nodes]`; other nodes are padding, read nothing
        and are not read.
    """

    node_features: jax.Array
    adjacency: jax.Array
    node_mask: jax.Array


class NodeAssignment(NamedTuple):
    """Assignment of an array of stacked weights to nodes or edges of a graph.

    Attributes:
      node: int32 `[*stack, 2]`, block and node whose weights they are, for each entry
        of the leading axes; the axes after them are those of one entry.
      source: int32 `[*stack, 2]`, block and node at the other end of the edge whose
        weights they are; `None` if they belong to the node alone.
      is_used: bool `[*stack]`, whether the architecture uses the entry.
    """

    node: jax.Array
    source: jax.Array | None
    is_used: jax.Array


class GraphSpec(NamedTuple):
    """Specification of a supernet's graph and weights, for hypernetworks.

    Attributes:
      feature_sizes: number of values of each feature of a node.
      specs: `jaxnas.ops.WeightSpec` of every array of weights, in their structure.
      graph: `arch -> Graph`; works inside `jax.jit`, as does `assignments`.
      assignments: `arch -> assignments`, a `NodeAssignment` for every array of weights,
        in their structure; `None` for arrays that are the same for all architectures.
      settings: what the supernet was made with, as JSON holds it: its operations in
        their order and its sizes, but not the number of nodes of a block. Generated
        weights serve supernets with equal settings.
    """

    feature_sizes: tuple[int, ...]
    specs: Any
    graph: Callable[[Arch], Graph]
    assignments: Callable[[Arch], Any]
    settings: Mapping[str, Any] = types.MappingProxyType({})


class Supernet(NamedTuple):
    """A network whose architecture is data and whose weights come from outside.

    Attributes:
      space: the search space its architectures are drawn from.
      init: `key -> weights`.
      apply: `(weights, arch, inputs, *, train, key=None, batch_axis=None) ->
        outputs`. `batch_axis` names the mapped axis over which a batch is
        sharded; batch statistics are then taken over the whole batch.
      graph_spec: where its weights belong in the graph of an architecture, if it can
        tell.
    """

    space: Any
    init: Callable[[Key], Weights]
    apply: Callable[..., Outputs]
    graph_spec: GraphSpec | None = None


class WeightProvider(NamedTuple):
    """Source of the weights of an architecture: shared, or a hypernetwork.

    Attributes:
      init: `key -> params`.
      apply: `(params, arch) -> weights`.
      settings: what the meaning of the parameters depends on, as JSON holds it, for
        files; `None` if it is the supernet alone.
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Arch], Weights]
    settings: Mapping[str, Any] | None = None


class Searcher(NamedTuple):
    """A search algorithm over cardinalities; pure, so usable inside `lax.scan`.

    Attributes:
      init: `key -> state`.
      ask: `(state, key, num) -> archs`, int32 `[num, num_decisions]`.
      tell: `(state, archs, losses) -> (state, metrics)`; lower losses are better.
      mode: `state -> arch`, the most likely architecture.
    """

    init: Callable[[Key], SearchState]
    ask: Callable[[SearchState, Key, int], Arch]
    tell: Callable[[SearchState, Arch, Losses], tuple[SearchState, Metrics]]
    mode: Callable[[SearchState], Arch]


class Task(NamedTuple):
    """A task that networks are trained for.

    Attributes:
      loss: `(outputs, batch) -> (loss, metrics)`, means over the batch; `metrics`
        holds at least `loss`, the task's own loss without auxiliary terms.
      prepare: `(keys, batch) -> batch`, makes of preprocessed images what a network
        takes as `image`, and what the loss compares with. All it draws for an image
        comes from that image's key, of `keys` `[B]`. The default changes nothing.
    """

    loss: Callable[[Outputs, Batch], tuple[jax.Array, Metrics]]
    prepare: Callable[[jax.Array, Batch], Batch] = lambda keys, batch: batch
