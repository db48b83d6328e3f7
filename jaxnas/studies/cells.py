"""Effects of the connections of cells on training (Shu et al. 2020).

Cells that differ in their connections or operations are trained side by side, and their
losses and the variance of their gradients mapped on planes through the trained weights.
"""

import functools
import math
import os
import pathlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from jaxnas import analysis, genotypes, metrics, networks, parallel, train
from jaxnas.analysis import convergence
from jaxnas.data import Split
from jaxnas.genotypes import Genotype
from jaxnas.studies.images import StudyImages

SurfaceKind = Literal["landscape", "variance"]
Part = Literal["convergence", "landscape", "variance"]

_SECONDS_BETWEEN_LINES = 20


class Training(NamedTuple):
    """One training of a cell from scratch.

    Attributes:
      learning_rate: the one it begins with.
      seed: of weights and order of images.
      history: lines of its metrics log, with `epoch`, `test/loss` and `test/accuracy`.
      diverged: whether it ended early, since its loss was not finite.
    """

    learning_rate: float
    seed: int
    history: convergence.History
    diverged: bool = False


class StudiedCell(NamedTuple):
    """A cell, and what was measured of networks made of it.

    Attributes:
      name: how the report calls it.
      genotype: its connections and operations.
      num_params: number of trainable parameters.
      trainings: at any learning rates, with any seeds.
      loss_surfaces: with values `loss`, one for each seed that was measured.
      variance_surfaces: with values `gradient_variance`, likewise.
    """

    name: str
    genotype: genotypes.Genotype
    num_params: int
    trainings: Sequence[Training] = ()
    loss_surfaces: Sequence[analysis.Surface] = ()
    variance_surfaces: Sequence[analysis.Surface] = ()


def cell_numbers(cell: StudiedCell) -> dict[str, list[float]]:
    """Measures that a study compares, one value for each seed.

    Args:
      cell: the cell, with what was measured of it.

    Returns:
      For every learning rate R of its trainings `learning_rate_R/mean_test_loss`,
      `.../final_test_loss` and `.../final_test_accuracy`, of the trainings that did
      not diverge, and `.../diverged`, 0 or 1 for every one. For its surfaces
      `basin_share` (within 1 nat, NaN if the center's loss is not finite),
      `loss_at_center` and `median_loss`; `gradient_deviation_at_center` and
      `median_gradient_deviation`, square roots of variances. In medians, values that
      are not finite count as highest.

    Raises:
      ValueError: if a training that did not diverge lacks a metric, or a surface its
        values or a point at (0, 0), or has negative values.
    """
    numbers: dict[str, list[float]] = {}
    for rate in learning_rates([cell]):
        trainings = [t for t in cell.trainings if t.learning_rate == rate]
        done = [t.history for t in trainings if not t.diverged]
        found = {
            "mean_test_loss": [convergence.mean_over_epochs(lines) for lines in done],
            "final_test_loss": [_final(lines, "test/loss") for lines in done],
            "final_test_accuracy": [_final(lines, "test/accuracy") for lines in done],
            "diverged": [float(training.diverged) for training in trainings],
        }
        numbers |= {name_at_rate(rate, name): values for name, values in found.items()}
    for surface in cell.loss_surfaces:
        _check_surface(cell, surface, "loss")
        center = surface.at_center("loss")
        share = analysis.basin_share(surface) if math.isfinite(center) else math.nan
        numbers.setdefault("basin_share", []).append(share)
        numbers.setdefault("loss_at_center", []).append(center)
        numbers.setdefault("median_loss", []).append(_median(surface.values["loss"]))
    for surface in cell.variance_surfaces:
        _check_surface(cell, surface, "gradient_variance")
        center = math.sqrt(surface.at_center("gradient_variance"))
        median = _median(surface.values["gradient_variance"])
        numbers.setdefault("gradient_deviation_at_center", []).append(center)
        numbers.setdefault("median_gradient_deviation", []).append(math.sqrt(median))
    return numbers


