"""When a run of `descend` is to end by its values, and what is said then."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.namespaces import all_true
from fallline._formula.settings import holds_function
from fallline._loops.walk import Point, stops
from fallline._optimizer.optimizer import Optimizer

__all__ = ["DOWNHILL", "UPHILL", "Patience", "Status", "as_array", "climbs"]


class Status(Enum):
    """Why `descend` stopped; the values are the messages, to be filled with the run's numbers."""

    STEPS = "took all {taken} steps: raise steps if the values still fall"
    TARGET = "reached the target {target:.6g} with value {value:.6g} after {t} steps: {lower} target to go on"
    PATIENCE = "no value {best} in the last {patience} steps: lower {rate} to go {deeper}, or raise patience"
    CALLBACK = "the callback raised StopIteration after {t} steps"
    DIVERGED = "diverged after {t} steps: {trouble}; lower {rate}, or clip the gradient with fallline.clip_value"


DOWNHILL = {"lower": "lower", "deeper": "deeper"}
UPHILL = {"lower": "raise", "deeper": "higher"}


GATHERED, STOOD, MOVED = range(3)  # before a value: no step was taken, one of length 0, one of another


class Patience:
    """A judge of `descend`, by the values.

    One who stays where he is, as between the calls of `accumulate` and at a rate of 0, has looked for no better place:
    such values do not count, unless he stands still for as long as the patience lasts and no schedule can move him.
    Without patience nobody looks whether a step moved anything.
    """

    def __init__(
        self, optimizer: Optimizer, uphill: bool, target: float | None, patience: int | None,
        callback: Callable[[Point], Any] | None,
    ) -> None:  # fmt: skip
        self._sign = -1.0 if uphill else 1.0
        self._target = -math.inf if target is None else self._sign * target
        self._patience, self._optimizer, self._callback = patience, optimizer, callback
        self._best, self._waited, self._stood, self._met = math.inf, 0, 0, 0
        self._moves: list[int] = []  # before each value, and before the coming one if that is known already
        self._before: tuple[int, Any] | None = None  # how often it had stepped, and where it stood at the last value

    def recall(self, arrays: Mapping[str, np.ndarray], params: Any) -> None:
        """Judge on with the memory of a walk before, and its values, from these parameters."""
        values = arrays["values"]
        self._moves = arrays.get("moves", np.full(len(values), MOVED)).tolist()
        for value in values.tolist():
            self._meet(value)

    def memory(self, taken: int, params: Any) -> dict[str, Any]:
        """What came before each of the values of the steps taken, and before the next, at these parameters."""
        known = self._moves[: taken + 1]
        return {"moves": np.array(known if len(known) > taken else [*known, self._move(params)], np.uint8)}

    def ends(self, point: Point) -> Status | None:
        """Why the walk is over at this point; None if it goes on."""
        value = math.nan if point.value is None else point.value
        skips = self._optimizer.nonfinite == "skip" and point.grad is not None
        if point.value is not None and not math.isfinite(value) and not skips:
            return Status.DIVERGED
        if self._callback is not None and stops(self._callback, point):
            return Status.CALLBACK
        if point.value is None and (self._patience is not None or self._target > -math.inf):
            raise TypeError("value_and_grad of descend returned no value (None), but target and patience need "
                            "values: leave them out, or return (value, gradient).")
        if len(self._moves) == self._met:
            self._moves.append(self._move(point.params))
        if self._before is None or self._moves[self._met] != GATHERED:
            self._before = self._optimizer.t, None if self._patience is None else trees.copy(point.params)
        self._meet(value)
        if self._sign * value <= self._target:
            return Status.TARGET
        return Status.PATIENCE if self._patience is not None and self._is_over(self._patience) else None

    def _is_over(self, patience: int) -> bool:
        if self._waited >= patience:
            return True
        return self._stood >= max(patience, 2) and not any(map(holds_function, self._optimizer.hyper.values()))

    def _move(self, params: Any) -> int:
        if self._before is None:
            return MOVED
        t, then = self._before
        if t == self._optimizer.t:
            return GATHERED
        if self._patience is None:
            return MOVED
        return STOOD if all(self._optimizer._stepper.others.each(_same, then, params)) else MOVED

    def _meet(self, value: float) -> None:
        move = self._moves[self._met]
        self._stood = self._stood + 1 if move == STOOD else self._stood if move == GATHERED else 0
        if self._sign * value < self._best:
            self._best, self._waited = self._sign * value, 0
        else:
            self._waited += move == MOVED
        self._met += 1


def _same(tree: Any, other: Any) -> bool:
    pairs = zip(map(as_array, trees.flatten(tree)[0]), map(as_array, trees.flatten(other)[0]))
    return all(a is b or all_true(a == b) for a, b in pairs)


def climbs(optimizer: Optimizer, what: str) -> bool:
    """Whether an optimizer climbs (`maximize`), and the best value is the highest; ValueError where parts differ."""
    ways = optimizer._chain.uphill
    if len(ways) > 1:
        raise ValueError(
            f"{what} needs a best value, but some parts climb and others descend: {optimizer._chain.title}. "
            "Leave it out, or step them in a loop of your own."
        )
    return ways == {True}


def as_array(leaf: Any) -> Any:
    return np.float64(leaf) if isinstance(leaf, (int, float)) else leaf
