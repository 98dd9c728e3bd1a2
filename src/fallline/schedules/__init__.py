"""Schedules: hyper-parameters as functions of the number of completed steps.

Each is called with t, the number of completed steps, which is 0 for the first step. `warmup` is always a linear rise
from 0. Python's math library evaluates them: the same bits on one machine, and as near as its last digit on others.

>>> import fallline as fl
>>> opt = fl.Adam(lr=fl.schedules.cosine(1e-3, steps=10_000, warmup=500))
>>> opt.lr
cosine(peak=0.001, steps=10000, warmup=500, end=0.0)
>>> opt.lr(250)
0.0005
"""

from __future__ import annotations

from fallline.schedules.base import Schedule
from fallline.schedules.picture import plot
from fallline.schedules.shapes import (
    constant,
    cosine,
    cosine_restarts,
    exponential,
    inverse_sqrt,
    join,
    linear,
    one_cycle,
    piecewise,
    polynomial,
    step,
    warmup_stable_decay,
)

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "exponential",
    "inverse_sqrt",
    "join",
    "linear",
    "one_cycle",
    "piecewise",
    "plot",
    "polynomial",
    "step",
    "warmup_stable_decay",
]
