"""Each of the ten rules against its own limit."""

from __future__ import annotations

import gc
from typing import Any

from benchmarks.contenders import LIMIT, limit
from benchmarks.measure import Timings, alternate
from benchmarks.ours import ours
from benchmarks.sizes import Shapes

__all__ = ["CHECKED", "STEP", "against_limit"]

STEP, CHECKED = "step", "step, checked"


def against_limit(cls: Any, shapes: Shapes, seconds: float) -> Timings:
    """A step of the rule without and with the check of its gradients, and the limit for its arrays."""
    gc.collect()
    contenders = {LIMIT: limit(cls(), shapes), STEP: ours(cls(nonfinite="propagate"), shapes),
                  CHECKED: ours(cls(nonfinite="raise"), shapes)}  # fmt: skip
    return alternate(contenders, seconds)
