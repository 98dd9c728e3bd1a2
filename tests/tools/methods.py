"""Rules, wrappers, problems and bounds of runs, drawn together; a wrapper joins by a row in WRAPPERS."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

import fallline as fl
from fallline.schedules import constant, cosine, linear, piecewise
from support import NAMES, RATE_STARTS, WHOLE_LEAF, WITH_RATE


def scheduled(schedule):
    """The rule at a rate by that schedule, if it has one that schedules may set."""
    return lambda opt: opt if type(opt).__name__ not in WITH_RATE else type(opt)(schedule)


WRAPPERS = {
    "accumulate(2)": lambda opt: fl.accumulate(2, opt),
    "accumulate(3)": lambda opt: fl.accumulate(3, opt),
    "maximize": lambda opt: fl.chain(fl.maximize(), opt),
    "clip_norm": lambda opt: fl.chain(fl.clip_norm(0.5), opt),
    "partition": lambda opt: fl.partition({"some": opt, "rest": fl.SGD(0.05)}, lambda path: "some"),
    "mask": lambda opt: fl.mask(lambda path: True, opt),
}
MODIFIERS = {"average": lambda opt: fl.chain(opt, fl.average(0.9))}
RATES = {
    "warmup": constant(0.1, warmup=5),
    "ends at 0": linear(0.1, steps=20),
    "cosine": cosine(0.1, steps=30),
    "comes and goes": piecewise([0.1, 0.0, 0.1, 0.0], boundaries=[3, 9, 15]),
    "0": 0.0,
    "small": 0.01,
    "large": 0.7,
    "much too large": 100.0,
}


def bowl(x):
    return float(((x - 1) ** 2).sum()), 2 * (x - 1)


def plateau(x):
    """Flat far from its minimum, and higher there."""
    near = math.exp(-float(x @ x))
    return 1 - near, 2 * x * near


def valley(x):
    scale = 10.0 ** -np.arange(x.size)
    return 1e6 + float(scale @ x**2), 2 * scale * x


def wave(x):
    return float(np.sin(3 * x).sum() + 0.1 * (x @ x)), 3 * np.cos(3 * x) + 0.2 * x


PROBLEMS = {problem.__name__: problem for problem in (bowl, plateau, valley, wave)}
BOUNDS = {
    "none": None, "wide": [(-9.0, 9.0)] * 2, "near": [(-0.5, 0.7), (0.2, 3.0)], "half": [(None, 0.4), (-2.0, None)]
}  # fmt: skip


def uphill(problem):
    return lambda x: tuple(-part for part in problem(x))


@st.composite
def methods(draw):
    """An optimizer, and whether it climbs."""
    name = draw(st.sampled_from([name for name in NAMES if name not in WHOLE_LEAF]))  # which vectors make others
    rate = RATES[draw(st.sampled_from(list(RATES)))]
    fits = name in WITH_RATE or (name in RATE_STARTS and not callable(rate))
    opt = fl.OPTIMIZERS[name](**({"lr": rate} if fits else {}))
    if draw(st.booleans()) and not name.startswith("ScheduleFree"):
        opt = MODIFIERS["average"](opt)
    around = draw(st.sampled_from([[], *([name] for name in WRAPPERS), ["maximize", "accumulate(2)"],
                                   ["maximize", "mask"], ["clip_norm", "partition"], ["mask", "accumulate(3)"]]))
    for wrapper in around:
        opt = WRAPPERS[wrapper](opt)
    return opt, "maximize" in around
