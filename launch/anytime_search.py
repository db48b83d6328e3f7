"""Search for a network that predicts at any time (Graph HyperNetworks, section 4.2).

A hypernetwork is trained on random networks with exits. Of many candidates, the one
with the largest area under its predicted curve of accuracy over computation is trained
from scratch, and so are random ones, as networks with running statistics: their
accuracies are those of one image at a time. Without arguments: in small, on
scikit-learn's digits. The folder of the run gets genotype.json, networks.json and
report.html, and a folder for each training below networks/; the same command again
goes on where it stopped.
"""

import dataclasses
import functools
import hashlib
import pathlib
import statistics
from typing import Any, NamedTuple

import command_line
import hypernetworks
import images
from presets.anytime_search import PRESETS, Config

# A run may go on in another place or on another number of devices.
MAY_DIFFER = ("workdir", "data_dir", "devices")


class Keys(NamedTuple):
    """What is random in each part."""

    hypernetwork: Any
    candidates: Any
    random: Any
    training: Any


class Experiment(NamedTuple):
    """Everything a search needs."""

    config: Config
    devices: list
    dataset: Any
    splits: Any
    net: Any
    training_space: Any
    provider: Any
    augment: Any
    normalize: Any
    keys: Keys
    candidates: list
    random: list
    folder: pathlib.Path
    environment: dict[str, str]


def main() -> None:
    """Train a hypernetwork, rank candidates, train the best one, compare, report."""
    preset, config = command_line.parse(PRESETS, __doc__)
    with command_line.wrong_input():
        experiment = prepare(preset, config)
    command_line.announce(
        experiment.dataset.source, experiment.environment, experiment.folder
    )
    params = functools.cache(lambda: train_hypernetwork(experiment))
    found = select(experiment, params)
    conclude(experiment, compare(experiment, params, [found, *experiment.random]))


def prepare(preset: str, config: Config) -> Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    import jax

    from jaxnas import parallel, spaces, supernets, train, workdir

    devices = parallel.local_devices(config.devices)
    parallel.share(config.batch_size, len(devices), "batch_size")
    dataset = images.load(config)
    study_images = images.study_images(
        config, dataset, config.validation_images, devices
    )
    splits, augment = study_images.splits, study_images.augment
    train.make_timetable(splits, config.batch_size, 0)
    sizes = (
        three("--num-nodes", config.num_nodes),
        three("--num-exits", config.num_exits),
    )
    fewest = three("--min-nodes", config.min_nodes)
    space = spaces.anytime(*sizes, config.density)
    net = supernets.anytime(
        space,
        config.channels,
        len(dataset.class_names),
        image_channels=dataset.train.images.shape[-1],
    )
    keys = Keys(*jax.random.split(jax.random.key(config.seed), len(Keys._fields)))
    environment = workdir.environment(devices)
    folder = workdir.prepare(
        config.workdir or pathlib.Path("runs") / f"anytime_search-{preset}",
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
        spaces.anytime(*sizes, config.density, min_nodes=fewest),
        hypernetworks.make_hypernetwork(config, net),
        augment,
        study_images.normalize,
        keys,
        draw(space, keys.candidates, config.num_candidates),
        draw(space, keys.random, config.num_random),
        folder,
        environment,
    )


def draw(space, key, num: int) -> list:
    """Random architectures."""
    import jax
    import numpy as np

    sample = jax.jit(jax.vmap(space.sample))
    return list(np.asarray(sample(jax.random.split(key, num))))


def three(flag: str, text: str) -> tuple[int, ...]:
    """The three numbers between commas."""
    words = [word.strip() for word in text.split(",")]
    if len(words) != 3 or not all(word.isdecimal() for word in words):
        raise ValueError(f"{flag} is {text!r}; expected three numbers with commas")
    return tuple(map(int, words))


