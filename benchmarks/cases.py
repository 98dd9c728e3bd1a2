"""The cases of `python -m benchmarks --beside`: public names of fallline alone, so that they run on any checkout.

Rates are so small that parameters stay where they are: all steps are alike, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, cycle
from typing import NamedTuple

import ml_dtypes
import numpy as np

import fallline as fl
from benchmarks.ours import Step, arrays, ours, ours_update, ours_update_out, tree
from benchmarks.sizes import ONE, SIZES, Shapes

__all__ = ["CASES", "Case"]

LR = 1e-9
RING = 16  # trees of parameters, each stepped in its turn
MIDDLE: Shapes = [(100,)] * 150


class Case(NamedTuple):
    """What is stepped, and how: a function of it that returns a function which takes one step."""

    shapes: Shapes
    make: Callable[[Shapes], Step]


def _around(shapes: Shapes) -> fl.Optimizer:
    """Modifiers around a partition of two, each of which has every other leaf."""
    parts = fl.partition({"even": fl.Adam(LR), "odd": fl.SGD(LR)}, ["even", "odd"] * (len(shapes) // 2))
    return fl.chain(fl.clip_norm(1.0), parts, fl.weight_decay(0.01))


def _elsewhere(shapes: Shapes) -> Step:
    """Parameters that are other arrays than those of the last steps."""
    optimizer, g, ring = fl.Adam(LR), tree(shapes, 1), cycle([tree(shapes, 0) for _ in range(RING)])
    return lambda: optimizer.step(next(ring), g)


def _rate_set(shapes: Shapes) -> Step:
    """A rate assigned before each step, another one each time."""
    optimizer, w, g, steps = fl.Adam(LR), tree(shapes, 0), tree(shapes, 1), count(1)

    def step() -> None:
        optimizer.lr = LR / next(steps)
        optimizer.step(w, g)

    return step


def _own_gradients(shapes: Shapes) -> Step:
    optimizer, w = fl.Adam(LR), tree(shapes, 0)
    return lambda: optimizer.step(w, w)


def _every_other(shapes: Shapes) -> Step:
    """A view of every other coordinate of the parameters."""
    optimizer, w, g = fl.Adam(LR), arrays(shapes, 0)[0][::2], arrays(shapes, 1)[0][::2].copy()
    return lambda: optimizer.step(w, g)


def _without(shapes: Shapes, *left_out: int) -> Step:
    """No gradients for the even leaves (0) or the odd ones (1), by turns."""
    optimizer, w, g = fl.Adam(LR), tree(shapes, 0), tree(shapes, 1)
    turns = cycle([[None if k % 2 == out else leaf for k, leaf in enumerate(g)] for out in left_out])
    return lambda: optimizer.step(w, next(turns))


def _ten_steps(make: Callable[[Shapes], fl.Optimizer]) -> Callable[[Shapes], Step]:
    """The first ten steps of a new optimizer, as one."""

    def making(shapes: Shapes) -> Step:
        w, g = tree(shapes, 0), tree(shapes, 1)

        def steps() -> None:
            optimizer = make(shapes)
            for _ in range(10):
                optimizer.step(w, g)

        return steps

    return making


CASES = {
    **{size: Case(shapes, lambda s: ours(fl.Adam(LR), s)) for size, shapes in SIZES.items()},
    "150 x 100": Case(MIDDLE, lambda s: ours(fl.Adam(LR), s)),
    "150 x 20,000": Case([(20_000,)] * 150, lambda s: ours(fl.Adam(LR), s)),
    "1 x 100, update": Case(ONE["1 x 100"], lambda s: ours_update(fl.Adam(LR), s)),
    "1 x 100, update out=": Case(ONE["1 x 100"], lambda s: ours_update_out(fl.Adam(LR), s)),
    "1 x 100, cosine": Case(ONE["1 x 100"], lambda s: ours(fl.Adam(fl.schedules.cosine(LR, steps=10**9)), s)),
    "150 x 100, LAMB": Case(MIDDLE, lambda s: ours(fl.LAMB(LR), s)),
    "150 x 100, around a partition": Case(MIDDLE, lambda s: ours(_around(s), s)),
    "150 x 100, lr set at each step": Case(MIDDLE, _rate_set),
    "1 x 1e4, other arrays at each step": Case(ONE["1 x 1e4"], _elsewhere),
    "150 x 100, other arrays at each step": Case(MIDDLE, _elsewhere),
    "1 x 1e4, step(w, w)": Case(ONE["1 x 1e4"], _own_gradients),
    "200 Python floats": Case([()] * 200, lambda s: ours(fl.Adam(LR), s, float)),
    "1,000 by 1,000, Fortran order": Case([(1000, 1000)], lambda s: ours(fl.Adam(LR), s, np.asfortranarray)),
    "1 x 1e6, every other coordinate": Case(ONE["1 x 1e6"], _every_other),
    "150 x 100, half without gradients": Case(MIDDLE, lambda s: _without(s, 0)),
    "150 x 100, either half without": Case(MIDDLE, lambda s: _without(s, 0, 1)),
    "1 x 1e5, lr an array": Case(ONE["1 x 1e5"], lambda s: ours(fl.Adam(np.full(s[0], LR, np.float32)), s)),
    "1 x 1e5, accumulate 4": Case(ONE["1 x 1e5"], lambda s: ours(fl.accumulate(4, fl.Adam(LR)), s)),
    "1 x 1e5, complex128": Case(ONE["1 x 1e5"], lambda s: ours(fl.Adam(LR), s, lambda a: (1 + 1j) * a.astype(complex))),
    "1 x 1e6, float16": Case(ONE["1 x 1e6"], lambda s: ours(fl.Adam(LR), s, lambda a: a.astype(np.float16))),
    "1 x 1e6, bfloat16": Case(ONE["1 x 1e6"], lambda s: ours(fl.Adam(LR), s, lambda a: a.astype(ml_dtypes.bfloat16))),
    "ten first steps, 1 x 100": Case(ONE["1 x 100"], _ten_steps(lambda s: fl.Adam(LR))),
    "ten first steps, 150 x 100": Case(MIDDLE, _ten_steps(lambda s: fl.Adam(LR))),
    "ten first steps, around a partition": Case(MIDDLE, _ten_steps(_around)),
}  # fmt: skip
