"""Study how predictors of accuracy rank architectures (Graph HyperNetworks, 4.3).

Random architectures are trained one by one; their accuracies are compared with scores
from a few steps of SGD (in trainings of their own), from shared weights, and from a
hypernetwork. Without arguments: a small study on scikit-learn's digits. The folder of
the run gets scores.json and report.html; the same command again continues where it
stopped.
"""

import math
import pathlib
import textwrap
from typing import Any

import hypernetworks
import images
import session
from presets.ghn_correlation import PRESETS, Config

PREDICTORS = ("sgd", "one-shot", "ghn")
# More architectures, predictors or seeds may be added, in other folders and devices.
MAY_DIFFER = (
    *(*session.RUN_MAY_DIFFER, "data_dir", "standalone_dir", "num_resamples"),
    *("predictors", "num_architectures", "sgd_steps"),
    *("standalone_seeds", "one_shot_seeds", "ghn_seeds"),
)
# What the accuracies of trained architectures depend on, besides the data.
TRUTH_SETTINGS = (
    *("dataset", "image_size", "max_images", "crop_padding", "crop_fill", "flip"),
    *("cutout", "seed"),
    *("num_nodes", "node_input", "channels", "num_blocks", "batch_size"),
    *("validation_images", "standalone_epochs"),
    *("sgd_learning_rate", "momentum", "weight_decay", "clip_norm"),
)


