"""The function that `minimize` descends: fun and its gradient, called as SciPy calls them and counted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.dtypes import LACKED, kept
from fallline._arrays.leaves import host, is_foreign, number
from fallline._loops.box import Box
from fallline._messages.remedies import as_array, is_masked
from fallline._messages.values import brief

__all__ = ["Differences", "Joint", "Objective", "Separate", "Slopes", "objective", "unknown"]

METHODS = ("2-point", "3-point", "cs")


def objective(fun: Callable[..., Any] | None, jac: Any, args: Any, box: Box, rel_step: Any) -> Objective:
    """What `jac` asks for: True, a function, None or one of SciPy's finite differences."""
    args = args if isinstance(args, tuple) else (args,)
    if fun is None and callable(jac):
        return Slopes(jac, args)
    if not callable(fun):
        alone = " (None where jac is a function, and gradients are all there is)"
        raise TypeError(f"fun of minimize must be a function of x{alone * (fun is None)}. Got {type(fun).__name__}.")
    if jac is True:
        return Joint(fun, args)
    if callable(jac):
        return Separate(fun, args, jac)
    if jac is None or jac is False or (isinstance(jac, str) and jac in METHODS):
        return Differences(fun, args, jac or METHODS[0], box, rel_step)
    raise ValueError(
        "jac of minimize must be a function, True (fun returns value and gradient), None or one of "
        f"{', '.join(METHODS)}. Got {brief(jac)}."
    )


def unknown(x: Any) -> Any:
    """A gradient where there is none."""
    leaves, treedef = trees.flatten(x)
    return treedef.unflatten([np.full_like(leaf, math.nan) for leaf in leaves])


