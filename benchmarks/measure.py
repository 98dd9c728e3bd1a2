"""Alternating measurement: every round takes each contender in turn, so that a slow spell of the machine hits all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Timing(NamedTuple):
    """Seconds per step: the median over rounds and the spread from 10 to 90 %."""

    median: float
    low: float
    high: float


def alternate(contenders: Mapping[str, Callable[[], Any] | None], seconds: float) -> dict[str, Timing]:
    """Time the contenders that are there, for about so many seconds in all."""
    there = {name: step for name, step in contenders.items() if step is not None}
    repeats = {name: _repeats(step) for name, step in there.items()}
    found: dict[str, list[float]] = {name: [] for name in there}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(found.values()))) < 5:
        for name, step in there.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            found[name].append((time.perf_counter() - start) / repeats[name])
    return {name: Timing(*np.percentile(times, [50, 10, 90])) for name, times in found.items()}


def _repeats(step: Callable[[], Any]) -> int:
    """Steps in one round: for ten milliseconds, so that each finds its own arrays in the caches, as in a loop."""
    for _ in range(3):
        step()
    start = time.perf_counter()
    step()
    return max(1, int(1e-2 / max(time.perf_counter() - start, 1e-7)))
