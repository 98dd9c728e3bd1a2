"""What is to be reached, computed from what one run measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks import jax_loops, loops
from benchmarks.chains import ALL
from benchmarks.contenders import LIMIT, OURS
from benchmarks.measure import Measured
from benchmarks.process import FIRST_STEP, IMPORT
from benchmarks.rules import STEP
from fallline._optimizer.named import TEN

__all__ = ["BARS", "Bar"]

MOST, LEAST = "at most", "at least"


class Bar(NamedTuple):
    """At most, or at least, so much of a value; to ask for the value is a KeyError if it was not measured."""

    text: str
    value: Callable[[Measured], float]
    word: str
    bar: float
    unit: str = ""

    def met(self, value: float) -> bool:
        """Whether this value is good enough."""
        return value <= self.bar if self.word == MOST else value >= self.bar


def _ratio(size: str, numerator: str, denominator: str, word: str, bar: float) -> Bar:
    return Bar(f"{size}: {numerator} / {denominator}",
               lambda m: m.steps[size][numerator].median / m.steps[size][denominator].median, word, bar)  # fmt: skip


def _rule(name: str, size: str, bar: float) -> Bar:
    return Bar(f"{size}: {name} / its limit",
               lambda m: m.rules[name, size][STEP].median / m.rules[name, size][LIMIT].median, MOST, bar)  # fmt: skip


def _chain(name: str, size: str, bar: float) -> Bar:
    return Bar(f"{size}: {name} / its limit",
               lambda m: m.chains[name, size][STEP].median / m.chains[name, size][LIMIT].median, MOST, bar)  # fmt: skip


def _loop(size: str, numerator: str, denominator: str, bar: float) -> Bar:
    return Bar(f"torch loop, {size}: {numerator} / {denominator}",
               lambda m: m.loops[size][numerator].median / m.loops[size][denominator].median, MOST, bar)  # fmt: skip


def _jax_loop(size: str, numerator: str, bar: float) -> Bar:
    return Bar(f"JAX loop, {size}: {numerator} / {jax_loops.OPTAX}",
               lambda m: m.jax_loops[size][numerator].median / m.jax_loops[size][jax_loops.OPTAX].median, MOST,
               bar)  # fmt: skip


def _added(size: str, more: str, less: str, bar: float) -> Bar:
    return Bar(f"{size}: {more} - {less}",
               lambda m: 1e6 * (m.steps[size][more].median - m.steps[size][less].median), MOST, bar, " us")  # fmt: skip


def _starting(what: str, bar: float) -> Bar:
    return Bar(f"new process: {what}", lambda m: 1e3 * m.starting[what].median, MOST, bar, " ms")


def _peak(size: str, bar: float) -> Bar:
    return Bar(f"{size}: peak memory of a step beyond parameters, gradient and state", lambda m: m.peak[size], MOST,
               bar, " MiB")  # fmt: skip


BARS = (
    *(_rule(name, "1 x 1e8", 1.05) for name in TEN),
    _chain(ALL, "1 x 1e8", 1.15),
    _ratio("1 x 1e8, peers", OURS, "torch fused", MOST, 1.05),
    _ratio("1 x 1e7", OURS, "torch fused", MOST, 1.05),
    _ratio("1 x 1e6", OURS, "torch fused", MOST, 0.7),
    _ratio("1 x 1e5", OURS, "torch fused", MOST, 0.7),
    _ratio("1 x 1e6", "torch default", OURS, LEAST, 5),
    _ratio("1 x 1e8, peers", "torch default", OURS, LEAST, 7),
    _ratio("1 x 1e6", "NumPy listing", OURS, LEAST, 10),
    _ratio("1 x 1e6", "NumPy listing, update", "fallline update", LEAST, 6),
    _ratio("1 x 1e8", "fallline update, out=", OURS, MOST, 1.25),
    _ratio("1 x 1e8", "fallline, checked", OURS, MOST, 1.25),
    _added("1 x 100", "fallline, checked", OURS, 1),
    _ratio("1,000 x 100", "torch fused", OURS, LEAST, 20),
    _ratio("1,000 x 100", "torch fused", "fallline, new gradients", LEAST, 20),
    _ratio("1,000 x 10,000", "torch fused", OURS, LEAST, 1.8),
    _ratio("1 x 100", OURS, "NumPy in place", MOST, 0.7),
    _ratio("1 x 100", "torch fused", OURS, LEAST, 7),
    _loop("150, 25 M", loops.CHECKED, loops.FUSED, 0.9),
    _loop("150, 25 M", loops.OURS, loops.FUSED, 0.7),
    _loop("150 x 100", loops.CHECKED, loops.FUSED, 1.0),
    _loop(loops.CONVOLUTIONS, loops.CHECKED + loops.CHANNELS_LAST, loops.CHECKED, 1.2),
    _jax_loop("60, 12 M", jax_loops.DIALECT, 1.1),
    _jax_loop("60, 12 M", jax_loops.ARTICLE, 1.1),
    _jax_loop("50 x 100", jax_loops.CHECKED, 3),
    _starting(FIRST_STEP, 120),
    _starting(IMPORT, 30),
    _peak("1 x 1e8", 8),
)  # fmt: skip
