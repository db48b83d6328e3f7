"""Search for a convolutional network, and compare what was found with random ones.

Without arguments: ASNG-NAS on scikit-learn's digits, a few minutes on a laptop CPU. The
folder of the run gets genotype.json, report.html, metrics.jsonl and
checkpoints; the same command again continues where it stopped.
"""

import dataclasses
import functools
import pathlib
import shlex
import statistics
from typing import Any, NamedTuple

import command_line
import hypernetworks
import images
import optimizers
from presets.cifar_search import PRESETS, Config

# A run may go on in another place or on another number of devices, and its result be
# compared with more architectures.
MAY_DIFFER = (
    *("workdir", "data_dir", "devices"),
    *("scratch_dir", "scratch_random", "scratch_seeds"),
)
# What accuracies after training from scratch depend on, besides the data.
SCRATCH_SETTINGS = (
    *("dataset", "image_size", "max_images", "crop_padding", "crop_fill", "flip"),
    *("cutout", "seed"),
    *("space", "channels", "num_cells", "num_nodes", "node_input", "layout"),
    *("num_layers", "skips", "dropout", "batch_size"),
    *("scratch_epochs", "scratch_learning_rate"),
)


def main() -> None:
    """Search, rank, compare, report."""
    preset, config = command_line.parse(PRESETS, __doc__)
    with command_line.wrong_input():
        experiment = prepare(preset, config)
    command_line.announce(
        experiment.images.dataset.source, experiment.environment, experiment.folder
    )
    import jax

    from jaxnas import studies

    study = studies.search(
        **experiment.arguments,
        key=jax.random.key(config.seed),
        workdir=experiment.folder,
    )
    write_report(experiment, study)
    print_result(experiment, study)


class Experiment(NamedTuple):
    """What a search needs: `arguments` are those of `jaxnas.studies.search`."""

    config: Config
    images: Any
    arguments: dict[str, Any]
    folder: pathlib.Path
    environment: dict[str, str]