def learning_rates(cells: Sequence[StudiedCell]) -> list[float]:
    """The learning rates of all trainings, ascending."""
    return sorted({t.learning_rate for cell in cells for t in cell.trainings})


def name_at_rate(rate: float, name: str) -> str:
    """Name a number of the trainings at a learning rate as `cell_numbers` does."""
    return f"learning_rate_{rate:g}/{name}"


def _check_surface(cell: StudiedCell, surface: analysis.Surface, name: str) -> None:
    if name not in surface.values:
        raise ValueError(
            f"a surface of {cell.name} has {', '.join(surface.values) or 'no values'}; "
            f"expected {name!r}"
        )
    if np.any(surface.values[name] < 0):
        raise ValueError(
            f"a surface of {cell.name} has {name!r} down to "
            f"{np.nanmin(surface.values[name]):g}; expected 0 or more"
        )


def _median(values: np.ndarray) -> float:
    return float(np.median(np.where(np.isfinite(values), values, np.inf)))


def _final(history: convergence.History, metric: str) -> float:
    """Return the value of the last line that has a metric."""
    found = [float(entry[metric]) for entry in history if metric in entry]
    if not found:
        raise ValueError(
            f"the history has {len(history)} entries, none with {metric!r}; expected "
            "at least one"
        )
    return found[-1]


class CellTraining(NamedTuple):
    """Training from scratch of the networks of cells.

    Attributes:
      make_optimizer: `learning_rate -> optimizer`, of the first learning rate.
      num_epochs: passes through the training images.
      channels: as for `networks.micro`, and so are the following.
      num_cells: at least 3.
      stem_stride: 2 halves the images first.
      auxiliary: train an auxiliary head.
      auxiliary_weight: weight of its loss.
      drop_path: probability of dropping an edge at the end of training.
      share_program: one compiled program for all cells that differ in connections only:
        much less compilation, a fifth more time per step; not with drop path.
    """

    make_optimizer: Callable[[float], optax.GradientTransformation]
    num_epochs: int
    channels: int = 36
    num_cells: int = 20
    stem_stride: int = 1
    auxiliary: bool = False
    auxiliary_weight: float = 0.4
    drop_path: float = 0.0
    share_program: bool = False


class SurfaceSettings(NamedTuple):
    """A plane through trained weights, and what is measured on it.

    Attributes:
      resolution: points along a side, odd.
      num_images: measured on a sample of so many images; on all if `None`.
      split: which images.
      radius: half of the side, in units of the filter-normalized directions.
      direction_seed: of the random directions.
      sample_seed: of the sample.
      batch_size: images in a batch of the evaluation, or of one gradient, whose
        variance falls by this factor.
      chunk_size: gradients held in memory at a time.
      point_batch_size: points that a device handles side by side, for large devices.
    """

    resolution: int
    num_images: int | None = None
    split: Literal["train", "test"] = "test"
    radius: float = 1.0
    direction_seed: int = 123
    sample_seed: int = 0
    batch_size: int = 1
    chunk_size: int = 16
    point_batch_size: int = 1


class CellStudy(NamedTuple):
    """A study: cells, and how they are trained and measured.

    Attributes:
      cells: genotypes by name, the original first.
      images: training and test images.
      training: how networks are trained.
      learning_rates: one training with each; surfaces are those of the first.
      seeds: trainings with each learning rate.
      surfaces: settings by kind.
      num_surfaces: seeds, the first ones, whose surfaces are measured.
      workdir: folder of genotypes, trainings and surfaces.
    """

    cells: Mapping[str, Genotype]
    images: StudyImages
    training: CellTraining
    learning_rates: Sequence[float]
    seeds: Sequence[int]
    surfaces: Mapping[SurfaceKind, SurfaceSettings]
    num_surfaces: int
    workdir: str | os.PathLike[str]


