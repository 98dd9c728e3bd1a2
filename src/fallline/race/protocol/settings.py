"""What was asked of a race, checked, and the seeds and marks that follow from it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fallline.race.problems.surfaces import SURFACES

PROTOCOL = 1  # raised when the same arguments come to give other figures
STEPS = 540
REPEATS = 10
TUNING_REPEATS = 3
MARKS = 54


@dataclass(frozen=True)
class Settings:
    """What was asked for; the seeds of both parts are drawn from the one given and never overlap."""

    steps: int = STEPS
    repeats: int = REPEATS
    seed: int = 0
    jobs: int = -1
    surfaces: tuple[str, ...] = tuple(SURFACES)

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("repeats", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least)
        if check_whole("jobs", self.jobs, None) == 0:
            raise ValueError("jobs must not be 0: give a number of processes, or -1 for one per processor.")
        for name in self.surfaces:
            if name not in SURFACES:
                raise ValueError(f"surfaces must be among {', '.join(SURFACES)}. Got {name!r}.")

    def seeds(self) -> tuple[list[int], list[int]]:
        """Tuning seeds and fresh seeds; more repeats add fresh seeds and change none."""
        drawn = np.random.SeedSequence(self.seed).generate_state(TUNING_REPEATS + self.repeats)
        return [int(s) for s in drawn[:TUNING_REPEATS]], [int(s) for s in drawn[TUNING_REPEATS:]]

    @property
    def marks(self) -> tuple[int, ...]:
        """The steps at which the full training loss is taken: the start, the end, and evenly between."""
        return tuple(sorted({round(i * self.steps / MARKS) for i in range(MARKS + 1)}))


def check_whole(name: str, value: Any, least: int | None) -> int:
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number. Got {value!r}.") from None
    if least is not None and whole < least:
        raise ValueError(f"{name} must be at least {least}. Got {whole}.")
    return whole
