"""The toy problem of ASNG's paper: how robust searchers are to their settings.

Akimoto et al. 2019, section 3.1. Continuous variables and categories are learned in
turn, as weights and an architecture are. There is no network, so that many seeds are
solved side by side in one compiled loop.
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas import _files, _locks, search
from jaxnas._checks import check_integer, check_sizes, reason
from jaxnas.types import Arch, Key, Searcher

POINTS_NAME = "points.json"

TOY_SEARCHERS: Mapping[str, Callable[[Sequence[int], float], Searcher]] = {
    "asng": lambda space, step: search.asng(space, init_delta=step),
    "sng": lambda space, step: search.sng(space, delta=step),
    "adam_sng": lambda space, step: search.adam_sng(space, learning_rate=step),
}
"""Makers of searchers of `(cardinalities, initial step)`, by name."""


class ToyProblem(NamedTuple):
    """The problem and how it is solved; the defaults are the paper's.

    The loss of variables `x`, `[num_decisions, num_categories]`, and categories `c` is
    the sum over the decisions `i` of `c_i / K + (x[i, c_i] - z_i)**2`, where `K` is
    `num_categories` and the `z_i` are normal noise of deviation `1 / K`. In every
    iteration, `x` takes a step of SGD with momentum on the mean loss of a few samples
    of the searcher; then it is told the losses of as many new ones. Each time `z` is
    drawn anew, for all samples together. `x` starts as standard normal variables.

    It is solved as soon as the loss without noise of one of these samples is at most
    `1 / K`: all categories are 0, the best, and `x` is near 0 there.

    Attributes:
      num_decisions: categories to choose.
      num_categories: of each decision.
      num_archs: samples in one update.
      momentum: of the steps of `x`.
      max_iterations: limit of the iterations, and length of the cosine that the
        learning rate follows.
    """

    num_decisions: int = 30
    num_categories: int = 5
    num_archs: int = 2
    momentum: float = 0.9
    max_iterations: int = 100_000

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of categories of each decision."""
        return (self.num_categories,) * self.num_decisions

    @property
    def n_theta(self) -> int:
        """Number of free parameters of a distribution of the categories."""
        return self.num_decisions * (self.num_categories - 1)


class ToyPoint(NamedTuple):
    """Runs of one algorithm with one setting.

    Attributes:
      algorithm: name of the searcher.
      exponent: the initial step is `n_theta ** -exponent`.
      learning_rate: the first of the cosine of `x`.
      iterations: of each seed, until the problem was solved; `None` if it was not.
    """

    algorithm: str
    exponent: float
    learning_rate: float
    iterations: tuple[int | None, ...]

    @property
    def num_solved(self) -> int:
        """Number of seeds that solved the problem."""
        return sum(number is not None for number in self.iterations)

    @property
    def median(self) -> float:
        """Median of the iterations; without success they are infinite."""
        numbers = sorted(math.inf if n is None else n for n in self.iterations)
        # The mean of two infinities is no number to NumPy.
        low, high = numbers[(len(numbers) - 1) // 2], numbers[len(numbers) // 2]
        return (low + high) / 2


class _State(NamedTuple):
    iteration: jax.Array
    solved: jax.Array
    x: jax.Array
    velocity: jax.Array
    searcher: Any


def make_toy_solver(searcher: Searcher, problem: ToyProblem) -> jax.stages.Wrapped:
    """Make the solution of the toy problem with many seeds side by side.

    Args:
      searcher: a searcher for `problem.cardinalities`.
      problem: the problem.

    Returns:
      `(keys, learning_rate) -> iterations`, compiled: int32 `[num_seeds]`, the
      iterations until each seed solved the problem, 0 where none did. A result does not
      depend on the other seeds.

    Raises:
      ValueError: if a size of the problem is too small.
    """
    _check(problem)
    num_categories, num_archs = problem.num_categories, problem.num_archs
    limit = problem.max_iterations
    costs = jnp.arange(num_categories, dtype=float)[None, None] / num_categories

    def losses(x: jax.Array, archs: Arch, z: jax.Array) -> jax.Array:
        chosen = jax.nn.one_hot(archs, num_categories, dtype=x.dtype)
        return (chosen * (costs + jnp.square(x - z)[None])).sum((1, 2))

    def noise(key: Key) -> jax.Array:
        """Of both updates of an iteration."""
        return jax.random.normal(key, (2, problem.num_decisions, 1)) / num_categories

    def step(state: _State, key: Key, learning_rate: jax.Array) -> _State:
        keys = jax.random.split(jax.random.fold_in(key, state.iteration), 3)
        progress = state.iteration.astype(float) / limit
        rate = learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * progress))

        z = noise(keys[0])
        archs = searcher.ask(state.searcher, keys[1], num_archs)
        gradient = jax.grad(lambda x: losses(x, archs, z[0]).mean())(state.x)
        velocity = problem.momentum * state.velocity + gradient
        x = state.x - rate * velocity

        told = searcher.ask(state.searcher, keys[2], num_archs)
        new, _ = searcher.tell(state.searcher, told, losses(x, told, z[1]))

        silence = jnp.zeros((1, 1), x.dtype)
        reached = jnp.minimum(
            losses(state.x, archs, silence).min(), losses(x, told, silence).min()
        )
        solved = reached <= 1 / num_categories
        return _State(state.iteration + 1, solved, x, velocity, new)

    def solve(key: Key, learning_rate: jax.Array) -> jax.Array:
        x_key, searcher_key, key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (problem.num_decisions, num_categories))
        first = _State(
            jnp.int32(0), jnp.array(False), x, 0 * x, searcher.init(searcher_key)
        )
        last = lax.while_loop(
            lambda state: ~state.solved & (state.iteration < limit),
            lambda state: step(state, key, learning_rate),
            first,
        )
        return jnp.where(last.solved, last.iteration, 0)

    return jax.jit(
        lambda keys, learning_rate: jax.vmap(solve, (0, None))(
            keys, jnp.asarray(learning_rate, float)
        ),
        # Half the time of compilation, and a loop of so small operations is as fast.
        compiler_options={"xla_backend_optimization_level": 1},
    )


