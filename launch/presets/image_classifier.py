"""Presets of `image_classifier.py`."""

import dataclasses
from typing import Annotated, Literal

from session import AtLeast, Count, Preset, Presets, Run, Size


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Which images there are; what is not given is proposed.

    Attributes:
      dataset: folder, or another one of `cifar_search.py`.
      data_dir: the folder, with CLASS/* or train/CLASS/* and test/CLASS/*.
      image_size: side to which images are cut (default: by their sizes).
      max_image_size: the largest one that is proposed (default: 32 on a CPU, else
        64); the time of a step grows with its square.
      skip_corrupt: leave out and count images that cannot be decoded, which otherwise
        end the command.
      max_images: use only the first training images.
      crop_padding: pixels around an image before a random crop (default: an eighth of
        its side).
      flip: whether images are mirrored at random (default: unless the classes are
        named by what tells left from right).
      batch_size: images in a batch (default: by the number of images).
    """

    dataset: str = "folder"
    data_dir: str | None = None
    image_size: Count | None = None
    max_image_size: Annotated[int, AtLeast(32)] | None = None
    skip_corrupt: bool = False
    max_images: Count | None = None
    crop_padding: Size | None = None
    flip: Literal["yes", "no"] | None = None
    batch_size: Count | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of finding and training a network that classifies images.

    Attributes:
      time_budget: how long everything may take, about: 90s, 30m, 2h. Sizes and lengths
        that are not given below follow from it, and from what steps take on this
        machine.
      seeds: trainings of each network.
      search_channels: channels of the search's first cells, an even number.
      search_cells: cells of the search's networks.
      search_epochs: length of the search. Together with both above: nothing is
        measured for it.
      channels: channels of the found network's first cells.
      cells: cells of the found network.
      train_epochs: length of each training. Together with both above: nothing is
        measured for it.
      num_candidates: architectures ranked at the end of the search.
    """

    time_budget: str = "30m"
    seeds: Count = 1
    search_channels: Count | None = None
    search_cells: Count | None = None
    search_epochs: Count | None = None
    channels: Count | None = None
    cells: Count | None = None
    train_epochs: Count | None = None
    num_candidates: Count = 20
    images: Photographs = Photographs()
    run: Run = Run()


PRESETS: Presets[Config] = {
    "folder": Preset(
        """Photographs in folders: --data-dir FOLDER.

    FOLDER holds CLASS/*, or train/CLASS/* and test/CLASS/*. Cost: --time-budget.
    """,
        Config(),
    ),
    "quick": Preset(
        """scikit-learn's digits (8x8), a demonstration for a laptop CPU.

    Cost: a few minutes on 2 CPU cores.
    """,
        Config(
            search_channels=8,
            search_cells=3,
            search_epochs=10,
            channels=8,
            cells=3,
            train_epochs=6,
            num_candidates=4,
            images=Photographs(
                dataset="digits", crop_padding=1, flip="no", batch_size=32
            ),
        ),
    ),
}
