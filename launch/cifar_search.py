"""Search for a convolutional network, and compare what was found with random ones.

Without arguments: ASNG-NAS on scikit-learn's digits, a few minutes on a laptop CPU. The
folder of the run gets genotype.json, report.html, metrics.jsonl and checkpoints; the
same command again continues where it stopped.
"""

import dataclasses
import pathlib
import shlex
import statistics
from typing import Any

import hypernetworks
import images
import optimizers
import searchers
import session
from presets.cifar_search import PRESETS, Config, Ghn, Trained
from presets.cifar_train import PRESETS as TRAINING_PRESETS
from spaces import Dag

# A run may go on in another place or on another number of devices, and its result be
# compared with more architectures.
MAY_DIFFER = (
    *session.RUN_MAY_DIFFER,
    "data_dir",
    *("scratch_dir", "scratch_random", "scratch_seeds"),
)
# What accuracies after training from scratch depend on, besides data and space.
SCRATCH_SETTINGS = "seed", "batch_size", "scratch_epochs", "scratch_learning_rate"


def main() -> None:
    """Search, rank, compare, report."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)
    images.announce(experiment.dataset, experiment.environment, experiment.folder)
    session.show(config, experiment.folder)
    import jax

    from jaxnas import studies

    study = studies.search(
        **experiment.arguments,
        key=jax.random.key(config.run.seed),
        workdir=experiment.folder,
    )
    write_report(experiment, study)
    print_result(preset, experiment, study)


def prepare(preset: str, config: Config) -> session.Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    from jaxnas import parallel, train, workdir

    devices = parallel.local_devices(config.run.devices)
    batch_size = config.training.batch_size
    parallel.per_device_size(batch_size, len(devices), "batch_size")
    settings = search_settings(config)
    if config.shard == "archs":
        for name in ("num_weight_archs", "num_search_archs"):
            parallel.per_device_size(getattr(settings, name), len(devices), name)
    dataset = images.load(config.images)
    study_images = images.study_images(
        config.images,
        dataset,
        num_validation=config.validation_images or -(-dataset.train.num_images // 2),
        batch_size=batch_size,
        devices=devices,
    )
    if config.scratch.scratch_random == 1:
        raise ValueError("--scratch-random is 1; expected 0, or 2 or more")
    search_schedule = train.search_schedule(
        study_images.splits, batch_size, config.searcher_steps
    )
    optimizer = optimizers.make_optimizer(config.training, search_schedule.weight_steps)
    net = train_net = config.space.supernet(dataset)
    num_train_nodes = check_train_nodes(config)
    if num_train_nodes is not None:
        smaller = dataclasses.replace(config.space, num_nodes=num_train_nodes)
        train_net = smaller.supernet(dataset)
    make_provider = provider_maker(config)
    make_provider(net)
    epoch_metrics = None
    if isinstance(config.weights, Ghn):
        epoch_metrics = hypernetworks.make_block_metrics(
            train_net, make_provider(train_net), train_net.space
        )
    searcher = make_searcher(config, train_net.space)
    environment = workdir.environment(devices)
    flags = session.flags(config) | images.identity(dataset)
    folder = workdir.prepare(
        config.run.workdir or pathlib.Path("runs") / f"cifar_search-{preset}",
        flags,
        environment,
        ignored_keys=MAY_DIFFER,
    )
    scratch_folder = folder / "scratch"
    if config.scratch.scratch_random:
        groups = session.flags(config.images), session.flags(config.space)
        scratch = {name: flags[name] for name in ("space", "images", *SCRATCH_SETTINGS)}
        scratch_folder = workdir.prepare(
            config.scratch.scratch_dir or scratch_folder,
            groups[0] | groups[1] | scratch,
            environment,
            ignored_keys=("data_dir",),
            shared=True,
        )
    num_classes = dataset.num_classes
    arguments = {
        "net": net,
        "train_net": train_net,
        "searcher": searcher,
        "optimizer": optimizer,
        "images": study_images,
        "settings": settings,
        "selection": selection(config),
        "make_network": lambda genotype: config.space.network(genotype, num_classes),
        "make_provider": make_provider,
        # What a random search has found before its end means nothing.
        "test_while_searching": not isinstance(config.space, Dag),
        "epoch_metrics": epoch_metrics,
        "scratch_dir": scratch_folder,
    }
    return session.Experiment(config, dataset, arguments, folder, environment)


def search_settings(config: Config):
    """Settings of the search."""
    from jaxnas import studies, train

    return studies.SearchSettings(
        num_epochs=config.training.epochs,
        num_weight_archs=config.num_weight_archs or config.num_archs,
        num_search_archs=config.num_archs,
        searcher_steps=config.searcher_steps,
        objective=train.mean_loss if config.objective == "loss" else train.error_rate,
        augment_validation=config.augment_validation,
        batch_per_arch=config.batch_per_arch,
        archs_at_once=config.archs_at_once,
        precision=config.precision,
        shard=config.shard,
        stop_when_converged=config.stop_when_converged,
    )


def selection(config: Config):
    """Selection of the result, and the comparison with random ones."""
    from jaxnas import studies

    top_k, scratch = config.select, config.scratch
    if not isinstance(top_k, Trained):
        top_k = Trained()
    budget = studies.TrainingBudget(
        scratch.scratch_epochs, scratch.scratch_learning_rate, scratch.scratch_seeds
    )
    select: Any = session.choice_name(config.select)
    return studies.Selection(
        select=select,
        num_candidates=config.num_candidates,
        num_screening_images=config.screening_images or None,
        top_k=studies.TrainingBudget(top_k.top_k_epochs, top_k.top_k_learning_rate),
        num_random=config.num_random,
        scratch=budget if scratch.scratch_random else None,
        num_scratch_random=scratch.scratch_random,
    )


def make_searcher(config: Config, space):
    """The search algorithm of the settings."""
    searcher = config.searcher
    name = session.choice_name(searcher)
    searchers.check_convergence(searcher, config.stop_when_converged)
    if isinstance(searcher, searchers.Random):
        return searcher(space)
    if isinstance(config.space, Dag):
        raise ValueError(
            f"the searcher is {name}; expected random, for in the space dag not all "
            "combinations of decisions are architectures"
        )
    if config.searcher_steps == 0:
        raise ValueError(f"--searcher-steps is 0, but the searcher {name} has to learn")
    searchers.check_comparison(searcher, config.num_archs)
    return searcher(space)


def check_train_nodes(config: Config) -> int | None:
    """Nodes of the blocks that weights are trained in, if not those of the space."""
    num_nodes = getattr(config.weights, "num_train_nodes", None)
    if num_nodes is not None and not isinstance(config.space, Dag):
        raise ValueError(
            f"--num-train-nodes is {num_nodes}; only in the space dag can a "
            "hypernetwork be trained with other blocks than it ranks"
        )
    return num_nodes


def provider_maker(config: Config):
    """`net -> provider`: where the weights come from."""
    from jaxnas import weights

    if isinstance(config.weights, Ghn):
        hypernetwork = config.weights
        return lambda net: hypernetworks.make_hypernetwork(hypernetwork, net)
    return weights.shared


def write_report(experiment: session.Experiment, study) -> None:
    """Write the report of a search."""
    from jaxnas import metrics, report
    from jaxnas.report import drawing

    config, folder = experiment.config, experiment.folder
    dataset = experiment.dataset
    cardinalities = experiment.arguments["net"].space.cardinalities
    report.search_report(
        folder / "report.html",
        title=f"Search on {dataset.name}",
        summary={"data": dataset.source, "seed": str(config.run.seed)}
        | experiment.environment,
        config=session.flags(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(study.found.genotype, title="Found architecture"),
        found=study.found,
        top=study.top,
        random=study.random,
        scratch=study.scratch,
        sampled_accuracies=study.sampled_accuracies,
        ranked_by=config.objective,
        uniform_level=statistics.fmean(1 / c for c in cardinalities),
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
        f"{report.scratch_text(study.scratch)}\n"
        f"with the search's weights, which only rank architectures: test loss "
        f"{study.found.loss:.3f}, accuracy {study.found.accuracy:.1%}\n"
        f"For a network to use, train it:\n"
        f"  {command}\n"
        f"report: {folder / 'report.html'}"
    )


def training_command(
    preset: str, config: Config, genotype: pathlib.Path, num_images: int
) -> str:
    """Command that trains a found architecture on the images it was searched on.

    Args:
      preset: the search's; a quick one is followed by a quick training.
      config: settings of the search.
      genotype: file of the architecture.
      num_images: number of training images.
    """
    name = config.space.training_preset()
    if preset == "folder" and name == "asng-cifar10":
        name = "folder"
    elif not preset.endswith("-cifar10"):
        quick = {"asng-cifar10": "quick", "enas-micro-cifar10": "quick-enas"}
        name = quick.get(name, f"quick-{name.removesuffix('-cifar10')}")
    training = TRAINING_PRESETS[name].config
    flags = ["--preset", name, "--genotype", str(genotype)]
    flags += images.training_flags(
        config.images, training.images, num_images, training.training.batch_size
    )
    return " ".join(["python launch/cifar_train.py", *map(shlex.quote, flags)])


if __name__ == "__main__":
    session.run(main)
