"""Presets of `anytime_search.py`."""

import dataclasses

from hypernetworks import Hypernetwork
from images import DIGITS, Images
from session import Count, Preset, Presets, Rate, Run


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a search for networks that predict at any time.

    Attributes:
      num_nodes: nodes of the three blocks, inputs not counted.
      min_nodes: fewest nodes of the blocks that the hypernetwork is trained on.
      num_exits: exits of the three blocks.
      density: probability that a node reads an earlier one.
      channels: channels of the first block, an even number; they double.
      budget: largest number of multiply-adds for an image.
      batch_size: images in a batch, everywhere.
      validation_images: training images held out to select by.
      num_candidates: random networks to select from.
      epochs: training of the hypernetwork.
      learning_rate: of its Adam; halved after a half and three quarters.
      clip_norm: limit of the gradient's global norm, everywhere; 0 for none.
      meta_batch: architectures in one step of the hypernetwork.
      num_random: random networks that are trained for comparison.
      final_epochs: training of each network.
      final_seeds: trainings of each network.
      final_learning_rate: of its SGD; divided by 10 after a half and three
        quarters.
      momentum: of its SGD.
      weight_decay: l2 penalty of its SGD.
    """

    num_nodes: tuple[int, int, int] = (24, 16, 8)
    min_nodes: tuple[int, int, int] = (2, 4, 4)
    num_exits: tuple[int, int, int] = (2, 4, 4)
    density: Rate = 0.45
    channels: Count = 16
    budget: Rate = 1.4e8
    batch_size: Count = 64
    validation_images: Count = 5000
    num_candidates: Count = 1000

    epochs: Count = 200
    learning_rate: Rate = 1e-3
    clip_norm: Rate = 5.0
    meta_batch: Count = 1

    num_random: Count = 10
    final_epochs: Count = 300
    final_seeds: Count = 1
    final_learning_rate: Rate = 0.1
    momentum: Rate = 0.9
    weight_decay: Rate = 1e-4

    hypernetwork: Hypernetwork = Hypernetwork()
    images: Images = Images(cutout=0)
    run: Run = Run()


QUICK = Config(
    num_nodes=(6, 4, 3),
    min_nodes=(2, 2, 2),
    num_exits=(2, 2, 2),
    channels=8,
    budget=3e5,
    validation_images=300,
    num_candidates=50,
    epochs=60,
    num_random=3,
    final_epochs=10,
    images=DIGITS,
)


PRESETS: Presets[Config] = {
    "quick": Preset(
        """The search in small on scikit-learn's digits (8x8), for a laptop CPU.

    Expected (seed 0, one training of each network): the found network answers 82.7 % of
    single test images rightly, averaged over all budgets, and the 3 random ones 71.9 to
    73.8 %. Cost: 6 minutes on one CPU core, most of which is compilation and the
    hypernetwork's training.
    """,
        QUICK,
    ),
    "ghn-anytime-cifar10": Preset(
        """Anytime prediction with Graph HyperNetworks (Zhang et al. 2019, section 4.2).

    24, 16 and 8 nodes with 2, 4 and 4 exits, as in the best network that the paper
    shows. Published (Figure 3), millions of multiply-adds and accuracy in percent:

      GHN     13 90.87,  22 92.42,  39 93.41,  51 94.15,  66 94.47,
              81 94.68,  95 94.70, 107 94.71, 122 94.72, 139 94.73
      MSDNet  12 90.0,   25 91.8,   40 92.9,   50 93.2,   60 93.5,
              70 93.8,   85 93.9,  100 94.0,  110 94.05, 130 94.1

    The best ten networks are better than ten random ones, which reach 92 to 94
    (Figure 4). The paper does not tell the channels (here such that random networks
    stay within the budget), the number of candidates (here as in its search for
    classification), the fewest nodes in training, weight decay (here MSDNet's) and
    augmentation (here crops and flips). Cost: 140,000 steps for the hypernetwork and
    234,000 for each of the 11 networks that are trained.
    """,
        Config(),
    ),
}