class _Run(NamedTuple):
    """One training of one cell."""

    cell: str
    learning_rate: float
    seed: int


def check_cells(study: CellStudy) -> None:
    """Raise `ValueError` if a setting of a study is wrong; nothing is written."""
    if study.training.share_program and study.training.drop_path:
        raise ValueError(
            f"share_program is True and drop_path {study.training.drop_path}; expected "
            "one of them"
        )
    for settings in study.surfaces.values():
        analysis.coordinates(settings.radius, settings.resolution)
    original = next(iter(study.cells.values()))
    _make_trainer(study, original, study.learning_rates[0])


def study_cells(
    study: CellStudy, parts: Collection[Part] = ("convergence", "landscape", "variance")
) -> list[StudiedCell]:
    """Train and measure cells; what is in the folder already is not done again.

    Args:
      study: the cells, and how they are trained and measured.
      parts: `"convergence"` trains every cell with every learning rate and seed;
        `"landscape"` and `"variance"` measure surfaces, and train what they need.

    Returns:
      All that is known of each cell, earlier parts included; trainings that are not
      over are left out.

    Raises:
      ValueError: if a setting is wrong, or the folder holds another cell of a name.
      SurfaceError: if a file of a surface is damaged or of other settings.
      Interrupted: after a signal; the state has been saved.
    """
    check_cells(study)
    save_cells(study)
    programs = dict(study.cells)
    if study.training.share_program:
        programs = assign_programs(study.cells)
    trainers = functools.cache(functools.partial(_make_trainer, study))

    def train_cell(run: _Run) -> Any:
        trainer = trainers(programs[run.cell], run.learning_rate)
        return _train(study, trainer, run)

    if "convergence" in parts:
        for rate in study.learning_rates:
            for seed in study.seeds:
                for cell in study.cells:
                    run = _Run(cell, rate, seed)
                    if not _is_over(study, run):
                        train_cell(run)
    for kind in ("landscape", "variance"):
        if kind in parts:
            _measure_surfaces(study, programs, train_cell, kind)
    return [_studied_cell(study, name) for name in study.cells]


def assign_programs(cells: Mapping[str, Genotype]) -> dict[str, Genotype]:
    """The genotype of the first cell with the same operations and concats, for each.

    Its network computes the cell, if it is given the sources of edges.
    """
    first: dict[Any, Genotype] = {}

    def program(genotype: Genotype) -> Genotype:
        both = genotype.normal, genotype.reduce
        ops = tuple(tuple(op for op, _ in pairs) for pairs in both)
        concats = genotype.normal_concat, genotype.reduce_concat
        return first.setdefault((ops, concats), genotype)

    return {name: program(genotype) for name, genotype in cells.items()}


def sample_images(split: Split, num: int | None, seed: int) -> dict[str, np.ndarray]:
    """So many random images and their labels, in random order; all, if there are fewer.

    A split may be sorted by class.
    """
    chosen = np.random.default_rng(seed).permutation(split.num_images)[:num]
    return {"image": split.images[chosen], "label": split.labels[chosen]}


def save_cells(study: CellStudy) -> None:
    """Write the genotypes of a study to its folder.

    Raises:
      ValueError: if another genotype of the same name is there.
    """
    folder = pathlib.Path(study.workdir, "genotypes")
    folder.mkdir(parents=True, exist_ok=True)
    for cell, genotype in study.cells.items():
        file = folder / f"{cell}.json"
        if file.exists() and genotypes.load(file) != genotype:
            raise ValueError(
                f"{file} is another genotype than the one that is called {cell} now; "
                "choose another folder, or another name"
            )
        genotypes.save(file, genotype)


def _make_network(
    study: CellStudy, genotype: Genotype, batch_axis: str | None = None
) -> networks.MicroNetwork:
    training = study.training
    return networks.micro(
        genotype,
        training.channels,
        training.num_cells,
        study.images.dataset.num_classes,
        auxiliary=training.auxiliary,
        stem_stride=training.stem_stride,
        batch_axis=batch_axis,
    )


