"""The schedules by name; `fallline.schedules` says what they have in common."""
# ruff: noqa: N801  (they are called as functions are)

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import field
from typing import Any

from fallline.schedules.base import (
    Count,
    Factor,
    Length,
    Level,
    Schedule,
    Span,
    Value,
    behind,
    check_boundaries,
    made,
)
from fallline.schedules.words import cos, maximum, minimum, piece, power, sqrt, where, within

__all__ = ["constant", "cosine", "cosine_restarts", "exponential", "inverse_sqrt", "linear", "one_cycle", "piecewise",
           "polynomial", "step", "warmup_stable_decay"]  # fmt: skip


def _mixed(first: Any, last: Any, share: Any) -> Any:
    """`share` of the first value and the rest of the last: exactly the first at 1, never beyond the two."""
    return within(share * first + (1 - share) * last, first, last)


def _half_cosine(first: Any, last: Any, x: Any) -> Any:
    """From the first value at x = 0 to the last at x = 1."""
    return _mixed(first, last, (1 + cos(math.pi * x)) / 2)


@made
class constant(Schedule):
    """Keep one value after warmup.

    For torch's ConstantLR, which holds a factor for some steps first, use `piecewise`.

    >>> [constant(0.1, warmup=2)(t) for t in range(4)]
    [0.0, 0.05, 0.1, 0.1]
    """

    value: Value
    warmup: Count = 0

    def _after(self, s: Any) -> Any:
        return self.value

    def _extent(self) -> int:
        return max(100, 2 * self.warmup)


@made
class piecewise(Schedule):
    """Keep a constant value between boundaries: `values[k + 1]` from t = `boundaries[k]` on.

    Like torch's MultiStepLR and optax's piecewise_constant_schedule, but with the values themselves instead of factors.
    (Keras's PiecewiseConstantDecay changes one step later.)

    >>> [piecewise([1.0, 0.1, 0.01], boundaries=[2, 3])(t) for t in range(5)]
    [1.0, 1.0, 0.1, 0.01, 0.01]
    """

    values: Sequence[Value]
    boundaries: Sequence[Length]
    warmup: Count = 0

    def _check(self) -> None:
        check_boundaries(self, self.boundaries, len(self.values), "values")
        for first in self.boundaries[:1]:
            self._require(first > self.warmup, "boundaries[0]", f"more than warmup, {self.warmup}", first)

    def _after(self, s: Any) -> Any:
        return piece(self.values, self.boundaries, s + self.warmup)

    def _extent(self) -> int:
        return behind(self.boundaries)


class _Descent(Schedule):
    """From the peak, when warmup is over, to the end at t = steps."""

    peak: float
    steps: int
    end: float

    def _check(self) -> None:
        self._require(self.steps > self.warmup, "steps", f"more than warmup, {self.warmup}, which it includes",
                      self.steps)

    def _after(self, s: Any) -> Any:
        length = self.steps - self.warmup
        before = s < length
        if before is False:  # known now, and no more to compute
            return self.end
        return where(before, self._at(minimum(s, length - 1), length), self.end)

    def _at(self, s: Any, length: int) -> Any:
        """The value s steps after the end of warmup, before the end, which is `length` steps after it."""
        raise NotImplementedError

    def _extent(self) -> int:
        return self.steps


