"""Schedules: hyper-parameters as functions of the number of completed steps.

A schedule is called with t, the number of completed steps (not epochs), which is 0 for the first step. `warmup` is
always a linear rise from 0, so the first step has size 0, as in optax. Arguments that say when something happens count
steps from the start of the run; those that say how long something takes, from the end of warmup.

Every value is computed from t alone (for `plateau`, also from its state). So a resumed run has the same values as one
that never stopped, and rounding errors do not accumulate, as they do in torch, which multiplies from step to step.
Values are computed with Python's math library: the same bits on one machine, and possibly another last digit on
another. In functions that JAX traces (jit, scan, vmap), where t is not known yet, JAX computes them, in float64.

>>> import fallline as fl
>>> opt = fl.Adam(lr=fl.schedules.cosine(1e-3, steps=10_000, warmup=500))
>>> opt.lr
cosine(peak=0.001, steps=10000, warmup=500, end=0.0)
>>> opt.lr(opt.t), opt.lr(250)                    # for the next step, for the 251st
(0.0, 0.0005)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fallline._messages.suggestions import meant_schedule
from fallline.schedules.base import Schedule
from fallline.schedules.beyond import join, mean_since, plateau
from fallline.schedules.picture import plot
from fallline.schedules.shapes import (
    constant,
    cosine,
    cosine_restarts,
    exponential,
    inverse_sqrt,
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
    "mean_since",
    "one_cycle",
    "piecewise",
    "plateau",
    "plot",
    "polynomial",
    "step",
    "warmup_stable_decay",
]


if not TYPE_CHECKING:  # which knows the names, and would take any for one

    def __getattr__(name: str) -> Any:
        raise AttributeError(f"fallline.schedules has no {name!r}. Known: {', '.join(__all__)}."
                             f"{'' if name.startswith('_') else meant_schedule(name, __all__)}", name=name)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})  # and not how it is made
