"""The points that optimizers visit on a surface, as arrays and as a moving picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fallline._optimizer.optimizer import Optimizer
from fallline.race.contenders.contender import Contender, contenders
from fallline.race.contenders.named import OptimizerSource
from fallline.race.problems.surfaces import Surface, surface_at
from fallline.race.protocol.processes import spread
from fallline.race.protocol.runs import SURFACE_STEPS, SurfaceRun, path_on
from fallline.race.protocol.settings import check_whole

__all__ = ["Tracks", "tracks"]


@dataclass(frozen=True)
class Tracks:
    """What optimizers visit on a surface.

    Attributes
    ----------
    surface: the `Surface`.
    points: by name, a float64 array of shape (steps + 1, 2): x and y at the start and after every step, of the point to
        report; shorter for one that diverged.
    values: by name, the surface's value at each of these points.
    """

    surface: Surface
    points: Mapping[str, np.ndarray]

    @property
    def values(self) -> dict[str, np.ndarray]:
        height = self.surface.value_and_grad
        return {name: np.array([height(point)[0] for point in points]) for name, points in self.points.items()}

    def animate(self, path: str | os.PathLike[str], *, seconds: float = 8.0) -> None:
        """Write a moving picture of the tracks, a GIF or a WebP by the path's end.

        seconds: how long it takes; the last picture then stays for two more. Time runs faster towards the end, as
            optimizers leap in the beginning and creep later.

        Raises ImportError where matplotlib or Pillow is missing (the extra `pictures`), ValueError for another format.
        """
        from fallline.race.report.animation import animate

        animate(self, path, seconds)


def tracks(
    surface: str | Surface = "rosenbrock",
    optimizers: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None = None,
    *,
    steps: int = SURFACE_STEPS,
    jobs: int = -1,
) -> Tracks:
    """The points that each optimizer visits on a surface, from its start.

    Parameters
    ----------
    surface: rosenbrock, beale, saddle, bowl or himmelblau, or a `fallline.race.Surface`.
    optimizers: as `run` takes them; None for the ten. An `Optimizer` steps as it was given. A name or a class is tuned
        as for the report's surfaces: of the race's grid it takes the rate that goes down fastest, without weight decay.
    steps: how many each takes.
    jobs: processes; -1 for one per processor.

    Raises ValueError or TypeError for what is not as described.

    >>> import fallline as fl
    >>> found = fl.race.tracks("bowl", [fl.SGD(0.03)], steps=100, jobs=1)
    >>> found.points["SGD"].shape, found.points["SGD"][-1].round(2).tolist()
    ((101, 2), [0.83, 0.5])
    """
    place, steps = surface_at(surface), check_whole("steps", steps, 1)
    given = contenders(optimizers)
    tasks = [_task(place, contender, steps) for contender in given]
    found = dict(spread(tasks, jobs))
    return Tracks(place, {contender.name: np.array(found[k]) for k, contender in enumerate(given)})


def _task(surface: Surface, contender: Contender, steps: int) -> Any:
    return partial(_as_it_is if isinstance(contender.source, Optimizer) else _tuned, surface, contender, steps)


def _as_it_is(surface: Surface, contender: Contender, steps: int) -> list[list[float]]:
    return path_on(surface, contender.optimizer(None), steps, contender.of_matrices)[0]


def _tuned(surface: Surface, contender: Contender, steps: int) -> list[list[float]]:
    return SurfaceRun(surface, contender, steps)().path
