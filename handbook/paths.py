"""The path of an optimiser on each surface of the race, at the rate that the race's protocol chooses there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fallline.race.contenders.contender import Contender, contenders
from fallline.race.problems.surfaces import SURFACES
from fallline.race.protocol.processes import spread
from fallline.race.protocol.runs import SURFACE_STEPS, SurfacePath, SurfaceRun

__all__ = ["SURFACE_STEPS", "Contender", "SurfacePath", "contender", "found"]


def contender(name: str) -> Contender:
    """An optimiser as it enters the race, with its defaults."""
    return contenders([name])[0]


def found(names: Sequence[str], jobs: int) -> Iterator[tuple[str, dict[str, SurfacePath]]]:
    """Of each of these optimisers the path on every surface; they take some seconds."""
    tasks = [(name, surface) for name in names for surface in SURFACES]
    paths: dict[str, dict[str, SurfacePath]] = {name: {} for name in names}
    runs = [SurfaceRun(surface, contender(name)) for name, surface in tasks]
    for k, path in spread(runs, jobs):
        name, surface = tasks[k]
        paths[name][surface] = path
        if len(paths[name]) == len(SURFACES):
            yield name, {surface: paths[name][surface] for surface in SURFACES}
