"""Find, train and compare networks that classify your own images.

Looks at the images, searches for a cell, trains the network of the found cells from
scratch beside one of random cells and a plain residual network, and reports on all of
them. The folder of the run gets report.html, summary.json, genotype.json and the
trained network in network.safetensors, which predict.py takes; the same command again
continues where it stopped.
"""

import dataclasses
import pathlib
import re
import shlex
from typing import NamedTuple

import images
import session
from presets.image_classifier import PRESETS, Config, Photographs

# A run may go on in another place or on another number of devices.
MAY_DIFFER = (*session.RUN_MAY_DIFFER, "data_dir", "time_budget")

SECONDS = {"s": 1, "m": 60, "h": 3600}

# The flags of each plan: size and length.
PLANS = {
    "search_plan": ("search_channels", "search_cells", "search_epochs"),
    "training_plan": ("channels", "cells", "train_epochs"),
}


class Settings(NamedTuple):
    """Settings of the images, as given or proposed, and why."""

    images: images.Images
    batch_size: int
    reasons: list[str]


def main() -> None:
    """Look, plan, search, train, report."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)
    folder, dataset = experiment.folder, experiment.dataset
    images.announce(dataset, experiment.environment, folder)
    session.show(config, folder)
    print("\n".join(experiment.arguments["reasons"]), flush=True)

    import jax

    from jaxnas import networks, studies

    try:
        study = studies.image_classifier(
            experiment.arguments["images"],
            key=jax.random.key(config.run.seed),
            workdir=folder,
            seconds=seconds_of(config.time_budget),
            num_seeds=config.seeds,
            num_candidates=config.num_candidates,
            **given_plans(config),
        )
    except studies.TimeBudgetError as error:
        text = f"--time-budget is {config.time_budget}: {error}"
        raise session.UsageError(text) from error
    for one in study.trained:
        networks.save(folder / one.name / networks.FILE_NAME, one.trained[0])
    write_report(experiment, study)
    print_result(experiment, study)


def prepare(preset: str, config: Config) -> session.Experiment:
    """Look at the images, load them, and settle what is not given."""
    from jaxnas import parallel, workdir

    seconds_of(config.time_budget)
    given_plans(config)
    devices = parallel.local_devices(config.run.devices)
    settings = propose(config.images, devices[0].platform)
    dataset = images.load(settings.images)
    parallel.per_device_size(settings.batch_size, len(devices), "batch_size")
    study_images = images.study_images(
        settings.images,
        dataset,
        num_validation=-(-dataset.train.num_images // 2),
        batch_size=settings.batch_size,
        devices=devices,
    )
    environment = workdir.environment(devices)
    flags = session.flags(config) | session.flags(settings.images)
    flags |= {"batch_size": settings.batch_size}
    folder = workdir.prepare(
        config.run.workdir or pathlib.Path("runs") / f"image_classifier-{preset}",
        flags | images.identity(dataset),
        environment,
        ignored_keys=MAY_DIFFER,
    )
    arguments = {"images": study_images, "reasons": settings.reasons, "flags": flags}
    return session.Experiment(config, dataset, arguments, folder, environment)


def seconds_of(time_budget: str) -> float:
    """The seconds of 90s, 30m or 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", time_budget)
    if found is None or float(found[1]) == 0:
        raise session.UsageError(
            f"--time-budget is {time_budget!r}; expected a positive number and its "
            "unit, such as 90s, 30m or 2h"
        )
    return float(found[1]) * SECONDS[found[2]]


def given_plans(config: Config) -> dict:
    """The plans that the flags make, where they make them whole."""
    from jaxnas import studies

    plans = {}
    for name, flags in PLANS.items():
        values = [getattr(config, flag) for flag in flags]
        given = [value is not None for value in values]
        if all(given):
            channels, num_cells, num_epochs = values
            size = studies.ClassifierSize(channels, num_cells)
            plans[name] = studies.ClassifierPlan(size, num_epochs)
        elif any(given):
            names = ", ".join(f"--{flag.replace('_', '-')}" for flag in flags)
            raise session.UsageError(f"some of {names} are given; expected all or none")
    return plans


def propose(config: Photographs, platform: str) -> Settings:
    """Settle what is not given by what the images look like."""
    from jaxnas import data

    first = images.Images(
        dataset=config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        skip_corrupt=config.skip_corrupt,
        max_images=config.max_images,
        cutout=0,
    )
    if config.dataset == "folder" and config.data_dir is not None:
        survey = data.survey_folder(config.data_dir)
    else:
        survey = data.survey(images.load(first))
    largest = config.max_image_size or (32 if platform == "cpu" else 64)
    proposal = data.propose(survey, max_image_size=largest)
    if config.dataset != "folder":
        size = survey.widths.median
        own = {
            "image_size": "that of the data set",
            "crop_padding": f"an eighth of {size} pixels, as is usual on CIFAR",
        }
        proposal = proposal._replace(
            image_size=size,
            crop_padding=size // 8,
            reasons=dict(proposal.reasons) | own,
        )
    chosen, reasons = {}, []
    for name, reason in proposal.reasons.items():
        given = getattr(config, name)
        if name == "flip" and given is not None:
            given = given == "yes"
        chosen[name] = getattr(proposal, name) if given is None else given
        flag = f"--{name.replace('_', '-')}"
        value = {True: "yes", False: "no"}.get(chosen[name], chosen[name])
        why = "as given" if given is not None else reason
        reasons.append(f"{flag} {value}: {why}")
    batch_size = chosen.pop("batch_size")
    return Settings(dataclasses.replace(first, **chosen), batch_size, reasons)


def write_report(experiment: session.Experiment, study) -> None:
    """Write the report on all networks."""
    import statistics

    from jaxnas import data, metrics, report, studies

    folder, dataset = experiment.folder, experiment.dataset
    space = studies.classifier_space()
    report.image_classifier_report(
        folder / "report.html",
        title=f"Networks for {dataset.name}",
        summary={"data": dataset.source, "seed": str(experiment.config.run.seed)}
        | experiment.environment,
        config=experiment.arguments["flags"],
        data_text=[
            *data.survey_text(data.survey(dataset)).splitlines(),
            *experiment.arguments["reasons"],
        ],
        study=study,
        search_history=metrics.read(folder / "search" / "metrics.jsonl"),
        histories={
            trained.name: metrics.read(
                folder / trained.name / "seed-0" / "metrics.jsonl"
            )
            for trained in study.trained
        },
        uniform_level=statistics.fmean(1 / c for c in space.cardinalities),
    )


def print_result(experiment: session.Experiment, study) -> None:
    """Print how the networks compare, and the command that uses one."""
    from jaxnas import networks, report

    folder = experiment.folder
    network = folder / "found" / networks.FILE_NAME
    session.conclude(
        f"\n{report.image_classifier_text(study)}\n"
        f"Classes of other images:\n"
        f"  python launch/predict.py {shlex.quote(str(network))} IMAGES\n"
        f"report: {folder / 'report.html'}",
        **{
            f"{one.name}_test_accuracy": one.results[0].metrics.accuracy.value
            for one in study.trained
        },
    )


if __name__ == "__main__":
    session.run(main)
