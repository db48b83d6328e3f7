"""Study what the connections of cells do to training (Shu et al. 2020).

A cell and variants of it that differ in their connections, or operations, are drawn and
measured (topology), trained side by side (convergence), and their losses and the
variance of their gradients mapped on planes through the trained weights (landscape,
variance). Without arguments: all of it in small, on scikit-learn's digits. The folder
of the run gets genotypes/, study.json and report.html, which has all that has been
studied in this folder so far; the same command again continues where it stopped.
"""

import dataclasses
import math
import pathlib
import statistics
from typing import Any, NamedTuple

import architectures
import images
import optimizers
import session
from presets.cell_study import PRESETS, Config

# A run may go on in another place, on other devices, with more cells and trainings;
# surfaces lie in folders named by their settings.
MAY_DIFFER = (
    *("study", *session.RUN_MAY_DIFFER, "data_dir"),
    *("variants", "num_seeds", "learning_rate", "learning_rates"),
    *("split", "radius", "resolution", "direction_seed", "num_surfaces"),
    *("landscape_images", "gradient_images", "gradient_resolution"),
    *("gradient_batch_size", "gradient_chunk", "point_batch_size"),
)
KINDS = ("landscape", "variance")


class Experiment(NamedTuple):
    """A study, and what is recorded of its circumstances."""

    config: Config
    study: Any
    folder: pathlib.Path
    environment: dict[str, str]


def main() -> None:
    """Train, measure, report; what is done already is not done again."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)
    dataset = experiment.study.images.dataset
    images.announce(dataset, experiment.environment, experiment.folder)
    session.show(config, experiment.folder)
    from jaxnas import studies

    parts = {"all": ("convergence", *KINDS), "topology": ()}
    selected = parts.get(config.study, (config.study,))
    report_results(experiment, studies.study_cells(experiment.study, selected))


def prepare(preset: str, config: Config) -> Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    from jaxnas import parallel, studies, workdir

    original = architectures.two_cells(
        architectures.find_genotype(config.genotype), f"--genotype {config.genotype}"
    )
    name = pathlib.Path(config.genotype).stem
    variants = architectures.find_variants(original, config.variants)
    if name in variants:
        raise ValueError(f"--variants lists {name}, which is the original's name")
    if config.share_program and config.drop_path:
        raise ValueError("--share-program does not go with --drop-path")
    rates = list(config.learning_rates or (config.training.learning_rate,))
    if len(set(rates)) < len(rates) or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(
            f"--learning-rates is {' '.join(map(str, rates))!r}; expected different "
            "positive numbers"
        )
    devices = parallel.local_devices(config.run.devices)
    dataset = images.load(config.images)
    study_images = images.study_images(
        config.images,
        dataset,
        num_validation=0,
        batch_size=config.training.batch_size,
        devices=devices,
    )
    folder = pathlib.Path(config.run.workdir or f"runs/cell_study-{preset}")
    seed, num_surfaces = config.run.seed, config.surfaces.num_surfaces
    study = studies.CellStudy(
        {name: original, **variants},
        study_images,
        cell_training(config, dataset),
        rates,
        list(range(seed, seed + config.num_seeds)),
        {kind: surface_settings(config, kind) for kind in KINDS},
        num_surfaces,
        folder,
    )
    studies.check_cells(study)
    environment = workdir.environment(devices)
    workdir.prepare(
        folder,
        session.flags(config) | {"original": original} | images.identity(dataset),
        environment,
        ignored_keys=MAY_DIFFER,
    )
    studies.save_cells(study)
    return Experiment(config, study, folder, environment)


def cell_training(config: Config, dataset):
    """Training of the networks of cells."""
    from jaxnas import studies

    training = config.training
    steps_per_epoch = images.steps_per_epoch(dataset.train, training.batch_size)

    def make_optimizer(learning_rate: float):
        changed = dataclasses.replace(training, learning_rate=learning_rate)
        return optimizers.make_optimizer(changed, steps_per_epoch)

    return studies.CellTraining(
        make_optimizer,
        training.epochs,
        channels=config.channels,
        num_cells=config.num_cells,
        stem_stride=config.stem_stride,
        auxiliary=config.auxiliary,
        auxiliary_weight=config.auxiliary_weight,
        drop_path=config.drop_path,
        share_program=config.share_program,
    )


def surface_settings(config: Config, kind: str):
    """Settings of one kind of surface."""
    from jaxnas import studies

    surfaces = config.surfaces
    settings = studies.SurfaceSettings(
        surfaces.resolution,
        surfaces.landscape_images,
        surfaces.split,
        surfaces.radius,
        surfaces.direction_seed,
        config.run.seed,
        config.training.batch_size,
        point_batch_size=surfaces.point_batch_size,
    )
    if kind == "landscape":
        return settings
    return settings._replace(
        resolution=surfaces.gradient_resolution or surfaces.resolution,
        num_images=surfaces.gradient_images,
        batch_size=surfaces.gradient_batch_size,
        chunk_size=surfaces.gradient_chunk,
    )


def report_results(experiment: Experiment, cells: list) -> None:
    """Write study.json and report.html of all that is there, and print the numbers."""
    from jaxnas import _files, analysis, report, studies

    folder, dataset = experiment.folder, experiment.study.images.dataset
    numbers = {
        cell.name: {
            "width": analysis.cell_width(cell.genotype, "normal"),
            "depth": analysis.cell_depth(cell.genotype, "normal"),
            "num_params": cell.num_params,
            **studies.cell_numbers(cell),
        }
        for cell in cells
    }
    _files.write_json(folder / "study.json", numbers, indent=1)
    report.cell_study_report(
        folder / "report.html",
        title=f"{cells[0].name} and its variants on {dataset.name}",
        summary={
            "data": dataset.source,
            "seeds": ", ".join(map(str, experiment.study.seeds)),
        }
        | experiment.environment,
        config=session.flags(experiment.config),
        cells=cells,
    )
    session.conclude(f"\n{as_text(numbers)}\nreport: {folder / 'report.html'}")


def as_text(numbers: dict[str, dict[str, Any]]) -> str:
    """Means over seeds, a line for each cell, by width and depth."""
    columns = list(dict.fromkeys(name for row in numbers.values() for name in row))
    width = max(map(len, numbers)) + 2

    def text(value) -> str:
        if isinstance(value, list):
            value = statistics.fmean(value) if value else float("nan")
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

    rows = sorted(
        numbers.items(), key=lambda item: (item[1]["width"], -item[1]["depth"])
    )
    table = [
        f"{'':{width}}" + "".join(f"{f'({i})':>12}" for i in range(1, 1 + len(columns)))
    ]
    for name, row in rows:
        cells = (text(row[column]) if column in row else "-" for column in columns)
        table.append(f"{name:{width}}" + "".join(f"{cell:>12}" for cell in cells))
    legend = [f"({i}) {column}" for i, column in enumerate(columns, start=1)]
    return "\n".join([*table, *legend])


if __name__ == "__main__":
    session.run(main)
