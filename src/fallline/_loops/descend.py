"""The loop: evaluate, step, repeat; `minimize` walks the same way with stopping rules of its own."""

from __future__ import annotations

import contextlib
import math
import operator
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fallline._arrays import trees
from fallline._arrays.leaves import host
from fallline._arrays.namespaces import all_true
from fallline._loops import progress as _progress
from fallline._loops.box import projection
from fallline._loops.stopping import DOWNHILL, UPHILL, Judge, Status, as_array, climbs
from fallline._messages.remedies import is_masked
from fallline._messages.values import brief
from fallline._optimizer.optimizer import Optimizer
from fallline.errors import NonFiniteGradient

if TYPE_CHECKING:
    from fallline._loops.resume import Record

__all__ = ["Descent", "Point", "Status", "Walk", "descend", "number", "pair", "remedy", "stops"]


@dataclass(slots=True)
class Point:
    """One evaluation: the number of steps before it, the parameters (live, not a copy), their value, None where there
    is none, and their gradient."""

    t: int
    params: Any
    value: float | None
    grad: Any


@dataclass(frozen=True)
class Descent:
    """What `descend` returns.

    Attributes
    ----------
    params: the last parameters, a tree like those given.
    values: float64, the value found before each step, NaN where there was none. Where target, patience, the callback
        or divergence ended the run, no step followed the last value and it is that of `params`.
    t: the optimizer's step count at the end.
    status: a `Status`; `message` is its sentence with the numbers filled in.
    """

    params: Any
    values: np.ndarray
    t: int
    status: Status = field(repr=False)  # the message has it
    message: str