def _check(problem: ToyProblem) -> None:
    check_integer("max_iterations", problem.max_iterations)
    for name in ("num_decisions", "num_categories", "num_archs"):
        check_integer(name, getattr(problem, name), least=2)


def toy_keys(key: Key, num_seeds: int) -> jax.Array:
    """Keys of seeds; of a larger number, the first are the same."""
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))
    return fold_in(key, jnp.arange(num_seeds, dtype=jnp.uint32))


def toy_problem(
    algorithms: Sequence[str] = tuple(TOY_SEARCHERS),
    *,
    exponents: Sequence[float] = (0.0, 0.5, 1.0),
    learning_rates: Sequence[float] = (0.05,),
    num_seeds: int = 20,
    problem: ToyProblem | None = None,
    key: Key,
    workdir: str | os.PathLike[str] | None = None,
) -> list[ToyPoint]:
    """Solve the toy problem by every algorithm with every setting.

    Args:
      algorithms: names in `TOY_SEARCHERS`.
      exponents: the initial steps are `problem.n_theta ** -exponent`: the first radius
        of ASNG, the length of the steps of SNG, the learning rate of Adam.
      learning_rates: of the continuous variables.
      num_seeds: runs with each setting; the seeds are the same for all.
      problem: the problem; the paper's if `None`.
      key: determines everything random.
      workdir: folder of `points.json`, which keeps each setting as soon as it is
        measured, so that it is not measured again. The folder is for one `key`,
        `num_seeds` and `problem`.

    Returns:
      A point for each algorithm, exponent and learning rate, in this order.

    Raises:
      ValueError: if a name is unknown, a list empty, a number out of range, or
        `points.json` damaged.
      FolderInUse: if another process uses the folder.
    """
    problem = ToyProblem() if problem is None else problem
    solvers = check_toy_grid(
        algorithms, exponents, learning_rates, num_seeds=num_seeds, problem=problem
    )
    keys = toy_keys(key, num_seeds)
    with contextlib.ExitStack() as stack:
        path = None
        if workdir is not None:
            stack.enter_context(_locks.hold(workdir))
            path = pathlib.Path(workdir) / POINTS_NAME
        known = [] if path is None or not path.exists() else _read(path, num_seeds)
        points = {point[:3]: point for point in known}
        for (name, exponent), solve in solvers.items():
            for rate in learning_rates:
                setting = name, exponent, rate
                if setting in points:
                    continue
                found = np.asarray(solve(keys, rate)).tolist()
                point = ToyPoint(*setting, tuple(number or None for number in found))
                points[setting] = point
                print(
                    f"{name}, initial step n^-{exponent:g}, learning rate {rate:g}: "
                    f"{point.num_solved} of {num_seeds} seeds, median "
                    f"{point.median:,.0f} iterations",
                    flush=True,
                )
                if path is not None:
                    _files.write_json(path, [p._asdict() for p in points.values()])
    return [points[*setting, rate] for setting in solvers for rate in learning_rates]


def check_toy_grid(
    algorithms: Sequence[str],
    exponents: Sequence[float],
    learning_rates: Sequence[float],
    *,
    num_seeds: int,
    problem: ToyProblem,
) -> dict[tuple[str, float], Callable[..., jax.Array]]:
    """Check the settings of `toy_problem`, which its arguments are, and make solvers.

    Returns:
      What `make_toy_solver` makes, for each algorithm and exponent, not compiled yet.

    Raises:
      ValueError: if a name is unknown, a list empty, or a number out of range.
    """
    _check(problem)
    check_sizes(num_seeds=num_seeds)
    given = {
        "algorithms": algorithms,
        "exponents": exponents,
        "learning_rates": learning_rates,
    }
    for name, values in given.items():
        if not values or len(set(values)) < len(values):
            text = " ".join(map(str, values))
            raise ValueError(f"{name} is {text!r}; expected one or more, each once")
    for name in algorithms:
        if name not in TOY_SEARCHERS:
            raise ValueError(
                f"algorithm is {name!r}; expected one of {', '.join(TOY_SEARCHERS)}"
            )
    for rate in learning_rates:
        if not 0 < rate < math.inf:
            raise ValueError(f"learning rate is {rate}; expected a positive number")
    return {
        (name, exponent): make_toy_solver(
            TOY_SEARCHERS[name](problem.cardinalities, problem.n_theta**-exponent),
            problem,
        )
        for name in algorithms
        for exponent in exponents
    }


def _read(path: pathlib.Path, num_seeds: int) -> list[ToyPoint]:
    try:
        points = [
            ToyPoint(**line) for line in _files.parse_json(_files.read_text(path))
        ]
        points = [point._replace(iterations=(*point.iterations,)) for point in points]
        for point in points:
            if len(point.iterations) != num_seeds:
                raise ValueError(
                    f"it has {len(point.iterations)} seeds; expected {num_seeds}"
                )
            for number in point.iterations:
                if number is not None:
                    check_integer("iterations", number)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no list of measured settings: {reason(error)}"
        ) from error
    return points