def _options_of(study: CellStudy, cell: str) -> dict[str, Any]:
    """Arguments of a network that say which cell it has."""
    if not study.training.share_program:
        return {}
    return {"sources": networks.edge_sources(study.cells[cell])}


def _make_trainer(
    study: CellStudy, program: Genotype, learning_rate: float
) -> Callable[..., train.TrainResult]:
    """The training of all cells of one program."""
    training, images = study.training, study.images
    return train.make_train_fn(
        _make_network(
            study, program, parallel.batch_axis(images.pipeline.on_devices())
        ),
        train.classification(training.auxiliary_weight),
        training.make_optimizer(learning_rate),
        images.dataset.train,
        images.pipeline,
        num_epochs=training.num_epochs,
        test=images.dataset.test,
        drop_path=train.DropPath(training.drop_path),
    )


def _folder_of(study: CellStudy, run: _Run) -> pathlib.Path:
    """Folder of the log and checkpoints of a training."""
    rate = f"learning_rate_{run.learning_rate:g}"
    folder = pathlib.Path(study.workdir, "trainings", run.cell, rate)
    return folder / f"seed_{run.seed}"


def _has_diverged(study: CellStudy, run: _Run) -> bool:
    """Whether a training ended because its loss was not finite."""
    return (_folder_of(study, run) / "diverged.txt").exists()


def _read_history(study: CellStudy, run: _Run) -> list[dict[str, Any]]:
    """The log of a training so far, a line for each epoch."""
    log = _folder_of(study, run) / "metrics.jsonl"
    return metrics.read(log) if log.exists() else []


def _is_over(study: CellStudy, run: _Run) -> bool:
    """Whether a training has come to its end, good or bad."""
    epochs = [line["epoch"] for line in _read_history(study, run)]
    return study.training.num_epochs in epochs or _has_diverged(study, run)


def _train(
    study: CellStudy, trainer: Callable[..., train.TrainResult], run: _Run
) -> Any:
    """Train a cell, or restore what was trained; `None` if it diverges."""
    folder = _folder_of(study, run)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return trainer(
            jax.random.key(run.seed),
            options=_options_of(study, run.cell),
            workdir=folder,
            description=f"{run.cell} {run.learning_rate:g} seed {run.seed}",
        ).state
    except train.Diverged as error:
        (folder / "diverged.txt").write_text(f"{error}\n", encoding="utf-8")
        print(f"{run.cell}, seed {run.seed}: diverged, {error}", flush=True)
        return None


def _surface_files(
    study: CellStudy, kind: SurfaceKind, cell: str
) -> dict[int, pathlib.Path]:
    """Files of the surfaces of a cell with these settings, by seed."""
    settings = study.surfaces[kind]
    words = [kind, settings.split, settings.num_images or "all"]
    if kind == "variance":
        words += ["batch", settings.batch_size]
    words += ["radius", f"{settings.radius:g}", "resolution", settings.resolution]
    words += ["directions", settings.direction_seed]
    folder = pathlib.Path(study.workdir, "surfaces", "_".join(map(str, words)))
    seeds = study.seeds[: study.num_surfaces]
    return {seed: folder / f"{cell}_seed_{seed}.npz" for seed in seeds}


def _measure_surfaces(
    study: CellStudy,
    programs: Mapping[str, Genotype],
    train_cell: Callable[[_Run], Any],
    kind: SurfaceKind,
) -> None:
    """Measure what is missing, on planes through the networks of the first rate."""
    measurers = functools.cache(functools.partial(_make_measurer, study, kind))
    for seed in study.seeds[: study.num_surfaces]:
        for cell in study.cells:
            run = _Run(cell, study.learning_rates[0], seed)
            file = _surface_files(study, kind, cell)[seed]
            file.parent.mkdir(parents=True, exist_ok=True)
            is_measured = file.exists() and analysis.load_surface(file).is_complete
            if not is_measured and not _has_diverged(study, run):
                state = train_cell(run)
                if state is not None:
                    measurer = measurers(programs[cell])
                    _measure_surface(study, measurer, kind, run, state, file)


