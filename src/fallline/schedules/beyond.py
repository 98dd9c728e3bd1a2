"""Schedules without a fixed shape: one that depends on values, the weights of a mean, and one after another."""
# ruff: noqa: N801  (they are called as functions are)

from __future__ import annotations

import itertools
import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from fallline._messages.callables import check_schedule
from fallline._messages.values import brief
from fallline.schedules.base import (
    Count,
    Function,
    Length,
    Level,
    Schedule,
    Share,
    Value,
    behind,
    check_boundaries,
    made,
)
from fallline.schedules.shapes import linear, step  # noqa: F401  (the doctest)
from fallline.schedules.words import maximum

__all__ = ["join", "mean_since", "plateau"]

_UNHEARD = (0.0,) * 6


@made
class plateau(Schedule):
    """Multiply by `factor` whenever the values have not fallen for a while (or risen, if the optimizer climbs).

    `descend` and `minimize` report the value of each point after the step from it; in your own loop call
    `opt.hear(value)`, at every step or once per epoch. A value is better if it is below the best by more than
    `threshold` times the best; a value that is not finite is never better. States and checkpoints include the values'
    record.

    Like torch's ReduceLROnPlateau, whose min_lr is `end`, with two differences: if the best value is below 0, torch
    applies the threshold in the other direction, and it ignores changes of less than 1e-8. `window` is optax's
    accumulation_size.

    >>> import fallline as fl
    >>> opt = fl.SGD(plateau(0.1, factor=0.5, patience=1))
    >>> for value in (3.0, 2.0, 2.0, 2.0):
    ...     opt.hear(value)
    >>> opt.lr(opt.t)
    0.05
    """

    peak: Level
    factor: Share = 0.1
    patience: Count = 10
    threshold: Level = 1e-4
    cooldown: Count = 0
    window: Length = 1
    end: Level = 0.0
    warmup: Count = 0
    heard: Sequence[Value] = ()

    def _check(self) -> None:
        self._require(len(self.heard) in (0, 6, 7), "heard", "what a state has of it", self.heard)

    def _after(self, s: Any) -> Any:
        reductions = self.heard[0] if self.heard else 0
        return max(self.peak * self.factor**reductions, min(self.end, self.peak))

    @property
    def hears(self) -> bool:
        """Whether it depends on values: it does."""
        return True

    def _hear(self, value: float, t: int) -> None:
        reductions, waited, resting, count, finite, total, *best = self.heard or _UNHEARD
        count += 1
        if math.isfinite(value):
            largest = sys.float_info.max  # a state has no infinities
            finite, total = finite + 1, min(max(total + value, -largest), largest)
        if count >= self.window:
            mean = total / finite if finite else math.inf
            better = math.isfinite(mean) and (not best or mean < best[0] - self.threshold * abs(best[0]))
            best, waited = ([mean], 0.0) if better else (best, waited + 1)
            if resting:
                resting, waited = resting - 1, 0.0
            if waited > self.patience:
                reductions, resting, waited = reductions + 1, float(self.cooldown), 0.0
            count = finite = total = 0.0
        object.__setattr__(self, "heard", (reductions, waited, resting, count, finite, total, *best))

    def _forget(self) -> None:
        object.__setattr__(self, "heard", ())

    def _extent(self) -> int:
        return max(100, 2 * self.warmup)


@made
class mean_since(Schedule):
    """Make `average` the plain mean of all points from a step on, like torch's AveragedModel.

    The decay is n/(n + 1) if n points are averaged already, and 0 before: `fl.average(mean_since(1000))` is the mean of
    the parameters after steps 1001, 1002, ... For an exponential average from a step on, use
    `piecewise([0.0, 0.999], boundaries=[1000])`.

    >>> [mean_since(2)(t) for t in range(6)]
    [0.0, 0.0, 0.0, 0.5, 0.6666666666666666, 0.75]
    """

    after: Count

    def _after(self, s: Any) -> Any:
        n = maximum(s - self.after, 0)
        return n / (n + 1)

    def _extent(self) -> int:
        return 2 * self.after + 100


@made
class join(Schedule):
    """Use one schedule after another: from t = `boundaries[k]` on `schedules[k + 1]`, which begins at its own t = 0.

    Same as optax's join_schedules and torch's SequentialLR. To switch to another schedule at the current step of a run,
    set `opt.lr = join([opt.lr, another], boundaries=[opt.t])`. The schedules can include your own functions; to load a
    checkpoint that contains one, pass it again.

    >>> schedule = join([linear(0.0, steps=2, end=1.0), step(1.0, every=1)], boundaries=[2])
    >>> [round(schedule(t), 3) for t in range(5)]
    [0.0, 0.5, 1.0, 0.1, 0.01]
    """

    schedules: Sequence[Function]
    boundaries: Sequence[Length]

    def _check(self) -> None:
        for k, schedule in enumerate(self.schedules):
            check_schedule(schedule, f"schedules[{k}] of join")
            if self.hears and not isinstance(schedule, Schedule):
                raise TypeError("schedules of join cannot be functions of one's own beside a plateau, as a checkpoint "
                                f"could not hold what that one has heard. Got {brief(schedule)}.")
        check_boundaries(self, self.boundaries, len(self.schedules), "schedules")

    def _after(self, s: Any) -> Any:
        schedule, own = self._at(s)
        return schedule(own)

    def _traced(self, t: Any) -> Any:
        """The values of all, each at a count that it is asked for anyway, and of these the one that is due."""
        jnp = sys.modules["jax"].numpy
        begins = [0, *(b for b in self.boundaries if b <= jnp.iinfo(t.dtype).max)]  # those that t can reach
        found: Any = 0.0
        for schedule, begin, beyond in itertools.zip_longest(self.schedules[: len(begins)], begins, begins[1:]):
            own = jnp.clip(t, begin, beyond and beyond - 1) - begin
            found = jnp.where(t >= begin, schedule(own), found)
        return jnp.asarray(found, float)

    def _at(self, s: int) -> tuple[Callable[[int], float], int]:
        """The schedule that it is at, and the steps of that one."""
        k = bisect_right(self.boundaries, s)
        return self.schedules[k], s - self.boundaries[k - 1] if k else s

    @property
    def hears(self) -> bool:
        """Whether one of them depends on values."""
        return any(getattr(schedule, "hears", False) for schedule in self.schedules)

    def _hear(self, value: float, t: int) -> None:
        schedule, own = self._at(t)
        if isinstance(schedule, Schedule):
            schedule._hear(value, own)

    def _forget(self) -> None:
        for schedule in self.schedules:
            if isinstance(schedule, Schedule):
                schedule._forget()

    def _extent(self) -> int:
        last = self.schedules[-1]
        begin = self.boundaries[-1] if self.boundaries else 0
        return begin + last._extent() if isinstance(last, Schedule) else behind(self.boundaries)
