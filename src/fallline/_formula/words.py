"""The vocabulary of formulas: arithmetic, comparison, sqrt, abs, sign, maximum, minimum, where, root, total, norm; log,
exp and powers of scalars.

Every word works on numbers, on the symbols of a formula that is being traced, and on arrays of any library.
On arrays there is nothing here but operations that IEEE 754 rounds exactly (or that only choose), which is why
engines, machines and chunkings agree to the bit. Powers, log and exp are for scalars only. What is built of others
(`maximum`, `root`, ...) is written once, below, and traced through, so that no engine has an opinion on it.
"""

from __future__ import annotations

import builtins
import math
import operator
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from fallline._arrays.namespaces import namespace
from fallline._formula.ieee import Number, plain
from fallline._formula.symbols import OF_NUMPY, Arrival, Symbol, build
from fallline.errors import FormulaError

__all__ = ["abs", "exp", "kept", "log", "maximum", "minimum", "norm", "root", "sign", "sqrt", "tiny", "total", "where"]


def sqrt(a: Any) -> Any:
    """Return the square root; NaN below 0.

    >>> sqrt(9.0)
    3.0
    """
    if isinstance(a, Symbol):
        return build("sqrt", a)
    xp = namespace(a)
    if xp is None:
        return Number(math.sqrt(a) if a >= 0 else math.nan)
    return xp.sqrt(a)


def log(a: Any) -> Any:
    """Return the natural logarithm of a scalar; -inf at 0, NaN below. Another machine may differ in the last bit.

    Raises FormulaError for arrays.

    >>> log(1.0), log(0.0)
    (0.0, -inf)
    """
    if isinstance(a, Symbol):
        return build("log", a)
    _only_number("log", a)
    return Number(math.log(a) if a > 0 else -math.inf if a == 0 else math.nan)


def exp(a: Any) -> Any:
    """Return e to the power of a scalar; inf if that is too large. Another machine may differ in the last bit.

    Raises FormulaError for arrays.

    >>> exp(0.0), exp(1000.0)
    (1.0, inf)
    """
    if isinstance(a, Symbol):
        return build("exp", a)
    _only_number("exp", a)
    try:
        return Number(math.exp(a))
    except OverflowError:
        return Number(math.inf)


def _only_number(word: str, a: Any) -> None:
    if not isinstance(a, (int, float, np.integer, np.floating)):
        raise FormulaError(f"{word} is for single numbers. Got {type(a).__name__}.")


def abs(a: Any) -> Any:
    """Return the magnitude.

    >>> abs(-2.0)
    2.0
    """
    return builtins.abs(a)


def where(condition: Any, a: Any, b: Any) -> Any:
    """Return `a` where the condition holds, else `b`, element by element.

    >>> where(2 > 1, 10.0, 20.0)
    10.0
    """
    if builtins.any(isinstance(v, Symbol) for v in (condition, a, b)):
        if isinstance(condition, (builtins.bool, np.bool)):
            return a if condition else b
        return build("where", condition, a, b)
    xp = namespace(condition, a, b)
    if xp is None:
        return Number(a if condition else b)
    if xp is not np and isinstance(condition, (builtins.bool, np.bool)):
        condition = xp.asarray(condition)
    return xp.where(condition, plain(a), plain(b))


def _reduced(values: Any, kind: str, over: str) -> Any:
    """The sum of values, or of their squares, over all coordinates of a leaf or of the tree, in double precision."""
    if not isinstance(over, str) or over not in SCOPES:
        raise FormulaError(f'A sum is over "leaf" or over "tree". Got {over!r}.')
    if isinstance(values, Symbol):
        if not values.array or values.truth:
            raise FormulaError("total and norm take values per coordinate, such as g or m*g, and make one number.")
        return Symbol("reduce", (values, kind, over), array=False)
    if _at_work.get() == TRACED:
        raise FormulaError("total and norm take values per coordinate, such as g or m*g, and make one number. (The "
                           f"number of coordinates is total(0*g + 1).) Got {_brief(values)}.")
    if _at_work.get() == WHOLE_LEAF and over == "tree":
        raise FormulaError('A whole-leaf rule sees one leaf at a time and cannot sum over the tree: write over="leaf", '
                           'or a formula, which can.')
    each = _plain(values)
    with np.errstate(all="ignore"):
        return Number(np.sum(each if kind == "sum" else np.square(each * SCALES[kind])))


def _plain(values: Any) -> np.ndarray:
    """Numbers outside of a formula in double precision."""
    each = np.asarray(values)
    if each.dtype.kind in "cOUSMm":
        remedy = ": a complex one is a pair of reals, z.view(float)" if each.dtype.kind == "c" else ""
        raise FormulaError(f"total and norm take an array of real numbers{remedy}. Got {type(values).__name__}.")
    return each.astype(np.float64)


def _brief(values: Any) -> str:
    return repr(values) if isinstance(values, (int, float)) else type(values).__name__


TRACED, WHOLE_LEAF = "traced", "whole leaf"
_at_work: ContextVar[str | None] = ContextVar("_at_work", default=None)


@contextmanager
def at_work(kind: str) -> Iterator[None]:
    """Have words know that a formula is TRACED, or that a function of a WHOLE_LEAF runs, and refuse what is wrong there
    and would be right elsewhere."""
    token = _at_work.set(kind)
    try:
        yield
    finally:
        _at_work.reset(token)


SCOPES = ("leaf", "tree")
SMALL = 2.0**-900  # a sum of squares of float64 below which squares may have vanished
SCALES = {"squares": 1.0, "high": 2.0**-600, "low": 2.0**600}  # what values are multiplied by before they are squared


