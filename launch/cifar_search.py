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


class Experiment(NamedTuple):
    """Everything a search needs.

    Attributes:
      net: the network whose architectures are searched.
      train_net: the one that weights are trained with, whose blocks may be smaller.
      make_provider: `net -> provider` of the weights of either.
      searcher: what proposes architectures of `train_net`.
    """

    config: Config
    devices: list
    dataset: Any
    splits: Any
    net: Any
    train_net: Any
    make_provider: Any
    searcher: Any
    augment: Any
    normalize: Any
    folder: pathlib.Path
    scratch_folder: pathlib.Path
    environment: dict[str, str]


def main() -> None:
    """Search, rank, compare, report."""
    preset, config = command_line.parse(PRESETS, __doc__)
    with command_line.wrong_input():
        experiment = prepare(preset, config)
    command_line.announce(
        experiment.dataset.source, experiment.environment, experiment.folder
    )
    import jax

    search_key, candidates_key = jax.random.split(jax.random.key(config.seed))
    result = run_search(experiment, search_key)
    conclude(experiment, result, candidates_key)


def prepare(preset: str, config: Config) -> Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    from jaxnas import parallel, train, workdir

    devices = parallel.local_devices(config.devices)
    parallel.share(config.batch_size, len(devices), "batch_size")
    if config.shard == "archs":
        for name, num in zip(
            ("num_weight_archs", "num_search_archs"), num_archs(config), strict=True
        ):
            parallel.share(num, len(devices), name)
    dataset = images.load(config)
    augment, normalize = images.preprocessing(config, dataset)
    if config.scratch_random == 1:
        raise ValueError("--scratch-random is 1; expected 0, or 2 or more")
    num_held_out = config.validation_images or -(-dataset.train.num_images // 2)
    splits = images.hold_out(dataset.train, num_held_out)
    timetable = train.make_timetable(splits, config.batch_size, config.searcher_steps)
    optimizers.make_optimizer(config, timetable.weight_steps)
    net = make_supernet(config, dataset)
    train_net = net
    if config.num_train_nodes is not None:
        smaller = dataclasses.replace(config, num_nodes=config.num_train_nodes)
        train_net = make_supernet(smaller, dataset)
    make_provider = provider_maker(config)
    make_provider(net)
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
    return Experiment(
        config,
        devices,
        dataset,
        splits,
        net,
        train_net,
        make_provider,
        searcher,
        augment,
        normalize,
        folder,
        scratch_folder,
        environment,
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
        official = search.paper if config.controller == "paper" else search.script
        settings = official(space)
        given = {
            "learning_rate": config.controller_learning_rate,
            "entropy_weight": config.entropy_weight,
        }
        given = {name: value for name, value in given.items() if value is not None}
        return search.reinforce(space, settings._replace(**given))
    if config.num_archs < 2:
        raise ValueError("--num-archs is 1; ASNG compares 2 or more architectures")
    return search.asng(space.cardinalities, config.alpha, config.init_delta)


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


def num_archs(config: Config) -> tuple[int, int]:
    """Architectures in a weight step, and in an update of the searcher."""
    return config.num_weight_archs or config.num_archs, config.num_archs


def make_objective(config: Config):
    """What the searcher minimises."""
    from jaxnas import train

    return train.mean_loss if config.objective == "loss" else train.error_rate


def run_search(experiment: Experiment, key):
    """The search itself; goes on from the folder's newest checkpoint."""
    from jaxnas import train

    config, splits = experiment.config, experiment.splits
    timetable = train.make_timetable(splits, config.batch_size, config.searcher_steps)
    num_weight_archs, num_search_archs = num_archs(config)
    test = experiment.dataset.test
    net = experiment.train_net
    provider = experiment.make_provider(net)
    epoch_metrics = None
    if config.weights == "ghn":
        epoch_metrics = hypernetworks.make_block_metrics(net, provider, net.space)
    return train.search(
        net,
        provider,
        experiment.searcher,
        train.classification(),
        optimizers.make_optimizer(config, timetable.weight_steps),
        splits,
        key=key,
        num_epochs=config.epochs,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        # What a random search has found first is no one's business.
        test=None if config.space == "dag" else test,
        num_weight_archs=num_weight_archs,
        num_search_archs=num_search_archs,
        searcher_steps=config.searcher_steps,
        objective=make_objective(config),
        augment_validation=config.augment_validation,
        batch_per_arch=config.batch_per_arch,
        shard=config.shard,
        devices=experiment.devices,
        workdir=experiment.folder,
        epoch_metrics=epoch_metrics,
    )


def make_evaluator(experiment: Experiment, provider):
    """The evaluation of the architectures that are searched."""
    from jaxnas import train

    return train.evaluator(
        experiment.net,
        provider,
        train.classification(),
        normalize=experiment.normalize,
        batch_size=experiment.config.batch_size,
        devices=experiment.devices,
    )


def draw_candidates(experiment: Experiment, result, key) -> list:
    """Architectures to rank: what the searcher proposes, of the network searched."""
    from jaxnas import search

    num = experiment.config.num_candidates
    if experiment.net is not experiment.train_net:
        searcher = search.random_search(experiment.net.space)
        return [*searcher.ask(searcher.init(key), key, num)]
    searcher = experiment.searcher
    return [result.arch, *searcher.ask(result.state.searcher, key, num)]


def train_finalists(experiment: Experiment, ranked: list, key) -> list[float]:
    """Train the best candidates from scratch; their validation accuracies, in order."""
    config, splits = experiment.config, experiment.splits
    results = train_from_scratch(
        experiment,
        [entry.arch for entry in ranked],
        splits.train,
        splits.validation,
        key=key,
        num_seeds=1,
        num_epochs=config.finalist_epochs,
        learning_rate=config.finalist_learning_rate,
        workdir=experiment.folder / "finalists",
    )
    for i, (line,) in enumerate(results, start=1):
        print(
            f"finalist {i} of {len(ranked)}: validation accuracy {line['accuracy']:.1%}"
        )
    return [line["accuracy"] for (line,) in results]


def compare_from_scratch(experiment: Experiment, found, random: list, key):
    """Train the found and random architectures with one budget.

    Returns:
      `report.ScratchComparison`, test accuracies after training on all images.
    """
    from jaxnas import analysis, report

    config, dataset = experiment.config, experiment.dataset
    results = train_from_scratch(
        experiment,
        [found, *random],
        dataset.train,
        dataset.test,
        key=key,
        num_seeds=config.scratch_seeds,
        num_epochs=config.scratch_epochs,
        learning_rate=config.scratch_learning_rate,
        workdir=experiment.scratch_folder,
    )
    accuracies = [[line["accuracy"] for line in of_arch] for of_arch in results]
    return report.ScratchComparison(
        config.scratch_epochs,
        accuracies[0],
        accuracies[1:],
        analysis.difference_from_random(accuracies[0], accuracies[1:]),
    )


def train_from_scratch(
    experiment: Experiment,
    archs: list,
    images_to_train,
    images_to_test,
    *,
    key,
    num_seeds: int,
    num_epochs: int,
    learning_rate: float,
    workdir: pathlib.Path,
):
    """`train.train_standalone` with SGD and one cosine of the learning rate."""
    from jaxnas import optim, train

    config = experiment.config
    steps_per_epoch = images.steps_per_epoch(images_to_train, config.batch_size)
    schedule = optim.cosine_by_epoch(learning_rate, num_epochs, steps_per_epoch)
    return train.train_standalone(
        experiment.net,
        train.classification(),
        optim.sgd(schedule),
        images_to_train,
        images_to_test,
        archs,
        key=key,
        num_seeds=num_seeds,
        num_steps=num_epochs * steps_per_epoch,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        devices=experiment.devices,
        workdir=workdir,
    )


def conclude(experiment: Experiment, result, key) -> None:
    """Rank candidates, compare the result with random ones, write and print."""
    import jax
    import jax.numpy as jnp

    from jaxnas import _files, genotypes, ghn, metrics, networks, report, train
    from jaxnas.report import drawing

    config, dataset, folder = experiment.config, experiment.dataset, experiment.folder
    space = experiment.net.space
    shape = dataset.train.images.shape[1:]
    params = result.state.weights.params
    provider = experiment.make_provider(experiment.net)
    if config.weights == "ghn":
        ghn.save(folder / "ghn.npz", params, provider)
    evaluate = functools.partial(make_evaluator(experiment, provider), params)

    @functools.cache
    def cost(genotype) -> networks.Cost:
        network = make_network(config, genotype, len(dataset.class_names))
        return networks.cost(network, shape)

    def candidate(name, arch, means, trained=None) -> report.Candidate:
        genotype = space.decode(arch)
        return report.Candidate(
            name,
            genotype,
            means["loss"],
            means["accuracy"],
            *cost(genotype),
            trained,
        )

    print("ranking candidates by the validation images", flush=True)
    ask_key, random_key, finalists_key, scratch_key = jax.random.split(key, 4)
    candidates = draw_candidates(experiment, result, ask_key)
    ranked = train.rank(
        evaluate,
        candidates,
        experiment.splits.validation,
        objective=make_objective(config),
        num_screening_images=config.screening_images or None,
        workdir=folder,
    )
    found = ranked[0].arch if config.select == "best" else result.arch
    trained: list[float | None] = [None] * len(ranked)
    if config.select == "trained":
        print("training the best candidates from scratch", flush=True)
        accuracies = train_finalists(experiment, ranked, finalists_key)
        found = ranked[accuracies.index(max(accuracies))].arch
        trained = [*accuracies]
    top = [
        candidate(
            "found" if (entry.arch == found).all() else f"candidate {entry.position}",
            entry.arch,
            entry.metrics,
            accuracy,
        )
        for entry, accuracy in zip(ranked, trained, strict=True)
    ]
    random_archs = draw_random(
        space, random_key, max(config.num_random, config.scratch_random)
    )
    means = evaluate(jnp.asarray(found), dataset.test)
    found_on_test = candidate("found", found, means)
    random = [
        candidate(f"random {i + 1}", arch, evaluate(arch, dataset.test))
        for i, arch in enumerate(random_archs[: config.num_random])
    ]
    # As many as random ones, so that the searcher is seen beside its best.
    sampled = [
        evaluate(arch, dataset.test)["accuracy"]
        for arch in candidates[-config.num_random :]
    ]
    genotype = found_on_test.genotype
    genotypes.save(folder / "genotype.json", genotype)
    scratch = None
    if config.scratch_random:
        print(
            f"training the found and {config.scratch_random} random architectures from "
            f"scratch, {config.scratch_seeds} seeds each",
            flush=True,
        )
        scratch = compare_from_scratch(
            experiment, found, random_archs[: config.scratch_random], scratch_key
        )
        _files.write_json(folder / "scratch.json", scratch._asdict(), indent=1)
    rows = [
        entry._replace(genotype=entry.genotype._asdict())._asdict() for entry in top
    ]
    _files.write_json(folder / "candidates.json", rows, indent=1)
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
        scratch=scratch,
        sampled_accuracies=sampled,
        ranked_by=config.objective,
        uniform_level=statistics.fmean(1 / c for c in space.cardinalities),
    )
    print(
        f"\nfound: {genotypes.to_text(genotype)}\n"
        f"{report.scratch_text(scratch)}\n"
        f"with the search's weights, which only rank architectures: test loss "
        f"{found_on_test.loss:.3f}, accuracy {found_on_test.accuracy:.1%}\n"
        f"For a network to use, train it:\n"
        f"  {training_command(config, folder / 'genotype.json')}\n"
        f"report: {folder / 'report.html'}"
    )


def draw_random(space, key, num: int) -> list:
    """Random architectures; of a larger number, the first are the same."""
    import jax
    import numpy as np

    sample = jax.jit(lambda i: space.sample(jax.random.fold_in(key, i)))
    return [np.asarray(sample(i)) for i in range(num)]


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