class Walk:
    """Iterate for one `Point` per evaluation; the step from it is taken when the next is asked for.

    `params` is where the walk stands, after `taken` steps; `error` is what ended it early, if anything did. A step is
    taken and counted within `holding`.
    """

    def __init__(
        self,
        evaluate: Callable[[Any, int], tuple[float | None, Any]],
        params: Any,
        advance: Callable[[Any, Any], Any],
        steps: Iterable[int],
        taken: int = 0,
        holding: contextlib.AbstractContextManager[None] | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.params = params
        self.advance = advance
        self.steps = steps
        self.taken = taken
        self.holding = holding or contextlib.nullcontext()
        self.error: Exception | None = None
        self.is_valued = True  # whether the last evaluation had a value

    def __iter__(self) -> Generator[Point, None, None]:
        for t in self.steps:
            try:
                value, grad = self.evaluate(self.params, t)
            except OverflowError as error:  # Python's arithmetic raises where IEEE 754 says infinity
                self.error = error
                yield Point(t, self.params, math.inf, None)
                return
            self.is_valued = value is not None
            yield Point(t, self.params, value, grad)
            try:
                with self.holding:
                    self.params = self.advance(self.params, grad)
                    self.taken += 1
            except NonFiniteGradient as error:
                self.error = error
                return


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
    progress: bool | Literal["auto"] = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
) -> Descent:
    """Take `steps` steps down the gradient, over mini-batches if given, and say why it stopped.

    Parameters
    ----------
    value_and_grad: `value_and_grad(params, batch)`, without batches `value_and_grad(params)`; returns the value (a
        number or a 0-d array of any library; None where only gradients are known) and the gradient, a tree like
        `params`.
    params: an array or a tree of arrays of NumPy, torch, JAX...; copied, so the caller's are left alone.
    optimizer: advanced by the run; call again with it and the result's `params` to go on where it stopped.
    batches: a sequence, taken in order and over again, or a function of the step number, which counts from 0 for a
        fresh optimizer and goes on from `optimizer.calls` for one that has stepped before.
    steps: how many evaluations and steps at most.
    target: stop at the first value that is no greater; of an optimizer that climbs (`maximize`), no less.
    patience: stop when so many values in a row bring no new best one, which is the highest for one that climbs. Values
        where the parameters are still those of the last one, as between the calls of `accumulate` or at a rate of 0, do
        not count, unless they stay there for so many steps and no schedule can move them.
    bounds: one pair (lower, upper), None for no bound; a tree of such pairs, shaped like `params` or its upper levels;
        `scipy.optimize.Bounds` or a pair for each parameter, over the raveled leaves in order. The parameters given and
        those of every step are projected into them, so that nothing outside is evaluated.
    callback: called with each `Point` (t, params, value, grad) before the step from it; raise StopIteration to stop.
        Its arrays are live: copy what is to be kept.
    progress: "auto" draws a bar on stderr if that is a terminal and rich is installed; True wherever rich can; False
        never.
    checkpoint: a file for the run. If it is there, the run goes on from it (parameters, optimizer and values are the
        file's, and `steps` counts those taken), with the bits of a run that was never ended; value_and_grad may depend
        on nothing but its arguments. Settings of the optimizer other than those that it had when the run was begun,
        such as a schedule over more steps, count from here on; what was set during the run, by a callback, is the
        file's. It is written all or nothing, at the end, before an exception passes through, and before Ctrl-C or
        SIGTERM ends the run.
    checkpoint_every: write it after every so many steps too, for what cannot be caught, as SIGKILL and a power cut;
        20 times in the run if it is None.

    A value or gradient that is not finite ends the run as diverged, and so do parameters that are not finite at its
    end, or an OverflowError in value_and_grad. An optimizer with `nonfinite="skip"` goes on: it is diverged only if
    the last value or the parameters are not finite. One with `"propagate"` does not look at gradients.

    The result's `params` are those that were stepped. Where a rule has the point to report apart from them
    (Schedule-Free, Nesterov), that is `optimizer.rest(run.params)`; an average is `optimizer.averaged`.

    Raises
    ------
    TypeError, ValueError: an argument, or what value_and_grad returned, is not as described. A KeyboardInterrupt and
    any other exception of value_and_grad or callback passes through; the optimizer then has advanced so far.
    CheckpointError: the file is damaged, of another run, or cannot be written.

    >>> import fallline as fl
    >>> run = fl.descend(lambda w: (w @ w, 2 * w), np.array([3.0, 4.0]), fl.SGD(lr=0.25), steps=100, target=1e-6)
    >>> run.status.name, run.t, len(run.values)
    ('TARGET', 13, 14)
    >>> run.message
    'reached the target 1e-06 with value 3.72529e-07 after 13 steps: lower target to go on'
    """
    steps = _whole(steps, "steps", least=0)
    patience = None if patience is None else _whole(patience, "patience", least=1)
    target = None if target is None else number(target, "target of descend must be a number")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer of descend must be an Optimizer such as fallline.Adam(lr=1e-3). "
                        f"Got {brief(optimizer)}.")
    judged = target is not None or patience is not None
    uphill = judged and climbs(optimizer, "target of descend" if patience is None else "patience of descend")
    if not callable(value_and_grad):
        raise TypeError(f"value_and_grad of descend must be a function of the parameters. Got {brief(value_and_grad)}.")
    record = _record(checkpoint, checkpoint_every, steps, optimizer)
    evaluate, start, holding = _evaluator(value_and_grad, batches), optimizer.calls, None
    if record is None:
        params, values, moves = trees.copy(params), list[float](), list[int]()
    else:
        params, values, moves = record.resume(params)
        start, holding = record.start, record.holding
    ahead = range(start + len(values), start + steps)
    project = projection(bounds, params, "descend") or (lambda params: params)
    walk = Walk(evaluate, project(params), lambda w, g: project(optimizer.step(w, g)), ahead, len(values), holding)
    watched = _progress.watched(walk, len(ahead)) if _progress.wanted(progress) else iter(walk)
    signals = holding.watching() if holding else contextlib.nullcontext()
    judge = Judge(values, moves, uphill, target, patience, optimizer)
    with signals, _recorded(walk, values, record, judge), contextlib.closing(watched) as points:
        status = _follow(points, values, record, judge, callback, optimizer.nonfinite == "skip")
    trouble = _trouble(walk, values)
    status = status if trouble is None else Status.DIVERGED
    found = np.array(values, dtype=np.float64)
    message = status.value.format(
        taken=len(values),
        t=optimizer.t,
        target=target,
        patience=patience,
        value=values[-1] if values else math.nan,
        best=f"above {np.fmax.reduce(found, initial=-math.inf):.6g}" if uphill else
        f"below {np.fmin.reduce(found, initial=math.inf):.6g}",
        **(UPHILL if uphill else DOWNHILL),
        rate=remedy(optimizer),
        trouble=trouble,
    )
    return Descent(walk.params, found, optimizer.t, status, message)


