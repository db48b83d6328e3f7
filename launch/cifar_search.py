"""Search for a convolutional cell, and compare what was found with random cells.

Without arguments: ASNG-NAS on scikit-learn's digits, about a minute on a laptop CPU.
The folder of the run gets genotype.json, report.html, metrics.jsonl and checkpoints;
the same command again goes on where it stopped.
"""

import dataclasses
import pathlib
import statistics
from typing import Any, NamedTuple

import command_line
import images
from presets.cifar_search import PRESETS, Config

# A run may go on in another place or on another number of devices.
MAY_DIFFER = ("workdir", "data_dir", "devices")


class Experiment(NamedTuple):
    """Everything a search needs."""

    config: Config
    devices: list
    dataset: Any
    splits: Any
    space: Any
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
    from jaxnas import data, parallel, spaces, supernets, train, workdir

    devices = parallel.local_devices(config.devices)
    parallel.share(config.batch_size, len(devices), "batch_size")
    dataset = images.load(config)
    augment, normalize = images.preprocessing(config, dataset)
    half = dataset.train.labels.size // 2
    splits = train.SearchSplits(*data.split(dataset.train, half))
    train.count_steps(splits, config.batch_size)
    space = spaces.enas_micro(config.num_nodes)
    net = supernets.micro(
        space,
        config.channels,
        config.num_cells,
        len(dataset.class_names),
        image_channels=dataset.train.images.shape[-1],
    )
    searcher = make_searcher(config, space.cardinalities)
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
        space,
        net,
        searcher,
        augment,
        normalize,
        folder,
        environment,
    )


def make_searcher(config: Config, cardinalities: tuple[int, ...]):
    """The search algorithm of a configuration."""
    from jaxnas import search

    if config.searcher == "random":
        return search.random_search(cardinalities)
    if config.num_archs < 2:
        raise ValueError("--num-archs is 1; ASNG compares 2 or more architectures")
    return search.asng(cardinalities, config.alpha, config.init_delta)


def run_search(experiment: Experiment, key):
    """The search itself; goes on from the folder's newest checkpoint."""
    from jaxnas import optim, train, weights

    config, splits = experiment.config, experiment.splits
    steps_per_epoch = train.count_steps(splits, config.batch_size)
    return train.search(
        experiment.net,
        weights.shared(experiment.net),
        experiment.searcher,
        train.classification(),
        optim.sgd(
            optim.cosine_by_epoch(config.learning_rate, config.epochs, steps_per_epoch),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        ),
        splits,
        key=key,
        num_epochs=config.epochs,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        test=experiment.dataset.test,
        num_weight_archs=config.num_archs,
        num_search_archs=config.num_archs,
        devices=experiment.devices,
        workdir=experiment.folder,
    )


def conclude(experiment: Experiment, result, key) -> None:
    """Rank candidates, compare the result with random cells, write and print."""
    import jax

    from jaxnas import genotypes, metrics, networks, report, train
    from jaxnas.report import drawing

    config, dataset, folder = experiment.config, experiment.dataset, experiment.folder
    space, searcher = experiment.space, experiment.searcher
    shape = dataset.train.images.shape[1:]

    def candidate(name, arch, means) -> report.Candidate:
        genotype = space.decode(arch)
        size = config.channels, config.num_cells, len(dataset.class_names)
        network = networks.micro(genotype, *size, cell_output="projection")
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
        result.evaluate, [result.arch, *archs], experiment.splits.validation
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
    genotype = found_on_test.genotype
    genotypes.save(folder / "genotype.json", genotype)
    report.search_report(
        folder / "report.html",
        title=f"Search for a cell on {dataset.name}",
        summary={"data": dataset.source, "seed": str(config.seed)}
        | experiment.environment,
        config=dataclasses.asdict(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(genotype, title="Found cells"),
        found=found_on_test,
        top=top,
        random=random,
        uniform_level=statistics.fmean(1 / c for c in space.cardinalities),
    )
    better = sum(found_on_test.loss < other.loss for other in random)
    print(
        f"\nfound: {genotypes.to_darts(genotype)}\n"
        f"test loss {found_on_test.loss:.3f}, accuracy {found_on_test.accuracy:.1%} "
        f"with the search's weights; random architectures with the same weights: "
        f"{statistics.fmean(r.loss for r in random):.3f}, "
        f"{statistics.fmean(r.accuracy for r in random):.1%} on average; better than "
        f"{better} of {len(random)}\n"
        f"These accuracies rank architectures. For a network to use, train it:\n"
        f"  python launch/cifar_train.py --genotype {folder / 'genotype.json'}\n"
        f"report: {folder / 'report.html'}"
    )


if __name__ == "__main__":
    command_line.run(main)
