"""Presets of `inpaint_train.py`."""

import dataclasses
import typing

from images import Images
from inpainting import CELEBA, DIGITS, Mask, Missing
from optimizers import Adam, Steps, Training
from session import Preset, Presets, Run


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of training one autoencoder from scratch.

    Attributes:
      genotype: file (JSON), or the name of a published genotype.
    """

    genotype: str = ""
    missing: Missing = Missing()
    training: Training = Training(
        epochs=80,
        batch_size=16,
        learning_rate=1e-3,
        optimizer=Adam(),
        schedule=Steps(decay=0.1, decay_at=(32, 64)),
    )
    images: Images = CELEBA
    run: Run = Run()


CELEBA_CENTER = Config()
QUICK = dataclasses.replace(
    CELEBA_CENTER,
    training=dataclasses.replace(
        CELEBA_CENTER.training, epochs=20, schedule=Steps(decay=0.1, decay_at=(8, 16))
    ),
    images=DIGITS,
)

_CELEBA = """An autoencoder trained as published for ASNG-NAS (Akimoto et al. 2019).

    CelebA as Suganuma et al. (2018) divide it, in 64x64: 100,000 training and 2,000
    test images; 500,000 steps (80 epochs) of Adam on 16 images, the learning rate
    divided by 10 after 200,000 and 400,000 of them. The genotype ECAE_CELEBA is theirs.
    Test images are looked at after every epoch, so report the last. Not run to its end.
    """

PRESETS: Presets[Config] = {
    "quick": Preset(
        """A small autoencoder on scikit-learn's digits in 16x16, for a laptop CPU.

    Expected: PSNR of 24.4 dB with the autoencoder that the search's quick preset finds
    (one seed). Cost: a minute of CPU time.
    """,
        QUICK,
    ),
    **{
        f"asng-celeba-{mask}": Preset(
            _CELEBA, dataclasses.replace(CELEBA_CENTER, missing=Missing(mask))
        )
        for mask in typing.get_args(Mask)
    },
}
