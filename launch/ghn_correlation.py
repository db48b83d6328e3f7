"""Study how well cheap scores rank architectures (Graph HyperNetworks, section 4.3).

Random architectures are trained one by one; their accuracies are compared with scores
from a few steps of SGD, from shared weights, and from a hypernetwork. Without
arguments: a small study on scikit-learn's digits. The folder of the run gets
scores.json and report.html; the same command again goes on where it stopped.
"""

import dataclasses
import functools
import itertools
import json
import math
import pathlib
import statistics
from typing import Any, NamedTuple

import command_line
import hypernetworks
import images
import measurements
from presets.ghn_correlation import PRESETS, Config

METHODS = ("sgd", "one-shot", "ghn")
SCORE_KEYS = ("accuracy", "weights_seconds", "seconds")
# More architectures or methods may be added, in another place, on other devices.
MAY_DIFFER = (
    *("workdir", "data_dir", "devices", "truth_dir"),
    *("methods", "num_architectures", "num_resamples"),
)
# What the accuracies of trained architectures depend on, besides the data.
TRUTH_SETTINGS = (
    *("dataset", "image_size", "max_images", "crop_padding", "flip", "cutout", "seed"),
    *("num_nodes", "node_input", "channels", "num_blocks", "batch_size"),
    *("validation_images", "truth_epochs", "sgd_steps"),
    *("sgd_learning_rate", "momentum", "weight_decay", "clip_norm"),
)


class Keys(NamedTuple):
    """What is random in each part."""

    archs: Any
    truth: Any
    one_shot: Any
    ghn: Any


class Experiment(NamedTuple):
    """Everything a study needs."""

    config: Config
    methods: list[str]
    sgd_steps: list[int]
    devices: list
    dataset: Any
    splits: Any
    net: Any
    providers: dict[str, Any]
    augment: Any
    normalize: Any
    keys: Keys
    archs: list
    folder: pathlib.Path
    truth_folder: pathlib.Path
    environment: dict[str, str]


def main() -> None:
    """Train architectures, score them by every method, correlate, report."""
    preset, config = command_line.parse(PRESETS, __doc__)
    with command_line.wrong_input():
        experiment = prepare(preset, config)
    command_line.announce(
        experiment.dataset.source, experiment.environment, experiment.folder
    )
    truth = measure_truth(experiment)
    scores = {name: score(experiment, truth, name) for name in experiment.methods}
    conclude(experiment, truth, [m for found in scores.values() for m in found])


def prepare(preset: str, config: Config) -> Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    import jax

    from jaxnas import parallel, train, weights, workdir

    methods = command_line.listed(config.methods)
    if not methods or any(m not in METHODS or methods.count(m) > 1 for m in methods):
        raise ValueError(
            f"--methods is {config.methods!r}; expected some of {', '.join(METHODS)}, "
            "each at most once"
        )
    devices = parallel.local_devices(config.devices)
    parallel.share(config.batch_size, len(devices), "batch_size")
    dataset = images.load(config)
    augment, normalize = images.preprocessing(config, dataset)
    splits = images.hold_out(dataset.train, config.validation_images)
    steps_per_epoch = train.make_timetable(splits, config.batch_size, 0).weight_steps
    num_steps = config.truth_epochs * steps_per_epoch
    sgd_steps = command_line.ascending("--sgd-steps", config.sgd_steps)
    if sgd_steps and sgd_steps[-1] >= num_steps:
        raise ValueError(
            f"--sgd-steps is {config.sgd_steps!r}; expected less than {num_steps}, the "
            "steps of the whole training"
        )
    make_ghn_optimizer(config, steps_per_epoch)
    net = make_supernet(config, config.num_nodes, dataset)
    keys = Keys(*jax.random.split(jax.random.key(config.seed), len(Keys._fields)))
    providers = {
        "one-shot": weights.shared(net),
        "ghn": hypernetworks.make_hypernetwork(config, net),
    }
    archs = draw(net.space, keys.archs, config.num_architectures)
    environment = workdir.environment(devices)
    folder = workdir.prepare(
        config.workdir or pathlib.Path("runs") / f"ghn_correlation-{preset}",
        dataclasses.asdict(config) | {"source": dataset.source},
        environment,
        may_differ=MAY_DIFFER,
    )
    truth_folder = workdir.prepare(
        config.truth_dir or folder / "truth",
        {name: getattr(config, name) for name in TRUTH_SETTINGS}
        | {"source": dataset.source},
        environment,
    )
    return Experiment(
        config,
        methods,
        [*sgd_steps, num_steps],
        devices,
        dataset,
        splits,
        net,
        providers,
        augment,
        normalize,
        keys,
        archs,
        folder,
        truth_folder,
        environment,
    )


