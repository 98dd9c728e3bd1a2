"""The race itself: tune on a few seeds, report only fresh ones, time serially at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline.race.contenders.contender import Contender, contenders
from fallline.race.contenders.grid import Grid, best_rate
from fallline.race.contenders.named import OptimizerSource
from fallline.race.problems.gradient import check_gradient
from fallline.race.problems.named import ProblemSource, problem_at
from fallline.race.problems.places import placed
from fallline.race.problems.problem import Problem
from fallline.race.protocol.beside import NAME, Beside, BesideRun
from fallline.race.protocol.kept import Kept, Unit
from fallline.race.protocol.processes import Task
from fallline.race.protocol.progress import Progress
from fallline.race.protocol.runs import Outcome, Run, SurfacePath, SurfaceRun, fits_surfaces
from fallline.race.protocol.settings import Settings
from fallline.race.protocol.timing import Timing, timing


@dataclass
class Lane:
    """All that one contender has run so far; runs by their place among the seeds."""

    contender: Contender
    grid: Grid
    tuning: dict[float, dict[int, float]] = field(default_factory=dict)
    final: dict[int, Outcome] = field(default_factory=dict)
    untuned: dict[int, Outcome] = field(default_factory=dict)
    surfaces: dict[str, SurfacePath] = field(default_factory=dict)

    def medians(self) -> dict[float, float]:
        """The median loss by rate; after an interrupt, over the repeats that have ended."""
        return {rate: float(np.median(list(losses.values()))) for rate, losses in sorted(self.tuning.items())}

    def rate(self) -> float | None:
        """The best rate of the grid; None if every rate diverged, or none is known yet."""
        return best_rate(self.medians())


class Race:
    """One race: `go` runs it, and what has finished can be read at any time, after an interrupt too."""

    def __init__(
        self,
        problem: ProblemSource,
        optimizers: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None,
        settings: Settings,
    ) -> None:
        self.settings = settings
        self.source = problem = placed(problem)
        self.lanes = [Lane(contender, contender.tuned.grid()) for contender in contenders(optimizers)]
        tuning_seeds, fresh_seeds = settings.seeds()
        self.problem: Problem = problem_at(problem, fresh_seeds[0])
        # A Problem given as such, without batches to shuffle, is the same run at every seed: one is all there is.
        self.alone = problem_at(problem, fresh_seeds[0]) is self.problem and self.problem.fixed
        self.tuning_seeds = tuning_seeds[:1] if self.alone else tuning_seeds
        self.fresh_seeds = fresh_seeds[:1] if self.alone else fresh_seeds
        self.beside: dict[int, Beside] = {}
        self.timing: Timing | None = None
        self.finished = False
        self.seconds = 0.0
        check_gradient(self.problem)
        self.problem.measure(trees.copy(self.problem.params))
        for lane in self.lanes:
            _check_fits(self.problem, lane.contender)

    def go(self, progress: Progress, kept: Kept) -> None:
        """Run everything but what is kept already; a KeyboardInterrupt passes through and leaves what has finished."""
        began = time.perf_counter()
        try:
            self._tune(progress, kept)
            self._run_fresh(progress, kept)
            self._run_beside(progress, kept)
            self.timing = timing(self.problem, [(lane.contender, lane.rate()) for lane in self.lanes])
            self.finished = True
        finally:
            self.seconds = time.perf_counter() - began

    def _tune(self, progress: Progress, kept: Kept) -> None:
        open_rates = {lane.contender.name: lane.grid.rates for lane in self.lanes}
        # Surfaces ride along with the first round: they keep the processes busy where runs of the grid thin out.
        drawn = [lane for lane in self.lanes if self.settings.surfaces and fits_surfaces(lane.contender)]
        extra: list[tuple[Lane, str]] = [(lane, name) for name in self.settings.surfaces for lane in drawn]
        while any(open_rates.values()):
            entries: list[tuple[Lane, Any, Task]] = [
                (lane, (rate, i), self._run(lane, rate, seed))
                for i, seed in enumerate(self.tuning_seeds)
                for lane in self.lanes
                for rate in open_rates[lane.contender.name]
            ]
            entries += [(lane, name, SurfaceRun(name, lane.contender)) for lane, name in extra]
            for lane, key, outcome in self._outcomes("tuning", entries, progress, kept):
                if isinstance(outcome, SurfacePath):
                    lane.surfaces[key] = outcome
                else:
                    lane.tuning.setdefault(key[0], {})[key[1]] = outcome.loss
            extra = []
            open_rates = {lane.contender.name: lane.grid.extend(lane.medians()) for lane in self.lanes}

    def _run_fresh(self, progress: Progress, kept: Kept) -> None:
        entries: list[tuple[Lane, Any, Task]] = []
        for i, seed in enumerate(self.fresh_seeds):
            for lane in self.lanes:
                rate = lane.rate()
                if rate is not None:
                    entries.append((lane, ("final", i), self._run(lane, rate, seed, self.settings.marks)))
                if lane.contender.runs_as_given and not self._untuned_is_tuned(lane):
                    entries.append((lane, ("untuned", i), self._run(lane, None, seed)))
        for lane, (part, i), outcome in self._outcomes("fresh seeds", entries, progress, kept):
            getattr(lane, part)[i] = outcome
        for lane in self.lanes:
            if self._untuned_is_tuned(lane):
                lane.untuned = lane.final

    def _run_beside(self, progress: Progress, kept: Kept) -> None:
        if self.problem.batches is not None:
            return
        runs = [BesideRun(self.source, seed, self.settings.steps, self.settings.marks) for seed in self.fresh_seeds]
        progress.begin("beside", [NAME] * len(runs))
        units = [(NAME, i) for i in range(len(runs))]
        for i, found in kept.spread(units, runs, self.settings.jobs):
            self.beside[i] = found
            progress.advance(NAME, found.outcome.loss)

    def _untuned_is_tuned(self, lane: Lane) -> bool:
        rate = lane.rate()
        return rate is not None and lane.contender.tuned.value(rate) == lane.contender.tuned.default

    def _run(self, lane: Lane, rate: float | None, seed: int, marks: tuple[int, ...] = ()) -> Run:
        return Run(self.source, lane.contender, rate, seed, self.settings.steps, marks)

    def _outcomes(self, part: str, entries: list[tuple[Lane, Any, Task]], progress: Progress, kept: Kept) -> Any:
        progress.begin(part, [lane.contender.name for lane, _, _ in entries])
        units: list[Unit] = [(lane.contender.name, key) for lane, key, _ in entries]
        for i, outcome in kept.spread(units, [task for _, _, task in entries], self.settings.jobs):
            lane, key, _ = entries[i]
            yield lane, key, outcome
            progress.advance(lane.contender.name, outcome.loss if isinstance(outcome, Outcome) else np.inf)


def _check_fits(problem: Problem, contender: Contender) -> None:
    """Refuse settings and labels that are of other parameters than the problem's, before anything runs."""
    params = trees.copy(problem.params)
    _, gradient = problem.first_value_and_grad(params)
    try:
        with np.errstate(all="ignore"):
            contender.trial().step(params, gradient)
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{contender.name} cannot step the parameters of {problem.name}: {error}") from error
