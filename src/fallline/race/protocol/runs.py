"""One run of one optimiser, on the problem or on a surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._optimizer.optimizer import Optimizer
from fallline.race.contenders.contender import Contender, reported
from fallline.race.contenders.grid import best_rate
from fallline.race.contenders.steps import Steps
from fallline.race.problems.named import ProblemSource, problem_at
from fallline.race.problems.surfaces import SURFACES, Surface, at_start, plane, surface_at
from fallline.race.protocol.descending import descended

SURFACE_STEPS = 200


@dataclass(frozen=True)
class Run:
    """One descent: `rate` of the grid (None: as the optimiser was given), from one seed, its loss noted at `marks`.

    Losses are those of the point to report, see `contender.reported`.
    """

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

        def note(t: int, params: Any) -> None:
            if len(curve) < len(self.marks) and t == self.marks[len(curve)]:
                curve.append(_finite_loss(problem.loss(reported(optimizer, params))))

        end = descended(problem, optimizer, self.steps, note, problem.batch_order(self.seed))
        if end is None:
            return Outcome(np.inf, {}, curve + [np.inf] * (len(self.marks) - len(curve)))
        figures = problem.measure(reported(optimizer, end))
        loss = _finite_loss(figures.pop("train_loss"))
        return Outcome(loss, figures, curve + [loss] * (len(self.marks) - len(curve)))


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its final full training loss, infinite if it diverged, other figures, the loss at the marks."""

    loss: float
    figures: dict[str, float] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)


def steps_to(target: float | None, marks: Sequence[int], curve: Sequence[float]) -> int | None:
    """The first mark at which the loss is no greater than the target; None if there is none."""
    if target is None:
        return None
    return next((step for step, loss in zip(marks, curve, strict=True) if loss <= target), None)


@dataclass(frozen=True)
class SurfaceRun:
    """One optimiser on one surface, tuned on the same grid, with its path at the best rate.

    What counts here is the way: the mean of the value's logarithm along the path, down to the target. Where nothing is
    noisy, the value at the end alone would prefer rates that leap about and happen to land well. Weight decay is 0, and
    what is a function of whole leaves gets the point as the diagonal of a matrix, which it is made for.
    """

    surface: str | Surface
    contender: Contender
    steps: int = SURFACE_STEPS

    def __call__(self) -> SurfacePath:
        surface, grid = surface_at(self.surface), self.contender.tuned.grid()
        means: dict[float, float] = {}
        rates = grid.rates
        while rates:
            means |= {rate: _mean_height(surface, self._path(surface, rate)) for rate in rates}
            rates = grid.extend(means)
        best = best_rate(means)
        if best is None:
            return SurfacePath(None, np.inf, False, None, [list(surface.start)])
        path = self._path(surface, best)[0]
        heights = _heights(surface, path)
        steps = steps_to(surface.target, range(len(path)), heights)
        return SurfacePath(best, _finite_loss(heights[-1]), grid.edge(means) != 0, steps, path)

    def _path(self, surface: Surface, rate: float) -> tuple[list[list[float]], bool]:
        return path_on(surface, self.contender.without_decay(rate), self.steps, self.contender.of_matrices)


def path_on(
    surface: Surface, optimizer: Optimizer | Steps, steps: int, of_matrices: bool = False
) -> tuple[list[list[float]], bool]:
    """The points to report from a surface's start on, as far as they are finite, and whether all steps were taken."""
    path: list[list[float]] = []

    def note(t: int, params: Any) -> None:
        path.append(plane(reported(optimizer, params)).tolist())

    end = descended(at_start(surface, of_matrices), optimizer, steps, note)
    if end is not None:
        note(steps, end)
    return path, end is not None


def _mean_height(surface: Surface, found: tuple[list[list[float]], bool]) -> float:
    """Of the logarithm of the value along a path, down to the target; infinite for one that diverged."""
    path, is_whole = found
    return float(np.log10(np.maximum(_heights(surface, path)[:-1], surface.target)).mean()) if is_whole else np.inf


def _heights(surface: Surface, path: Sequence[Sequence[float]]) -> list[float]:
    return [surface.value_and_grad(np.array(point))[0] for point in path]


def fits_surfaces(contender: Contender) -> bool:
    """Whether an optimiser can step a surface's one leaf: settings by leaf, and labels, may be of other leaves."""
    problem = at_start(next(iter(SURFACES.values())), contender.of_matrices)
    try:
        contender.trial().step(trees.copy(problem.params), problem.value_and_grad(problem.params)[1])
    except Exception:  # a label is the user's function, and may do anything for a path that it does not know
        return False
    return True


@dataclass(frozen=True)
class SurfacePath:
    """The tuned rate on a surface, the value at the end, whether the rate stood at the grid's edge, steps, points."""

    rate: float | None
    loss: float
    at_edge: bool
    steps_to_target: int | None
    path: list[list[float]]


def _finite_loss(loss: float) -> float:
    return loss if np.isfinite(loss) else np.inf