def make_supernet(config: Config, num_nodes: int, dataset):
    """The network of a configuration, with blocks of so many nodes."""
    from jaxnas import spaces, supernets

    return supernets.dag(
        spaces.ghn_dag(num_nodes),
        config.channels,
        config.num_blocks,
        len(dataset.class_names),
        node_input=config.node_input,
        image_channels=dataset.train.images.shape[-1],
    )


def make_ghn_optimizer(config: Config, steps_per_epoch: int):
    """Adam whose learning rate is halved now and then."""
    from jaxnas import optim

    boundaries = command_line.ascending("--halved-at", config.halved_at)
    schedule = optim.step_decay(config.learning_rate, 0.5, boundaries, steps_per_epoch)
    return optim.adam(schedule, clip_norm=config.clip_norm)


def make_sgd(config: Config, num_epochs: int, steps_per_epoch: int):
    """What trains single architectures and shared weights."""
    from jaxnas import optim

    return optim.sgd(
        optim.cosine_by_epoch(config.sgd_learning_rate, num_epochs, steps_per_epoch),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )


def draw(space, key, num: int) -> list:
    """Different random architectures; of a larger number, the first are the same."""
    import jax
    import numpy as np

    if num > space.num_architectures:
        raise ValueError(
            f"--num-architectures is {num}, but the space has only "
            f"{space.num_architectures}"
        )
    sample = jax.jit(lambda i: space.sample(jax.random.fold_in(key, i)))
    numbers, distinct = itertools.count(), {}
    while len(distinct) < num:
        arch = np.asarray(sample(next(numbers)))
        distinct.setdefault(arch.tobytes(), arch)
    return list(distinct.values())


