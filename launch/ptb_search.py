"""Search for the recurrent cell of a language model (ENAS, sections 2.1 and 3.1).

Without arguments: on a made-up language, a few minutes on a laptop CPU. The folder of
the run gets genotype.json, scratch.json, report.html, metrics.jsonl and checkpoints,
and a folder for each training from scratch below networks/; the same command again
continues where it stopped.
"""

import dataclasses
import pathlib
import shlex
from typing import TYPE_CHECKING, Any

import session
import texts
from presets.ptb_search import PRESETS, Config
from presets.ptb_train import PRESETS as TRAINING_PRESETS

if TYPE_CHECKING:
    from jaxnas import data, studies

# A run may go on in another place or on another number of devices, and its result be
# compared with more cells.
MAY_DIFFER = (*session.RUN_MAY_DIFFER, "data_dir", "scratch_random", "scratch_seeds")

_TEXTS = ("dataset", "data_dir", "max_tokens")
# Flags of a training that are those of the search, where it does not have its preset's.
_SIZES = (
    *("hidden_size", "drop_words", "drop_inputs", "drop_states", "drop_outputs"),
    *("max_norm", "batch_size", "window"),
)


def main() -> None:
    """Search, train from scratch, compare, report."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)

    from jaxnas import data, studies

    source = data.describe_text(experiment.dataset)
    session.announce(source, experiment.environment, experiment.folder)
    session.show(config, experiment.folder)
    study = studies.language(**experiment.arguments, workdir=experiment.folder)
    write_report(experiment, study)
    print_result(preset, experiment, study)


def prepare(preset: str, config: Config) -> session.Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    import jax

    from jaxnas import parallel, supernets, train, workdir

    training = config.training
    devices = parallel.local_devices(config.run.devices)
    parallel.per_device_size(training.batch_size, len(devices), "batch_size")
    if config.scratch.scratch_random == 1:
        raise ValueError("--scratch-random is 1; expected 0, or 2 or more")
    if 0 < config.screening_tokens <= training.batch_size:
        raise ValueError(
            f"--screening-tokens is {config.screening_tokens}; expected 0, or more "
            f"than the {training.batch_size} of --batch-size"
        )
    dataset = texts.load(config.texts)
    reading = training.reading()
    steps_per_epoch = texts.check_read(dataset, reading, training.batch_size)
    if config.searcher_steps:
        texts.check_searched(dataset, reading)
    space = config.space()
    search_key, training_key = jax.random.split(jax.random.key(config.run.seed))
    arguments = {
        "net": supernets.recurrent(
            space,
            dataset.num_words,
            weights_of=config.weights_of,
            **config.model.arguments(),
        ),
        "searcher": config.searcher(space),
        "optimizer": training.make_optimizer(steps_per_epoch),
        "texts": dataset,
        "settings": train.LanguageSearchSettings(
            training.epochs, reading, config.searcher_steps, config.archs_per_step
        ),
        "training": scratch_training(config, dataset, steps_per_epoch, training_key),
        "key": search_key,
        "num_candidates": config.num_candidates,
        "num_screening_tokens": config.screening_tokens or None,
        "num_random": config.scratch.scratch_random,
        "devices": devices,
    }
    environment = workdir.environment(devices)
    folder = workdir.prepare(
        config.run.workdir or pathlib.Path("runs") / f"ptb_search-{preset}",
        session.flags(config) | texts.identity(dataset),
        environment,
        ignored_keys=MAY_DIFFER,
    )
    return session.Experiment(config, dataset, arguments, folder, environment)


def scratch_training(
    config: Config, dataset: "data.TextDataset", steps_per_epoch: int, key: Any
) -> "studies.LanguageTraining | None":
    """Training from scratch of the found cell and of random ones."""
    from jaxnas import networks, studies, train

    scratch = config.scratch
    if scratch.scratch_random == 0:
        return None
    settings = train.LanguageTrainingSettings(
        scratch.scratch_epochs,
        config.training.reading(),
        scratch.scratch_patience,
        config.training.batch_size,
    )
    return studies.LanguageTraining(
        lambda genotype: networks.recurrent(
            genotype, dataset.num_words, **config.model.arguments()
        ),
        config.training.make_optimizer(steps_per_epoch, scratch.scratch_learning_rate),
        settings,
        key,
        scratch.scratch_seeds,
    )


def write_report(
    experiment: session.Experiment, study: "studies.LanguageStudy"
) -> None:
    """Write the report of a search."""
    from jaxnas import metrics, report
    from jaxnas.report import drawing

    config, folder = experiment.config, experiment.folder
    report.language_report(
        folder / "report.html",
        title=f"Search for a recurrent cell on {experiment.dataset.name}",
        summary={"data": experiment.dataset.source, "seed": str(config.run.seed)}
        | experiment.environment,
        config=session.flags(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(study.found.genotype, title="Found cell"),
        study=study,
        space=experiment.arguments["net"].space,
    )


def print_result(
    preset: str, experiment: session.Experiment, study: "studies.LanguageStudy"
) -> None:
    """Print what was found, and the command that trains it."""
    from jaxnas import genotypes, report

    folder = experiment.folder
    command = training_command(
        preset,
        experiment.config,
        folder / "genotype.json",
        experiment.dataset.train.size,
    )
    session.conclude(
        f"\nfound: {genotypes.to_text(study.found.genotype)}\n"
        f"{report.language_text(study)}\n"
        "with the search's weights, which only rank cells: validation perplexity "
        f"{float(study.searched['perplexity']):.2f}\n"
        "For a language model to use, train it:\n"
        f"  {command}\n"
        f"report: {folder / 'report.html'}"
    )


def training_command(
    preset: str, config: Config, genotype: pathlib.Path, num_tokens: int
) -> str:
    """Command that trains a found cell on the texts it was searched on.

    Args:
      preset: the search's, which tells the training's.
      config: settings of the search; sizes and dropout that are not its preset's are
        those of the training too.
      genotype: file of the cell.
      num_tokens: length of the training text.
    """
    name = preset if preset in TRAINING_PRESETS else "enas-ptb"
    training = TRAINING_PRESETS[name].config
    values = session.flags(config)
    searched, trained = session.flags(PRESETS[preset].config), session.flags(training)
    changed = {
        flag: values[flag]
        for flag in (*_TEXTS, *_SIZES)
        if values[flag] != trained[flag]
        and (flag in _TEXTS or values[flag] != searched[flag])
    }
    reading = dataclasses.replace(
        training.training,
        batch_size=changed.get("batch_size", trained["batch_size"]),
        window=changed.get("window", trained["window"]),
    ).reading()
    most_rows = max(1, num_tokens // (max(reading.lengths()) + 1))
    if reading.batch_size > most_rows:  # windows of a search may be shorter
        changed["batch_size"] = most_rows
    words = ["--preset", name, "--genotype", str(genotype)]
    for flag, value in changed.items():
        words += [f"--{flag.replace('_', '-')}", str(value)]
    return " ".join(["python launch/ptb_train.py", *map(shlex.quote, words)])


if __name__ == "__main__":
    session.run(main)
