"""Train one autoencoder from scratch to restore images.

Without more arguments than --genotype: on scikit-learn's digits without their center.
The folder of the run gets genotype.json, report.html, metrics.jsonl and checkpoints;
the same command again continues where it stopped.
"""

import pathlib

import architectures
import images
import inpainting
import optimizers
import session
from presets.inpaint_train import PRESETS

# A run may go on in another place or on another number of devices.
MAY_DIFFER = (*session.RUN_MAY_DIFFER, "data_dir", "genotype")


def main() -> None:
    """Train, evaluate, restore, report."""
    preset, config = session.parse(PRESETS, __doc__)

    import jax

    from jaxnas import (
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
        genotype = find_autoencoder(config.genotype)
        devices = parallel.local_devices(config.run.devices)
        parallel.per_device_size(training.batch_size, len(devices), "batch_size")
        dataset = images.load(config.images)
        inpainting.check_images(dataset)
        steps_per_epoch = images.steps_per_epoch(dataset.train, training.batch_size)
        pipeline = train.InputPipeline(
            training.batch_size,
            *images.preprocessing(config.images, dataset, normalize=False),
            devices,
        )
        network = networks.autoencoder(genotype)
        optimizer = optimizers.make_optimizer(training, steps_per_epoch)
        task = config.missing.task()
        num_params, flops = networks.cost(network, dataset.train.image_shape)
        environment = workdir.environment(devices)
        folder = workdir.prepare(
            config.run.workdir or pathlib.Path("runs") / f"inpaint_train-{preset}",
            session.flags(config)
            | {"architecture": genotype}
            | images.identity(dataset),
            environment,
            ignored_keys=MAY_DIFFER,
        )
        genotypes.save(folder / "genotype.json", genotype)

    size = f"{num_params / 1e6:.3f} M parameters, {flops / 1e6:.1f} M FLOPs an image"
    images.announce(dataset, environment, folder)
    session.show(config, folder)
    print(size, flush=True)
    result = train.train_from_scratch(
        network,
        task,
        optimizer,
        dataset.train,
        pipeline,
        key=jax.random.key(config.run.seed),
        num_epochs=training.epochs,
        test=dataset.test,
        workdir=folder,
    )
    restorations = studies.restore(
        network, result.state.params, task, dataset.test, pipeline
    )
    report.restoration_report(
        folder / "report.html",
        title=f"Restoring {dataset.name}",
        summary={
            "data": dataset.source,
            "missing": config.missing.mask,
            "network": size,
            "seed": str(config.run.seed),
        }
        | environment,
        config=session.flags(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(genotype, title="Architecture"),
        test=result.test,
        restorations=restorations,
    )
    session.conclude(
        f"\ntest {inpainting.describe(result.test)} after the last of "
        f"{training.epochs} epochs, one seed\n"
        f"report: {folder / 'report.html'}"
    )


def find_autoencoder(given: str):
    """The autoencoder that `--genotype` names."""
    from jaxnas import genotypes

    return architectures.find_of_kind(
        given,
        genotypes.AUTOENCODER_NAMES,
        genotypes.AutoencoderGenotype,
        "inpaint_search.py",
    )


if __name__ == "__main__":
    session.run(main)
