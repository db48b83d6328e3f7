"""The flags of commands that train a graph hypernetwork."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from command_line import option

if TYPE_CHECKING:
    from jaxnas.types import Supernet, WeightProvider


@dataclasses.dataclass(frozen=True)
class HypernetworkConfig:
    """Flags of the hypernetwork; the defaults are the paper's."""

    hidden_size: int = option(32, "GHN: size of a node's embedding", minimum=1)
    num_steps: int = option(5, "GHN: phases of message passing (T)", minimum=1)
    propagation: Literal["forward_backward", "forward", "synchronous"] = option(
        "forward_backward", "GHN: order in which nodes are updated"
    )
    pass_embeddings: bool = option(
        True, "GHN: a block's embedding reaches the next blocks"
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