class Objective(ABC):
    """Value and gradient at x, after t steps; a gradient of NaN where x or the value is not finite already.

    Every call gets a copy of x of its own, as in SciPy, so that fun may keep or change what it is given, and with
    batches that of the step behind it.
    """

    batches: Callable[[int], Any] | None = None

    def __init__(self, fun: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.fun = fun
        self.args = self._given = args
        self.nfev = self.njev = 0

    def __call__(self, x: Any, t: int) -> tuple[float | None, Any]:
        if self.batches is not None:
            self.args = (self.batches(t), *self._given)
        # Not called where it need not be defined: a diverging run ends with a status, not with fun's exception.
        finite = all(np.isfinite(leaf).all() for leaf in trees.flatten(x)[0])
        value, grad = self._evaluate(x) if finite else (math.nan, None)
        return value, unknown(x) if grad is None else grad

    @abstractmethod
    def _evaluate(self, x: Any) -> tuple[float | None, Any]:
        """Value, if there is one, and gradient, None if the value is not finite, where x is."""

    def _call(self, x: Any) -> Any:
        self.nfev += 1
        return self.fun(trees.copy(x), *self.args)


class Joint(Objective):
    """fun returns the value, or None, and the gradient."""

    def _evaluate(self, x: Any) -> tuple[float | None, Any]:
        self.njev += 1
        result = self._call(x)
        try:
            value, grad = result
        except (TypeError, ValueError):
            raise TypeError(
                f"fun of minimize with jac=True must return (value, gradient). Got {type(result).__name__}."
            ) from None
        grad = _gradient(grad, x, "fun")
        if value is None:
            return None, grad
        value = _value(_scalar(value))
        return value, grad if math.isfinite(value) else None


class Separate(Objective):
    """jac is a function of its own."""

    def __init__(self, fun: Callable[..., Any], args: tuple[Any, ...], jac: Callable[..., Any]) -> None:
        super().__init__(fun, args)
        self.jac = jac

    def _evaluate(self, x: Any) -> tuple[float, Any]:
        value = _value(_scalar(self._call(x)))
        if not math.isfinite(value):
            return value, None
        self.njev += 1
        grad = self.jac(trees.copy(x), *self.args)
        try:
            return value, _gradient(grad, x, "jac")
        except (TypeError, ValueError) as error:
            if not _is_pair(grad):
                raise
            hint = "If it is (value, gradient), pass that function as fun, with jac=True."
            raise type(error)(f"{error} {hint}") from None


class Slopes(Objective):
    """Gradients alone."""

    def _evaluate(self, x: Any) -> tuple[None, Any]:
        self.njev += 1
        return None, _gradient(self.fun(trees.copy(x), *self.args), x, "jac")


class Differences(Objective):
    """The gradient by SciPy's finite differences, leaf by leaf, so that each has the steps of its own precision."""

    def __init__(self, fun: Callable[..., Any], args: tuple[Any, ...], method: str, box: Box, rel_step: Any) -> None:
        super().__init__(fun, args)
        self.method = method
        self.box = box
        self.rel_step = rel_step

    def _evaluate(self, x: Any) -> tuple[float, Any]:
        fx = _scalar(self._call(x))
        value = _value(fx)
        if not math.isfinite(value):
            return value, None
        self.njev += 1
        leaves, treedef = trees.flatten(x)
        return value, treedef.unflatten([self._partial(leaves, treedef, i, fx) for i in range(len(leaves))])

    def _partial(self, leaves: list[np.ndarray], treedef: Any, i: int, fx: Any) -> np.ndarray:
        from scipy.optimize._numdiff import approx_derivative  # what scipy.optimize.minimize itself calls

        leaf = leaves[i]
        low, high = self.box[i] if self.box else (np.full_like(leaf, -math.inf), np.full_like(leaf, math.inf))
        free = low < high  # a coordinate that its bounds hold has no room for a difference
        grad = np.zeros_like(leaf)
        if not free.any():
            return grad
        users = np.geterr()

        def of_free(part: np.ndarray) -> Any:
            moved = leaf.astype(part.dtype)  # complex for "cs"
            moved[free] = part
            with np.errstate(**users):
                return _scalar(self._call(treedef.unflatten([*leaves[:i], moved, *leaves[i + 1 :]])))

        with np.errstate(all="ignore"):  # infinity minus infinity between two points of a steep fun
            grad[free] = approx_derivative(
                of_free, leaf[free], method=self.method, rel_step=self._steps(leaves, i, free), f0=fx,
                bounds=(low[free], high[free]),
            )  # fmt: skip
        return grad

    def _steps(self, leaves: list[np.ndarray], i: int, free: np.ndarray) -> Any:
        """The part of rel_step that is for the free coordinates of leaf i, where there is one per coordinate."""
        if self.rel_step is None or np.ndim(self.rel_step) == 0:
            return self.rel_step
        steps = np.ravel(self.rel_step)
        size = sum(leaf.size for leaf in leaves)
        if steps.size != size:
            raise ValueError(
                f"finite_diff_rel_step of minimize must be a number or one for each of the {size} parameters. "
                f"Got {steps.size}."
            )
        at = sum(leaf.size for leaf in leaves[:i])
        return steps[at : at + leaves[i].size].reshape(free.shape)[free]


def _scalar(raw: Any) -> Any:
    """What fun returned, out of its array and in its own precision, which is what SciPy's steps depend on."""
    if isinstance(raw, (float, np.floating)):
        return raw
    array = _array(raw)
    if array is None or array.size != 1:
        hint = " If it is (value, gradient), pass jac=True." if _is_pair(raw) else ""
        raise ValueError(f"fun of minimize must return one real number. Got {_shown(raw)}.{hint}")
    return array.reshape(())[()]


def _value(scalar: Any) -> float:
    return number(scalar, "fun of minimize must return one real number")


def _gradient(raw: Any, x: Any, source: str) -> Any:
    """The gradient as new arrays in the shapes and dtypes of x: the caller may use a buffer of its own again."""
    if isinstance(x, np.ndarray):
        return _like(raw, x, source)
    leaves, treedef = trees.flatten(x)
    grads = treedef.flatten_like(raw, f"The gradient from {source} of minimize", "x0")
    return treedef.unflatten([_like(g, leaf, source) for g, leaf in zip(grads, leaves)])


def _like(raw: Any, leaf: np.ndarray, source: str) -> np.ndarray:
    grad = _array(raw)
    if grad is None or grad.dtype.kind not in "biuf":
        got = f"{_shown(raw)}{as_array(raw)}"
        raise TypeError(f"The gradient from {source} of minimize must be real numbers. Got {got}.")
    if grad.shape != leaf.shape and not grad.size == leaf.size == 1:
        raise ValueError(
            f"The gradient from {source} of minimize must have shape {leaf.shape}, like x. Got {grad.shape}."
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinity, and found out as such
        return np.array(grad, dtype=leaf.dtype).reshape(leaf.shape)


def _array(raw: Any) -> np.ndarray | None:
    """What fun or jac returned, as an array; None for what cannot be read as one: rows of different lengths, what is
    masked, arrays of other libraries that have no numbers here."""
    if is_masked(raw):
        return None
    try:
        array = np.asarray(raw) if is_foreign(raw) else host(raw)
        return array.astype(kept(array.dtype)) if array.dtype.name in LACKED else array
    except Exception:  # of whatever library
        return None


def _is_pair(raw: Any) -> bool:
    return isinstance(raw, (tuple, list)) and len(raw) == 2


def _shown(raw: Any) -> str:
    shape = getattr(raw, "shape", None)
    return type(raw).__name__ if shape is None else f"{type(raw).__name__} of shape {tuple(shape)}"
