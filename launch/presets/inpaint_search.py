"""Presets of `inpaint_search.py`."""

import dataclasses

from images import Images
from inpainting import CELEBA, DIGITS, Categorical, Mask, Missing, Mixed
from optimizers import Cosine, Sgd, Training
from searchers import AdamSng, Asng, Random, Sng
from session import Count, Preset, Presets, Rate, Run, Size


@dataclasses.dataclass(frozen=True)
class Mode:
    """The result is the most likely architecture."""


@dataclasses.dataclass(frozen=True)
class Best:
    """The result is the best of some candidates.

    Attributes:
      num_candidates: architectures that the searcher samples in the end.
      screening_images: validation images that all candidates are ranked by, and then
        the best 10 by all of them (0: all candidates by all images).
    """

    num_candidates: Count = 1000
    screening_images: Size = 1000


@dataclasses.dataclass(frozen=True)
class Scratch:
    """Trainings from scratch, by Adam, that the found autoencoder is compared by.

    Attributes:
      scratch_random: random autoencoders that are trained from scratch beside the
        found one (0: no such comparison).
      scratch_seeds: of those trainings, for each of them.
      scratch_epochs: length of those trainings.
      scratch_learning_rate: first learning rate.
      scratch_decay_at: epochs at which it is divided by 10, ascending.
    """

    scratch_random: Size = 0
    scratch_seeds: Count = 2
    scratch_epochs: Count = 80
    scratch_learning_rate: Rate = 1e-3
    scratch_decay_at: tuple[Count, ...] = (32, 64)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a search for autoencoders.

    Attributes:
      num_archs: architectures in one update of weights or searcher (lambda).
      stop_when_converged: end after an epoch in which the mean over the decisions of
        the largest probability is this or more (default: never).
      validation_images: training images held out for the searcher (default: half).
    """

    num_archs: Count = 2
    stop_when_converged: Rate | None = None
    validation_images: Count | None = None
    missing: Missing = Missing()
    space: Categorical | Mixed = Categorical()
    searcher: Asng | Sng | AdamSng | Random = Asng()
    select: Mode | Best = Mode()
    scratch: Scratch = Scratch()
    training: Training = Training(
        epochs=16,
        batch_size=16,
        optimizer=Sgd(weight_decay=0.0),
        schedule=Cosine(by_epoch=False),
    )
    images: Images = CELEBA
    run: Run = Run()


ASNG = Config()
QUICK = Config(
    space=Categorical(num_nodes=6, level_back=3, channels=(4, 8, 16)),
    scratch=Scratch(
        scratch_random=4, scratch_seeds=1, scratch_epochs=6, scratch_decay_at=(4,)
    ),
    training=dataclasses.replace(ASNG.training, epochs=12),
    images=DIGITS,
)

_WHAT_IS_MISSING: dict[Mask, str] = {
    "center": "the center",
    "pixel": "80 % of the pixels",
    "half": "a half",
}
_CELEBA = """ASNG-NAS on faces of which {missing} is missing (Akimoto et al. 2019).

    Section 3.3, {encoding}: CelebA as Suganuma et al. (2018) divide it, in 64x64. One
    half of the 100,000 training images is for the weights, the other for the
    distribution. Cost: 50,000 steps (16 epochs) on 16 images; the weights are 183.5
    million numbers, 734 MB, held three times. --scratch-random 8 compares with random
    autoencoders. Not run to its end.
    """
_RANDOM = """Weights trained with uniformly drawn autoencoders; the best of 1000.

    The baseline of asng-celeba-{mask}, at the same cost but for the final ranking.
    """


def _celeba_presets() -> dict[str, Preset[Config]]:
    presets = {}
    for mask, missing in _WHAT_IS_MISSING.items():
        config = dataclasses.replace(ASNG, missing=Missing(mask))
        encodings = {
            "": (config.space, "kernels and channels as categories"),
            "-mixed": (Mixed(), "kernels and channels as ordered integers"),
        }
        for suffix, (space, encoding) in encodings.items():
            presets[f"asng-celeba-{mask}{suffix}"] = Preset(
                _CELEBA.format(missing=missing, encoding=encoding),
                dataclasses.replace(config, space=space),
            )
        presets[f"random-celeba-{mask}"] = Preset(
            _RANDOM.format(mask=mask),
            dataclasses.replace(config, searcher=Random(), select=Best()),
        )
    return presets


PRESETS: Presets[Config] = {
    "quick": Preset(
        """ASNG-NAS on scikit-learn's digits, brought to 16x16, without their center.

    A demonstration for a laptop CPU: 6 nodes of 4 to 16 channels. Expected: the found
    autoencoder, trained from scratch for 6 epochs, restores the test images with a PSNR
    of 23.8 dB, 4 random ones with 14.3 to 18.0 dB (seed 0: +7.9 dB, +1.1 to +14.8).
    Cost: 2 min 30 s on 2 CPU cores with empty caches.
    """,
        QUICK,
    ),
    **_celeba_presets(),
}