def measure_truth(experiment: Experiment) -> list[dict[str, float]]:
    """Train every architecture by itself, evaluating it on the way and in the end."""
    import jax

    from jaxnas import train

    config, splits, archs = experiment.config, experiment.splits, experiment.archs
    *_, num_steps = experiment.sgd_steps
    fit = train.fitter(
        experiment.net,
        train.classification(),
        make_sgd(config, config.truth_epochs, num_steps // config.truth_epochs),
        splits.train,
        at_steps=experiment.sgd_steps,
        batch_size=config.batch_size,
        augment=experiment.augment,
        devices=experiment.devices,
    )
    evaluate = measurements.timed(
        make_evaluator(experiment, experiment.providers["one-shot"])
    )

    def measure(i: int) -> dict[str, float]:
        line = {}
        for snapshot in fit(archs[i], jax.random.fold_in(experiment.keys.truth, i)):
            step, params = snapshot.step, snapshot.weights
            means, seconds = evaluate(params, archs[i], splits.validation)
            line |= {f"{step}/{name}": value for name, value in means.items()}
            line |= {f"{step}/weights_seconds": snapshot.seconds}
            line |= {f"{step}/seconds": snapshot.seconds + seconds}
            if step == num_steps:
                means, _ = evaluate(params, archs[i], experiment.dataset.test)
                line |= {f"test/{name}": value for name, value in means.items()}
        print(
            f"architecture {i + 1} of {len(archs)} trained: test accuracy "
            f"{line['test/accuracy']:.1%}",
            flush=True,
        )
        return line

    return measurements.measure_missing(
        experiment.truth_folder / "truth.jsonl", archs, measure
    )


def make_evaluator(experiment: Experiment, provider):
    """The evaluation that all scores and accuracies come from."""
    from jaxnas import train

    return train.evaluator(
        experiment.net,
        provider,
        train.classification(),
        normalize=experiment.normalize,
        batch_size=experiment.config.batch_size,
        devices=experiment.devices,
    )


def score(experiment: Experiment, truth: list[dict[str, float]], name: str) -> list:
    """What a method gives every architecture; SGD is a method for each step asked."""
    if name == "sgd":
        return [
            make_method(
                f"SGD, {'all ' if step == experiment.sgd_steps[-1] else ''}"
                f"{step:,} steps",
                [{key: line[f"{step}/{key}"] for key in SCORE_KEYS} for line in truth],
                truth,
                experiment.config,
            )
            for step in experiment.sgd_steps
        ]
    lines = score_with_weights(experiment, name)
    method = make_method(
        {"one-shot": "One-shot", "ghn": "GHN"}[name], lines, truth, experiment.config
    )
    seconds = preparation_seconds(experiment, name)
    method = method._replace(preparation_seconds=seconds)
    # Shared weights are there already.
    return [method._replace(weights_seconds=None) if name == "one-shot" else method]


def score_with_weights(experiment: Experiment, name: str) -> list[dict[str, float]]:
    """Score every architecture with shared or generated weights."""
    import jax

    archs, provider = experiment.archs, experiment.providers[name]
    trained = functools.cache(lambda: train_weights(experiment, name))
    make_weights = measurements.timed(jax.jit(provider.apply))
    evaluate = measurements.timed(make_evaluator(experiment, provider))

    def measure(i: int) -> dict[str, float]:
        params = trained()
        _, weights_seconds = make_weights(params, archs[i])
        means, seconds = evaluate(params, archs[i], experiment.splits.validation)
        return means | {"weights_seconds": weights_seconds, "seconds": seconds}

    return measurements.measure_missing(
        experiment.folder / name / "scores.jsonl", archs, measure
    )


def train_weights(experiment: Experiment, name: str):
    """Train shared weights or the hypernetwork on random architectures."""
    from jaxnas import search, train

    config, splits = experiment.config, experiment.splits
    steps_per_epoch = train.make_timetable(splits, config.batch_size, 0).weight_steps
    net, provider = experiment.net, experiment.providers[name]
    num_epochs = config.one_shot_epochs
    optimizer = make_sgd(config, num_epochs, steps_per_epoch)
    if name == "ghn":
        net = make_supernet(config, config.num_train_nodes, experiment.dataset)
        provider = hypernetworks.make_hypernetwork(config, net)
        num_epochs = config.epochs
        optimizer = make_ghn_optimizer(config, steps_per_epoch)
    result = train.search(
        net,
        provider,
        search.random_search(net.space),
        train.classification(),
        optimizer,
        splits,
        key=getattr(experiment.keys, name.replace("-", "_")),
        num_epochs=num_epochs,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        num_weight_archs=config.meta_batch if name == "ghn" else 1,
        num_search_archs=1,
        searcher_steps=0,
        devices=experiment.devices,
        workdir=experiment.folder / name,
        description=name,
    )
    return result.state.weights.params


def preparation_seconds(experiment: Experiment, name: str) -> float | None:
    """How long the training of weights took, by the speeds in its log."""
    from jaxnas import metrics, train

    config = experiment.config
    log = metrics.read(experiment.folder / name / "metrics.jsonl")
    speeds = [e["images_per_second"] for e in log if "images_per_second" in e]
    if not speeds:
        return None  # an epoch of a single step has none, as it is compiled
    timetable = train.make_timetable(experiment.splits, config.batch_size, 0)
    images_per_epoch = timetable.weight_steps * config.batch_size
    num_epochs = config.one_shot_epochs
    if name == "ghn":
        images_per_epoch *= config.meta_batch
        num_epochs = config.epochs
    return num_epochs * images_per_epoch * statistics.fmean(1 / s for s in speeds)


def make_method(
    name: str,
    lines: list[dict[str, float]],
    truth: list[dict[str, float]],
    config: Config,
):
    """A method with its correlations."""
    import numpy as np

    from jaxnas import analysis, report

    scores = np.array([line["accuracy"] for line in lines])
    accuracies = np.array([line["test/accuracy"] for line in truth])
    top = analysis.top_half(accuracies)
    options = {"num_resamples": config.num_resamples, "seed": config.seed}
    return report.Method(
        name,
        scores,
        analysis.correlations(scores, accuracies, **options),
        analysis.correlations(scores[top], accuracies[top], **options),
        None,
        statistics.fmean(line["weights_seconds"] for line in lines),
        statistics.fmean(line["seconds"] for line in lines),
    )


def conclude(
    experiment: Experiment, truth: list[dict[str, float]], methods: list
) -> None:
    """Write scores.json and report.html, and print the correlations."""
    from jaxnas import report

    config, folder = experiment.config, experiment.folder
    results = summarize(experiment, truth, methods)
    temporary = folder / "scores.json.tmp"
    temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / "scores.json")
    names = (*hypernetworks.SETTINGS, "num_train_nodes", "meta_batch", "epochs")
    report.correlation_report(
        folder / "report.html",
        title=f"How well scores rank architectures: {experiment.dataset.name}",
        summary={"data": experiment.dataset.source, "seed": str(config.seed)}
        | experiment.environment,
        config=dataclasses.asdict(config),
        settings={name: getattr(config, name) for name in names},
        truth=results["truth"]["test_accuracy"],
        methods=methods,
    )
    print(f"\n{as_text(results, methods)}\nreport: {folder / 'report.html'}")


