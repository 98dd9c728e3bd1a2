"""SciPy's interface to the loop: `minimize`, and every optimizer as a method of `scipy.optimize.minimize`."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from fallline._arrays import trees
from fallline._formula.rule import Link, Rule
from fallline._loops.arguments import batch_at, check_function
from fallline._loops.box import box_of, held, projection
from fallline._loops.objective import objective
from fallline._loops.scipy_options import Options, start
from fallline._loops.search import Search, Status, Trial, all_finite
from fallline._loops.stopping import climbs
from fallline._loops.walk import Point, Walk, remedy, stops
from fallline._messages.calls import answering
from fallline._messages.suggestions import meant_name, of_another
from fallline._messages.values import brief, shown
from fallline._messages.warned import warn
from fallline._optimizer.named import OPTIMIZERS, Adam
from fallline._optimizer.optimizer import Optimizer
from fallline.rules import average

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

__all__ = ["as_scipy_method", "minimize"]

_MANNERS = ("batches", "columns", "history", "progress", "checkpoint", "checkpoint_every")  # options of SciPy's face


@answering
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
    batches: Sequence[Any] | Callable[[int], Any] | None = None,
    columns: Mapping[str, Callable[[Point], Any]] | None = None,
    history: str | os.PathLike[str] | None = None,
    progress: bool | Literal["auto"] = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
) -> OptimizeResult:
    """Minimise fun(x, *args) with a first-order optimizer, following the conventions of `scipy.optimize.minimize`.

    Parameters
    ----------
    fun: returns a number, or with `jac=True` the pair (value, gradient). If you have only gradients, pass None with a
        function jac, or return a value of None; then x is the last point, `fun` is NaN, and ftol is refused.
    x0: a number, list of numbers or array (fun gets a float array, at least 1-D), or a tree of these (fun gets such a
        tree). Floating dtypes are kept, whole numbers become float64. x0 is never changed.
    method: an optimizer, which is copied and starts fresh; a class such as `fallline.Nadam`, or its name in any case,
        with its defaults; a rule, with or without settings; None is `Adam(lr=1e-2)`. With the modifier `maximize` in
        its chain it climbs, and the best point is the highest. With `nonfinite="skip"` it tries a point up to 5 times
        if value or gradient is not finite, as may happen under noise.
    jac: a function that returns the gradient, in the form of x; True; or None, "2-point", "3-point" or "cs" for SciPy's
        finite differences (None is "2-point").
    bounds: one pair (lower, upper), with None for no bound; a tree of such pairs, shaped like x0 or its upper levels;
        `scipy.optimize.Bounds` or a pair for each parameter, over the raveled leaves in order. They are rounded to the
        leaves' dtypes. x0 and every step are projected into them, so nothing outside is evaluated.
    callback: `callback(xk)` or `callback(intermediate_result)` (recognised by this name; it has x and fun), called
        after each step; raise StopIteration to stop.
    tol: gtol, if the options have none.
    options: maxiter (10,000): the maximum number of steps. gtol (1e-5): stop if max|g| ≤ gtol, where g is the projected
        gradient x - clip(x - gradient). ftol (off): stop if |f - f'| / max(|f|, |f'|, 1) ≤ ftol, where f' is the value
        one step before. xtol (off): stop if max|x - x'| / max(max|x|, max|x'|, 1) ≤ xtol. disp: print a summary.
        return_all: keep every x in `allvecs`. finite_diff_rel_step: as in SciPy, for finite differences. None means the
        default.
    hess, hessp, constraints: refused with an error.
    batches: a sequence, used in order and repeated, or a function of the step number. fun(x, batch, *args) and jac get
        the batch of the step. Values of different batches are not compared: x is the last point, and ftol is refused.
    columns, history, progress, checkpoint, checkpoint_every: as in `descend`. A resumed run ends with the result of one
        that never stopped; maxiter counts the steps of both. With `scipy.optimize.minimize`, pass them as options.

    Returns
    -------
    scipy.optimize.OptimizeResult with x, its fun and jac; x_last and fun_last, the last point; `rest`, the point to
    report at x_last if the optimizer steps another one (Nesterov, Schedule-Free); `averaged`, if it keeps an average;
    `optimizer`, as it is after the run; `history`, as in `descend`; nit, nfev, njev, success, status (0 converged, 1
    maxiter or at rest above the best point, 2 diverged, 3 x0 not finite, 99 callback) and message. x is the best point
    evaluated, or the one that met a criterion if its value is as good up to rounding; success and the gradient norm in
    the message refer to x. Under noise the best value is luck: use x_last. If the run diverges, x is the best finite
    point; an OverflowError in fun counts as divergence.

    Raises
    ------
    TypeError, ValueError: an argument, or the return value of fun or jac, is not as described. For an unknown option or
    method, the message lists the known ones.

    >>> import fallline as fl
    >>> from scipy.optimize import rosen, rosen_der
    >>> result = fl.minimize(rosen, [-1.0, 2.0], jac=rosen_der, method=fl.Adam(lr=0.05))
    >>> result.success, result.x.round(3)
    (True, array([1., 1.]))
    >>> fl.minimize(lambda x: abs(x - 3).sum(), 0, method="sgd", options={"maxiter": 100}).message
    'stopped at maxiter (100) with gradient norm 1: raise lr or maxiter'
    """
    from scipy.optimize import OptimizeResult

    _refuse({"hess": hess, "hessp": hessp, "constraints": constraints})
    _check_args(args)
    optimizer = _optimizer(method)
    if not optimizer._stepper.others.is_one:
        raise TypeError("minimize searches along whole vectors, in one process: use fallline.descend with an optimizer "
                        "of several ranks.")
    uphill = climbs(optimizer, "minimize")
    settings = Options.read(options, tol)
    x = start(x0)
    box = box_of(bounds, x)
    project = projection(box, x, optimizer)
    x = project(x, x)
    box = held(box, x, optimizer._stepper.division.divide(x)[0].left)
    function = objective(fun, jac, args, box, settings.finite_diff_rel_step)
    if batches is not None:
        function.batches = batch_at(batches, "minimize")
        if settings.ftol is not None:
            raise ValueError("ftol of minimize compares values, and those of different batches are not comparable: "
                             "give gtol or xtol.")
    if checkpoint is not None and settings.return_all:
        raise ValueError("return_all of minimize keeps every x in memory and not in the checkpoint: drop one of the "
                         "two, or record what you need of each x with columns.")
    search = Search(function, settings, box, uphill, optimizer.nonfinite == "skip", batches is None,
                    _reporter(callback))
    walk = Walk("minimize", optimizer, search, steps=settings.maxiter, columns=columns, history=history,
                progress=progress, checkpoint=checkpoint, checkpoint_every=checkpoint_every)
    status = walk.go(function, x, project, behind=1)
    assert isinstance(status, Status), "a search ends at maxiter"
    found, last = search.found, search.latest
    message = status.value.format(
        norm=found.norm,
        nit=last.t,
        above="below" if uphill else "above",
        rate=remedy(optimizer),
        trouble=_trouble(walk, last),
        gtol=settings.gtol,
        ftol=settings.ftol,
        xtol=settings.xtol,
        maxiter=settings.maxiter,
    )
    result = OptimizeResult(
        x=found.x,
        fun=found.fun,
        jac=found.jac,
        nit=last.t,
        nfev=function.nfev,
        njev=function.njev,
        status=status.code,
        success=status.code == 0,
        message=message,
        x_last=last.x,
        fun_last=last.fun,
        optimizer=optimizer,
        rest=optimizer.rest(last.x) if all_finite(last.x) else last.x,
        **({"averaged": optimizer.averaged} if optimizer.t and _averages(optimizer) else {}),
        history=walk.journal.history(),
    )
    if settings.return_all:
        result.allvecs = list(search.path)
    if settings.disp:
        _display(result)
    return result


def _check_args(args: Any) -> None:
    """Refuse an optimizer, or the name of one, in the place of fun's further arguments."""
    (first,) = args if isinstance(args, tuple) and len(args) == 1 else (args,)
    is_name = isinstance(first, str) and first.lower() in map(str.lower, OPTIMIZERS)
    is_class = isinstance(first, type) and issubclass(first, Optimizer)
    if is_name or is_class or isinstance(first, (Optimizer, Rule, Link)):
        raise TypeError("The third argument of minimize is args, further ones of fun. An optimizer goes by name: "
                        f"minimize(fun, x0, method={shown(first)}).")


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
        f"Got {brief(method)}.{of_another(method)}"
    )


