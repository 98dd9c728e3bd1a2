"""Numbers that follow IEEE 754 where Python raises, and formulas called with such: what engines compute."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Any

import numpy as np

__all__ = ["Formula", "Number", "plain", "power"]


def power(base: Any, exponent: Any) -> Any:
    """base**exponent; by repeated squaring if the exponent is whole, so that no two machines differ.

    The exponent is cut in two, so that of t, t + 1, ... only the small part has to be looked up again.

    >>> power(0.5, 3), power(2.0, -1), power(1.0, 10**18)
    (0.125, 0.5, 1.0)
    """
    if type(exponent) is not int:
        if not math.isfinite(exponent) or exponent != int(exponent):
            with np.errstate(all="ignore"):
                return np.float64(base) ** np.float64(exponent)
        exponent = int(exponent)
    if 0 <= exponent < 256:
        return _whole_power(base, exponent)
    n = abs(exponent)
    result = _whole_power(_whole_power(base, 256), n >> 8) * _whole_power(base, n & 255)
    return 1.0 / result if exponent < 0 else result


@lru_cache(maxsize=4096, typed=True)  # typed: NumPy's floats divide by zero, Python's raise
def _whole_power(base: Any, n: int) -> Any:
    result, square = type(base)(1.0), base * 1.0
    while n:
        if n & 1:
            result = result * square
        n >>= 1
        if n:
            square = square * square
    return result


class Number(float):
    """A Python float whose arithmetic is that of IEEE 754: 1/0 is inf, 0/0 NaN, and what is too large is inf.

    Like a float, and unlike NumPy's, it leaves the dtype of arrays alone.

    >>> Number(1) / 0, 0 / Number(0), Number(10) ** 400, 2 - Number(1)
    (inf, nan, inf, 1.0)
    """

    __slots__ = ()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*map(plain, inputs), **kwargs)

    def __neg__(self) -> Number:
        return Number(float.__neg__(self))

    def __abs__(self) -> Number:
        return Number(float.__abs__(self))

    def __pos__(self) -> Number:
        return self


def plain(value: Any) -> Any:
    """A number as Python's own, which leaves the dtype of arrays alone where a subclass of it does not."""
    return float(value) if isinstance(value, Number) else value


def _raised(base: Any, exponent: Any) -> Any:
    """What `**` makes of numbers, and of arrays."""
    return power(base, exponent) if isinstance(base, float) and isinstance(exponent, float) else base**exponent


def _arithmetic(function: Callable[[Any, Any], Any]) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    def computed(a: Any, b: Any) -> Any:
        if not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
            return function(plain(a), plain(b))
        with np.errstate(all="ignore"):
            return Number(function(np.float64(a), np.float64(b)))

    return computed, lambda a, b: computed(b, a)


for _name, _function in (("add", operator.add), ("sub", operator.sub), ("mul", operator.mul),
                         ("truediv", operator.truediv), ("pow", _raised)):  # fmt: skip
    _forward, _reflected = _arithmetic(_function)
    setattr(Number, f"__{_name}__", _forward)
    setattr(Number, f"__r{_name}__", _reflected)


class Formula:
    """A function that is called with arrays and numbers as an engine would call it: no exception, no warning."""

    __wrapped__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)

    def __call__(self, *args: Any, **hyper: Any) -> Any:
        hyper = {**(self.__wrapped__.__kwdefaults__ or {}), **hyper}
        with np.errstate(all="ignore"):
            return self.__wrapped__(*map(_followed, args), **dict(zip(hyper, map(_followed, hyper.values()))))

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":  # as yet
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)


def _followed(value: Any) -> Any:
    return Number(value) if type(value) in (int, float) else value
