"""Train the language model of one recurrent cell from scratch.

Without more arguments than --genotype: on a made-up language. The folder of the run
gets genotype.json, result.json, sample.txt, report.html, metrics.jsonl and checkpoints;
the same command again continues where it stopped.
"""

import os
import pathlib
import re

import architectures
import session
import texts
from presets.ptb_train import PRESETS

# A run may go on in another place or on another number of devices.
MAY_DIFFER = (*session.RUN_MAY_DIFFER, "data_dir", "genotype", "sample_words")


def main() -> None:
    """Train, evaluate, write, report."""
    preset, config = session.parse(PRESETS, __doc__)

    import jax

    from jaxnas import (
        _files,
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

    with session.usage_errors():
        genotype = find_cell(config.genotype)
        devices = parallel.local_devices(config.run.devices)
        parallel.per_device_size(config.training.batch_size, len(devices), "batch_size")
        dataset = texts.load(config.texts)
        reading = config.training.reading()
        steps = texts.check_read(dataset, reading, config.validation_batch_size)
        network = networks.recurrent(
            genotype, dataset.num_words, **config.model.arguments()
        )
        key, sample_key = jax.random.split(jax.random.key(config.run.seed))
        training = studies.LanguageTraining(
            lambda _: network,
            config.training.make_optimizer(steps),
            train.LanguageTrainingSettings(
                config.training.epochs,
                reading,
                config.patience,
                config.validation_batch_size,
            ),
            key,
        )
        num_params = networks.count_params(network)
        environment = workdir.environment(devices)
        folder = workdir.prepare(
            config.run.workdir or pathlib.Path("runs") / f"ptb_train-{preset}",
            session.flags(config)
            | {"architecture": genotype}
            | texts.identity(dataset),
            environment,
            ignored_keys=MAY_DIFFER,
        )
        genotypes.save(folder / "genotype.json", genotype)

    session.announce(data.describe_text(dataset), environment, folder)
    session.show(config, folder)
    print(f"{num_params:,} parameters", flush=True)
    result, perplexities = studies.train_language_model(
        training, dataset, genotype, devices=devices, workdir=folder
    )
    sample = studies.sample_text(
        train.language_model_of(network),
        result.params,
        dataset.vocabulary,
        key=sample_key,
        num_words=config.sample_words,
    )
    _files.write_text(folder / "sample.txt", sample)
    content = {"perplexity": perplexities, "epoch": result.epoch, "params": num_params}
    _files.write_json(folder / "result.json", content, indent=1)
    report.language_model_report(
        folder / "report.html",
        title=f"Language model of {dataset.name}",
        summary={
            "data": dataset.source,
            "parameters": f"{num_params:,}",
            "seed": str(config.run.seed),
        }
        | environment,
        config=session.flags(config),
        history=metrics.read(folder / "metrics.jsonl"),
        drawing=drawing.genotype_svg(genotype, title="Cell"),
        perplexities=perplexities,
        epoch=result.epoch,
        sample=sample,
    )
    session.conclude(
        f"\nperplexity: validation text {perplexities['validation']:.2f}, test text "
        f"{perplexities['test']:.2f}; each read in one row, with the parameters after "
        f"epoch {result.epoch} of {config.training.epochs}, which has the lowest "
        f"validation loss; one seed\nreport: {folder / 'report.html'}"
    )


def find_cell(given: str):
    """The recurrent cell that `--genotype` names."""
    from jaxnas import genotypes

    # Integers may be an architecture of another space as well.
    is_script = re.fullmatch(r"[\s\d,()\[\]]+", given) and not os.path.exists(given)
    if is_script:
        is_enas = len(re.findall(r"\d+", given)) % 2
        read = genotypes.from_enas_recurrent if is_enas else genotypes.from_enas_lm
        try:
            return read(given)
        except ValueError as error:
            raise ValueError(
                f"--genotype {architectures.shown(given)} is no recurrent cell: {error}"
            ) from error
    return architectures.find_of_kind(
        given, genotypes.RECURRENT_NAMES, genotypes.RecurrentGenotype, "ptb_search.py"
    )


if __name__ == "__main__":
    session.run(main)
