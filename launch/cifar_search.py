"""Search for a convolutional network, and compare what was found with random ones.

Without arguments: ASNG-NAS on scikit-learn's digits, about a minute on a laptop CPU.
The folder of the run gets genotype.json, report.html, metrics.jsonl and checkpoints;
the same command again goes on where it stopped.
"""

import dataclasses
import json
import pathlib
import shlex
import statistics
from typing import Any, NamedTuple

import command_line
import images
import optimizers
from presets.cifar_search import PRESETS, Config

# A run may go on in another place or on another number of devices.
MAY_DIFFER = ("workdir", "data_dir", "devices")


class Experiment(NamedTuple):
    """Everything a search needs."""

    config: Config
    devices: list
    dataset: Any
    splits: Any
    net: Any
    searcher: Any
    augment: Any
    normalize: Any
    folder: pathlib.Path
    environment: dict[str, str]


def main() -> None:
    """Search, rank, compare, report."""
    preset, config = command_line.parse(PRESETS, __doc__)
    with command_line.wrong_input():
        experiment = prepare(preset, config)
    print(
        f"{experiment.dataset.source}; {experiment.environment['device']}; folder "
        f"{experiment.folder}",
        flush=True,
    )
    import jax

    search_key, candidates_key = jax.random.split(jax.random.key(config.seed))
    conclude(experiment, run_search(experiment, search_key), candidates_key)


def prepare(preset: str, config: Config) -> Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    from jaxnas import parallel, train, workdir

    devices = parallel.local_devices(config.devices)
    parallel.share(config.batch_size, len(devices), "batch_size")
    dataset = images.load(config)
    augment, normalize = images.preprocessing(config, dataset)
    splits = split(config, dataset.train)
    train.make_timetable(splits, config.batch_size, config.searcher_steps)
    net = make_supernet(config, dataset)
    searcher = make_searcher(config, net.space)
    environment = workdir.environment(devices)
    folder = workdir.prepare(
        config.workdir or pathlib.Path("runs") / f"cifar_search-{preset}",
        dataclasses.asdict(config) | {"source": dataset.source},
        environment,
        may_differ=MAY_DIFFER,
    )
    return Experiment(
        config,
        devices,
        dataset,
        splits,
        net,
        searcher,
        augment,
        normalize,
        folder,
        environment,
    )


def split(config: Config, images):
    """The images for the weights, and those held out for the searcher."""
    from jaxnas import data, train

    num = images.labels.size
    held_out = config.validation_images or num - num // 2
    if held_out >= num:
        raise ValueError(
            f"--validation-images is {held_out}, but there are only {num} training "
            "images"
        )
    return train.SearchSplits(*data.split(images, num - held_out))


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
    space = spaces.enas_micro(config.num_nodes)
    return supernets.micro(
        space, num_cells=config.num_cells, layout=config.layout, **common
    )


def make_network(config: Config, genotype, num_classes: int):
    """The network of one genotype, with weights of its own and as large."""
    from jaxnas import networks

    if config.space == "macro":
        return networks.macro(genotype, config.channels, num_classes)
    size = config.channels, config.num_cells, num_classes
    if config.layout == "enas":
        return networks.micro(genotype, *size, skeleton="enas")
    return networks.micro(genotype, *size, cell_output="projection")


def make_searcher(config: Config, space):
    """The search algorithm of a configuration."""
    from jaxnas import search

    if config.searcher == "random":
        return search.random_search(space.cardinalities)
    if config.searcher == "reinforce":
        settings = (
            search.Settings() if config.controller == "paper" else search.script(space)
        )
        given = {
            "learning_rate": config.controller_learning_rate,
            "entropy_weight": config.entropy_weight,
        }
        given = {name: value for name, value in given.items() if value is not None}
        return search.reinforce(space, settings._replace(**given))
    if config.num_archs < 2:
        raise ValueError("--num-archs is 1; ASNG compares 2 or more architectures")
    return search.asng(space.cardinalities, config.alpha, config.init_delta)


def make_objective(config: Config):
    """What the searcher minimises."""
    from jaxnas import train

    return train.mean_loss if config.objective == "loss" else train.error_rate


def run_search(experiment: Experiment, key):
    """The search itself; goes on from the folder's newest checkpoint."""
    from jaxnas import train, weights

    config, splits = experiment.config, experiment.splits
    timetable = train.make_timetable(splits, config.batch_size, config.searcher_steps)
    return train.search(
        experiment.net,
        weights.shared(experiment.net),
        experiment.searcher,
        train.classification(),
        optimizers.make_optimizer(config, timetable.weight_steps),
        splits,
        key=key,
        num_epochs=config.epochs,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        test=experiment.dataset.test,
        num_weight_archs=config.num_weight_archs or config.num_archs,
        num_search_archs=config.num_archs,
        searcher_steps=config.searcher_steps,
        objective=make_objective(config),
        augment_validation=config.augment_validation,
        batch_per_arch=config.batch_per_arch,
        devices=experiment.devices,
        workdir=experiment.folder,
    )