def _record(path: Any, every: Any, steps: int, optimizer: Optimizer) -> Record | None:
    if path is None:
        if every is not None:
            raise TypeError("checkpoint_every of descend needs a file: give checkpoint=path too.")
        return None
    from fallline._loops.resume import Record

    return Record(path, max(1, steps // 20) if every is None else _whole(every, "checkpoint_every", least=1), optimizer)


@contextlib.contextmanager
def _recorded(walk: Walk, values: list[float], record: Record | None, judge: Judge) -> Iterator[None]:
    """Have the walk in its record from the start, as a folder that cannot be written is better known at once; and leave
    it there, however it ends."""
    if record is not None:
        record.save(walk.params, values, judge.moves)
    try:
        yield
    finally:
        if record is not None:
            with walk.holding:
                record.save(walk.params, values[: walk.taken], judge.moves)


def _follow(
    points: Iterator[Point],
    values: list[float],
    record: Record | None,
    judge: Judge,
    callback: Callable[[Point], Any] | None,
    past_nonfinite: bool,
) -> Status:
    for point in points:
        if record is not None:
            record.keep(point.params, values, judge.moves)
        value = math.nan if point.value is None else point.value
        values.append(value)
        if point.value is not None and not math.isfinite(value) and not past_nonfinite:
            return Status.DIVERGED
        if callback is not None and stops(callback, point):
            return Status.CALLBACK
        if point.value is None and judge.asks:
            raise TypeError("value_and_grad of descend returned no value (None), and target and patience are about "
                            "values: leave these out, or return (value, gradient).")
        if status := judge.ends(value, point.params):
            return status
    return Status.STEPS


def _evaluator(value_and_grad: Callable[..., Any], batches: Any) -> Callable[[Any, int], tuple[float | None, Any]]:
    if batches is None:
        return lambda params, t: _evaluated(value_and_grad(params))
    batch = _batch_at(batches)
    return lambda params, t: _evaluated(value_and_grad(params, batch(t)))


def _batch_at(batches: Any) -> Callable[[int], Any]:
    if callable(batches):
        return batches
    if isinstance(batches, Mapping) or not hasattr(batches, "__getitem__") or not hasattr(batches, "__len__"):
        raise TypeError(
            "batches of descend must be a sequence or a function of the step number. "
            f"Got {type(batches).__name__}: use list(...), or `lambda step: ...`."
        )
    if not len(batches):
        raise ValueError("batches of descend must hold at least one batch. Got an empty sequence.")
    return lambda t: batches[t % len(batches)]


def _evaluated(result: Any) -> tuple[float | None, Any]:
    """What value_and_grad of descend returned, whose value may be None."""
    is_bare = isinstance(result, (tuple, list)) and len(result) == 2 and result[0] is None
    return (None, result[1]) if is_bare else pair(result, "descend")


def pair(result: Any, owner: str) -> tuple[float, Any]:
    """What value_and_grad of `owner` returned, as value and gradient; a TypeError if it is no such pair."""
    try:
        value, grad = result
    except (TypeError, ValueError):
        raise TypeError(
            f"value_and_grad of {owner} must return a pair (value, gradient). Got {type(result).__name__}."
        ) from None
    return number(value, f"value_and_grad of {owner} must return (value, gradient), the value a real number"), grad


def _trouble(walk: Walk, values: list[float]) -> str | None:
    """What is not finite at the end of a run, as the end of a sentence; None where all is."""
    if isinstance(walk.error, NonFiniteGradient):
        leaves = ", ".join(path for path in walk.error.paths[:5] if path)
        return "the gradient is not finite" + (f" in {leaves}" if leaves else "")
    if walk.error is not None:
        return f"{type(walk.error).__name__} ({walk.error})"
    if walk.is_valued and values and not math.isfinite(values[-1]):
        return f"the value is {values[-1]}"
    # x - x is NaN exactly where x is not finite, in every array library.
    with np.errstate(all="ignore"):
        finite = all(all_true((leaf - leaf) == 0) for leaf in map(as_array, trees.flatten(walk.params)[0]))
    return None if finite else "the parameters are not finite"


def _whole(value: Any, name: str, *, least: int) -> int:
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} of descend must be a whole number ≥ {least}. Got {brief(value)}.") from None
    if whole < least:
        raise ValueError(f"{name} of descend must be a whole number ≥ {least}. Got {brief(value)}.")
    return whole


def number(value: Any, demand: str) -> float:
    """`value` as a float if it is a real number or 0-d array of any library; else a TypeError with the `demand`."""
    if isinstance(value, float):
        return float(value)
    if getattr(value, "ndim", None) == 0 and not is_masked(value):
        value = value.item() if hasattr(value, "item") else host(value).item()
    if not isinstance(value, (int, float, np.floating)):
        shape = getattr(value, "shape", None)
        raise TypeError(f"{demand}. Got {type(value).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}.")
    return float(value)


def stops(callback: Callable[..., Any], *args: Any, **named: Any) -> bool:
    """Call it; whether it asks to stop."""
    try:
        callback(*args, **named)
    except StopIteration:
        return True
    return False


def remedy(optimizer: Optimizer) -> str:
    """The hyper-parameter that sets the length of the steps: lr, or for AdaDelta eps."""
    own = {name.split(".")[-1] for name in optimizer.hyper}
    return next((name for name in ("lr", "eps") if name in own), "the step size")
