"""A schedule of every kind, any schedules, and the values of one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

import fallline as fl

S = fl.schedules
N = 240  # steps of the comparisons
SHAPES = [getattr(S, name) for name in S.__all__ if name not in ("Schedule", "plot")]

EXAMPLES = {
    "constant": S.constant(0.1, warmup=7),
    "piecewise": S.piecewise([0.3, 0.1, 0.2], [60, 180], warmup=20),
    "linear": S.linear(0.1, steps=200, warmup=20, end=0.01),
    "polynomial": S.polynomial(0.1, steps=200, warmup=20, end=0.01, power=1.7),
    "cosine": S.cosine(0.1, steps=200, warmup=20, end=0.01),
    "cosine_restarts": S.cosine_restarts(0.1, period=30, growth=2, warmup=11, end=0.01),
    "exponential": S.exponential(0.1, factor=0.9, every=4, warmup=9, end=0.001),
    "step": S.step(0.1, every=40, factor=0.3, warmup=13, end=0.002),
    "inverse_sqrt": S.inverse_sqrt(0.1, warmup=25),
    "one_cycle": S.one_cycle(0.1, steps=200, warmup=15),
    "warmup_stable_decay": S.warmup_stable_decay(0.1, steps=200, warmup=20, decay=60, end=0.01),
    "mean_since": S.mean_since(30),
    "plateau": S.plateau(0.1, factor=0.3, patience=2, warmup=11, heard=(0, 1, 0, 0, 0, 0, -0.5)),
    "join": S.join([S.linear(0.01, steps=30, end=0.1), S.constant(0.1), S.cosine(0.1, steps=90)], [30, 120]),
}
every_schedule = pytest.mark.parametrize("schedule", EXAMPLES.values(), ids=EXAMPLES)
levels = st.floats(0, 1e300)


@st.composite
def drawn_schedules(draw, longest):
    """Levels a ≤ b ≤ c, and schedules that stay between them once they are warm, with counts up to the longest."""
    a, b, c = sorted(draw(st.tuples(levels, levels, levels)))
    n, warmup, k = draw(st.integers(1, longest)), draw(st.integers(0, longest)), draw(st.integers(1, longest))
    return (a, b, c), [
        S.constant(b, warmup), S.linear(b, n + warmup, warmup, c), S.linear(c, n + warmup, warmup, b),
        S.polynomial(c, n + warmup, warmup, b, power=draw(st.floats(1e-3, 1e3))),
        S.cosine(c, n + warmup, warmup, b), S.cosine(b, n + warmup, warmup, c),
        S.cosine_restarts(c, n, warmup, b, growth=draw(st.integers(1, 10))),
        S.exponential(c, draw(st.floats(1e-300, 1)), warmup, b, every=n),
        S.exponential(b, draw(st.floats(1.0000001, 1e300)), warmup, c, every=n),
        S.step(c, n, warmup, b, factor=draw(st.floats(1e-300, 1))), S.inverse_sqrt(c, warmup, timescale=n),
        S.one_cycle(c, n + warmup, warmup, a, start=b), S.warmup_stable_decay(c, n + k + warmup, warmup, b, decay=k),
        S.piecewise([b, c, a], [warmup + n, warmup + n + k], warmup),
        S.join([S.linear(b, n, end=c), S.linear(c, k, end=b)], [n]),
    ]  # fmt: skip


def values(schedule, n=N):
    return np.array([schedule(t) for t in range(n + 1)])
