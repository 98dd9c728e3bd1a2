"""How numbers lie in memory, in LLVM's words, and how those of 16 bits become floats and floats become them.

By operations on integers: LLVM's own conversions flush subnormals, or crash, on processors that lack them or have them
only in part. To nearest, ties to even; what is too large becomes infinite; NaN stays NaN.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fallline._arrays.dtypes import DTYPES, computed
from fallline._engines.llvm.function import Function, Value

__all__ = ["REAL", "STORED", "Stored", "conversions", "load", "operate", "store"]

REAL = {"float32": "float", "float64": "double"}
"""The types that are computed in."""


class Stored(NamedTuple):
    """How a dtype is stored: the type that is loaded and stored, the integers of its size, and the bits of infinity."""

    type: str
    integer: str
    infinity: int

    @property
    def size(self) -> int:
        """Of a number, in bytes."""
        return int(self.integer[1:]) // 8

    @property
    def magnitude(self) -> int:
        """All bits but the sign's. Numbers that are not finite are those of infinity's magnitude or more."""
        return (1 << 8 * self.size - 1) - 1


STORED = {
    "float16": Stored("i16", "i16", 0x7C00),
    "bfloat16": Stored("i16", "i16", 0x7F80),
    "float32": Stored("float", "i32", 0x7F800000),
    "float64": Stored("double", "i64", 0x7FF0000000000000),
}


def load(f: Function, pointer: Value, k: Value, stored: Stored, real: str) -> Value:
    """The k-th number, as `real`."""
    value = pointer.load(stored.type, k)
    return value if stored.type == real else f.call(real, "widen", value)


def store(f: Function, value: Value, pointer: Value, k: Value, stored: Stored) -> None:
    """Have the k-th number be a value that was computed in."""
    pointer.store(value if stored.type == value.kind else f.call(stored.type, "narrow", value), k)


def operate(f: Function, op: str, operands: Sequence[Value]) -> Value:
    """What a program's instruction comes to, of those that LLVM has."""
    if op == "where":
        condition, yes, no = operands
        return condition.choose(yes, no)
    if op in _INTRINSICS:
        kind = operands[0].kind
        return f.intrinsic(kind, f"{_INTRINSICS[op]}.{'f32' if kind == 'float' else 'f64'}", *operands)
    return _OPERATIONS[op](*operands)


_INTRINSICS = {"sqrt": "sqrt", "abs": "fabs"}
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "neg": operator.neg,
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": Value.equals, "ne": Value.differs,
}  # fmt: skip


def conversions(dtype: np.dtype) -> str:
    """The functions `widen` and `narrow` of a dtype that is not computed in itself, else nothing."""
    if computed(dtype) == dtype:
        return ""
    (widen, narrow), kind = _CONVERSIONS[dtype.name], STORED[dtype.name].type
    f = Function(f"internal float @widen({kind}) alwaysinline")
    g = Function(f"internal {kind} @narrow(float) alwaysinline")
    f.ret(widen(f.arguments[0].cast("zext", "i32")).cast("bitcast", "float"))
    g.ret(narrow(g.arguments[0].cast("bitcast", "i32")).cast("trunc", kind))
    return f.text() + g.text()


# bits to bits, as i32 each. Ties go to even as the last bit that stays is added to a little less than half of it


def _widen_bfloat16(short: Value) -> Value:
    return short << 16


def _narrow_bfloat16(bits: Value) -> Value:
    high = bits >> 16
    rounded = (bits + ((high & 1) + 0x7FFF)) >> 16
    return _is_nan(bits).choose((high & 0x8000) | 0x7FC0, rounded)


# exponents differ by 112. A subnormal half is a whole number of 2**-24, the unit in the last place of 0.5


def _widen_float16(short: Value) -> Value:
    size = short & 0x7FFF
    shifted = size << 13
    large = (size >= _INFINITE).choose(shifted + (224 << 23), shifted + (112 << 23))
    small = (size.cast("sitofp", "float") * 2.0**-24).cast("bitcast", "i32")
    return ((short & 0x8000) << 16) | (size < 1 << 10).choose(small, large)


def _narrow_float16(bits: Value) -> Value:
    size = bits & 0x7FFFFFFF
    rounded = ((size + (((size >> 13) & 1) + 0xFFF)) >> 13) - (112 << 10)
    normal = rounded.compare("ult", _INFINITE).choose(rounded, _INFINITE)
    small = (size.cast("bitcast", "float") + 0.5).cast("bitcast", "i32") - (126 << 23)
    finite = (size < 113 << 23).choose(small, normal)
    return ((bits >> 16) & 0x8000) | (~_is_nan(bits)).choose(finite, 0x7E00)


def _is_nan(bits: Value) -> Value:
    return (bits & 0x7FFFFFFF) > 0x7F800000


_INFINITE = STORED["float16"].infinity
_CONVERSIONS = {"bfloat16": (_widen_bfloat16, _narrow_bfloat16), "float16": (_widen_float16, _narrow_float16)}


if _LACKING := [row.name for row in DTYPES.values() if row.real not in STORED or row.computed not in REAL
                or (row.real != row.computed and row.real not in _CONVERSIONS)]:  # fmt: skip
    raise LookupError(f"{__name__} says nothing of {', '.join(_LACKING)}, which the table of dtypes has.")
