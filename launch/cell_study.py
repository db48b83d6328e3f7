"""Study what the connections of cells do to training (Shu et al. 2020).

A cell and variants of it that differ in their connections, or operations, are drawn and
measured (topology), trained side by side (convergence), and their losses and the
variance of their gradients mapped on planes through the trained weights (landscape,
variance). Without arguments: all of it in small, on scikit-learn's digits. The folder
of the run gets genotypes/, study.json and report.html, which has all that has been
studied in this folder so far; the same command again goes on where it stopped.
"""

import dataclasses
import pathlib
import statistics
from typing import Any, NamedTuple

import architectures
import command_line
import images
import optimizers
from presets.cell_study import PRESETS, Config

# A run may go on in another place, on other devices, with more cells and trainings;
# surfaces lie in folders named by their settings.
MAY_DIFFER = (
    *("study", "workdir", "data_dir", "devices"),
    *("variants", "num_seeds", "learning_rate", "learning_rates"),
    *("split", "radius", "resolution", "direction_seed", "num_surfaces"),
    *("landscape_images", "gradient_images", "gradient_resolution"),
    *("gradient_batch_size", "gradient_chunk", "points_at_once"),
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
    preset, config = command_line.parse(PRESETS, __doc__)
    with command_line.wrong_input():
        experiment = prepare(preset, config)
    source = experiment.study.images.dataset.source
    command_line.announce(source, experiment.environment, experiment.folder)
    from jaxnas import studies

    parts = {"all": ("convergence", *KINDS), "topology": ()}
    selected = parts.get(config.study, (config.study,))
    conclude(experiment, studies.study_cells(experiment.study, selected))


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
    rates = [config.learning_rate]
    if config.learning_rates:
        rates = command_line.numbers("--learning-rates", config.learning_rates)
    devices = parallel.local_devices(config.devices)
    dataset = images.load(config)
    study_images = images.study_images(config, dataset, 0, devices)
    folder = pathlib.Path(config.workdir or f"runs/cell_study-{preset}")
    study = studies.CellStudy(
        {name: original, **variants},
        study_images,
        cell_training(config, dataset),
        rates,
        list(range(config.seed, config.seed + config.num_seeds)),
        {kind: surface_settings(config, kind) for kind in KINDS},
        config.num_surfaces,
        folder,
    )
    studies.check_cells(study)
    environment = workdir.environment(devices)
    workdir.prepare(
        folder,
        dataclasses.asdict(config) | {"original": original, "source": dataset.source},
        environment,
        may_differ=MAY_DIFFER,
    )
    studies.save_cells(study)
    return Experiment(config, study, folder, environment)


def cell_training(config: Config, dataset):
    """How the networks of cells are trained."""
    from jaxnas import studies

    steps_per_epoch = images.steps_per_epoch(dataset.train, config.batch_size)

    def make_optimizer(learning_rate: float):
        changed = dataclasses.replace(config, learning_rate=learning_rate)
        return optimizers.make_optimizer(changed, steps_per_epoch)

    return studies.CellTraining(
        make_optimizer,
        config.epochs,
        channels=config.channels,
        num_cells=config.num_cells,
        stem_stride=config.stem_stride,
        auxiliary=config.auxiliary,
        auxiliary_weight=config.auxiliary_weight,
        drop_path=config.drop_path,
        share_program=config.share_program,
    )


def surface_settings(config: Config, kind: str):
    """What is measured on the planes, for one kind of surface."""
    from jaxnas import studies

    settings = studies.SurfaceSettings(
        config.resolution,
        config.landscape_images,
        config.split,
        config.radius,
        config.direction_seed,
        config.seed,
        config.batch_size,
        points_at_once=config.points_at_once,
    )
    if kind == "landscape":
        return settings
    return settings._replace(
        resolution=config.gradient_resolution or config.resolution,
        num_images=config.gradient_images,
        batch_size=config.gradient_batch_size,
        chunk_size=config.gradient_chunk,
    )


def conclude(experiment: Experiment, cells: list) -> None:
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
        config=dataclasses.asdict(experiment.config),
        cells=cells,
    )
    print(f"\n{as_text(numbers)}\nreport: {folder / 'report.html'}")


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
    command_line.run(main)
