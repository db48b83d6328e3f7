"""Presets of `cifar_search.py`."""

import dataclasses
from typing import Literal

from hypernetworks import Hypernetwork
from images import DIGITS, FOLDER, Images
from optimizers import Adam, Nesterov, Restarts, Steps, Training
from searchers import Asng, Random, Reinforce, Searchers
from session import Count, Preset, Presets, Rate, Run, Size
from spaces import Dag, Macro, Micro, Space


@dataclasses.dataclass(frozen=True)
class Shared:
    """Weights are shared by all architectures."""


@dataclasses.dataclass(frozen=True)
class Ghn(Hypernetwork):
    """A graph hypernetwork predicts the weights of an architecture.

    Its defaults are the paper's where it gives a value. It gives none for the tile nor
    the way in which embeddings are passed.

    Attributes:
      num_train_nodes: nodes of the blocks that it is trained on (default: --num-
        nodes).
    """

    num_train_nodes: Count | None = None


@dataclasses.dataclass(frozen=True)
class Mode:
    """The result is the most likely architecture."""


@dataclasses.dataclass(frozen=True)
class Best:
    """The result is the best of the candidates."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result is the best after a training of the best candidates from scratch.

    Attributes:
      top_k_epochs: length of that training.
      top_k_learning_rate: first learning rate of its cosine.
    """

    top_k_epochs: Count = 10
    top_k_learning_rate: Rate = 0.025


