"""Presets of `ghn_correlation.py`."""

import dataclasses
from typing import Annotated, Literal

from hypernetworks import Hypernetwork
from images import DIGITS, Images
from session import AtLeast, Count, Preset, Presets, Rate, Run


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a study of how well performance predictors rank architectures.

    Attributes:
      predictors: what is compared: a few steps of SGD, shared weights, a
        hypernetwork.
      num_architectures: random architectures that are scored and trained.
      num_nodes: nodes of their blocks, two inputs included.
      node_input: a node applies its operation to each input, or to their sum.
      channels: channels of the first blocks.
      num_blocks: blocks of a network, at least 3.
      batch_size: images in a batch, everywhere.
      validation_images: training images held out for the scores.
      num_resamples: resamples of the bootstrap of the intervals.
      standalone_epochs: training of each architecture.
      standalone_seeds: trainings of each architecture: scores are compared with the
        mean of their test accuracies, and two or more give the noise ceiling.
      standalone_dir: folder of the trained architectures' accuracies, which studies
        can share (default: standalone in --workdir).
      sgd_steps: after how many steps its scores are taken, ascending, in a
        training of its own.
      one_shot_epochs: training of the shared weights.
      one_shot_seeds: trainings of the shared weights.
      sgd_learning_rate: of single architectures and shared weights, first of a
        cosine.
      momentum: of theirs.
      weight_decay: l2 penalty of theirs.
      clip_norm: limit of the gradient's global norm, everywhere; 0 for none.
      epochs: training of the hypernetwork.
      ghn_seeds: trainings of the hypernetwork.
      learning_rate: of the hypernetwork's Adam.
      halved_at: epochs at which that is halved, ascending; may be empty.
      meta_batch: architectures in one step of the hypernetwork.
      num_train_nodes: nodes of the blocks that the hypernetwork is trained on.
    """

    predictors: tuple[Literal["sgd", "one-shot", "ghn"], ...] = (
        "sgd",
        "one-shot",
        "ghn",
    )
    num_architectures: Annotated[int, AtLeast(8)] = 100
    num_nodes: Annotated[int, AtLeast(3)] = 17
    node_input: Literal["each", "sum"] = "each"
    channels: Count = 32
    num_blocks: Count = 18
    batch_size: Count = 64
    validation_images: Count = 5000
    num_resamples: Count = 2000

    standalone_epochs: Count = 50
    standalone_seeds: Count = 1
    standalone_dir: str | None = None
    sgd_steps: tuple[int, ...] = (10, 100, 200, 1000)
    one_shot_epochs: Count = 200
    one_shot_seeds: Count = 1
    sgd_learning_rate: Rate = 0.025
    momentum: Rate = 0.9
    weight_decay: Rate = 3e-4
    clip_norm: Rate = 5.0

    epochs: Count = 200
    ghn_seeds: Count = 1
    learning_rate: Rate = 1e-3
    halved_at: tuple[int, ...] = (100, 150)
    meta_batch: Count = 1
    num_train_nodes: Annotated[int, AtLeast(3)] = 7

    hypernetwork: Hypernetwork = Hypernetwork()
    images: Images = Images(cutout=0)
    run: Run = Run()


# The coefficients to expect are to be measured with this protocol.
QUICK = Config(
    num_architectures=30,
    channels=8,
    num_blocks=3,
    batch_size=32,
    validation_images=300,
    standalone_epochs=5,
    standalone_seeds=2,
    sgd_steps=(10, 25, 50),
    one_shot_epochs=60,
    sgd_learning_rate=0.05,
    epochs=120,
    learning_rate=2e-3,
    halved_at=(60, 90),
    images=DIGITS,
)


PRESETS: Presets[Config] = {
    "quick": Preset(
        """The study in small on scikit-learn's digits (8x8), for a laptop CPU.

    30 architectures in networks of 3 blocks, each trained with two seeds, and up to 50
    of 185 steps with a third for the scores of SGD. Of so few architectures, intervals
    are wide, most of all those of the better half, which holds 15.

    Cost: about 16 minutes on 2 CPU cores, an estimate: 30 times 420 steps of 49 ms, 2
    minutes each for hypernetwork and shared weights, 2 for compilation. Another 70
    architectures (--num-architectures 100), which add to those that are there, take
    half an hour more, another --ghn-seeds 2 minutes.
    """,
        QUICK,
    ),
    "ghn-cifar10": Preset(
        """The correlation study of the GHN paper (Zhang et al. 2019, section 4.3).

    100 random architectures of 17 nodes, 45,000 images to train, 5,000 for the scores.
    The paper compares with the accuracy after 50 epochs and reports Pearson's
    coefficient only (Table 4), over all and over the better half:

      SGD, 10 steps        0.26  -0.05
      SGD, 100 steps       0.59   0.06
      SGD, 200 steps       0.62   0.20
      SGD, 1000 steps      0.77   0.26
      one-shot             0.58   0.31   (9.8 GPU hours of preparation)
      GHN                  0.68   0.48   (6.1 GPU hours)

    Stacked blocks (Table 5): 0.24 and 0.15 with --no-share-blocks
    --pass-embeddings none, 0.44 and 0.37 with --no-share-blocks.
    --num-train-nodes 5, 7, 9, ... 23 (Figure 5a): .58 .60 .49 .51 .37 .34 .35 .14 .20
    .14 over all, .36 .52 .42 .37 .26 .08 .18 .23 .12 .02 over the better half.
    --num-steps 1 to 7 (Figure 5b): .39 .47 .45 .51 .60 .61 .58 and .42 .44 .33 .38 .48
    .44 .47; with --propagation synchronous .29 .43 .31 .48 .43 .41 .47 and .15 .25 .28
    .33 .18 .11 .29.

    These are single runs. The same setting appears as 0.68 and 0.48, 0.60 and 0.52,
    0.60 and 0.48, so differences below 0.1 mean little; 0.5 to 0.7 and 0.35 to 0.55
    agree with the paper. It does not say how architectures are drawn, which optimizer
    trains them and the shared weights, for how long the latter, or what augmentation
    there is; here: as in `spaces.ghn_dag`, SGD as for final networks, as long as the
    hypernetwork, crops and flips. Nor does it say whether the scores of SGD are from
    the trainings that they are compared with; here they are from others. It has no
    noise ceiling, for which --standalone-seeds must be 2: coefficients are to be judged
    against that, not against 1. In another space, two trainings of 24 DARTS-like
    architectures agreed with 0.80 (Pearson) and 0.58 (Kendall; data of Yang et al.,
    NAS evaluation is frustratingly hard, 2020).

    Cost: 3.5 million steps of 64 images for the accuracies of each seed, 100,000 for
    the scores of SGD, 140,000 for each training of hypernetwork or shared weights. Give
    studies that differ in the hypernetwork one --standalone-dir.
    """,
        Config(),
    ),
}
