"""The flags of commands that train a graph hypernetwork."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from command_line import option

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxnas.types import Params, SearchSpace, Supernet, WeightProvider


@dataclasses.dataclass(frozen=True)
class HypernetworkConfig:
    """Flags of the hypernetwork; the defaults are the paper's where it gives a value.

    It gives none for the tile nor the way in which embeddings are passed.
    """

    hidden_size: int = option(32, "GHN: size of a node's embedding", minimum=1)
    num_steps: int = option(5, "GHN: phases of message passing (T)", minimum=1)
    propagation: Literal["forward_backward", "forward", "synchronous"] = option(
        "forward_backward", "GHN: order in which nodes are updated"
    )
    decoder_size: int = option(64, "GHN: hidden units of the decoder", minimum=1)
    tile: int | None = option(
        None,
        "GHN: most channels that are generated; wider layers repeat them, so that with "
        "64 the second half of 128 channels is a copy of the first (default: the "
        "widest layer's; the paper gives no number)",
        minimum=1,
    )
    pass_embeddings: Literal["every_phase", "once", "none"] = option(
        "every_phase",
        "GHN: how blocks learn of the blocks before: by a message in every update of "
        "their input nodes; by one update before the phases, which deep stacks forget; "
        "not at all",
    )
    share_blocks: bool = option(True, "GHN: all blocks are read by the same functions")
    fan_in_scaling: bool = option(False, "GHN: scale generated weights by their fan-in")
    virtual_edges: int | None = option(
        None, "GHN: largest distance of additional messages (default: none)", minimum=1
    )
    layer_norm: bool = option(
        False, "GHN: normalise embeddings before they are decoded"
    )
    weight_penalty: float = option(
        0.0, "GHN: L2 penalty of the generated weights", minimum=0
    )


SETTINGS = tuple(field.name for field in dataclasses.fields(HypernetworkConfig))


def make_hypernetwork(config: HypernetworkConfig, net: "Supernet") -> "WeightProvider":
    """The hypernetwork of a configuration, for one of its networks."""
    from jaxnas import ghn

    return ghn.hypernetwork(net, **{name: getattr(config, name) for name in SETTINGS})


def make_block_metrics(
    net: "Supernet", provider: "WeightProvider", space: "SearchSpace"
) -> "Callable[[Params], dict[str, float]]":
    """How much neighboring blocks differ, for the log: in the same four architectures.

    They are drawn from a space, and are the same in all runs.
    """
    import jax

    from jaxnas import ghn

    keys = jax.random.split(jax.random.key(0), 4)
    return ghn.block_metrics(net, provider, list(jax.jit(jax.vmap(space.sample))(keys)))