@dataclasses.dataclass(frozen=True)
class Scratch:
    """Trainings from scratch that the found architecture is compared by.

    Attributes:
      scratch_random: random architectures that are trained from scratch beside
        the found one (0: no such comparison).
      scratch_seeds: of those trainings, for each of them.
      scratch_epochs: length of those trainings.
      scratch_learning_rate: first learning rate of their cosine.
      scratch_dir: folder of those trainings, which searches of one space can
        share (default: scratch in --workdir).
    """

    scratch_random: Size = 0
    scratch_seeds: Count = 2
    scratch_epochs: Count = 50
    scratch_learning_rate: Rate = 0.025
    scratch_dir: str | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a search for convolutional cells or networks.

    Attributes:
      num_archs: architectures in one update of the searcher (lambda).
      num_weight_archs: architectures in one weight step (default: --num-archs).
      searcher_steps: updates of the searcher at the end of each epoch (default:
        one after every weight step).
      objective: what the searcher minimizes: cross-entropy or error rate.
      augment_validation: augment the images that architectures are judged by in
        the search.
      batch_per_arch: judge every architecture by a batch of its own.
      archs_at_once: architectures that a device runs at the same time, if a step
        has more; of use on GPUs, with JAXNAS_GPU_KERNELS=1 in the environment.
      precision: what the supernet computes in while searching. Rankings and trainings
        from scratch are in float32.
      shard: what several devices share: every batch, or the architectures of a
        step.
      stop_when_converged: end after an epoch in which the mean over the decisions of
        the largest probability is this or more (default: never).
      validation_images: training images held out for the searcher (default:
        half).
      num_candidates: architectures ranked at the end.
      screening_images: validation images that all candidates are ranked by, and
        then the best 10 by all of them (0: all candidates by all images).
      num_random: random architectures evaluated with the search's weights.
    """

    num_archs: Count = 2
    num_weight_archs: Count | None = None
    searcher_steps: Size | None = None
    objective: Literal["loss", "error"] = "loss"
    augment_validation: bool = True
    batch_per_arch: bool = False
    archs_at_once: Count = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    shard: Literal["batch", "archs"] = "batch"
    stop_when_converged: Rate | None = None
    validation_images: Count | None = None
    num_candidates: Count = 20
    screening_images: Size = 1000
    num_random: Count = 8
    space: Space = Micro()
    searcher: Searchers = Asng()
    weights: Shared | Ghn = Shared()
    select: Mode | Best | Trained = Mode()
    scratch: Scratch = Scratch()
    training: Training = Training(epochs=100, batch_size=64)
    images: Images = Images()
    run: Run = Run()


ASNG = Config()
RANDOM = dataclasses.replace(
    ASNG, searcher=Random(), select=Best(), num_candidates=1000
)
ENAS_MICRO = Config(
    num_archs=10,
    num_weight_archs=1,
    searcher_steps=30,
    objective="error",
    augment_validation=False,
    batch_per_arch=True,
    validation_images=5000,
    num_candidates=1000,
    screening_images=0,
    space=Micro(channels=20, skeleton="enas", dropout=0.1),
    searcher=Reinforce(),
    select=Best(),
    training=Training(
        epochs=310,
        batch_size=160,
        learning_rate=0.05,
        clip_norm=0.0,
        optimizer=Nesterov(weight_decay=2e-4),
        schedule=Restarts(),
    ),
    images=Images(crop_fill="mean", cutout=0),
)
ENAS_MACRO = dataclasses.replace(
    ENAS_MICRO,
    num_archs=20,
    searcher_steps=50,
    space=Macro(channels=36, dropout=0.1),
    training=dataclasses.replace(ENAS_MICRO.training, batch_size=128),
)
GHN = Config(
    num_archs=1,
    searcher_steps=20,
    objective="error",
    augment_validation=False,
    batch_per_arch=True,
    shard="archs",
    validation_images=5000,
    num_candidates=1000,
    screening_images=0,
    space=Dag(channels=32, num_cells=18, num_nodes=17),
    searcher=Random(),
    weights=Ghn(num_train_nodes=7),
    select=Trained(),
    training=Training(
        epochs=200,
        batch_size=64,
        learning_rate=1e-3,
        optimizer=Adam(),
        schedule=Steps(decay=0.5, decay_at=(100, 150)),
    ),
    images=Images(cutout=0),
)

QUICK = dataclasses.replace(
    ASNG,
    num_candidates=4,
    num_random=4,
    space=Micro(channels=8, num_cells=3),
    scratch=Scratch(scratch_random=4, scratch_epochs=6),
    training=Training(epochs=40, batch_size=32),
    images=DIGITS,
)
QUICK_ENAS = dataclasses.replace(
    ENAS_MICRO,
    searcher_steps=5,
    validation_images=360,
    num_candidates=20,
    space=Micro(channels=8, num_cells=3, skeleton="enas", dropout=0.1),
    searcher=Reinforce(controller_learning_rate=0.0035, entropy_weight=1e-4),
    scratch=QUICK.scratch,
    training=dataclasses.replace(ENAS_MICRO.training, epochs=70, batch_size=32),
    images=dataclasses.replace(DIGITS, crop_fill="mean"),
)
QUICK_ENAS_MACRO = dataclasses.replace(
    QUICK_ENAS,
    space=Macro(channels=16, num_layers=6, dropout=0.1),
    searcher=Reinforce(controller_learning_rate=0.0035),
)
QUICK_GHN = dataclasses.replace(
    GHN,
    validation_images=300,
    num_candidates=50,
    space=Dag(channels=8, num_cells=3, num_nodes=17),
    select=Trained(top_k_epochs=5),
    scratch=Scratch(scratch_random=4, scratch_epochs=5),
    training=dataclasses.replace(
        GHN.training,
        epochs=120,
        batch_size=32,
        learning_rate=2e-3,
        schedule=Steps(decay=0.5, decay_at=(60, 90)),
    ),
    images=DIGITS,
)
FOLDER_ASNG = dataclasses.replace(
    QUICK,
    training=Training(epochs=20, batch_size=32),
    images=FOLDER,
)


PRESETS: Presets[Config] = {
    "quick": Preset(
        """ASNG-NAS on scikit-learn's digits (8x8), a demonstration for a laptop CPU.

    Expected: the found cell and random ones, trained from scratch for 6 epochs, have
    test accuracies of 93 to 97 %, and no difference shows (five seeds: +0.7 points,
    -0.8 to +2.1). Cost: 2 min 30 s on 2 CPU cores with empty caches, half of it
    compilation.
    """,
        QUICK,
    ),
    "quick-enas": Preset(
        """ENAS for cells on scikit-learn's digits (8x8), for a laptop CPU.

    The controller learns 10 times faster than the paper's, or nothing would be seen of
    it in so short a search, and its entropy, which slows it, weighs 1e-4, not 0.1.
    Cost: a few minutes on 2 CPU cores, compilation included.
    """,
        QUICK_ENAS,
    ),
    "quick-enas-macro": Preset(
        """ENAS for a network of 6 layers on scikit-learn's digits (8x8).

    Otherwise as quick-enas, but with the paper's entropy weight.
    """,
        QUICK_ENAS_MACRO,
    ),
    "quick-ghn": Preset(
        """A graph hypernetwork on scikit-learn's digits (8x8), for a laptop CPU.

    It learns on blocks of 7 nodes in networks of 3 blocks. Cost: about five minutes on
    2 CPU cores, compilation included.
    """,
        QUICK_GHN,
    ),
    "folder": Preset(
        """ASNG-NAS on your own images, for a laptop CPU: --data-dir FOLDER.

    FOLDER holds train/CLASS/* and test/CLASS/*, or CLASS/* only; images are cut to
    32x32, or to --image-size. Measured on 2,000 images of 4 classes of Tiny-ImageNet:
    from scratch, the found cell has a test accuracy of 71.50 +- 0.71 % (2 seeds), 4
    random ones 73.88 +- 1.66 %: no difference shows. Cost: 15 minutes on 2 CPU cores.
    """,
        FOLDER_ASNG,
    ),
    "asng-cifar10": Preset(
        """ASNG-NAS on CIFAR-10 as published (Akimoto et al. 2019, section 3.2).

    One half of the training images is for the weights, the other for the distribution.
    Cost: 39,000 steps (the paper: about 40,000), each of 2 training and 2 evaluation
    passes over 64 images. The accuracies of a search only rank architectures.
    """,
        ASNG,
    ),
    "random-cifar10": Preset(
        """Weights trained with uniformly drawn cells; the best of 1000 is the result.

    The baseline of asng-cifar10, at the same cost but for the final ranking: 1000
    cells with 1000 validation images each, then the best 10 with all of them.
    """,
        RANDOM,
    ),
    "enas-micro-cifar10": Preset(
        """ENAS on CIFAR-10, two cells (Pham et al. 2018, sections 2.4 and 3.2).

    45,000 images for the weights, 5,000 for the reward; 310 epochs, each followed by 30
    updates of the controller on 10 cells; the best of 1000 sampled cells is the result.
    Cost: 87,000 steps on 160 images. Users of the official code report 3.9 % test error
    after training such a cell, and 4.0 % for the best of a few random cells.

    The learning rates, epochs and controller are the paper's. So is the L2 penalty of
    1e-4 times the squares of the weights, weight decay 2e-4 here. Batch, updates,
    channels, dropout and padding, which it does not state, are those of the official
    script. Neither clips gradients. Where they differ from here and from each other:

      result       the paper compares fewer samples, by one batch each; here by all
                   5,000 images; the script leaves the choice to its user
      script       --controller script --epochs 150 --min-learning-rate 0.0005
                   --by-epoch
      not offered  the script drops features in rewards too, has an auxiliary head
                   whose own weights are not trained, and starts with larger kernels
    """,
        ENAS_MICRO,
    ),
    "enas-macro-cifar10": Preset(
        """ENAS on CIFAR-10, a network of 12 layers (Pham et al. 2018, section 2.3).

    310 epochs over 45,000 images, each followed by 50 updates of the controller on 20
    networks; the best of 1000 sampled networks is the result. Cost: 109,000 steps on
    128 images. Published: 4.23 % test error after training from scratch, 3.87 % with
    more channels; users of the official code report 4.0 %.

    Sources are those of enas-micro-cifar10, and so are the differences but for these:

      script       --controller script --skips add --weight-decay 0.0005
                   --min-learning-rate 0.0005 --by-epoch
      not offered  in the script all operations compute the last one, rewards use
                   running statistics of all networks, and there is no auxiliary head
    """,
        ENAS_MACRO,
    ),
    "ghn-cifar10": Preset(
        """A graph hypernetwork on CIFAR-10 (Zhang et al. 2019, sections 5.1 and 5.2).

    200 epochs over 45,000 images with blocks of 7 nodes, then 1000 random blocks of 17
    nodes are ranked by their accuracy on all of the other 5,000 images, with predicted
    weights; the best 10 are trained for a while, and the best of them is the result.
    The paper does not say for how long, nor how large the network is while the
    hypernetwork learns (here as in the final training), how images are augmented, how
    blocks learn of the blocks before (see --pass-embeddings) and how one decoder serves
    all numbers of channels (see --tile). On N devices add --devices N --num-archs N:
    each then draws its own block. Cost: 140,600 steps on 64 images; the paper: 10 GPU
    hours with the ranking, 20 with the training of the best 10. It reports test errors
    of 4.3 ± 0.1 % for its 10 best blocks, 5.4 ± 0.3 % for random ones, and 2.84 ± 0.07
    % with CutOut for the best one.
    """,
        GHN,
    ),
}
