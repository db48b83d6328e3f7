"""Name the classes of images, with a network that cifar_train.py has trained.

Images are read and cut as those that the network was tested on. Exit status: 0 done; 2
a file cannot be used, with a message that names it, and nothing else is printed.
"""

import csv
import dataclasses
import io
import json
import pathlib
import sys
from typing import Any, Literal

import images  # noqa: F401  # Pillow's warnings
import session
import tyro
from session import Count


@dataclasses.dataclass(frozen=True)
class Config:
    """Name the classes of images.

    Attributes:
      model: a network.safetensors, or the folder of a run that has one.
      images: files of any kind that Pillow decodes, and folders of them.
      format: text: a line for each image; csv: a row for each image and class; json: a
        list of images with their classes.
      top: how many of the most probable classes to print.
      skip_corrupt: leave out and count images that cannot be decoded, which otherwise
        end the command.
      batch_size: images that are computed at once.
    """

    model: tyro.conf.Positional[pathlib.Path]
    images: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    format: Literal["text", "csv", "json"] = "text"
    top: Count = 1
    skip_corrupt: bool = False
    batch_size: Count = 64


def main() -> None:
    """Read, predict, print."""
    config = tyro.cli(Config, description=__doc__)
    session.check_bounds(config)
    with session.usage_errors():
        results, counted = predict(config)
    if counted:
        print(counted, file=sys.stderr)
    print(FORMATS[config.format](results), end="")


Result = tuple[pathlib.Path, list[tuple[str, float]]]


def predict(config: Config) -> tuple[list[Result], str]:
    """The most probable classes of each image, and what was skipped."""
    from jaxnas import data, networks

    model = config.model
    trained = networks.load(model / networks.FILE_NAME if model.is_dir() else model)
    if not config.images:
        raise ValueError("IMAGES is empty; expected files or folders")
    paths, skipped = data.find_images(config.images)
    batch_size = min(config.batch_size, len(paths))
    predict_batch = networks.make_predict_fn(trained, batch_size=batch_size)
    results: list[Result] = []
    for batch in data.read_images(
        paths,
        trained.image_format,
        batch_size=batch_size,
        skip_corrupt=config.skip_corrupt,
    ):
        for path, probabilities in zip(
            batch.paths, predict_batch(batch.images), strict=True
        ):
            best = probabilities.argsort(kind="stable")[::-1][: config.top]
            named = [(trained.class_names[i], float(probabilities[i])) for i in best]
            results.append((path, named))
    if not results:
        raise ValueError(
            f"{paths[0]} and all other images are corrupt; expected one or more that "
            "can be decoded"
        )
    if len(results) < len(paths):
        skipped["corrupt"] = len(paths) - len(results)
    return results, data.skipped_text(skipped).removeprefix("; ")


def as_text(results: list[Result]) -> str:
    """A line for each image."""
    return "".join(
        f"{path}: {', '.join(f'{name} {prob:.2%}' for name, prob in classes)}\n"
        for path, classes in results
    )


def as_csv(results: list[Result]) -> str:
    """A row for each image and class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for path, classes in results:
        for rank, (name, probability) in enumerate(classes, start=1):
            writer.writerow([path, rank, name, f"{probability:.6f}"])
    return text.getvalue()


def as_json(results: list[Result]) -> str:
    """A list with an object for each image."""
    entries: list[dict[str, Any]] = [
        {
            "image": str(path),
            "classes": [{"class": name, "probability": p} for name, p in classes],
        }
        for path, classes in results
    ]
    return json.dumps(entries, indent=1) + "\n"


FORMATS = {"text": as_text, "csv": as_csv, "json": as_json}


if __name__ == "__main__":
    session.run(main)