def _make_measurer(
    study: CellStudy, kind: SurfaceKind, program: Genotype
) -> Callable[..., analysis.Surface]:
    """The measurement of surfaces of all cells of one program."""
    settings, images = study.surfaces[kind], study.images
    evaluate = train.network_evaluation_step(
        _make_network(study, program), train.classification()
    )

    def batch_metrics(params, constants, batch):
        batch_stats, options = constants
        image = images.pipeline.normalize(jax.random.key(0), batch["image"])
        return evaluate(params, batch_stats, dict(batch, image=image), options)

    if kind == "landscape":
        measure = analysis.mean_metrics(batch_metrics, settings.batch_size)
    else:
        measure = analysis.gradient_variance(
            lambda *args: batch_metrics(*args)["loss"],
            batch_size=settings.batch_size,
            chunk_size=settings.chunk_size,
        )
    return analysis.make_surface_fn(
        measure,
        point_batch_size=settings.point_batch_size,
        devices=images.pipeline.on_devices(),
    )


def _measure_surface(
    study: CellStudy,
    measurer: Callable[..., analysis.Surface],
    kind: SurfaceKind,
    run: _Run,
    state: train.TrainState,
    file: pathlib.Path,
) -> None:
    """Measure one surface; prints every now and then how far it is."""
    settings = study.surfaces[kind]
    split = getattr(study.images.dataset, settings.split)
    places = analysis.coordinates(settings.radius, settings.resolution)
    start = last = time.monotonic()
    first = None

    def on_row(num_rows: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        if first is None:
            first = num_rows, now
        is_last = num_rows == places.size
        if is_last or now - last > _SECONDS_BETWEEN_LINES:
            last = now
            left = (places.size - num_rows) * (now - first[1])
            left /= max(num_rows - first[0], 1)
            print(
                f"{kind} of {run.cell}, seed {run.seed}: {num_rows} of {places.size} "
                f"rows, {now - start:.0f} s"
                + ("" if is_last else f", {left:.0f} s left"),
                flush=True,
            )

    measurer(
        _sample_plane()(jax.random.key(settings.direction_seed), state.params),
        (state.batch_stats, _options_of(study, run.cell)),
        sample_images(split, settings.num_images, settings.sample_seed),
        places,
        places,
        file,
        on_row,
    )


@functools.cache
def _sample_plane() -> Callable[..., analysis.Plane]:
    """A random plane through the parameters of a network, compiled."""
    return jax.jit(
        lambda key, params: analysis.random_plane(
            key, params, networks.num_batch_dims(params)
        )
    )


def _studied_cell(study: CellStudy, name: str) -> StudiedCell:
    """All that is known of a cell."""
    runs = [
        _Run(name, rate, seed) for rate in study.learning_rates for seed in study.seeds
    ]

    def surfaces(kind: SurfaceKind) -> list[analysis.Surface]:
        if kind not in study.surfaces:
            return []
        files = _surface_files(study, kind, name).values()
        found = [analysis.load_surface(file) for file in files if file.exists()]
        return [surface for surface in found if surface.is_complete]

    dataset = study.images.dataset
    return StudiedCell(
        name,
        study.cells[name],
        networks.count_params(
            _make_network(study, study.cells[name]), dataset.train.image_shape
        ),
        [
            Training(
                run.learning_rate,
                run.seed,
                _read_history(study, run),
                _has_diverged(study, run),
            )
            for run in runs
            if _is_over(study, run)
        ],
        surfaces("landscape"),
        surfaces("variance"),
    )
