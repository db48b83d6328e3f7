"""Search for a network that predicts at any time (Graph HyperNetworks, section 4.2).

A hypernetwork is trained on random networks with exits. Of many candidates, the one
with the largest area under its predicted curve of accuracy over computation is trained
from scratch, and so are random ones, as networks with running statistics: their
accuracies are those of one image at a time. Without arguments: in small, on
scikit-learn's digits. The folder of the run gets genotype.json, networks.json and
report.html, and a folder for each training below networks/; the same command again
continues where it stopped.
"""

import pathlib
import statistics

import hypernetworks
import images
import session
from presets.anytime_search import PRESETS, Config

# A run may go on in another place or on another number of devices.
MAY_DIFFER = (*session.RUN_MAY_DIFFER, "data_dir")


def main() -> None:
    """Train a hypernetwork, rank candidates, train the best one, compare, report."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)
    images.announce(experiment.dataset, experiment.environment, experiment.folder)
    session.show(config, experiment.folder)
    from jaxnas import studies

    networks = studies.anytime(**experiment.arguments, workdir=experiment.folder)
    report_results(experiment, networks)


def prepare(preset: str, config: Config) -> session.Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    import jax

    from jaxnas import optim, parallel, spaces, studies, supernets, train, workdir

    devices = parallel.local_devices(config.run.devices)
    parallel.per_device_size(config.batch_size, len(devices), "batch_size")
    dataset = images.load(config.images)
    study_images = images.study_images(
        config.images,
        dataset,
        num_validation=config.validation_images,
        batch_size=config.batch_size,
        devices=devices,
    )
    search_schedule = train.search_schedule(study_images.splits, config.batch_size, 0)
    sizes = config.num_nodes, config.num_exits
    space = spaces.anytime(*sizes, config.density)
    train_space = spaces.anytime(*sizes, config.density, min_nodes=config.min_nodes)
    net = supernets.anytime(
        space,
        config.channels,
        dataset.num_classes,
        image_channels=dataset.train.images.shape[-1],
    )
    keys = jax.random.split(jax.random.key(config.run.seed), 4)
    ghn_key, candidates_key, random_key, training_key = keys
    provider = hypernetworks.make_hypernetwork(config.hypernetwork, net)
    learning_rate = schedule(
        config.learning_rate, 0.5, config.epochs, search_schedule.weight_steps
    )
    hypernetwork = studies.HypernetworkTraining(
        provider,
        train_space,
        optim.adam(learning_rate, clip_norm=config.clip_norm or None),
        config.epochs,
        ghn_key,
        num_archs=config.meta_batch,
        epoch_metrics=hypernetworks.make_block_metrics(net, provider, train_space),
    )
    arguments = {
        "net": net,
        "images": study_images,
        "candidates": draw(space, candidates_key, config.num_candidates),
        "random": draw(space, random_key, config.num_random),
        "hypernetwork": hypernetwork,
        "training": network_training(config, dataset, devices, training_key),
        "channels": config.channels,
        "budget": config.budget,
    }
    environment = workdir.environment(devices)
    folder = workdir.prepare(
        config.run.workdir or pathlib.Path("runs") / f"anytime_search-{preset}",
        session.flags(config) | images.identity(dataset),
        environment,
        ignored_keys=MAY_DIFFER,
    )
    return session.Experiment(config, dataset, arguments, folder, environment)


def network_training(config: Config, dataset, devices: list, key):
    """Training from scratch of the found network and of random ones."""
    from jaxnas import networks, optim, parallel, studies

    def make_network(genotype):
        return networks.anytime(
            genotype,
            config.channels,
            dataset.num_classes,
            batch_axis=parallel.batch_axis(devices),
        )

    steps_per_epoch = images.steps_per_epoch(dataset.train, config.batch_size)
    optimizer = optim.sgd(
        schedule(config.final_learning_rate, 0.1, config.final_epochs, steps_per_epoch),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm or None,
    )
    return studies.NetworkTraining(
        make_network, optimizer, config.final_epochs, key, config.final_seeds
    )


def draw(space, key, num: int) -> list:
    """Random architectures."""
    import jax
    import numpy as np

    sample = jax.jit(jax.vmap(space.sample))
    return list(np.asarray(sample(jax.random.split(key, num))))


def schedule(peak: float, factor: float, num_epochs: int, steps_per_epoch: int):
    """Multiplied by a factor after a half and after three quarters of the epochs."""
    from jaxnas import optim

    boundaries = sorted({num_epochs // 2, 3 * num_epochs // 4} - {0})
    return optim.step_decay(peak, factor, boundaries, steps_per_epoch)


def report_results(experiment: session.Experiment, networks: list) -> None:
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
        summary={"data": experiment.dataset.source, "seed": str(config.run.seed)}
        | experiment.environment,
        config=session.flags(config),
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
    session.conclude(
        f"\nfound: {genotypes.to_text(found.genotype)}\n"
        f"its exits: multiply-adds (M), test accuracy with generated weights (in "
        f"batches of {config.batch_size}), trained (image by image)\n"
        f"{exits}\n"
        f"area up to {config.budget / 1e6:,.3g} M: {area:.1%}{spread} after training, "
        f"{report.number_of(config.final_seeds, 'seed')} each; random networks "
        f"{statistics.fmean(random_areas):.1%} on average, {min(random_areas):.1%} to "
        f"{max(random_areas):.1%}; better than "
        f"{sum(other < area for other in random_areas)} of {len(random_areas)}\n"
        f"report: {folder / 'report.html'}"
    )


if __name__ == "__main__":
    session.run(main)
