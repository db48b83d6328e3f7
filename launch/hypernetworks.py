"""The flags of commands that train a graph hypernetwork."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from session import Count, Rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxnas.types import Params, SearchSpace, Supernet, WeightProvider


@dataclasses.dataclass(frozen=True)
class Hypernetwork:
    """A graph hypernetwork; the defaults are the paper's where it gives a value.

    It gives none for the tile nor the way in which embeddings are passed.

    Attributes:
      hidden_size: size of a node's embedding.
      num_steps: phases of message passing (T).
      propagation: order in which nodes are updated.
      decoder_size: hidden units of the decoder.
      tile: most channels that are generated; wider layers repeat them, so that
        with 64 the second half of 128 channels is a copy of the first (default:
        the widest layer's; the paper gives no number).
      pass_embeddings: how blocks learn of the blocks before: by a message in
        every update of their input nodes; by one update before the phases, which
        deep stacks forget; not at all.
      share_blocks: all blocks are read by the same functions.
      fan_in_scaling: scale generated weights by their fan-in.
      virtual_edges: largest distance of additional messages (default: none).
      layer_norm: normalize embeddings before they are decoded.
      weight_penalty: l2 penalty of the generated weights.
    """

    hidden_size: Count = 32
    num_steps: Count = 5
    propagation: Literal["forward_backward", "forward", "synchronous"] = (
        "forward_backward"
    )
    decoder_size: Count = 64
    tile: Count | None = None
    pass_embeddings: Literal["every_phase", "once", "none"] = "every_phase"
    share_blocks: bool = True
    fan_in_scaling: bool = False
    virtual_edges: Count | None = None
    layer_norm: bool = False
    weight_penalty: Rate = 0.0


SETTINGS = tuple(field.name for field in dataclasses.fields(Hypernetwork))


def make_hypernetwork(config: Hypernetwork, net: "Supernet") -> "WeightProvider":
    """The hypernetwork of the settings, for one of its networks."""
    from jaxnas import ghn

    return ghn.hypernetwork(net, **{name: getattr(config, name) for name in SETTINGS})


def make_block_metrics(
    net: "Supernet", provider: "WeightProvider", space: "SearchSpace"
) -> "Callable[[Params], dict[str, float]]":
    """Differences of neighboring blocks, for the log: in the same four architectures.

    They are drawn from a space, and are the same in all runs.
    """
    import jax

    from jaxnas import ghn

    keys = jax.random.split(jax.random.key(0), 4)
    return ghn.block_metrics(net, provider, list(jax.jit(jax.vmap(space.sample))(keys)))
