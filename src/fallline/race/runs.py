"""One run of one optimiser, and many runs spread over processes with the same bits whatever their number."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from fallline import trees
from fallline.descend import Point, Status, descend
from fallline.race.contender import Contender
from fallline.race.grid import Grid, best_rate
from fallline.race.load import ProblemSource, problem_at
from fallline.race.summary import steps_to
from fallline.race.surfaces import SURFACES, at_start

SURFACE_STEPS = 200


@dataclass(frozen=True)
class Run:
    """One descent: `rate` of the grid (None: as the optimiser was given), from one seed, its loss noted at `marks`."""

    problem: ProblemSource
    contender: Contender
    rate: float | None
    seed: int
    steps: int
    marks: tuple[int, ...] = ()

    def __call__(self) -> Outcome:
        problem = problem_at(self.problem, self.seed)
        optimizer = self.contender.optimizer(self.rate)
        curve: list[float] = []

        def note(point: Point) -> None:
            if len(curve) < len(self.marks) and point.t == self.marks[len(curve)]:
                curve.append(_finite_loss(problem.loss(point.params)))

        end = descend(
            problem.value_and_grad,
            problem.params,
            optimizer,
            batches=problem.batch_order(self.seed),
            steps=self.steps,
            callback=note if self.marks else None,
            progress=False,
        )
        if end.status is Status.DIVERGED:
            return Outcome(np.inf, {}, curve + [np.inf] * (len(self.marks) - len(curve)))
        figures = problem.measure(end.params)
        loss = _finite_loss(figures.pop("train_loss"))
        return Outcome(loss, figures, curve + [loss] * (len(self.marks) - len(curve)))


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its final full training loss, infinite if it diverged, other figures, the loss at the marks."""

    loss: float
    figures: dict[str, float] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SurfaceRun:
    """One optimiser on one surface, tuned on the same grid, with its path at the best rate.

    What counts here is the way: the mean of the value's logarithm along the path, down to the target. Where nothing is
    noisy, the value at the end alone would prefer rates that leap about and happen to land well.
    """

    surface: str
    contender: Contender

    def __call__(self) -> SurfacePath:
        problem, grid = at_start(self.surface), Grid()
        means: dict[float, float] = {}
        rates = grid.rates
        while rates:
            means |= {rate: self._descend(rate)[0] for rate in rates}
            rates = grid.extend(means)
        best = best_rate(means)
        if best is None:
            return SurfacePath(None, np.inf, False, None, [problem.params.tolist()])
        _, loss, path = self._descend(best)
        heights = [problem.loss(np.array(point)) for point in path]
        return SurfacePath(best, loss, grid.edge(means) != 0, steps_to(problem.target, range(len(path)), heights), path)

    def _descend(self, rate: float) -> tuple[float, float, list[list[float]]]:
        """The mean logarithm of the value along the path, the value at its end, and the path."""
        problem = at_start(self.surface)
        path: list[list[float]] = []
        end = descend(
            problem.value_and_grad,
            problem.params,
            self.contender.optimizer(rate),
            steps=SURFACE_STEPS,
            callback=lambda point: path.append(point.params.tolist()),
            progress=False,
        )
        if end.status is Status.DIVERGED:
            return np.inf, np.inf, path
        heights = np.maximum(end.values, SURFACES[self.surface].target)
        return float(np.log10(heights).mean()), _finite_loss(problem.loss(end.params)), [*path, end.params.tolist()]


@dataclass(frozen=True)
class SurfacePath:
    """The tuned rate on a surface, the value at the end, whether the rate stood at the grid's edge, steps, points."""

    rate: float | None
    loss: float
    at_edge: bool
    steps_to_target: int | None
    path: list[list[float]]


Task = Run | SurfaceRun


def spread(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Any]]:
    """Run `tasks` over `jobs` processes; yields (index, outcome) as they end.

    A task depends on nothing but itself, so the outcomes are the same bits for any number of processes; the back end
    is joblib's, so `joblib.parallel_config` can put another in its place.
    """
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    with _interrupts_held():
        outcomes = parallel(delayed(_indexed)(i, task) for i, task in enumerate(tasks))
    try:
        yield from outcomes
    finally:
        outcomes.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes start: they inherit that, and only the race's own process is interrupted."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _indexed(i: int, task: Task) -> tuple[int, Any]:
    # Rates that are far too high are part of the grid: that they overflow is a result, not a warning.
    with one_blas_thread(), np.errstate(all="ignore"):
        return i, task()


def one_blas_thread() -> Any:
    """A context in which BLAS computes on one thread: the order of its sums then depends on nothing else."""
    return _blas().limit(limits=1)


@lru_cache(maxsize=1)
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _finite_loss(loss: float) -> float:
    return loss if np.isfinite(loss) else np.inf


def parameter_count(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(int(np.size(leaf)) for leaf in trees.flatten(params)[0])
