"""Figures over the fresh seeds: medians, spreads, steps to the target. Infinite losses (diverged runs) rank last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Median and 10-90 % of a sample; the quantiles are values that occurred, so that infinities do no harm."""

    median: float
    p10: float
    p90: float


def spread_of(values: Sequence[float] | np.ndarray) -> Spread:
    """
    >>> spread_of([1.0, 2.0, 3.0, np.inf])
    Spread(median=2.5, p10=1.0, p90=inf)
    """
    p10, p90 = np.quantile(values, [0.1, 0.9], method="inverted_cdf")
    return Spread(float(np.median(values)), float(p10), float(p90))


def median_steps(steps: Sequence[int | None]) -> float | None:
    """The median over runs, where a run that never gets there counts as later than all; None if most never do."""
    median = float(np.median([np.inf if s is None else s for s in steps])) if steps else np.inf
    return median if np.isfinite(median) else None
