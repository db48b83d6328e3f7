"""Train the network of one genotype from scratch.

Without more arguments than --genotype: a small network on scikit-learn's digits. The
folder of the run gets genotype.json, report.html, metrics.jsonl and checkpoints; the
same command again goes on where it stopped.
"""

import dataclasses
import pathlib

import command_line
import images
import optimizers
from presets.cifar_train import PRESETS, Config, enas_macro_cifar10

# A run may go on in another place or on another number of devices.
MAY_DIFFER = ("workdir", "data_dir", "devices", "genotype")

CELLS_ONLY = (
    "num_cells",
    "cell_output",
    "count_include_pad",
    "auxiliary",
    "auxiliary_weight",
    "drop_path",
    "drop_path_growth",
)


def main() -> None:
    """Train, evaluate, report."""
    preset, config = command_line.parse(PRESETS, __doc__)

    import jax

    from jaxnas import genotypes, metrics, networks, parallel, report, train, workdir
    from jaxnas.report import drawing

    with command_line.wrong_input():
        genotype = find_genotype(config.genotype)
        check_flags(config, genotype)
        devices = parallel.local_devices(config.devices)
        parallel.share(config.batch_size, len(devices), "batch_size")
        dataset = images.load(config)
        steps_per_epoch = dataset.train.labels.size // config.batch_size
        if steps_per_epoch == 0:
            raise ValueError(
                f"--batch-size is {config.batch_size}, but there are only "
                f"{dataset.train.labels.size} images"
            )
        augment, normalize = images.preprocessing(config, dataset)
        image_shape = dataset.train.images.shape[1:]
        network = make_network(
            config,
            genotype,
            len(dataset.class_names),
            image_channels=image_shape[-1],
            batch_axis=parallel.batch_axis(devices),
        )
        channels = network.channels
        num_params, flops = networks.cost(network, image_shape)
        environment = workdir.environment(devices)
        folder = workdir.prepare(
            config.workdir or pathlib.Path("runs") / f"cifar_train-{preset}",
            dataclasses.asdict(config)
            | {
                "architecture": genotype,
                "channels": channels,
                "source": dataset.source,
            },
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
    result = train.retrain(
        network,
        train.classification(config.auxiliary_weight),
        optimizers.make_optimizer(config, steps_per_epoch),
        dataset.train,
        key=jax.random.key(config.seed),
        num_epochs=config.epochs,
        batch_size=config.batch_size,
        augment=augment,
        normalize=normalize,
        test=dataset.test,
        max_drop_path_prob=config.drop_path,
        drop_path_growth=config.drop_path_growth,
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
        drawing=drawing.genotype_svg(genotype, title="Architecture"),
    )
    print(
        f"\ntest accuracy {result.test['accuracy']:.2%}, error "
        f"{1 - result.test['accuracy']:.2%}, loss {result.test['loss']:.4f} after the "
        f"last of {config.epochs} epochs, one seed\nreport: {folder / 'report.html'}"
    )


def find_genotype(name_or_path: str):
    """The genotype of a file, or a published one."""
    from jaxnas import genotypes

    names = *genotypes.NAMES, *genotypes.MACRO_NAMES
    if not name_or_path:
        raise ValueError(
            "--genotype is missing: expected a file, such as the genotype.json of a "
            f"search, or one of {', '.join(names)}"
        )
    others = *genotypes.RECURRENT_NAMES, *genotypes.DAG_NAMES
    if name_or_path in (*names, *others):
        return genotypes.named(name_or_path)
    if not pathlib.Path(name_or_path).exists():
        raise ValueError(
            f"--genotype {name_or_path} is neither a file nor one of {', '.join(names)}"
        )
    return genotypes.load(name_or_path)


def check_flags(config: Config, genotype) -> None:
    """Refuse what does not fit the genotype or the network around it."""
    from jaxnas import genotypes

    given = f"--genotype {config.genotype}"
    if not isinstance(genotype, genotypes.Genotype | genotypes.MacroGenotype):
        raise ValueError(
            f"{given} is a {type(genotype).__name__}; expected two cells or a macro "
            "genotype"
        )
    if isinstance(genotype, genotypes.MacroGenotype) and config.network != "macro":
        raise ValueError(
            f"{given} is a macro genotype, but --network is {config.network}; expected "
            "macro, as in the presets quick-enas-macro and enas-macro-cifar10"
        )
    if isinstance(genotype, genotypes.Genotype) and config.network == "macro":
        raise ValueError(
            f"{given} has two cells, but --network is macro; expected nasnet or enas, "
            "as in the other presets"
        )
    if config.network == "macro":
        without = enas_macro_cifar10()
        idle = [f for f in CELLS_ONLY if getattr(config, f) != getattr(without, f)]
    else:
        idle = [] if config.separable else ["separable"]
    if idle:
        values = (f"{name} {getattr(config, name)}" for name in idle)
        raise ValueError(
            f"the setting {', '.join(values)} has no effect with --network "
            f"{config.network}; leave it out, or choose a preset for this network"
        )
    if config.drop_path >= 1:
        raise ValueError(f"--drop-path is {config.drop_path}; expected less than 1")


def make_network(
    config: Config, genotype, num_classes: int, *, image_channels: int, batch_axis
):
    """The network of a configuration, as wide as it says or as its limit allows."""
    from jaxnas import networks

    is_macro = config.network == "macro"
    skeleton = "nasnet" if config.network == "macro" else config.network
    channels = config.channels or networks.largest_channels(
        genotype,
        config.params_limit,
        config.num_cells,
        num_classes,
        config.cell_output,
        image_channels,
        skeleton=skeleton,
        separable=config.separable,
    )
    if is_macro:
        return networks.macro(
            genotype,
            channels,
            num_classes,
            separable=config.separable,
            dropout=config.dropout,
            batch_axis=batch_axis,
        )
    return networks.micro(
        genotype,
        channels,
        config.num_cells,
        num_classes,
        skeleton=skeleton,
        auxiliary=config.auxiliary,
        dropout=config.dropout,
        cell_output=config.cell_output,
        count_include_pad=config.count_include_pad,
        batch_axis=batch_axis,
    )


if __name__ == "__main__":
    command_line.run(main)
