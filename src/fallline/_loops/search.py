"""When a run of `minimize` is over, and which of its points is to be reported."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from fallline._arrays import trees
from fallline._loops.box import Box, largest, projected
from fallline._loops.objective import Objective, unknown
from fallline._loops.scipy_options import Options
from fallline._loops.walk import Point

__all__ = ["Search", "Status", "Trial", "all_finite"]


class Status(Enum):
    """Why `minimize` stopped; the values are the messages, to be filled with the run's numbers."""

    GTOL = "converged: the gradient norm {norm:.3g} is within gtol ({gtol:g}); lower gtol for more digits"
    FTOL = "converged: the value changed by no more than ftol ({ftol:g}), gradient norm {norm:.3g}; lower ftol to go on"
    XTOL = "converged: the step was no longer than xtol ({xtol:g}), gradient norm {norm:.3g}; lower xtol to go on"
    MAXITER = "stopped at maxiter ({maxiter}) with gradient norm {norm:.3g}: raise {rate} or maxiter"
    ROSE = "stopped at maxiter ({maxiter}) {above} the value at x0, with gradient norm {norm:.3g}: lower {rate}"
    REST = "came to rest after {nit} steps {above} the best value, where the gradient norm is {norm:.3g}: lower {rate}"
    CALLBACK = "`callback` raised `StopIteration` after {nit} steps, with gradient norm {norm:.3g}"
    DIVERGED = "diverged after {nit} steps: {trouble}; lower {rate}, or start nearer"
    START = "cannot start: {trouble} at x0; choose an x0 where fun and its gradient are finite"

    @property
    def code(self) -> int:
        """SciPy's integer: 0 is success, 99 what SciPy itself uses for a callback that stops."""
        return {"MAXITER": 1, "ROSE": 1, "REST": 1, "DIVERGED": 2, "START": 3, "CALLBACK": 99}.get(self.name, 0)


_TRIES = 5  # at a point where values and gradients are not finite, of an optimizer that skips such and stays there
_CONVERGED = (Status.GTOL, Status.FTOL, Status.XTOL)


class Trial(NamedTuple):
    """A point evaluated after t steps, with the max-norm of its projected gradient; a value of NaN where there is none.
    Its arrays are never changed again."""

    t: int
    x: Any
    fun: float
    jac: Any
    norm: float


