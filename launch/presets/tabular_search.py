"""Presets of `tabular_search.py`."""

import dataclasses

from command_line import option


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a comparison of searchers on a table of accuracies."""

    table: str | None = option(
        None, "file with the accuracies of every architecture, .npz or .csv"
    )
    signal: str = option("val12", "array or column with what the searchers see")
    report: str = option("test200", "array or column with what they are judged by")
    archs: str = option("archs", "of a .npz file: array of the architectures")
    column: str | None = option(
        "cifar10", "of a .npz file: column of the accuracies, by number or by name"
    )
    ignore: str = option(
        "", "of a .csv file: columns that are no decisions, with commas between"
    )
    percent: bool = option(True, "accuracies are percentages, not fractions")

    searcher: str = option(
        "asng,reinforce,random", "search algorithms, with commas between"
    )
    evaluations: int = option(150, "architectures evaluated in a search", minimum=1)
    archs_per_step: int = option(
        2, "architectures after which a searcher learns", minimum=1
    )
    seeds: int = option(50, "searches by each algorithm", minimum=1)

    alpha: float = option(1.5, "ASNG: signal-to-noise threshold")
    init_delta: float = option(1.0, "ASNG: first radius of the trust region")
    # Chosen on the table's other two data sets; the paper's 3.5e-4 and 0.99 are for
    # searches of thousands of updates.
    learning_rate: float = option(
        0.01, "REINFORCE: of the controller's Adam", minimum=0
    )
    entropy_weight: float = option(
        1e-4, "REINFORCE: weight of the controller's entropy", minimum=0
    )
    baseline_decay: float = option(
        0.9, "REINFORCE: decay of the mean of the rewards", minimum=0
    )
    hidden_size: int = option(64, "REINFORCE: units of the controller", minimum=1)

    workdir: str | None = option(None, "folder of the run (default: runs/...)")
    seed: int = option(0, "determines everything random", minimum=0)


def nasbench201() -> Config:
    """NAS-Bench-201 (Dong and Yang 2020), CIFAR-10, 150 evaluations of 15,625 cells.

    The file is your own, a .npz made from the published records: `archs`, integers
    [15625, 6]; `val12` and `test200`, percent [15625, 3], the mean validation accuracy
    after 12 epochs and test accuracy after 200; `datasets`, the names of the columns.
    Expected incumbents: asng 94.1 %, reinforce 94.0 %, random 93.9 %, each ± 0.3; the
    best of the table is 94.37 %. Cost: half a minute on 2 CPU cores.
    """
    return Config()


def nasbench201_1000() -> Config:
    """NAS-Bench-201 as in nasbench201, with 1000 evaluations.

    Expected incumbents: asng 94.3 %, reinforce 94.3 %, random 94.1 %, each ± 0.2.
    Cost: half a minute on 2 CPU cores.
    """
    return Config(evaluations=1000, learning_rate=0.0035)


PRESETS = {"nasbench201": nasbench201, "nasbench201-1000": nasbench201_1000}
