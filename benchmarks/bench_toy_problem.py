"""ASNG's toy problem: many seeds in one compiled loop beside a plain loop in NumPy.

    python -m pytest benchmarks/bench_toy_problem.py

The loop does the same work for one seed after the other, a few calls of NumPy in each
line of the algorithm. Its seeds have other random numbers, so that iterations differ;
both sides stop when the problem is solved. Compilation is timed apart.
"""

import time

import jax
import numpy as np

from jaxnas import search, studies

NUM_SEEDS, NUM_LOOP_SEEDS = 20, 3
LEARNING_RATE = 0.05
PROBLEM = studies.ToyProblem()


def solve_in_numpy(seed: int, problem: studies.ToyProblem = PROBLEM) -> int:
    """Iterations of ASNG until it has solved the toy problem, 0 if it has not."""
    rng = np.random.default_rng(seed)
    D, K = problem.num_decisions, problem.num_categories
    rows = np.arange(D)
    costs = np.arange(K) / K
    x, velocity = rng.standard_normal((D, K)), np.zeros((D, K))
    theta, s = np.full((D, K), 1 / K), np.zeros((D, K - 1))
    gamma, Delta = 0.0, 1.0
    n_theta, theta_min = D * (K - 1), 1 / (D * (K - 1))

    def sample():
        uniform = rng.random((2, D, 1))
        return np.minimum((theta.cumsum(1) <= uniform).sum(2), K - 1)

    def loss(c, z):
        return (costs[c] + (x[rows, c] - z) ** 2).sum()

    for iteration in range(problem.max_iterations):
        rate = (
            0.5
            * LEARNING_RATE
            * (1 + np.cos(np.pi * iteration / problem.max_iterations))
        )
        z, samples = rng.standard_normal(D) / K, sample()
        reached = min(loss(c, 0) for c in samples)
        gradient = np.zeros((D, K))
        for c in samples:
            gradient[rows, c] += x[rows, c] - z
        velocity = problem.momentum * velocity + gradient
        x = x - rate * velocity

        z, samples = rng.standard_normal(D) / K, sample()
        reached = min(reached, *(loss(c, 0) for c in samples))
        best, worst = sorted(samples, key=lambda c: loss(c, z))
        G = np.zeros((D, K))
        G[rows, best] += 0.5
        G[rows, worst] -= 0.5
        if G.any():
            delta = 1 / Delta
            beta = delta / n_theta**0.5
            root, last = np.sqrt(theta[:, :-1]), theta[:, -1:]
            total = G[:, :-1].sum(1, keepdims=True)
            root_G = G[:, :-1] / root + root * total / (last + np.sqrt(last))
            root_G /= np.sqrt((root_G**2).sum())
            theta = theta + delta * G / np.sqrt((G**2 / theta).sum())
            theta = np.maximum(theta, theta_min)
            excess = theta.sum(1, keepdims=True) - 1
            theta = theta - excess * (theta - theta_min) / (1 + excess - theta_min * K)
            theta /= theta.sum(1, keepdims=True)
            s = (1 - beta) * s + np.sqrt(beta * (2 - beta)) * root_G
            gamma = (1 - beta) ** 2 * gamma + beta * (2 - beta)
            Delta *= np.exp(beta * (gamma - (s**2).sum() / 1.5))
        if reached <= 1 / K:
            return iteration + 1
    return 0


def test_all_seeds_beside_a_loop(benchmark):
    keys = studies.toy_keys(jax.random.key(0), NUM_SEEDS)
    searcher = search.asng(PROBLEM.cardinalities)
    solve = studies.make_toy_solver(searcher, PROBLEM)
    start = time.perf_counter()
    compiled = solve.lower(keys, LEARNING_RATE).compile()
    compilation = time.perf_counter() - start

    start = time.perf_counter()
    looped = [solve_in_numpy(seed) for seed in range(NUM_LOOP_SEEDS)]
    loop_seconds = time.perf_counter() - start
    iterations = benchmark.pedantic(lambda: np.asarray(compiled(keys, LEARNING_RATE)))
    seconds = benchmark.stats.stats.median

    assert (iterations > 0).all() and all(looped)
    benchmark.extra_info |= {
        "loop in NumPy": f"{NUM_LOOP_SEEDS} seeds, {loop_seconds:.1f} s, "
        f"{1e6 * loop_seconds / sum(looped):.0f} us an iteration; {looped}",
        "jaxnas": f"{NUM_SEEDS} seeds, {seconds:.1f} s, {compilation:.1f} s of "
        f"compilation before; median {np.median(iterations):,.0f} and at most "
        f"{iterations.max():,} iterations",
        "ratio": f"loop / jaxnas {loop_seconds / seconds:.2f}, with compilation "
        f"{loop_seconds / (seconds + compilation):.2f}",
    }