class Search:
    """A judge of `minimize`, by the criteria of its options.

    `best` is the best finite point and `latest` the last one; once the walk is over, `found` is the one to report. With
    `compares` False, where batches differ, one value says nothing of another: then the last is the best. `told` tells
    the caller of a point, and whether to stop. The points go to `path`, as far as there is room.
    """

    best: Trial | None = None
    found: Trial
    latest: Trial

    def __init__(self, function: Objective, settings: Options, box: Box, uphill: bool, skips: bool, compares: bool,
                 told: Callable[[Trial], bool]) -> None:
        self.path: deque[Any] = deque(maxlen=None if settings.return_all else 0)
        self._function, self._settings, self._box, self._told = function, settings, box, told
        self._sign, self._skips, self._compares = -1.0 if uphill else 1.0, skips, compares
        self._first = math.nan  # the first value
        self._finite: list[Trial] = []  # the last two points that were finite
        self._calls: list[tuple[int, int, int]] = []  # of the last two points t, and the calls of fun and jac so far

    def ends(self, point: Point) -> Status | None:
        """Why the walk is over at this point; None if it goes on."""
        self._calls = [*(seen for seen in self._calls if seen[0] < point.t)][-1:]
        self._calls.append((point.t, self._function.nfev, self._function.njev))
        trial = self.latest = self._trial(point)
        self.path.append(trial.x)
        status = self._status(point, trial)
        self.found = trial if status in _CONVERGED else self.best or trial
        return status

    def _status(self, point: Point, trial: Trial) -> Status | None:
        settings, value, before = self._settings, point.value, [seen for seen in self._finite if seen.t < trial.t]
        last = before[-1] if before else None
        if not math.isfinite(trial.norm) or (value is not None and not math.isfinite(value)):
            tries = trial.t - (last.t if last else -1)
            again = self._skips and tries < _TRIES and point.grad is not None and all_finite(trial.x)
            if again and trial.t < settings.maxiter:
                return None
            return Status.START if self.best is None else Status.MAXITER if again else Status.DIVERGED
        if self.best is None:
            self._first = trial.fun
        if self.best is None or not self._is_worse(trial.fun, self.best.fun):
            self.best = trial
        self._finite = [*before[-1:], trial]
        status = Status.CALLBACK if last and self._told(trial) else self._reached(last, trial, value)
        if status in _CONVERGED and not self._is_good(trial, self.best):
            status = Status.REST if status is Status.GTOL else None  # one that moves may yet come down
        if status is None and trial.t >= settings.maxiter:
            return Status.ROSE if self._is_worse(trial.fun, self._first) else Status.MAXITER
        return status

    def _trial(self, point: Point) -> Trial:
        x, grad = trees.copy(point.params), unknown(point.params) if point.grad is None else point.grad
        norm = largest(trees.flatten(grad)[0])
        if self._box and math.isfinite(norm):  # the projection would hide an infinity
            norm = largest(projected(x, grad, self._box, self._sign < 0))
        return Trial(point.t, x, math.nan if point.value is None else point.value, grad, norm)

    def _is_worse(self, fun: float, other: float) -> bool:
        return self._compares and self._sign * fun > self._sign * other

    def _is_good(self, trial: Trial, best: Trial) -> bool:
        """Whether values differ by no more than rounding, of a fun that may compute in float32, or by nothing beside
        the way that they came."""
        eps = max(float(np.finfo(leaf.dtype).eps) for leaf in trees.flatten(trial.x)[0])
        rounding = max(8 * eps, 1e-6) * max(abs(trial.fun), abs(best.fun))
        return not abs(trial.fun - best.fun) > rounding + 1e-9 * abs(self._first - best.fun)

    def _reached(self, last: Trial | None, trial: Trial, value: float | None) -> Status | None:
        """The first of the criteria that holds. One who stays where he is, as between the calls of `accumulate` and at
        a rate of 0, has not converged by that."""
        settings = self._settings
        if trial.norm <= settings.gtol:
            return Status.GTOL
        if settings.ftol is not None and value is None:
            raise TypeError("ftol of minimize compares values, but fun gives none (None): give gtol or xtol, or a fun.")
        if last is None or (settings.ftol is None and settings.xtol is None):
            return None
        step = _step(last, trial)
        if step > 0 and settings.ftol is not None and _change(last, trial) <= settings.ftol:
            return Status.FTOL
        return Status.XTOL if step > 0 and settings.xtol is not None and step <= settings.xtol else None

    # ---- in a file ---

    def memory(self, taken: int, params: Any) -> dict[str, Any]:
        """The best point, the last finite one and the calls, before the coming evaluation."""
        found: dict[str, Any] = {"first": np.array([self._first])}
        if self.best is not None:
            found |= _recorded("best", self.best)
        before = [seen for seen in self._finite if seen.t < taken]
        if before and before[-1] is not self.best:
            found |= _recorded("last", before[-1])
        found["calls"] = np.array(([(0, 0, 0)] + [seen for seen in self._calls if seen[0] < taken])[-1], np.int64)
        return found

    def recall(self, arrays: Mapping[str, np.ndarray], params: Any) -> None:
        """Judge on with the memory of a walk before, and its values, from these parameters."""
        self._first, treedef = float(arrays["first"][0]), trees.flatten(params)[1]
        if "best" in arrays:
            self.best = _restored("best", arrays, treedef)
            self._finite = [_restored("last", arrays, treedef) if "last" in arrays else self.best]
        self._calls = [tuple(arrays["calls"].tolist())]
        _, self._function.nfev, self._function.njev = self._calls[0]


def _change(last: Trial, trial: Trial) -> float:
    return abs(trial.fun - last.fun) / max(abs(trial.fun), abs(last.fun), 1.0)


def _step(last: Trial, trial: Trial) -> float:
    new, old = trees.flatten(trial.x)[0], trees.flatten(last.x)[0]
    with np.errstate(over="ignore"):  # from -1e308 to 1e308
        return largest([a - b for a, b in zip(new, old)]) / max(largest(new), largest(old), 1.0)


def _recorded(name: str, trial: Trial) -> dict[str, np.ndarray]:
    leaves = {f"{name}/{kind}/{k}": leaf for kind, tree in (("x", trial.x), ("jac", trial.jac))
              for k, leaf in enumerate(trees.flatten(tree)[0])}
    return {name: np.array([trial.t, trial.fun, trial.norm]), **leaves}


def _restored(name: str, arrays: Mapping[str, np.ndarray], treedef: trees.Treedef) -> Trial:
    t, fun, norm = arrays[name].tolist()
    size = sum(key.startswith(f"{name}/x/") for key in arrays)
    x, jac = (treedef.unflatten([arrays[f"{name}/{kind}/{k}"] for k in range(size)]) for kind in ("x", "jac"))
    return Trial(int(t), x, fun, jac, norm)


def all_finite(x: Any) -> bool:
    """Whether a tree of arrays is finite."""
    return all(np.isfinite(leaf).all() for leaf in trees.flatten(x)[0])