def main() -> None:
    """Train architectures, score them by every predictor, correlate, report."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)
    images.announce(experiment.dataset, experiment.environment, experiment.folder)
    session.show(config, experiment.folder)
    from jaxnas import studies

    study = studies.correlation(**experiment.arguments, workdir=experiment.folder)
    report_results(experiment, study)


def prepare(preset: str, config: Config) -> session.Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    import jax

    from jaxnas import parallel, studies, train, workdir

    predictors = config.predictors
    if not predictors or len(set(predictors)) < len(predictors):
        raise ValueError(
            f"--predictors is {' '.join(predictors)!r}; expected one or more, each once"
        )
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
    schedule = train.search_schedule(study_images.splits, config.batch_size, 0)
    steps_per_epoch = schedule.weight_steps
    num_steps = config.standalone_epochs * steps_per_epoch
    sgd_steps = list(session.check_ascending("--sgd-steps", config.sgd_steps))
    if "sgd" in predictors and not (sgd_steps and sgd_steps[-1] <= num_steps):
        raise ValueError(
            f"--sgd-steps is {' '.join(map(str, sgd_steps))!r}; expected one or more, "
            f"at most {num_steps}, the steps of the whole training"
        )
    make_ghn_optimizer(config, steps_per_epoch)
    net = make_supernet(config, config.num_nodes, dataset)
    hypernetworks.make_hypernetwork(config.hypernetwork, net)
    keys = jax.random.split(jax.random.key(config.run.seed), 5)
    archs_key, standalone_key, sgd_key, one_shot_key, ghn_key = keys
    if config.num_architectures > net.space.num_architectures:
        raise ValueError(
            f"--num-architectures is {config.num_architectures}, but the space has "
            f"only {net.space.num_architectures}"
        )
    archs = studies.sample_distinct(net.space, archs_key, config.num_architectures)
    environment = workdir.environment(devices)
    flags = session.flags(config) | images.identity(dataset)
    folder = workdir.prepare(
        config.run.workdir or pathlib.Path("runs") / f"ghn_correlation-{preset}",
        flags,
        environment,
        ignored_keys=MAY_DIFFER,
    )
    standalone_folder = workdir.prepare(
        config.standalone_dir or folder / "standalone",
        {name: flags[name] for name in ("images", *TRUTH_SETTINGS)},
        environment,
        shared=True,
    )
    make_predictor = {
        "sgd": lambda: studies.EarlyScores(sgd_steps, sgd_key),
        "one-shot": lambda: one_shot(config, net, steps_per_epoch, one_shot_key),
        "ghn": lambda: hypernetwork(config, net, dataset, steps_per_epoch, ghn_key),
    }
    arguments = {
        "net": net,
        "images": study_images,
        "archs": archs,
        "predictors": [
            make_predictor[name]() for name in PREDICTORS if name in predictors
        ],
        "optimizer": make_sgd(config, config.standalone_epochs, steps_per_epoch),
        "key": standalone_key,
        "num_steps": num_steps,
        "num_seeds": config.standalone_seeds,
        "num_resamples": config.num_resamples,
        "resampling_seed": config.run.seed,
        "standalone_dir": standalone_folder,
    }
    return session.Experiment(config, dataset, arguments, folder, environment)


def one_shot(config: Config, net, steps_per_epoch: int, key):
    """Scores with shared weights."""
    from jaxnas import studies, weights

    provider = weights.shared(net)
    return studies.TrainedWeights(
        "One-shot",
        "one-shot",
        provider,
        net,
        provider,
        make_sgd(config, config.one_shot_epochs, steps_per_epoch),
        config.one_shot_epochs,
        key,
        config.one_shot_seeds,
    )


def hypernetwork(config: Config, net, dataset, steps_per_epoch: int, key):
    """Scores with the weights of a hypernetwork, which is trained on smaller blocks."""
    from jaxnas import studies

    train_net = make_supernet(config, config.num_train_nodes, dataset)
    train_provider = hypernetworks.make_hypernetwork(config.hypernetwork, train_net)
    return studies.TrainedWeights(
        "GHN",
        "ghn",
        hypernetworks.make_hypernetwork(config.hypernetwork, net),
        train_net,
        train_provider,
        make_ghn_optimizer(config, steps_per_epoch),
        config.epochs,
        key,
        config.ghn_seeds,
        num_archs=config.meta_batch,
        are_generated=True,
        epoch_metrics=hypernetworks.make_block_metrics(
            train_net, train_provider, train_net.space
        ),
    )


def make_supernet(config: Config, num_nodes: int, dataset):
    """The network of a configuration, with blocks of so many nodes."""
    from jaxnas import spaces, supernets

    return supernets.dag(
        spaces.ghn_dag(num_nodes),
        config.channels,
        config.num_blocks,
        dataset.num_classes,
        node_input=config.node_input,
        image_channels=dataset.train.images.shape[-1],
    )


def make_ghn_optimizer(config: Config, steps_per_epoch: int):
    """Adam whose learning rate is halved now and then."""
    from jaxnas import optim

    boundaries = session.check_ascending("--halved-at", config.halved_at)
    schedule = optim.step_decay(
        config.learning_rate, 0.5, list(boundaries), steps_per_epoch
    )
    return optim.adam(schedule, clip_norm=config.clip_norm or None)


def make_sgd(config: Config, num_epochs: int, steps_per_epoch: int):
    """Optimizer of single architectures and shared weights."""
    from jaxnas import optim

    return optim.sgd(
        optim.cosine_by_epoch(config.sgd_learning_rate, num_epochs, steps_per_epoch),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm or None,
    )


def report_results(experiment: session.Experiment, study) -> None:
    """Write scores.json and report.html, and print the correlations."""
    from jaxnas import _files, report

    config, folder = experiment.config, experiment.folder
    results = summarize(experiment.arguments["archs"], study)
    _files.write_json(folder / "scores.json", results)
    # The last predictor, which is the hypernetwork if it is there, with the others.
    last = f"{study.predictors[-1].name} minus "
    differences = [row for row in study.differences if row.name.startswith(last)]
    flags = session.flags(config)
    names = (*hypernetworks.SETTINGS, "num_train_nodes", "meta_batch", "epochs")
    report.correlation_report(
        folder / "report.html",
        title=f"How well scores rank architectures: {experiment.dataset.name}",
        summary={"data": experiment.dataset.source, "seed": str(config.run.seed)}
        | experiment.environment,
        config=flags,
        settings={name: flags[name] for name in names},
        standalone=study.standalone,
        predictors=study.predictors,
        ceiling=study.ceiling,
        differences=differences,
        num_diverged=study.num_diverged,
    )
    text = as_text(study, differences)
    session.conclude(f"\n{text}\nreport: {folder / 'report.html'}")


def summarize(archs: list, study) -> dict[str, Any]:
    """The results as JSON can hold them."""
    accuracies = study.standalone.mean(0)

    def finite(correlation) -> dict[str, float | None]:
        return {
            name: None if math.isnan(value) else value
            for name, value in correlation._asdict().items()
        }

    def coefficients(row) -> dict[str, Any]:
        return {
            "all": {name: finite(c) for name, c in row.overall.items()},
            "top_half": {name: finite(c) for name, c in row.top.items()},
        }

    return {
        "architectures": [arch.tolist() for arch in archs],
        "standalone": {
            "mean": float(accuracies.mean()),
            "std": float(accuracies.std(ddof=1)),
            "num_diverged": study.num_diverged,
            "test_accuracy": accuracies.tolist(),
            "test_accuracy_by_seed": study.standalone.tolist(),
        },
        "noise_ceiling": None if study.ceiling is None else coefficients(study.ceiling),
        "predictors": {
            predictor.name: coefficients(predictor)
            | {
                "preparation_seconds": predictor.preparation_seconds,
                "weights_seconds": predictor.weights_seconds,
                "evaluation_seconds": predictor.evaluation_seconds,
                "num_diverged": predictor.num_diverged,
                "validation_accuracy_by_seed": predictor.scores.tolist(),
            }
            for predictor in study.predictors
        },
        "differences": {row.name: coefficients(row) for row in study.differences},
    }


def as_text(study, differences: list) -> str:
    """The results as tables for the terminal."""
    from jaxnas import analysis, report

    standalone, predictors = study.standalone, study.predictors
    rows = [*predictors, *([] if study.ceiling is None else [study.ceiling])]
    half = (standalone.shape[1] + 1) // 2
    lines = [textwrap.fill(report.standalone_text(standalone), 88)]
    for note, compared in (
        ("correlation of scores with it", rows),
        ("differences", differences),
    ):
        if not compared:
            continue
        for title, place in (
            (f"{note}, all architectures:", "overall"),
            (f"{note}, the {half} with the best accuracy after training:", "top"),
        ):
            found = {row.name: getattr(row, place) for row in compared}
            cells = [
                [name, *(report.coefficient_text(c) for c in coefficients.values())]
                for name, coefficients in found.items()
            ]
            lines += ["", title, *aligned([["", *analysis.COEFFICIENTS], *cells])]

    def seconds(value: float | None, digits: int) -> str:
        return "-" if value is None else format(value, f",.{digits}f")

    costs = [
        [
            predictor.name,
            seconds(predictor.preparation_seconds, 1),
            seconds(predictor.weights_seconds, 3),
            seconds(predictor.evaluation_seconds, 3),
        ]
        for predictor in predictors
    ]
    titles = ["", "preparation", "weights of one", "and validation"]
    lines += ["", "seconds, without compilation:", *aligned([titles, *costs]), ""]
    notes = report.correlation_notes(standalone, predictors, study.num_diverged)
    notes += [report.DIFFERENCES_NOTE] if differences else []
    return "\n".join([*lines, *(textwrap.fill(note, 88) for note in notes)])


def aligned(rows: list[list[str]]) -> list[str]:
    """Columns as wide as they must be, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(
            [f"{first:<{widths[0]}}"]
            + [f"{cell:>{w}}" for cell, w in zip(rest, widths[1:], strict=True)]
        )
        for first, *rest in rows
    ]


if __name__ == "__main__":
    session.run(main)