def summarize(
    experiment: Experiment, truth: list[dict[str, float]], methods: list
) -> dict[str, Any]:
    """The results as JSON can hold them."""
    accuracies = [line["test/accuracy"] for line in truth]

    def coefficients(found) -> dict[str, Any]:
        return {
            name: None if math.isnan(c.value) else c._asdict()
            for name, c in found.items()
        }

    return {
        "architectures": [arch.tolist() for arch in experiment.archs],
        "truth": {
            "mean": statistics.fmean(accuracies),
            "std": statistics.stdev(accuracies),
            "num_diverged": sum(not math.isfinite(e["test/loss"]) for e in truth),
            "test_accuracy": accuracies,
        },
        "methods": {
            method.name: {
                "all": coefficients(method.overall),
                "top_half": coefficients(method.top),
                "preparation_seconds": method.preparation_seconds,
                "weights_seconds": method.weights_seconds,
                "evaluation_seconds": method.evaluation_seconds,
                "validation_accuracy": list(method.scores),
            }
            for method in methods
        },
    }


def as_text(results: dict[str, Any], methods: list) -> str:
    """The results as tables for the terminal."""
    from jaxnas import report

    truth = results["truth"]
    accuracies = truth["test_accuracy"]
    width = max(len(method.name) for method in methods) + 2

    def block(title: str, found_by_method: dict) -> list[str]:
        names = list(next(iter(found_by_method.values())))
        lines = [title, " " * width + "".join(f"{name:>21}" for name in names)]
        for method, found in found_by_method.items():
            cells = (report.coefficient_text(found[name]) for name in names)
            lines.append(f"{method:<{width}}" + "".join(f"{c:>21}" for c in cells))
        return lines

    def seconds(value: float | None, digits: int) -> str:
        return f"{'-' if value is None else format(value, f',.{digits}f'):>21}"

    diverged = truth["num_diverged"]
    return "\n".join(
        [
            f"test accuracy of {len(accuracies)} architectures, each trained by "
            f"itself: {truth['mean']:.1%} ± {truth['std']:.1%}, "
            f"{min(accuracies):.1%} to {max(accuracies):.1%}"
            + (f"; {diverged} diverged" if diverged else ""),
            *block(
                "correlation of scores with it, and 95 % intervals:",
                {method.name: method.overall for method in methods},
            ),
            *block(
                "over the upper half by trained accuracy:",
                {method.name: method.top for method in methods},
            ),
            "seconds, without compilation:",
            " " * width
            + "".join(
                f"{title:>21}"
                for title in ("preparation", "weights of one", "and validation")
            ),
            *(
                f"{method.name:<{width}}{seconds(method.preparation_seconds, 1)}"
                f"{seconds(method.weights_seconds, 3)}"
                f"{seconds(method.evaluation_seconds, 3)}"
                for method in methods
            ),
        ]
    )


if __name__ == "__main__":
    command_line.run(main)
