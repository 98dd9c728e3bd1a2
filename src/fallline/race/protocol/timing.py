"""Microseconds per step, measured in this process alone once everything else is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fallline._arrays import trees
from fallline.race.contenders.contender import Contender
from fallline.race.problems.problem import Problem
from fallline.race.protocol.processes import one_blas_thread

ROUNDS = 5
ROUND_SECONDS = 0.004


@dataclass(frozen=True)
class Timing:
    """Microseconds: of one step of each contender with its gradient given, and of one gradient."""

    step: dict[str, float]
    gradient: float


def timing(problem: Problem, tuned: Sequence[tuple[Contender, float | None]]) -> Timing:
    """Time the gradient once and one step of every contender at its tuned rate."""
    with one_blas_thread(), np.errstate(all="ignore"):
        params = trees.copy(problem.params)
        steps = {contender.name: _step(problem, contender, rate) for contender, rate in tuned}
        return Timing(steps, _microseconds(lambda: problem.first_value_and_grad(params)))


def _step(problem: Problem, contender: Contender, rate: float | None) -> float:
    optimizer = contender.trial() if rate is None else contender.optimizer(rate)
    params = trees.copy(problem.params)
    _, gradient = problem.first_value_and_grad(params)
    return _microseconds(lambda: optimizer.step(params, gradient))


def _microseconds(call: Callable[[], object]) -> float:
    """The fastest of a few rounds: what disturbs a measurement only ever adds to it."""
    began = time.perf_counter()
    for _ in range(3):
        call()
    count = max(1, round(3 * ROUND_SECONDS / max(time.perf_counter() - began, 1e-7)))
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(count):
            call()
        rounds.append((time.perf_counter() - began) / count)
    return 1e6 * min(rounds)