def _refuse(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is not None and not (isinstance(value, (tuple, list, dict)) and not value):
            raise ValueError(
                f"minimize takes no {name}: first-order optimizers use only the gradient and bounds. "
                f"Remove {name}, or choose a method of SciPy that uses it, such as trust-constr."
            )


def _reporter(callback: Callable[..., Any] | None) -> Callable[[Trial], bool]:
    """What tells the callback of a trial, in the form that SciPy reads off its signature; whether it asks to stop."""
    from scipy.optimize import OptimizeResult

    if callback is None:
        return lambda trial: False
    check_function(callback, "callback of minimize", "of x")
    try:
        names = set(inspect.signature(callback).parameters)
    except (TypeError, ValueError):  # some built-in functions have none
        names = set()
    if names == {"intermediate_result"}:
        return lambda trial: stops(callback, intermediate_result=OptimizeResult(x=trees.copy(trial.x), fun=trial.fun))
    return lambda trial: stops(callback, trees.copy(trial.x))


def _averages(optimizer: Optimizer) -> bool:
    return any(average in holder.chain.rules for holder in optimizer._stepper.holders.values())


def _trouble(walk: Walk, last: Trial) -> str:
    if walk.error is not None:
        return f"{type(walk.error).__name__} ({walk.error})"
    if not all_finite(last.x):
        return "x is not finite"
    no_value = walk.is_valued and not math.isfinite(last.fun)
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
    """Run as `scipy.optimize.minimize(fun, x0, method=optimizer)`, with the arguments that SciPy passes.

    Like SciPy's own first-order methods, it ignores second derivatives, which many programs pass to every method, and
    options of other methods, with a warning.
    """
    if x0 is None:
        name = type(optimizer).__name__
        raise TypeError(
            f"{name} is a method of scipy.optimize.minimize, which starts at an x0; minimize_scalar has none: call "
            f"scipy.optimize.minimize(fun, x0, method={name}(...)). To step parameters: opt.step(params, grads)."
        )
    if not callable(fun):
        raise TypeError(f"A call of {type(optimizer).__name__} is one of scipy.optimize.minimize, whose fun must be a "
                        f"function. Got {brief(fun)}. To step parameters: opt.step(params, grads).")
    manners = {name: options.pop(name) for name in _MANNERS if name in options}
    unknown = {name: options.pop(name) for name in sorted(options.keys() - Options.names())}
    unused = [f"{name}=" for name, value in (("hess", hess), ("hessp", hessp)) if value is not None]
    passed_over = [*unused, *(f"the option {name!r}" for name, value in unknown.items() if value is not None)]
    if passed_over:
        from scipy.optimize import OptimizeWarning

        known = ", ".join((*Options.names(), *_MANNERS))
        warn(f"{optimizer._title} does not use {', '.join(passed_over)}. Options of minimize: {known}.",
             OptimizeWarning)
    return minimize(fun, x0, args, optimizer, jac, bounds, callback, tol, options, constraints=constraints, **manners)

