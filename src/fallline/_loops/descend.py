"""The loop for mini-batches: `descend`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fallline._arrays import trees
from fallline._arrays.leaves import number
from fallline._arrays.namespaces import all_true
from fallline._loops.arguments import batch_at, check_function, pair, whole
from fallline._loops.box import limits, projection
from fallline._loops.stopping import DOWNHILL, UPHILL, Patience, Status, as_array, climbs
from fallline._loops.walk import Point, Walk, remedy
from fallline._messages.calls import answering
from fallline._messages.suggestions import of_another
from fallline._messages.values import brief, shown
from fallline._optimizer.optimizer import Optimizer
from fallline.errors import NonFiniteGradient

__all__ = ["Descent", "Point", "Status", "descend"]


@dataclass(frozen=True, repr=False)
class Descent:
    """The result of `descend`.

    Attributes
    ----------
    params: the last parameters, a tree like the one passed in.
    values: float64, the value before each step, NaN if there was none. If target, patience, the callback or divergence
    ended the run, no step followed the last value, so it is the value of `params`.
    history: arrays by name, with an entry for each value: "t", the number of steps before it, "value", and your
    `columns`.
    t: the optimizer's step count at the end.
    status: a `Status`; `message` is its sentence with the numbers filled in.
    """

    params: Any
    values: np.ndarray
    history: dict[str, np.ndarray]
    t: int
    status: Status
    message: str

    def __repr__(self) -> str:
        last = f"value={float(self.values[-1])!r}, " if len(self.values) else ""
        return f"Descent(t={self.t}, {last}message={self.message!r}, params={shown(self.params)})"


@answering
def descend(
    value_and_grad: Callable[..., tuple[Any, Any]],
    params: Any,
    optimizer: Optimizer,
    *,
    batches: Sequence[Any] | Callable[[int], Any] | None = None,
    steps: int,
    target: float | None = None,
    patience: int | None = None,
    bounds: Any = None,
    callback: Callable[[Point], Any] | None = None,
    columns: Mapping[str, Callable[[Point], Any]] | None = None,
    history: str | os.PathLike[str] | None = None,
    progress: bool | Literal["auto"] = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
) -> Descent:
    """Take up to `steps` steps down the gradient, with mini-batches if given, and say why the run stopped.

    Parameters
    ----------
    value_and_grad: `value_and_grad(params, batch)`, or without batches `value_and_grad(params)`. Returns the value (a
        number or a 0-d array of any library; None if you have only gradients) and the gradient, a tree like `params`.
    params: an array or a tree of arrays of NumPy, torch, JAX...; copied, so yours do not change.
    optimizer: advanced by the run; to continue, call again with it and the result's `params`.
    batches: a sequence, used in order and repeated, or a function of the step number, which counts from 0 for a fresh
        optimizer and from `optimizer.calls` for one that has stepped before.
    steps: the maximum number of evaluations and steps.
    target: stop at the first value ≤ target, or ≥ target for an optimizer that climbs (`maximize`).
    patience: stop after this many values in a row without a new best one (the highest for an optimizer that climbs).
        Values at unchanged parameters, as between the calls of `accumulate` or at a rate of 0, do not count, unless the
        parameters stay unchanged for this many steps and no schedule can move them.
    bounds: one pair (lower, upper), with None for no bound; a tree of such pairs, shaped like `params` or its upper
        levels; `scipy.optimize.Bounds` or a pair for each parameter, over the raveled leaves in order. The initial
        parameters and those of every step are projected into them, so nothing outside is evaluated.
    callback: called with each `Point` (t, params, value, grad) before the step from it; raise StopIteration to stop.
        Its arrays are live: copy what you want to keep.
    columns: functions of a `Point` that return a real number, by name, to record beside the value in the result's
        `history`.
    history: a CSV file for t, value and the columns; an existing one is overwritten. Each row is written when its point
        is evaluated, so that you can watch the run; with a checkpoint, the file has the rows of the whole run.
    progress: "auto" draws a bar on stderr if that is a terminal and rich is installed; True draws it wherever rich can;
        False never.
    checkpoint: a file for the run. If it exists, the run resumes from it: parameters, optimizer and history come from
        the file, and `steps` includes the steps already taken. The bits are those of a run that never stopped, if
        value_and_grad depends only on its arguments. Hyper-parameters that differ from those at the start of the run,
        such as a schedule over more steps, apply from here on; those set during the run, by a callback, come from the
        file. The file is replaced completely or not at all: at the end, before an exception passes through, and before
        Ctrl-C or SIGTERM ends the run, which then says where the file is.
    checkpoint_every: also write it after this many steps, in case of SIGKILL or a power cut, which cannot be caught;
        None: 20 times in the run.

    A value or gradient that is not finite ends the run as diverged, and so do parameters that are not finite at its
    end, or an OverflowError in value_and_grad. With `nonfinite="skip"` the run continues, and has diverged only if the
    last value or the parameters are not finite. With `"propagate"` gradients are not checked.

    With an optimizer of several ranks (`fallline.mpi.domain_parallel`) all make this call, each with its own parts: the
    value is the mean of theirs, and it ends on all where it ends on one. SIGTERM to any of them ends all at one step.
    `columns` are each rank's own, and rank 0's in the files.

    The result's `params` are the stepped ones. If a rule reports another point (Schedule-Free, Nesterov), get it by
    `optimizer.rest(run.params)`; an average is `optimizer.averaged`.

    Raises
    ------
    TypeError, ValueError: an argument, or the return value of value_and_grad, is not as described. A KeyboardInterrupt
    and any other exception in value_and_grad or callback passes through; the optimizer then keeps the steps taken so
    far.
    CheckpointError: the file is damaged, belongs to another run, or cannot be written.

    >>> import fallline as fl
    >>> run = fl.descend(lambda w: (w @ w, 2 * w), np.array([3.0, 4.0]), fl.SGD(lr=0.25), steps=100, target=1e-6)
    >>> run.status.name, run.t, len(run.values)
    ('TARGET', 13, 14)
    >>> run.message
    'reached the target 1e-06 with value 3.72529e-07 after 13 steps: lower target to go on'
    """
    steps = whole(steps, "steps of descend", least=0)
    patience = None if patience is None else whole(patience, "patience of descend", least=1)
    target = None if target is None else number(target, "target of descend must be a number")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer of descend must be an Optimizer such as fallline.Adam(lr=1e-3). "
                        f"Got {brief(optimizer)}.{of_another(optimizer)}")
    judged = target is not None or patience is not None
    uphill = judged and climbs(optimizer, "target of descend" if patience is None else "patience of descend")
    check_function(value_and_grad, "value_and_grad of descend", "of the parameters")
    if callback is not None:
        check_function(callback, "callback of descend", "of a point")
    evaluate = _evaluator(value_and_grad, batches)
    project = projection(limits(bounds, params, "descend"), params, optimizer)
    walk = Walk("descend", optimizer, Patience(optimizer, uphill, target, patience, callback), steps=steps,
                columns=columns, history=history, progress=progress, checkpoint=checkpoint,
                checkpoint_every=checkpoint_every)
    ended = walk.go(evaluate, trees.copy(params), project)
    noted = walk.journal.history()
    values = noted["value"]
    trouble = _trouble(walk, values)
    status = Status.DIVERGED if trouble else ended if isinstance(ended, Status) else Status.STEPS
    message = status.value.format(
        taken=len(values),
        t=optimizer.t,
        target=target,
        patience=patience,
        value=values[-1] if len(values) else math.nan,
        best=f"above {np.fmax.reduce(values, initial=-math.inf):.6g}" if uphill else
        f"below {np.fmin.reduce(values, initial=math.inf):.6g}",
        **(UPHILL if uphill else DOWNHILL),
        rate=remedy(optimizer),
        trouble=trouble,
    )
    return Descent(walk.params, values, noted, optimizer.t, status, message)


def _evaluator(value_and_grad: Callable[..., Any], batches: Any) -> Callable[[Any, int], tuple[float | None, Any]]:
    if batches is None:
        return lambda params, t: _evaluated(value_and_grad(params))
    batch = batch_at(batches, "descend")
    return lambda params, t: _evaluated(value_and_grad(params, batch(t)))


def _evaluated(result: Any) -> tuple[float | None, Any]:
    """What value_and_grad of descend returned, whose value may be None."""
    is_bare = isinstance(result, (tuple, list)) and len(result) == 2 and result[0] is None
    return (None, result[1]) if is_bare else pair(result, "descend")


def _trouble(walk: Walk, values: np.ndarray) -> str | None:
    """What is not finite at the end of a run, as the end of a sentence; None where all is."""
    if isinstance(walk.error, NonFiniteGradient):
        leaves = ", ".join(path for path in walk.error.paths[:5] if path)
        return "the gradient is not finite" + (f" in {leaves}" if leaves else "")
    if walk.error is not None:
        return f"{type(walk.error).__name__} ({walk.error})"
    if walk.is_valued and len(values) and not math.isfinite(values[-1]):
        return f"the value is {values[-1]}"
    # x - x is NaN exactly where x is not finite, in every array library.
    with np.errstate(all="ignore"):
        finite = walk.others.each(lambda: all(all_true((leaf - leaf) == 0) for leaf in map(as_array, walk.stepped())))
    return None if all(finite) else "the parameters are not finite"

