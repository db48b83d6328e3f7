"""Train the network of one genotype from scratch.

Without more arguments than --genotype: a small network on scikit-learn's digits. The
folder of the run gets genotype.json, report.html, metrics.jsonl and checkpoints; the
same command again goes on where it stopped.
"""

import dataclasses
import pathlib

import architectures
import command_line
import images
import optimizers
from presets.cifar_train import PRESETS, Config, enas_macro_cifar10, ghn_cifar10

# A run may go on in another place or on another number of devices.
MAY_DIFFER = ("workdir", "data_dir", "devices", "genotype")

FOR_CELLS = ("separable", "cell_output", "count_include_pad", "stem_stride")
# What a network knows nothing of, and a preset that leaves it alone.
WITHOUT_EFFECT = {
    "nasnet": (("separable",), Config()),
    "enas": (("separable",), Config()),
    "macro": (
        (
            "num_cells",
            "cell_output",
            "count_include_pad",
            "stem_stride",
            "auxiliary",
            "auxiliary_weight",
            "drop_path",
            "drop_path_growth",
        ),
        enas_macro_cifar10(),
    ),
    "dag": (FOR_CELLS, ghn_cifar10()),
    "dag-imagenet": (FOR_CELLS, ghn_cifar10()),
}


def main() -> None:
    """Train, evaluate, report."""
    preset, config = command_line.parse(PRESETS, __doc__)

    import jax

    from jaxnas import (
        data,
        genotypes,
        metrics,
        networks,
        parallel,
        report,
        train,
        workdir,
    )
    from jaxnas.report import drawing

    with command_line.wrong_input():
        genotype = architectures.find_genotype(config.genotype)
        check_flags(config, genotype)
        devices = parallel.local_devices(config.devices)
        parallel.share(config.batch_size, len(devices), "batch_size")
        dataset = load(config)
        steps_per_epoch = images.steps_per_epoch(dataset.train, config.batch_size)
        augment, normalize = images.preprocessing(config, dataset)
        image_shape = dataset.train.image_shape
        network = make_network(
            config,
            genotype,
            len(dataset.class_names),
            image_shape=image_shape,
            batch_axis=parallel.batch_axis(devices),
        )
        channels = network.channels
        num_params, flops = networks.cost(network, image_shape)
        optimizer = optimizers.make_optimizer(config, steps_per_epoch)
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

    command_line.announce(dataset.source, environment, folder)
    print(
        f"{channels} channels, {num_params / 1e6:.3f} M parameters, "
        f"{flops / 1e6:.1f} M FLOPs an image",
        flush=True,
    )
    try:
        result = train.retrain(
            network,
            train.classification(config.auxiliary_weight),
            optimizer,
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
    except data.DatasetError as error:  # an image that is read while training
        raise command_line.WrongInput(str(error)) from error
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


def load(config: Config):
    """The data set of a configuration, in memory unless it is as large as ImageNet."""
    from jaxnas import data

    if config.dataset != "imagenet":
        return images.load(config)
    if config.data_dir is None:
        raise ValueError(
            "--dataset imagenet needs --data-dir, a folder with train/CLASS and "
            "val/CLASS or a TFDS folder with imagenet2012"
        )
    if config.max_images is not None:
        raise ValueError(
            f"--max-images is {config.max_images}, which has no effect with --dataset "
            "imagenet"
        )
    return data.stream(config.data_dir, image_size=config.image_size or 224)


def check_flags(config: Config, genotype) -> None:
    """Refuse what does not fit the genotype or the network around it."""
    from jaxnas import genotypes

    given = f"--genotype {config.genotype}"
    kinds = {
        genotypes.Genotype: (
            "has two cells",
            ("nasnet", "enas"),
            "nasnet or enas, as in the other presets",
        ),
        genotypes.MacroGenotype: (
            "is a macro genotype",
            ("macro",),
            "macro, as in the presets quick-enas-macro and enas-macro-cifar10",
        ),
        genotypes.DagGenotype: (
            "is a block",
            ("dag", "dag-imagenet"),
            "dag or dag-imagenet, as in the presets quick-ghn and ghn-cifar10",
        ),
    }
    if type(genotype) not in kinds:
        raise ValueError(
            f"{given} is a {type(genotype).__name__}; expected two cells, a macro "
            "genotype or a block"
        )
    what, fitting, expected = kinds[type(genotype)]
    if config.network not in fitting:
        raise ValueError(
            f"{given} {what}, but --network is {config.network}; expected {expected}"
        )
    fields, without = WITHOUT_EFFECT[config.network]
    idle = [f for f in fields if getattr(config, f) != getattr(without, f)]
    if idle:
        values = (f"{name} {getattr(config, name)}" for name in idle)
        raise ValueError(
            f"the setting {', '.join(values)} has no effect with --network "
            f"{config.network}; leave it out, or choose a preset for this network"
        )
    decays = config.schedule in ("exponential", "steps")
    if not decays and config.decay != Config.decay:
        raise ValueError(
            f"--decay is {config.decay}, but --schedule is {config.schedule}; expected "
            "exponential or steps"
        )
    if config.network == "dag-imagenet" and not (config.channels or config.flops_limit):
        raise ValueError(
            "--network dag-imagenet needs --channels or --flops-limit to tell its width"
        )
    if config.drop_path >= 1:
        raise ValueError(f"--drop-path is {config.drop_path}; expected less than 1")


def make_network(
    config: Config,
    genotype,
    num_classes: int,
    *,
    image_shape: tuple[int, int, int],
    batch_axis: str | None,
):
    """The network of a configuration, as wide as it says or as its limit allows."""
    from jaxnas import networks

    def of_width(channels: int):
        common = {"dropout": config.dropout, "batch_axis": batch_axis}
        if config.network == "macro":
            return networks.macro(
                genotype, channels, num_classes, separable=config.separable, **common
            )
        size = channels, config.num_cells, num_classes
        if config.network in ("dag", "dag-imagenet"):
            skeleton = "cifar" if config.network == "dag" else "imagenet"
            return networks.dag(
                genotype,
                *size,
                skeleton=skeleton,
                auxiliary=config.auxiliary,
                **common,
            )
        return networks.micro(
            genotype,
            *size,
            skeleton=config.network,
            auxiliary=config.auxiliary,
            cell_output=config.cell_output,
            count_include_pad=config.count_include_pad,
            stem_stride=config.stem_stride,
            **common,
        )

    if config.channels is not None:
        return of_width(config.channels)
    if config.flops_limit is not None:
        return of_width(
            networks.largest_channels_for_flops(
                of_width, config.flops_limit, image_shape
            )
        )
    return of_width(
        networks.largest_channels(of_width, config.params_limit, image_shape)
    )


if __name__ == "__main__":
    command_line.run(main)