def prepare(preset: str, config: Config) -> Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    from jaxnas import parallel, train, workdir

    devices = parallel.local_devices(config.devices)
    parallel.share(config.batch_size, len(devices), "batch_size")
    settings = search_settings(config)
    if config.shard == "archs":
        for name in ("num_weight_archs", "num_search_archs"):
            parallel.share(getattr(settings, name), len(devices), name)
    dataset = images.load(config)
    num_validation = config.validation_images or -(-dataset.train.num_images // 2)
    study_images = images.study_images(config, dataset, num_validation, devices)
    if config.scratch_random == 1:
        raise ValueError("--scratch-random is 1; expected 0, or 2 or more")
    splits = study_images.splits
    timetable = train.make_timetable(splits, config.batch_size, config.searcher_steps)
    optimizer = optimizers.make_optimizer(config, timetable.weight_steps)
    net = train_net = make_supernet(config, dataset)
    if config.num_train_nodes is not None:
        smaller = dataclasses.replace(config, num_nodes=config.num_train_nodes)
        train_net = make_supernet(smaller, dataset)
    make_provider = provider_maker(config)
    make_provider(net)
    epoch_metrics = None
    if config.weights == "ghn":
        epoch_metrics = hypernetworks.make_block_metrics(
            train_net, make_provider(train_net), train_net.space
        )
    searcher = make_searcher(config, train_net.space)
    environment = workdir.environment(devices)
    folder = workdir.prepare(
        config.workdir or pathlib.Path("runs") / f"cifar_search-{preset}",
        dataclasses.asdict(config) | {"source": dataset.source},
        environment,
        may_differ=MAY_DIFFER,
    )
    scratch_folder = folder / "scratch"
    if config.scratch_random:
        scratch_folder = workdir.prepare(
            config.scratch_dir or scratch_folder,
            {name: getattr(config, name) for name in SCRATCH_SETTINGS}
            | {"source": dataset.source},
            environment,
        )
    arguments = {
        "net": net,
        "train_net": train_net,
        "searcher": searcher,
        "optimizer": optimizer,
        "images": study_images,
        "settings": settings,
        "selection": selection(config),
        "make_network": functools.partial(
            make_network, config, num_classes=len(dataset.class_names)
        ),
        "make_provider": make_provider,
        # What a random search has found before its end means nothing.
        "test_while_searching": config.space != "dag",
        "epoch_metrics": epoch_metrics,
        "scratch_dir": scratch_folder,
    }
    return Experiment(config, study_images, arguments, folder, environment)


def search_settings(config: Config):
    """How weights and searcher learn."""
    from jaxnas import studies, train

    return studies.SearchSettings(
        num_epochs=config.epochs,
        num_weight_archs=config.num_weight_archs or config.num_archs,
        num_search_archs=config.num_archs,
        searcher_steps=config.searcher_steps,
        objective=train.mean_loss if config.objective == "loss" else train.error_rate,
        augment_validation=config.augment_validation,
        batch_per_arch=config.batch_per_arch,
        shard=config.shard,
    )


def selection(config: Config):
    """How the result is selected, and what it is compared with."""
    from jaxnas import studies

    scratch = studies.TrainingBudget(
        config.scratch_epochs, config.scratch_learning_rate, config.scratch_seeds
    )
    return studies.Selection(
        select=config.select,
        num_candidates=config.num_candidates,
        num_screening_images=config.screening_images or None,
        finalists=studies.TrainingBudget(
            config.finalist_epochs, config.finalist_learning_rate
        ),
        num_random=config.num_random,
        scratch=scratch if config.scratch_random else None,
        num_scratch_random=config.scratch_random,
    )


def make_supernet(config: Config, dataset):
    """The network of a configuration."""
    from jaxnas import spaces, supernets

    common = {
        "channels": config.channels,
        "num_classes": len(dataset.class_names),
        "dropout": config.dropout,
        "image_channels": dataset.train.images.shape[-1],
    }
    if config.space == "macro":
        space = spaces.enas_macro(config.num_layers)
        return supernets.macro(space, skips=config.skips, **common)
    if config.space == "dag":
        space = spaces.ghn_dag(config.num_nodes)
        return supernets.dag(
            space, num_blocks=config.num_cells, node_input=config.node_input, **common
        )
    space = spaces.enas_micro(config.num_nodes)
    return supernets.micro(
        space, num_cells=config.num_cells, layout=config.layout, **common
    )


def make_network(config: Config, genotype, num_classes: int):
    """The network of one genotype, with weights of its own and as large."""
    from jaxnas import networks

    if config.space == "macro":
        return networks.macro(genotype, config.channels, num_classes)
    if config.space == "dag":
        return networks.dag(genotype, config.channels, config.num_cells, num_classes)
    size = config.channels, config.num_cells, num_classes
    if config.layout == "enas":
        return networks.micro(genotype, *size, skeleton="enas")
    return networks.micro(genotype, *size, cell_output="projection")


def make_searcher(config: Config, space):
    """The search algorithm of a configuration."""
    from jaxnas import search

    if config.searcher == "random":
        return search.random_search(space)
    if config.space == "dag":
        raise ValueError(
            f"--searcher is {config.searcher}; expected random, for in the space dag "
            "not all combinations of decisions are architectures"
        )
    if config.searcher_steps == 0:
        raise ValueError(
            f"--searcher-steps is 0, but --searcher {config.searcher} has to learn"
        )
    if config.searcher == "reinforce":
        rate = config.controller_learning_rate
        if config.controller == "paper":
            settings = search.paper_settings(space)
            given = {} if rate is None else {"learning_rate": rate}
            optimizer = search.paper_optimizer(**given)
        else:
            settings = search.official_settings(space)
            optimizer = search.official_optimizer(space, learning_rate=rate)
        if config.entropy_weight is not None:
            settings = settings._replace(entropy_weight=config.entropy_weight)
        return search.reinforce(space, optimizer=optimizer, settings=settings)
    if config.num_archs < 2:
        raise ValueError("--num-archs is 1; ASNG compares 2 or more architectures")
    return search.asng(space, alpha=config.alpha, init_delta=config.init_delta)


def provider_maker(config: Config):
    """`net -> provider`: where the weights of a configuration come from."""
    from jaxnas import weights

    different = config.num_train_nodes not in (None, config.num_nodes)
    if different and (config.space != "dag" or config.weights != "ghn"):
        raise ValueError(
            f"--num-train-nodes is {config.num_train_nodes} and --num-nodes "
            f"{config.num_nodes}; only --weights ghn in the space dag can train with "
            "other blocks than it ranks"
        )
    if config.weights == "ghn":
        return lambda net: hypernetworks.make_hypernetwork(config, net)
    return weights.shared


def write_report(experiment: Experiment, study) -> None:
    """Write the report of a search."""
    from jaxnas import metrics, report
    from jaxnas.report import drawing

    config, folder = experiment.config, experiment.folder
    dataset = experiment.images.dataset
    cardinalities = experiment.arguments["net"].space.cardinalities
    report.search_report(
        folder / "report.html",
        title=f"Search on {dataset.name}",
        summary={"data": dataset.source, "seed": str(config.seed)}
        | experiment.environment,
        config=dataclasses.asdict(config),
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


def print_result(experiment: Experiment, study) -> None:
    """Print what was found, and the command that trains it."""
    from jaxnas import genotypes, report

    config, folder = experiment.config, experiment.folder
    print(
        f"\nfound: {genotypes.to_text(study.found.genotype)}\n"
        f"{report.scratch_text(study.scratch)}\n"
        f"with the search's weights, which only rank architectures: test loss "
        f"{study.found.loss:.3f}, accuracy {study.found.accuracy:.1%}\n"
        f"For a network to use, train it:\n"
        f"  {training_command(config, folder / 'genotype.json')}\n"
        f"report: {folder / 'report.html'}"
    )


def training_command(config: Config, genotype: pathlib.Path) -> str:
    """What trains a found architecture on the data set it was searched on."""
    kind = {"macro": "enas-macro", "dag": "ghn", "micro": "asng"}[config.space]
    if config.space == "micro" and config.layout == "enas":
        kind = "enas-micro"
    flags = ["--preset", f"{kind}-cifar10", "--genotype", str(genotype)]
    if config.dataset == "digits":
        quick = {"asng": "quick", "enas-micro": "quick-enas"}
        flags[1] = quick.get(kind, f"quick-{kind}")
    elif config.dataset != "cifar10":
        flags += ["--dataset", config.dataset]
    if config.data_dir is not None:
        flags += ["--data-dir", config.data_dir]
    return " ".join(["python launch/cifar_train.py", *map(shlex.quote, flags)])


if __name__ == "__main__":
    command_line.run(main)
