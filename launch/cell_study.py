"""Study what the connections of cells do to training (Shu et al. 2020).

A cell and variants of it that differ in their connections, or operations, are drawn and
measured (topology), trained side by side (convergence), and their losses and the
variance of their gradients mapped on planes through the trained weights (landscape,
variance). Without arguments: all of it in small, on scikit-learn's digits. The folder
of the run gets genotypes/, study.json and report.html, which has all that has been
studied in this folder so far; the same command again goes on where it stopped.
"""

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable
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
SECONDS_BETWEEN_LINES = 20


class Run(NamedTuple):
    """One training of one cell."""

    cell: str
    learning_rate: float
    seed: int


class Experiment(NamedTuple):
    """Everything a study needs.

    `programs` has for each cell the genotype of the network that computes it: its own,
    or one that it shares with others, which then is told the sources of edges.
    """

    config: Config
    learning_rates: list[float]
    seeds: list[int]
    cells: dict[str, Any]
    programs: dict[str, Any]
    devices: list
    dataset: Any
    augment: Any
    normalize: Any
    folder: pathlib.Path
    environment: dict[str, str]


def main() -> None:
    """Train, measure, report; what is done already is not done again."""
    preset, config = command_line.parse(PRESETS, __doc__)
    with command_line.wrong_input():
        experiment = prepare(preset, config)
        trainers = functools.cache(functools.partial(make_trainer, experiment))
        if config.study != "topology":
            # Tells what is wrong with the settings before there is a folder.
            original = next(iter(experiment.programs.values()))
            trainers(original, experiment.learning_rates[0])
        open_folder(experiment)
    command_line.announce(
        experiment.dataset.source, experiment.environment, experiment.folder
    )
    if config.study in ("all", "convergence"):
        for rate in experiment.learning_rates:
            for seed in experiment.seeds:
                for cell in experiment.cells:
                    run = Run(cell, rate, seed)
                    if not is_over(experiment, run):
                        train(experiment, trainers, run)
    for kind in ("landscape", "variance"):
        if config.study in ("all", kind):
            measure_surfaces(experiment, trainers, kind)
    conclude(experiment)


def prepare(preset: str, config: Config) -> Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    from jaxnas import analysis, parallel, workdir

    original = architectures.two_cells(
        architectures.find_genotype(config.genotype), f"--genotype {config.genotype}"
    )
    name = pathlib.Path(config.genotype).stem
    variants = architectures.find_variants(original, config.variants)
    if name in variants:
        raise ValueError(f"--variants lists {name}, which is the original's name")
    cells = {name: original, **variants}
    if config.share_program and config.drop_path:
        raise ValueError("--share-program does not go with --drop-path")
    rates = [config.learning_rate]
    if config.learning_rates:
        rates = command_line.numbers("--learning-rates", config.learning_rates)
    for kind in ("landscape", "variance"):
        analysis.grid(config.radius, surface_settings(config, kind)[1])
    devices = parallel.local_devices(config.devices)
    dataset = images.load(config)
    augment, normalize = images.preprocessing(config, dataset)
    return Experiment(
        config,
        rates,
        list(range(config.seed, config.seed + config.num_seeds)),
        cells,
        assign_programs(cells) if config.share_program else cells,
        devices,
        dataset,
        augment,
        normalize,
        pathlib.Path(config.workdir or f"runs/cell_study-{preset}"),
        workdir.environment(devices),
    )


def open_folder(experiment: Experiment) -> None:
    """Make the folder, or reopen that of the same study, and save the genotypes."""
    from jaxnas import genotypes, workdir

    original = next(iter(experiment.cells.values()))
    workdir.prepare(
        experiment.folder,
        dataclasses.asdict(experiment.config)
        | {"original": original, "source": experiment.dataset.source},
        experiment.environment,
        may_differ=MAY_DIFFER,
    )
    (experiment.folder / "genotypes").mkdir(exist_ok=True)
    for cell, genotype in experiment.cells.items():
        file = experiment.folder / "genotypes" / f"{cell}.json"
        if file.exists() and genotypes.load(file) != genotype:
            raise ValueError(
                f"{file} is another genotype than the one that is called {cell} now; "
                "choose another folder, or another name"
            )
        genotypes.save(file, genotype)


def assign_programs(cells: dict[str, Any]) -> dict[str, Any]:
    """The genotype of the first cell with the same operations and concats, for each."""
    first: dict[Any, Any] = {}

    def program(genotype):
        ops = tuple(tuple(op for op, _ in pairs) for pairs in genotype[::2])
        return first.setdefault((ops, genotype[1::2]), genotype)

    return {name: program(genotype) for name, genotype in cells.items()}


def make_network(experiment: Experiment, genotype, batch_axis: str | None = None):
    """The network of one program."""
    from jaxnas import networks

    config = experiment.config
    return networks.micro(
        genotype,
        config.channels,
        config.num_cells,
        len(experiment.dataset.class_names),
        auxiliary=config.auxiliary,
        stem_stride=config.stem_stride,
        batch_axis=batch_axis,
    )


