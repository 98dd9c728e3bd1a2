"""The grid of rates: which values are tried, when the grid is extended, and how wide the good region is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

EXTENSIONS = 2
WITHIN = 2.0  # "within twice the best loss"


def half_decades(first: int, last: int) -> list[float]:
    """1, 3, 10, 30, ... from exponent index `first` to `last`, where index 0 is 1, 1 is 3, 2 is 10, −1 is 0.3.

    >>> half_decades(-8, 1)
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    """
    return [float(f"{3 if i % 2 else 1}e{i // 2}") for i in range(first, last + 1)]


@dataclass
class Grid:
    """The rates tried for one optimiser, as indices of half decades."""

    first: int = -8
    last: int = 1
    extended: int = 0

    @property
    def rates(self) -> list[float]:
        return half_decades(self.first, self.last)

    def extend(self, losses: Mapping[float, float]) -> list[float]:
        """Widen the grid by a decade beyond the edge where the best loss stands; the new rates, none if within."""
        edge = self.edge(losses)
        if not edge or self.extended == EXTENSIONS:
            return []
        self.extended += 1
        if edge < 0:
            self.first -= 2
            return half_decades(self.first, self.first + 1)
        self.last += 2
        return half_decades(self.last - 1, self.last)

    def edge(self, losses: Mapping[float, float]) -> int:
        """−1 or 1 if the best loss stands at the lower or upper edge, else 0; one rate alone has no edges."""
        rate = best_rate(losses)
        if rate is None or self.first == self.last:
            return 0
        return {self.rates[0]: -1, self.rates[-1]: 1}.get(rate, 0)


def best_rate(losses: Mapping[float, float]) -> float | None:
    """The rate with the lowest loss, the lower rate where two are equal; None if every one diverged."""
    finite = {rate: loss for rate, loss in losses.items() if np.isfinite(loss)}
    return min(finite, key=lambda rate: (finite[rate], rate)) if finite else None


def width_in_decades(losses: Mapping[float, float]) -> float | None:
    """How many decades of rates around the best one stay within twice the best loss; each rate counts half a decade.

    None where "twice the best" means nothing: no finite loss, or a best loss below 0.

    >>> width_in_decades({0.01: 3.0, 0.03: 1.5, 0.1: 1.0, 0.3: 2.5})
    1.0
    """
    best = best_rate(losses)
    if best is None or losses[best] < 0:
        return None
    rates = sorted(losses)
    good = [losses[rate] <= WITHIN * losses[best] for rate in rates]
    at = rates.index(best)
    return 0.5 * (1 + _run(good[at + 1 :]) + _run(good[:at][::-1]))


def _run(good: Sequence[bool]) -> int:
    """How many of the leading entries are true."""
    return next((i for i, ok in enumerate(good) if not ok), len(good))