@made
class linear(_Descent):
    """Go from peak to end in a straight line.

    Same as optax's linear_schedule; without warmup as torch's LinearLR, with factors from peak/lr to end/lr. If `end`
    is above the peak, the value rises.

    >>> [linear(1.0, steps=6, warmup=2)(t) for t in range(8)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    peak: Value
    steps: Length
    warmup: Count = 0
    end: Value = 0.0

    def _at(self, s: Any, length: int) -> Any:
        return _mixed(self.peak, self.end, (length - s) / length)


@made
class polynomial(_Descent):
    """Go from peak to end as a power: end + (peak − end)·(share of steps left)^power.

    Same as torch's PolynomialLR, which ends at 0, and optax's polynomial_schedule.

    >>> [polynomial(1.0, steps=4, power=2.0)(t) for t in range(5)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    peak: Value
    steps: Length
    warmup: Count = 0
    end: Value = 0.0
    power: Factor = field(default=1.0, kw_only=True)

    def _at(self, s: Any, length: int) -> Any:
        return _mixed(self.peak, self.end, power((length - s) / length, self.power))


@made
class cosine(_Descent):
    """Go from peak to end along half a cosine: end + (peak − end)·(1 + cos(π·s/n))/2 at step s of n after warmup.

    Same as optax's warmup_cosine_decay_schedule(0, peak, warmup, steps, end). Without warmup, same as torch's
    CosineAnnealingLR up to its T_max; there torch's turns back up, and this one stays. Source: Loshchilov & Hutter
    2017, arXiv 1608.03983, without restarts.

    >>> schedule = cosine(1e-3, steps=10_000, warmup=500)
    >>> schedule
    cosine(peak=0.001, steps=10000, warmup=500, end=0.0)
    >>> schedule(0), schedule(500), schedule(5250), schedule(10_000)
    (0.0, 0.001, 0.0005, 0.0)
    """

    peak: Value
    steps: Length
    warmup: Count = 0
    end: Value = 0.0

    def _at(self, s: Any, length: int) -> Any:
        return _half_cosine(self.peak, self.end, s / length)


@made
class cosine_restarts(Schedule):
    """Repeat half cosines from peak to end: SGDR's warm restarts.

    Same as torch's CosineAnnealingWarmRestarts. For optax's sgdr_schedule, where each descent can differ, `join`
    several `cosine`s. Source: Loshchilov & Hutter 2017, arXiv 1608.03983.

    >>> [round(cosine_restarts(1.0, period=2, growth=2)(t), 3) for t in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    peak: Value
    period: Length
    warmup: Count = 0
    end: Value = 0.0
    growth: Length = field(default=1, kw_only=True)

    def _after(self, s: Any) -> Any:
        if self.growth == 1:
            return _half_cosine(self.peak, self.end, s % self.period / self.period)
        begin, length = piece(*_descents(self.period, self.growth), s)
        return _half_cosine(self.peak, self.end, (s - begin) / length)

    def _extent(self) -> int:
        return self.warmup + sum(self.period * self.growth**k for k in range(3))


@functools.cache
def _descents(period: int, growth: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Where each descent begins and its length, and where each but the first does, up to steps that nobody counts."""
    begins = [0]
    while begins[-1] < 2**64:
        begins.append(begins[-1] + period)
        period *= growth
    return [(a, b - a) for a, b in itertools.pairwise(begins)], begins[1:-1]


class _Geometric(Schedule):
    """Multiplied by a factor, over and over, until the end is reached."""

    peak: float
    factor: float
    every: int
    end: float

    def _check(self) -> None:
        if self.factor > 1:
            self._require(self.end >= self.peak, "end", f"given, and at least peak, {self.peak}, as factor is over 1",
                          self.end)
        else:
            self._require(self.end <= self.peak, "end", f"at most peak, {self.peak}, as factor is not over 1", self.end)

    def _times(self, n: Any) -> Any:
        """The value after n factors."""
        value = self.peak * power(self.factor, n)  # 0·∞ is NaN, and that is the end
        return minimum(self.end, value) if self.factor > 1 else maximum(value, self.end)

    def _extent(self) -> int:
        factors = 5.0
        if self.peak and self.factor != 1:  # until it is at its end, or at a thousandth
            factors = 1.1 * math.log(max(self.end / self.peak, 1e-3)) / math.log(self.factor)
        return self.warmup + math.ceil(self.every * min(max(factors, 1.0), 1e12))


@made
class exponential(_Geometric):
    """Decay exponentially: peak·factor^(s/every), s steps after warmup, but not beyond end.

    Same as optax's exponential_decay with `factor` for decay_rate and `every` for transition_steps, and as torch's
    ExponentialLR with every=1.

    >>> [exponential(1.0, factor=0.5, end=0.2)(t) for t in range(5)]
    [1.0, 0.5, 0.25, 0.2, 0.2]
    """

    peak: Level
    factor: Factor
    warmup: Count = 0
    end: Level = 0.0
    every: Length = field(default=1, kw_only=True)

    def _after(self, s: Any) -> Any:
        return self._times(s / self.every)


@made
class step(_Geometric):
    """Multiply by `factor` after every `every` steps, but not beyond end.

    Same as torch's StepLR, and as optax's exponential_decay with staircase=True.

    >>> [round(step(1.0, every=2)(t), 3) for t in range(5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """

    peak: Level
    every: Length
    warmup: Count = 0
    end: Level = 0.0
    factor: Factor = field(default=0.1, kw_only=True)

    def _after(self, s: Any) -> Any:
        return self._times(s // self.every)


@made
class inverse_sqrt(Schedule):
    """Decay like 1/√t: peak/√(1 + s/timescale), s steps after warmup; peak·√(warmup/t) if timescale is warmup.

    The default timescale is warmup, or 10,000 steps without warmup (both as in Hugging Face's transformers). Vaswani et
    al. 2017, arXiv 1706.03762, count from 1: their value in step n is the value at t = n, with peak
    (d_model·warmup)^−½.

    >>> [inverse_sqrt(1.0, warmup=4)(t) for t in (0, 2, 4, 16, 64)]
    [0.0, 0.5, 1.0, 0.5, 0.25]
    """

    peak: Value
    warmup: Count = 0
    timescale: Length = field(default=None, kw_only=True)  # type: ignore[assignment]  # see _default

    def _default(self, name: str) -> int:
        return self.warmup or 10_000

    def _after(self, s: Any) -> Any:
        return self.peak * sqrt(self.timescale / (self.timescale + s))

    def _extent(self) -> int:
        return self.warmup + 10 * self.timescale


@made
class one_cycle(_Descent):
    """Rise along half a cosine from start to peak, and fall along another to end.

    Defaults: `rise` 0.3 of the steps after warmup, `start` peak/25, `end` peak/250,000. Same as optax's
    cosine_onecycle_schedule. In torch's OneCycleLR(total_steps=n) each phase is a step shorter: it is one_cycle with
    steps = n − 1 and rise = pct_start·n − 1, which may lie between two steps. For a cycle of three straight lines,
    `join` three `linear`s.
    Source: Smith & Topin 2018, arXiv 1708.07120, with straight lines; the cosines are fastai's.

    >>> schedule = one_cycle(1.0, steps=10)
    >>> schedule
    one_cycle(peak=1.0, steps=10, warmup=0, end=4e-06, start=0.04, rise=3)
    >>> schedule(0), schedule(3), schedule(10)
    (0.04, 1.0, 4e-06)
    """

    peak: Value
    steps: Length
    warmup: Count = 0
    end: Value = None  # type: ignore[assignment]  # see _default
    start: Value = field(default=None, kw_only=True)  # type: ignore[assignment]
    rise: Span = field(default=None, kw_only=True)  # type: ignore[assignment]

    def _default(self, name: str) -> float:
        if name == "rise":
            return int(0.3 * max(0, self.steps - self.warmup))
        return self.peak / 25 if name == "start" else self.peak / 250_000

    def _check(self) -> None:
        super()._check()
        most = self.steps - self.warmup
        self._require(self.rise <= most, "rise", f"at most {most}, the steps after warmup", self.rise)

    def _at(self, s: Any, length: int) -> Any:
        first, last, begin, span = where(s < self.rise, (self.start, self.peak, 0, self.rise),
                                         (self.peak, self.end, self.rise, length - self.rise))  # fmt: skip
        return _half_cosine(first, last, (s - begin) / span)


@made
class warmup_stable_decay(_Descent):
    """Keep the peak until the last `decay` steps, then go to end in a straight line.

    Same as transformers' get_wsd_schedule with decay_type="linear". For another descent use `join`, as in
    join([constant(1e-3, warmup=500), cosine(1e-3, steps=2_000)], boundaries=[8_000]).
    Source: Hu et al. 2024, arXiv 2404.06395, who leave the shape of the descent open.

    >>> [warmup_stable_decay(1.0, steps=8, warmup=2, decay=4)(t) for t in range(9)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    peak: Value
    steps: Length
    warmup: Count = 0
    end: Value = 0.0
    decay: Length = field(kw_only=True)

    def _check(self) -> None:
        super()._check()
        most = self.steps - self.warmup
        self._require(self.decay <= most, "decay", f"at most {most}, the steps after warmup", self.decay)

    def _at(self, s: Any, length: int) -> Any:
        return _mixed(self.peak, self.end, minimum(length - s, self.decay) / self.decay)
