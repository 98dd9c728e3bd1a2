"""When a run of `descend` is to end by its values, and what is said then."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.namespaces import all_true
from fallline._formula.settings import holds_function
from fallline._optimizer.optimizer import Optimizer

__all__ = ["DOWNHILL", "UPHILL", "Judge", "Status", "as_array", "climbs"]


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


class Judge:
    """Whether the values of a run say that it is to end. It begins with those that are known, in `values`, and what
    came before each, in `moves`, where that of the coming value may be known already.

    One who stays where he is, as between the calls of `accumulate` and at a rate of 0, has looked for no better place:
    such values do not count, unless he stands still for as long as the patience lasts and no schedule can move him.
    Without patience nobody looks whether a step moved anything.
    """

    def __init__(
        self, values: list[float], moves: list[int], uphill: bool, target: float | None, patience: int | None,
        optimizer: Optimizer,
    ) -> None:  # fmt: skip
        self._sign = -1.0 if uphill else 1.0
        self._target = -math.inf if target is None else self._sign * target
        self._patience, self._optimizer = patience, optimizer
        self._best, self._waited, self._stood, self._met = math.inf, 0, 0, 0
        self._moves = moves
        self._before: tuple[int, Any] | None = None  # how often it had stepped, and where it stood at the last value
        for value in values:
            self._meet(value)

    @property
    def asks(self) -> bool:
        """Whether values are asked for."""
        return self._patience is not None or self._target > -math.inf

    def ends(self, value: float, params: Any) -> Status | None:
        """What a value at these parameters says."""
        if len(self._moves) == self._met:
            self._moves.append(self._move(params))
        if self._before is None or self._moves[self._met] != GATHERED:
            self._before = self._optimizer.t, None if self._patience is None else trees.copy(params)
        self._meet(value)
        if self._sign * value <= self._target:
            return Status.TARGET
        return Status.PATIENCE if self._patience is not None and self._is_over(self._patience) else None

    def _is_over(self, patience: int) -> bool:
        if self._waited >= patience:
            return True
        return self._stood >= max(patience, 2) and not any(map(holds_function, self._optimizer.hyper.values()))

    def moves(self, n: int, params: Any) -> list[int]:
        """What came before each of the first n values, and before the next, at these parameters."""
        known = self._moves[: n + 1]
        return known if len(known) > n else [*known, self._move(params)]

    def _move(self, params: Any) -> int:
        if self._before is None:
            return MOVED
        t, then = self._before
        if t == self._optimizer.t:
            return GATHERED
        return STOOD if self._patience is not None and _same(then, params) else MOVED

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
            f"{what} looks for the best value, and there is none where some parts climb and others descend: "
            f"{optimizer._chain.title}. Leave it out, or step them in a loop of your own."
        )
    return ways == {True}


def as_array(leaf: Any) -> Any:
    return np.float64(leaf) if isinstance(leaf, (int, float)) else leaf
