"""One descent, by an optimizer or by what another library has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.leaves import host
from fallline._loops.arguments import pair
from fallline._loops.descend import Status, descend
from fallline._optimizer.optimizer import Optimizer
from fallline.race.contenders.steps import Steps
from fallline.race.problems.problem import Problem

__all__ = ["descended"]

Note = Callable[[int, Any], None]  # of the number of steps before, and the parameters


def descended(
    problem: Problem, optimizer: Optimizer | Steps, steps: int, note: Note, batches: Callable[[int], Any] | None = None
) -> Any:
    """The parameters after so many steps from the problem's start, each noted before its step; None if it diverged."""
    if not isinstance(optimizer, Optimizer):
        return _walked(problem, optimizer, steps, note, batches)
    end = descend(
        problem.value_and_grad,
        problem.params,
        optimizer,
        batches=batches,
        steps=steps,
        callback=lambda point: note(point.t, point.params),
        progress=False,
    )
    return None if end.status is Status.DIVERGED else end.params


def _walked(problem: Problem, optimizer: Steps, steps: int, note: Note, batches: Callable[[int], Any] | None) -> Any:
    """As `descend` goes, and diverged as it has it: a value, a gradient or the last parameters are not finite."""
    params = trees.copy(problem.params)
    for t in range(steps):
        batch = () if batches is None else (batches(t),)
        try:
            value, grad = pair(problem.value_and_grad(params, *batch), problem.name)
        except OverflowError:
            return None
        note(t, params)
        if not (np.isfinite(value) and _is_finite(grad)):
            return None
        params = optimizer.step(params, grad)
    return params if _is_finite(params) else None


def _is_finite(tree: Any) -> bool:
    return all(np.isfinite(host(leaf)).all() for leaf in trees.flatten(tree)[0])