def options_of(experiment: Experiment, cell: str) -> dict[str, Any]:
    """What a network has to be told of the cell besides images."""
    from jaxnas import networks

    if not experiment.config.share_program:
        return {}
    return {"sources": networks.edge_sources(experiment.cells[cell])}


def make_trainer(experiment: Experiment, program, learning_rate: float) -> Callable:
    """The training of all cells of one program."""
    from jaxnas import parallel, train

    config, dataset = experiment.config, experiment.dataset
    return train.retrainer(
        make_network(experiment, program, parallel.batch_axis(experiment.devices)),
        train.classification(config.auxiliary_weight),
        optimizers.make_optimizer(
            dataclasses.replace(config, learning_rate=learning_rate),
            images.steps_per_epoch(dataset.train, config.batch_size),
        ),
        dataset.train,
        num_epochs=config.epochs,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        test=dataset.test,
        max_drop_path_prob=config.drop_path,
        devices=experiment.devices,
    )


def folder_of(experiment: Experiment, run: Run) -> pathlib.Path:
    """Where a training keeps its log and checkpoints."""
    rate = f"learning_rate_{run.learning_rate:g}"
    return experiment.folder / "trainings" / run.cell / rate / f"seed_{run.seed}"


def has_diverged(experiment: Experiment, run: Run) -> bool:
    """Whether a training ended because its loss was not finite."""
    return (folder_of(experiment, run) / "diverged.txt").exists()


def read_history(experiment: Experiment, run: Run) -> list[dict[str, Any]]:
    """The log of a training so far, a line for each epoch."""
    from jaxnas import metrics

    log = folder_of(experiment, run) / "metrics.jsonl"
    return metrics.read(log) if log.exists() else []


def is_over(experiment: Experiment, run: Run) -> bool:
    """Whether a training has come to its end, good or bad."""
    epochs = [line["epoch"] for line in read_history(experiment, run)]
    return experiment.config.epochs in epochs or has_diverged(experiment, run)


def train(experiment: Experiment, trainers: Callable, run: Run):
    """Train a cell, or restore what was trained; `None` if it diverges."""
    import jax

    from jaxnas.train import Diverged

    folder = folder_of(experiment, run)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = trainers(experiment.programs[run.cell], run.learning_rate)
    try:
        return trainer(
            jax.random.key(run.seed),
            options=options_of(experiment, run.cell),
            workdir=folder,
            description=f"{run.cell} {run.learning_rate:g} seed {run.seed}",
        ).state
    except Diverged as error:
        (folder / "diverged.txt").write_text(f"{error}\n", encoding="utf-8")
        print(f"{run.cell}, seed {run.seed}: diverged, {error}", flush=True)
        return None


def surface_settings(config: Config, kind: str) -> tuple[int | None, int]:
    """How many images a kind of surface is measured on, and points along a side."""
    if kind == "landscape":
        return config.landscape_images, config.resolution
    return config.gradient_images, config.gradient_resolution or config.resolution


def surface_files(
    experiment: Experiment, kind: str, cell: str
) -> dict[int, pathlib.Path]:
    """Where the surfaces of a cell with these settings are, by seed."""
    config = experiment.config
    num_images, resolution = surface_settings(config, kind)
    words = [kind, config.split, num_images or "all"]
    if kind == "variance":
        words += ["batch", config.gradient_batch_size]
    words += ["radius", f"{config.radius:g}", "resolution", resolution]
    words += ["directions", config.direction_seed]
    folder = experiment.folder / "surfaces" / "_".join(map(str, words))
    seeds = experiment.seeds[: config.num_surfaces]
    return {seed: folder / f"{cell}_seed_{seed}.npz" for seed in seeds}


def read_surfaces(experiment: Experiment, kind: str, cell: str) -> list:
    """The surfaces of a cell that are complete, one for each seed."""
    from jaxnas import analysis

    files = surface_files(experiment, kind, cell).values()
    with command_line.wrong_input():
        surfaces = [analysis.load_surface(file) for file in files if file.exists()]
    return [surface for surface in surfaces if surface.is_complete]


def measure_surfaces(experiment: Experiment, trainers: Callable, kind: str) -> None:
    """Measure what is missing, on planes through the networks of the first rate."""
    measurers = functools.cache(functools.partial(make_measurer, experiment, kind))
    for seed in experiment.seeds[: experiment.config.num_surfaces]:
        for cell in experiment.cells:
            run = Run(cell, experiment.learning_rates[0], seed)
            file = surface_files(experiment, kind, cell)[seed]
            file.parent.mkdir(parents=True, exist_ok=True)
            if not is_measured(file) and not has_diverged(experiment, run):
                state = train(experiment, trainers, run)
                if state is not None:
                    measurer = measurers(experiment.programs[cell])
                    measure_surface(experiment, measurer, kind, run, state, file)


