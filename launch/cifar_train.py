"""Train the network of one genotype from scratch.

Without more arguments than --genotype: a small network on scikit-learn's digits. The
folder of the run gets genotype.json, report.html, metrics.jsonl, checkpoints and the
trained network in network.safetensors, with which predict.py names the classes of
images; the same command again continues where it stopped.
"""

import math
import pathlib

import architectures
import images
import optimizers
import session
from presets.cifar_train import PRESETS, Config, DagImagenet

# A run may go on in another place or on another number of devices.
MAY_DIFFER = (*session.RUN_MAY_DIFFER, "data_dir", "genotype")

# Bytes of decoded images above which those of a folder are read while training.
STREAM_ABOVE = 2**30

# Data sets that can be read while training, and where they lie.
STREAMED = {
    "imagenet": "a folder with train/CLASS and val/CLASS or a TFDS folder with "
    "imagenet2012",
    "folder": "a folder with train/CLASS and test/CLASS, or with the classes",
}

# What goes around a genotype, by its class.
NETWORKS = {
    "Genotype": "nasnet or enas, as in most presets",
    "MacroGenotype": "macro, as in --preset quick-enas-macro or enas-macro-cifar10",
    "DagGenotype": "dag or dag-imagenet, as in --preset quick-ghn or ghn-cifar10",
}


