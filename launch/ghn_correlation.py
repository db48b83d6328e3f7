"""Study how well cheap scores rank architectures (Graph HyperNetworks, section 4.3).

Random architectures are trained one by one; their accuracies are compared with scores
from a few steps of SGD (in trainings of their own), from shared weights, and from a
hypernetwork. Without arguments: a small study on scikit-learn's digits. The folder of
the run gets scores.json and report.html; the same command again continues where it
stopped.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
import pathlib
import shutil
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import command_line
import hypernetworks
import images
import measurements
from presets.ghn_correlation import PRESETS, Config

METHODS = ("sgd", "one-shot", "ghn")
SCORE_KEYS = ("loss", "accuracy", "weights_seconds", "seconds")
# More architectures, methods or seeds may be added, in another place, on other devices.
MAY_DIFFER = (
    *("workdir", "data_dir", "devices", "truth_dir", "num_resamples"),
    *("methods", "num_architectures", "sgd_steps"),
    *("truth_seeds", "one_shot_seeds", "ghn_seeds"),
)
# What the accuracies of trained architectures depend on, besides the data.
TRUTH_SETTINGS = (
    *("dataset", "image_size", "max_images", "crop_padding", "crop_fill", "flip"),
    *("cutout", "seed"),
    *("num_nodes", "node_input", "channels", "num_blocks", "batch_size"),
    *("validation_images", "truth_epochs"),
    *("sgd_learning_rate", "momentum", "weight_decay", "clip_norm"),
)


class Keys(NamedTuple):
    """What is random in each part."""

    archs: Any
    truth: Any
    sgd: Any
    one_shot: Any
    ghn: Any


class Experiment(NamedTuple):
    """Everything a study needs."""

    config: Config
    methods: list[str]
    sgd_steps: list[int]
    num_steps: int
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
    truths = accuracies(truth, "test/accuracy")
    num_diverged = count_diverged(truth, "test/loss")
    scores = {name: score(experiment, truths, name) for name in experiment.methods}
    methods = [method for found in scores.values() for method in found]
    conclude(experiment, truths, num_diverged, methods)


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
    methods = [method for method in METHODS if method in methods]
    devices = parallel.local_devices(config.devices)
    parallel.share(config.batch_size, len(devices), "batch_size")
    dataset = images.load(config)
    augment, normalize = images.preprocessing(config, dataset)
    splits = images.hold_out(dataset.train, config.validation_images)
    steps_per_epoch = train.make_timetable(splits, config.batch_size, 0).weight_steps
    num_steps = config.truth_epochs * steps_per_epoch
    sgd_steps = command_line.ascending("--sgd-steps", config.sgd_steps)
    if "sgd" in methods and not (sgd_steps and sgd_steps[-1] <= num_steps):
        raise ValueError(
            f"--sgd-steps is {config.sgd_steps!r}; expected one or more, at most "
            f"{num_steps}, the steps of the whole training"
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
        sgd_steps,
        num_steps,
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
    return optim.adam(schedule, clip_norm=config.clip_norm or None)


def make_sgd(config: Config, num_epochs: int, steps_per_epoch: int):
    """What trains single architectures and shared weights."""
    from jaxnas import optim

    return optim.sgd(
        optim.cosine_by_epoch(config.sgd_learning_rate, num_epochs, steps_per_epoch),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm or None,
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


def measure_truth(experiment: Experiment) -> list[list[dict[str, float]]]:
    """Train every architecture by itself, with each seed, and test it.

    The logs are keyed by architecture, and the key of a training depends on seed and
    architecture only, so that studies can share the folder.
    """
    import jax

    archs, folder = experiment.archs, experiment.truth_folder
    fit = make_fitter(experiment, [experiment.num_steps])
    evaluate = make_evaluator(experiment, experiment.providers["one-shot"])

    def measure(i: int, seed: int, running: pathlib.Path) -> dict[str, float]:
        name = f"architecture {i + 1}/{len(archs)}, seed {seed}"
        key = key_of(jax.random.fold_in(experiment.keys.truth, seed), archs[i])
        (snapshot,) = fit(archs[i], key, workdir=running, description=name)
        means = evaluate(snapshot.weights, archs[i], experiment.dataset.test)
        print(f"{name}: trained, test accuracy {means['accuracy']:.1%}", flush=True)
        return {f"test/{metric}": value for metric, value in means.items()}

    def measured(i: int, seed: int) -> dict[str, float]:
        running = folder / f"training-{seed}-{digest(archs[i])}"
        (line,) = measurements.measure_missing(
            folder / f"truth-{seed}.jsonl",
            [archs[i]],
            lambda _: measure(i, seed, running),
        )
        # Checkpoints are of no use once the result has been logged.
        shutil.rmtree(running, ignore_errors=True)
        return line

    return [
        [measured(i, seed) for i in range(len(archs))]
        for seed in range(experiment.config.truth_seeds)
    ]


def measure_sgd(experiment: Experiment) -> list[dict[str, float]]:
    """Score every architecture on the way of a training of its own.

    It has another seed than those of `measure_truth`, whose first steps would share
    initial weights, batches and so part of the noise with the accuracies in the end.
    """
    splits, archs = experiment.splits, experiment.archs
    fit = make_fitter(experiment, experiment.sgd_steps)
    evaluate = measurements.timed(
        make_evaluator(experiment, experiment.providers["one-shot"])
    )

    def measure(i: int) -> dict[str, float]:
        line = {}
        for snapshot in fit(archs[i], key_of(experiment.keys.sgd, archs[i])):
            assert snapshot.seconds is not None  # as it has no folder
            means, seconds = evaluate(snapshot.weights, archs[i], splits.validation)
            line |= {f"{snapshot.step}/{name}": value for name, value in means.items()}
            line |= {f"{snapshot.step}/weights_seconds": snapshot.seconds}
            line |= {f"{snapshot.step}/seconds": snapshot.seconds + seconds}
        return line

    steps = "-".join(map(str, experiment.sgd_steps))
    return measurements.measure_missing(
        experiment.truth_folder / f"sgd-{steps}.jsonl",
        archs,
        measure,
        description="sgd",
    )


def make_fitter(experiment: Experiment, at_steps: list[int]):
    """The training of single architectures, up to the last of some steps."""
    from jaxnas import train

    config = experiment.config
    return train.fitter(
        experiment.net,
        train.classification(),
        make_sgd(
            config, config.truth_epochs, experiment.num_steps // config.truth_epochs
        ),
        experiment.splits.train,
        at_steps=at_steps,
        batch_size=config.batch_size,
        augment=experiment.augment,
        devices=experiment.devices,
    )


def digest(arch) -> str:
    """A short name of an architecture, for folders and keys."""
    import numpy as np

    data = np.asarray(arch, "<i4").tobytes()
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def key_of(key, arch):
    """A key that depends on the architecture, wherever in the list it is."""
    import jax

    return jax.random.fold_in(key, int(digest(arch)[:8], 16))


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


def score(experiment: Experiment, truths, name: str) -> list:
    """What a method gives every architecture; SGD is a method for each step asked."""
    config = experiment.config
    if name == "sgd":
        lines = measure_sgd(experiment)
        methods = []
        for step in experiment.sgd_steps:
            which = "all " if step == experiment.num_steps else ""
            at_step = [{k: line[f"{step}/{k}"] for k in SCORE_KEYS} for line in lines]
            methods.append(
                make_method(f"SGD, {which}{step:,} steps", [at_step], truths, config)
            )
        return methods
    num_seeds = config.ghn_seeds if name == "ghn" else config.one_shot_seeds
    method = make_method(
        {"one-shot": "One-shot", "ghn": "GHN"}[name],
        score_with_weights(experiment, name, num_seeds),
        truths,
        config,
    )
    seconds = preparation_seconds(experiment, name, num_seeds)
    method = method._replace(preparation_seconds=seconds)
    # Shared weights are there already.
    return [method._replace(weights_seconds=None) if name == "one-shot" else method]


def score_with_weights(
    experiment: Experiment, name: str, num_seeds: int
) -> list[list[dict[str, float]]]:
    """Score every architecture with the shared or generated weights of each seed."""
    import jax

    archs, provider = experiment.archs, experiment.providers[name]
    make_weights = measurements.timed(jax.jit(provider.apply))
    evaluate = measurements.timed(make_evaluator(experiment, provider))

    def of_seed(seed: int) -> list[dict[str, float]]:
        trained = functools.cache(lambda: train_weights(experiment, name, seed))
        log = weights_folder(experiment, name, seed) / "scores.jsonl"
        description = None
        if not log.exists():
            trained()  # its progress line cannot stand within the one of the scores
            description = f"{name}, seed {seed}, scores"

        def measure(i: int) -> dict[str, float]:
            params = trained()
            _, weights_seconds = make_weights(params, archs[i])
            means, seconds = evaluate(params, archs[i], experiment.splits.validation)
            return means | {"weights_seconds": weights_seconds, "seconds": seconds}

        return measurements.measure_missing(
            log, archs, measure, description=description
        )

    return [of_seed(seed) for seed in range(num_seeds)]


def weights_folder(experiment: Experiment, name: str, seed: int) -> pathlib.Path:
    """The folder of one training of shared weights or of the hypernetwork."""
    return experiment.folder / name / f"seed-{seed}"


def train_weights(experiment: Experiment, name: str, seed: int):
    """Train shared weights or the hypernetwork on random architectures."""
    import jax

    from jaxnas import search, train

    config, splits = experiment.config, experiment.splits
    steps_per_epoch = train.make_timetable(splits, config.batch_size, 0).weight_steps
    net, provider = experiment.net, experiment.providers[name]
    num_epochs = config.one_shot_epochs
    optimizer = make_sgd(config, num_epochs, steps_per_epoch)
    epoch_metrics = None
    if name == "ghn":
        net = make_supernet(config, config.num_train_nodes, experiment.dataset)
        provider = hypernetworks.make_hypernetwork(config, net)
        num_epochs = config.epochs
        optimizer = make_ghn_optimizer(config, steps_per_epoch)
        epoch_metrics = hypernetworks.make_block_metrics(net, provider, net.space)
    result = train.search(
        net,
        provider,
        search.random_search(net.space),
        train.classification(),
        optimizer,
        splits,
        key=jax.random.fold_in(getattr(experiment.keys, name.replace("-", "_")), seed),
        num_epochs=num_epochs,
        batch_size=config.batch_size,
        augment=experiment.augment,
        normalize=experiment.normalize,
        num_weight_archs=config.meta_batch if name == "ghn" else 1,
        num_search_archs=1,
        searcher_steps=0,
        devices=experiment.devices,
        workdir=weights_folder(experiment, name, seed),
        description=f"{name}, seed {seed}",
        epoch_metrics=epoch_metrics,
    )
    return result.state.weights.params


def preparation_seconds(
    experiment: Experiment, name: str, num_seeds: int
) -> float | None:
    """How long one training of weights took, by the speeds in the logs."""
    from jaxnas import metrics, train

    config = experiment.config
    logs = [
        metrics.read(weights_folder(experiment, name, seed) / "metrics.jsonl")
        for seed in range(num_seeds)
    ]
    speeds = [
        entry["images_per_second"]
        for entry in itertools.chain.from_iterable(logs)
        if "images_per_second" in entry
    ]
    if not speeds:
        return None  # an epoch of a single step has none, as it is compiled
    timetable = train.make_timetable(experiment.splits, config.batch_size, 0)
    images_per_epoch = timetable.weight_steps * config.batch_size
    num_epochs = config.one_shot_epochs
    if name == "ghn":
        images_per_epoch *= config.meta_batch
        num_epochs = config.epochs
    return num_epochs * images_per_epoch * statistics.fmean(1 / s for s in speeds)


def accuracies(runs: Sequence[Sequence[Mapping[str, float]]], name: str):
    """Accuracies `[runs, num]`; one that is not finite is the worst there is."""
    import numpy as np

    values = np.array([[line[name] for line in lines] for lines in runs])
    return np.where(np.isfinite(values), values, 0.0)


def count_diverged(runs: Sequence[Sequence[Mapping[str, float]]], name: str) -> int:
    """How many losses are not finite."""
    return sum(not math.isfinite(line[name]) for lines in runs for line in lines)


def make_method(
    name: str, runs: Sequence[Sequence[Mapping[str, float]]], truths, config: Config
):
    """A method with its correlations."""
    from jaxnas import analysis, report

    scores = accuracies(runs, "accuracy")
    lines = list(itertools.chain.from_iterable(runs))
    return report.Method(
        name,
        scores,
        **overall_and_top(analysis.correlations, config, scores, truths.mean(0)),
        preparation_seconds=None,
        weights_seconds=statistics.fmean(line["weights_seconds"] for line in lines),
        evaluation_seconds=statistics.fmean(line["seconds"] for line in lines),
        num_diverged=count_diverged(runs, "loss"),
    )


def overall_and_top(function, config: Config, *arrays) -> dict[str, Any]:
    """A function of `analysis` over all architectures, and over the upper half."""
    return {
        place: function(
            *arrays,
            only_top_half=only_top_half,
            num_resamples=config.num_resamples,
            seed=config.seed,
        )
        for place, only_top_half in (("overall", False), ("top", True))
    }


def compare(config: Config, truths, first, second):
    """The difference of two methods."""
    from jaxnas import analysis, report

    return report.Coefficients(
        f"{first.name} minus {second.name}",
        **overall_and_top(
            analysis.correlation_differences,
            config,
            first.scores,
            second.scores,
            truths.mean(0),
        ),
    )


def conclude(experiment: Experiment, truths, num_diverged: int, methods: list) -> None:
    """Write scores.json and report.html, and print the correlations."""
    from jaxnas import _files, analysis, report

    config, folder = experiment.config, experiment.folder
    ceiling = None
    if config.truth_seeds > 1:
        ceiling = report.Coefficients(
            "Noise ceiling", **overall_and_top(analysis.noise_ceiling, config, truths)
        )
    pairs = [
        compare(config, truths, second, first)
        for first, second in itertools.combinations(methods, 2)
    ]
    results = summarize(experiment, truths, num_diverged, methods, ceiling, pairs)
    _files.write_json(folder / "scores.json", results)
    # The last method, which is the hypernetwork if it is there, with the others.
    differences = [
        pair for pair in pairs if pair.name.startswith(f"{methods[-1].name} minus ")
    ]
    names = (*hypernetworks.SETTINGS, "num_train_nodes", "meta_batch", "epochs")
    report.correlation_report(
        folder / "report.html",
        title=f"How well scores rank architectures: {experiment.dataset.name}",
        summary={"data": experiment.dataset.source, "seed": str(config.seed)}
        | experiment.environment,
        config=dataclasses.asdict(config),
        settings={name: getattr(config, name) for name in names},
        truths=truths,
        methods=methods,
        ceiling=ceiling,
        differences=differences,
        num_diverged=num_diverged,
    )
    text = as_text(truths, num_diverged, methods, ceiling, differences)
    print(f"\n{text}\nreport: {folder / 'report.html'}")


def summarize(
    experiment: Experiment, truths, num_diverged: int, methods: list, ceiling, pairs
) -> dict[str, Any]:
    """The results as JSON can hold them."""
    truth = truths.mean(0)

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
        "architectures": [arch.tolist() for arch in experiment.archs],
        "truth": {
            "mean": float(truth.mean()),
            "std": float(truth.std(ddof=1)),
            "num_diverged": num_diverged,
            "test_accuracy": truth.tolist(),
            "test_accuracy_by_seed": truths.tolist(),
        },
        "noise_ceiling": None if ceiling is None else coefficients(ceiling),
        "methods": {
            method.name: coefficients(method)
            | {
                "preparation_seconds": method.preparation_seconds,
                "weights_seconds": method.weights_seconds,
                "evaluation_seconds": method.evaluation_seconds,
                "num_diverged": method.num_diverged,
                "validation_accuracy_by_seed": method.scores.tolist(),
            }
            for method in methods
        },
        "differences": {pair.name: coefficients(pair) for pair in pairs},
    }


def as_text(truths, num_diverged: int, methods: list, ceiling, differences) -> str:
    """The results as tables for the terminal."""
    from jaxnas import analysis, report

    rows = [*methods, *([] if ceiling is None else [ceiling])]
    half = (truths.shape[1] + 1) // 2
    lines = [textwrap.fill(report.truth_text(truths), 88)]
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
            method.name,
            seconds(method.preparation_seconds, 1),
            seconds(method.weights_seconds, 3),
            seconds(method.evaluation_seconds, 3),
        ]
        for method in methods
    ]
    titles = ["", "preparation", "weights of one", "and validation"]
    lines += ["", "seconds, without compilation:", *aligned([titles, *costs]), ""]
    notes = report.correlation_notes(truths, methods, num_diverged)
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
    command_line.run(main)
