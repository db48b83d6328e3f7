"""Search for an autoencoder that restores images (ASNG-NAS, section 3.3).

Without arguments: on scikit-learn's digits without their center, a few minutes on a
laptop CPU. The folder of the run gets genotype.json, scratch.json, report.html,
metrics.jsonl and checkpoints, and a folder for each training from scratch below
networks/; the same command again continues where it stopped.
"""

import pathlib
import shlex
import statistics

import images
import inpainting
import optimizers
import searchers
import session
from presets.inpaint_search import PRESETS, Best, Config
from presets.inpaint_train import PRESETS as TRAINING_PRESETS

# A run may go on in another place or on another number of devices, and its result be
# compared with more architectures.
MAY_DIFFER = (*session.RUN_MAY_DIFFER, "data_dir", "scratch_random", "scratch_seeds")


def main() -> None:
    """Search, train from scratch, compare, report."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)
    images.announce(experiment.dataset, experiment.environment, experiment.folder)
    session.show(config, experiment.folder)
    from jaxnas import studies

    study = studies.inpainting(**experiment.arguments, workdir=experiment.folder)
    write_report(experiment, study)
    print_result(preset, experiment, study)


def prepare(preset: str, config: Config) -> session.Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    import jax

    from jaxnas import parallel, studies, train, workdir

    devices = parallel.local_devices(config.run.devices)
    batch_size = config.training.batch_size
    parallel.per_device_size(batch_size, len(devices), "batch_size")
    if config.scratch.scratch_random == 1:
        raise ValueError("--scratch-random is 1; expected 0, or 2 or more")
    dataset = images.load(config.images)
    inpainting.check_images(dataset)
    study_images = images.study_images(
        config.images,
        dataset,
        num_validation=config.validation_images or -(-dataset.train.num_images // 2),
        batch_size=batch_size,
        devices=devices,
        normalize=False,
    )
    search_schedule = train.search_schedule(study_images.splits, batch_size)
    net = config.space.supernet(dataset)
    search_key, training_key = jax.random.split(jax.random.key(config.run.seed))
    best = config.select if isinstance(config.select, Best) else None
    arguments = {
        "net": net,
        "searcher": make_searcher(config, net.space),
        "optimizer": optimizers.make_optimizer(
            config.training, search_schedule.weight_steps
        ),
        "task": config.missing.task(),
        "images": study_images,
        "settings": studies.SearchSettings(
            num_epochs=config.training.epochs,
            num_weight_archs=config.num_archs,
            num_search_archs=config.num_archs,
            stop_when_converged=config.stop_when_converged,
        ),
        "training": network_training(config, dataset, training_key),
        "key": search_key,
        "num_candidates": best and best.num_candidates,
        "num_screening_images": best and (best.screening_images or None),
        "num_random": config.scratch.scratch_random,
    }
    environment = workdir.environment(devices)
    folder = workdir.prepare(
        config.run.workdir or pathlib.Path("runs") / f"inpaint_search-{preset}",
        session.flags(config) | images.identity(dataset),
        environment,
        ignored_keys=MAY_DIFFER,
    )
    return session.Experiment(config, dataset, arguments, folder, environment)


def make_searcher(config: Config, space):
    """The search algorithm of the settings."""
    searchers.check_convergence(config.searcher, config.stop_when_converged)
    searchers.check_comparison(config.searcher, config.num_archs)
    searcher = config.searcher(space)
    if space.integers and not isinstance(config.searcher, searchers.Random):
        counts = {"--num-archs": config.num_archs}
        if isinstance(config.select, Best):
            counts["--num-candidates"] = config.select.num_candidates
        for flag, count in counts.items():
            if count % 2:
                raise ValueError(
                    f"{flag} is {count}; expected an even number, for integers are "
                    "drawn in pairs on both sides of their means"
                )
    return searcher


def network_training(config: Config, dataset, key):
    """Training from scratch of the found autoencoder and of random ones."""
    from jaxnas import networks, optim, studies

    scratch = config.scratch
    if scratch.scratch_random == 0:
        return None
    steps = images.steps_per_epoch(dataset.train, config.training.batch_size)
    boundaries = session.check_ascending("--scratch-decay-at", scratch.scratch_decay_at)
    schedule = optim.step_decay(
        scratch.scratch_learning_rate, 0.1, list(boundaries), steps
    )
    return studies.NetworkTraining(
        networks.autoencoder,
        optim.adam(schedule, clip_norm=config.training.clip_norm or None),
        scratch.scratch_epochs,
        key,
        scratch.scratch_seeds,
    )


def write_report(experiment: session.Experiment, study) -> None:
    """Write the report of a search."""
    from jaxnas import metrics, report
    from jaxnas.report import drawing

    config, folder = experiment.config, experiment.folder
    dataset = experiment.dataset
    sizes = experiment.arguments["net"].space.cardinalities
    report.inpainting_report(
        folder / "report.html",
        title=f"Search for an autoencoder on {dataset.name}",
        summary={
            "data": dataset.source,
            "missing": config.missing.mask,
            "seed": str(config.run.seed),
        }
        | experiment.environment,
        config=session.flags(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(study.found.genotype, title="Found autoencoder"),
        study=study,
        uniform_level=statistics.fmean(1 / size for size in sizes),
    )


def print_result(preset: str, experiment: session.Experiment, study) -> None:
    """Print what was found, and the command that trains it."""
    from jaxnas import genotypes, report

    folder = experiment.folder
    command = training_command(
        preset,
        experiment.config,
        folder / "genotype.json",
        experiment.dataset.train.num_images,
    )
    session.conclude(
        f"\nfound: {genotypes.to_text(study.found.genotype)}\n"
        f"{report.restoration_text(study)}\n"
        f"with the search's weights, which only rank architectures: test "
        f"{inpainting.describe(study.searched)}\n"
        f"For an autoencoder to use, train it:\n"
        f"  {command}\n"
        f"report: {folder / 'report.html'}"
    )


def training_command(
    preset: str, config: Config, genotype: pathlib.Path, num_images: int
) -> str:
    """Command that trains a found autoencoder on the images it was searched on.

    Args:
      preset: the search's; a quick one is followed by a quick training.
      config: settings of the search.
      genotype: file of the architecture.
      num_images: number of training images.
    """
    mask = config.missing.mask
    name = "quick" if preset == "quick" else f"asng-celeba-{mask}"
    training = TRAINING_PRESETS[name].config
    flags = ["--preset", name, "--genotype", str(genotype)]
    if mask != training.missing.mask:
        flags += ["--mask", mask]
    if config.missing.scale_kept:
        flags.append("--scale-kept")
    flags += images.training_flags(
        config.images, training.images, num_images, training.training.batch_size
    )
    return " ".join(["python launch/inpaint_train.py", *map(shlex.quote, flags)])


if __name__ == "__main__":
    session.run(main)
