"""Presets of `cifar_search.py`."""

import dataclasses
from typing import Literal

from command_line import option
from hypernetworks import HypernetworkConfig
from images import ImageConfig
from optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Config(HypernetworkConfig, OptimizerConfig, ImageConfig):
    """Settings of a search for convolutional cells or networks."""

    space: Literal["micro", "macro", "dag"] = option(
        "micro",
        "what is searched: two cells, a whole network of layers and skips, or a block "
        "that is any graph",
    )
    weights: Literal["shared", "ghn"] = option(
        "shared",
        "where weights come from: shared by all, or from a graph hypernetwork (GHN)",
    )
    searcher: Literal["asng", "reinforce", "random"] = option(
        "asng", "search algorithm"
    )
    alpha: float = option(1.5, "ASNG: signal-to-noise threshold")
    init_delta: float = option(1.0, "ASNG: first radius of the trust region")
    controller: Literal["paper", "script"] = option(
        "paper", "REINFORCE: the paper's settings or those of the official scripts"
    )
    controller_learning_rate: float | None = option(
        None, "REINFORCE: of Adam (default: as --controller says)", minimum=0
    )
    entropy_weight: float | None = option(
        None, "REINFORCE: weight of the entropy (default: as --controller)", minimum=0
    )
    num_archs: int = option(
        2, "architectures in one update of the searcher (lambda)", minimum=1
    )
    num_weight_archs: int | None = option(
        None, "architectures in one weight step (default: --num-archs)", minimum=1
    )
    searcher_steps: int | None = option(
        None,
        "updates of the searcher at the end of each epoch (default: one after every "
        "weight step)",
        minimum=0,
    )
    objective: Literal["loss", "error"] = option(
        "loss", "what the searcher minimises: cross-entropy or error rate"
    )
    augment_validation: bool = option(
        True, "augment the images that architectures are judged by in the search"
    )
    batch_per_arch: bool = option(
        False, "judge every architecture by a batch of its own"
    )
    shard: Literal["batch", "archs"] = option(
        "batch",
        "what several devices share: every batch, or the architectures of a step",
    )
    validation_images: int | None = option(
        None, "training images held out for the searcher (default: half)", minimum=1
    )
    select: Literal["mode", "best", "trained"] = option(
        "mode",
        "result: the most likely architecture, the best of the candidates, or the best "
        "after a training of the best candidates from scratch",
    )
    finalist_epochs: int = option(10, "trained: length of that training", minimum=1)
    finalist_learning_rate: float = option(
        0.025, "trained: first learning rate of its cosine", minimum=0
    )
    num_candidates: int = option(20, "architectures ranked at the end", minimum=1)
    screening_images: int = option(
        1000,
        "validation images that all candidates are ranked by, and then the best 10 by "
        "all of them (0: all candidates by all images)",
        minimum=0,
    )
    num_random: int = option(
        8, "random architectures evaluated with the search's weights", minimum=1
    )
    scratch_random: int = option(
        0,
        "random architectures that are trained from scratch beside the found one (0: "
        "no such comparison)",
        minimum=0,
    )
    scratch_seeds: int = option(2, "of those trainings, for each of them", minimum=1)
    scratch_epochs: int = option(50, "length of those trainings", minimum=1)
    scratch_learning_rate: float = option(
        0.025, "first learning rate of their cosine", minimum=0
    )
    scratch_dir: str | None = option(
        None,
        "folder of those trainings, which searches of one space can share (default: "
        "scratch in --workdir)",
    )

    channels: int = option(
        16, "channels of the first cells or of all layers, an even number", minimum=1
    )
    num_cells: int = option(
        8, "micro: cells, two of which reduce; dag: blocks", minimum=1
    )
    num_nodes: int = option(
        5, "micro: nodes of a cell; dag: of a block, two inputs included", minimum=1
    )
    num_train_nodes: int | None = option(
        None,
        "dag: nodes of the blocks that weights are trained with (default: --num-nodes)",
        minimum=1,
    )
    node_input: Literal["each", "sum"] = option(
        "each", "dag: a node applies its operation to each input, or to their sum"
    )
    layout: Literal["asng", "enas"] = option(
        "asng", "micro: weights shared by a node's two edges (asng) or not (enas)"
    )
    num_layers: int = option(12, "macro: layers", minimum=1)
    skips: Literal["concat", "add"] = option(
        "concat", "macro: a 1x1 convolution of a layer and its skips, or their sum"
    )
    dropout: float = option(0.0, "of the features before the classifier", minimum=0)


def quick() -> Config:
    """ASNG-NAS on scikit-learn's digits (8x8), a demonstration for a laptop CPU.

    Expected: the found cell and random ones, trained from scratch for 6 epochs, have
    test accuracies of 93 to 97 %, and no difference shows (five seeds: +0.7 points,
    -0.8 to +2.1). Cost: 2 min 30 s on 2 CPU cores with empty caches, half of it
    compilation.
    """
    return Config(
        dataset="digits",
        crop_padding=1,
        flip=False,
        cutout=0,
        num_candidates=4,
        num_random=4,
        scratch_random=4,
        scratch_epochs=6,
        channels=8,
        num_cells=3,
        epochs=40,
        batch_size=32,
    )


