"""What SciPy's users hand to `minimize`: options, x0 and bounds, read once and checked."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.dtypes import CASTABLE
from fallline._loops.descend import number
from fallline._messages.values import brief

__all__ = ["Box", "Options", "box_of", "clip", "held", "largest", "projected", "start"]

Box = list[tuple[np.ndarray, np.ndarray]]  # lower and upper bounds, one pair of arrays per leaf; empty: no bounds


@dataclass(frozen=True)
class Options:
    """The options of `minimize` with their defaults; None means off."""

    maxiter: int = 10_000
    gtol: float = 1e-5
    ftol: float | None = None
    xtol: float | None = None
    disp: bool = False
    return_all: bool = False
    finite_diff_rel_step: Any = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What options there are."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def read(cls, options: Mapping[str, Any] | None, tol: float | None) -> Options:
        """The options given, `tol` standing for gtol where that is not among them."""
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"options of minimize must be a dict. Got {type(options).__name__}.")
        given = {name: value for name, value in (options or {}).items() if value is not None}
        for name in given:
            if name not in cls.names():
                raise ValueError(f"Unknown option {name!r} of minimize. Known options: {', '.join(cls.names())}.")
        if tol is not None:
            given.setdefault("gtol", tol)
        for name in {"gtol", "ftol", "xtol"} & given.keys():
            given[name] = number(given[name], f"{name} of minimize must be a number ≥ 0")
            if not given[name] >= 0:
                raise ValueError(f"{name} of minimize must be a number ≥ 0. Got {given[name]}.")
        if "maxiter" in given:
            given["maxiter"] = _count(given["maxiter"])
        return cls(**given)


def _count(maxiter: Any) -> int:
    try:
        count = operator.index(maxiter)
    except TypeError:
        raise TypeError(f"maxiter of minimize must be a whole number ≥ 0. Got {maxiter!r}.") from None
    if count < 0:
        raise ValueError(f"maxiter of minimize must be a whole number ≥ 0. Got {maxiter!r}.")
    return count


def start(x0: Any) -> Any:
    """A fresh copy of x0 in floating arrays: numbers and lists of numbers become one array each, trees stay trees."""
    if hasattr(x0, "__array__") or _is_numbers(x0):
        return np.atleast_1d(_floats(x0))
    import optree

    leaves, spec = optree.tree_flatten(x0, is_leaf=_is_numbers)
    if not leaves:
        raise TypeError(f"x0 of minimize must be real numbers or a tree of arrays of them. Got {brief(x0)}.")
    return spec.unflatten(map(_floats, leaves))


def _is_numbers(node: Any) -> bool:
    return _shape(node) is not None


def _shape(node: Any) -> tuple[int, ...] | None:
    """The shape of a number or of a rectangular list of numbers; None for anything else."""
    if isinstance(node, (int, float, np.number)):
        return ()
    if type(node) not in (list, tuple):
        return None
    shapes = set(map(_shape, node)) or {()}
    inner = shapes.pop()
    return None if shapes or inner is None else (len(node), *inner)


def _floats(leaf: Any) -> np.ndarray:
    """A new array; floating dtypes stay, whole numbers become float64."""
    try:
        array = np.asarray(leaf)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"x0 of minimize must be real numbers or a tree of arrays of them: {error}") from None
    if array.dtype.kind == "c":
        raise TypeError("x0 of minimize must be real, as SciPy's minimisers have it: pass the real and the imaginary "
                        f"part as arrays of their own, (z.real, z.imag). Got {array.dtype}.")  # fmt: skip
    if array.dtype.name in CASTABLE and array.dtype.name not in ("float16", "float32", "float64"):
        raise TypeError("x0 of minimize must be float16, float32 or float64, which SciPy's finite differences and "
                        f"bounds know: convert it, x0.astype(np.float64). Got {array.dtype}.")  # fmt: skip
    if array.dtype.kind not in "iuf" or isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(
            "x0 of minimize must be real numbers or a tree of arrays of them. "
            f"Got {type(leaf).__name__} of dtype {array.dtype}."
        )
    return array.astype(array.dtype if array.dtype.kind == "f" else np.float64)  # a copy in any case


def box_of(bounds: Any, x: Any) -> Box:
    """SciPy's bounds, over the raveled leaves in order, as one pair of arrays per leaf in its shape and dtype."""
    if bounds is None:
        return []
    leaves = trees.flatten(x)[0]
    size = sum(leaf.size for leaf in leaves)
    low, high = _limits(bounds, size)
    if not (low <= high).all():
        i = int(np.argmin(low <= high))
        raise ValueError(f"bounds of minimize must have lower ≤ upper. Got ({low[i]}, {high[i]}) at index {i}.")
    with np.errstate(over="ignore"):  # a bound beyond the leaf's dtype is no bound
        return list(zip(_like(low, leaves), _like(high, leaves)))


def _like(vector: np.ndarray, leaves: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    at = 0
    for leaf in leaves:
        yield vector[at : at + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
        at += leaf.size


def _limits(bounds: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        if hasattr(bounds, "lb"):
            low, high = np.broadcast_to(bounds.lb, size), np.broadcast_to(bounds.ub, size)
        else:
            pairs = [(-math.inf if low is None else low, math.inf if high is None else high) for low, high in bounds]
            low, high = np.array(pairs, dtype=np.float64).reshape(size, 2).T
        return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds of minimize must be scipy.optimize.Bounds or a (lower, upper) pair for each of the {size} "
            f"parameters, None for no bound. Got {brief(bounds)}."
        ) from None


def held(box: Box, x: Any, places: Sequence[int]) -> Box:
    """The box with the leaves at some places held where they are: those that no optimizer steps."""
    leaves = trees.flatten(x)[0]
    if not places:
        return box
    box = box or [(np.full_like(leaf, -math.inf), np.full_like(leaf, math.inf)) for leaf in leaves]
    return [(leaf.copy(), leaf.copy()) if k in places else own for k, (leaf, own) in enumerate(zip(leaves, box))]


def clip(x: Any, box: Box) -> None:
    """Project x into the box, in place."""
    for leaf, (low, high) in zip(trees.flatten(x)[0], box):
        np.minimum(np.maximum(leaf, low, out=leaf), high, out=leaf)


def projected(x: Any, grad: Any, box: Box, uphill: bool) -> list[np.ndarray]:
    """x - clip(x - g), uphill x - clip(x + g): the gradient, but for what the bounds forbid; free of that form's
    cancellation."""
    leaves, grads = trees.flatten(x)[0], trees.flatten(grad)[0]
    with np.errstate(over="ignore"):  # the distance between -1e308 and 1e308
        grads = [-g for g in grads] if uphill else grads
        return [np.minimum(np.maximum(g, leaf - high), leaf - low) for leaf, g, (low, high) in zip(leaves, grads, box)]


def largest(leaves: Sequence[np.ndarray]) -> float:
    """The max-norm over all leaves; NaN if any element is."""
    norms = [float(np.abs(leaf).max(initial=0.0)) for leaf in leaves]
    return math.nan if any(map(math.isnan, norms)) else max(norms, default=0.0)
