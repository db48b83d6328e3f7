"""Solve the toy problem of ASNG-NAS by ASNG, SNG and Adam over a grid of settings.

No network is trained: all seeds of a setting run side by side in one program. The
folder of the run gets points.json, results.json and report.html; settings that are
finished are not computed again, also where the grid has grown.
"""

import pathlib
from typing import Any, NamedTuple

import session
from presets.asng_toy import PRESETS, Config

# A grid may grow; what has been measured stays valid.
MAY_DIFFER = ("workdir", "searcher", "exponents", "learning_rates")


class Experiment(NamedTuple):
    """A prepared study: `arguments` are those of `jaxnas.studies.toy_problem`."""

    config: Config
    arguments: dict[str, Any]
    folder: pathlib.Path
    environment: dict[str, str]


def main() -> None:
    """Solve with every setting, report."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)
    problem = experiment.arguments["problem"]
    session.announce(
        f"{problem.num_decisions} decisions among {problem.num_categories} categories",
        experiment.environment,
        experiment.folder,
    )
    from jaxnas import studies

    with session.usage_errors():
        points = studies.toy_problem(**experiment.arguments)
    report_results(experiment, points)


def prepare(preset: str, config: Config) -> Experiment:
    """Make everything; what is wrong with the settings shows here."""
    import jax

    from jaxnas import parallel, studies, workdir

    problem = studies.ToyProblem(
        num_decisions=config.decisions,
        num_categories=config.categories,
        num_archs=config.archs_per_step,
        momentum=config.momentum,
        max_iterations=config.max_iterations,
    )
    arguments = {
        "algorithms": config.searcher,
        "exponents": config.exponents,
        "learning_rates": config.learning_rates,
        "num_seeds": config.seeds,
        "problem": problem,
    }
    studies.check_toy_grid(**arguments)
    environment = workdir.environment(parallel.local_devices(1))
    folder = workdir.prepare(
        config.workdir or pathlib.Path("runs") / f"asng_toy-{preset}",
        session.flags(config),
        environment,
        ignored_keys=MAY_DIFFER,
    )
    arguments |= {"key": jax.random.key(config.seed), "workdir": folder}
    return Experiment(config, arguments, folder, environment)


def report_results(experiment: Experiment, points: list) -> None:
    """Write results.json and report.html, and print where."""
    import math

    from jaxnas import _files, report

    folder, config = experiment.folder, experiment.config
    results = [
        point._asdict()
        | {
            "solved": point.num_solved,
            "median": point.median if math.isfinite(point.median) else None,
        }
        for point in points
    ]
    _files.write_json(folder / "results.json", results)
    report.toy_problem_report(
        folder / "report.html",
        title="Toy problem of ASNG",
        summary={"seed": str(config.seed)} | experiment.environment,
        config=session.flags(config),
        problem=experiment.arguments["problem"],
        points=points,
    )
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    session.run(main)