def asng_cifar10() -> Config:
    """ASNG-NAS on CIFAR-10 as published (Akimoto et al. 2019, section 3.2).

    One half of the training images is for the weights, the other for the distribution.
    Cost: 39,000 steps (the paper: about 40,000), each of 2 training and 2 evaluation
    passes over 64 images. The accuracies of a search only rank architectures.
    """
    return Config(epochs=100, batch_size=64)


def random_cifar10() -> Config:
    """Weights trained with uniformly drawn cells; the best of 1000 is the result.

    The baseline of asng-cifar10, at the same cost but for the final ranking: 1000
    cells with 1000 validation images each, then the best 10 with all of them.
    """
    return dataclasses.replace(
        asng_cifar10(), searcher="random", select="best", num_candidates=1000
    )


def enas_micro_cifar10() -> Config:
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
                   --schedule restarts-by-epoch
      not offered  the script drops features in rewards too, has an auxiliary head
                   whose own weights are not trained, and starts with larger kernels
    """
    return Config(
        searcher="reinforce",
        num_archs=10,
        num_weight_archs=1,
        searcher_steps=30,
        objective="error",
        augment_validation=False,
        batch_per_arch=True,
        validation_images=5000,
        select="best",
        num_candidates=1000,
        screening_images=0,
        channels=20,
        layout="enas",
        dropout=0.1,
        cutout=0,
        epochs=310,
        batch_size=160,
        learning_rate=0.05,
        schedule="restarts",
        optimizer="nesterov",
        weight_decay=2e-4,
        clip_norm=0.0,
        crop_fill="mean",
    )


def enas_macro_cifar10() -> Config:
    """ENAS on CIFAR-10, a network of 12 layers (Pham et al. 2018, section 2.3).

    310 epochs over 45,000 images, each followed by 50 updates of the controller on 20
    networks; the best of 1000 sampled networks is the result. Cost: 109,000 steps on
    128 images. Published: 4.23 % test error after training from scratch, 3.87 % with
    more channels; users of the official code report 4.0 %.

    Sources are those of enas-micro-cifar10, and so are the differences but for these:

      script       --controller script --skips add --weight-decay 0.0005
                   --min-learning-rate 0.0005 --schedule restarts-by-epoch
      not offered  in the script all operations compute the last one, rewards use
                   running statistics of all networks, and there is no auxiliary head
    """
    return dataclasses.replace(
        enas_micro_cifar10(),
        space="macro",
        num_archs=20,
        searcher_steps=50,
        channels=36,
        batch_size=128,
    )


def quick_enas() -> Config:
    """ENAS for cells on scikit-learn's digits (8x8), for a laptop CPU.

    The controller learns 10 times faster than the paper's, or nothing would be seen of
    it in so short a search, and its entropy, which slows it, weighs 1e-4, not 0.1.
    Cost: a few minutes on 2 CPU cores, compilation included.
    """
    return dataclasses.replace(
        enas_micro_cifar10(),
        dataset="digits",
        crop_padding=1,
        flip=False,
        controller_learning_rate=0.0035,
        entropy_weight=1e-4,
        searcher_steps=5,
        validation_images=360,
        num_candidates=20,
        scratch_random=4,
        scratch_epochs=6,
        channels=8,
        num_cells=3,
        epochs=70,
        batch_size=32,
    )


def quick_enas_macro() -> Config:
    """ENAS for a network of 6 layers on scikit-learn's digits (8x8).

    Otherwise as quick-enas, but with the paper's entropy weight.
    """
    return dataclasses.replace(
        quick_enas(), space="macro", channels=16, num_layers=6, entropy_weight=None
    )


def ghn_cifar10() -> Config:
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
    """
    return Config(
        space="dag",
        weights="ghn",
        searcher="random",
        shard="archs",
        num_archs=1,
        searcher_steps=20,
        objective="error",
        augment_validation=False,
        batch_per_arch=True,
        validation_images=5000,
        select="trained",
        num_candidates=1000,
        screening_images=0,
        channels=32,
        num_cells=18,
        num_nodes=17,
        num_train_nodes=7,
        cutout=0,
        epochs=200,
        batch_size=64,
        learning_rate=1e-3,
        schedule="steps",
        decay=0.5,
        decay_at="100,150",
        optimizer="adam",
    )


def quick_ghn() -> Config:
    """A graph hypernetwork on scikit-learn's digits (8x8), for a laptop CPU.

    It learns on blocks of 7 nodes in networks of 3 blocks. Cost: about five minutes on
    2 CPU cores, compilation included.
    """
    return dataclasses.replace(
        ghn_cifar10(),
        dataset="digits",
        crop_padding=1,
        flip=False,
        validation_images=300,
        num_candidates=50,
        finalist_epochs=5,
        scratch_random=4,
        scratch_epochs=5,
        channels=8,
        num_cells=3,
        epochs=120,
        decay_at="60,90",
        batch_size=32,
        learning_rate=2e-3,
    )


PRESETS = {
    "quick": quick,
    "quick-enas": quick_enas,
    "quick-enas-macro": quick_enas_macro,
    "quick-ghn": quick_ghn,
    "asng-cifar10": asng_cifar10,
    "random-cifar10": random_cifar10,
    "enas-micro-cifar10": enas_micro_cifar10,
    "enas-macro-cifar10": enas_macro_cifar10,
    "ghn-cifar10": ghn_cifar10,
}
