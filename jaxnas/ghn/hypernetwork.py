"""A graph hypernetwork: it reads an architecture and writes its weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxnas import ops
from jaxnas.ghn import decoder, functions
from jaxnas.ghn import propagation as message_passing
from jaxnas.ghn.propagation import (
    PASS_EMBEDDINGS,
    PROPAGATIONS,
    PassEmbeddings,
    Propagation,
)
from jaxnas.types import Arch, Key, Params, Supernet, WeightProvider, Weights


def hypernetwork(
    net: Supernet,
    hidden_size: int = 32,
    num_steps: int = 5,
    propagation: Propagation = "forward_backward",
    *,
    decoder_size: int = 64,
    tile: int | None = None,
    pass_embeddings: PassEmbeddings = "every_phase",
    share_blocks: bool = True,
    fan_in_scaling: bool = False,
    virtual_edges: int | None = None,
    layer_norm: bool = False,
    weight_penalty: float = 0.0,
) -> WeightProvider:
    """Generate the weights of every architecture by one graph hypernetwork.

    Every node of an architecture has an embedding that begins with its operation. Along
    the edges of the graph the nodes exchange messages, block after block; a decoder
    then writes the weights of a node from its embedding, and the weights of an edge
    from those of both ends. Weights that all architectures have in common (stem,
    classifier) are ordinary parameters.

    Nothing in the parameters depends on the number of nodes: parameters that were
    trained with the blocks of `spaces.ghn_dag(7)` serve a supernet of
    `spaces.ghn_dag(17)` that is otherwise alike.

    Args:
      net: the supernet the weights are for; it must have a graph spec.
      hidden_size: size of the embedding of a node.
      num_steps: phases of message passing in a block (T).
      propagation: `"forward_backward"`: nodes are updated one after the other, there
        and back; `"forward"`: there only; `"synchronous"`: all at once.
      decoder_size: hidden units of the decoder.
      tile: the most input and output channels that are generated; larger kernels
        repeat them, so that with 64 the channels k and k + 64 of a layer are equal.
        `None`: as many as the widest layer has, and nothing is repeated.
      pass_embeddings: how the embedding of a block reaches the blocks after it.
        `"every_phase"`: their input nodes receive it in each of their updates, together
        with those of the blocks in between; `"once"`: those of the next two are updated
        with it, before the phases; `"none"`: not at all. With `"none"` and
        `share_blocks`, blocks that are alike have the same weights; with `"once"`, so
        have all but the first few of a deep stack, up to rounding (see
        `jaxnas.ghn.propagation.embed` for figures and reasons).
      share_blocks: whether all blocks are read by the same functions.
      fan_in_scaling: whether weights are scaled by their fan-in (Knyazev et al. 2021).
      virtual_edges: the largest distance from which nodes receive messages (Knyazev et
        al. 2021: 50); from neighbors only if `None`.
      layer_norm: whether embeddings are normalized before they are decoded (Knyazev et
        al. 2021).
      weight_penalty: `weight_penalty / 2` times the squares of all generated weights
        are added to what is minimized (Knyazev et al. 2023), though not to the loss
        that is shown.

    Returns:
      A `WeightProvider`. Weights that an architecture does not use are 0. Its settings
      are those of the supernet and the arguments above.

    Raises:
      ValueError: if the supernet has no graph spec, `propagation` or `pass_embeddings`
        is unknown, or a number is out of range.

    Source: Zhang et al. 2019, sections 3 and 4, with the sizes of its experiments. How
    the embedding of a block enters the next, how one decoder serves all numbers of
    channels, and what writes the bottlenecks before the input nodes are not published;
    here: as a message in every phase, by cutting the kernels of the widest layer, and
    from edges. Knyazev et al. repeat tiles of 64 x 64. For `supernets.dag` with 32
    channels and 9 operations there are 19.8 million parameters, 14.9 million of them
    for the 7x1 and 1x7 convolutions; with tiles of 64 x 64, 5.2 million.
    """
    graph_spec = net.graph_spec
    if graph_spec is None:
        raise ValueError(
            "the supernet has no graph spec, so its weights cannot be generated; "
            "expected one that has, such as supernets.dag"
        )
    if propagation not in PROPAGATIONS:
        raise ValueError(
            f"propagation is {propagation!r}; expected one of {', '.join(PROPAGATIONS)}"
        )
    if pass_embeddings not in PASS_EMBEDDINGS:
        raise ValueError(
            f"pass_embeddings is {pass_embeddings!r}; expected one of "
            f"{', '.join(PASS_EMBEDDINGS)}"
        )
    sizes = {
        "hidden_size": hidden_size,
        "num_steps": num_steps,
        "decoder_size": decoder_size,
        "tile": tile,
        "virtual_edges": virtual_edges,
    }
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    if not 0 <= weight_penalty < float("inf"):
        raise ValueError(f"weight_penalty is {weight_penalty}; expected 0 or more")

    arguments = sizes | {
        "propagation": propagation,
        "pass_embeddings": pass_embeddings,
        "share_blocks": share_blocks,
        "fan_in_scaling": fan_in_scaling,
        "layer_norm": layer_norm,
        "weight_penalty": weight_penalty,
    }
    settings = {"hypernetwork": arguments, "supernet": dict(graph_spec.settings)}
    treedef = jax.tree.structure(
        graph_spec.specs, is_leaf=lambda leaf: isinstance(leaf, ops.WeightSpec)
    )

    def init(key: Key) -> Params:
        net_key, key = jax.random.split(key)
        arch = jnp.zeros(len(net.space.cardinalities), jnp.int32)
        arrays = decoder.weight_arrays(graph_spec.specs, graph_spec.assignments(arch))
        blocks = functions.specs(hidden_size, virtual_edges=virtual_edges is not None)
        if not share_blocks:
            num_blocks = graph_spec.graph(arch).node_mask.shape[0]
            blocks = jax.tree.map(
                lambda spec: spec.stack(num_blocks),
                blocks,
                is_leaf=lambda leaf: isinstance(leaf, ops.WeightSpec),
            )
        node_features = [
            ops.WeightSpec((num, hidden_size), 1) for num in graph_spec.feature_sizes
        ]
        params = ops.init(
            key,
            {
                "graph": {"attributes": node_features, "blocks": blocks},
                "decoder": decoder.decoder_specs(
                    arrays, hidden_size, decoder_size, tile
                ),
            },
        )
        weights = jax.tree.leaves(net.init(net_key))
        params["learned"] = [
            weight
            for weight, array in zip(weights, arrays, strict=True)
            if array.assignment is None
        ]
        return params

    def apply(params: Params, arch: Arch) -> Weights:
        embeddings = message_passing.embed(
            params["graph"],
            graph_spec.graph(arch),
            num_steps=num_steps,
            propagation=propagation,
            pass_embeddings=pass_embeddings,
            virtual_edges=virtual_edges,
        )
        if layer_norm:
            embeddings = jax.nn.standardize(embeddings, epsilon=1e-5)
        arrays = decoder.weight_arrays(graph_spec.specs, graph_spec.assignments(arch))
        weights = decoder.decode(
            params["decoder"],
            embeddings,
            arrays,
            params["learned"],
            fan_in_scaling=fan_in_scaling,
        )
        if weight_penalty > 0:
            weights = [
                weight
                if array.assignment is None
                else _penalize(weight_penalty, weight)
                for weight, array in zip(weights, arrays, strict=True)
            ]
        return jax.tree.unflatten(treedef, weights)

    return WeightProvider(init, apply, settings)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _penalize(penalty: float, weight: jax.Array) -> jax.Array:
    """The weight itself, whose gradient has that of an L2 penalty added to it."""
    return weight


def _penalize_fwd(penalty: float, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    return weight, weight


def _penalize_bwd(penalty: float, weight: jax.Array, gradient: Any) -> tuple[jax.Array]:
    return (gradient + penalty * weight,)


_penalize.defvjp(_penalize_fwd, _penalize_bwd)
