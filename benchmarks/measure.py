"""Alternating measurement: every round takes each contender in turn, so that a slow spell of the machine hits all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Measured", "Timing", "Timings", "alternate", "repeats", "rounds", "spread", "timed"]

FEWEST_ROUNDS = 9  # however long they take: a median of less says little


class Timing(NamedTuple):
    """Seconds: the median over rounds and the spread from 10 to 90 %."""

    median: float
    low: float
    high: float


Timings = dict[str, Timing]


@dataclass
class Measured:
    """All that one run measured; empty where it did not."""

    steps: dict[str, Timings] = field(default_factory=dict)  # by size, by contender
    rules: dict[tuple[str, str], Timings] = field(default_factory=dict)  # by rule and size: limit, step, checked
    chains: dict[tuple[str, str], Timings] = field(default_factory=dict)  # by chain and size: the same
    loops: dict[str, Timings] = field(default_factory=dict)  # by size, by optimizer
    jax_loops: dict[str, Timings] = field(default_factory=dict)  # the same
    threads: dict[int, Timings] = field(default_factory=dict)  # by coordinates: one, all
    compiling: dict[str, Timings] = field(default_factory=dict)  # by rule
    starting: Timings = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)  # MiB, by size


def spread(seconds: Iterable[float]) -> Timing:
    """Measured times as their median and spread."""
    return Timing(*np.percentile(list(seconds), [50, 10, 90]).tolist())


def alternate(contenders: Mapping[str, Callable[[], Any] | None], seconds: float) -> Timings:
    """Time the contenders that are there, for about so many seconds in all."""
    turns = {name: partial(timed, step, repeats(step)) for name, step in contenders.items() if step is not None}
    return {name: spread(times) for name, times in rounds(turns, seconds).items()}


def rounds(turns: Mapping[str, Callable[[], float]], seconds: float) -> dict[str, list[float]]:
    """What each turn says, round after round, for about so many seconds in all.

    Each round has an order of its own, so that none always follows the same neighbour (whose threads may still spin).
    """
    found: dict[str, list[float]] = {name: [] for name in turns}
    names, rng = list(turns), np.random.default_rng(0)
    end, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or done < FEWEST_ROUNDS:
        for k in rng.permutation(len(names)):
            found[names[k]].append(turns[names[k]]())
        done += 1
    return found


def timed(step: Callable[[], Any], n: int) -> float:
    """Seconds of each of n steps."""
    start = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start) / n


def repeats(step: Callable[[], Any]) -> int:
    """Steps in one round: for ten milliseconds, so that each finds its own arrays in the caches, as in a loop."""
    fastest = min(timed(step, 1) for _ in range(4))  # the first ones are slower
    return max(1, int(1e-2 / max(fastest, 1e-7)))
