"""What shapes are written with, in place of `if`, `min` and `math`: words for Python's numbers and for traced ones.

A number that JAX traces has no value yet, and no `if` can ask for it: both of what `where` chooses from are computed,
so what is not chosen must not fail either. On Python's numbers every word answers at once.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["cos", "maximum", "minimum", "piece", "power", "sqrt", "where", "within"]


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`: numbers, or tuples of them."""
    if condition is True:
        return a
    if condition is False:
        return b
    if isinstance(a, tuple):
        return tuple(where(condition, *both) for both in zip(a, b, strict=True))
    return _numpy().where(condition, a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller; the first of equal ones."""
    return where(b < a, b, a)


def maximum(a: Any, b: Any) -> Any:
    """The larger; the first of equal ones."""
    return where(b > a, b, a)


def within(value: Any, first: Any, last: Any) -> Any:
    """The value, brought between two others, of which either may be the smaller."""
    low, high = where(first < last, (first, last), (last, first))
    return where(value < low, low, where(value > high, high, value))


def piece(values: Sequence[Any], boundaries: Sequence[int], t: Any) -> Any:
    """`values[0]`, and from t = `boundaries[k]` on `values[k + 1]`: numbers, or tuples of them."""
    if isinstance(t, int):
        return values[bisect_right(boundaries, t)]
    jnp = _numpy()
    k = jnp.searchsorted(jnp.asarray(np.array(boundaries, float)), t, side="right", method="compare_all")
    return jnp.asarray(np.array(values, float)).T[..., k]


def power(base: Any, exponent: Any) -> Any:
    """`base**exponent` for a base ≥ 0, infinite if that is too large."""
    try:
        return base**exponent
    except OverflowError:  # which traced numbers do not raise
        return math.inf if base > 1 else 0.0


def sqrt(a: Any) -> Any:
    """The square root of a float ≥ 0."""
    return math.sqrt(a) if isinstance(a, float) else _numpy().sqrt(a)


def cos(a: Any) -> Any:
    """The cosine of a float."""
    return math.cos(a) if isinstance(a, float) else _numpy().cos(a)


def _numpy() -> Any:
    return sys.modules["jax"].numpy  # which is there, as what it traces is