def main() -> None:
    """Train, evaluate, report."""
    preset, config = session.parse(PRESETS, __doc__)

    import jax

    from jaxnas import (
        data,
        genotypes,
        metrics,
        networks,
        parallel,
        report,
        studies,
        train,
        workdir,
    )
    from jaxnas.report import drawing

    training = config.training
    with session.usage_errors():
        genotype = architectures.find_genotype(config.genotype)
        check_network(config, genotype)
        devices = parallel.local_devices(config.run.devices)
        parallel.per_device_size(training.batch_size, len(devices), "batch_size")
        dataset = load(config)
        steps_per_epoch = images.steps_per_epoch(dataset.train, training.batch_size)
        augment, normalize = images.preprocessing(config.images, dataset)
        pipeline = train.InputPipeline(training.batch_size, augment, normalize, devices)
        image_shape = dataset.train.image_shape
        network = make_network(
            config,
            genotype,
            dataset.num_classes,
            image_shape=image_shape,
            batch_axis=parallel.batch_axis(devices),
        )
        channels = network.channels
        optimizer = optimizers.make_optimizer(training, steps_per_epoch)
        num_params, flops = networks.cost(network, image_shape)
        environment = workdir.environment(devices)
        folder = workdir.prepare(
            config.run.workdir or pathlib.Path("runs") / f"cifar_train-{preset}",
            session.flags(config)
            | {"architecture": genotype, "channels": channels}
            | images.identity(dataset),
            environment,
            ignored_keys=MAY_DIFFER,
        )
        genotypes.save(folder / "genotype.json", genotype)

    images.announce(dataset, environment, folder)
    session.show(config, folder)
    print(
        f"{channels} channels, {num_params / 1e6:.3f} M parameters, "
        f"{flops / 1e6:.1f} M FLOPs an image",
        flush=True,
    )
    try:
        result = train.train_from_scratch(
            network,
            train.classification(config.network.auxiliary_weight),
            optimizer,
            dataset.train,
            pipeline,
            key=jax.random.key(config.run.seed),
            num_epochs=training.epochs,
            test=dataset.test,
            drop_path=train.DropPath(
                config.network.drop_path, config.network.drop_path_growth
            ),
            precision=config.precision,
            workdir=folder,
        )
        trained = studies.trained_network(network, result.state, dataset, result.test)
        tested = studies.classifier_results(
            trained, dataset.test, batch_size=training.batch_size
        )
    except data.DatasetError as error:  # an image that is read while training
        raise session.UsageError(str(error)) from error
    network_file = folder / networks.FILE_NAME
    networks.save(network_file, trained)
    report.train_report(
        folder / "report.html",
        title=f"Training on {dataset.name}",
        summary={
            "data": dataset.source,
            "network": f"{channels} channels, {num_params:,} parameters, "
            f"{flops / 1e6:,.1f} M FLOPs an image",
            "seed": str(config.run.seed),
        }
        | environment,
        config=session.flags(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(genotype, title="Architecture"),
        classifier=tested,
    )
    session.conclude(
        f"\ntest accuracy {result.test['accuracy']:.2%}, error "
        f"{1 - result.test['accuracy']:.2%}, loss {result.test['loss']:.4f} after the "
        f"last of {training.epochs} epochs, one seed\n"
        f"{report.classifier_text(tested)}\n"
        f"report: {folder / 'report.html'}\n"
        f"network: {network_file}",
        test_accuracy=result.test["accuracy"],
        test_loss=result.test["loss"],
        calibration_error=tested.metrics.calibration_error,
    )


def load(config: Config):
    """The data set of the settings: in memory, or read while training."""
    from jaxnas import data

    given, name = config.images, config.images.dataset
    check_stream(config)
    automatic = name == "folder" and config.stream == "auto"
    if automatic and not is_large(given):
        return images.load(given)
    if name not in STREAMED or config.stream == "never":
        return images.load(given)
    if given.data_dir is None:
        raise ValueError(f"--dataset {name} needs --data-dir, {STREAMED[name]}")
    if given.max_images is not None:
        raise ValueError(
            f"--max-images is {given.max_images}, which has no effect on images that "
            "are read while training"
        )
    return data.stream(
        given.data_dir,
        image_size=given.image_size or 224,
        name=name,
        skip_corrupt=given.skip_corrupt,
    )


def check_stream(config: Config) -> None:
    """Refuse --stream for a data set that is read in one way only."""
    name = config.images.dataset
    if config.stream == "always" and name not in STREAMED:
        raise ValueError(
            f"--stream is always, but the data set is {name}; expected "
            f"{' or '.join(STREAMED)}"
        )
    if config.stream == "never" and name == "imagenet":
        raise ValueError("--stream is never; expected auto or always for imagenet")


def is_large(given: images.Images) -> bool:
    """Whether the images of a folder are better read while training."""
    from jaxnas import data

    if given.data_dir is None or given.image_size is None or given.max_images:
        return False
    found = data.stream(given.data_dir, image_size=given.image_size, name="folder")
    num_images = found.train.num_images + found.test.num_images
    return num_images * math.prod(found.train.image_shape) > STREAM_ABOVE


def check_network(config: Config, genotype) -> None:
    """Refuse what does not fit the genotype."""
    given, kind = f"--genotype {config.genotype}", type(genotype).__name__
    if kind not in NETWORKS:
        raise ValueError(
            f"{given} is a {kind}; expected two cells, a macro genotype or a block"
        )
    if kind != config.network.genotype_kind:
        raise ValueError(
            f"{given} is a {kind}, but the network is "
            f"{session.choice_name(config.network)}; expected {NETWORKS[kind]}"
        )
    sized = config.channels or config.flops_limit
    if isinstance(config.network, DagImagenet) and not sized:
        raise ValueError(
            "the network dag-imagenet needs --channels or --flops-limit to tell its "
            "width"
        )
    if config.network.drop_path >= 1:
        raise ValueError(
            f"--drop-path is {config.network.drop_path}; expected less than 1"
        )


def make_network(
    config: Config,
    genotype,
    num_classes: int,
    *,
    image_shape: tuple[int, int, int],
    batch_axis: str | None,
):
    """The network of the settings, as wide as they say or as their limit allows."""
    from jaxnas import networks

    def of_width(channels: int):
        return config.network(genotype, channels, num_classes, batch_axis)

    if config.channels is not None:
        return of_width(config.channels)
    if config.flops_limit is not None:
        return of_width(
            networks.channels_for_flops(of_width, config.flops_limit, image_shape)
        )
    return of_width(
        networks.channels_for_budget(of_width, config.params_limit, image_shape)
    )


if __name__ == "__main__":
    session.run(main)