def is_measured(file: pathlib.Path) -> bool:
    """Whether a surface is there, and whole."""
    from jaxnas import analysis

    with command_line.wrong_input():
        return file.exists() and analysis.load_surface(file).is_complete


def make_measurer(experiment: Experiment, kind: str, program) -> Callable:
    """The measurement of surfaces of all cells of one program."""
    import jax

    from jaxnas import analysis
    from jaxnas import train as training

    config = experiment.config
    evaluate = training.network_evaluation_step(
        make_network(experiment, program), training.classification()
    )

    def metrics(params, constants, batch):
        batch_stats, options = constants
        image = experiment.normalize(jax.random.key(0), batch["image"])
        return evaluate(params, batch_stats, dict(batch, image=image), options)

    if kind == "landscape":
        measure = analysis.mean_metrics(metrics, config.batch_size)
    else:
        measure = analysis.gradient_variance(
            lambda *args: metrics(*args)["loss"],
            batch_size=config.gradient_batch_size,
            chunk_size=config.gradient_chunk,
        )
    return analysis.surface_measurer(
        measure, points_at_once=config.points_at_once, devices=experiment.devices
    )


def measure_surface(
    experiment: Experiment,
    measurer: Callable,
    kind: str,
    run: Run,
    state,
    file: pathlib.Path,
) -> None:
    """Measure one surface; says every now and then how far it is."""
    import jax

    from jaxnas import analysis

    config = experiment.config
    num_images, resolution = surface_settings(config, kind)
    split = getattr(experiment.dataset, config.split)
    places = analysis.grid(config.radius, resolution)
    start = last = time.monotonic()
    first = None

    def on_row(num_rows: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        if first is None:
            first = num_rows, now
        is_last = num_rows == places.size
        if is_last or now - last > SECONDS_BETWEEN_LINES:
            last = now
            left = (places.size - num_rows) * (now - first[1])
            left /= max(num_rows - first[0], 1)
            print(
                f"{kind} of {run.cell}, seed {run.seed}: {num_rows} of {places.size} "
                f"rows, {now - start:.0f} s"
                + ("" if is_last else f", {left:.0f} s left"),
                flush=True,
            )

    with command_line.wrong_input():
        measurer(
            draw_plane()(jax.random.key(config.direction_seed), state.params),
            (state.batch_stats, options_of(experiment, run.cell)),
            sample(split, num_images, config.seed),
            places,
            places,
            file,
            on_row,
        )


@functools.cache
def draw_plane() -> Callable:
    """The plane through the parameters of a network, compiled."""
    import jax

    from jaxnas import analysis, networks

    return jax.jit(
        lambda key, params: analysis.random_plane(
            key, params, networks.stack_axes(params)
        )
    )


def sample(split, num: int | None, seed: int) -> dict[str, Any]:
    """So many random images and their labels, in random order; all, if there are fewer.

    A split may be sorted by class.
    """
    import numpy as np

    chosen = np.random.default_rng(seed).permutation(split.num_images)[:num]
    return {"image": split.images[chosen], "label": split.labels[chosen]}


def conclude(experiment: Experiment) -> None:
    """Write study.json and report.html of all that is there, and print the numbers."""
    from jaxnas import _files, analysis, report

    config, folder = experiment.config, experiment.folder
    cells = [studied_cell(experiment, name) for name in experiment.cells]
    numbers = {
        cell.name: {
            "width": analysis.cell_width(cell.genotype, "normal"),
            "depth": analysis.cell_depth(cell.genotype, "normal"),
            "num_params": cell.num_params,
            **report.cell_numbers(cell),
        }
        for cell in cells
    }
    _files.write_json(folder / "study.json", numbers, indent=1)
    report.cell_study_report(
        folder / "report.html",
        title=f"{cells[0].name} and its variants on {experiment.dataset.name}",
        summary={
            "data": experiment.dataset.source,
            "seeds": ", ".join(map(str, experiment.seeds)),
        }
        | experiment.environment,
        config=dataclasses.asdict(config),
        cells=cells,
    )
    print(f"\n{as_text(numbers)}\nreport: {folder / 'report.html'}")


def studied_cell(experiment: Experiment, name: str):
    """All that is known of a cell; trainings that are not over are left out."""
    from jaxnas import networks, report

    config = experiment.config
    runs = [
        Run(name, rate, seed)
        for rate in experiment.learning_rates
        for seed in experiment.seeds
    ]
    return report.StudiedCell(
        name,
        experiment.cells[name],
        networks.count_params(
            experiment.cells[name],
            config.channels,
            config.num_cells,
            len(experiment.dataset.class_names),
            config.auxiliary,
            image_channels=experiment.dataset.train.image_shape[-1],
        ),
        [
            report.Training(
                run.learning_rate,
                run.seed,
                read_history(experiment, run),
                has_diverged(experiment, run),
            )
            for run in runs
            if is_over(experiment, run)
        ],
        read_surfaces(experiment, "landscape", name),
        read_surfaces(experiment, "variance", name),
    )


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
