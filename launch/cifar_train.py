"""Train the network of one genotype from scratch.

Without more arguments than --genotype: a small network on scikit-learn's digits. The
folder of the run gets genotype.json, report.html, metrics.jsonl and checkpoints; the
same command again goes on where it stopped.
"""

import dataclasses
import pathlib

import command_line
import images
from presets.cifar_train import PRESETS, Config

# A run may go on in another place or on another number of devices.
MAY_DIFFER = ("workdir", "data_dir", "devices", "genotype")


def main() -> None:
    """Train, evaluate, report."""
    preset, config = command_line.parse(PRESETS, __doc__)

    import jax

    from jaxnas import genotypes, metrics, networks, parallel, report, train, workdir
    from jaxnas.report import drawing

    with command_line.wrong_input():
        genotype = find_genotype(config.genotype)
        devices = parallel.local_devices(config.devices)
        parallel.share(config.batch_size, len(devices), "batch_size")
        dataset = images.load(config)
        augment, normalize = images.preprocessing(config, dataset)
        image_shape = dataset.train.images.shape[1:]
        size = config.num_cells, len(dataset.class_names), config.cell_output
        channels = config.channels or networks.largest_channels(
            genotype, config.params_limit, *size, image_channels=image_shape[-1]
        )
        network = networks.micro(
            genotype,
            channels,
            config.num_cells,
            len(dataset.class_names),
            auxiliary=config.auxiliary,
            cell_output=config.cell_output,
            count_include_pad=config.count_include_pad,
            batch_axis=parallel.batch_axis(devices),
        )
        num_params, flops = networks.cost(network, image_shape)
        environment = workdir.environment(devices)
        folder = workdir.prepare(
            config.workdir or pathlib.Path("runs") / f"cifar_train-{preset}",
            dataclasses.asdict(config)
            | {"cells": genotype, "channels": channels, "source": dataset.source},
            environment,
            may_differ=MAY_DIFFER,
        )
        genotypes.save(folder / "genotype.json", genotype)

    print(
        f"{dataset.source}; {environment['device']}; folder {folder}\n"
        f"{channels} channels, {num_params / 1e6:.3f} M parameters, "
        f"{flops / 1e6:.1f} M FLOPs an image",
        flush=True,
    )
    steps_per_epoch = dataset.train.labels.size // config.batch_size
    result = train.retrain(
        network,
        train.classification(config.auxiliary_weight),
        make_optimizer(config, steps_per_epoch),
        dataset.train,
        key=jax.random.key(config.seed),
        num_epochs=config.epochs,
        batch_size=config.batch_size,
        augment=augment,
        normalize=normalize,
        test=dataset.test,
        max_drop_path_prob=config.drop_path,
        devices=devices,
        workdir=folder,
    )
    report.train_report(
        folder / "report.html",
        title=f"Training on {dataset.name}",
        summary={
            "data": dataset.source,
            "network": f"{channels} channels, {num_params:,} parameters, "
            f"{flops / 1e6:,.1f} M FLOPs an image",
            "seed": str(config.seed),
        }
        | environment,
        config=dataclasses.asdict(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(genotype, title="Cells"),
    )
    print(
        f"\ntest accuracy {result.test['accuracy']:.2%}, error "
        f"{1 - result.test['accuracy']:.2%}, loss {result.test['loss']:.4f} after the "
        f"last of {config.epochs} epochs, one seed\nreport: {folder / 'report.html'}"
    )


def find_genotype(name_or_path: str):
    """The genotype of a file, or a published one."""
    from jaxnas import genotypes

    if not name_or_path:
        raise ValueError(
            "--genotype is missing: expected a file, such as the genotype.json of a "
            f"search, or one of {', '.join(genotypes.NAMES)}"
        )
    if name_or_path in genotypes.NAMES:
        return genotypes.named(name_or_path)
    if not pathlib.Path(name_or_path).exists():
        raise ValueError(
            f"--genotype {name_or_path} is neither a file nor one of "
            f"{', '.join(genotypes.NAMES)}"
        )
    return genotypes.load(name_or_path)


def make_optimizer(config: Config, steps_per_epoch: int):
    """The optax chain of a configuration."""
    from jaxnas import optim

    if config.schedule == "restarts":
        schedule = optim.warm_restarts(
            config.learning_rate,
            config.learning_rate / 50,
            10 * steps_per_epoch,
            2,
            config.epochs * steps_per_epoch,
        )
    else:
        schedule = optim.cosine_by_epoch(
            config.learning_rate, config.epochs, steps_per_epoch
        )
    if config.optimizer == "adam":
        return optim.adam(schedule, clip_norm=config.clip_norm)
    return optim.sgd(
        schedule,
        momentum=config.momentum,
        nesterov=config.optimizer == "nesterov",
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )


if __name__ == "__main__":
    command_line.run(main)
