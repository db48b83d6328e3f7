"""The search spaces of `cifar_search.py`: what is searched, in which supernet."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from session import Count, Rate

if TYPE_CHECKING:
    import flax.linen as nn

    from jaxnas import data
    from jaxnas.types import Supernet


@dataclasses.dataclass(frozen=True)
class Micro:
    """Two cells that a network is stacked of (ENAS, ASNG-NAS).

    Attributes:
      channels: channels of the first cells, an even number.
      num_cells: cells, two of which reduce.
      num_nodes: nodes of a cell.
      skeleton: weights are shared by a node's two edges (asng) or not (enas).
      dropout: of the features before the classifier.
    """

    channels: Count = 16
    num_cells: Count = 8
    num_nodes: Count = 5
    skeleton: Literal["asng", "enas"] = "asng"
    dropout: Rate = 0.0

    def supernet(self, dataset: "data.ImageDataset") -> "Supernet":
        """The network of all cells."""
        from jaxnas import spaces, supernets

        return supernets.micro(
            spaces.enas_micro(self.num_nodes),
            num_cells=self.num_cells,
            skeleton=self.skeleton,
            **_common(self, dataset),
        )

    def network(self, genotype: Any, num_classes: int) -> "nn.Module":
        """The network of two cells, with weights of its own and as large."""
        from jaxnas import networks

        size = self.channels, self.num_cells, num_classes
        if self.skeleton == "enas":
            return networks.micro(genotype, *size, skeleton="enas")
        return networks.micro(genotype, *size, cell_output="projection")

    def training_preset(self) -> str:
        """The preset of `cifar_train.py` that trains a genotype, on CIFAR-10."""
        return "enas-micro-cifar10" if self.skeleton == "enas" else "asng-cifar10"


@dataclasses.dataclass(frozen=True)
class Macro:
    """A whole network of layers and skips (ENAS).

    Attributes:
      channels: channels of all layers, an even number.
      num_layers: layers.
      skips: a 1x1 convolution of a layer and its skips, or their sum.
      dropout: of the features before the classifier.
    """

    channels: Count = 16
    num_layers: Count = 12
    skips: Literal["concat", "add"] = "concat"
    dropout: Rate = 0.0

    def supernet(self, dataset: "data.ImageDataset") -> "Supernet":
        """The network of all layers and skips."""
        from jaxnas import spaces, supernets

        space = spaces.enas_macro(self.num_layers)
        return supernets.macro(space, skips=self.skips, **_common(self, dataset))

    def network(self, genotype: Any, num_classes: int) -> "nn.Module":
        """The network of one macro genotype, with weights of its own and as large."""
        from jaxnas import networks

        return networks.macro(genotype, self.channels, num_classes)

    def training_preset(self) -> str:
        """The preset of `cifar_train.py` that trains a genotype, on CIFAR-10."""
        return "enas-macro-cifar10"


@dataclasses.dataclass(frozen=True)
class Dag:
    """A DAG block that a network is stacked of (GHN).

    Attributes:
      channels: channels of the first blocks, an even number.
      num_cells: blocks.
      num_nodes: nodes of a block, two inputs included.
      node_input: a node applies its operation to each input, or to their sum.
      dropout: of the features before the classifier.
    """

    channels: Count = 16
    num_cells: Count = 8
    num_nodes: Count = 5
    node_input: Literal["each", "sum"] = "each"
    dropout: Rate = 0.0

    def supernet(self, dataset: "data.ImageDataset") -> "Supernet":
        """The network of all blocks."""
        from jaxnas import spaces, supernets

        return supernets.dag(
            spaces.ghn_dag(self.num_nodes),
            num_blocks=self.num_cells,
            node_input=self.node_input,
            **_common(self, dataset),
        )

    def network(self, genotype: Any, num_classes: int) -> "nn.Module":
        """The network of one block, with weights of its own and as large."""
        from jaxnas import networks

        return networks.dag(genotype, self.channels, self.num_cells, num_classes)

    def training_preset(self) -> str:
        """The preset of `cifar_train.py` that trains a genotype, on CIFAR-10."""
        return "ghn-cifar10"


Space = Micro | Macro | Dag


def _common(space: Space, dataset: "data.ImageDataset") -> dict[str, Any]:
    return {
        "channels": space.channels,
        "num_classes": dataset.num_classes,
        "dropout": space.dropout,
        "image_channels": dataset.train.images.shape[-1],
    }