def schedule(peak: float, factor: float, num_epochs: int, steps_per_epoch: int):
    """Multiplied by a factor after a half and after three quarters of the epochs."""
    from jaxnas import optim

    boundaries = sorted({num_epochs // 2, 3 * num_epochs // 4} - {0})
    return optim.step_decay(peak, factor, boundaries, steps_per_epoch)


def train_hypernetwork(experiment: Experiment):
    """Train on random networks; goes on from the folder's newest checkpoint."""
    from jaxnas import optim, search, train

    config, splits = experiment.config, experiment.splits
    steps_per_epoch = train.make_timetable(splits, config.batch_size, 0).weight_steps
    learning_rate = schedule(config.learning_rate, 0.5, config.epochs, steps_per_epoch)
    result = train.search(
        experiment.net,
        experiment.provider,
        search.random_search(experiment.training_space),
        train.multi_exit_classification(),
        optim.adam(learning_rate, clip_norm=config.clip_norm or None),
        splits,
        key=experiment.keys.hypernetwork,
        num_epochs=config.epochs,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        num_weight_archs=config.meta_batch,
        num_search_archs=1,
        searcher_steps=0,
        devices=experiment.devices,
        workdir=experiment.folder / "ghn",
        description="ghn",
        epoch_metrics=hypernetworks.make_block_metrics(
            experiment.net, experiment.provider, experiment.training_space
        ),
    )
    return result.state.weights.params


def make_evaluator(experiment: Experiment, provider):
    """The evaluation that all accuracies come from."""
    from jaxnas import train

    return train.evaluator(
        experiment.net,
        provider,
        train.multi_exit_classification(),
        normalize=experiment.normalize,
        batch_size=experiment.config.batch_size,
        devices=experiment.devices,
    )


def exit_costs(experiment: Experiment, arch):
    """Multiply-adds for one image until each exit."""
    from jaxnas import analysis

    return analysis.exit_costs(
        experiment.net.space.decode(arch),
        experiment.config.channels,
        len(experiment.dataset.class_names),
        experiment.dataset.train.images.shape[1:],
    )


def select(experiment: Experiment, params):
    """The candidate with the largest area by the validation images."""
    from jaxnas import analysis, metrics, train

    evaluate = make_evaluator(experiment, experiment.provider)
    candidates = experiment.candidates

    def measure(i: int) -> dict[str, float]:
        return evaluate(params(), candidates[i], experiment.splits.validation)

    lines = metrics.measure_missing(
        experiment.folder / "candidates.jsonl",
        candidates,
        measure,
        description="rank",
    )
    areas = [
        analysis.area_under_accuracy_flops(
            exit_costs(experiment, arch),
            train.exit_accuracies(line),
            experiment.config.budget,
        )
        for arch, line in zip(candidates, lines, strict=True)
    ]
    print(
        f"predicted area of {len(areas)} candidates: {statistics.fmean(areas):.1%} on "
        f"average, {max(areas):.1%} at best",
        flush=True,
    )
    return candidates[areas.index(max(areas))]


def compare(experiment: Experiment, params, archs: list) -> list:
    """Train networks with weights of their own; test them, and the generated ones.

    Generated weights are tested in the way candidates are selected: normalised by the
    statistics of every batch, so that an image's answer depends on its batch.
    """
    from jaxnas import metrics, report, train

    names = ["found", *(f"random {i}" for i in range(1, len(archs)))]
    test = experiment.dataset.test
    evaluate_generated = make_evaluator(experiment, experiment.provider)

    def measure(i: int) -> dict[str, float]:
        genotype = experiment.net.space.decode(archs[i])
        parts = {"predicted": evaluate_generated(params(), archs[i], test)} | {
            f"trained_{seed}": means
            for seed, means in enumerate(train_network(experiment, genotype, names[i]))
        }
        return {
            f"{part}/{name}": value
            for part, means in parts.items()
            for name, value in means.items()
        }

    def network(name: str, arch, line: dict[str, float]) -> report.AnytimeNetwork:
        def accuracies(part: str) -> list[float]:
            prefix = f"{part}/"
            return train.exit_accuracies(
                {
                    key.removeprefix(prefix): value
                    for key, value in line.items()
                    if key.startswith(prefix)
                }
            )

        return report.AnytimeNetwork(
            name,
            experiment.net.space.decode(arch),
            exit_costs(experiment, arch),
            accuracies("predicted"),
            [
                accuracies(f"trained_{seed}")
                for seed in range(experiment.config.final_seeds)
            ],
        )

    lines = metrics.measure_missing(experiment.folder / "trained.jsonl", archs, measure)
    return list(map(network, names, archs, lines))


def train_network(experiment: Experiment, genotype, name: str) -> list[dict]:
    """Train one network from scratch, once for each seed; returns its test metrics.

    Each training has a folder, named by the architecture and the seed, which together
    determine the result: whether it is the first found or the third at random does not.
    """
    import jax

    from jaxnas import genotypes, networks, optim, parallel, train

    config, dataset = experiment.config, experiment.dataset
    steps_per_epoch = images.steps_per_epoch(dataset.train, config.batch_size)
    run = train.retrainer(
        networks.anytime(
            genotype,
            config.channels,
            len(dataset.class_names),
            batch_axis=parallel.batch_axis(experiment.devices),
        ),
        train.multi_exit_classification(),
        optim.sgd(
            schedule(
                config.final_learning_rate, 0.1, config.final_epochs, steps_per_epoch
            ),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm or None,
        ),
        dataset.train,
        num_epochs=config.final_epochs,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        test=dataset.test,
        devices=experiment.devices,
    )
    digest = hashlib.sha256(genotypes.to_text(genotype).encode()).hexdigest()
    folder = experiment.folder / "networks" / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    genotypes.save(folder / "genotype.json", genotype)

    def train_seed(seed: int) -> dict[str, float]:
        result = run(
            jax.random.fold_in(experiment.keys.training, seed),
            workdir=folder / f"seed_{seed}",
            description=name if config.final_seeds == 1 else f"{name}, seed {seed}",
        )
        print(
            f"{name} trained, seed {seed}: test accuracy "
            f"{result.test['accuracy']:.1%} at the last exit",
            flush=True,
        )
        return result.test

    return [train_seed(seed) for seed in range(config.final_seeds)]


def conclude(experiment: Experiment, networks: list) -> None:
    """Write and print what was found."""
    from jaxnas import _files, genotypes, metrics, report
    from jaxnas.report import drawing

    config, folder = experiment.config, experiment.folder
    found, *random = networks
    genotypes.save(folder / "genotype.json", found.genotype)
    rows = [
        network._asdict()
        | {"genotype": network.genotype._asdict(), "flops": list(network.flops)}
        for network in networks
    ]
    _files.write_json(folder / "networks.json", rows, indent=1)
    report.anytime_report(
        folder / "report.html",
        title=f"Anytime prediction on {experiment.dataset.name}",
        summary={"data": experiment.dataset.source, "seed": str(config.seed)}
        | experiment.environment,
        config=dataclasses.asdict(config),
        history=metrics.read(folder / "ghn" / "metrics.jsonl"),
        drawing=drawing.genotype_svg(found.genotype, title="Found network"),
        found=found,
        random=random,
        budget=config.budget,
    )
    areas = [network.trained_areas(config.budget) for network in networks]
    area, *random_areas = (statistics.fmean(values) for values in areas)
    spread = f" (+-{statistics.stdev(areas[0]):.1%})" if len(areas[0]) > 1 else ""
    exits = "\n".join(
        f"{flops / 1e6:>14,.3f} {predicted:>14.1%} {trained:>14.1%}"
        for flops, predicted, trained in zip(
            found.flops,
            found.predicted,
            map(statistics.fmean, zip(*found.trained, strict=True)),
            strict=True,
        )
    )
    print(
        f"\nfound: {genotypes.to_text(found.genotype)}\n"
        f"its exits: multiply-adds (M), test accuracy with generated weights (in "
        f"batches of {config.batch_size}), trained (image by image)\n"
        f"{exits}\n"
        f"area up to {config.budget / 1e6:,.3g} M: {area:.1%}{spread} after training, "
        f"{number_of(config.final_seeds, 'seed')} each; random networks "
        f"{statistics.fmean(random_areas):.1%} on average, {min(random_areas):.1%} to "
        f"{max(random_areas):.1%}; better than "
        f"{sum(other < area for other in random_areas)} of {len(random_areas)}\n"
        f"report: {folder / 'report.html'}"
    )


def number_of(count: int, noun: str) -> str:
    """A number of things in words, such as `1 seed` and `2 seeds`."""
    return f"{count} {noun}{'s' * (count != 1)}"


if __name__ == "__main__":
    command_line.run(main)
