"""What SciPy's users hand to `minimize`: options and x0, read once and checked."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fallline._arrays.containers import parted
from fallline._arrays.dtypes import CASTABLE
from fallline._arrays.leaves import number
from fallline._messages.suggestions import meant_argument
from fallline._messages.values import brief

__all__ = ["Options", "start"]


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
                raise ValueError(f"Unknown option {name!r} of minimize. Known options: {', '.join(cls.names())}."
                                 f"{meant_argument('minimize', name, cls.names())}")
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
    leaves, spec = parted(x0, _is_numbers)
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