def conclude(experiment: Experiment, result, key) -> None:
    """Rank candidates, compare the result with random ones, write and print."""
    import jax

    from jaxnas import genotypes, metrics, networks, report, train
    from jaxnas.report import drawing

    config, dataset, folder = experiment.config, experiment.dataset, experiment.folder
    space, searcher = experiment.net.space, experiment.searcher
    shape = dataset.train.images.shape[1:]

    def candidate(name, arch, means) -> report.Candidate:
        genotype = space.decode(arch)
        network = make_network(config, genotype, len(dataset.class_names))
        return report.Candidate(
            name,
            genotype,
            means["loss"],
            means["accuracy"],
            *networks.cost(network, shape),
        )

    print("ranking candidates by the validation images", flush=True)
    ask_key, random_key = jax.random.split(key)
    archs = searcher.ask(result.state.searcher, ask_key, config.num_candidates)
    ranked = train.rank(
        result.evaluate,
        [result.arch, *archs],
        experiment.splits.validation,
        objective=make_objective(config),
    )
    found = ranked[0].arch if config.select == "best" else result.arch
    top = [
        candidate(
            "found" if (entry.arch == found).all() else f"candidate {entry.position}",
            entry.arch,
            entry.metrics,
        )
        for entry in ranked
    ]
    print("comparing with random architectures by the test images", flush=True)
    found_on_test = candidate("found", found, result.evaluate(found, dataset.test))
    random = [
        candidate(f"random {i + 1}", arch, result.evaluate(arch, dataset.test))
        for i, arch in enumerate(
            jax.vmap(space.sample)(jax.random.split(random_key, config.num_random))
        )
    ]
    # As many as random ones, so that the searcher is seen beside its best.
    sampled = [
        result.evaluate(arch, dataset.test)["accuracy"]
        for arch in archs[: config.num_random]
    ]
    genotype = found_on_test.genotype
    genotypes.save(folder / "genotype.json", genotype)
    rows = [
        entry._replace(genotype=entry.genotype._asdict())._asdict() for entry in top
    ]
    (folder / "candidates.json").write_text(json.dumps(rows, indent=1), "utf-8")
    report.search_report(
        folder / "report.html",
        title=f"Search on {dataset.name}",
        summary={"data": dataset.source, "seed": str(config.seed)}
        | experiment.environment,
        config=dataclasses.asdict(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(genotype, title="Found architecture"),
        found=found_on_test,
        top=top,
        random=random,
        sampled_accuracies=sampled,
        ranked_by=config.objective,
        uniform_level=statistics.fmean(1 / c for c in space.cardinalities),
    )
    better = sum(found_on_test.loss < other.loss for other in random)
    print(
        f"\nfound: {genotypes.to_text(genotype)}\n"
        f"test loss {found_on_test.loss:.3f}, accuracy {found_on_test.accuracy:.1%} "
        f"with the search's weights; random architectures with the same weights: "
        f"{statistics.fmean(r.loss for r in random):.3f}, "
        f"{statistics.fmean(r.accuracy for r in random):.1%} on average; better than "
        f"{better} of {len(random)}; architectures that the searcher samples: "
        f"{statistics.fmean(sampled):.1%}\n"
        f"These accuracies rank architectures. For a network to use, train it:\n"
        f"  {training_command(config, folder / 'genotype.json')}\n"
        f"report: {folder / 'report.html'}"
    )


def training_command(config: Config, genotype: pathlib.Path) -> str:
    """What trains a found architecture on the data set it was searched on."""
    kind = "enas-macro" if config.space == "macro" else "asng"
    if config.space == "micro" and config.layout == "enas":
        kind = "enas-micro"
    flags = ["--preset", f"{kind}-cifar10", "--genotype", str(genotype)]
    if config.dataset == "digits":
        quick = {"asng": "quick", "enas-micro": "quick-enas"}
        flags[1] = quick.get(kind, "quick-enas-macro")
    elif config.dataset != "cifar10":
        flags += ["--dataset", config.dataset]
    if config.data_dir is not None:
        flags += ["--data-dir", config.data_dir]
    return " ".join(["python launch/cifar_train.py", *map(shlex.quote, flags)])


if __name__ == "__main__":
    command_line.run(main)
