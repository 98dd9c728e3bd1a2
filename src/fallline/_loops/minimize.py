"""SciPy's face of the loop: `minimize`, and every optimizer as a method of `scipy.optimize.minimize`."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fallline._arrays import trees
from fallline._formula.rule import Link, Rule
from fallline._loops.box import Box, box_of, clip, held, largest, projected
from fallline._loops.descend import Point, Walk, remedy, stops
from fallline._loops.objective import Objective, objective
from fallline._loops.scipy_options import Options, start
from fallline._loops.stopping import climbs
from fallline._messages.suggestions import meant_name
from fallline._messages.values import brief
from fallline._optimizer.named import OPTIMIZERS, Adam
from fallline._optimizer.optimizer import Optimizer
from fallline.rules import average

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

__all__ = ["Status", "as_scipy_method", "minimize"]


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


class _Trial(NamedTuple):
    """An evaluated point, with the max-norm of its projected gradient; its arrays are never changed again."""

    x: Any
    fun: float | None
    jac: Any
    norm: float

    @property
    def is_finite(self) -> bool:
        return (self.fun is None or math.isfinite(self.fun)) and math.isfinite(self.norm)


class _Outcome(NamedTuple):
    """How a run ended: `found` is the point to report, `last` the one where the walk was left."""

    status: Status
    nit: int
    found: _Trial
    last: _Trial


def minimize(
    fun: Callable[..., Any] | None,
    x0: Any,
    args: Any = (),
    method: Optimizer | type[Optimizer] | Rule | Link | str | None = None,
    jac: Callable[..., Any] | bool | str | None = None,
    bounds: Any = None,
    callback: Callable[..., Any] | None = None,
    tol: float | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    hess: None = None,
    hessp: None = None,
    constraints: Any = (),
) -> OptimizeResult:
    """Minimise fun(x, *args) by a first-order optimizer, with the conventions of `scipy.optimize.minimize`.

    Parameters
    ----------
    fun: returns a number, or with `jac=True` the pair (value, gradient). Where gradients are all there is, None with a
        function jac, or a value of None: then x is the last point, `fun` is NaN, and ftol is refused.
    x0: a number, list of numbers or array (fun gets a float array, at least 1-D), or a tree of these (fun gets such
        a tree). Floating dtypes stay, whole numbers become float64. Never changed.
    method: an optimizer, which is copied and starts fresh; a class such as `fallline.Nadam` or its name in any case,
        with the defaults of its class; a rule, with or without settings; None is `Adam(lr=1e-2)`. With the modifier
        `maximize` in its chain it climbs: the best point is the highest then. One with `nonfinite="skip"` tries
        a point up to 5 times where value or gradient is not finite, as may be under noise.
    jac: a function that returns the gradient, in the form of x; True; None or "2-point", "3-point", "cs": finite
        differences by SciPy, None being "2-point".
    bounds: one pair (lower, upper), None for no bound; a tree of such pairs, shaped like x0 or its upper levels;
        `scipy.optimize.Bounds` or a pair for each parameter, over the raveled leaves in order. They are rounded to the
        leaves' dtypes. x0 and every step are projected into them: nothing outside is evaluated.
    callback: `callback(xk)` or `callback(intermediate_result)` (told by that name; it has x and fun), after each
        step; raise StopIteration to stop.
    tol: gtol, where the options have none.
    options: maxiter (10,000): steps at most. gtol (1e-5): stop where max|g| ≤ gtol, g being the projected gradient
        x - clip(x - gradient). ftol (off): stop where |f - f'| / max(|f|, |f'|, 1) ≤ ftol, f' being the value one
        step before. xtol (off): stop where max|x - x'| / max(max|x|, max|x'|, 1) ≤ xtol. disp: print a summary.
        return_all: keep every x in `allvecs`. finite_diff_rel_step: as in SciPy, for finite differences. An option of
        None has its default.
    hess, hessp, constraints: refused; they are here for the error that says so.

    Returns
    -------
    scipy.optimize.OptimizeResult with x, its fun and jac; x_last and fun_last, the last point, and of that one `rest`,
    the point to report of an optimizer that steps another (Nesterov, Schedule-Free), `averaged`, if it keeps an
    average, and `optimizer`, the one that was stepped; nit, nfev, njev, success, status (0 converged, 1 maxiter or at
    rest above the best point, 2 diverged, 3 x0 not finite, 99 callback) and message. x is the best point evaluated, or
    the one where a criterion held if its value is as good up to rounding; success and the gradient norm in the message
    are x's. Under noise the best value is luck: take x_last. A run that diverges ends with its status, x being the best
    finite point; an OverflowError in fun counts as divergence.

    Raises
    ------
    TypeError, ValueError: an argument, or what fun or jac returned, is not as described; lists the known options or
    methods where one is unknown.

    >>> import fallline as fl
    >>> from scipy.optimize import rosen, rosen_der
    >>> result = fl.minimize(rosen, [-1.0, 2.0], jac=rosen_der, method=fl.Adam(lr=0.05))
    >>> result.success, result.x.round(3)
    (True, array([1., 1.]))
    >>> fl.minimize(lambda x: abs(x - 3).sum(), 0, method="sgd", options={"maxiter": 100}).message
    'stopped at maxiter (100) with gradient norm 1: raise lr or maxiter'
    """
    _refuse({"hess": hess, "hessp": hessp, "constraints": constraints})
    optimizer = _optimizer(method)
    uphill = climbs(optimizer, "minimize")
    settings = Options.read(options, tol)
    x = start(x0)
    box = box_of(bounds, x)
    clip(x, box)
    box = held(box, x, optimizer._stepper.division.divide(x)[0].left)
    function = objective(fun, jac, args, box, settings.finite_diff_rel_step)
    walk = Walk(function, x, _projected_step(optimizer, x, box), itertools.count())
    path: deque[Any] = deque(maxlen=None if settings.return_all else 0)
    outcome = _search(walk, settings, box, uphill, optimizer.nonfinite == "skip", _reporter(callback), path)
    result = _result(outcome, walk, function, settings, uphill, optimizer)
    if settings.return_all:
        result.allvecs = list(path)
    if settings.disp:
        _display(result)
    return result


def _search(walk: Walk, settings: Options, box: Box, uphill: bool, skips: bool,
            stops_at: Callable[[_Trial], bool], path: deque[Any]) -> _Outcome:
    first = best = last = None
    tries = 0
    for point in walk:
        trial = _trial(point, box, uphill)
        path.append(trial.x)
        if not trial.is_finite:
            tries += 1
            again = skips and tries < _TRIES and walk.error is None and _all_finite(trial.x)
            if again and point.t < settings.maxiter:
                continue
            ended = Status.START if best is None else Status.MAXITER if again else Status.DIVERGED
            return _Outcome(ended, point.t, best or trial, trial)
        tries, first = 0, first or trial
        best = trial if best is None or not _worse(trial, best, uphill) else best
        status = Status.CALLBACK if last and stops_at(trial) else _reached(settings, last, trial)
        if status in _CONVERGED:
            if _as_good(trial, best, first):
                return _Outcome(status, point.t, trial, trial)
            status = Status.REST if status is Status.GTOL else None  # one that moves may yet come down
        if status is None and point.t >= settings.maxiter:
            status = Status.ROSE if _worse(trial, first, uphill) else Status.MAXITER
        if status is not None:
            return _Outcome(status, point.t, best, trial)
        last = trial
    raise AssertionError("a walk of minimize goes on until it is stopped")


def _worse(trial: _Trial, other: _Trial, uphill: bool) -> bool:
    if trial.fun is None or other.fun is None:
        return False
    return trial.fun < other.fun if uphill else trial.fun > other.fun


def _as_good(trial: _Trial, best: _Trial, first: _Trial) -> bool:
    """Whether values differ by no more than rounding, of a fun that may compute in float32, or by nothing beside the
    way that they came."""
    if trial.fun is None or best.fun is None or first.fun is None:
        return True
    eps = max(float(np.finfo(leaf.dtype).eps) for leaf in trees.flatten(trial.x)[0])
    rounding = max(8 * eps, 1e-6) * max(abs(trial.fun), abs(best.fun))
    return abs(trial.fun - best.fun) <= rounding + 1e-9 * abs(first.fun - best.fun)


def _trial(point: Point, box: Box, uphill: bool) -> _Trial:
    if point.grad is None:
        return _Trial(point.params, point.value, _unknown(point.params), math.nan)
    norm = largest(trees.flatten(point.grad)[0])
    if box and math.isfinite(norm):  # the projection would hide an infinity
        norm = largest(projected(point.params, point.grad, box, uphill))
    return _Trial(point.params, point.value, point.grad, norm)


def _unknown(x: Any) -> Any:
    """A gradient where there is none."""
    leaves, treedef = trees.flatten(x)
    return treedef.unflatten([np.full_like(leaf, math.nan) for leaf in leaves])


def _all_finite(x: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in trees.flatten(x)[0])


def _reached(settings: Options, last: _Trial | None, trial: _Trial) -> Status | None:
    """The first of the criteria that holds. One who stays where he is, as between the calls of `accumulate` and at a
    rate of 0, has not converged by that."""
    if trial.norm <= settings.gtol:
        return Status.GTOL
    if last is None or (settings.ftol is None and settings.xtol is None):
        return None
    step = _step(last, trial)
    if step > 0 and settings.ftol is not None and _change(last, trial) <= settings.ftol:
        return Status.FTOL
    return Status.XTOL if step > 0 and settings.xtol is not None and step <= settings.xtol else None


def _change(last: _Trial, trial: _Trial) -> float:
    if trial.fun is None or last.fun is None:
        raise TypeError("ftol of minimize is about values, and fun gives none (None): give gtol or xtol, or a fun.")
    return abs(trial.fun - last.fun) / max(abs(trial.fun), abs(last.fun), 1.0)


def _step(last: _Trial, trial: _Trial) -> float:
    new, old = trees.flatten(trial.x)[0], trees.flatten(last.x)[0]
    with np.errstate(over="ignore"):  # from -1e308 to 1e308
        return largest([a - b for a, b in zip(new, old)]) / max(largest(new), largest(old), 1.0)


def _projected_step(optimizer: Optimizer, x0: Any, box: Box) -> Callable[[Any, Any], Any]:
    here = trees.copy(x0)  # stepped where it lies, which takes less time than a new array

    def advance(x: Any, grad: Any) -> Any:
        for own, given in zip(trees.flatten(here)[0], trees.flatten(x)[0]):
            own[...] = given
        optimizer.step(here, _unknown(x) if grad is None else grad)
        clip(here, box)
        return trees.copy(here)

    return advance


def _optimizer(method: Any) -> Optimizer:
    if method is None:
        return Adam(lr=1e-2)
    if isinstance(method, Optimizer):
        return method.fresh()
    if isinstance(method, type) and issubclass(method, Optimizer):
        return method()
    if isinstance(method, str):
        for name, optimizer in OPTIMIZERS.items():
            if name.lower() == method.lower():
                return optimizer()
        near = meant_name(method, OPTIMIZERS)
        raise ValueError(f"Unknown method {method!r} of minimize. Known methods: {', '.join(OPTIMIZERS)}.{near}")
    rule = method.rule if isinstance(method, Link) else method
    if isinstance(rule, Rule) and rule.kind == "rule":
        return Optimizer(method)
    raise TypeError(
        "method of minimize must be an optimizer such as fallline.Adam(lr=1e-2), a class, a rule or a name. "
        f"Got {brief(method)}."
    )


def _refuse(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is not None and not (isinstance(value, (tuple, list, dict)) and not value):
            raise ValueError(
                f"minimize takes no {name}: first-order optimizers use the gradient and know bounds only. "
                f"Remove {name}, or choose a method of SciPy that uses it, such as trust-constr."
            )


def _reporter(callback: Callable[..., Any] | None) -> Callable[[_Trial], bool]:
    """What tells the callback of a trial, in the form that SciPy reads off its signature; whether it asks to stop."""
    from scipy.optimize import OptimizeResult

    if callback is None:
        return lambda trial: False
    try:
        names = set(inspect.signature(callback).parameters)
    except (TypeError, ValueError):  # some built-in functions have none
        names = set()
    if names == {"intermediate_result"}:
        return lambda trial: stops(callback, intermediate_result=OptimizeResult(x=trees.copy(trial.x), fun=trial.fun))
    return lambda trial: stops(callback, trees.copy(trial.x))


def _result(
    outcome: _Outcome, walk: Walk, function: Objective, settings: Options, uphill: bool, optimizer: Optimizer
) -> OptimizeResult:
    from scipy.optimize import OptimizeResult

    found, last = outcome.found, outcome.last
    message = outcome.status.value.format(
        norm=found.norm,
        nit=outcome.nit,
        above="below" if uphill else "above",
        rate=remedy(optimizer),
        trouble=_trouble(walk, last),
        gtol=settings.gtol,
        ftol=settings.ftol,
        xtol=settings.xtol,
        maxiter=settings.maxiter,
    )
    return OptimizeResult(
        x=found.x,
        fun=math.nan if found.fun is None else found.fun,
        jac=found.jac,
        nit=outcome.nit,
        nfev=function.nfev,
        njev=function.njev,
        status=outcome.status.code,
        success=outcome.status.code == 0,
        message=message,
        x_last=last.x,
        fun_last=math.nan if last.fun is None else last.fun,
        optimizer=optimizer,
        rest=optimizer.rest(last.x) if _all_finite(last.x) else last.x,
        **({"averaged": optimizer.averaged} if optimizer.t and _averages(optimizer) else {}),
    )


def _averages(optimizer: Optimizer) -> bool:
    return any(average in holder.chain.rules for holder in optimizer._stepper.holders.values())


def _trouble(walk: Walk, last: _Trial) -> str:
    if walk.error is not None:
        return f"{type(walk.error).__name__} ({walk.error})"
    if not _all_finite(last.x):
        return "x is not finite"
    no_value = last.fun is not None and not math.isfinite(last.fun)
    return f"the value is {last.fun}" if no_value else "the gradient is not finite"


def _display(result: OptimizeResult) -> None:
    print(result.message)
    print(f"         Current function value: {result.fun:f}")
    print(f"         Iterations: {result.nit:d}")
    print(f"         Function evaluations: {result.nfev:d}")
    print(f"         Gradient evaluations: {result.njev:d}")


def as_scipy_method(
    optimizer: Optimizer,
    fun: Any = None,
    x0: Any = None,
    args: Any = (),
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    tol: float | None = None,
    **options: Any,
) -> OptimizeResult:
    """Run as `scipy.optimize.minimize(fun, x0, method=optimizer)`: what SciPy hands to a callable method.

    What SciPy's own first-order methods pass over with a warning, this does too: second derivatives, as many programs
    hand them to every method, and options of other methods.
    """
    if x0 is None:
        name = type(optimizer).__name__
        raise TypeError(
            f"{name} is a method of scipy.optimize.minimize, which starts at an x0; minimize_scalar has none: call "
            f"scipy.optimize.minimize(fun, x0, method={name}(...)). To step parameters: opt.step(params, grads)."
        )
    unknown = {name: options.pop(name) for name in sorted(options.keys() - Options.names())}
    unused = [f"{name}=" for name, value in (("hess", hess), ("hessp", hessp)) if value is not None]
    passed_over = [*unused, *(f"the option {name!r}" for name, value in unknown.items() if value is not None)]
    if passed_over:
        from scipy.optimize import OptimizeWarning

        warnings.warn(f"{optimizer._title} does not use {', '.join(passed_over)}. Options of minimize: "
                      f"{', '.join(Options.names())}.", OptimizeWarning, stacklevel=4)  # of who called SciPy
    return minimize(fun, x0, args, optimizer, jac, bounds, callback, tol, options, constraints=constraints)