def total(values: Any, over: str = "tree") -> Any:
    """Sum the coordinates of each leaf, or of all leaves of the tree, to one number in double precision.

    The order of summation is fixed (blocks, lanes, then a tree), so the result is the same for any number of threads.
    Outside a formula, where no tree is known, it sums the array it is given, of any shape.

    Raises FormulaError for any other `over`, and if the argument is no array of real numbers.

    >>> total(np.array([1.0, 2.0, 3.5]))
    6.5
    """
    return _reduced(values, "sum", over)


def tiny(like: Any) -> Any:
    """The smallest normal number of the dtype that `like` is computed in.

    >>> tiny(1.0)
    2.2250738585072014e-308
    """
    if isinstance(like, Symbol):
        return Symbol("tiny", (), array=False) if like.array else sys.float_info.min
    xp = namespace(like)
    return sys.float_info.min if xp is None else float(xp.finfo(like.dtype).smallest_normal)


# ---- built of the words above, once, for every engine ----------------------------------------------------------------


def maximum(a: Any, b: Any) -> Any:
    """Return the larger value; NaN if either is. Of two equal values (+0 and -0), return the second.

    >>> maximum(1.0, 2.0)
    2.0
    """
    return where(a > b, a, where(a == a, b, a))


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller value; NaN if either is. Of two equal values (+0 and -0), return the second.

    >>> minimum(1.0, 2.0)
    1.0
    """
    return where(a < b, a, where(a == a, b, a))


def sign(a: Any) -> Any:
    """Return 1 above 0, -1 below 0, 0 at ±0, NaN at NaN.

    >>> sign(-3.0)
    -1.0
    """
    return where(a > 0, 1.0, where(a < 0, -1.0, where(a == 0, 0.0, a)))


def kept(u: Any, m: Any) -> Any:
    """u, by which m can be divided: never 0, and not below 10⁻⁶·|m|. Where u fades sooner than m, their quotient would
    grow without end once gradients stop.

    >>> kept(0.5, 2.0), kept(0.0, 2.0), kept(0.0, 0.0) > 0
    (0.5, 2e-06, True)
    """
    return _above(u, m, tiny(u))


def root(v: Any, m: Any = None) -> Any:
    """Return √max(v, tiny), by which m can be divided; if m is given, not below 10⁻⁶·|m|.

    >>> root(4.0), root(0.0) > 0, root(0.0, 2.0)
    (2.0, True, 2e-06)
    """
    return sqrt(maximum(v, tiny(v))) if m is None else _above(sqrt(v), m, sqrt(tiny(v)))


def _above(u: Any, m: Any, least: Any) -> Any:
    """The largest of u, 10⁻⁶·|m| and a number, in the fewest operations: if u is NaN, m is."""
    share = 1e-6 * abs(m)
    bound = where(share > least, share, least)
    return where(u > bound, u, bound)


def norm(values: Any, over: str = "tree") -> Any:
    """Return √(Σ values²) over the coordinates of each leaf, or of the tree: one number, in double precision.

    Where squares would overflow or underflow float64, the values are scaled first.

    Raises FormulaError as `total` does.

    >>> norm(np.array([3.0, 4.0])), norm(np.array([3e300, 0.0]))
    (5.0, 3e+300)
    """
    return norm_in(1.0, values, over)


def shortened(values: Any, most: Any) -> Any:
    """Values of which the norm of the tree is at most that: values·most/max(|values|, most). A factor below 2⁻¹⁰⁰, near
    the least that float32 has, is applied in two parts, so that what is finite keeps its full precision."""
    factor = most / maximum(norm(values), most)
    far = factor < 2**-100
    return values * where(far, 2**-96, 1) * where(far, most / norm_in(2**96, values), factor)


def norm_in(unit: float, values: Any, over: str = "tree") -> Any:
    """The norm in a unit, a power of two, for norms that may be larger than any number."""
    squares, high, low = (_reduced(values, kind, over) for kind in SCALES)
    large = where(squares < math.inf, sqrt(squares) / unit, sqrt(high) / (SCALES["high"] * unit))
    return where(squares >= SMALL, large, sqrt(low) / (SCALES["low"] * unit))


def flush(v: Any) -> Any:
    """What a state element is stored as: 0 in place of a subnormal number, which would stick and slow every step."""
    return where(builtins.abs(v) < tiny(v), 0.0, v)


def begun(state: Any, start: Any) -> Any:
    """A state that starts at an array: that array where the state is NaN still, as before a leaf's first step."""
    return where(state == state, state, start)


def settle(d: Any) -> Any:
    """An increment of ±0 as -0, the one number whose addition changes no bit of any other (-0 + 0 is +0)."""
    return d if isinstance(d, Arrival) else where(d == 0, -0.0, d)


def arrive(y: Any, x: Any) -> Any:
    """The increment that brings the parameter x to y, exactly."""
    return Arrival(y, x) if isinstance(y, Symbol) else y - x


OF_NUMPY.update({
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "power": operator.pow, "negative": operator.neg, "positive": operator.pos, "absolute": abs, "fabs": abs,
    "sqrt": sqrt, "log": log, "exp": exp, "sign": sign, "maximum": maximum, "minimum": minimum,
    "square": lambda a: a * a, "less": operator.lt, "less_equal": operator.le, "greater": operator.gt,
    "greater_equal": operator.ge, "equal": operator.eq, "not_equal": operator.ne,
    "where": where,
})  # fmt: skip
