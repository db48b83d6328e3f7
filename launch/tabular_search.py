"""Compare searchers on a table that holds the accuracy of every architecture.

No network is trained: a search of 150 evaluations takes milliseconds, so each searcher
is run with many seeds. The folder of the run gets results.json and report.html.
"""

import hashlib
import pathlib
import textwrap
from typing import Any, NamedTuple

import session
from presets.tabular_search import PRESETS, Config

# The table is known by its digest, wherever it is.
MAY_DIFFER = ("workdir", "table")


class Experiment(NamedTuple):
    """Everything a comparison needs."""

    config: Config
    table: Any
    source: str
    searchers: dict[str, Any]
    folder: pathlib.Path
    environment: dict[str, str]


def main() -> None:
    """Search with every searcher and seed, report."""
    preset, config = session.parse(PRESETS, __doc__)
    with session.usage_errors():
        experiment = prepare(preset, config)
    session.announce(experiment.source, experiment.environment, experiment.folder)
    print(describe_decisions(experiment.table), flush=True)
    import jax

    from jaxnas import studies

    algorithms = studies.compare_searchers(
        experiment.searchers,
        experiment.table,
        key=jax.random.key(config.seed),
        num_evaluations=config.evaluations,
        num_archs_per_tell=config.archs_per_step,
        num_seeds=config.seeds,
    )
    report_results(experiment, algorithms)


def prepare(preset: str, config: Config) -> Experiment:
    """Load and make everything; what is wrong with the settings shows here."""
    from jaxnas import parallel, workdir
    from jaxnas.data import tables

    names = config.searcher
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"--searcher is {' '.join(names)!r}; expected one or more, each once"
        )
    if config.table is None:
        raise ValueError("--table is missing: expected a .npz or .csv file")
    if config.evaluations % config.archs_per_step:
        raise ValueError(
            f"--evaluations is {config.evaluations}; expected a multiple of "
            f"--archs-per-step, {config.archs_per_step}"
        )
    table = tables.load_table(
        config.table,
        valid=config.valid,
        test=config.test,
        archs=config.archs,
        column=config.column,
        ignored=list(config.ignore),
        percent=config.percent,
    )
    searchers = {
        name: make_searcher(name, config, table.cardinalities) for name in names
    }
    source = describe(pathlib.Path(config.table), len(table.valid))
    environment = workdir.environment(parallel.local_devices(1))
    folder = workdir.prepare(
        config.workdir or pathlib.Path("runs") / f"tabular_search-{preset}",
        session.flags(config) | {"source": source},
        environment,
        ignored_keys=MAY_DIFFER,
    )
    return Experiment(config, table, source, searchers, folder, environment)


def describe(path: pathlib.Path, num_architectures: int) -> str:
    """Name, size and checksum of a table, wherever it lies."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.name} ({num_architectures:,} architectures, SHA-256 {digest[:12]})"


def describe_decisions(table: Any) -> str:
    """The decisions and their categories, one decision in a line."""
    num = len(table.cardinalities)
    decisions = table.decisions or tuple(map(str, range(num)))
    if table.names is None:
        choices = [f"0 to {size - 1}" for size in table.cardinalities]
    else:
        choices = [textwrap.shorten(", ".join(names), 72) for names in table.names]
    lines = [f"  {a}: {b}" for a, b in zip(decisions, choices, strict=True)]
    return "\n".join([f"{num} decision{'s' if num > 1 else ''}:", *lines])


def make_searcher(name: str, config: Config, cardinalities: tuple[int, ...]):
    """A search algorithm with the settings of a configuration."""
    from jaxnas import search

    if name == "random":
        return search.random_search(cardinalities)
    if name != "reinforce":
        if config.archs_per_step < 2:
            raise ValueError(
                f"--archs-per-step is 1; {name.upper()} compares 2 or more "
                "architectures"
            )
        return getattr(config, name)(cardinalities)
    settings = search.ControllerSettings(
        entropy_weight=config.entropy_weight,
        baseline_decay=config.baseline_decay,
        hidden_size=config.hidden_size,
    )
    optimizer = search.paper_optimizer(learning_rate=config.learning_rate)
    return search.reinforce(cardinalities, optimizer=optimizer, settings=settings)


def report_results(experiment: Experiment, algorithms: list) -> None:
    """Write results.json and report.html, and print the results."""
    from jaxnas import _files, report

    config, table, folder = experiment.config, experiment.table, experiment.folder
    results = summarize(experiment, algorithms)
    _files.write_json(folder / "results.json", results)
    step = config.archs_per_step
    report.comparison_report(
        folder / "report.html",
        title=f"Searchers on {pathlib.Path(str(config.table)).name}",
        summary={"table": experiment.source, "seed": str(config.seed)}
        | experiment.environment,
        config=session.flags(config),
        evaluations=range(step, config.evaluations + 1, step),
        algorithms=algorithms,
        best=results["best"],
        measure=config.test,
        percent=table.percent,
    )
    print(f"\n{as_text(results, config)}\nreport: {folder / 'report.html'}")


def summarize(experiment: Experiment, algorithms: list) -> dict[str, Any]:
    """The results as JSON can hold them; accuracies as the table has them."""
    import numpy as np

    from jaxnas import report
    from jaxnas.search import tabular

    config, table = experiment.config, experiment.table

    def at_the_end(values) -> dict[str, Any]:
        final = values[:, -1]
        mean, deviation = report.spread(final)
        return {
            "mean": mean,
            "std": deviation,
            "mean_regret": report.spread(tabular.regret(table, final))[0],
            "values": final.tolist(),
        }

    best = int(table.test.argmax())
    arch = [int(number) for number in np.unravel_index(best, table.cardinalities)]
    if table.names is not None:
        arch = [names[i] for names, i in zip(table.names, arch, strict=True)]
    return {
        "unit": "percent" if table.percent else "fraction",
        "evaluations": config.evaluations,
        "seeds": config.seeds,
        "num_architectures": len(table.test),
        "best": float(table.test[best]),
        "best_architecture": arch,
        "best_by_valid": float(table.test[table.valid.argmax()]),
        "searchers": {
            algorithm.name: {
                "incumbent": at_the_end(algorithm.incumbent),
                "mode": at_the_end(algorithm.mode),
            }
            for algorithm in algorithms
        },
    }


def as_text(results: dict[str, Any], config: Config) -> str:
    """The results as a table for the terminal."""
    digits = 2 if results["unit"] == "percent" else 4
    measure = f"{config.test} (%)" if results["unit"] == "percent" else config.test

    def cells(final: dict[str, Any]) -> str:
        text = f"{final['mean']:.{digits}f}"
        if final["std"] is not None:
            text += f" ± {final['std']:.{digits}f}"
        return f"{text:>18} {final['mean_regret']:>8.{digits}f}"

    return "\n".join(
        [
            f"{measure} after {results['evaluations']:,} evaluations, mean ± standard "
            f"deviation over {results['seeds']} seeds",
            f"{'searcher':<12}{'incumbent':>18} {'regret':>8}{'mode':>18} "
            f"{'regret':>8}",
            *(
                f"{name:<12}{cells(final['incumbent'])}{cells(final['mode'])}"
                for name, final in results["searchers"].items()
            ),
            f"best of the table: {results['best']:.{digits}f}; the architecture with "
            f"the best {config.valid}: {results['best_by_valid']:.{digits}f}",
        ]
    )


if __name__ == "__main__":
    session.run(main)
